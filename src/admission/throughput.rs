//! How fast a role queue moves, so that a newcomer can be refused in advance if its wait would be in vain.

use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_millis(500);

/// Weight of the newest window in the average.
const WEIGHT: f64 = 0.3;

/// Slower role queues say too little about the rate: 50 completions in 5 s.
const RATE_MIN: f64 = 10.0;

/// Without a completion for this long the rate is no longer known.
const STALE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Throughput {
    window: Option<ThroughputWindow>,
    /// Completions per second.
    rate: Option<f64>,
}

#[derive(Debug)]
struct ThroughputWindow {
    since: Instant,
    completions: u32,
    last: Instant,
}

impl Throughput {
    /// A transaction ended, with others waiting or not. Without a queue, completions show the load of the role queue,
    /// not its capacity: a role at rest is no slow one. Likewise a stall says nothing about the rate after it.
    #[inline]
    pub(super) fn completed(&mut self, has_line: bool, now: Instant) {
        if !has_line {
            *self = Self::default();
            return;
        }
        let Some(window) = self.window.as_mut().filter(|window| now < window.last + WINDOW) else {
            if !self.is_fresh(now) {
                self.rate = None;
            }
            self.window = Some(ThroughputWindow { since: now, completions: 0, last: now });
            return;
        };
        window.completions += 1;
        window.last = now;
        let elapsed = now.saturating_duration_since(window.since);
        if elapsed >= WINDOW {
            let rate = f64::from(window.completions) / elapsed.as_secs_f64();
            self.rate = Some(self.rate.map_or(rate, |before| (1.0 - WEIGHT) * before + WEIGHT * rate));
            *window = ThroughputWindow { since: now, completions: 0, last: now };
        }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.window.as_ref().is_some_and(|window| now < window.last + STALE)
    }

    /// Expected wait of somebody behind so many others; `None`: not known.
    pub(super) fn expected_wait(&self, waiting: u32, now: Instant) -> Option<Duration> {
        let rate = self.rate.filter(|rate| self.is_fresh(now) && *rate >= RATE_MIN)?;
        Some(Duration::from_secs_f64((f64::from(waiting) + 1.0) / rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_wait_is_the_line_over_the_rate() {
        let start = Instant::now();
        let mut throughput = Throughput::default();
        (1..=400).for_each(|i| throughput.completed(true, start + Duration::from_millis(10 * i)));
        let now = start + Duration::from_secs(4);
        let expected = throughput.expected_wait(499, now).expect("100 a second");
        assert!((expected.as_secs_f64() - 5.0).abs() < 0.1, "{expected:?}");
        assert_eq!(throughput.expected_wait(499, now + STALE), None);
    }

    #[test]
    fn a_slow_role_queue_promises_nothing() {
        let start = Instant::now();
        let mut throughput = Throughput::default();
        (1..=20).for_each(|i| throughput.completed(true, start + Duration::from_millis(200 * i)));
        assert_eq!(throughput.expected_wait(10_000, start + Duration::from_secs(4)), None);
    }

    #[test]
    fn a_role_at_rest_is_not_taken_for_a_slow_one() {
        let start = Instant::now();
        let mut throughput = Throughput::default();
        // Fifteen a second are asked for, and nobody waits.
        (1..=75).for_each(|i| throughput.completed(false, start + Duration::from_millis(66 * i)));
        let burst = start + Duration::from_secs(10);
        assert_eq!(throughput.expected_wait(4_000, burst), None);
        (0..=5).for_each(|i| throughput.completed(true, burst + Duration::from_millis(10 * i)));
        assert_eq!(throughput.expected_wait(4_000, burst + Duration::from_millis(50)), None);
        (6..=60).for_each(|i| throughput.completed(true, burst + Duration::from_millis(10 * i)));
        let expected = throughput.expected_wait(499, burst + Duration::from_millis(600)).expect("100 a second");
        assert!((expected.as_secs_f64() - 5.0).abs() < 0.2, "{expected:?}");
    }

    #[test]
    fn a_stall_does_not_make_the_role_queue_slow() {
        let start = Instant::now();
        let mut throughput = Throughput::default();
        (0..=100).for_each(|i| throughput.completed(true, start + Duration::from_millis(10 * i)));
        let stalled = start + Duration::from_secs(4);
        (0..=100).for_each(|i| throughput.completed(true, stalled + Duration::from_millis(10 * i)));
        let expected = throughput.expected_wait(499, stalled + Duration::from_secs(1)).expect("100 a second");
        assert!((expected.as_secs_f64() - 5.0).abs() < 0.2, "{expected:?}");
    }
}
