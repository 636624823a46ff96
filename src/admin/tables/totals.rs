//! SHOW TOTALS: a number in each row. It calls them neither as SHOW STATS nor as SHOW STATS_TOTALS does.

use super::counted::{StatsNumbers, of_all};
use crate::admin::table::{ConsoleTable, columns, table};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!("TOTALS", "STATS over all databases, a number in each row", lines);

struct TotalLine {
    name: String,
    value: u128,
}

columns! { TotalLine;
    "name" text = |it| &it.name,
    "value" long = |it| it.value,
}

fn lines(proxy: &Proxy) -> Vec<TotalLine> {
    let (total, average) = of_all(proxy);
    [("total", total), ("avg", average)].into_iter().flat_map(|(prefix, numbers)| named(prefix, &numbers)).collect()
}

fn named(prefix: &str, numbers: &StatsNumbers) -> [TotalLine; 11] {
    [
        ("server_assignment_count", numbers.assignments),
        ("xact_count", numbers.transactions),
        ("query_count", numbers.queries),
        ("client_bytes", numbers.received),
        ("server_bytes", numbers.sent),
        ("xact_time", numbers.transaction_micros.into()),
        ("query_time", numbers.query_micros.into()),
        ("wait_time", numbers.wait_micros.into()),
        ("ps_client_parse_count", 0),
        ("ps_server_parse_count", 0),
        ("ps_bind_count", 0),
    ]
    .map(|(name, value)| TotalLine { name: format!("{prefix}_{name}"), value })
}
