//! The time of the process, as of the last tick: reading it costs no system call.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::pool::clock;

/// When the process started, and how long ago that was.
#[derive(Debug)]
pub(crate) struct ProcessClock {
    started: Instant,
    started_at: SystemTime,
    second: AtomicU32,
    ticks: AtomicU32,
}

impl ProcessClock {
    /// Starts now.
    pub(super) fn new(started: Instant) -> Self {
        Self { started, started_at: SystemTime::now(), second: AtomicU32::new(0), ticks: AtomicU32::new(1) }
    }

    /// Has the tick under way be the one at `now`.
    pub(super) fn look(&self, now: Instant) {
        self.ticks.store(self.tick_at(now), Ordering::Relaxed);
    }

    /// Counts the seconds up to `now`. True if another one has begun.
    pub(super) fn count_seconds(&self, now: Instant) -> bool {
        let second = u32::try_from(now.saturating_duration_since(self.started).as_secs()).unwrap_or(u32::MAX);
        self.second.swap(second, Ordering::Relaxed) != second
    }

    /// Seconds since the start, as of the last tick.
    #[inline]
    pub(crate) fn second(&self) -> u32 {
        self.second.load(Ordering::Relaxed)
    }

    /// The tick under way, or one a little earlier: no clock is asked.
    #[inline]
    pub(crate) fn ticks(&self) -> u32 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// The tick under way at `now`.
    pub(crate) fn tick_at(&self, now: Instant) -> u32 {
        clock::tick_of(now.saturating_duration_since(self.started))
    }

    /// When it started, by the calendar.
    pub(crate) fn started_at(&self) -> SystemTime {
        self.started_at
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }
}
