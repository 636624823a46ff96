//! What the watch tells people: what is the matter, who is to blame, what would end it.

use std::fmt;
use std::time::Duration;

use super::blockers::Blocker;
use super::convoy::{ConvoyChange, Episode};
use super::culprit::Culprit;
use super::detectors::dead_tuples::Bloat;
use super::detectors::horizon::Hold;
use super::detectors::sessions::{Lingering, Overstay};
use super::incidents::IncidentChange;
use crate::words::words;

words! {
    /// What can be the matter.
    pub enum FindingKind {
        /// A lock convoy.
        Convoy = "convoy",
        /// The server does not answer.
        Blind = "blind",
        /// Somebody keeps others waiting for a lock.
        Blocker = "blocker",
        /// Somebody keeps vacuum from removing rows.
        Horizon = "horizon",
        /// Dead rows of a table grow although vacuum runs.
        DeadTuples = "dead_tuples",
        /// A session idles in a transaction.
        IdleInTransaction = "idle_in_transaction",
        /// A statement takes long.
        LongStatement = "long_statement",
        /// Too many are connected without pgweir.
        Outside = "outside",
        /// The queue of notifications fills.
        NotifyQueue = "notify_queue",
        /// The server was the primary, and is a standby.
        Standing = "standing",
    }
}

/// Something that is the matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// In words.
    pub what: String,
    /// Who is to blame, if it is known.
    pub culprit: Option<Culprit>,
    /// The SQL that would end it, if there is one.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(kind: FindingKind, what: impl fmt::Display, culprit: Option<Culprit>) -> Self {
        let remedy = culprit.as_ref().map(Culprit::remedy);
        Self { kind, what: what.to_string(), culprit, remedy }
    }

    /// The server has not answered for so long.
    pub fn blind(silence: Duration) -> Self {
        Self::new(FindingKind::Blind, format_args!("the server has not answered for {}", Seconds(silence)), None)
    }

    /// The queue of notifications is as full as this.
    pub fn notify_queue(usage: f64) -> Self {
        let percent = usage * 100.0;
        let what = format_args!(
            "the queue of notifications is {percent:.0} % full; a session that listens is in a transaction"
        );
        Self::new(FindingKind::NotifyQueue, what, None)
    }

    /// The server was the primary, and follows another one.
    pub fn demoted() -> Self {
        Self::new(FindingKind::Standing, "the server was the primary and is a standby now: writes fail", None)
    }

    /// So many are connected without pgweir.
    pub fn outside(count: usize) -> Self {
        Self::new(FindingKind::Outside, format_args!("{count} connections that are not pgweir's"), None)
    }
}

impl From<&Episode> for Finding {
    fn from(episode: &Episode) -> Self {
        let Episode { waiters_max, longest, site, kind, .. } = episode;
        let wait = Seconds(*longest);
        match (site, kind) {
            (Some(site), _) => {
                let what = format_args!(
                    "up to {waiters_max} sessions wait for locks, for up to {wait}; most for {}",
                    site.lock
                );
                Self::new(FindingKind::Convoy, what, site.culprit.clone())
            }
            (None, Some(kind)) => {
                let what = format_args!(
                    "up to {waiters_max} sessions wait for locks, for up to {wait}; most for locks of kind {}",
                    kind.word()
                );
                Self::new(FindingKind::Convoy, what, None)
            }
            (None, None) => Self::new(
                FindingKind::Convoy,
                format_args!("up to {waiters_max} sessions wait for locks, for up to {wait}"),
                None,
            ),
        }
    }
}

impl From<&Blocker> for Finding {
    fn from(blocker: &Blocker) -> Self {
        let Blocker { culprit, lock, waiters, longest, .. } = blocker;
        let what = format_args!("{waiters} wait for up to {}, most for {lock}", Seconds(*longest));
        Self::new(FindingKind::Blocker, what, Some(culprit.clone()))
    }
}

impl From<&Hold> for Finding {
    fn from(hold: &Hold) -> Self {
        let Hold { culprit, is_catalog_only, transactions, age } = hold;
        let rows = if *is_catalog_only { "rows of catalogs" } else { "rows" };
        let what = format_args!(
            "vacuum cannot remove {rows} that died in the last {}, {transactions} transactions",
            Seconds(*age)
        );
        Self::new(FindingKind::Horizon, what, Some(culprit.clone()))
    }
}

impl From<&Bloat> for Finding {
    fn from(bloat: &Bloat) -> Self {
        let table = &bloat.table;
        let what = format!(
            "{} has {} dead rows beside {} live ones, and vacuum does not help",
            table.name, table.dead, table.live
        );
        Self { kind: FindingKind::DeadTuples, what, culprit: bloat.culprit.clone(), remedy: Some(bloat.remedy()) }
    }
}

impl From<&Lingering> for Finding {
    fn from(lingering: &Lingering) -> Self {
        let age = Seconds(lingering.age());
        let (kind, what) = match lingering.doing {
            Overstay::Idling => (FindingKind::IdleInTransaction, format!("idle in a transaction for {age}")),
            Overstay::Running => (FindingKind::LongStatement, format!("at one statement for {age}")),
        };
        Self::new(kind, what, Some(lingering.culprit()))
    }
}

/// In whole seconds or, if shorter, in milliseconds.
pub(super) struct Seconds(pub(super) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0 => write!(f, "{} ms", self.0.as_millis()),
            seconds => write!(f, "{seconds} s"),
        }
    }
}

/// The same changes, told as findings.
pub(super) fn told<V>(changes: Vec<IncidentChange<V>>) -> impl Iterator<Item = IncidentChange<Finding>>
where
    for<'a> Finding: From<&'a V>,
{
    told_as(changes, |value| Finding::from(value))
}

/// As [`told`], for values that do not say themselves what they are.
pub(super) fn told_as<V>(
    changes: Vec<IncidentChange<V>>,
    tell: impl Fn(&V) -> Finding,
) -> impl Iterator<Item = IncidentChange<Finding>> {
    changes.into_iter().map(move |change| match change {
        IncidentChange::Opened(value) => IncidentChange::Opened(tell(&value)),
        IncidentChange::Closed(value, lasted) => IncidentChange::Closed(tell(&value), lasted),
    })
}

impl From<ConvoyChange> for IncidentChange<Finding> {
    fn from(change: ConvoyChange) -> Self {
        match change {
            ConvoyChange::ConvoyOpened(episode) => Self::Opened(Finding::from(&episode)),
            ConvoyChange::ConvoyClosed(episode, lasted) => Self::Closed(Finding::from(&episode), lasted),
            ConvoyChange::BlindOpened(silence) => Self::Opened(Finding::blind(silence)),
            ConvoyChange::BlindClosed(silence) => Self::Closed(Finding::blind(silence), silence),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::watch::activity::LockKind;
    use crate::watch::convoy::LockSite;
    use crate::watch::locks::LockName;

    #[test]
    fn a_convoy_is_told_with_its_lock_its_culprit_and_its_end() {
        let site = LockSite {
            lock: LockName::Extension("public.jobs".to_owned()),
            culprit: Some(Culprit::Prepared { gid: "tx".to_owned() }),
        };
        let mut episode = Episode {
            since: Instant::now(),
            waiters: 412,
            waiters_max: 412,
            longest: Duration::from_millis(750),
            kind: Some(LockKind::Extension),
            site: Some(site),
        };
        let finding = Finding::from(&episode);
        assert_eq!(
            finding.what,
            "up to 412 sessions wait for locks, for up to 750 ms; most for extension of public.jobs"
        );
        assert_eq!(finding.remedy.as_deref(), Some("ROLLBACK PREPARED 'tx'"));
        episode.site = None;
        let finding = Finding::from(&episode);
        assert!(finding.what.ends_with("most for locks of kind extension"), "the lock table could not be asked");
        assert_eq!(finding.remedy, None);
    }

    #[test]
    fn a_hold_says_what_vacuum_cannot_remove() {
        let hold = Hold {
            culprit: Culprit::Slot { name: "cdc".to_owned(), reader: None },
            is_catalog_only: true,
            transactions: 1_200_000,
            age: Duration::from_secs(301),
        };
        let finding = Finding::from(&hold);
        assert_eq!(
            finding.what,
            "vacuum cannot remove rows of catalogs that died in the last 301 s, 1200000 transactions"
        );
        assert_eq!(finding.remedy.as_deref(), Some("SELECT pg_drop_replication_slot('cdc')"));
    }
}
