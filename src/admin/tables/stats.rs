//! SHOW STATS.

use super::counted::{StatsLine, by_database, stats_columns};
use crate::admin::table::{ConsoleTable, table};

pub(super) const TABLE: ConsoleTable =
    table!("STATS", "totals and averages per database; times are microseconds", by_database);

stats_columns! { StatsLine;
    total: [
        "total_server_assignment_count", "total_xact_count", "total_query_count",
        "total_received", "total_sent",
        "total_xact_time", "total_query_time", "total_wait_time",
        "total_client_parse_count", "total_server_parse_count", "total_bind_count",
    ],
    average: [
        "avg_server_assignment_count", "avg_xact_count", "avg_query_count",
        "avg_recv", "avg_sent",
        "avg_xact_time", "avg_query_time", "avg_wait_time",
        "avg_client_parse_count", "avg_server_parse_count", "avg_bind_count",
    ],
}
