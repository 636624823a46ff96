//! SHOW STATS_TOTALS.

use std::sync::Arc;

use super::counted::{StatsNumbers, by_database, stats_columns};
use crate::admin::table::{ConsoleTable, table};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!("STATS_TOTALS", "the totals of STATS alone", lines);

struct TotalsLine {
    database: Arc<str>,
    numbers: StatsNumbers,
}

stats_columns! { TotalsLine;
    numbers: [
        "server_assignment_count", "xact_count", "query_count",
        "bytes_received", "bytes_sent",
        "xact_time", "query_time", "wait_time",
        "client_parse_count", "server_parse_count", "bind_count",
    ],
}

fn lines(proxy: &Proxy) -> Vec<TotalsLine> {
    let all = by_database(proxy).into_iter();
    all.map(|line| TotalsLine { database: line.database, numbers: line.total }).collect()
}
