//! `[watch]`: who watches the servers, and from where on something is the matter.

use super::{BACKENDS_MAX, secret};
use crate::config::raw::Section;
use crate::config::value::{count, duration_above_zero, text, word};
use crate::config::{Watch, WatchLogin};

/// Fewer in wait for locks are everyday life.
const CONVOY_WAITERS_MIN: u32 = 5;

/// Transaction ids come round after twice as many (manual: routine vacuuming).
const TRANSACTIONS_MAX: u32 = 1 << 30;

/// The section.
pub(super) fn read(root: &mut Section<'_>) -> Watch {
    let default = Watch::default();
    let mut section = root.section_or_empty("watch");
    let role = section.take("role", text);
    let password = secret::read(&mut section, "password");
    if section.has("password") && !section.has("role") {
        section.blame("role", "is missing; password is its");
    }
    let watch = Watch {
        login: role.map(|role| WatchLogin { role, password }),
        convoy_waiters: section
            .take("convoy_waiters", count(CONVOY_WAITERS_MIN..=BACKENDS_MAX))
            .unwrap_or(default.convoy_waiters),
        blocked: section.take("blocked", duration_above_zero).unwrap_or(default.blocked),
        idle_in_transaction: section
            .take("idle_in_transaction", duration_above_zero)
            .unwrap_or(default.idle_in_transaction),
        long_statement: section.take("long_statement", duration_above_zero).unwrap_or(default.long_statement),
        horizon_age: section.take("horizon_age", duration_above_zero).unwrap_or(default.horizon_age),
        horizon_transactions: section
            .take("horizon_transactions", count(1..=TRANSACTIONS_MAX))
            .unwrap_or(default.horizon_transactions),
        dead_tuples: section.take("dead_tuples", count(1..=u32::MAX)).unwrap_or(default.dead_tuples),
        outside_max: section.take("outside_max", count(0..=BACKENDS_MAX)),
        on_convoy: section.take("on_convoy", word).unwrap_or(default.on_convoy),
        on_idle_holder: section.take("on_idle_holder", word).unwrap_or(default.on_idle_holder),
    };
    section.finish();
    watch
}

/// `databases.*.watch`.
pub(super) fn read_login(mut section: Section<'_>) -> Option<WatchLogin> {
    let role = section.require("role", text);
    let password = secret::read(&mut section, "password");
    section.finish();
    Some(WatchLogin { role: role?, password })
}
