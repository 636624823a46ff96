//! Events of the whole process. Each is rare, so all threads count in one place.

use std::array;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::cause::ReloadOutcome;
use super::distribution::Distribution;
use super::table::{Metric, ProcessCounter, ProcessHistogram};

/// Counters of the whole process.
#[derive(Debug)]
pub(crate) struct ProcessStats {
    counters: [AtomicU64; ProcessCounter::SLOTS],
    histograms: [Mutex<Distribution>; ProcessHistogram::METRICS.len()],
    is_outdated: AtomicBool,
}

impl Default for ProcessStats {
    fn default() -> Self {
        Self {
            counters: array::from_fn(|_| AtomicU64::default()),
            histograms: array::from_fn(|_| Mutex::default()),
            is_outdated: AtomicBool::default(),
        }
    }
}

impl ProcessStats {
    pub(crate) fn add(&self, counter: ProcessCounter) {
        self.counters[counter.slot()].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one duration.
    pub(crate) fn record(&self, histogram: ProcessHistogram, duration: Duration) {
        self.histograms[histogram as usize].lock().expect("no panic while held").record(duration);
    }

    /// The configuration was read again.
    pub(crate) fn reloaded(&self, is_applied: bool) {
        let outcome = if is_applied { ReloadOutcome::Applied } else { ReloadOutcome::Refused };
        self.add(ProcessCounter::Reloads(outcome));
        self.is_outdated.store(!is_applied, Ordering::Relaxed);
    }

    /// The configuration in force is not the one that was read last.
    pub(crate) fn is_outdated(&self) -> bool {
        self.is_outdated.load(Ordering::Relaxed)
    }

    /// Every counter with the word of its label; the word of one that has none is empty.
    pub(crate) fn counters(&self) -> impl Iterator<Item = ((Metric, &'static str), u64)> {
        ProcessCounter::series().zip(&self.counters).map(|(series, count)| (series, count.load(Ordering::Relaxed)))
    }

    /// Every histogram.
    pub(crate) fn histograms(&self) -> impl Iterator<Item = (Metric, Distribution)> {
        let value = |histogram: &Mutex<Distribution>| histogram.lock().expect("no panic while held").clone();
        ProcessHistogram::METRICS.into_iter().zip(&self.histograms).map(move |(metric, of)| (metric, value(of)))
    }
}
