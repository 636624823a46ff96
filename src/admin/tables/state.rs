//! SHOW STATE.

use crate::admin::table::{ConsoleTable, columns, table};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!("STATE", "whether everything is paused", lines);

struct StateLine {
    key: &'static str,
    is: bool,
}

columns! { StateLine;
    "key" text = |it| it.key,
    "value" text = |it| if it.is { "yes" } else { "no" },
}

fn lines(proxy: &Proxy) -> Vec<StateLine> {
    let is_paused = proxy.directory.is_paused();
    [("active", !is_paused), ("paused", is_paused), ("suspended", false)].map(|(key, is)| StateLine { key, is }).into()
}
