//! The flight recorder: 24 bytes of each transaction in a ring file, for `pgweir replay`.
//!
//! A worker keeps its transactions in a batch ([`FlightLog`]) and gives it to the thread that writes
//! ([`writer`]) about once a second, so no worker touches the file. [`ring`] is the layout, [`entry`] one transaction.

pub(crate) mod entry;
pub(crate) mod ring;
mod writer;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use std::{io, thread};

use tokio::time::Instant;

use self::entry::micros;
pub(crate) use self::entry::{RecordedOutcome, RecordedTransaction};
pub(crate) use self::ring::{RecordedNames, Recording, read};
use self::writer::RingWriter;

/// Transactions in a batch, before it is given away early.
const BATCH: usize = 4096;

/// Batches that may wait for the disk; more are lost, which the log tells and a counter.
const BATCHES_MAX: usize = 64;

/// Pools that have numbers; what comes beyond has the last one.
const POOLS_MAX: usize = 1000;

/// Time 0 of recordings: 2025-01-01.
const EPOCH: Duration = Duration::from_secs(1_735_689_600);

/// The recording of this process.
#[derive(Debug)]
pub(crate) struct FlightRecorder {
    batches: SyncSender<Vec<RecordedTransaction>>,
    names: Arc<Mutex<RecordedNames>>,
    started: Instant,
    /// Of `started`, since [`EPOCH`].
    micros: u64,
    /// Transactions that the disk was too slow for.
    lost: AtomicU64,
}

impl FlightRecorder {
    /// Records to this file, and goes on with what is there.
    pub(crate) fn start(path: &Path, size: usize) -> io::Result<Arc<Self>> {
        let writer = RingWriter::open(path, size)?;
        let names = Arc::clone(writer.names());
        let (batches, inbox) = sync_channel(BATCHES_MAX);
        thread::Builder::new().name("recorder".into()).spawn(move || writer.run(&inbox))?;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + EPOCH).unwrap_or_default();
        let micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        Ok(Arc::new(Self { batches, names, started: Instant::now(), micros, lost: AtomicU64::new(0) }))
    }

    /// Transactions that are not in the recording, because the disk was too slow.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn lose(&self, transactions: usize) {
        let before = self.lost.fetch_add(transactions as u64, Ordering::Relaxed);
        let now = before + transactions as u64;
        // Once each time the number has doubled.
        if before.checked_ilog2() != now.checked_ilog2() {
            tracing::warn!(transactions = now, "the recording's disk is too slow; these transactions are not in it");
        }
    }

    fn names(&self) -> MutexGuard<'_, RecordedNames> {
        self.names.lock().expect("no panic while held")
    }

    fn pool(&self, database: &str, role: &str) -> u16 {
        let pools = &mut self.names().pools;
        let at = pools.iter().position(|(of, by)| of == database && by == role).unwrap_or_else(|| {
            if pools.len() < POOLS_MAX {
                pools.push((database.to_owned(), role.to_owned()));
            }
            pools.len() - 1
        });
        at as u16
    }

    fn lane(&self, name: &str) -> u8 {
        let lanes = &mut self.names().lanes;
        let at = lanes.iter().position(|of| of == name).unwrap_or_else(|| {
            if lanes.len() < usize::from(u8::MAX) {
                lanes.push(name.to_owned());
            }
            lanes.len() - 1
        });
        at as u8 + 1
    }
}

/// A transaction as its worker knows it.
#[derive(Debug)]
pub(crate) struct Flight<'a, P> {
    /// Its pool, and what that is called.
    pub pool: P,
    pub database: &'a str,
    pub role: &'a str,
    pub lane: Option<&'a str>,
    pub asked: Instant,
    pub waited: Duration,
    pub served: Duration,
    pub outcome: RecordedOutcome,
    pub digest: u64,
}

/// One worker's transactions that are not given away yet.
#[derive(Debug)]
pub(crate) struct FlightLog<P> {
    recorder: Arc<FlightRecorder>,
    batch: RefCell<Vec<RecordedTransaction>>,
    pools: RefCell<HashMap<P, u16>>,
    lanes: RefCell<HashMap<Box<str>, u8>>,
}

impl<P: Copy + Eq + Hash> FlightLog<P> {
    pub(crate) fn new(recorder: Arc<FlightRecorder>) -> Self {
        Self { recorder, batch: RefCell::default(), pools: RefCell::default(), lanes: RefCell::default() }
    }

    /// Records a transaction: a look-up and a push.
    pub(crate) fn record(&self, flight: &Flight<'_, P>) {
        let recorder = &self.recorder;
        let mut pools = self.pools.borrow_mut();
        if pools.len() >= POOLS_MAX && !pools.contains_key(&flight.pool) {
            // Under "*" pools come and go; their names keep their numbers.
            pools.clear();
        }
        let pool = *pools.entry(flight.pool).or_insert_with(|| recorder.pool(flight.database, flight.role));
        let since = flight.asked.saturating_duration_since(recorder.started).as_micros() as u64;
        let mut batch = self.batch.borrow_mut();
        batch.push(RecordedTransaction {
            arrival: recorder.micros + since,
            wait: micros(flight.waited),
            served: micros(flight.served),
            pool,
            lane: flight.lane.map_or(0, |lane| self.lane(lane)),
            outcome: flight.outcome,
            digest: flight.digest as u32,
        });
        if batch.len() >= BATCH {
            drop(batch);
            self.give();
        }
    }

    /// Gives what there is to the writer.
    pub(crate) fn give(&self) {
        let batch = std::mem::take(&mut *self.batch.borrow_mut());
        if batch.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(batch)) = self.recorder.batches.try_send(batch) {
            self.recorder.lose(batch.len());
        }
    }

    /// The number of a lane.
    fn lane(&self, name: &str) -> u8 {
        let mut lanes = self.lanes.borrow_mut();
        if let Some(number) = lanes.get(name) {
            return *number;
        }
        if lanes.len() >= usize::from(u8::MAX) {
            // Files come and go; the names keep their numbers.
            lanes.clear();
        }
        let number = self.recorder.lane(name);
        lanes.insert(name.into(), number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_slow_disk_loses_is_counted() {
        let (batches, inbox) = sync_channel(1);
        let (names, started) = (Arc::default(), Instant::now());
        let recorder = Arc::new(FlightRecorder { batches, names, started, micros: 0, lost: AtomicU64::new(0) });
        let log = FlightLog::new(Arc::clone(&recorder));
        for number in 0..3 {
            for lane in ["a", "b", "a"] {
                log.record(&flight(number, Some(lane)));
            }
            log.give();
        }
        assert_eq!(recorder.lost(), 6, "two batches of three");
        let kept: Vec<u8> = inbox.recv().expect("one batch").iter().map(|of| of.lane).collect();
        assert_eq!(kept, [1, 2, 1]);
    }

    fn flight(pool: usize, lane: Option<&str>) -> Flight<'_, usize> {
        Flight {
            pool,
            database: "app",
            role: "web",
            lane,
            asked: Instant::now(),
            waited: Duration::ZERO,
            served: Duration::ZERO,
            outcome: RecordedOutcome::Served,
            digest: 1,
        }
    }

    #[test]
    fn pools_that_come_and_go_keep_one_number_and_take_no_more_memory() {
        let dir = tempfile::tempdir().expect("a directory");
        let recorder = FlightRecorder::start(&dir.path().join("flight.rec"), 1024 * 1024).expect("it can be written");
        let log = FlightLog::new(recorder);
        for pool in 0..3 * POOLS_MAX {
            log.record(&flight(pool, None));
        }
        assert!(log.pools.borrow().len() <= POOLS_MAX);
        assert!(log.batch.borrow().iter().all(|transaction| transaction.pool == 0));
    }
}
