//! SHOW STATS.

use super::counted::{StatsLine, by_database};
use crate::admin::table::{ConsoleTable, columns, table};

pub(super) const TABLE: ConsoleTable =
    table!("STATS", "totals and averages per database; times are microseconds", by_database);

columns! { StatsLine;
    "database" text = |it| &*it.database,
    "total_server_assignment_count" long = |it| it.total.assignments,
    "total_xact_count" long = |it| it.total.transactions,
    "total_query_count" long = |it| it.total.queries,
    "total_received" long = |it| it.total.received,
    "total_sent" long = |it| it.total.sent,
    "total_xact_time" long = |it| it.total.transaction_micros,
    "total_query_time" long = |it| it.total.query_micros,
    "total_wait_time" long = |it| it.total.wait_micros,
    "total_client_parse_count" long = |_it| 0,
    "total_server_parse_count" long = |_it| 0,
    "total_bind_count" long = |_it| 0,
    "avg_server_assignment_count" long = |it| it.average.assignments,
    "avg_xact_count" long = |it| it.average.transactions,
    "avg_query_count" long = |it| it.average.queries,
    "avg_recv" long = |it| it.average.received,
    "avg_sent" long = |it| it.average.sent,
    "avg_xact_time" long = |it| it.average.transaction_micros,
    "avg_query_time" long = |it| it.average.query_micros,
    "avg_wait_time" long = |it| it.average.wait_micros,
    "avg_client_parse_count" long = |_it| 0,
    "avg_server_parse_count" long = |_it| 0,
    "avg_bind_count" long = |_it| 0,
}
