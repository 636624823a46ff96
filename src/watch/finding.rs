//! A finding, as people read it: the harm in words, the culprit, and the SQL that would end it.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::culprit::Culprit;
use super::incidents::{Incident, IncidentChange};
use crate::words::words;

words! {
    /// The kind of a finding.
    pub enum FindingKind {
        /// A lock convoy.
        Convoy = "convoy",
        /// The server does not answer.
        Blind = "blind",
        /// A session or prepared transaction keeps others waiting for a lock.
        Blocker = "blocker",
        /// An old snapshot keeps vacuum from removing rows.
        Horizon = "horizon",
        /// Dead rows of a table grow although vacuum runs.
        DeadTuples = "dead_tuples",
        /// A session idles in a transaction.
        IdleInTransaction = "idle_in_transaction",
        /// A statement takes long.
        LongStatement = "long_statement",
        /// Too many connections are not pgweir's.
        Outside = "outside",
        /// The queue of notifications fills.
        NotifyQueue = "notify_queue",
        /// The server was the primary, and is a standby.
        ServerRole = "server_role",
        /// A statement takes longer, or runs into timeouts more often, than it usually does.
        Statement = "statement",
        /// Transaction ids are about to run out.
        Wraparound = "wraparound",
    }
}

impl FindingKind {
    /// It is of a whole server: its watches report it once.
    pub(crate) fn is_of_server(self) -> bool {
        matches!(self, Self::Convoy | Self::Blind | Self::Blocker | Self::NotifyQueue | Self::ServerRole)
    }
}

/// Something that harms a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its kind, a label of metrics and log records.
    pub kind: FindingKind,
    /// The harm, in words.
    pub what: String,
    /// The session, slot or transaction to blame, if it is known.
    pub culprit: Option<Culprit>,
    /// The SQL that would end it, if there is one.
    pub remedy: Option<String>,
    /// The databases that suffer.
    pub reach: Reach,
}

/// The databases that a finding concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// The one whose watch found it.
    Own,
    /// All of the server.
    Server,
    /// Those with these oids.
    Of(BTreeSet<u32>),
}

impl Finding {
    pub(super) fn new(kind: FindingKind, what: impl fmt::Display, culprit: Option<Culprit>) -> Self {
        let remedy = culprit.as_ref().map(Culprit::remedy);
        Self { kind, what: what.to_string(), culprit, remedy, reach: Reach::Own }
    }

    /// The same, with databases besides the one whose watch found it.
    pub(super) fn reaching(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    /// The server has not answered for so long.
    pub fn blind(silence: Duration) -> Self {
        Self::new(FindingKind::Blind, format_args!("the server has not answered for {}", Seconds(silence)), None)
            .reaching(Reach::Server)
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

/// The same changes, as findings.
pub(super) fn reported<V>(changes: Vec<IncidentChange<V>>) -> Vec<IncidentChange<Finding>>
where
    for<'a> Finding: From<&'a V>,
{
    changes.into_iter().map(|change| change.map(|value| Finding::from(&value))).collect()
}

impl<V> Incident<V>
where
    for<'a> Finding: From<&'a V>,
{
    /// The same, as a finding.
    pub(super) fn finding(&self) -> Incident<Finding> {
        Incident { since: self.since, value: Finding::from(&self.value) }
    }
}
