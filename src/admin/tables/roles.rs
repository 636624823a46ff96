//! SHOW ROLES: the roles that have logged in, and those that the file names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::format::{time, wait};
use crate::admin::group;
use crate::admin::table::{ConsoleTable, columns, table};
use crate::admission::limiter::{LimiterCounters, LimiterState};
use crate::config::Config;
use crate::pool::core::RoleQueueView;
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable =
    table!("ROLES", "every role: its limit, who is active, who waits, what has happened", lines);

struct RoleLine {
    role: Arc<str>,
    state: LimiterState,
    limit: Option<u32>,
    effective: Option<u32>,
    /// The moment at which its ramp ends.
    ramp_end: Option<SystemTime>,
    active: u32,
    waiting: u32,
    longest: (u64, u32),
    counters: LimiterCounters,
}

columns! { RoleLine;
    "role" text = |it| &*it.role,
    "state" text = |it| it.state.word(),
    "limit" int = |it| it.limit,
    "effective_limit" int = |it| it.effective,
    "ramp_end" text = |it| it.ramp_end.map(time),
    "active" int = |it| it.active,
    "waiting" int = |it| it.waiting,
    "maxwait" int = |it| it.longest.0,
    "maxwait_us" int = |it| it.longest.1,
    "total_starts" long = |it| it.counters.starts,
    "total_starts_immediate" long = |it| it.counters.immediate,
    "total_refused_full" long = |it| it.counters.refused_full,
    "total_refused_shed" long = |it| it.counters.refused_shed,
    "total_wait_timeouts" long = |it| it.counters.timed_out,
    "total_bursts" long = |it| it.counters.bursts,
    "total_stuck" long = |it| it.counters.stuck,
    "total_limit_cuts" long = |it| it.counters.cuts,
    "total_limit_reverts" long = |it| it.counters.reverts,
    "total_paced" long = |it| it.counters.paced,
    "total_pace_overflow" long = |it| it.counters.overdue,
    "total_spread" long = |it| it.counters.spread,
}

fn lines(proxy: &Proxy) -> Vec<RoleLine> {
    let now = Instant::now();
    let mut roles: BTreeMap<Arc<str>, Option<RoleQueueView>> =
        group::role_queues(proxy, now).into_iter().map(|(role, view)| (role, Some(view))).collect();
    let config = proxy.config.load();
    for name in config.roles.keys().filter(|name| *name != "*") {
        roles.entry(name.as_str().into()).or_default();
    }
    roles
        .into_iter()
        .map(|(role, view)| match view {
            Some(view) => seen(role, &view, now),
            None => unseen(&config, role),
        })
        .collect()
}

fn seen(role: Arc<str>, RoleQueueView { limiter, waiting_since }: &RoleQueueView, now: Instant) -> RoleLine {
    RoleLine {
        role,
        state: limiter.state,
        limit: limiter.limit,
        effective: group::effective_limit(limiter),
        ramp_end: limiter.moves_until.map(|end| SystemTime::now() + end.saturating_duration_since(now)),
        active: limiter.active,
        waiting: limiter.waiting,
        longest: wait(waiting_since.map(|since| now.saturating_duration_since(since))),
        counters: limiter.counters,
    }
}

/// The line of a role that nobody has logged in as so far.
fn unseen(config: &Config, role: Arc<str>) -> RoleLine {
    let limit = config.role(&role).and_then(|role| role.limits.admission.transactions_max);
    RoleLine {
        role,
        state: LimiterState::Calm,
        limit,
        effective: limit,
        ramp_end: None,
        active: 0,
        waiting: 0,
        longest: (0, 0),
        counters: LimiterCounters::default(),
    }
}
