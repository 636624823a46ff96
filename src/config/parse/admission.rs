//! `[admission]` and the keys of a role that say how its transactions are let in.

use std::time::Duration;

use super::{BACKENDS_MAX, WAITERS_MAX};
use crate::config::defaults::{self, RATE_BURST, RATE_DELAY_MAX, RATE_WHEN};
use crate::config::raw::Section;
use crate::config::value::{count, duration, duration_above_zero, duration_text, rate, truth, word};
use crate::config::{Admission, Jitter, Priority, Rate, RateWhen, RoleAdmission};

/// A share finer than this cannot be told from none.
const WEIGHT_MAX: u32 = 1000;

/// More than this at one instant is no rate.
const BURST_MAX: u32 = 1_000_000;

/// The section. A login may not be delayed past the end of the time it has.
pub(super) fn read(root: &mut Section<'_>, login_timeout: Duration) -> Admission {
    let default = Admission::default();
    let mut section = root.section_or_empty("admission");
    let login_delay_max = section.take("login_delay_max", |value| match duration(value)? {
        delay if delay < login_timeout => Ok(delay),
        delay => Err(format!(
            "{:?} is not below listen.login_timeout ({:?})",
            duration_text(delay),
            duration_text(login_timeout)
        )),
    });
    let admission = Admission {
        mode: section.take("mode", word).unwrap_or(default.mode),
        initial: section.take("initial", count(1..=BACKENDS_MAX)).unwrap_or(default.initial),
        slow_start_idle: section.take("slow_start_idle", duration_above_zero).unwrap_or(default.slow_start_idle),
        jitter: section.take("jitter", word).unwrap_or(default.jitter),
        jitter_window: section.take("jitter_window", duration_above_zero).unwrap_or(default.jitter_window),
        spread_max: section.take("spread_max", duration_above_zero).unwrap_or(default.spread_max),
        notice_after: section.take("notice_after", duration).unwrap_or(default.notice_after),
        login_rate: section.take("login_rate", rate).unwrap_or(default.login_rate),
        login_burst: section.take("login_burst", count(1..=BURST_MAX)).unwrap_or(default.login_burst),
        login_delay_max: login_delay_max
            .unwrap_or_else(|| default.login_delay_max.min(defaults::login_delay_max(login_timeout))),
        login_concurrency: section.take("login_concurrency", count(1..=BURST_MAX)).unwrap_or(default.login_concurrency),
        login_rate_per_address: section.take("login_rate_per_address", rate).unwrap_or(default.login_rate_per_address),
        cancel_rate_per_address: section
            .take("cancel_rate_per_address", rate)
            .unwrap_or(default.cancel_rate_per_address),
        zombie_max: section.take("zombie_max", duration).unwrap_or(default.zombie_max),
    };
    section.finish();
    admission
}

/// The keys as written, before `[roles."*"]` and the defaults fill in.
#[derive(Clone, Default)]
pub(super) struct RoleKeys {
    transactions_max: Option<u32>,
    transactions_min: Option<u32>,
    waiters_max: Option<u32>,
    priority: Option<Priority>,
    weight: Option<u32>,
    ramp: Option<Duration>,
    rate: Option<Option<f64>>,
    rate_burst: Option<u32>,
    rate_delay_max: Option<Duration>,
    rate_when: Option<RateWhen>,
    adaptive: Option<bool>,
    jitter: Option<Jitter>,
    spread_max: Option<Duration>,
}

impl RoleKeys {
    /// What the section says, over what `default` says.
    pub(super) fn read(section: &mut Section<'_>, default: &Self) -> Self {
        let ramp = section.section("ramp").and_then(|mut ramp| {
            let over = ramp.require("over", duration_above_zero);
            ramp.finish();
            over
        });
        Self {
            transactions_max: section.take("transactions_max", count(0..=BACKENDS_MAX)).or(default.transactions_max),
            transactions_min: section.take("transactions_min", count(0..=BACKENDS_MAX)).or(default.transactions_min),
            waiters_max: section.take("waiters_max", count(0..=WAITERS_MAX)).or(default.waiters_max),
            priority: section.take("class", word).or(default.priority),
            weight: section.take("weight", count(1..=WEIGHT_MAX)).or(default.weight),
            ramp: ramp.or(default.ramp),
            rate: section.take("rate", rate).or(default.rate),
            rate_burst: section.take("rate_burst", count(1..=BURST_MAX)).or(default.rate_burst),
            rate_delay_max: section.take("rate_delay_max", duration_above_zero).or(default.rate_delay_max),
            rate_when: section.take("rate_when", word).or(default.rate_when),
            adaptive: section.take("adaptive", truth).or(default.adaptive),
            jitter: section.take("jitter", word).or(default.jitter),
            spread_max: section.take("spread_max", duration_above_zero).or(default.spread_max),
        }
    }

    /// The rules between the keys of a role that somebody can log in as. `wait_max` is the longest `wait_timeout`, if
    /// it is known.
    pub(super) fn check(&self, section: &Section<'_>, wait_max: Option<Duration>) {
        let limit_is_wrong = self.transactions_max.is_none() && section.has("transactions_max");
        if self.ramp.is_some() && self.transactions_max.is_none() && !limit_is_wrong {
            section.blame("ramp", "needs transactions_max, the limit that it leads to");
        }
        // A valve that is closed in a hurry leaves nothing to reserve, and is no mistake.
        if let (Some(max @ 1..), Some(min)) = (self.transactions_max, self.transactions_min)
            && min > max
        {
            section.blame("transactions_min", format!("{min} is above transactions_max ({max})"));
        }
        if self.rate.is_none() && !section.has("rate") {
            for key in ["rate_burst", "rate_delay_max", "rate_when"] {
                if section.has(key) {
                    section.blame(key, "needs rate");
                }
            }
        }
        if let (Some(Some(_)), Some(delay), Some(wait)) = (self.rate, self.rate_delay_max, wait_max)
            && delay > wait / 2
        {
            section.blame(
                "rate_delay_max",
                format!(
                    "{:?} is more than half of the longest wait_timeout ({:?}), which goes on meanwhile",
                    duration_text(delay),
                    duration_text(wait)
                ),
            );
        }
    }

    /// With every default filled in.
    pub(super) fn resolve(&self, wait_max: Option<Duration>) -> RoleAdmission {
        let default = RoleAdmission::default();
        let delay_max = wait_max.map_or(RATE_DELAY_MAX, |wait| RATE_DELAY_MAX.min(wait / 2));
        RoleAdmission {
            transactions_max: self.transactions_max,
            transactions_min: self.transactions_min.unwrap_or(default.transactions_min),
            waiters_max: self.waiters_max,
            priority: self.priority.unwrap_or(default.priority),
            weight: self.weight.unwrap_or(default.weight),
            ramp: self.ramp,
            rate: self.rate.flatten().map(|per_second| Rate {
                per_second,
                burst: self.rate_burst.unwrap_or(RATE_BURST),
                delay_max: self.rate_delay_max.unwrap_or(delay_max),
                when: self.rate_when.unwrap_or(RATE_WHEN),
            }),
            adaptive: self.adaptive.unwrap_or(default.adaptive),
            jitter: self.jitter,
            spread_max: self.spread_max,
        }
    }
}
