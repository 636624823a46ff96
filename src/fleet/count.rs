//! Counts the instances by their connections to the servers, and divides the limits by their number. Pure.
//!
//! Every instance that is watched names its connection after the fleet and itself, and looks who else is there. Nobody
//! says anything to anybody. Three rules keep the parts together within the limits:
//!
//! - Who comes counts at once for the others, and for itself takes the smallest part until it has been counted for
//!   longer than the others need to see it.
//! - Who goes counts for [`GRACE`] more.
//! - While a server does not answer, those that were seen there last still count.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::fleet_share::FleetShare;

/// How often an instance looks.
pub(crate) const EVERY: Duration = Duration::from_millis(500);

/// For so long after it was first missed an instance still counts: its connection may come back.
const GRACE: Duration = Duration::from_secs(1);

/// A newcomer has been counted for so long when it takes its part: twice the time that the others need to see it.
const SETTLED: Duration = Duration::from_millis(1000);

/// After so long without a look the others may not have seen a newcomer either: the server was away.
const BREAK: Duration = EVERY.saturating_mul(2);

/// An instance for those who count: random, drawn at its start.
pub(crate) type InstanceId = u64;

/// Those seen at one server.
#[derive(Debug, Default)]
struct Roster {
    /// Each with the time when it was missed first, if it is missing.
    members: BTreeMap<InstanceId, Option<Instant>>,
    /// We have been among them without a break since.
    counted: Option<Instant>,
    /// When it was looked last.
    looked: Option<Instant>,
}

/// The instances as far as we have seen them.
#[derive(Debug)]
pub(crate) struct FleetCount {
    me: InstanceId,
    /// By the database whose watch looked.
    rosters: HashMap<Arc<str>, Roster>,
    is_settled: bool,
}

impl FleetCount {
    /// Nobody has been counted yet.
    pub(crate) fn new(me: InstanceId) -> Self {
        Self { me, rosters: HashMap::new(), is_settled: false }
    }

    /// The watch of this database has seen these.
    pub(crate) fn saw(&mut self, database: &Arc<str>, seen: &BTreeSet<InstanceId>, now: Instant) {
        let roster = self.rosters.entry(Arc::clone(database)).or_default();
        for member in seen {
            roster.members.insert(*member, None);
        }
        roster.members.retain(|member, missed| {
            seen.contains(member) || now.saturating_duration_since(*missed.get_or_insert(now)) < GRACE
        });
        let has_break = roster.looked.replace(now).is_some_and(|then| now >= then + BREAK);
        let is_there = seen.contains(&self.me);
        if !is_there || has_break {
            roster.counted = None;
        }
        if is_there && now.saturating_duration_since(*roster.counted.get_or_insert(now)) >= SETTLED {
            self.is_settled = true;
        }
    }

    /// This database is not watched any more.
    pub(crate) fn forget(&mut self, database: &str) {
        self.rosters.remove(database);
    }

    /// Everybody who counts, ourselves included.
    pub(crate) fn members(&self) -> BTreeSet<InstanceId> {
        let seen = self.rosters.values().flat_map(|roster| roster.members.keys().copied());
        seen.chain([self.me]).collect()
    }

    /// Our part.
    pub(crate) fn share(&self) -> FleetShare {
        if !self.is_settled {
            return FleetShare::Smallest;
        }
        let members = self.members();
        let count = |number: usize| u32::try_from(number).expect("fewer instances than that");
        FleetShare::Part { rank: count(members.range(..self.me).count()), of: count(members.len()) }
    }
}

#[cfg(test)]
mod random_operations;
