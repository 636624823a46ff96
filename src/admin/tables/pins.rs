//! SHOW PINS.

use std::sync::Arc;

use crate::admin::table::{ConsoleTable, columns, table};
use crate::clients::{Activity, ClientEntry};
use crate::proxy::Proxy;
use crate::session::pins;

pub(super) const TABLE: ConsoleTable =
    table!("PINS", "clients that keep their backend between transactions, and why", lines);

struct PinLine {
    client: Arc<ClientEntry>,
    backend: i32,
    reasons: String,
}

columns! { PinLine;
    "database" text = |pin| &*pin.client.database,
    "user" text = |pin| &*pin.client.role,
    "id" int = |pin| pin.client.pid,
    "link" int = |pin| pin.backend,
    "reasons" text = |pin| &pin.reasons,
}

fn lines(proxy: &Proxy) -> Vec<PinLine> {
    let line = |client: Arc<ClientEntry>| {
        let reasons: Vec<_> = pins::names(client.pins()).collect();
        let Activity::Active(target) = client.activity() else { return None };
        let backend = target.key.as_ref().map_or(0, |key| key.0);
        (!reasons.is_empty()).then(|| PinLine { client, backend, reasons: reasons.join(", ") })
    };
    proxy.clients.all().into_iter().filter_map(line).collect()
}
