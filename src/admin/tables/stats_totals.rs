//! SHOW STATS_TOTALS; SHOW STATS_AVERAGES has the same columns.

use std::sync::Arc;

use super::counted::{StatsNumbers, by_database, stats_columns};
use crate::admin::table::{ConsoleTable, table};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!("STATS_TOTALS", "the totals of STATS alone", lines);

/// Either the totals or the averages of one database.
pub(super) struct NumbersLine {
    pub(super) database: Arc<str>,
    pub(super) numbers: StatsNumbers,
}

stats_columns! { NumbersLine;
    numbers: [
        "server_assignment_count", "xact_count", "query_count",
        "bytes_received", "bytes_sent",
        "xact_time", "query_time", "wait_time",
        "client_parse_count", "server_parse_count", "bind_count",
    ],
}

fn lines(proxy: &Proxy) -> Vec<NumbersLine> {
    let all = by_database(proxy).into_iter();
    all.map(|line| NumbersLine { database: line.database, numbers: line.total }).collect()
}
