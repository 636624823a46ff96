//! The effective limit of a role queue that finds out how much the server can take: it starts low and doubles per
//! service time.
//!
//! A limit set far too high is harmless while nothing stalls and deadly when something does. A limit grown by
//! completions is lower than that most of the time, because slow transactions do not let it grow; but what stays slow
//! becomes the usual, so a long burst may have lifted it as high when the stall comes.

use std::time::Duration;

use tokio::time::Instant;

/// A transaction that takes longer than this and [`SLOW`] times the usual has been held up by something.
const SLOW_MIN: f64 = 0.25;
const SLOW: f64 = 4.0;

/// One stall makes many slow completions; they count once.
const CUT_INTERVAL: Duration = Duration::from_millis(200);

/// After everything has been slow for this long, the slowness is not the role queue's doing: it is the new usual.
const NORMAL_AGAIN: Duration = Duration::from_secs(10);

/// The usual service time, in seconds: follows faster transactions at once and slower ones hardly.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Baseline(Option<f64>);

impl Baseline {
    pub(super) fn note(&mut self, served: f64) {
        self.0 = Some(match self.0 {
            None => served,
            Some(base) if served < base => 0.9 * base + 0.1 * served,
            Some(base) => (1.001 * base).min(0.98 * base + 0.02 * served),
        });
    }

    /// Service times above this are slow, in seconds.
    pub(super) fn slow(&self) -> f64 {
        self.0.map_or(SLOW_MIN, |base| (SLOW * base).max(SLOW_MIN))
    }
}

#[derive(Debug)]
pub(super) struct SlowStart {
    width: u32,
    cut_at: Option<Instant>,
    /// Since when no completion has taken its normal time.
    slow_since: Option<Instant>,
}

/// The outcome of a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CompletionVerdict {
    Normal,
    /// The role queue was made narrower.
    Cut,
    /// Slow, but nothing was changed.
    Slow,
}

impl SlowStart {
    pub(super) fn new(initial: u32) -> Self {
        Self { width: initial, cut_at: None, slow_since: None }
    }

    pub(super) fn width(&self) -> u32 {
        self.width
    }

    pub(super) fn widen(&mut self) {
        self.width = self.width.saturating_add(1);
    }

    pub(super) fn restart(&mut self, initial: u32) {
        self.width = self.width.min(initial);
    }

    /// A transaction took `served` seconds. `may_grow`: the role queue was full but for one, and its limit is higher.
    /// Never below `floor`.
    pub(super) fn completed(
        &mut self,
        served: f64,
        base: &mut Baseline,
        may_grow: bool,
        floor: u32,
        now: Instant,
    ) -> CompletionVerdict {
        base.note(served);
        if served <= base.slow() {
            self.slow_since = None;
            if may_grow {
                self.width = self.width.saturating_add(1);
            }
            return CompletionVerdict::Normal;
        }
        let slow_since = *self.slow_since.get_or_insert(now);
        if now >= slow_since + NORMAL_AGAIN {
            *base = Baseline(Some(served));
            self.slow_since = None;
            return CompletionVerdict::Slow;
        }
        if self.cut_at.is_some_and(|cut_at| now < cut_at + CUT_INTERVAL) {
            return CompletionVerdict::Slow;
        }
        self.cut_at = Some(now);
        // The width may be below the floor already: a cut must not make it wider.
        self.width = (self.width / 2).max(floor.min(self.width));
        CompletionVerdict::Cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct SlowStartWorkload {
        slow_start: SlowStart,
        base: Baseline,
        now: Instant,
    }

    impl SlowStartWorkload {
        fn new() -> Self {
            Self { slow_start: SlowStart::new(8), base: Baseline::default(), now: Instant::now() }
        }

        fn complete(&mut self, ms: u64, is_used: bool) -> CompletionVerdict {
            self.slow_start.completed(ms as f64 / 1000.0, &mut self.base, is_used, 8, self.now)
        }

        fn pass(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }
    }

    #[test]
    fn width_grows_by_one_per_normal_completion_of_a_full_role_queue() {
        let mut role_queue = SlowStartWorkload::new();
        (0..8).for_each(|_| assert_eq!(role_queue.complete(5, true), CompletionVerdict::Normal));
        assert_eq!(role_queue.slow_start.width(), 16);
        assert_eq!(role_queue.complete(5, false), CompletionVerdict::Normal);
        assert_eq!(role_queue.slow_start.width(), 16);
    }

    #[test]
    fn a_stall_halves_it_once_however_many_were_caught_in_it() {
        let mut role_queue = SlowStartWorkload::new();
        for _ in 0..92 {
            role_queue.complete(5, true);
        }
        assert_eq!(role_queue.slow_start.width(), 100);
        let verdicts: Vec<_> = (0..50).map(|_| role_queue.complete(3000, true)).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == CompletionVerdict::Cut).count(), 1);
        assert_eq!(role_queue.slow_start.width(), 50);
        role_queue.pass(200);
        assert_eq!(role_queue.complete(3000, true), CompletionVerdict::Cut);
        assert_eq!(role_queue.slow_start.width(), 25);
    }

    #[test]
    fn never_narrower_than_its_floor() {
        let mut role_queue = SlowStartWorkload::new();
        role_queue.complete(5, true);
        for _ in 0..20 {
            role_queue.pass(250);
            role_queue.complete(3000, true);
        }
        assert_eq!(role_queue.slow_start.width(), 8);
    }

    #[test]
    fn what_stays_slow_becomes_the_usual() {
        let mut role_queue = SlowStartWorkload::new();
        for _ in 0..100 {
            role_queue.complete(5, false);
        }
        for _ in 0..21 {
            role_queue.pass(500);
            role_queue.complete(900, true);
        }
        assert_eq!(role_queue.complete(900, true), CompletionVerdict::Normal);
    }
}
