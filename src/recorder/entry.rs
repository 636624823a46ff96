//! One transaction in a recording, in 24 bytes: no text, no value.

use std::time::Duration;

use crate::words::words;

/// Bytes of an entry.
pub(crate) const ENTRY: usize = 24;

words! {
    /// How a transaction ended, as far as pgweir is concerned.
    pub(crate) enum RecordedOutcome {
        /// It had a backend, until it gave that back or lost it.
        Served = "served",
        /// It waited for as long as it may.
        TimedOut = "timed out",
        /// It was refused, or could not be served.
        Refused = "refused",
        /// Its client went, or was canceled, while it waited.
        Left = "left",
    }
}

/// A transaction as recorded. Times are in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordedTransaction {
    /// When its client asked, since the recording began: 48 bits, which are nine years.
    pub arrival: u64,
    /// In the queue, up to an hour and eleven minutes.
    pub wait: u32,
    /// With a backend, likewise.
    pub served: u32,
    /// The number of its pool among the names.
    pub pool: u16,
    /// The number of its lane among the names, from 1; 0: none.
    pub lane: u8,
    pub outcome: RecordedOutcome,
    /// The lower half of the digest of the statement that its client sent last.
    pub digest: u32,
}

impl RecordedTransaction {
    pub(crate) fn bytes(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[0..6].copy_from_slice(&self.arrival.to_le_bytes()[..6]);
        bytes[6..10].copy_from_slice(&self.wait.to_le_bytes());
        bytes[10..14].copy_from_slice(&self.served.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.pool.to_le_bytes());
        bytes[16] = self.lane;
        bytes[17] = self.outcome as u8;
        bytes[18..22].copy_from_slice(&self.digest.to_le_bytes());
        bytes
    }

    /// `None`: of a later release.
    pub(crate) fn read(bytes: &[u8; ENTRY]) -> Option<Self> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut arrival = [0; 8];
        arrival[..6].copy_from_slice(&bytes[0..6]);
        Some(Self {
            arrival: u64::from_le_bytes(arrival),
            wait: u32_at(6),
            served: u32_at(10),
            pool: u16::from_le_bytes([bytes[14], bytes[15]]),
            lane: bytes[16],
            outcome: *RecordedOutcome::ALL.get(usize::from(bytes[17]))?,
            digest: u32_at(18),
        })
    }
}

/// Microseconds, as far as 32 bits go.
pub(crate) fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
