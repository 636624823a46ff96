//! Counters of the hot path: one share per worker, so that no two threads write the same line, and summed when somebody looks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::cause::OpenFailure;
use super::distribution::{BUCKETS, Distribution, bucket};
use super::totals::Totals;
use crate::state::timeout::Timeout;

/// Counters of one pool.
#[derive(Debug)]
pub struct PoolStats {
    cells: Box<[Cell]>,
}

/// One worker's share. Only that worker writes it, so adding is a load and a store.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Cell {
    leases: Counter,
    received: Counter,
    sent: Counter,
    zombies: Counter,
    logins: Counter,
    timeouts: [Counter; Timeout::ALL.len()],
    open_failures: [Counter; OpenFailure::ALL.len()],
    wait: Histogram,
    lease: Histogram,
    query: Histogram,
    transaction: Histogram,
    open: Histogram,
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

    fn add_to(&self, distribution: &mut Distribution) {
        for (sum, bucket) in distribution.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.value();
        }
        distribution.sum_micros += self.sum_micros.value();
    }
}

impl PoolStats {
    /// For this many workers.
    pub fn new(workers: usize) -> Self {
        Self { cells: (0..workers).map(|_| Cell::default()).collect() }
    }

    /// The share of one worker, to be written by that worker only.
    #[inline]
    pub fn cell(&self, worker: usize) -> &Cell {
        &self.cells[worker]
    }

    /// Everything so far.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for cell in &self.cells {
            totals.leases += cell.leases.value();
            totals.received += cell.received.value();
            totals.sent += cell.sent.value();
            totals.zombies += cell.zombies.value();
            totals.logins += cell.logins.value();
            for (sum, timeout) in totals.timeouts.iter_mut().zip(&cell.timeouts) {
                *sum += timeout.value();
            }
            for (sum, failure) in totals.open_failures.iter_mut().zip(&cell.open_failures) {
                *sum += failure.value();
            }
            cell.wait.add_to(&mut totals.wait);
            cell.lease.add_to(&mut totals.lease);
            cell.query.add_to(&mut totals.query);
            cell.transaction.add_to(&mut totals.transaction);
            cell.open.add_to(&mut totals.open);
        }
        totals
    }
}

impl Cell {
    /// A cycle of a client's ended that lasted so long, and with it maybe a transaction.
    #[inline]
    pub fn cycle(&self, cycle: Duration, transaction: Option<Duration>) {
        self.query.record(cycle);
        if let Some(transaction) = transaction {
            self.transaction.record(transaction);
        }
    }

    /// A backend was opened; it took so long.
    pub fn opened(&self, duration: Duration) {
        self.open.record(duration);
    }

    /// A backend could not be opened.
    pub fn not_opened(&self, why: OpenFailure) {
        self.open_failures[why as usize].add(1);
    }

    /// A lease ended that lasted so long.
    #[inline]
    pub fn leased(&self, duration: Duration) {
        self.leases.add(1);
        self.lease.record(duration);
    }

    /// A client stood in line so long, and got a backend.
    pub fn waited(&self, duration: Duration) {
        self.wait.record(duration);
    }

    /// Bytes from clients.
    #[inline]
    pub fn received(&self, bytes: usize) {
        self.received.add(bytes as u64);
    }

    /// Bytes to clients.
    #[inline]
    pub fn sent(&self, bytes: usize) {
        self.sent.add(bytes as u64);
    }

    /// A client vanished while its query ran.
    pub fn zombie(&self) {
        self.zombies.add(1);
    }

    /// A client logged in.
    pub fn login(&self) {
        self.logins.add(1);
    }

    /// A timeout ended something.
    pub fn timeout(&self, timeout: Timeout) {
        self.timeouts[timeout as usize].add(1);
    }
}
