//! The threads that serve clients: a current-thread runtime each, an inbox, and a coarse clock.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

use crate::pool::clock::TICK;
use crate::pool::server_role;
use crate::proxy::Proxy;
use crate::session::context::{Inbox, Job, Worker};
use crate::topology::supervisor::supervise;

/// Connections that may wait for a worker to take them in; beyond that the acceptor waits.
const INBOX: usize = 1024;

/// Threads for blocking work of one worker: password hashing and name resolution.
const BLOCKING_THREADS: usize = 4;

/// Starts worker `id` on a thread of its own. It ends when all its inboxes are dropped.
pub(super) async fn start(id: usize, proxy: Arc<Proxy>) -> io::Result<Inbox> {
    let (jobs, inbox) = mpsc::channel::<Job>(INBOX);
    let (tell, started) = oneshot::channel();
    let load = Arc::clone(&proxy.loads[id]);
    std::thread::Builder::new().name(format!("worker-{id}")).spawn(move || {
        let mut builder = Builder::new_current_thread();
        let built = builder.enable_all().max_blocking_threads(BLOCKING_THREADS).build_local(LocalOptions::default());
        match built {
            Ok(runtime) => {
                let _ = tell.send(Ok(()));
                runtime.block_on(work(Rc::new(Worker::new(id, proxy)), inbox));
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        }
    })?;
    started.await.map_err(io::Error::other)??;
    Ok(Inbox::new(jobs, load))
}

async fn work(worker: Rc<Worker>, mut inbox: mpsc::Receiver<Job>) {
    tokio::task::spawn_local(keep(Rc::clone(&worker)));
    if worker.id == 0 {
        tokio::task::spawn_local(follow_names(Rc::clone(&worker)));
        tokio::task::spawn_local(supervise(worker.proxy.supervised(worker.id)));
    }
    while let Some(job) = inbox.recv().await {
        job(Rc::clone(&worker));
    }
}

/// Looks for failovers that only DNS shows.
async fn follow_names(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(server_role::RESOLVE_EVERY).await;
        server_role::follow_names(&worker.proxy.pools, worker.id).await;
    }
}

/// The coarse clock of a worker: it looks after pools and idle backends.
pub(super) async fn keep(worker: Rc<Worker>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        worker.load.set_busy(cpu_time());
        worker.proxy.tick(worker.id);
        if let Some(flight) = &worker.flight {
            flight.give();
        }
    }
}

/// CPU time of this thread since its start.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
