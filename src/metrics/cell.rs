//! Counters of the hot path: each worker has its own, so that no two threads write the same cache line. A reader sums
//! them up.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::distribution::{BUCKETS, Distribution, bucket};
use super::table::{PoolCounter, PoolHistogram};
use super::totals::Totals;

/// Counters of one pool.
#[derive(Debug)]
pub struct PoolStats {
    workers: Box<[WorkerStats]>,
}

/// One worker's counters of one pool. Only that worker writes them, so adding is a load and a store.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerStats {
    counters: [Counter; PoolCounter::SLOTS],
    histograms: [Histogram; PoolHistogram::METRICS.len()],
}

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    #[inline]
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_micros: Counter,
}

impl Histogram {
    #[inline]
    fn record(&self, duration: Duration) {
        let (bucket, micros) = bucket(duration);
        self.buckets[bucket].add(1);
        self.sum_micros.add(micros);
    }

    fn value(&self) -> Distribution {
        Distribution { buckets: array::from_fn(|n| self.buckets[n].value()), sum_micros: self.sum_micros.value() }
    }
}

impl PoolStats {
    /// For this many workers.
    pub fn new(workers: usize) -> Self {
        Self { workers: (0..workers).map(|_| WorkerStats::new()).collect() }
    }

    /// The counters of one worker, to be written by that worker only.
    #[inline]
    pub fn worker(&self, id: usize) -> &WorkerStats {
        &self.workers[id]
    }

    /// The sum over all workers.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for worker in &self.workers {
            totals.merge(&worker.totals());
        }
        totals
    }
}

impl WorkerStats {
    fn new() -> Self {
        Self { counters: array::from_fn(|_| Counter::default()), histograms: array::from_fn(|_| Histogram::default()) }
    }

    #[inline]
    pub fn add(&self, counter: PoolCounter) {
        self.add_many(counter, 1);
    }

    #[inline]
    pub fn add_many(&self, counter: PoolCounter, n: usize) {
        self.counters[counter.slot()].add(n as u64);
    }

    /// Counts one duration.
    #[inline]
    pub fn record(&self, histogram: PoolHistogram, duration: Duration) {
        self.histograms[histogram as usize].record(duration);
    }

    /// Counts a lease that ended, and how long it lasted.
    #[inline]
    pub fn leased(&self, duration: Duration) {
        self.add(PoolCounter::Leases);
        self.record(PoolHistogram::Lease, duration);
    }

    /// Counts a client's cycle that ended, how long it lasted, and the transaction that may have ended with it.
    #[inline]
    pub fn cycle(&self, cycle: Duration, transaction: Option<Duration>) {
        self.record(PoolHistogram::Query, cycle);
        if let Some(transaction) = transaction {
            self.record(PoolHistogram::Transaction, transaction);
        }
    }

    fn totals(&self) -> Totals {
        Totals {
            counters: array::from_fn(|n| self.counters[n].value()),
            histograms: array::from_fn(|n| self.histograms[n].value()),
        }
    }
}
