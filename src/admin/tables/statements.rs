//! SHOW STATEMENTS: a line for each statement by its digest, those first that kept the server busy longest.

use std::time::Duration;

use super::format::time;
use crate::admin::table::{ConsoleTable, columns, table};
use crate::proxy::Proxy;
use crate::state::timeout::Timeout;
use crate::workload::StatementView;

pub(super) const TABLE: ConsoleTable = table!(
    "STATEMENTS",
    "each statement by its digest: calls, errors, time waiting in line and at the server, who calls it",
    lines,
);

struct StatementLine {
    view: StatementView,
    /// Clients that run it now.
    running: u32,
    first_seen: String,
    last_seen: String,
}

columns! { StatementLine;
    "digest" text = |it| it.view.digest.map(|digest| digest.to_string()),
    "running" int = |it| it.running,
    "calls" long = |it| it.view.totals.calls,
    "server_us" long = |it| micros(it.view.totals.server_time()),
    "server_p50_us" long = |it| micros(it.view.totals.server.quantile(0.5)),
    "server_p99_us" long = |it| micros(it.view.totals.server.quantile(0.99)),
    "waits" long = |it| it.view.totals.waits,
    "wait_us" long = |it| micros(it.view.totals.waited),
    "rows" long = |it| it.view.totals.rows,
    "bytes" long = |it| it.view.totals.bytes,
    "errors" long = |it| it.view.totals.errors(),
    "error_classes" text = |it| classes(&it.view),
    "timeouts" long = |it| it.view.totals.timeouts(),
    "timeout_kinds" text = |it| kinds(&it.view),
    "cancels" long = |it| it.view.totals.cancels,
    "roles" text = |it| it.view.roles.join(","),
    "database" text = |it| it.view.last_caller.as_ref().map(|caller| &*caller.database),
    "application_name" text = |it| it.view.last_caller.as_ref().map(|caller| &*caller.application_name),
    "addr" text = |it| it.view.last_caller.as_ref().map(|caller| &*caller.addr),
    "first_seen" text = |it| &it.first_seen,
    "last_seen" text = |it| &it.last_seen,
    "statement" text = |it| &it.view.text,
}

fn lines(proxy: &Proxy) -> Vec<StatementLine> {
    let date = |second: u32| time(proxy.clock.started_at() + Duration::from_secs(second.into()));
    let mut views = proxy.workload.as_ref().map(|workload| workload.view()).unwrap_or_default();
    let running = proxy.clients.running();
    let running = |view: &StatementView| view.digest.and_then(|digest| running.get(&digest)).copied().unwrap_or(0);
    views.retain(|view| view.totals.calls > 0 || running(view) > 0);
    views.sort_by_key(|view| std::cmp::Reverse(view.totals.server_time()));
    let line = |view: StatementView| StatementLine {
        first_seen: date(view.first_seen),
        last_seen: date(view.last_seen),
        running: running(&view),
        view,
    };
    views.into_iter().map(line).collect()
}

fn micros(duration: Duration) -> u128 {
    duration.as_micros()
}

/// Errors by SQLSTATE class, as `22:3 57:1`.
fn classes(view: &StatementView) -> String {
    let class = |(class, count): (&[u8; 2], &u64)| format!("{}:{count}", String::from_utf8_lossy(class));
    view.totals.errors.iter().map(class).collect::<Vec<_>>().join(" ")
}

/// Timeouts by kind, as `statement:3`.
fn kinds(view: &StatementView) -> String {
    let counts = Timeout::WORDS.into_iter().zip(view.totals.timeouts);
    let kinds = counts.filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{kind}:{count}"));
    kinds.collect::<Vec<_>>().join(" ")
}
