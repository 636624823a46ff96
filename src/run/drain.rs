//! The end of the process: clients are asked to leave, then made to, then left behind.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use crate::proxy::Proxy;
use crate::session::context::Inbox;

/// How often a shutdown looks whether everybody has gone.
const LOOK: Duration = Duration::from_millis(20);

/// The two signals that end the process.
pub(super) struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Takes nobody new in. Clients are left alone for `linger`, and then asked to leave when their transaction ends; until
/// all have left, or the time is up, or a second signal comes. Returns when the time is up.
pub(super) async fn leave(proxy: &Proxy, inboxes: &[Inbox], stops: &mut Stops) -> Instant {
    let (linger, limit) = {
        let listen = &proxy.config.load().listen;
        (listen.linger, listen.shutdown_timeout)
    };
    tracing::info!(clients = proxy.clients.len(), ?linger, ?limit, "draining");
    let lingered = until_empty(inboxes, linger, stops).await;
    let deadline = Instant::now() + limit;
    let outcome = match lingered {
        Wait::TimeUp => {
            proxy.drain();
            until_empty(inboxes, limit, stops).await
        }
        Wait::Empty | Wait::Signal => lingered,
    };
    match outcome {
        Wait::Empty => tracing::info!("drained"),
        Wait::TimeUp => tracing::warn!(clients = proxy.clients.len(), "shutdown_timeout passed; closing the rest"),
        Wait::Signal => tracing::warn!(clients = proxy.clients.len(), "second signal; closing the rest"),
    }
    deadline
}

/// The reason why a wait ended.
enum Wait {
    Empty,
    TimeUp,
    Signal,
}

async fn until_empty(inboxes: &[Inbox], limit: Duration, stops: &mut Stops) -> Wait {
    let empty = async {
        while inboxes.iter().any(|inbox| inbox.load().connections() > 0) {
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        biased;
        ended = timeout(limit, empty) => if ended.is_ok() { Wait::Empty } else { Wait::TimeUp },
        () = stops.next() => Wait::Signal,
    }
}

/// Makes the clients that are left go, and ends their queries: a server does not notice that nobody waits for them any
/// more. One more signal ends the wait for that.
pub(super) async fn end(proxy: &Proxy, stops: &mut Stops) {
    proxy.kill();
    let ended = async {
        while !proxy.clients.is_empty() || proxy.pools.core().total().leased > 0 {
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        _ = timeout(proxy.cancel_timeout(), ended) => {}
        () = stops.next() => {}
    }
}
