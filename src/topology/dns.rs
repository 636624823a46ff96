//! `topology = "dns"`: the name of the host leads to the primary, and another address is another primary.
//!
//! Nothing asks the server itself but the login of each backend. A name server that does not answer says nothing about
//! the primary, so the last answer stands until there is another.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::core::{LagReport, Observation, SeenRole};
use super::monitor::TopologyMonitor;
use super::observe::{ObserveTopology, configured_hosts};
use crate::config::PoolSettings;
use crate::pool::host_port::HostPort;
use crate::pool::lease::Pools;

/// Follows the first host of the configuration.
pub(super) struct DnsSource {
    pools: Arc<Pools>,
    login: PoolSettings,
}

impl DnsSource {
    pub(super) fn new(pools: Arc<Pools>, login: PoolSettings) -> Self {
        Self { pools, login }
    }

    async fn look(&self, host: &HostPort, monitor: &TopologyMonitor) {
        let names = self.pools.opener().names();
        let Ok(found) = names.look_up(&host.host, host.port).await else { return };
        let mut addresses: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
        addresses.sort_unstable();
        if addresses.is_empty() {
            return;
        }
        let mark = Some(addresses.join(" ").into());
        let (role, lag) = (SeenRole::Primary, LagReport::Unknown);
        monitor.observed(host, Observation { role, timeline: None, mark, name: None, lag });
    }
}

impl ObserveTopology for DnsSource {
    fn run(self: Box<Self>, monitor: Arc<TopologyMonitor>) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let Some(host) = configured_hosts(&self.login).next() else { return };
            monitor.members(&BTreeSet::from([host.clone()]));
            loop {
                self.look(&host, &monitor).await;
                monitor.next_look().await;
            }
        })
    }
}
