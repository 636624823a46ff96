//! Services: work beside the clients that runs on the process's main thread from its start to its end.
//!
//! The main thread serves no clients, so neither delays the other, and services outlive them. A new service is a file
//! with this trait and an entry in `run::services`.

use std::future::Future;
use std::pin::Pin;

use tokio::time::Instant;

/// One service. Each has a `start` of its own, which takes the parts it needs.
pub(super) trait Service {
    /// The configuration in force has changed.
    fn reload(&self);

    /// Ends it, at `deadline` at the latest.
    fn finish(self: Box<Self>, deadline: Instant) -> Pin<Box<dyn Future<Output = ()>>>;
}
