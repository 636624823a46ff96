//! SHOW STATS_AVERAGES. As in PgBouncer only its last columns begin with `avg_`.

use std::sync::Arc;

use super::counted::{StatsNumbers, by_database, stats_columns};
use crate::admin::table::{ConsoleTable, table};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!("STATS_AVERAGES", "the averages of STATS alone", lines);

struct AveragesLine {
    database: Arc<str>,
    numbers: StatsNumbers,
}

stats_columns! { AveragesLine;
    numbers: [
        "server_assignment_count", "xact_count", "query_count",
        "bytes_received", "bytes_sent",
        "xact_time", "query_time", "wait_time",
        "avg_client_parse_count", "avg_server_parse_count", "avg_bind_count",
    ],
}

fn lines(proxy: &Proxy) -> Vec<AveragesLine> {
    let all = by_database(proxy).into_iter();
    all.map(|line| AveragesLine { database: line.database, numbers: line.average }).collect()
}
