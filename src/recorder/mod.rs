//! The flight recorder: 24 bytes of each transaction in a ring file, for `pgweir replay`.
//!
//! A worker keeps its transactions in a batch ([`FlightLog`]) and gives it to the thread that writes
//! ([`writer`]) about once a second, so no worker touches the file. [`ring`] is the layout, [`entry`] one transaction.

pub(crate) mod entry;
pub(crate) mod ring;
mod writer;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::Hash;
use std::path::Path;
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

/// Batches that may wait for the disk; more are lost, and the log says so.
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
        Ok(Arc::new(Self { batches, names, started: Instant::now(), micros }))
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
    /// Batches that the disk was too slow for.
    lost: Cell<u64>,
}

impl<P: Copy + Eq + Hash> FlightLog<P> {
    pub(crate) fn new(recorder: Arc<FlightRecorder>) -> Self {
        Self { recorder, batch: RefCell::default(), pools: RefCell::default(), lost: Cell::new(0) }
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
            lane: flight.lane.map_or(0, |lane| recorder.lane(lane)),
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
            self.lost.set(self.lost.get() + 1);
            if self.lost.get().is_power_of_two() {
                let (batches, last) = (self.lost.get(), batch.len());
                tracing::warn!(batches, last, "the recording's disk is too slow; these transactions are not in it");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_that_come_and_go_keep_one_number_and_take_no_more_memory() {
        let dir = tempfile::tempdir().expect("a directory");
        let recorder = FlightRecorder::start(&dir.path().join("flight.rec"), 1024 * 1024).expect("it can be written");
        let log = FlightLog::new(recorder);
        for pool in 0..3 * POOLS_MAX {
            log.record(&Flight {
                pool,
                database: "app",
                role: "web",
                lane: None,
                asked: Instant::now(),
                waited: Duration::ZERO,
                served: Duration::ZERO,
                outcome: RecordedOutcome::Served,
                digest: 1,
            });
        }
        assert!(log.pools.borrow().len() <= POOLS_MAX);
        assert!(log.batch.borrow().iter().all(|transaction| transaction.pool == 0));
    }
}
