//! SHOW LISTENERS.

use std::collections::HashMap;
use std::sync::Arc;

use super::format::{address, time};
use crate::admin::table::{ConsoleTable, columns, table};
use crate::clients::ClientEntry;
use crate::notify::exchange::{Exchange, ListenerView};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable =
    table!("LISTENERS", "clients that listen, and what waits for each of them", lines);

struct ListenerLine {
    database: Arc<str>,
    listener: ListenerView,
    client: Arc<ClientEntry>,
}

columns! { ListenerLine;
    "database" text = |it| &*it.database,
    "channel" text = |it| String::from_utf8_lossy(&it.listener.channel).into_owned(),
    "pid" int = |it| it.listener.pid,
    "user" text = |it| &*it.client.role,
    "addr" text = |it| address(&it.client.addr).0,
    "queued_bytes" long = |it| it.listener.queued_bytes,
    "since" text = |it| time(it.listener.since),
}

fn lines(proxy: &Proxy) -> Vec<ListenerLine> {
    let clients: HashMap<_, _> = proxy.clients.all().into_iter().map(|entry| (entry.pid, entry)).collect();
    let of = |exchange: Arc<Exchange>| {
        let line = |listener: ListenerView| {
            let client = Arc::clone(clients.get(&listener.pid)?);
            Some(ListenerLine { database: Arc::clone(&exchange.database), listener, client })
        };
        exchange.listeners().into_iter().filter_map(line).collect::<Vec<_>>()
    };
    proxy.hub.all().into_iter().flat_map(of).collect()
}
