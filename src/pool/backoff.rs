//! How long to leave a server alone after it could not be reached.
//!
//! Pure: the time and the random number come in as arguments.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);

/// Waits after failures in a row: each at random, up to twice the one before (full jitter), so that proxies do not
/// retry in step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    failures: u32,
    max: Duration,
}

impl Backoff {
    /// No failure so far; no wait will be longer than `max`.
    pub(crate) const fn up_to(max: Duration) -> Self {
        Self { failures: 0, max }
    }

    /// The next failure counts as the first.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// One more failure; returns how long to wait. `uniform` is random in `[0, 1)`.
    pub(crate) fn failed(&mut self, uniform: f64) -> Duration {
        // 2^6 × 100 ms is past every ceiling already.
        let ceiling = (FIRST * (1 << self.failures.min(6))).min(self.max);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(uniform)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_ceiling_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::up_to(Duration::from_secs(2));
        let ceilings = [1.0; 7].map(|uniform| backoff.failed(uniform).as_millis());
        assert_eq!(ceilings, [100, 200, 400, 800, 1600, 2000, 2000]);
        backoff.succeeded();
        assert_eq!(backoff.failed(1.0), FIRST);
    }

    #[test]
    fn wait_is_its_part_of_the_ceiling() {
        assert_eq!(Backoff::up_to(Duration::from_secs(2)).failed(0.5), FIRST / 2);
    }
}
