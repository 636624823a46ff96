//! The statements that keep the servers busy, for the status page: what each does now, did in the last minute, and the
//! trend of the last ten.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::figures::{per_second, seconds};
use crate::proxy::Proxy;
use crate::sql::Digest;
use crate::workload::baseline::StatementTrouble;
use crate::workload::{StatementTrend, StatementView};

/// Statements that are shown.
const TOP: usize = 15;

/// Characters of a text that are shown.
const TEXT_SHOWN: usize = 300;

/// Seconds of which a rate is.
const MINUTE: u64 = 60;

/// The busiest first; null where statements are not tracked. `second`: of the process.
pub(super) fn statements(proxy: &Proxy, second: u64) -> Value {
    let Some(workload) = &proxy.workload else { return Value::Null };
    let running = proxy.clients.running();
    let mut busiest = workload.busiest(TOP);
    // One that has not ended once has no trend yet.
    let is_known = |digest: &Digest| busiest.iter().any(|(trend, _)| trend.digest == *digest);
    let mut new: Vec<(&Digest, &u32)> = running.iter().filter(|(digest, _)| !is_known(digest)).collect();
    new.sort_unstable_by_key(|(digest, count)| (std::cmp::Reverse(**count), **digest));
    let new: Vec<Digest> = new.into_iter().take(TOP).map(|(digest, _)| *digest).collect();
    busiest.extend(new.into_iter().filter_map(|digest| workload.at_rest(digest)));
    let trouble: HashMap<Digest, StatementTrouble> =
        workload.warnings().into_iter().map(|(warning, _)| (warning.digest, warning.trouble)).collect();
    let minute = second.clamp(1, MINUTE);
    let mut rows: Vec<BusyStatement> = busiest
        .into_iter()
        .map(|(trend, view)| {
            let running = running.get(&trend.digest).copied().unwrap_or(0);
            let trouble = trouble.get(&trend.digest).copied();
            let busy = trend.lately.server_micros as f64 / 1e6 / minute as f64;
            BusyStatement { trend, view, running, busy, trouble }
        })
        .collect();
    rows.sort_by(|one, other| other.load().total_cmp(&one.load()).then(one.trend.digest.cmp(&other.trend.digest)));
    rows.iter().take(TOP).map(|row| row.shown(minute)).collect()
}

struct BusyStatement {
    trend: StatementTrend,
    view: StatementView,
    /// Clients that run it now.
    running: u32,
    /// Backends that it kept busy in the last minute, on average.
    busy: f64,
    trouble: Option<StatementTrouble>,
}

impl BusyStatement {
    /// What it takes of the servers, as far as a number can say it.
    fn load(&self) -> f64 {
        f64::from(self.running) + self.busy
    }

    fn shown(&self, minute: u64) -> Value {
        let Self { trend, view, running, busy, trouble } = self;
        let lately = &trend.lately;
        let each = |micros: u64| (lately.calls > 0).then(|| seconds(Duration::from_micros(micros / lately.calls)));
        let caller = view.last_caller.as_ref();
        json!({
            "digest": trend.digest.to_string(),
            "statement": view.text.chars().take(TEXT_SHOWN).collect::<String>(),
            "roles": view.roles.iter().map(|role| &**role).collect::<Vec<_>>(),
            "database": caller.map(|caller| &*caller.database),
            "application_name": caller.map(|caller| &*caller.application_name),
            "running": running,
            "busy": hundredths(*busy),
            "calls_per_second": per_second(lately.calls, minute),
            "server_time": each(lately.server_micros),
            "wait_time": each(lately.wait_micros),
            "timeouts": lately.timeouts,
            "trouble": trouble.map(word),
            "trend": trend.busy.iter().map(|busy| hundredths((*busy).into())).collect::<Vec<_>>(),
        })
    }
}

fn word(trouble: StatementTrouble) -> &'static str {
    match trouble {
        StatementTrouble::Timeouts { .. } => "more timeouts than usual",
        StatementTrouble::Slow { .. } => "slower than usual",
    }
}

fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
