//! All records of the process, in bounded memory.
//!
//! The cache's policy keeps what is called again: a flood of texts that come once passes through a small part of it and
//! evicts only itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, Weighter};

use super::baseline::{StatementBaselines, StatementSums, StatementWarning};
use super::record::{StatementRecord, StatementTotals, StatementView};
use super::trend::{StatementTrend, StatementTrends};
use crate::config::StatementKeys;
use crate::sql::Digest;

/// Bytes of a record with a short text, about: for the first size of the cache's table.
const RECORD: usize = 2048;

/// The record that counts what has none of its own is shown with this text.
const OTHERS: &str = "(all others)";

type RecordCache = Cache<Digest, Arc<StatementRecord>, RecordWeight, DefaultHashBuilder, RecordFolding>;

/// What statements do.
#[derive(Debug)]
pub(crate) struct StatementStore {
    records: RecordCache,
    /// Sums of the records that had to go.
    folded: Arc<Mutex<StatementTotals>>,
    /// Calls that have no record, as far as a worker could not find one.
    others: StatementRecord,
    baselines: Mutex<StatementBaselines>,
    trends: Mutex<StatementTrends>,
    /// Warnings that opened, by the database of the last caller.
    warned: Mutex<HashMap<Arc<str>, u64>>,
    /// Seconds between two looks at all statements; zero: there are none.
    look_every: AtomicU32,
    workers: usize,
    /// For the fingerprints of texts.
    seed: u64,
    /// Microseconds from which a statement is logged; `u64::MAX`: none is.
    slow_micros: AtomicU64,
    /// One of so many slow statements is logged.
    slow_sample: AtomicU64,
}

#[derive(Debug, Clone)]
struct RecordWeight;

impl Weighter<Digest, Arc<StatementRecord>> for RecordWeight {
    fn weight(&self, _: &Digest, record: &Arc<StatementRecord>) -> u64 {
        record.memory() as u64
    }
}

/// Folds a record that has to go into the sum of all others.
#[derive(Debug, Clone)]
struct RecordFolding(Arc<Mutex<StatementTotals>>);

impl Lifecycle<Digest, Arc<StatementRecord>> for RecordFolding {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: Digest, record: Arc<StatementRecord>) {
        record.leave();
        self.0.lock().expect("no panic while held").merge(&record.totals());
    }
}

impl StatementStore {
    /// For so many workers. `seed` is random.
    pub(crate) fn new(workers: usize, settings: &StatementKeys, seed: u64) -> Self {
        let folded = Arc::new(Mutex::default());
        let (items, bytes) = (settings.memory / RECORD, settings.memory as u64);
        let records =
            Cache::with(items, bytes, RecordWeight, DefaultHashBuilder::default(), RecordFolding(Arc::clone(&folded)));
        let this = Self {
            records,
            folded,
            others: StatementRecord::new(Digest(0), OTHERS.to_owned(), workers, 0),
            baselines: Mutex::default(),
            trends: Mutex::default(),
            warned: Mutex::default(),
            look_every: AtomicU32::new(0),
            workers,
            seed,
            slow_micros: AtomicU64::new(u64::MAX),
            slow_sample: AtomicU64::new(1),
        };
        this.set(settings);
        this
    }

    /// Takes the settings that may change at any time.
    pub(crate) fn set(&self, settings: &StatementKeys) {
        let micros = settings.log_slow.map_or(u64::MAX, |slow| slow.as_micros() as u64);
        let look_every = settings.early_warning.map_or(0, |every| every.as_secs_f64().ceil() as u32);
        self.look_every.store(look_every, Ordering::Relaxed);
        self.slow_micros.store(micros, Ordering::Relaxed);
        self.slow_sample.store(settings.log_slow_sample.into(), Ordering::Relaxed);
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// True if a statement that took this long is slow.
    #[inline]
    pub(super) fn is_slow(&self, took: Duration) -> bool {
        let slow = self.slow_micros.load(Ordering::Relaxed);
        slow != u64::MAX && took.as_micros() >= u128::from(slow)
    }

    /// True if slow statements are logged.
    #[inline]
    pub(super) fn logs_slow(&self) -> bool {
        self.slow_micros.load(Ordering::Relaxed) != u64::MAX
    }

    pub(super) fn slow_sample(&self) -> u64 {
        self.slow_sample.load(Ordering::Relaxed)
    }

    /// The record of this digest, if there is one.
    pub(super) fn find(&self, digest: Digest) -> Option<Arc<StatementRecord>> {
        self.records.get(&digest)
    }

    /// The record of this digest, made with this text if there was none.
    pub(super) fn admit(&self, digest: Digest, text: impl FnOnce() -> String, second: u32) -> Arc<StatementRecord> {
        if let Some(record) = self.records.get(&digest) {
            return record;
        }
        let record = Arc::new(StatementRecord::new(digest, text(), self.workers, second));
        self.records.insert(digest, Arc::clone(&record));
        record
    }

    /// The record of everything that has none.
    pub(super) fn others(&self) -> &StatementRecord {
        &self.others
    }

    /// The text of a statement that has a record.
    pub(crate) fn text(&self, digest: Digest) -> Option<String> {
        self.records.peek(&digest).map(|record| record.text.to_string())
    }

    /// Every record, and last the sum of all others.
    pub(crate) fn view(&self) -> Vec<StatementView> {
        let mut views: Vec<_> = self.records.iter().map(|(_, record)| record.view()).collect();
        let mut others = self.others.view();
        others.digest = None;
        others.totals.merge(&self.folded.lock().expect("no panic while held"));
        views.push(others);
        views
    }

    /// Draws the trend, and looks for statements that are not as usual, each once in a while. `second`: of the process.
    pub(crate) fn look(&self, second: u32) {
        let mut trends = self.trends();
        if trends.is_due(second) {
            trends.look(self.sums(), second);
        }
        drop(trends);
        let every = self.look_every.load(Ordering::Relaxed);
        if every == 0 || !second.is_multiple_of(every) {
            return;
        }
        for StatementWarning { digest, trouble, .. } in self.baselines().look(self.sums(), second) {
            let view = self.records.peek(&digest).map(|record| record.view());
            let (text, caller) = view.map(|view| (view.text, view.last_caller)).unwrap_or_default();
            tracing::warn!(%digest, ?trouble, text, "a statement is not as usual");
            if let Some(caller) = caller {
                *self.warned.lock().expect("no panic while held").entry(caller.database).or_default() += 1;
            }
        }
    }

    /// How many warnings have opened about statements of this database.
    pub(crate) fn warned(&self, database: &str) -> u64 {
        self.warned.lock().expect("no panic while held").get(database).copied().unwrap_or(0)
    }

    /// Statements that are not as usual, as they stand.
    pub(crate) fn warnings(&self) -> Vec<(StatementWarning, StatementView)> {
        let open = self.baselines().open();
        let view = |warning: StatementWarning| Some((warning, self.records.peek(&warning.digest)?.view()));
        open.into_iter().filter_map(view).collect()
    }

    /// The statements that kept the servers busiest in the last minutes, with their records.
    pub(crate) fn busiest(&self, most: usize) -> Vec<(StatementTrend, StatementView)> {
        let trends = self.trends().busiest(most);
        let view = |trend: StatementTrend| {
            let view = self.records.peek(&trend.digest)?.view();
            Some((trend, view))
        };
        trends.into_iter().filter_map(view).collect()
    }

    /// One that did nothing so far, as far as is known.
    pub(crate) fn at_rest(&self, digest: Digest) -> Option<(StatementTrend, StatementView)> {
        let view = self.records.peek(&digest)?.view();
        Some((StatementTrend { digest, busy: Vec::new(), lately: StatementSums::default() }, view))
    }

    fn sums(&self) -> impl Iterator<Item = (Digest, StatementSums)> + '_ {
        self.records.iter().map(|(digest, record)| (digest, record.sums()))
    }

    fn trends(&self) -> MutexGuard<'_, StatementTrends> {
        self.trends.lock().expect("no panic while held")
    }

    fn baselines(&self) -> MutexGuard<'_, StatementBaselines> {
        self.baselines.lock().expect("no panic while held")
    }

    /// Forgets all that was counted.
    pub(crate) fn reset(&self) {
        self.records.iter().for_each(|(_, record)| record.leave());
        self.records.clear();
        *self.folded.lock().expect("no panic while held") = StatementTotals::default();
        self.trends().reset();
    }
}
