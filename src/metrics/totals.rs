//! Counters of one pool at one moment, over all workers.

use std::array;

use super::distribution::Distribution;
use super::table::{Metric, PoolCounter, PoolHistogram};

/// Counters of a pool, or of several, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    pub(super) counters: [u64; PoolCounter::SLOTS],
    pub(super) histograms: [Distribution; PoolHistogram::METRICS.len()],
}

impl Default for Totals {
    fn default() -> Self {
        Self { counters: [0; _], histograms: array::from_fn(|_| Distribution::default()) }
    }
}

impl Totals {
    /// How often it was counted.
    pub fn count(&self, counter: PoolCounter) -> u64 {
        self.counters[counter.slot()]
    }

    pub fn durations(&self, histogram: PoolHistogram) -> &Distribution {
        &self.histograms[histogram as usize]
    }

    /// Every counter with the word of its label; the word of one that has none is empty.
    pub fn counters(&self) -> impl Iterator<Item = ((Metric, &'static str), u64)> {
        PoolCounter::series().zip(self.counters)
    }

    /// Every histogram.
    pub fn histograms(&self) -> impl Iterator<Item = (Metric, &Distribution)> {
        PoolHistogram::METRICS.into_iter().zip(&self.histograms)
    }

    /// The difference to `before`, an earlier moment of the same.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            counters: array::from_fn(|n| self.counters[n].saturating_sub(before.counters[n])),
            histograms: array::from_fn(|n| self.histograms[n].since(&before.histograms[n])),
        }
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        for (sum, other) in self.counters.iter_mut().zip(other.counters) {
            *sum += other;
        }
        for (sum, other) in self.histograms.iter_mut().zip(&other.histograms) {
            sum.merge(other);
        }
    }
}
