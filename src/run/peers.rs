//! Where other instances come in, to the end of the process: siblings by their socket, peers by `fleet.addr`.
//!
//! Clients that a drain leaves alone can be cancelled still, although the addresses they came by are closed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::service::Service;
use crate::config::{Config, ListenAddr};
use crate::net::listen::{Handed, ListenError, Listener};
use crate::proxy::Proxy;
use crate::session::login::serve_peer;

/// Connections of other instances that are served at once; further ones wait in the kernel's queue.
const AT_ONCE: usize = 256;

/// Accepts until the process ends.
#[derive(Debug)]
pub(super) struct Peers {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Peers {
    /// Listens for both kinds.
    pub(super) fn start(proxy: &Arc<Proxy>) -> Result<Self, ListenError> {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        if let Some(siblings) = proxy.cancels.take_siblings() {
            let listener = Listener::adopt(Handed::Unix(siblings))?;
            tasks.spawn(accept(Arc::clone(proxy), listener, true, stop.clone()));
        } else {
            tracing::debug!("no socket for processes on this host");
        }
        if let Some(listener) = bind(&proxy.config.load())? {
            tracing::info!(kind = "peers", addr = %listener.local_addr(), "listening");
            tasks.spawn(accept(Arc::clone(proxy), listener, false, stop.clone()));
        }
        Ok(Self { stop, tasks })
    }
}

impl Service for Peers {
    fn reload(&self) {}

    fn finish(self: Box<Self>, _deadline: Instant) -> Pin<Box<dyn Future<Output = ()>>> {
        self.stop.cancel();
        self.tasks.close();
        Box::pin(async move { self.tasks.wait().await })
    }
}

fn bind(config: &Config) -> Result<Option<Listener>, ListenError> {
    let bind = |addr| Listener::bind(&ListenAddr::Tcp(addr), config.listen.reuse_port);
    config.fleet.addr.map(bind).transpose()
}

async fn accept(proxy: Arc<Proxy>, listener: Listener, is_sibling: bool, stop: CancellationToken) {
    let turns = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    loop {
        let next = async {
            let turn = Arc::clone(&turns).acquire_owned().await.expect("it is never closed");
            (listener.accept().await, turn)
        };
        let (accepted, turn) = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            next = next => next,
        };
        let (proxy, stop) = (Arc::clone(&proxy), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = serve_peer(&proxy, accepted, is_sibling) => {}
                () = stop.cancelled() => {}
            }
            drop(turn);
        });
    }
}
