//! The thread that writes a recording: the only one that touches its file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
#[expect(clippy::disallowed_types, reason = "a thread of its own waits here, not a worker")]
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::entry::RecordedTransaction;
use super::ring::{self, BLOCK, ENTRIES, RecordedNames};

/// A block that is not full is written this often.
const WRITE_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct RingWriter {
    file: File,
    blocks: u64,
    /// The number of the block that is being filled.
    number: u64,
    entries: Vec<RecordedTransaction>,
    /// Entries of it that the file has.
    written: usize,
    names: Arc<Mutex<RecordedNames>>,
    /// Those that the file has, and the number of their block.
    known: RecordedNames,
    names_number: u64,
}

impl RingWriter {
    /// Opens a recording. What is there goes on, if it is one of this size.
    pub(super) fn open(path: &Path, size: usize) -> io::Result<Self> {
        let blocks = (size / BLOCK) as u64;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut before = None;
        if file.metadata()?.len() == blocks * BLOCK as u64 {
            before = ring::position(&std::fs::read(path)?);
        } else {
            file.set_len(0)?;
            file.set_len(blocks * BLOCK as u64)?;
        }
        let (number, names_number, known) = before.unwrap_or_default();
        let names = Arc::new(Mutex::new(known));
        let (entries, written) = (Vec::with_capacity(ENTRIES), 0);
        Ok(Self { file, blocks, number, entries, written, names, known: RecordedNames::default(), names_number })
    }

    pub(super) fn names(&self) -> &Arc<Mutex<RecordedNames>> {
        &self.names
    }

    /// Writes what comes until nobody is left to send.
    #[expect(clippy::disallowed_types, reason = "a thread of its own waits here, not a worker")]
    pub(super) fn run(mut self, batches: &Receiver<Vec<RecordedTransaction>>) {
        let mut is_failing = false;
        loop {
            let batch = batches.recv_timeout(WRITE_EVERY);
            if batch == Err(RecvTimeoutError::Disconnected) {
                let _ = self.write();
                return;
            }
            match self.take(batch.unwrap_or_default()) {
                Ok(()) => is_failing = false,
                Err(error) if !is_failing => {
                    tracing::warn!(%error, "the recording cannot be written");
                    is_failing = true;
                }
                Err(_) => {}
            }
        }
    }

    fn take(&mut self, batch: Vec<RecordedTransaction>) -> io::Result<()> {
        for transaction in batch {
            self.entries.push(transaction);
            if self.entries.len() == ENTRIES {
                let written = self.write();
                // A block that could not be written is left out.
                self.number += 1;
                self.entries.clear();
                self.written = 0;
                written?;
            }
        }
        self.write()
    }

    /// Writes the block that is being filled, after the names that it needs.
    fn write(&mut self) -> io::Result<()> {
        if self.entries.len() == self.written {
            return Ok(());
        }
        let names = self.names.lock().expect("no panic while held").clone();
        if names != self.known {
            self.names_number += 1;
            if let Some(block) = ring::names_block(self.names_number, &names) {
                self.file.write_all_at(&block, ring::names_place(self.names_number))?;
            }
            self.known = names;
        }
        let block = ring::entries_block(self.number, &self.entries);
        self.file.write_all_at(&block, ring::place(self.number, self.blocks))?;
        self.written = self.entries.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::entry::RecordedOutcome;

    fn transactions(arrivals: std::ops::Range<u64>) -> Vec<RecordedTransaction> {
        let of = |arrival| RecordedTransaction {
            arrival,
            wait: 0,
            served: 5,
            pool: 0,
            lane: 0,
            outcome: RecordedOutcome::Served,
            digest: 0,
        };
        arrivals.map(of).collect()
    }

    #[test]
    fn a_recording_goes_on_after_a_restart_and_keeps_to_its_size() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("flight.rec");
        let mut arrivals = 0;
        let per_run = ENTRIES as u64 * 2 + 100;
        for run in 0..3 {
            let mut writer = RingWriter::open(&path, 8 * BLOCK).expect("it can be written");
            writer.names.lock().expect("no panic").pools = vec![("app".into(), format!("role {run}"))];
            writer.take(transactions(arrivals..arrivals + per_run)).expect("it can be written");
            arrivals += per_run;
        }
        let recording = ring::read(&std::fs::read(&path).expect("it is there")).expect("a recording");
        assert_eq!(recording.names.pools, [("app".to_owned(), "role 2".to_owned())]);
        assert_eq!(recording.torn, 0);
        let kept: Vec<_> = recording.transactions.iter().map(|of| of.arrival).collect();
        assert_eq!(*kept.last().expect("some"), arrivals - 1);
        assert!(kept.windows(2).all(|pair| pair[0] < pair[1]) && kept.len() > 3 * ENTRIES, "{}", kept.len());
        assert_eq!(std::fs::metadata(&path).expect("it is there").len(), 8 * BLOCK as u64);
    }
}
