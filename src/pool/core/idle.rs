//! Idle backends: a stack for each worker, the longest idle at its bottom.

use std::collections::VecDeque;

use super::SlotId;

/// The idle backends of a pool, or of a pool at one reader.
#[derive(Debug, Clone)]
pub(super) struct IdleStacks(Vec<VecDeque<SlotId>>);

impl IdleStacks {
    pub(super) fn new(workers: usize) -> Self {
        Self(vec![VecDeque::new(); workers])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(VecDeque::is_empty)
    }

    #[inline]
    pub(super) fn push(&mut self, worker: usize, slot: SlotId) {
        self.0[worker].push_back(slot);
    }

    /// The backend used last by this worker, else by the worker that has most to spare.
    #[inline]
    pub(super) fn pop(&mut self, worker: usize) -> Option<SlotId> {
        self.0[worker].pop_back().or_else(|| self.0.iter_mut().max_by_key(|stack| stack.len())?.pop_back())
    }

    pub(super) fn remove(&mut self, worker: usize, slot: SlotId) {
        self.0[worker].retain(|idle| *idle != slot);
    }

    /// Those that this worker used last, the longest idle first.
    pub(super) fn of_worker(&self, worker: usize) -> impl Iterator<Item = SlotId> {
        self.0[worker].iter().copied()
    }

    /// The longest idle of each worker.
    pub(super) fn oldest(&self) -> impl Iterator<Item = SlotId> {
        self.0.iter().filter_map(|stack| stack.front().copied())
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = SlotId> {
        self.0.iter().flatten().copied()
    }
}
