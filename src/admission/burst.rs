//! Detects whether a role is in a burst.

use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_millis(100);

/// Fewest arrivals in a window that make a burst, however few are usual.
const ARRIVALS_MIN: u32 = 50;

/// Arrivals this many times the usual number are a burst.
const ABOVE_MEAN: f64 = 4.0;

/// Windows in the minute over which the usual number of arrivals is averaged.
const WINDOWS: f64 = 600.0;

/// A queue this many times the effective limit, in which somebody has waited for longer than [`WAIT_MIN`], is a burst,
/// however it came about.
const ABOVE_LIMIT: u32 = 2;
const WAIT_MIN: Duration = Duration::from_millis(20);

/// A burst is over when nobody has been waiting for this long.
const CALM_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Burst {
    window: Instant,
    window_ends: Instant,
    arrivals: u32,
    /// Arrivals per window, over the last minute.
    mean: f64,
    /// This many arrivals in one window are a burst.
    threshold: u32,
    is_on: bool,
    empty_since: Option<Instant>,
}

impl Burst {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            window: now,
            window_ends: now + WINDOW,
            arrivals: 0,
            mean: 0.0,
            threshold: ARRIVALS_MIN,
            is_on: false,
            empty_since: None,
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// A transaction wants to start. True if a burst begins with it.
    #[inline]
    pub(super) fn arrived(&mut self, now: Instant) -> bool {
        if now >= self.window_ends {
            self.roll(now);
        }
        self.arrivals += 1;
        self.arrivals >= self.threshold && self.begin()
    }

    /// Somebody joined the queue. True if a burst begins with it.
    pub(super) fn queued(&mut self, waiting: u32, effective: u32, oldest_wait: Duration) -> bool {
        waiting > effective.saturating_mul(ABOVE_LIMIT) && oldest_wait > WAIT_MIN && self.begin()
    }

    /// Time passed, with this many waiting.
    pub(super) fn tick(&mut self, waiting: u32, now: Instant) {
        if waiting > 0 {
            self.empty_since = None;
        } else if self.is_on {
            let empty_since = *self.empty_since.get_or_insert(now);
            self.is_on = now < empty_since + CALM_AFTER;
        }
    }

    fn begin(&mut self) -> bool {
        self.empty_since = None;
        !std::mem::replace(&mut self.is_on, true)
    }

    fn roll(&mut self, now: Instant) {
        let windows = now.duration_since(self.window).as_secs_f64() / WINDOW.as_secs_f64();
        // A burst does not count towards the usual number of arrivals while it lasts.
        if !self.is_on {
            self.mean += (f64::from(self.arrivals) - self.mean) / WINDOWS;
        }
        self.mean *= (1.0 - 1.0 / WINDOWS).powf(windows.floor() - 1.0);
        self.threshold = ((ABOVE_MEAN * self.mean) as u32).max(ARRIVALS_MIN);
        self.window = now;
        self.window_ends = now + WINDOW;
        self.arrivals = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn fifty_arrivals_in_a_tenth_of_a_second_are_a_burst_and_forty_nine_are_not() {
        let now = Instant::now();
        let mut burst = Burst::new(now);
        assert!(!(0..49).any(|_| burst.arrived(now + ms(50))));
        assert!(!(0..49).any(|_| burst.arrived(now + ms(150))));
        assert!(burst.arrived(now + ms(160)));
        assert!(burst.is_on());
    }

    #[test]
    fn what_is_usual_is_no_burst() {
        let start = Instant::now();
        let mut burst = Burst::new(start);
        for window in 0..3000 {
            let now = start + ms(window * 100);
            let began = (0..40).filter(|_| burst.arrived(now)).count();
            assert_eq!(began, 0);
        }
        let now = start + ms(300_000);
        assert!(!(0..120).any(|_| burst.arrived(now)), "three times the usual");
        assert!((0..60).any(|_| burst.arrived(now)), "more than four times the usual");
    }

    #[test]
    fn a_deep_line_is_a_burst() {
        let mut burst = Burst::new(Instant::now());
        assert!(!burst.queued(16, 8, ms(500)));
        assert!(!burst.queued(17, 8, ms(20)));
        assert!(burst.queued(17, 8, ms(21)));
        assert!(!burst.queued(18, 8, ms(22)), "it began before");
    }

    #[test]
    fn over_when_nobody_stood_in_line_for_a_second() {
        let now = Instant::now();
        let mut burst = Burst::new(now);
        burst.queued(17, 8, ms(21));
        burst.tick(0, now);
        burst.tick(1, now + ms(900));
        burst.tick(0, now + ms(1000));
        burst.tick(0, now + ms(1900));
        assert!(burst.is_on());
        burst.tick(0, now + ms(2000));
        assert!(!burst.is_on());
    }
}
