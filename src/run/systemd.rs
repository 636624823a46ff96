//! Reports to the service manager, and the sockets it hands over: sd_notify(3), sd_watchdog_enabled(3),
//! sd_listen_fds(3).
//!
//! All of this does nothing if nobody asks for it (no `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `LISTEN_FDS` in the
//! environment).

use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::time::{interval, timeout};

use crate::net::listen::{Handed, ListenError};
use crate::session::context::Inbox;

/// Shortest time between two feeds of the watchdog, even if a shorter one is asked for.
const FEED_MIN: Duration = Duration::from_millis(1);

/// The sockets to listen on that were opened before we started. Call it before there are threads: it takes the
/// variables out of the environment.
pub(super) fn sockets() -> Result<Vec<Handed>, ListenError> {
    let mut handed = ListenFd::from_env();
    let named = |at: usize, source| ListenError { addr: format!("socket {at} of LISTEN_FDS"), source };
    let mut sockets = Vec::new();
    for at in 0..handed.len() {
        let socket = match handed.take_tcp_listener(at) {
            Ok(tcp) => tcp.map(Handed::Tcp),
            Err(_) => handed.take_unix_listener(at).map_err(|error| named(at, error))?.map(Handed::Unix),
        };
        sockets.extend(socket);
    }
    Ok(sockets)
}

/// Clients are served from now on, or the configuration was read again.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read again; [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no monotonic clock"),
    }
}

/// The end has begun.
pub(super) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Feeds the watchdog for as long as every worker answers. It runs where connections are accepted and reloads are made,
/// so that thread has to be alive, too.
pub(super) async fn feed_watchdog(inboxes: Arc<[Inbox]>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let period = (limit / 2).max(FEED_MIN);
    let mut meals = interval(period);
    loop {
        meals.tick().await;
        match are_alive(&inboxes, period).await {
            true => tell(&[NotifyState::Watchdog]),
            false => tracing::error!(?period, "a worker does not answer; the watchdog is not fed"),
        }
    }
}

/// Whether every worker responds within the limit.
async fn are_alive(inboxes: &[Inbox], limit: Duration) -> bool {
    let all = async {
        for inbox in inboxes {
            if inbox.run(|_| ()).await.is_none() {
                return false;
            }
        }
        true
    };
    timeout(limit, all).await.unwrap_or(false)
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Barrier;

    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::config::parse;
    use crate::proxy::Proxy;
    use crate::run::worker;

    #[tokio::test]
    async fn worker_that_hangs_starves_the_watchdog() {
        let text = "[databases.\"*\"]\nhost = \"h\"\n[roles.\"*\"]\nauth = \"trust\"\n[listen]\nworkers = 2\n";
        let config = parse(text, Path::new("proxy.toml"), &|_| None).expect("a valid file");
        let proxy = Arc::new(Proxy::new(config, mpsc::channel(1).0).expect("no certificates"));
        let mut inboxes = Vec::new();
        for id in 0..2 {
            inboxes.push(worker::start(id, Arc::clone(&proxy)).await.expect("a thread"));
        }
        assert!(are_alive(&inboxes, Duration::from_secs(30)).await);

        let barrier = Arc::new(Barrier::new(2));
        let (begin, begun) = oneshot::channel();
        let hanging = tokio::spawn({
            let (inbox, barrier) = (inboxes[1].clone(), Arc::clone(&barrier));
            let hang = move |_: &_| {
                begin.send(()).expect("it is waited for");
                barrier.wait();
            };
            async move { inbox.run(hang).await }
        });
        begun.await.expect("it hangs");
        assert!(!are_alive(&inboxes, Duration::from_millis(50)).await);
        assert!(are_alive(&inboxes[..1], Duration::from_secs(30)).await, "the other one is well");
        barrier.wait();
        hanging.await.expect("no panic").expect("it went on");
        assert!(are_alive(&inboxes, Duration::from_secs(30)).await);
    }
}
