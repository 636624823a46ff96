//! How fast an endpoint may be dialled: a handful at once while it answers, one prober while it does not.
//!
//! Busy is not dead: a server that says "too many clients" is dialled as carefully as one that is down, but only
//! a server that is down fails its waiters.

use std::time::Duration;

use tokio::time::Instant;

use crate::pool::backoff::Backoff;

/// Dials in progress at once towards one healthy endpoint: enough to fill a pool in moments, few enough not to
/// stampede a server whose logins cost a fork each.
pub(crate) const DIALS_MAX: u32 = 4;

/// Longest wait between two probes of one endpoint: with the pace of ticks and a login, the first backend is there
/// within a second of the endpoint's return.
const PROBE_EVERY_MAX: Duration = Duration::from_millis(800);

/// Longest wait before a login is tried again that the server refused: somebody has to mend it, which takes time.
const LOGIN_EVERY_MAX: Duration = Duration::from_secs(5);

/// Why a dial failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No answer, connection refused, reset, or 57P03: says something about the endpoint.
    Unreachable,
    /// The server answered and refuses this login (28P01, 28000, 3D000 …): says something about one pool.
    Refused,
    /// The server answered that the limit of this role or this database is reached (53300): says something about one
    /// pool, until one of its own backends, or a stranger, goes.
    Full,
    /// The server answered that it has no room (53300): neither down nor wrong, try later.
    Busy,
}

/// When the next probe may start, after failures in a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    backoff: Backoff,
    at: Instant,
}

impl Retry {
    /// The endpoint did not answer, or had no room.
    pub(super) fn of_endpoint(now: Instant, uniform: f64) -> Self {
        Self { backoff: Backoff::up_to(PROBE_EVERY_MAX), at: now }.after_another(now, uniform)
    }

    /// It refused a login.
    pub(super) fn of_login(now: Instant, uniform: f64) -> Self {
        Self { backoff: Backoff::up_to(LOGIN_EVERY_MAX), at: now }.after_another(now, uniform)
    }

    pub(super) fn after_another(mut self, now: Instant, uniform: f64) -> Self {
        self.at = now + self.backoff.failed(uniform);
        self
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.at
    }
}

/// The state of an endpoint by its last dials.
#[derive(Debug, Clone, Copy)]
pub(super) enum Health {
    Up { dials_max: u32 },
    Busy { retry: Retry },
    Down { since: Instant, retry: Retry },
}

impl Health {
    /// An endpoint nobody has dialled yet is taken to be well.
    pub(super) fn new() -> Self {
        Self::Up { dials_max: DIALS_MAX }
    }

    /// Number of dials that may start while `dialing` are in progress.
    pub(super) fn dials_allowed(&self, dialing: u32, now: Instant) -> u32 {
        match self {
            Self::Up { dials_max } => dials_max.saturating_sub(dialing),
            Self::Busy { retry } | Self::Down { retry, .. } => u32::from(dialing == 0 && retry.is_due(now)),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }

    pub(super) fn down_since(&self) -> Option<Instant> {
        match self {
            Self::Down { since, .. } => Some(*since),
            Self::Up { .. } | Self::Busy { .. } => None,
        }
    }

    /// Nobody probed during a pause, so waiters' time with a down endpoint starts anew.
    pub(super) fn resumed(&mut self, now: Instant) {
        if let Self::Down { since, .. } = self {
            *since = now;
        }
    }

    /// A question beside the pools was answered: the next dial need not wait for the end of a back-off.
    pub(super) fn proved(&mut self) {
        if !self.is_up() {
            *self = Self::Up { dials_max: 1 };
        }
    }

    pub(super) fn succeeded(&mut self) {
        *self = match *self {
            // ## Up => Up, twice as fast
            Self::Up { dials_max } => Self::Up { dials_max: (dials_max * 2).min(DIALS_MAX) },
            // ## (Busy | Down) => Up, slowly: everybody else's proxy has noticed too
            Self::Busy { .. } | Self::Down { .. } => Self::Up { dials_max: 1 },
        };
    }

    /// A dial failed. Only a probe's failure lengthens a back-off that runs already: the other dials were started
    /// before the first failure and show nothing new.
    pub(super) fn failed(&mut self, kind: FailureKind, probe: bool, now: Instant, uniform: f64) {
        *self = match (kind, *self) {
            // ## (Up | Busy) => Down
            (FailureKind::Unreachable, Self::Up { .. } | Self::Busy { .. }) => {
                Self::Down { since: now, retry: Retry::of_endpoint(now, uniform) }
            }
            // ## Down => Down, for longer
            (FailureKind::Unreachable, Self::Down { since, retry }) if probe => {
                Self::Down { since, retry: retry.after_another(now, uniform) }
            }
            // ## (Up | Down) => Busy: it answers, so it is not down
            (FailureKind::Busy, Self::Up { .. } | Self::Down { .. }) => {
                Self::Busy { retry: Retry::of_endpoint(now, uniform) }
            }
            // ## Busy => Busy, for longer
            (FailureKind::Busy, Self::Busy { retry }) if probe => {
                Self::Busy { retry: retry.after_another(now, uniform) }
            }
            // ## (Busy | Down) => Up: it has room to judge a login; its refusal concerns one pool
            (FailureKind::Refused | FailureKind::Full, Self::Busy { .. } | Self::Down { .. }) => {
                Self::Up { dials_max: 1 }
            }
            (_, unchanged) => unchanged,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn healthy_endpoint_is_dialled_a_few_at_once() {
        let health = Health::new();
        assert_eq!(health.dials_allowed(0, Instant::now()), DIALS_MAX);
        assert_eq!(health.dials_allowed(DIALS_MAX, Instant::now()), 0);
    }

    #[test]
    fn one_prober_at_a_time_while_down_and_after_the_back_off() {
        let now = Instant::now();
        let mut health = Health::new();
        health.failed(FailureKind::Unreachable, false, now, 0.5);
        assert_eq!(health.dials_allowed(0, now + ms(49)), 0);
        assert_eq!(health.dials_allowed(0, now + ms(50)), 1);
        assert_eq!(health.dials_allowed(1, now + ms(50)), 0);
    }

    #[test]
    fn back_off_doubles_per_probe_and_stays_below_a_second() {
        let now = Instant::now();
        let mut health = Health::new();
        let mut ceilings = Vec::new();
        for _ in 0..8 {
            health.failed(FailureKind::Unreachable, true, now, 1.0);
            let Health::Down { retry, .. } = health else { panic!("an unreachable endpoint is down") };
            ceilings.push((retry.at - now).as_millis());
        }
        assert_eq!(ceilings, [100, 200, 400, 800, 800, 800, 800, 800]);
    }

    #[test]
    fn dials_that_fail_together_lengthen_the_back_off_once() {
        let now = Instant::now();
        let mut health = Health::new();
        for _ in 0..4 {
            health.failed(FailureKind::Unreachable, false, now, 1.0);
        }
        assert_eq!(health.dials_allowed(0, now + ms(100)), 1);
    }

    #[test]
    fn recovery_doubles_from_one() {
        let now = Instant::now();
        let mut health = Health::new();
        health.failed(FailureKind::Unreachable, false, now, 0.0);
        let allowed = [1, 2, 4, 4].map(|_| {
            health.succeeded();
            health.dials_allowed(0, now)
        });
        assert_eq!(allowed, [1, 2, 4, 4]);
    }

    #[test]
    fn an_answer_of_any_kind_ends_down() {
        let now = Instant::now();
        for kind in [FailureKind::Busy, FailureKind::Refused, FailureKind::Full] {
            let mut health = Health::new();
            health.failed(FailureKind::Unreachable, false, now, 0.0);
            assert!(health.down_since().is_some());
            health.failed(kind, true, now, 0.0);
            assert!(health.down_since().is_none());
        }
    }
}
