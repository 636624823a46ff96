//! How fast connections may log in and cancel: over all, and from one address.
//!
//! No I/O, no clock, no chance: all three are arguments. A login over a rate is given a slot of its own in the time to
//! come, so that waiting logins sleep once and wake in order; a login whose slot would be too far off is refused.
//!
//! Built on governor's GCRA. A bucket holds the burst and behind it a reserve, the slots of the longest delay: a login
//! is within the rate as long as more than the reserve is left; otherwise it waits for the missing part of the reserve.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use thiserror::Error;
use tokio::time::Instant;

/// Addresses remembered at most, 100 bytes each. Beyond that new ones have no rate of their own until old ones are
/// forgotten: a limit on each address does not hold an attacker with so many, and the rate over all holds everybody.
const ADDRESSES_MAX: usize = 65_536;

/// Rates outside of this range are taken for the nearest inside.
const PERIOD: std::ops::RangeInclusive<f64> = 1e-9..=86_400.0;

/// The keys of `[admission]` for logins and cancels.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LoginLimits {
    /// `login_rate`, per second.
    pub rate: Option<f64>,
    /// `login_burst`: so many at once are not delayed.
    pub burst: u32,
    /// `login_delay_max`.
    pub delay_max: Duration,
    /// `login_rate_per_address`. Its burst is what the rate allows in a second.
    pub rate_per_address: Option<f64>,
    /// `cancel_rate_per_address`. Its burst is what the rate allows in a second.
    pub cancel_rate_per_address: Option<f64>,
    /// Whether chance is used at all: unless `mode = "off"`.
    pub is_jittered: bool,
}

/// The unit that a rate per address counts: an IPv4 address, or the /64 that an IPv6 host has to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerAddress(IpAddr);

impl From<IpAddr> for PeerAddress {
    fn from(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
            v4 => v4,
        })
    }
}

/// A login whose slot would be further off than `login_delay_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum TooFast {
    /// `login_rate`.
    #[error("too many logins at once")]
    Rate,
    /// `login_rate_per_address`.
    #[error("too many logins at once from this address")]
    AddressRate,
}

/// All rates, and their present state.
#[derive(Debug)]
pub(crate) struct LoginPace {
    limits: LoginLimits,
    started: Instant,
    told: ReportedClock,
    all: Option<Bucket<()>>,
    by_address: Option<Bucket<PeerAddress>>,
    cancels: Option<Bucket<PeerAddress>>,
}

impl LoginPace {
    /// Nobody has come yet.
    pub(crate) fn new(limits: LoginLimits, now: Instant) -> Self {
        let told = ReportedClock::default();
        let second = |rate: f64| rate.ceil() as u32;
        let LoginLimits { rate, burst, delay_max, rate_per_address, cancel_rate_per_address, .. } = limits;
        Self {
            limits,
            started: now,
            all: rate.map(|rate| Bucket::new(rate, burst, delay_max, &told)),
            by_address: rate_per_address.map(|rate| Bucket::new(rate, second(rate), delay_max, &told)),
            cancels: cancel_rate_per_address.map(|rate| Bucket::new(rate, second(rate), Duration::ZERO, &told)),
            told,
        }
    }

    /// Puts other limits into force; logins that wait for a slot should ask again. `false`: they are the same.
    pub(crate) fn set(&mut self, limits: LoginLimits, now: Instant) -> bool {
        let is_other = self.limits != limits;
        if is_other {
            *self = Self::new(limits, now);
        }
        is_other
    }

    /// A slot for a login that came now, hardly ever later than now. Waiting logins are spread by up to the time of one
    /// login more: `roll` is uniform in `[0, 1)`.
    ///
    /// `None` for an address: one of this machine, which has no rate of its own.
    pub(crate) fn login(
        &mut self,
        address: Option<PeerAddress>,
        now: Instant,
        roll: impl FnOnce() -> f64,
    ) -> Result<LoginSlot, TooFast> {
        self.tell(now);
        let own = match (&self.by_address, address) {
            (Some(bucket), Some(address)) => bucket.take(&address).ok_or(TooFast::AddressRate)?,
            _ => LoginWait::NONE,
        };
        let all = self.all.as_ref().map_or(Some(LoginWait::NONE), |bucket| bucket.take(&())).ok_or(TooFast::Rate)?;
        let is_own = own.slot > all.slot;
        let longest = if is_own { own } else { all };
        let mut wait = longest.slot;
        if !wait.is_zero() && self.limits.is_jittered {
            wait = (wait + longest.period.mul_f64(roll())).min(self.limits.delay_max);
        }
        Ok(LoginSlot { wait, is_own })
    }

    /// Whether one more cancel of this address may pass.
    pub(crate) fn cancel(&mut self, address: Option<PeerAddress>, now: Instant) -> bool {
        self.tell(now);
        match (&self.cancels, address) {
            (Some(bucket), Some(address)) => bucket.take(&address).is_some(),
            _ => true,
        }
    }

    /// Whether chance is used at all.
    pub(crate) fn is_jittered(&self) -> bool {
        self.limits.is_jittered
    }

    /// Forgets addresses whose rate is as if they had never come.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.tell(now);
        for bucket in [&self.by_address, &self.cancels].into_iter().flatten() {
            bucket.forget();
        }
    }

    fn tell(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.started).as_nanos();
        self.told.0.store(u64::try_from(passed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The clock of all buckets: the time last reported to it.
#[derive(Debug, Clone, Default)]
struct ReportedClock(Arc<AtomicU64>);

impl Clock for ReportedClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

/// When a login may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoginSlot {
    /// From now on.
    pub wait: Duration,
    /// It is the rate of its own address that it waits for, so that no other login could take the slot.
    pub is_own: bool,
}

/// A slot in the time to come.
#[derive(Debug, Clone, Copy)]
struct LoginWait {
    slot: Duration,
    /// Until the next one's slot.
    period: Duration,
}

impl LoginWait {
    const NONE: Self = Self { slot: Duration::ZERO, period: Duration::ZERO };
}

/// One rate, for each `K`.
struct Bucket<K: Hash + Eq + Clone> {
    limiter: RateLimiter<K, HashMapStateStore<K>, ReportedClock, StateInformationMiddleware>,
    /// Number of slots for logins that wait.
    reserve: u32,
    period: Duration,
}

impl<K: Hash + Eq + Clone> Bucket<K> {
    fn new(rate: f64, burst: u32, delay_max: Duration, told: &ReportedClock) -> Self {
        let period = (1.0 / rate).clamp(*PERIOD.start(), *PERIOD.end());
        let reserve = (delay_max.as_secs_f64() / period) as u32;
        let period = Duration::from_secs_f64(period);
        // A bigger bucket would take longer to fill than fits into governor's 64 bits.
        let most = u64::MAX / 4 / period.as_nanos() as u64;
        let cells = u32::try_from(most).unwrap_or(u32::MAX).min(burst.max(1).saturating_add(reserve));
        let quota = Quota::with_period(period).expect("a nanosecond at least");
        let quota = quota.allow_burst(NonZeroU32::new(cells).unwrap_or(NonZeroU32::MIN));
        Self {
            limiter: RateLimiter::hashmap_with_clock(quota, told.clone()).with_middleware(),
            reserve: reserve.min(cells - 1),
            period,
        }
    }

    /// The next slot. `None`: they are all taken.
    fn take(&self, key: &K) -> Option<LoginWait> {
        if self.limiter.len() >= ADDRESSES_MAX {
            return Some(LoginWait::NONE);
        }
        let left = self.limiter.check_key(key).ok()?.remaining_burst_capacity();
        Some(LoginWait { slot: self.period * self.reserve.saturating_sub(left), period: self.period })
    }

    fn forget(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

impl<K: Hash + Eq + Clone> std::fmt::Debug for Bucket<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { limiter, reserve, period } = self;
        f.debug_struct("Bucket")
            .field("keys", &limiter.len())
            .field("reserve", reserve)
            .field("period", period)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Option<PeerAddress> = None;

    /// 100 a second, 10 at once, and a second to wait.
    fn limits() -> LoginLimits {
        LoginLimits {
            rate: Some(100.0),
            burst: 10,
            delay_max: ms(1000),
            rate_per_address: None,
            cancel_rate_per_address: Some(5.0),
            is_jittered: true,
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn address(text: &str) -> Option<PeerAddress> {
        Some(text.parse::<IpAddr>().unwrap().into())
    }

    /// The answers to so many logins at one instant, with this roll each.
    fn storm(
        pace: &mut LoginPace,
        from: Option<PeerAddress>,
        now: Instant,
        n: usize,
        roll: f64,
    ) -> Vec<Result<u64, TooFast>> {
        (0..n)
            .map(|_| pace.login(from, now, || roll).map(|slot| u64::try_from(slot.wait.as_millis()).unwrap()))
            .collect()
    }

    #[test]
    fn under_the_rate_nobody_waits_and_chance_is_not_asked() {
        let now = Instant::now();
        let mut pace = LoginPace::new(limits(), now);
        for n in 0..1000 {
            let wait = pace.login(NOBODY, now + ms(10 * n), || unreachable!("nobody waits"));
            assert_eq!(wait.map(|slot| slot.wait), Ok(Duration::ZERO));
        }
    }

    #[test]
    fn a_storm_is_spread_at_the_rate_and_what_is_too_far_off_is_refused() {
        let now = Instant::now();
        let mut pace = LoginPace::new(limits(), now);
        let told = storm(&mut pace, NOBODY, now, 150, 0.0);
        for (n, told) in told.into_iter().enumerate() {
            let expected = match n as u64 {
                0..10 => Ok(0),
                n @ 10..110 => Ok((n - 9) * 10),
                _ => Err(TooFast::Rate),
            };
            assert_eq!(told, expected, "{n}");
        }
        // Refused ones took nobody's slot: 100 ms later there are ten.
        let told = storm(&mut pace, NOBODY, now + ms(100), 11, 0.0);
        assert_eq!(told[0], Ok(910));
        assert_eq!(told[9..], [Ok(1000), Err(TooFast::Rate)]);
    }

    #[test]
    fn jitter_is_less_than_one_slot_and_never_goes_beyond_the_longest_delay() {
        let now = Instant::now();
        let mut pace = LoginPace::new(limits(), now);
        let told = storm(&mut pace, NOBODY, now, 110, 0.9);
        assert_eq!(told[10..12], [Ok(19), Ok(29)]);
        assert_eq!(told[109], Ok(1000));
        let mut pace = LoginPace::new(LoginLimits { is_jittered: false, ..limits() }, now);
        assert_eq!(storm(&mut pace, NOBODY, now, 12, 0.9)[10..], [Ok(10), Ok(20)]);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let now = Instant::now();
        let mut pace = LoginPace::new(LoginLimits { rate: None, cancel_rate_per_address: None, ..limits() }, now);
        assert!(storm(&mut pace, address("10.0.0.1"), now, 10_000, 0.5).iter().all(|told| *told == Ok(0)));
        assert!((0..10_000).all(|_| pace.cancel(address("10.0.0.1"), now)));
    }

    #[test]
    fn no_delay_refuses_what_is_over_the_rate_at_once() {
        let now = Instant::now();
        let mut pace = LoginPace::new(LoginLimits { delay_max: Duration::ZERO, ..limits() }, now);
        let told = storm(&mut pace, NOBODY, now, 11, 0.5);
        assert_eq!(told[9..], [Ok(0), Err(TooFast::Rate)]);
    }

    #[test]
    fn an_address_over_its_rate_waits_alone_and_takes_nothing_from_the_others() {
        let now = Instant::now();
        let mut pace = LoginPace::new(LoginLimits { rate_per_address: Some(2.0), ..limits() }, now);
        let told = storm(&mut pace, address("10.0.0.1"), now, 6, 0.0);
        assert_eq!(told, [Ok(0), Ok(0), Ok(500), Ok(1000), Err(TooFast::AddressRate), Err(TooFast::AddressRate)]);
        // Four of the ten that are let in at once are taken; nobody's refusal took one.
        let told = storm(&mut pace, NOBODY, now, 7, 0.0);
        assert_eq!(told[5..], [Ok(0), Ok(10)]);
        assert_eq!(storm(&mut pace, address("10.0.0.2"), now, 1, 0.0), [Ok(20)]);
    }

    #[test]
    fn an_address_is_all_that_one_host_has() {
        assert_eq!(address("2001:db8:0:1::1"), address("2001:db8:0:1:ffff::2"));
        assert_ne!(address("2001:db8:0:1::1"), address("2001:db8:0:2::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
        assert_ne!(address("10.0.0.1"), address("10.0.0.2"));
    }

    #[test]
    fn cancels_over_an_addresss_rate_are_not_let_pass() {
        let now = Instant::now();
        let mut pace = LoginPace::new(limits(), now);
        let passed = |pace: &mut LoginPace, from, now| (0..10).filter(|_| pace.cancel(from, now)).count();
        assert_eq!(passed(&mut pace, address("10.0.0.1"), now), 5);
        assert_eq!(passed(&mut pace, address("10.0.0.2"), now), 5);
        assert_eq!(passed(&mut pace, NOBODY, now), 10);
        assert_eq!(passed(&mut pace, address("10.0.0.1"), now + ms(400)), 2);
        // Logins do not count towards the rate of cancels.
        assert_eq!(storm(&mut pace, address("10.0.0.1"), now, 1, 0.0), [Ok(0)]);
    }

    #[test]
    fn addresses_are_bounded_and_forgotten_when_their_rate_is_whole_again() {
        let now = Instant::now();
        let mut pace = LoginPace::new(limits(), now);
        let many = (0..=ADDRESSES_MAX as u32).map(|n| Some(IpAddr::V4(n.into()).into()));
        for from in many {
            assert!(pace.cancel(from, now));
        }
        let known = |pace: &LoginPace| pace.cancels.as_ref().unwrap().limiter.len();
        assert_eq!(known(&pace), ADDRESSES_MAX);
        pace.tick(now + ms(100));
        assert_eq!(known(&pace), ADDRESSES_MAX, "they have used a part of their burst");
        pace.tick(now + ms(1000));
        assert_eq!(known(&pace), 0);
    }

    #[test]
    fn other_limits_hold_at_once_and_the_same_change_nothing() {
        let now = Instant::now();
        let mut pace = LoginPace::new(limits(), now);
        storm(&mut pace, NOBODY, now, 110, 0.0);
        assert!(!pace.set(limits(), now));
        assert_eq!(storm(&mut pace, NOBODY, now, 1, 0.0), [Err(TooFast::Rate)]);
        assert!(pace.set(LoginLimits { rate: Some(1000.0), ..limits() }, now));
        assert_eq!(storm(&mut pace, NOBODY, now, 11, 0.0)[10], Ok(1));
    }

    #[test]
    fn rates_and_bursts_beyond_measure_do_no_harm() {
        let now = Instant::now();
        for rate in [f64::MIN_POSITIVE, 1e-3, 1e12, f64::MAX] {
            let extreme = LoginLimits { rate: Some(rate), burst: u32::MAX, delay_max: Duration::MAX, ..limits() };
            let mut pace = LoginPace::new(extreme, now);
            assert_eq!(storm(&mut pace, NOBODY, now, 1, 0.9), [Ok(0)], "{rate}");
        }
    }
}
