//! Services: work beside the clients that runs on the process's main thread from its start to its end.
//!
//! The main thread serves no clients, so neither delays the other, and services outlive them. A new service is a file
//! with this trait and an entry in `run::services`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// One service. Each has a `start` of its own, which takes the parts it needs.
pub(super) trait Service {
    /// The configuration in force has changed.
    fn reload(&self);

    /// Ends it, at `deadline` at the latest.
    fn finish(self: Box<Self>, deadline: Instant) -> Pin<Box<dyn Future<Output = ()>>>;
}

/// A service that is one task: it is told of reloads until it is stopped, and waited for.
#[derive(Debug)]
pub(super) struct TaskService {
    reloaded: Arc<Notify>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl TaskService {
    /// Runs `work`, which gets what tells it of reloads and of its end.
    pub(super) fn start<F>(work: impl FnOnce(Arc<Notify>, CancellationToken) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (reloaded, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let task = tokio::spawn(work(Arc::clone(&reloaded), stop.clone()));
        Self { reloaded, stop, task }
    }
}

impl Service for TaskService {
    fn reload(&self) {
        self.reloaded.notify_one();
    }

    fn finish(self: Box<Self>, _deadline: Instant) -> Pin<Box<dyn Future<Output = ()>>> {
        self.stop.cancel();
        Box::pin(async move {
            let _ = self.task.await;
        })
    }
}
