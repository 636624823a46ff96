//! SHOW DNS_ZONES. The system looks names up, one by one, so there are no zones: the table is empty, for programs
//! that ask.

use crate::admin::table::{ConsoleTable, columns, table};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable =
    table!("DNS_ZONES", "PgBouncer's zones; here names are looked up one by one: SHOW DNS_HOSTS", lines);

struct ZoneLine {
    zone: String,
    serial: u32,
    count: u32,
}

columns! { ZoneLine;
    "zonename" text = |it| &it.zone,
    "serial" long = |it| it.serial,
    "count" int = |it| it.count,
}

fn lines(_: &Proxy) -> Vec<ZoneLine> {
    Vec::new()
}
