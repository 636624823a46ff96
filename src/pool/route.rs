//! Where the backends of a database go, where a topology and not the configuration says that.
//!
//! A route begins without a server. The topology sets the servers that have proved their role, and dials go nowhere
//! else; in return dials and sessions tell it when they meet a reason for doubt.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::host_port::HostPort;

/// The servers that the pools of one database may dial.
#[derive(Debug, Default)]
pub(crate) struct Route {
    servers: ArcSwap<Vec<HostPort>>,
    doubted: Notify,
}

impl Route {
    /// The servers that have proved the role which the database needs.
    pub(crate) fn servers(&self) -> Arc<Vec<HostPort>> {
        self.servers.load_full()
    }

    /// Dials go to these servers from now on, or nowhere.
    pub(super) fn set(&self, servers: Vec<HostPort>) {
        self.servers.store(Arc::new(servers));
    }

    /// A server may have another role than the topology believes, or be gone: it is asked at once.
    pub(crate) fn doubt(&self) {
        self.doubted.notify_waiters();
    }

    /// Waits for somebody's [`Self::doubt`].
    pub(crate) async fn doubted(&self) {
        self.doubted.notified().await;
    }
}
