//! The record of one statement: counters of each worker, and what is written seldom, behind a lock.

use std::array;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::baseline::StatementSums;
use super::caller::StatementCaller;
use super::run::StatementRun;
use crate::metrics::{BUCKETS, Distribution, bucket};
use crate::sql::Digest;
use crate::state::timeout::Timeout;

/// Roles of one statement that are named.
const ROLES_MAX: usize = 8;

/// Classes of errors that are counted apart; there are about forty.
const CLASSES_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct StatementRecord {
    pub digest: Digest,
    /// The text without its literals.
    pub text: Box<str>,
    /// Second of the process.
    first_seen: u32,
    /// It was folded into the others, or reset: what is counted here is lost.
    is_gone: AtomicBool,
    workers: Box<[WorkerCells]>,
    seldom: Mutex<Seldom>,
}

/// One worker's counters. Only that worker writes them, so adding is a load and a store.
#[derive(Debug, Default)]
#[repr(align(128))]
struct WorkerCells {
    calls: WorkerCell,
    rows: WorkerCell,
    bytes: WorkerCell,
    server_micros: WorkerCell,
    waits: WorkerCell,
    wait_micros: WorkerCell,
    /// Second of the process in which this worker wrote to [`Seldom`] last.
    second: WorkerCell,
    /// Roles that this worker has named there, as a set of hashes.
    roles: WorkerCell,
    server: ServerBuckets,
}

#[derive(Debug)]
struct ServerBuckets([WorkerCell; BUCKETS]);

impl Default for ServerBuckets {
    fn default() -> Self {
        Self(array::from_fn(|_| WorkerCell::default()))
    }
}

#[derive(Debug, Default)]
struct WorkerCell(AtomicU64);

impl WorkerCell {
    #[inline]
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    #[inline]
    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is written once a second, at an error, or at the first call of a role.
#[derive(Debug, Default, Clone)]
struct Seldom {
    roles: Vec<Arc<str>>,
    last_caller: Option<StatementCaller>,
    last_seen: u32,
    errors: BTreeMap<[u8; 2], u64>,
    timeouts: [u64; Timeout::ALL.len()],
    cancels: u64,
}

/// Sums of one record at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct StatementTotals {
    pub calls: u64,
    pub rows: u64,
    pub bytes: u64,
    /// Calls that waited for a backend, and for how long in all.
    pub waits: u64,
    pub waited: Duration,
    /// Time at the server.
    pub server: Distribution,
    /// By SQLSTATE class.
    pub errors: BTreeMap<[u8; 2], u64>,
    pub timeouts: [u64; Timeout::ALL.len()],
    /// Ended by a CancelRequest, or by `pg_cancel_backend`.
    pub cancels: u64,
}

impl StatementTotals {
    /// Adds those of another.
    pub(super) fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.waits += other.waits;
        self.waited += other.waited;
        self.server.merge(&other.server);
        for (class, count) in &other.errors {
            *self.errors.entry(*class).or_default() += count;
        }
        for (sum, count) in self.timeouts.iter_mut().zip(other.timeouts) {
            *sum += count;
        }
        self.cancels += other.cancels;
    }

    /// Time at the server in all.
    pub(crate) fn server_time(&self) -> Duration {
        Duration::from_micros(self.server.sum_micros)
    }

    pub(crate) fn errors(&self) -> u64 {
        self.errors.values().sum()
    }

    pub(crate) fn timeouts(&self) -> u64 {
        self.timeouts.iter().sum()
    }
}

/// A record as a reader sees it.
#[derive(Debug, Clone)]
pub(crate) struct StatementView {
    /// `None`: all others.
    pub digest: Option<Digest>,
    pub text: String,
    pub totals: StatementTotals,
    pub roles: Vec<Arc<str>>,
    pub last_caller: Option<StatementCaller>,
    /// Seconds of the process.
    pub first_seen: u32,
    pub last_seen: u32,
}

impl StatementRecord {
    pub(super) fn new(digest: Digest, text: String, workers: usize, second: u32) -> Self {
        Self {
            digest,
            text: text.into(),
            first_seen: second,
            is_gone: AtomicBool::new(false),
            workers: (0..workers).map(|_| WorkerCells::default()).collect(),
            seldom: Mutex::default(),
        }
    }

    /// Bytes that it takes, about.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.text.len() + self.workers.len() * size_of::<WorkerCells>() + 512
    }

    #[inline]
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    pub(super) fn leave(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
    }

    /// Counts one run. Only worker `worker` may call it with that number.
    #[inline]
    pub(super) fn count(
        &self,
        worker: usize,
        run: &StatementRun<'_>,
        second: u32,
        caller: impl FnOnce() -> StatementCaller,
    ) {
        let cells = &self.workers[worker];
        cells.calls.add(1);
        cells.rows.add(run.rows);
        cells.bytes.add(run.bytes);
        let (bucket, micros) = bucket(run.server);
        cells.server.0[bucket].add(1);
        cells.server_micros.add(micros);
        if !run.waited.is_zero() {
            cells.waits.add(1);
            cells.wait_micros.add(u64::try_from(run.waited.as_micros()).unwrap_or(u64::MAX));
        }
        let is_new_role = cells.roles.value() & run.role_bit == 0;
        if is_new_role || cells.second.value() != u64::from(second) || run.error.is_some() {
            cells.roles.0.store(cells.roles.value() | run.role_bit, Ordering::Relaxed);
            cells.second.0.store(u64::from(second), Ordering::Relaxed);
            self.note(run, second, caller());
        }
    }

    /// Counts a run that never came to a backend.
    pub(super) fn count_refusal(&self, worker: usize, run: &StatementRun<'_>, second: u32, caller: StatementCaller) {
        let cells = &self.workers[worker];
        cells.calls.add(1);
        cells.waits.add(1);
        cells.wait_micros.add(u64::try_from(run.waited.as_micros()).unwrap_or(u64::MAX));
        self.note(run, second, caller);
    }

    #[cold]
    fn note(&self, run: &StatementRun<'_>, second: u32, caller: StatementCaller) {
        let mut seldom = self.seldom();
        seldom.last_seen = second;
        if !seldom.roles.contains(&caller.role) && seldom.roles.len() < ROLES_MAX {
            seldom.roles.push(Arc::clone(&caller.role));
        }
        seldom.last_caller = Some(caller);
        let Some(error) = run.error else { return };
        let class = error.code.first_chunk().copied().unwrap_or(*b"XX");
        if seldom.errors.len() < CLASSES_MAX || seldom.errors.contains_key(&class) {
            *seldom.errors.entry(class).or_default() += 1;
        }
        match error.timeout {
            Some(timeout) => seldom.timeouts[timeout as usize] += 1,
            None if error.code == b"57014" => seldom.cancels += 1,
            None => {}
        }
    }

    fn seldom(&self) -> MutexGuard<'_, Seldom> {
        self.seldom.lock().expect("no panic while held")
    }

    /// What the early warning and the trend look at.
    pub(super) fn sums(&self) -> StatementSums {
        let mut sums = StatementSums { timeouts: self.seldom().timeouts.iter().sum(), ..StatementSums::default() };
        for cells in &self.workers {
            sums.calls += cells.calls.value();
            sums.server_micros += cells.server_micros.value();
            sums.wait_micros += cells.wait_micros.value();
        }
        sums
    }

    pub(super) fn totals(&self) -> StatementTotals {
        let seldom = self.seldom().clone();
        let mut totals = StatementTotals {
            errors: seldom.errors,
            timeouts: seldom.timeouts,
            cancels: seldom.cancels,
            ..StatementTotals::default()
        };
        for cells in &self.workers {
            totals.calls += cells.calls.value();
            totals.rows += cells.rows.value();
            totals.bytes += cells.bytes.value();
            totals.waits += cells.waits.value();
            totals.waited += Duration::from_micros(cells.wait_micros.value());
            let buckets = array::from_fn(|n| cells.server.0[n].value());
            totals.server.merge(&Distribution { buckets, sum_micros: cells.server_micros.value() });
        }
        totals
    }

    pub(super) fn view(&self) -> StatementView {
        let Seldom { roles, last_caller, last_seen, .. } = self.seldom().clone();
        StatementView {
            digest: Some(self.digest),
            text: self.text.to_string(),
            totals: self.totals(),
            roles,
            last_caller,
            first_seen: self.first_seen,
            // Before its first run has ended, nobody has noted it.
            last_seen: last_seen.max(self.first_seen),
        }
    }
}
