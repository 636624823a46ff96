//! How fast a lane moves, to say in advance that a wait would be in vain.

use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_millis(500);

/// What the newest window counts for.
const WEIGHT: f64 = 0.3;

/// Slower lanes say too little: 50 completions in 5 s.
const RATE_MIN: f64 = 10.0;

/// Without a completion for this long nothing is known any more.
const STALE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Throughput {
    window: Instant,
    completions: u32,
    /// Completions per second.
    rate: Option<f64>,
    last: Option<Instant>,
}

impl Throughput {
    pub(super) fn new(now: Instant) -> Self {
        Self { window: now, completions: 0, rate: None, last: None }
    }

    /// A window without a completion is no window: a stall says nothing about the rate after it.
    #[inline]
    pub(super) fn completed(&mut self, now: Instant) {
        self.completions += 1;
        self.last = Some(now);
        let elapsed = now.saturating_duration_since(self.window);
        if elapsed >= WINDOW {
            let rate = f64::from(self.completions) / elapsed.as_secs_f64();
            self.rate = Some(self.rate.map_or(rate, |before| (1.0 - WEIGHT) * before + WEIGHT * rate));
            self.window = now;
            self.completions = 0;
        }
    }

    /// How long somebody behind so many others will wait; `None`: nobody knows.
    pub(super) fn expected_wait(&self, waiting: u32, now: Instant) -> Option<Duration> {
        let is_fresh = self.last.is_some_and(|last| now < last + STALE);
        let rate = self.rate.filter(|rate| is_fresh && *rate >= RATE_MIN)?;
        Some(Duration::from_secs_f64((f64::from(waiting) + 1.0) / rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_wait_is_the_line_over_the_rate() {
        let start = Instant::now();
        let mut throughput = Throughput::new(start);
        (1..=400).for_each(|i| throughput.completed(start + Duration::from_millis(10 * i)));
        let now = start + Duration::from_secs(4);
        let expected = throughput.expected_wait(499, now).expect("100 a second");
        assert!((expected.as_secs_f64() - 5.0).abs() < 0.1, "{expected:?}");
        assert_eq!(throughput.expected_wait(499, now + STALE), None);
    }

    #[test]
    fn a_slow_lane_promises_nothing() {
        let start = Instant::now();
        let mut throughput = Throughput::new(start);
        (1..=20).for_each(|i| throughput.completed(start + Duration::from_millis(200 * i)));
        assert_eq!(throughput.expected_wait(10_000, start + Duration::from_secs(4)), None);
    }
}
