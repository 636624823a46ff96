//! Counters of the hot path: per worker, so that no two threads write the same line; summed when somebody looks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of one pool.
#[derive(Debug)]
pub struct PoolStats {
    cells: Box<[Cell]>,
}

/// One worker's share. Only that worker writes it, so adding is a load and a store.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Cell {
    queries: Counter,
    transactions: Counter,
    leases: Counter,
    received: Counter,
    sent: Counter,
    zombies: Counter,
    logins: Counter,
    wait: Histogram,
    lease: Histogram,
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

/// Buckets by powers of two of microseconds: bucket `n` holds durations below 2^n µs, the last everything else.
pub const BUCKETS: usize = 28;

#[derive(Debug, Default)]
struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_micros: Counter,
}

impl Histogram {
    #[inline]
    fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (64 - micros.leading_zeros() as usize).min(BUCKETS - 1);
        self.buckets[bucket].add(1);
        self.sum_micros.add(micros);
    }
}

impl Cell {
    /// Cycles of clients that ended, and how many of them ended a transaction.
    #[inline]
    pub fn cycles(&self, cycles: u64, transactions: u64) {
        self.queries.add(cycles);
        self.transactions.add(transactions);
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
}

/// The sum over all workers at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Cycles ended.
    pub queries: u64,
    /// Transactions ended.
    pub transactions: u64,
    /// Leases ended.
    pub leases: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Bytes to clients.
    pub sent: u64,
    /// Clients that vanished while their query ran.
    pub zombies: u64,
    /// Logins.
    pub logins: u64,
    /// Waits for a backend, of those that had to.
    pub wait: Distribution,
    /// Lengths of leases.
    pub lease: Distribution,
}

/// A histogram at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Counts by bucket, as of [`BUCKETS`].
    pub buckets: [u64; BUCKETS],
    /// Sum of all recorded durations, in microseconds.
    pub sum_micros: u64,
}

impl Distribution {
    fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.value();
        }
        self.sum_micros += histogram.sum_micros.value();
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
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
            totals.queries += cell.queries.value();
            totals.transactions += cell.transactions.value();
            totals.leases += cell.leases.value();
            totals.received += cell.received.value();
            totals.sent += cell.sent.value();
            totals.zombies += cell.zombies.value();
            totals.logins += cell.logins.value();
            totals.wait.add(&cell.wait);
            totals.lease.add(&cell.lease);
        }
        totals
    }
}

/// Errors that clients got, by SQLSTATE.
#[derive(Debug, Default)]
pub struct ErrorCounts(std::sync::Mutex<std::collections::BTreeMap<[u8; 5], u64>>);

impl ErrorCounts {
    /// One of ours.
    pub fn count(&self, code: &str) {
        self.count_bytes(code.as_bytes());
    }

    /// One of Postgres's; what is no SQLSTATE is counted as `?????`.
    pub fn count_bytes(&self, code: &[u8]) {
        let code = <[u8; 5]>::try_from(code).ok().filter(|code| code.iter().all(u8::is_ascii_alphanumeric));
        *self.0.lock().expect("no panic while held").entry(code.unwrap_or(*b"?????")).or_default() += 1;
    }

    /// Everything so far.
    pub fn totals(&self) -> Vec<(String, u64)> {
        let counts = self.0.lock().expect("no panic while held");
        counts.iter().map(|(code, n)| (String::from_utf8_lossy(code).into_owned(), *n)).collect()
    }
}
