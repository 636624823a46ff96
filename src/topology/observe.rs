//! A source of what is known about a cluster, as its monitor sees it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::monitor::TopologyMonitor;
use crate::config::PoolSettings;
use crate::pool::host_port::HostPort;

/// Looks at a cluster and reports to its monitor, until it is dropped.
pub(super) trait ObserveTopology {
    fn run(self: Box<Self>, monitor: Arc<TopologyMonitor>) -> Pin<Box<dyn Future<Output = ()>>>;
}

/// The hosts of the configuration.
pub(super) fn configured_hosts(login: &PoolSettings) -> impl Iterator<Item = HostPort> {
    let endpoint = &login.endpoint;
    endpoint.hosts.iter().map(|host| HostPort { host: host.clone(), port: endpoint.port })
}
