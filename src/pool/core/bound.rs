//! One of the shared bounds (a database's, or the one over all), and who is hungry under it.

use super::PoolId;
use super::slot::{Counts, Phase};

#[derive(Debug, Default)]
pub(super) struct Bound {
    pub(super) max: Option<u32>,
    pub(super) counts: Counts,
    pub(super) waiting: u32,
    /// Pools with somebody in line.
    pub(super) hungry: Vec<PoolId>,
    /// Pools with somebody in line or a live slot: those the bound is shared among.
    pub(super) active: u32,
}

impl Bound {
    pub(super) fn new(max: Option<u32>) -> Self {
        Self { max, ..Self::default() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.max.is_some_and(|max| self.counts.open() >= max)
    }

    /// More live slots than the bound allows: it was lowered.
    pub(super) fn is_exceeded(&self) -> bool {
        self.max.is_some_and(|max| self.counts.live() > max)
    }

    /// What each active pool may have before the others. At least one: where pools outnumber slots, they take turns.
    pub(super) fn share(&self) -> u32 {
        match self.max {
            Some(max) => (max / self.active.max(1)).max(1),
            None => u32::MAX,
        }
    }

    pub(super) fn shift(&mut self, from: Option<Phase>, to: Option<Phase>, active: Change) {
        self.counts.shift(from, to);
        self.note(active);
    }

    pub(super) fn note(&mut self, active: Change) {
        match active {
            Change::Began => self.active += 1,
            Change::Ended => self.active -= 1,
            Change::None => {}
        }
    }
}

/// How a yes or no changed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Began,
    Ended,
    None,
}

impl Change {
    pub(super) fn between(was: bool, is: bool) -> Self {
        match (was, is) {
            (false, true) => Change::Began,
            (true, false) => Change::Ended,
            _ => Change::None,
        }
    }
}
