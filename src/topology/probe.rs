//! `topology = "probe"`: every host of the configuration is asked for its role and timeline.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::core::{Observation, SeenRole};
use super::monitor::TopologyMonitor;
use super::observe::{ObserveTopology, configured_hosts};
use super::prober::{ProbeAnswer, Prober};
use crate::config::PoolSettings;
use crate::pool::host_port::HostPort;
use crate::pool::lease::Pools;

/// Role and timeline. A primary's is that of the file it writes; nothing depends on a standby's.
const QUESTION: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE concat('primary ', \
    ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int) END";

/// A prober for each host.
pub(super) struct ProbeSource {
    pools: Arc<Pools>,
    login: PoolSettings,
}

impl ProbeSource {
    pub(super) fn new(pools: Arc<Pools>, login: PoolSettings) -> Self {
        Self { pools, login }
    }
}

impl ObserveTopology for ProbeSource {
    fn run(self: Box<Self>, monitor: Arc<TopologyMonitor>) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let hosts: BTreeSet<HostPort> = configured_hosts(&self.login).collect();
            monitor.members(&hosts);
            let mut probers = JoinSet::new();
            for host in hosts {
                let prober = Prober::new(Arc::clone(&self.pools), &self.login, host.clone());
                let monitor = Arc::clone(&monitor);
                probers.spawn_local(async move {
                    prober.run(&monitor, QUESTION, |look| report(&monitor, &host, look)).await;
                });
            }
            while probers.join_next().await.is_some() {}
        })
    }
}

fn report(monitor: &TopologyMonitor, host: &HostPort, look: ProbeAnswer) {
    match look {
        ProbeAnswer::Text { text, address } => match observation(&text, address) {
            Some(observation) => monitor.observed(host, observation),
            None => monitor.failed(host, "the answer is neither a primary's nor a standby's"),
        },
        ProbeAnswer::Refused(message) => monitor.failed(host, &message),
    }
}

/// Reads `primary TIMELINE` or `standby`. A name that leads to another address is another server.
pub(super) fn observation(text: &str, address: Option<IpAddr>) -> Option<Observation> {
    let (role, timeline) = match text.split_once(' ') {
        Some(("primary", timeline)) => (SeenRole::Primary, Some(timeline.parse().ok()?)),
        None if text == "primary" => (SeenRole::Primary, None),
        None if text == "standby" => (SeenRole::Standby, None),
        _ => return None,
    };
    let mark = address.map(|address| address.to_string().into());
    Some(Observation { role, timeline, mark, lag: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_roles_and_nothing_else_is() {
        let read = |text| observation(text, None).map(|seen| (seen.role, seen.timeline));
        assert_eq!(read("primary 7"), Some((SeenRole::Primary, Some(7))));
        assert_eq!(read("primary"), Some((SeenRole::Primary, None)));
        assert_eq!(read("standby"), Some((SeenRole::Standby, None)));
        for text in ["", "primary ", "primary x", "standby 1", "t"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
