//! A limit that finds the concurrency beyond which the server only gets slower. Opt-in;
//!
//! Judged by the *median* of each window: mean and high percentiles fail on mixed work, where a few transactions are
//! slow by nature. When cutting does not help, the slowness is not of the role queue's making, and the limit goes back.

use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_millis(200);

/// Fewer say nothing about a median; the window goes on until they are there.
const SAMPLES_MIN: usize = 8;

/// More say nothing new.
const SAMPLES_MAX: usize = 1024;

/// A median above this many times the smallest, and above [`SLOW_MIN`] seconds, is too slow.
const TOLERANCE: f64 = 3.0;
const SLOW_MIN: f64 = 0.010;

/// Factor by which the smallest median is forgotten per window: 1 % a second.
const FORGET: f64 = 1.002;

/// Cuts in a row that did not bring the median down by a tenth; after these the slowness is not the role queue's doing.
const CUTS_MAX: u32 = 5;

/// How long the limit stays where it went back to after cuts did not help.
const HOLD: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Adaptive {
    width: f64,
    window: Instant,
    /// Service times of the window, in seconds.
    samples: Vec<f64>,
    base: Option<f64>,
    /// Largest number of transactions active at once in the window.
    peak: u32,
    /// No cut yet since the burst began: it may grow fast.
    is_starting: bool,
    cutting: Option<Cutting>,
    hold_until: Option<Instant>,
}

/// Cuts in a row, and the state before the first.
#[derive(Debug, Clone, Copy)]
struct Cutting {
    median: f64,
    width: f64,
    cuts: u32,
}

/// The outcome of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WindowVerdict {
    Kept,
    Cut,
    /// Cuts did not help and are taken back.
    Reverted,
}

impl Adaptive {
    pub(super) fn new(initial: u32, now: Instant) -> Self {
        Self {
            width: f64::from(initial),
            window: now,
            samples: Vec::new(),
            base: None,
            peak: 0,
            is_starting: true,
            cutting: None,
            hold_until: None,
        }
    }

    pub(super) fn width(&self) -> u32 {
        self.width as u32
    }

    pub(super) fn widen(&mut self) {
        self.width += 1.0;
    }

    pub(super) fn restart(&mut self, initial: u32) {
        self.width = self.width.min(f64::from(initial));
        self.is_starting = true;
        self.cutting = None;
    }

    pub(super) fn narrow(&mut self, to: u32) {
        self.width = f64::from(to);
        self.is_starting = false;
        self.cutting = None;
    }

    pub(super) fn started(&mut self, active: u32) {
        self.peak = self.peak.max(active);
    }

    /// A transaction took `served` seconds.
    pub(super) fn completed(&mut self, served: f64) {
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(served);
        }
    }

    /// Judges the window if it is over. The width stays within `floor..=cap`.
    pub(super) fn judge(&mut self, active: u32, floor: u32, cap: u32, now: Instant) -> WindowVerdict {
        if now < self.window + WINDOW {
            return WindowVerdict::Kept;
        }
        self.window = now;
        let verdict =
            if self.samples.len() < SAMPLES_MIN { WindowVerdict::Kept } else { self.judge_samples(floor, cap, now) };
        self.peak = active;
        verdict
    }

    fn judge_samples(&mut self, floor: u32, cap: u32, now: Instant) -> WindowVerdict {
        let middle = self.samples.len() / 2;
        let median = *self.samples.select_nth_unstable_by(middle, f64::total_cmp).1;
        self.samples.clear();
        let base = self.base.map_or(median, |base| median.min(base * FORGET));
        self.base = Some(base);
        if median <= (TOLERANCE * base).max(SLOW_MIN) {
            self.cutting = None;
            if self.peak >= self.width() {
                let wider = if self.is_starting { 1.5 * self.width } else { self.width + (0.1 * self.width).max(1.0) };
                self.width = wider.min(f64::from(cap)).max(f64::from(floor));
            }
            return WindowVerdict::Kept;
        }
        self.is_starting = false;
        if self.hold_until.is_some_and(|until| now < until) {
            return WindowVerdict::Kept;
        }
        let cutting = self.cutting.get_or_insert(Cutting { median, width: self.width, cuts: 0 });
        cutting.cuts += 1;
        if cutting.cuts > CUTS_MAX && median > 0.9 * cutting.median {
            self.width = cutting.width;
            self.cutting = None;
            self.hold_until = Some(now + HOLD);
            self.base = Some(median / TOLERANCE);
            return WindowVerdict::Reverted;
        }
        self.width = (0.7 * self.width).max(f64::from(floor));
        WindowVerdict::Cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Workload {
        adaptive: Adaptive,
        now: Instant,
    }

    impl Workload {
        fn new() -> Self {
            let now = Instant::now();
            Self { adaptive: Adaptive::new(8, now), now }
        }

        /// A window in which the role queue was full and every transaction took so long.
        fn window(&mut self, ms: f64) -> WindowVerdict {
            self.adaptive.started(self.adaptive.width());
            (0..20).for_each(|_| self.adaptive.completed(ms / 1000.0));
            self.now += WINDOW;
            self.adaptive.judge(0, 4, 100, self.now)
        }
    }

    #[test]
    fn widens_fast_until_the_first_cut_and_by_a_tenth_afterwards() {
        let mut role_queue = Workload::new();
        (0..3).for_each(|_| assert_eq!(role_queue.window(5.0), WindowVerdict::Kept));
        assert_eq!(role_queue.adaptive.width(), 27);
        assert_eq!(role_queue.window(50.0), WindowVerdict::Cut);
        assert_eq!(role_queue.adaptive.width(), 18);
        role_queue.window(5.0);
        assert_eq!(role_queue.adaptive.width(), 20);
    }

    #[test]
    fn takes_cuts_back_that_did_not_help() {
        let mut role_queue = Workload::new();
        for _ in 0..6 {
            role_queue.window(5.0);
        }
        let before = role_queue.adaptive.width();
        let verdicts: Vec<_> = (0..6).map(|_| role_queue.window(50.0)).collect();
        assert_eq!(verdicts[..5], [WindowVerdict::Cut; 5]);
        assert_eq!(verdicts[5], WindowVerdict::Reverted);
        assert_eq!(role_queue.adaptive.width(), before);
        assert_eq!(role_queue.window(50.0), WindowVerdict::Kept);
    }

    #[test]
    fn stays_within_its_bounds() {
        let mut role_queue = Workload::new();
        for _ in 0..30 {
            role_queue.window(5.0);
        }
        assert_eq!(role_queue.adaptive.width(), 100);
        for slow in 1..20 {
            role_queue.window(50.0 / f64::from(slow));
        }
        assert!(role_queue.adaptive.width() >= 4);
    }

    #[test]
    fn a_few_slow_transactions_among_many_do_not_cut() {
        let mut role_queue = Workload::new();
        role_queue.window(5.0);
        (0..9).for_each(|_| role_queue.adaptive.completed(0.5));
        assert_eq!(role_queue.window(5.0), WindowVerdict::Kept);
    }
}
