//! SHOW ROLES: the roles that have logged in, and those that the file names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::format::{time, wait};
use crate::admin::group;
use crate::admin::table::{ConsoleTable, columns, table};
use crate::admission::limiter::{LimitedBy, LimiterCounters, LimiterState};
use crate::admission::shadow::ObservedCounts;
use crate::config::{Config, LimitMode};
use crate::pool::core::RoleQueueView;
use crate::pool::pool::PoolKind;
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable =
    table!("ROLES", "every role: its limit, who is active, who waits, what has happened", lines);

struct RoleLine {
    role: Arc<str>,
    state: LimiterState,
    limit: Option<u32>,
    effective: Option<u32>,
    /// What keeps it from having more transactions at once.
    limited_by: LimitedBy,
    /// The moment at which its ramp ends.
    ramp_end: Option<SystemTime>,
    active: u32,
    waiting: u32,
    longest: (u64, u32),
    counters: LimiterCounters,
    /// What its limit would have done, if it only observes.
    observed: Option<ObservedCounts>,
}

columns! { RoleLine;
    "role" text = |it| &*it.role,
    "state" text = |it| it.state.word(),
    "limit" int = |it| it.limit,
    "effective_limit" int = |it| it.effective,
    "limited_by" text = |it| it.limited_by.word(),
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
    "limit_mode" text = |it| if it.observed.is_some() { LimitMode::Observe.word() } else { LimitMode::Enforce.word() },
    "total_would_wait" long = |it| it.observed.map(|counts| counts.waits),
    "total_would_time_out" long = |it| it.observed.map(|counts| counts.timed_out),
    "total_would_be_refused" long = |it| it.observed.map(|counts| counts.refused),
}

fn lines(proxy: &Proxy) -> Vec<RoleLine> {
    let now = Instant::now();
    let mut roles: BTreeMap<Arc<str>, Option<RoleQueueView>> =
        group::role_queues(proxy, now).into_iter().map(|(role, view)| (role, Some(view))).collect();
    let config = proxy.config.load();
    for name in config.roles.keys().filter(|name| *name != "*") {
        roles.entry(name.as_str().into()).or_default();
    }
    let room = room(proxy, &config);
    roles
        .into_iter()
        .map(|(role, view)| match view {
            Some(view) => {
                let room = room.get(&role).copied();
                seen(role, &view, room, now)
            }
            None => unseen(&config, role),
        })
        .collect()
}

/// Backends that the pools of each role may have, all together.
fn room(proxy: &Proxy, config: &Config) -> BTreeMap<Arc<str>, u32> {
    let mut room: BTreeMap<Arc<str>, u32> = BTreeMap::new();
    for pool in proxy.directory.all_pools() {
        if pool.name.kind == PoolKind::Ordinary {
            let settings = pool.settings();
            let size = settings.backends_max.map_or(settings.pool.size, |max| max.min(settings.pool.size));
            let role = room.entry(Arc::clone(&pool.name.role)).or_default();
            *role = role.saturating_add(size);
        }
    }
    let total = config.backends_total_max.unwrap_or(u32::MAX);
    room.values_mut().for_each(|room| *room = (*room).min(total));
    room
}

fn seen(role: Arc<str>, view: &RoleQueueView, room: Option<u32>, now: Instant) -> RoleLine {
    let RoleQueueView { limiter, observed, waiting_since } = view;
    // A limit that only observes is shown as it would be.
    let shown = observed.as_ref().map_or(limiter, |(shown, _)| shown);
    let is_pool = observed.is_some() || room.is_some_and(|room| room < shown.effective);
    RoleLine {
        role,
        state: limiter.state,
        limit: shown.limit,
        effective: group::effective_limit(shown),
        limited_by: if is_pool { LimitedBy::Pool } else { shown.limited_by },
        ramp_end: limiter.moves_until.map(|end| SystemTime::now() + end.saturating_duration_since(now)),
        active: limiter.active,
        waiting: limiter.waiting,
        longest: wait(waiting_since.map(|since| now.saturating_duration_since(since))),
        counters: limiter.counters,
        observed: observed.as_ref().map(|(_, counts)| *counts),
    }
}

/// The line of a role that nobody has logged in as so far.
fn unseen(config: &Config, role: Arc<str>) -> RoleLine {
    let admission = config.role(&role).map(|role| &role.limits.admission);
    let limit = admission.and_then(|admission| admission.transactions_max);
    let observes = admission.is_some_and(|admission| admission.limit_mode == LimitMode::Observe);
    RoleLine {
        role,
        state: LimiterState::Calm,
        limit,
        effective: limit,
        limited_by: if limit.is_none() || observes { LimitedBy::Pool } else { LimitedBy::Limit },
        ramp_end: None,
        active: 0,
        waiting: 0,
        longest: (0, 0),
        counters: LimiterCounters::default(),
        observed: observes.then(ObservedCounts::default),
    }
}
