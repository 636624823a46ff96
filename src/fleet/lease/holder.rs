//! The share that an instance may use, by what the book has granted and by when it did so. Pure.
//!
//! A grant is used for a margin less than the book keeps it, by the clock of the instance itself, which goes on while
//! the process stands still. An instance that cannot reach the book falls back to an even part, in such steps that all
//! parts stay within the limit while it is the book that is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{BookAnswer, MARGIN, TTL};
use crate::admission::fleet_share::FleetShare;
use crate::words::words;

/// So long a grant is used after the request for it.
const USE: Duration = TTL.saturating_sub(MARGIN);

words! {
    /// By what an instance lets transactions in.
    pub(crate) enum LeaseState {
        /// By grants of the book.
        Granted = "granted",
        /// The book cannot be reached: by an even part, or by the grant where that is smaller, until nobody has a
        /// larger one any more.
        Shrunk = "shrunk",
        /// The book is lost: by an even part.
        Even = "even",
        /// The book is lost, and how many others there are is not known: by one each.
        Smallest = "smallest",
        /// By nothing: the grants are over, and the book has not been asked since, as after a pause of the process.
        Lapsed = "lapsed",
    }
}

/// The grants of this instance.
#[derive(Debug, Default)]
pub(crate) struct LeaseHolder {
    seq: u64,
    granted: BTreeMap<String, u32>,
    valid_until: Option<Instant>,
    /// The first request since the last answer that failed, when we learnt of it.
    failed: Option<Instant>,
    /// Members by which limits are divided when the book is lost; 0: not known.
    knows: u32,
    /// When a share was applied last.
    applied: Option<Instant>,
}

impl LeaseHolder {
    /// The number of the next request.
    pub(crate) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// The book has answered a request that was made at `asked`.
    pub(crate) fn answered(&mut self, answer: &BookAnswer, asked: Instant) {
        self.granted = answer.grants.iter().map(|(name, grant)| (name.clone(), grant.most)).collect();
        self.valid_until = Some(asked + USE);
        self.failed = None;
        self.knows = answer.knows;
    }

    /// A request has failed.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.failed.get_or_insert(now);
    }

    /// When the book was lost, unless it answers.
    pub(crate) fn lost_since(&self) -> Option<Instant> {
        self.failed
    }

    /// Members by which limits are divided when the book is lost; 0: not known.
    pub(crate) fn knows(&self) -> u32 {
        self.knows
    }

    /// What is to be applied now, and until when it may be in force. To be applied before that again.
    pub(crate) fn apply(&mut self, now: Instant) -> (LeaseState, Instant) {
        // We have stood still, and do not know for how long the book has been lost.
        if self.applied.replace(now).is_some_and(|then| now >= then + USE) {
            self.failed = None;
        }
        let state = self.state(now);
        // The others may have left us out of their number since.
        if state == LeaseState::Lapsed {
            self.knows = 0;
        }
        match (state, self.valid_until) {
            (LeaseState::Granted, Some(until)) => (state, until),
            _ => (state, now + USE),
        }
    }

    /// By what transactions are let in.
    pub(crate) fn state(&self, now: Instant) -> LeaseState {
        let Some(failed) = self.failed else {
            return match self.valid_until {
                Some(until) if now < until => LeaseState::Granted,
                _ => LeaseState::Lapsed,
            };
        };
        match self.valid_until {
            None => LeaseState::Smallest,
            Some(until) if now < until => LeaseState::Granted,
            // Whoever was granted something before the book was lost has stopped using it.
            _ if now >= failed + TTL && self.knows == 0 => LeaseState::Smallest,
            _ if now >= failed + TTL => LeaseState::Even,
            Some(until) if failed < until => LeaseState::Shrunk,
            _ => LeaseState::Lapsed,
        }
    }

    /// Our share of a limit.
    pub(crate) fn share(&self, name: &str, limit: u32, now: Instant) -> FleetShare {
        let granted = self.granted.get(name).copied().unwrap_or(0);
        match self.state(now) {
            LeaseState::Granted => self.at_most(granted),
            LeaseState::Shrunk => self.at_most(granted.min(self.even().of(limit))),
            LeaseState::Lapsed => self.at_most(0),
            LeaseState::Even | LeaseState::Smallest => self.even(),
        }
    }

    /// Our share of limits that are not leased, and of those that nobody has asked for so far.
    pub(crate) fn general(&self, now: Instant) -> FleetShare {
        match self.state(now) {
            LeaseState::Even | LeaseState::Smallest => self.even(),
            LeaseState::Granted | LeaseState::Shrunk | LeaseState::Lapsed => self.at_most(0),
        }
    }

    fn even(&self) -> FleetShare {
        if self.knows == 0 { FleetShare::Smallest } else { FleetShare::even(self.knows) }
    }

    fn at_most(&self, most: u32) -> FleetShare {
        FleetShare::Granted { most, of: self.knows.max(1) }
    }
}

#[cfg(test)]
mod random_operations;
