//! Decides which server of a cluster is the primary, by what each server said last.
//!
//! No I/O and no clock: the sources report observations and failures, [`TopologyCore`] answers each report with what
//! follows for the pools. An observation dies with the first failed probe of its server, so nothing that was true once
//! sends a client anywhere. Of two servers that claim to be the primary the one of the higher timeline is believed,
//! and of one timeline nobody. A server that comes back with an older timeline than one that was proved is a former
//! primary, and is not believed either, until somebody says [`TopologyCore::forget`].

mod lag;
#[cfg(test)]
mod random_operations;
mod readers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use readers::{LagState, ReaderCore, ReaderLag, ReaderLimits, ReaderSettings};

use crate::pool::core::ServerEpoch;
use crate::pool::host_port::HostPort;
use crate::words::words;

words! {
    /// The role that a server was seen to have.
    pub(crate) enum SeenRole {
        Primary = "primary",
        Standby = "standby",
        /// Any will do.
        Unasked = "any",
    }
}

/// A server's own say about how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LagReport {
    Unknown,
    /// It is so far behind.
    Time(Duration),
    /// The place in the log that it has written as a primary, or replayed.
    Position {
        position: u64,
        /// Time since the commit that it replayed last; the lag is not longer.
        age: Option<Duration>,
    },
}

/// The answer of a server, or of somebody who knows it, to the question for its role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observation {
    pub(crate) role: SeenRole,
    /// Each promotion begins a higher one; `None`: the source does not know it.
    pub(crate) timeline: Option<u32>,
    /// Another value means another server under the same name: the addresses of a name that is followed.
    pub(crate) mark: Option<Arc<str>>,
    /// The name of which this server is one of several addresses.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) lag: LagReport,
}

/// A server of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// Nobody has asked it so far.
    Unknown,
    Seen(Observation),
    /// The last question failed, for this reason.
    Failed(Arc<str>),
}

/// The server that is the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProvedPrimary {
    pub(crate) host: HostPort,
    timeline: Option<u32>,
    mark: Option<Arc<str>>,
}

impl ProvedPrimary {
    /// The same server in the same term, as far as is known: a source does not know the timeline at each moment.
    fn is_same(&self, other: &Self) -> bool {
        let is_known = self.timeline.is_some() && other.timeline.is_some();
        self.host == other.host && self.mark == other.mark && !(is_known && self.timeline != other.timeline)
    }
}

/// The reason why nobody is believed to be the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// No server claims to be.
    NobodyClaims,
    /// Several do, and their timelines do not tell them apart.
    SeveralClaim(Vec<HostPort>),
    /// One does, of an older timeline than that of a primary seen before.
    Former {
        host: HostPort,
        timeline: u32,
        /// The timeline of that primary.
        seen: u32,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NobodyClaims => f.write_str("no server says that it is the primary"),
            Self::SeveralClaim(hosts) => {
                let hosts: Vec<String> = hosts.iter().map(HostPort::to_string).collect();
                write!(f, "{} all say that they are the primary, on one timeline", hosts.join(" and "))
            }
            Self::Former { host, timeline, seen } => {
                write!(f, "{host} says that it is the primary of timeline {timeline}, but timeline {seen} has begun")
            }
        }
    }
}

/// The consequence of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TopologyChange {
    None,
    /// This server is the primary, and was not a moment ago.
    Proved {
        host: HostPort,
        epoch: ServerEpoch,
    },
    /// Nobody is known to be, any more or for another reason than before.
    Doubted(Doubt),
}

/// The servers of one database, and the primary among them.
#[derive(Debug)]
pub(crate) struct TopologyCore {
    members: BTreeMap<HostPort, MemberState>,
    verdict: Result<ProvedPrimary, Doubt>,
    /// The primary that was proved last, whether or not it still is.
    last: Option<ProvedPrimary>,
    /// Counts the primaries that were proved.
    epoch: u64,
    /// The highest timeline of a primary that was proved.
    timeline_seen: Option<u32>,
}

impl Default for TopologyCore {
    fn default() -> Self {
        Self { members: BTreeMap::new(), verdict: Err(Doubt::NobodyClaims), last: None, epoch: 0, timeline_seen: None }
    }
}

impl TopologyCore {
    /// The servers, by their last answers.
    pub(crate) fn members(&self) -> &BTreeMap<HostPort, MemberState> {
        &self.members
    }

    /// The primary, or why there is none.
    pub(crate) fn verdict(&self) -> Result<&ProvedPrimary, &Doubt> {
        self.verdict.as_ref()
    }

    /// Counts the primaries that were proved so far, one after the other.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// These are the servers from now on. What is known of one that stays is kept.
    pub(crate) fn set_members(&mut self, members: &BTreeSet<HostPort>) -> TopologyChange {
        self.members.retain(|host, _| members.contains(host));
        for host in members {
            self.members.entry(host.clone()).or_insert(MemberState::Unknown);
        }
        self.judge()
    }

    /// A server has answered; of one that is no member nothing is kept.
    pub(crate) fn observed(&mut self, host: &HostPort, observation: Observation) -> TopologyChange {
        self.set(host, MemberState::Seen(observation))
    }

    /// A question to a server has failed: what it said before counts no more.
    pub(crate) fn failed(&mut self, host: &HostPort, reason: Arc<str>) -> TopologyChange {
        self.set(host, MemberState::Failed(reason))
    }

    /// An operator vouches for the servers as they are: a timeline that was seen before does not matter any more.
    pub(crate) fn forget(&mut self) -> TopologyChange {
        self.timeline_seen = None;
        self.judge()
    }

    fn set(&mut self, host: &HostPort, state: MemberState) -> TopologyChange {
        let Some(member) = self.members.get_mut(host) else { return TopologyChange::None };
        *member = state;
        self.judge()
    }

    fn judge(&mut self) -> TopologyChange {
        let mut verdict = self.claim();
        let mut epoch = ServerEpoch::New;
        if let (Ok(primary), Some(last)) = (&mut verdict, &self.last)
            && primary.is_same(last)
        {
            primary.timeline = primary.timeline.or(last.timeline);
            epoch = ServerEpoch::Same;
        }
        let is_told = match (&verdict, &self.verdict) {
            (Ok(primary), Ok(before)) => primary.is_same(before),
            (verdict, before) => verdict == before,
        };
        self.verdict = verdict;
        if let Ok(primary) = &self.verdict {
            self.last = Some(primary.clone());
            self.timeline_seen = self.timeline_seen.max(primary.timeline);
            self.epoch += u64::from(epoch == ServerEpoch::New);
        }
        match &self.verdict {
            _ if is_told => TopologyChange::None,
            Err(doubt) => TopologyChange::Doubted(doubt.clone()),
            Ok(primary) => TopologyChange::Proved { host: primary.host.clone(), epoch },
        }
    }

    /// The server that is to be believed, of those that claim to be the primary.
    fn claim(&self) -> Result<ProvedPrimary, Doubt> {
        let claims = self.members.iter().filter_map(|(host, state)| match state {
            MemberState::Seen(observation) if observation.role == SeenRole::Primary => Some((host, observation)),
            _ => None,
        });
        let claims: Vec<_> = claims.collect();
        let highest = claims.iter().map(|(_, observation)| observation.timeline).max();
        let best: Vec<_> = claims.into_iter().filter(|(_, it)| Some(it.timeline) == highest).collect();
        let [(host, Observation { timeline, mark, .. })] = best[..] else {
            return Err(match best.is_empty() {
                true => Doubt::NobodyClaims,
                false => Doubt::SeveralClaim(best.into_iter().map(|(host, _)| host.clone()).collect()),
            });
        };
        match (*timeline, self.timeline_seen) {
            (Some(timeline), Some(seen)) if timeline < seen => {
                Err(Doubt::Former { host: host.clone(), timeline, seen })
            }
            (timeline, _) => Ok(ProvedPrimary { host: host.clone(), timeline, mark: mark.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u16) -> HostPort {
        HostPort { host: format!("10.0.0.{n}"), port: 5432 }
    }

    fn seen(role: SeenRole, timeline: u32) -> Observation {
        Observation { role, timeline: Some(timeline), mark: None, name: None, lag: LagReport::Unknown }
    }

    fn of_two() -> TopologyCore {
        let mut core = TopologyCore::default();
        assert_eq!(core.set_members(&[host(1), host(2)].into()), TopologyChange::None);
        core
    }

    fn proved(n: u16, epoch: ServerEpoch) -> TopologyChange {
        TopologyChange::Proved { host: host(n), epoch }
    }

    #[test]
    fn a_primary_is_proved_once_and_dies_with_its_first_failed_probe() {
        let mut core = of_two();
        assert_eq!(core.observed(&host(1), seen(SeenRole::Primary, 1)), proved(1, ServerEpoch::New));
        assert_eq!(core.observed(&host(1), seen(SeenRole::Primary, 1)), TopologyChange::None);
        assert_eq!(core.observed(&host(2), seen(SeenRole::Standby, 1)), TopologyChange::None);
        assert_eq!(core.failed(&host(1), "refused".into()), TopologyChange::Doubted(Doubt::NobodyClaims));
        assert_eq!(core.observed(&host(1), seen(SeenRole::Primary, 1)), proved(1, ServerEpoch::Same));
        assert_eq!(core.epoch(), 1);
    }

    #[test]
    fn a_promotion_is_a_new_epoch_and_the_former_primary_is_not_believed_again() {
        let mut core = of_two();
        core.observed(&host(1), seen(SeenRole::Primary, 1));
        core.failed(&host(1), "reset".into());
        assert_eq!(core.observed(&host(2), seen(SeenRole::Primary, 2)), proved(2, ServerEpoch::New));
        assert_eq!(core.observed(&host(1), seen(SeenRole::Primary, 1)), TopologyChange::None, "the higher timeline");
        let former = Doubt::Former { host: host(1), timeline: 1, seen: 2 };
        assert_eq!(core.failed(&host(2), "reset".into()), TopologyChange::Doubted(former));
        assert_eq!(core.forget(), proved(1, ServerEpoch::New), "an operator vouches for it");
    }

    #[test]
    fn a_timeline_that_is_not_known_at_each_moment_makes_no_other_primary() {
        let mut core = of_two();
        let unknown = Observation { timeline: None, ..seen(SeenRole::Primary, 1) };
        assert_eq!(core.observed(&host(1), unknown.clone()), proved(1, ServerEpoch::New));
        assert_eq!(core.observed(&host(1), seen(SeenRole::Primary, 1)), TopologyChange::None);
        assert_eq!(core.observed(&host(1), unknown.clone()), TopologyChange::None);
        assert_eq!(core.failed(&host(1), "timeout".into()), TopologyChange::Doubted(Doubt::NobodyClaims));
        assert_eq!(core.observed(&host(1), unknown), proved(1, ServerEpoch::Same));
        assert_eq!(core.epoch(), 1);
        // It was demoted and promoted, and nobody saw that.
        assert_eq!(core.observed(&host(1), seen(SeenRole::Primary, 2)), proved(1, ServerEpoch::New));
        assert_eq!(core.epoch(), 2);
    }

    #[test]
    fn two_primaries_of_one_timeline_are_nobody() {
        let mut core = of_two();
        core.observed(&host(1), seen(SeenRole::Primary, 1));
        let both = Doubt::SeveralClaim(vec![host(1), host(2)]);
        assert_eq!(core.observed(&host(2), seen(SeenRole::Primary, 1)), TopologyChange::Doubted(both));
        assert_eq!(core.observed(&host(2), seen(SeenRole::Standby, 1)), proved(1, ServerEpoch::Same));
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_another_server() {
        let mut core = of_two();
        let at = |mark: &str| {
            let seen = seen(SeenRole::Primary, 1);
            Observation { timeline: None, mark: Some(mark.into()), ..seen }
        };
        assert_eq!(core.observed(&host(1), at("10.1.0.1")), proved(1, ServerEpoch::New));
        assert_eq!(core.observed(&host(1), at("10.1.0.2")), proved(1, ServerEpoch::New));
        assert_eq!(core.epoch(), 2);
    }

    #[test]
    fn a_primary_that_leaves_the_cluster_is_one_no_longer() {
        let mut core = of_two();
        core.observed(&host(1), seen(SeenRole::Primary, 1));
        assert_eq!(core.set_members(&[host(2)].into()), TopologyChange::Doubted(Doubt::NobodyClaims));
        assert_eq!(core.observed(&host(1), seen(SeenRole::Primary, 1)), TopologyChange::None);
    }
}
