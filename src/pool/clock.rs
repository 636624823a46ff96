//! What a backend is at, and since when: stamped by the task of its client, read by the clock that looks for what takes too long.
//!
//! Stamps are numbers of ticks. One is a relaxed store of a number that lies ready, so no clock is asked on the way of a query. A
//! stamp may be a little too early, never too late: what ran for its limit is never taken for shorter.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Length of a tick.
pub const TICK: Duration = Duration::from_millis(100);

/// The number of the tick in which `elapsed` since the start of the process lies; ticks count from 1.
pub fn tick_of(elapsed: Duration) -> u32 {
    u32::try_from(elapsed.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX - 1) + 1
}

/// One backend's stamps; zero is none.
#[derive(Debug, Default)]
pub struct Clock {
    /// Since when its client waits for the end of a cycle. A server keeps answers back until then, so what is outstanding may
    /// have begun at any time since.
    cycle: AtomicU32,
    /// When a client last asked for a cancel.
    asked: AtomicU32,
}

impl Clock {
    /// A cycle begins.
    #[inline]
    pub fn begin(&self, tick: u32) {
        self.cycle.store(tick, Ordering::Relaxed);
    }

    /// Nothing is outstanding.
    #[inline]
    pub fn rest(&self) {
        self.cycle.store(0, Ordering::Relaxed);
    }

    /// The client asks for what runs to be cancelled.
    pub fn ask(&self, tick: u32) {
        self.asked.store(tick, Ordering::Relaxed);
    }

    /// The client asked for what runs to be cancelled.
    pub fn is_asked(&self) -> bool {
        let asked = self.asked.load(Ordering::Relaxed);
        asked != 0 && asked >= self.cycle.load(Ordering::Relaxed)
    }

    /// What runs may have taken this long by `now`, the tick under way.
    pub fn may_have_run(&self, limit: Duration, now: u32) -> bool {
        let since = self.cycle.load(Ordering::Relaxed);
        since != 0 && TICK * (now.saturating_sub(since) + 1) >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_is_asked_for_the_cycle_under_way_not_for_a_later_one() {
        let clock = Clock::default();
        clock.begin(7);
        assert!(!clock.is_asked());
        clock.ask(7);
        assert!(clock.is_asked());
        clock.begin(8);
        assert!(!clock.is_asked());
    }

    #[test]
    fn what_may_have_taken_its_limit_is_never_taken_for_shorter() {
        let clock = Clock::default();
        assert!(!clock.may_have_run(Duration::ZERO, 1));
        // From the last moment of tick 3, which is 300 ms after the start, to 500 ms.
        clock.begin(tick_of(Duration::from_millis(299)));
        assert!(clock.may_have_run(Duration::from_millis(201), tick_of(Duration::from_millis(500))));
        assert!(!clock.may_have_run(Duration::from_millis(500), tick_of(Duration::from_millis(500))));
    }
}
