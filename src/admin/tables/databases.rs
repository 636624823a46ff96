//! SHOW DATABASES.

use std::collections::HashMap;

use super::format::clients_by;
use crate::admin::table::{ConsoleTable, columns, table};
use crate::config::Database;
use crate::pool::core::DatabaseView;
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!("DATABASES", "every database, configured or asked for", lines);

struct DatabaseLine {
    name: String,
    config: Database,
    /// `None`: nobody has asked for it so far.
    view: Option<DatabaseView>,
    clients: u32,
    is_disabled: bool,
}

columns! { DatabaseLine;
    "name" text = |it| &it.name,
    "host" text = |it| it.config.hosts.join(","),
    "port" int = |it| it.config.port,
    "database" text = |it| it.config.dbname.as_ref().unwrap_or(&it.name),
    "force_user" text = |it| it.config.login_as.as_ref(),
    "pool_size" int = |it| it.config.pool.size,
    "min_pool_size" int = |it| it.config.pool.idle_min,
    "reserve_pool_size" int = |_it| 0,
    "server_lifetime" int = |it| it.config.pool.lifetime.as_secs(),
    "pool_mode" text = |it| it.config.pool.mode.word(),
    "load_balance_hosts" text = |it| (it.config.hosts.len() > 1).then_some("disable"),
    "max_connections" int = |it| it.config.backends_max.unwrap_or(0),
    "current_connections" int = |it| it.view.as_ref().map_or(0, |view| view.counts.open()),
    "max_client_connections" int = |it| it.config.clients_max.unwrap_or(0),
    "current_client_connections" int = |it| it.clients,
    "paused" int = |it| it.view.as_ref().is_some_and(|view| view.is_paused),
    "disabled" int = |it| it.is_disabled,
}

fn lines(proxy: &Proxy) -> Vec<DatabaseLine> {
    let config = proxy.config.load();
    let known = proxy.directory.all_databases();
    let ids: HashMap<&str, _> = known.iter().map(|(name, id)| (&**name, *id)).collect();
    let mut names: Vec<&str> = config.databases.keys().map(String::as_str).chain(ids.keys().copied()).collect();
    names.sort_unstable();
    names.dedup();
    let clients = clients_by(proxy, |entry| &entry.database);
    let line = |name: &str| {
        Some(DatabaseLine {
            name: name.to_owned(),
            config: config.database(name)?.clone(),
            view: ids.get(name).and_then(|id| proxy.pools.core().database(*id)),
            clients: clients.get(name).copied().unwrap_or(0),
            is_disabled: proxy.directory.is_disabled(name),
        })
    };
    names.into_iter().filter_map(line).collect()
}
