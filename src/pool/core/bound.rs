//! One of the shared bounds (a database's, or the one over all), and the pools that are hungry under it.

use super::PoolId;
use super::slot::{SlotCounts, SlotPhase};
use crate::config::{Priority, Share};

#[derive(Debug, Default)]
pub(super) struct Bound {
    pub(super) max: Option<u32>,
    pub(super) counts: SlotCounts,
    pub(super) waiting: u32,
    /// Pools with somebody waiting.
    pub(super) hungry: Vec<PoolId>,
    /// Weights of pools with somebody waiting or a live slot: the bound is shared among those.
    pub(super) interactive: u64,
    pub(super) batch: u64,
}

/// While interactive pools want slots, all batch pools together have one of this many.
const BATCH_PART: u32 = 8;

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

    /// The slots that an active pool may have before the others. At least one: where pools outnumber slots, they take
    /// turns.
    pub(super) fn share(&self, of: Share) -> u32 {
        let Some(max) = self.max else { return u32::MAX };
        let batch = match (self.interactive, self.batch) {
            (_, 0) => 0,
            (0, _) => max,
            _ => (max / BATCH_PART).max(1).min(max),
        };
        let (part, weights) = match of.priority {
            Priority::Interactive => (max - batch, self.interactive),
            Priority::Batch => (batch, self.batch),
        };
        let weight = u64::from(of.weight);
        // No more than `part`, which is a u32.
        ((u64::from(part) * weight / weights.max(weight)) as u32).max(1)
    }

    pub(super) fn shift(&mut self, from: Option<SlotPhase>, to: Option<SlotPhase>, active: ActivityChange, of: Share) {
        self.counts.shift(from, to);
        self.note(active, of);
    }

    pub(super) fn note(&mut self, active: ActivityChange, of: Share) {
        let weights = match of.priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Batch => &mut self.batch,
        };
        match active {
            ActivityChange::Began => *weights += u64::from(of.weight),
            ActivityChange::Ended => *weights -= u64::from(of.weight),
            ActivityChange::None => {}
        }
    }
}

/// How a yes or no changed.
#[derive(Debug, Clone, Copy)]
pub(super) enum ActivityChange {
    Began,
    Ended,
    None,
}

impl ActivityChange {
    pub(super) fn between(was: bool, is: bool) -> Self {
        match (was, is) {
            (false, true) => Self::Began,
            (true, false) => Self::Ended,
            _ => Self::None,
        }
    }
}
