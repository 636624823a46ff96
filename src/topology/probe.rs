//! `topology = "probe"`: every host of the configuration is asked for its role and timeline.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::core::{LagReport, Observation, SeenRole};
use super::monitor::TopologyMonitor;
use super::observe::{ObserveTopology, configured_hosts};
use super::prober::{ProbeAnswer, Prober};
use crate::config::PoolSettings;
use crate::pool::host_port::HostPort;
use crate::pool::lease::Pools;

/// Role, timeline and place in the log. A primary's timeline is that of the file it writes; nothing depends on a
/// standby's, but on the milliseconds since the commit that it replayed last.
const QUESTION: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN concat_ws(' ', 'standby', \
    pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0'), \
    (extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::bigint) \
    ELSE concat_ws(' ', 'primary', ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int, \
    pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')) END";

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

/// Reads `primary TIMELINE POSITION` or `standby POSITION AGE`, of which only the role must be there. A name that leads
/// to another address is another server.
pub(super) fn observation(text: &str, address: Option<IpAddr>) -> Option<Observation> {
    let mut words = text.split(' ');
    let role = match words.next()? {
        "primary" => SeenRole::Primary,
        "standby" => SeenRole::Standby,
        _ => return None,
    };
    let mut number = || words.next().map(str::parse::<i64>).transpose().ok();
    let timeline = match role {
        SeenRole::Primary => number()?.map(u32::try_from).transpose().ok()?,
        SeenRole::Standby | SeenRole::Unasked => None,
    };
    let position = number()?.map(u64::try_from).transpose().ok()?;
    // Clocks differ: a commit may seem to be still to come.
    let age = number()?.map(|age| Duration::from_millis(u64::try_from(age).unwrap_or(0)));
    let lag = position.map_or(LagReport::Unknown, |position| LagReport::Position { position, age });
    let mark = address.map(|address| address.to_string().into());
    Some(Observation { role, timeline, mark, name: None, lag })
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
        let lag = |text| observation(text, None).map(|seen| seen.lag);
        let at = |position, age: Option<u64>| LagReport::Position { position, age: age.map(Duration::from_millis) };
        assert_eq!(lag("primary 7 83886080"), Some(at(83_886_080, None)));
        assert_eq!(lag("standby 83886080"), Some(at(83_886_080, None)));
        assert_eq!(lag("standby 83886080 1500"), Some(at(83_886_080, Some(1500))));
        assert_eq!(lag("standby 83886080 -3"), Some(at(83_886_080, Some(0))));
        assert_eq!(lag("standby"), Some(LagReport::Unknown));
        for text in ["", "primary ", "primary x", "standby x", "standby 1 x", "t"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
