//! SHOW LISTS. PgBouncer's pools of peers and DNS zones do not exist here.

use crate::admin::table::{ConsoleTable, columns, table};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!("LISTS", "how many there are of everything", lines);

struct ListLine {
    list: &'static str,
    items: usize,
}

columns! { ListLine;
    "list" text = |it| it.list,
    "items" int = |it| it.items,
}

fn lines(proxy: &Proxy) -> Vec<ListLine> {
    let config = proxy.config.load();
    let clients = proxy.clients.len();
    let connections = proxy.places.connections();
    let backends = proxy.pools.core().total();
    [
        ("databases", config.databases.len()),
        ("users", config.roles.len()),
        ("peers", config.fleet.peers.len()),
        ("pools", proxy.directory.all_pools().len()),
        ("peer_pools", 0),
        ("free_clients", (config.listen.clients_max as usize).saturating_sub(connections)),
        ("used_clients", clients),
        ("login_clients", connections.saturating_sub(clients)),
        ("free_servers", backends.idle as usize),
        ("used_servers", (backends.open() - backends.idle) as usize),
        ("dns_names", proxy.pools.opener().names().all().len()),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ]
    .map(|(list, items)| ListLine { list, items })
    .into()
}
