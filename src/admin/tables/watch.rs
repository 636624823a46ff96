//! SHOW WATCH: one line for each watched database.

use std::sync::Arc;

use tokio::time::Instant;

use crate::admin::table::{ConsoleTable, columns, table};
use crate::proxy::Proxy;
use crate::watch::monitor::Monitor;

pub(super) const TABLE: ConsoleTable = table!(
    "WATCH",
    "every watched server: whether it answers, what it is, who is connected, what should be set otherwise",
    lines,
);

struct WatchLine {
    database: Arc<str>,
    is_up: bool,
    state: &'static str,
    /// `None`: it was never reached.
    server_role: Option<&'static str>,
    sessions: u32,
    active: u32,
    idle_in_transaction: u32,
    outside: usize,
    notify_queue: f64,
    findings: usize,
    advice: Option<String>,
}

columns! { WatchLine;
    "database" text = |it| &*it.database,
    "up" int = |it| it.is_up,
    "state" text = |it| it.state,
    "server_role" text = |it| it.server_role,
    "sessions" int = |it| it.sessions,
    "active" int = |it| it.active,
    "idle_in_transaction" int = |it| it.idle_in_transaction,
    "outside" int = |it| it.outside,
    "notify_queue_percent" int = |it| (it.notify_queue * 100.0).round() as u32,
    "findings" int = |it| it.findings,
    "advice" text = |it| it.advice.as_ref(),
}

fn lines(proxy: &Proxy) -> Vec<WatchLine> {
    let config = proxy.config.load();
    let findings = proxy.watches.findings(usize::MAX, Instant::now());
    let line = |monitor: Arc<Monitor>| {
        // The whole server is asked by one watch.
        let leader = proxy.watches.leader(&monitor.database).unwrap_or_else(|| Arc::clone(&monitor));
        let (state, sample, notify_queue, is_standby) = {
            let core = leader.core();
            let is_standby = core.server().map(|server| server.is_standby);
            (core.convoy().state(), core.convoy().sample().clone(), core.detectors().notify_queue.usage(), is_standby)
        };
        let core = monitor.core();
        let of_database = config.database(&monitor.database).and_then(|database| database.backends_max);
        let backends_max = of_database.into_iter().chain(config.backends_total_max).min();
        WatchLine {
            database: Arc::clone(&monitor.database),
            is_up: monitor.is_up(&core),
            state: state.word(),
            server_role: is_standby.map(|is_standby| if is_standby { "standby" } else { "primary" }),
            sessions: sample.backends,
            active: sample.active,
            idle_in_transaction: sample.idle_in_transaction,
            outside: core.detectors().outside.count(),
            notify_queue,
            findings: findings.iter().filter(|found| found.databases.contains(&monitor.database)).count(),
            advice: core.server().map(|server| server.advice(backends_max).join("; ")),
        }
    };
    proxy.watches.all().into_iter().map(line).collect()
}
