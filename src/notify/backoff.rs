//! How long to leave a server alone that could not be reached.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);

/// A LISTEN that waits for the connection has `connect_timeout`, by default 5 s: there is more than one try in it.
const MAX: Duration = Duration::from_secs(2);

/// Waits after failures in a row: each up to twice the one before, at random, so that proxies do not come back in step.
#[derive(Debug)]
pub struct Backoff {
    failures: u32,
    rng: fastrand::Rng,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { failures: 0, rng: fastrand::Rng::new() }
    }
}

impl Backoff {
    /// It is reached: the next failure counts as the first.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// One more failure; returns how long to wait.
    pub fn failed(&mut self) -> Duration {
        let ceiling = (FIRST * (1 << self.failures.min(5))).min(MAX);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(self.rng.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_two_seconds_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let longest = |backoff: &mut Backoff| {
            let failures = backoff.failures;
            let tries = (0..200).map(|_| {
                backoff.failures = failures;
                backoff.failed()
            });
            tries.max().expect("there are some").as_millis()
        };
        for ceiling in [100, 200, 400, 800, 1600, 2000, 2000] {
            let longest = longest(&mut backoff);
            assert!((ceiling / 2..=ceiling).contains(&longest), "{longest} of {ceiling}");
        }
        backoff.succeeded();
        assert!(longest(&mut backoff) <= 100);
    }

    #[test]
    fn two_proxies_do_not_wait_equally_long() {
        assert_ne!(Backoff::default().failed(), Backoff::default().failed());
    }
}
