//! SHOW USERS.

use std::collections::HashMap;
use std::sync::Arc;

use super::format::clients_by;
use crate::admin::table::{ConsoleTable, columns, table};
use crate::config::PoolMode;
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!("USERS", "every role, configured or connected", lines);

struct UserLine {
    name: String,
    size: Option<u32>,
    mode: Option<&'static str>,
    backends: u32,
    clients: u32,
    clients_max: u32,
    transactions_max: u32,
}

columns! { UserLine;
    "name" text = |it| &it.name,
    "pool_size" text = |it| it.size.map(|size| size.to_string()),
    "reserve_pool_size" text = |_it| None::<&str>,
    "pool_mode" text = |it| it.mode,
    "max_user_connections" int = |it| it.transactions_max,
    "current_connections" int = |it| it.backends,
    "max_user_client_connections" int = |it| it.clients_max,
    "current_client_connections" int = |it| it.clients,
}

fn lines(proxy: &Proxy) -> Vec<UserLine> {
    let config = proxy.config.load();
    let clients = clients_by(proxy, |entry| &entry.role);
    let mut backends: HashMap<Arc<str>, u32> = HashMap::new();
    for pool in proxy.directory.all_pools() {
        if let Some(view) = proxy.pools.core().pool(pool.id) {
            *backends.entry(Arc::clone(&pool.name.role)).or_default() += view.counts.open();
        }
    }
    let mut names: Vec<&str> = config.roles.keys().map(String::as_str).collect();
    names.extend(clients.keys().chain(backends.keys()).map(|name| &**name));
    names.sort_unstable();
    names.dedup();
    let line = |name: &str| {
        let role = config.role(name);
        UserLine {
            name: name.to_owned(),
            size: role.and_then(|role| role.limits.size),
            mode: role.and_then(|role| role.limits.mode).map(PoolMode::word),
            backends: backends.get(name).copied().unwrap_or(0),
            clients: clients.get(name).copied().unwrap_or(0),
            clients_max: role.and_then(|role| role.limits.clients_max).unwrap_or(0),
            transactions_max: role.and_then(|role| role.limits.admission.transactions_max).unwrap_or(0),
        }
    };
    names.into_iter().map(line).collect()
}
