//! `[admission]`, and the keys of a role that say how its transactions are let in.

use std::time::Duration;

use super::database::WAITERS_MAX;
use super::form::{BACKENDS_MAX, count, duration, duration_above_zero, duration_text, rate, truth, word};
use super::keys::section;
use super::raw::SectionReader;
use super::raw::{KeyTable, KeyVisitor};
use crate::words::words;

/// A share finer than this cannot be told from none.
const WEIGHT_MAX: u32 = 1000;

/// More than this at one instant is no rate.
const BURST_MAX: u32 = 1_000_000;

section! {
    /// `[admission]`; `Default` is the shipped file.
    pub struct Admission {
        /// Whether bursts are broken up at all.
        pub mode: AdmissionMode = AdmissionMode::On => key(word());
        /// Where the effective limit of a role, and a ramp, begin.
        pub initial: u32 = 8 => key(count(1..=BACKENDS_MAX));
        /// A role below half of `initial` for this long starts slowly again.
        pub slow_start_idle: Duration = Duration::from_secs(1) => key(duration_above_zero());
        /// How waiting transactions are mixed, where the role does not say.
        pub jitter: Jitter = Jitter::Soft => key(word());
        /// Nobody is overtaken by a transaction that came later than this.
        pub jitter_window: Duration = Duration::from_millis(250) => key(duration_above_zero());
        /// Longest delay of [`Jitter::Spread`], where the role does not say.
        pub spread_max: Duration = Duration::from_secs(1) => key(duration_above_zero());
        /// A client that waits longer gets a NOTICE; zero: never.
        pub notice_after: Duration = Duration::from_secs(5) => key(duration());
        /// Logins per second; `None`: not limited. About as many as one worker can log in: clients that connect for
        /// every query are not slowed down, and all that `clients_max` lets in are back two seconds after a restart.
        pub login_rate: Option<f64> = Some(5000.0) => key(rate());
        /// Logins that `login_rate` lets in at one instant.
        pub login_burst: u32 = 1000 => key(count(1..=BURST_MAX));
        /// A login that would be delayed longer is refused with 53300.
        pub login_delay_max: Duration = Duration::from_secs(10) => key(duration());
        /// Logins in authentication at once.
        pub login_concurrency: u32 = 32 => key(count(1..=BURST_MAX));
        /// Logins per second of one client address; `None`: not limited.
        pub login_rate_per_address: Option<f64> = None => key(rate());
        /// Cancel requests per second of one client address; `None`: not limited.
        pub cancel_rate_per_address: Option<f64> = Some(100.0) => key(rate());
        /// How long the slot of a closed backend counts while its server process lives on; zero: not at all.
        pub zombie_max: Duration = Duration::from_secs(60) => key(duration());
    }
}

impl Admission {
    /// The shipped section, with logins delayed for two thirds of the time they have at most.
    pub(super) fn within(login_timeout: Duration) -> Self {
        let default = Self::default();
        Self { login_delay_max: default.login_delay_max.min(login_timeout * 2 / 3), ..default }
    }

    /// A login may not be delayed past the end of the time it has.
    pub(super) fn check_delay(&self, login_timeout: Duration, section: &SectionReader<'_>) {
        let (delay, timeout) = (duration_text(self.login_delay_max), duration_text(login_timeout));
        if self.login_delay_max >= login_timeout {
            section.blame("login_delay_max", format!("{delay:?} is not below listen.login_timeout ({timeout:?})"));
        }
    }
}

words! {
    /// `admission.mode`.
    pub enum AdmissionMode {
        /// Everything.
        On = "on",
        /// Limits and rates stay; no slow start, jitter, spreading or refusal by expected wait. For comparison.
        Off = "off",
    }
}

words! {
    /// How waiting transactions are mixed, so that clients in lockstep fall out of it.
    pub enum Jitter {
        /// Drawn at random from those who come first after a quiet time, within `jitter_window`; costs no time.
        Soft = "soft",
        /// As `Soft`, and during a burst each waits up to `spread_max` first.
        Spread = "spread",
        /// Strictly in order of arrival.
        Off = "off",
    }
}

section! {
    /// The admission keys of a role; `Default` is the shipped file.
    pub struct RoleAdmission {
        /// Whether its limits hold, or only count what they would do.
        pub limit_mode: LimitMode = LimitMode::Enforce => key(word());
        /// Transactions at once over all databases; zero lets nobody start, `None`: the pools bound it.
        pub transactions_max: Option<u32> = None => maybe(count(0..=BACKENDS_MAX));
        /// Of each database's backends, never lent to another role.
        pub transactions_min: u32 = 0 => key(count(0..=BACKENDS_MAX));
        /// Waiting clients over all databases; `None`: `pool.waiters_max` bounds them.
        pub waiters_max: Option<u32> = None => maybe(count(0..=WAITERS_MAX));
        /// Goes before or after other roles that wait for the same database.
        pub priority as "class": Priority = Priority::Interactive => key(word());
        /// Share when several roles of one priority wait for one database.
        pub weight: u32 = 1 => key(count(1..=WEIGHT_MAX));
        /// How the limit grows from `admission.initial` after a start, a recovery or RAMP.
        pub ramp: Option<Ramp> = None => maybe_table();
        /// Starts per second.
        pub rate: RateKeys = RateKeys::default() => inline();
        /// Finds the effective limit by the server's own response time.
        pub adaptive: bool = false => key(truth());
        /// Overrides `admission.jitter`.
        pub jitter: Option<Jitter> = None => maybe(word());
        /// Overrides `admission.spread_max`.
        pub spread_max: Option<Duration> = None => maybe(duration_above_zero());
    }
}

words! {
    /// `roles.*.limit_mode`.
    pub enum LimitMode {
        /// What they hold back waits.
        Enforce = "enforce",
        /// Everything goes on, and it is counted what would have waited or been refused.
        Observe = "observe",
    }
}

words! {
    /// `roles.*.class`.
    pub enum Priority {
        /// People wait for it: before `Batch`.
        Interactive = "interactive",
        /// Gets every eighth turn while `Interactive` waits.
        Batch = "batch",
    }
}

section! {
    /// `roles.*.ramp`.
    #[derive(Copy, Eq)]
    pub struct Ramp {
        /// How long the limit takes to grow.
        pub over: Duration = Duration::ZERO => required(duration_above_zero());
    }
}

/// Bounds what concurrency does not, such as provisioned I/O.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoleRate {
    /// Transactions started per second.
    pub per_second: f64,
    /// Started at one instant.
    pub burst: u32,
    /// Longest delay; those who would wait longer for the rate alone are started.
    pub delay_max: Duration,
    /// When it holds.
    pub when: RateWhen,
}

/// `roles.*.rate` and the keys that hold only where there is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateKeys {
    /// [`RoleRate::per_second`]; `None`: not limited.
    pub per_second: Option<f64>,
    /// [`RoleRate::burst`].
    pub burst: u32,
    /// [`RoleRate::delay_max`].
    pub delay_max: Duration,
    /// [`RoleRate::when`].
    pub when: RateWhen,
}

impl RateKeys {
    /// The rate, if there is one.
    pub fn rate(self) -> Option<RoleRate> {
        let Self { per_second, burst, delay_max, when } = self;
        Some(RoleRate { per_second: per_second?, burst, delay_max, when })
    }
}

impl Default for RateKeys {
    fn default() -> Self {
        Self { per_second: None, burst: 20, delay_max: Duration::from_secs(2), when: RateWhen::Burst }
    }
}

impl KeyTable for RateKeys {
    fn keys(&mut self, keys: &mut impl KeyVisitor) {
        keys.group(self.per_second.is_some(), |keys| {
            keys.key("rate", &mut self.per_second, rate());
            keys.key("rate_burst", &mut self.burst, count(1..=BURST_MAX));
            keys.key("rate_delay_max", &mut self.delay_max, duration_above_zero());
            keys.key("rate_when", &mut self.when, word());
        });
    }
}

words! {
    /// `roles.*.rate_when`.
    pub enum RateWhen {
        /// While a burst is recognised.
        Burst = "burst",
        /// Always.
        Always = "always",
    }
}

impl RoleAdmission {
    /// The rules between the keys of a role that somebody can log in as. `wait_max` is the longest `wait_timeout`, if
    /// it is known; `has_rate` says that `roles."*"` has a rate, or switches it off.
    pub(super) fn check(&self, section: &SectionReader<'_>, wait_max: Option<Duration>, has_rate: bool) {
        let is_limit_wrong = self.transactions_max.is_none() && section.has("transactions_max");
        let is_ramp_sound = self.ramp.is_some() && !section.is_blamed("ramp");
        if is_ramp_sound && self.transactions_max.is_none() && !is_limit_wrong {
            section.blame("ramp", "needs transactions_max, the limit that it leads to");
        }
        // A limit set to zero in a hurry leaves nothing to reserve, and is no mistake.
        let min = self.transactions_min;
        if let Some(max @ 1..) = self.transactions_max
            && min > max
        {
            section.blame("transactions_min", format!("{min} is above transactions_max ({max})"));
        }
        if !has_rate && !section.has("rate") {
            for key in ["rate_burst", "rate_delay_max", "rate_when"] {
                if section.has(key) {
                    section.blame(key, "needs rate");
                }
            }
        }
        let delay = self.rate.delay_max;
        if let (Some(_), Some(wait)) = (self.rate.per_second, wait_max)
            && delay > wait / 2
        {
            let (delay, wait) = (duration_text(delay), duration_text(wait));
            section.blame(
                "rate_delay_max",
                format!("{delay:?} is more than half of the longest wait_timeout ({wait:?}), which goes on meanwhile"),
            );
        }
    }
}
