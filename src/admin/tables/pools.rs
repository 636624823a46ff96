//! SHOW POOLS. The console is a pool, too, as in PgBouncer, and the last one.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::format::{CONSOLE, wait};
use crate::admin::group::{self, GroupName, PoolGroup};
use crate::admin::table::{ConsoleTable, columns, table};
use crate::clients::Activity;
use crate::config::CONSOLE_NAMES;
use crate::pool::core::SlotCounts;
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!("POOLS", "clients and backends by database and role", lines);

/// Clients and backends of one database and role.
struct PoolLine {
    name: GroupName,
    clients: u32,
    waiting: u32,
    counts: SlotCounts,
    longest: (u64, u32),
    mode: &'static str,
    has_hosts: bool,
}

columns! { PoolLine;
    "database" text = |pool| &*pool.name.0,
    "user" text = |pool| &*pool.name.1,
    // As in PgBouncer, a client that wants nothing is active.
    "cl_active" int = |pool| pool.clients + pool.counts.leased,
    "cl_waiting" int = |pool| pool.waiting,
    "cl_active_cancel_req" int = |_pool| 0,
    "cl_waiting_cancel_req" int = |_pool| 0,
    "sv_active" int = |pool| pool.counts.leased + pool.counts.handed,
    "sv_active_cancel" int = |_pool| 0,
    "sv_being_canceled" int = |_pool| 0,
    "sv_idle" int = |pool| pool.counts.idle,
    "sv_used" int = |_pool| 0,
    "sv_tested" int = |_pool| 0,
    "sv_login" int = |pool| pool.counts.opening,
    "maxwait" int = |pool| pool.longest.0,
    "maxwait_us" int = |pool| pool.longest.1,
    "pool_mode" text = |pool| pool.mode,
    "load_balance_hosts" text = |pool| pool.has_hosts.then_some("disable"),
}

fn lines(proxy: &Proxy) -> Vec<PoolLine> {
    let now = Instant::now();
    let mut idle: HashMap<GroupName, u32> = HashMap::new();
    for entry in proxy.clients.all() {
        if matches!(entry.activity(), Activity::Idle) {
            *idle.entry((Arc::clone(&entry.database), Arc::clone(&entry.role))).or_default() += 1;
        }
    }
    let line = |(name, group): (GroupName, PoolGroup)| {
        let settings = group.pool.settings();
        PoolLine {
            clients: idle.get(&name).copied().unwrap_or(0),
            name,
            waiting: group.waiting,
            counts: group.counts,
            longest: wait(group.waiting_since.map(|since| now.saturating_duration_since(since))),
            mode: settings.pool.mode.word(),
            has_hosts: settings.endpoint.hosts.len() > 1,
        }
    };
    let consoles = idle.iter().filter(|((database, _), _)| CONSOLE_NAMES.contains(&&**database)).map(|(_, n)| n).sum();
    let console = PoolLine {
        name: (CONSOLE.into(), CONSOLE.into()),
        clients: consoles,
        waiting: 0,
        counts: SlotCounts::default(),
        longest: (0, 0),
        mode: "statement",
        has_hosts: false,
    };
    group::all(proxy).into_iter().map(line).chain([console]).collect()
}
