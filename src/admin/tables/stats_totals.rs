//! SHOW STATS_TOTALS; SHOW STATS_AVERAGES has the same columns.

use std::sync::Arc;

use super::counted::{StatsNumbers, by_database};
use crate::admin::table::{ConsoleTable, columns, table};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!("STATS_TOTALS", "the totals of STATS alone", lines);

/// Either the totals or the averages of one database.
pub(super) struct NumbersLine {
    pub(super) database: Arc<str>,
    pub(super) numbers: StatsNumbers,
}

columns! { NumbersLine;
    "database" text = |it| &*it.database,
    "server_assignment_count" long = |it| it.numbers.assignments,
    "xact_count" long = |it| it.numbers.transactions,
    "query_count" long = |it| it.numbers.queries,
    "bytes_received" long = |it| it.numbers.received,
    "bytes_sent" long = |it| it.numbers.sent,
    "xact_time" long = |it| it.numbers.transaction_micros,
    "query_time" long = |it| it.numbers.query_micros,
    "wait_time" long = |it| it.numbers.wait_micros,
    "client_parse_count" long = |_it| 0,
    "server_parse_count" long = |_it| 0,
    "bind_count" long = |_it| 0,
}

fn lines(proxy: &Proxy) -> Vec<NumbersLine> {
    let all = by_database(proxy).into_iter();
    all.map(|line| NumbersLine { database: line.database, numbers: line.total }).collect()
}
