//! Starts per second, for a resource that concurrency does not bound: provisioned I/O.
//!
//! Asked for the head of the queue only, and only with a permit for it at hand: thousands of waiters polling a limiter
//! cost seconds of CPU and overtake each other.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use super::fleet_share::FleetShare;
use crate::config::RoleRate as Rules;

/// A clock that shows the time last reported to it, since an origin of its own.
#[derive(Debug, Default)]
struct ToldClock(AtomicU64);

impl Clock for ToldClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
pub(super) struct Rate {
    rules: Rules,
    limiter: RateLimiter<NotKeyed, InMemoryState, ToldClock, NoOpMiddleware<Duration>>,
    origin: Instant,
}

/// Whether the head of the queue may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Now,
    /// Now, though over the rate: it was held up as long as it may be.
    Overdue,
    /// Not yet: ask again at this time.
    NotBefore(Instant),
}

impl Rate {
    /// Our part of this rate.
    pub(super) fn new(rules: Rules, share: FleetShare, now: Instant) -> Self {
        // The configuration takes no rate of zero or less.
        let period = Duration::from_secs_f64(1.0 / share.of_rate(rules.per_second)).max(Duration::from_nanos(1));
        let burst = NonZeroU32::new(share.of(rules.burst)).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(period).expect("longer than nothing").allow_burst(burst);
        let limiter = RateLimiter::direct_with_clock(quota, ToldClock::default());
        Self { rules, limiter, origin: now }
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Whether a waiter that has waited for `waited` may start. Any answer but `NotBefore` counts as one start.
    pub(super) fn pace(&self, waited: Duration, now: Instant) -> Pace {
        let nanos = now.saturating_duration_since(self.origin).as_nanos();
        self.limiter.clock().0.store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
        let Err(not_until) = self.limiter.check() else { return Pace::Now };
        let patience = self.rules.delay_max.saturating_sub(waited);
        if patience.is_zero() {
            return Pace::Overdue;
        }
        let wait = not_until.wait_time_from(self.limiter.clock().now());
        Pace::NotBefore(now + wait.min(patience).max(Duration::from_micros(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RateWhen;

    fn rate(per_second: f64, burst: u32, delay_max: Duration) -> (Rate, Instant) {
        let now = Instant::now();
        (Rate::new(Rules { per_second, burst, delay_max, when: RateWhen::Always }, FleetShare::All, now), now)
    }

    #[test]
    fn starts_are_spaced_after_the_burst_allowed() {
        let (rate, start) = rate(400.0, 20, Duration::from_secs(2));
        let at_once = (0..100).take_while(|_| rate.pace(Duration::ZERO, start) == Pace::Now).count();
        assert_eq!(at_once, 20);
        let (mut now, mut starts) = (start, 0);
        while now < start + Duration::from_secs(1) {
            match rate.pace(Duration::ZERO, now) {
                Pace::NotBefore(then) => {
                    assert!(then > now);
                    now = then;
                }
                _ => starts += 1,
            }
        }
        assert!((399..=401).contains(&starts), "{starts}");
    }

    #[test]
    fn nobody_is_held_up_for_longer_than_delay_max() {
        let (rate, now) = rate(1.0, 1, Duration::from_secs(2));
        assert_eq!(rate.pace(Duration::ZERO, now), Pace::Now);
        assert_eq!(rate.pace(Duration::from_millis(1500), now), Pace::NotBefore(now + Duration::from_millis(500)));
        assert_eq!(rate.pace(Duration::from_secs(2), now), Pace::Overdue);
    }
}
