//! The sockets that clients come in by, and the dealing of connections to workers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use super::connection;
use crate::config::Config;
use crate::net::listen::{Handed, ListenError, Listener};
use crate::proxy::Proxy;
use crate::session::context::Inbox;

/// The sockets that were handed over, or those of `listen.addr`.
pub(super) fn listeners(config: &Config, handed: Vec<Handed>) -> Result<Vec<Listener>, ListenError> {
    if handed.is_empty() {
        return config.listen.addr.iter().map(|addr| Listener::bind(addr, config.listen.reuse_port)).collect();
    }
    tracing::info!(sockets = handed.len(), "listening on sockets that were handed over, not on listen.addr");
    handed.into_iter().map(Listener::adopt).collect()
}

/// Accepts until asked to stop, and deals connections to the workers that serve.
pub(super) async fn accept(listener: Listener, proxy: Arc<Proxy>, inboxes: Arc<[Inbox]>, stop: CancellationToken) {
    let mut dealt = 0;
    let mut deal = async |accepted| {
        // Least loaded; among equals in turn.
        dealt += 1;
        let serving = proxy.serving.load(Ordering::Relaxed);
        let order = (0..serving).map(|i| (dealt + i) % serving);
        if let Some(least) = order.min_by_key(|i| inboxes[*i].load().connections()) {
            connection::deal(&inboxes[least], accepted).await;
        }
    };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => deal(accepted).await,
        }
    }
    for accepted in listener.close() {
        deal(accepted).await;
    }
}
