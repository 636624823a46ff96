//! SHOW READERS: one line for each server of each database that is read from several.

use crate::admin::readers::{self, ReaderFacts};
use crate::admin::table::{ConsoleTable, columns, table};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!(
    "READERS",
    "servers of databases with readers = true: how each is used, its backends, how far it is behind, or why it gets nothing",
    lines,
);

columns! { ReaderFacts;
    "database" text = |it| &*it.database,
    "host" text = |it| &it.host,
    "state" text = |it| it.state().word(),
    "active" long = |it| it.active(),
    "backends" long = |it| it.backends(),
    "leases" long = |it| it.leases(),
    "lag_ms" long = |it| it.lag.and_then(|lag| lag.lag).map(|lag| lag.as_millis()),
    "reason" text = |it| it.reason(),
}

fn lines(proxy: &Proxy) -> Vec<ReaderFacts> {
    readers::all(proxy)
}
