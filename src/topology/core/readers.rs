//! Decides which servers of a cluster are read from, by what each said last and how far it is behind.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

use super::lag::{PositionLag, PrimaryPositions};
use super::{LagReport, MemberState, Observation, SeenRole, TopologyCore};
use crate::config::ReaderKeys;
use crate::pool::core::{ReaderDuty, ReaderRules, ReaderSpec};
use crate::pool::host_port::{HostPort, ServerTarget};

/// The rules by which servers are readers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReaderLimits {
    lag_warn: Option<Duration>,
    lag_max: Option<Duration>,
    prefer: Vec<IpNet>,
    /// Hosts of the configuration, in its order.
    hosts: Vec<String>,
}

impl ReaderLimits {
    pub(crate) fn new(keys: &ReaderKeys, hosts: &[String]) -> Self {
        let ReaderKeys { lag_warn, lag_max, prefer, .. } = keys.clone();
        Self { lag_warn, lag_max, prefer, hosts: hosts.to_vec() }
    }
}

/// How a database is read from several servers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReaderSettings {
    pub(crate) rules: ReaderRules,
    pub(crate) limits: ReaderLimits,
}

/// How a reader's lag compares with the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LagState {
    #[default]
    Fine,
    /// Above `lag_warn`.
    Warned,
    /// Above `lag_max`, and not back at half of it.
    TooFar,
}

/// The lag of a standby, as of its last answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ReaderLag {
    /// `None`: nobody knows.
    pub(crate) lag: Option<Duration>,
    pub(crate) state: LagState,
}

/// The readers of one database.
#[derive(Debug)]
pub(crate) struct ReaderCore {
    limits: ReaderLimits,
    positions: PrimaryPositions,
    /// The epoch of those positions.
    epoch: u64,
    lags: BTreeMap<HostPort, ReaderLag>,
    /// As of before the first look: a server that was not asked so far stays in use.
    before: Vec<ReaderSpec>,
}

impl ReaderCore {
    pub(crate) fn new(limits: ReaderLimits, before: Vec<ReaderSpec>) -> Self {
        let (positions, lags) = Default::default();
        Self { limits, positions, epoch: 0, lags, before }
    }

    /// The lag of a server, if it has answered as a standby.
    pub(crate) fn lag(&self, host: &HostPort) -> Option<ReaderLag> {
        self.lags.get(host).copied()
    }

    /// A server said this, and `core` has judged it. Returns how its lag stands where that has changed.
    pub(crate) fn observed(
        &mut self,
        host: &HostPort,
        observation: &Observation,
        core: &TopologyCore,
        now: Instant,
    ) -> Option<LagState> {
        if self.epoch != core.epoch() {
            self.epoch = core.epoch();
            self.positions.clear();
        }
        if observation.role == SeenRole::Primary {
            self.lags.remove(host);
            if let (Ok(primary), LagReport::Position { position, .. }) = (core.verdict(), observation.lag)
                && primary.host == *host
            {
                self.positions.saw(position, now);
            }
            return None;
        }
        let lag = self.lag_of(observation.lag, now);
        let known = self.lags.entry(host.clone()).or_default();
        let before = known.state;
        *known = ReaderLag { lag, state: self.limits.state(lag, before) };
        (known.state != before).then_some(known.state)
    }

    fn lag_of(&self, report: LagReport, now: Instant) -> Option<Duration> {
        match report {
            LagReport::Unknown => None,
            LagReport::Time(lag) => Some(lag),
            LagReport::Position { position, age } => match self.positions.lag(position, now)? {
                PositionLag::Known(lag) => Some(lag),
                PositionLag::AtLeast(lag) => Some(age.map_or(lag, |age| age.max(lag))),
            },
        }
    }

    /// The servers and what each is for, in the order of the configuration.
    pub(crate) fn specs(&self, core: &TopologyCore) -> Vec<ReaderSpec> {
        let primary = core.verdict().ok().map(|primary| &primary.host);
        let spec = |(host, state): (&HostPort, &MemberState)| {
            let (target, address) = match state {
                MemberState::Seen(Observation { name: Some(name), .. }) => {
                    let named = HostPort { host: name.to_string(), port: host.port };
                    let address = host.host.parse().ok();
                    (ServerTarget { host: named, address }, address)
                }
                MemberState::Seen(Observation { mark, .. }) => {
                    let marked = || mark.as_ref()?.parse().ok();
                    let address = host.host.parse().ok().or_else(marked);
                    (ServerTarget { host: host.clone(), address: None }, address)
                }
                MemberState::Unknown | MemberState::Failed(_) => {
                    (ServerTarget { host: host.clone(), address: None }, host.host.parse().ok())
                }
            };
            let duty = match state {
                MemberState::Unknown => self.before.iter().find(|spec| spec.target == target)?.duty,
                MemberState::Failed(_) => ReaderDuty::Drains,
                MemberState::Seen(seen) => match seen.role {
                    SeenRole::Primary if primary == Some(host) => ReaderDuty::StandsIn,
                    SeenRole::Primary => ReaderDuty::Drains,
                    SeenRole::Standby if self.lag(host).is_some_and(|lag| lag.state == LagState::TooFar) => {
                        ReaderDuty::Drains
                    }
                    SeenRole::Standby | SeenRole::Unasked => ReaderDuty::Reads,
                },
            };
            Some(ReaderSpec { is_preferred: self.limits.prefers(address), target, duty })
        };
        let mut specs: Vec<_> = core.members().iter().filter_map(spec).collect();
        let place = |spec: &ReaderSpec| self.limits.hosts.iter().position(|host| *host == spec.target.host.host);
        specs.sort_by_key(|spec| place(spec).unwrap_or(usize::MAX));
        specs
    }
}

impl ReaderLimits {
    fn prefers(&self, address: Option<IpAddr>) -> bool {
        address.is_some_and(|address| self.prefer.iter().any(|network| network.contains(&address.to_canonical())))
    }

    /// A reader that was too far behind comes back at half of the bound, so that it does not come and go.
    fn state(&self, lag: Option<Duration>, before: LagState) -> LagState {
        let Some(lag) = lag else { return LagState::Fine };
        let max = self.lag_max.map(|max| if before == LagState::TooFar { max / 2 } else { max });
        match (max, self.lag_warn) {
            (Some(max), _) if lag > max => LagState::TooFar,
            (_, Some(warn)) if lag > warn => LagState::Warned,
            _ => LagState::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::core::TopologyChange;

    fn host(n: u8) -> HostPort {
        HostPort { host: format!("10.{n}.0.1"), port: 5432 }
    }

    fn at(role: SeenRole, position: u64) -> Observation {
        let lag = LagReport::Position { position, age: None };
        Observation { role, timeline: None, mark: None, name: None, lag }
    }

    struct Cluster {
        core: TopologyCore,
        readers: ReaderCore,
        now: Instant,
    }

    impl Cluster {
        /// A primary and two standbys.
        fn new(keys: &ReaderKeys) -> Self {
            let mut core = TopologyCore::default();
            assert_eq!(core.set_members(&[1, 2, 3].map(host).into()), TopologyChange::None);
            let hosts = [3, 1, 2].map(|n| host(n).host);
            Self { core, readers: ReaderCore::new(ReaderLimits::new(keys, &hosts), Vec::new()), now: Instant::now() }
        }

        fn saw(&mut self, n: u8, observation: Observation) {
            self.core.observed(&host(n), observation.clone());
            self.readers.observed(&host(n), &observation, &self.core, self.now);
        }

        fn duties(&self) -> Vec<(String, ReaderDuty)> {
            self.readers.specs(&self.core).into_iter().map(|spec| (spec.target.host.host, spec.duty)).collect()
        }

        fn duty(&self, n: u8) -> Option<ReaderDuty> {
            self.duties().into_iter().find(|(name, _)| *name == host(n).host).map(|(_, duty)| duty)
        }
    }

    #[test]
    fn standbys_read_and_the_primary_stands_in_in_the_order_of_the_configuration() {
        let mut cluster = Cluster::new(&ReaderKeys::default());
        assert_eq!(cluster.duties(), [], "nobody has answered");
        cluster.saw(1, at(SeenRole::Primary, 10));
        cluster.saw(2, at(SeenRole::Standby, 10));
        cluster.saw(3, at(SeenRole::Standby, 10));
        use ReaderDuty::{Drains, Reads, StandsIn};
        let expected = [(3, Reads), (1, StandsIn), (2, Reads)].map(|(n, duty)| (host(n).host, duty));
        assert_eq!(cluster.duties(), expected);
        cluster.core.failed(&host(2), "refused".into());
        assert_eq!(cluster.duty(2), Some(Drains));
        // A standby is promoted, while the former primary still says that it is one: neither stands in.
        cluster.saw(3, at(SeenRole::Primary, 10));
        assert_eq!((cluster.duty(1), cluster.duty(3)), (Some(Drains), Some(Drains)));
    }

    #[test]
    fn a_lagging_reader_gets_nothing_until_it_is_back_at_half_of_the_bound() {
        let keys = ReaderKeys {
            lag_warn: Some(Duration::from_secs(2)),
            lag_max: Some(Duration::from_secs(10)),
            ..ReaderKeys::default()
        };
        let mut cluster = Cluster::new(&keys);
        let mut told = Vec::new();
        for second in 0..30_u64 {
            cluster.now += Duration::from_secs(1);
            cluster.saw(1, at(SeenRole::Primary, 100 + second));
            // It stands still for 20 seconds, then catches up by two a second.
            let replayed = if second < 20 { 100 } else { 100 + (second - 20) * 3 };
            cluster.saw(2, at(SeenRole::Standby, replayed));
            let state = cluster.readers.lag(&host(2)).expect("it answered").state;
            told.push((state, cluster.duty(2) == Some(ReaderDuty::Drains)));
        }
        told.dedup();
        use LagState::{Fine, TooFar, Warned};
        assert_eq!(told, [(Fine, false), (Warned, false), (TooFar, true), (Warned, false), (Fine, false)]);
    }

    #[test]
    fn without_a_primary_readers_go_on_and_another_one_is_compared_with_anew() {
        let keys = ReaderKeys { lag_max: Some(Duration::from_secs(1)), ..ReaderKeys::default() };
        let mut cluster = Cluster::new(&keys);
        cluster.saw(1, at(SeenRole::Primary, 100));
        cluster.saw(2, at(SeenRole::Standby, 90));
        cluster.saw(3, at(SeenRole::Standby, 90));
        cluster.core.failed(&host(1), "gone".into());
        cluster.now += Duration::from_secs(5);
        cluster.saw(3, at(SeenRole::Primary, 90));
        cluster.saw(2, at(SeenRole::Standby, 90));
        assert_eq!(cluster.duty(2), Some(ReaderDuty::Reads), "what the former primary had and nobody has is gone");
    }

    #[test]
    fn readers_of_a_preferred_network_are_marked_by_the_address_that_answered() {
        let keys = ReaderKeys { prefer: vec!["10.2.0.0/16".parse().expect("a network")], ..ReaderKeys::default() };
        let mut cluster = Cluster::new(&keys);
        cluster.saw(2, at(SeenRole::Standby, 1));
        cluster.saw(3, Observation { mark: Some("10.2.9.9".into()), ..at(SeenRole::Standby, 1) });
        let preferred: Vec<_> =
            cluster.readers.specs(&cluster.core).into_iter().map(|spec| spec.is_preferred).collect();
        assert_eq!(preferred, [false, true]);
    }
}
