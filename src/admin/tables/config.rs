//! SHOW CONFIG: our settings, and under PgBouncer's names those that its checks and exporters ask for.

use std::collections::BTreeMap;
use std::time::Duration;

use super::format::time;
use crate::admin::in_force::{self, OrderInForce};
use crate::admin::table::{ConsoleTable, columns, table};
use crate::config::{self, Config, ConfigSetting, ListenAddr, ResetWhen, RoleLimits};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable = table!("CONFIG", "every setting in force, some by PgBouncer's name, too", lines);

struct SettingLine {
    key: String,
    value: String,
    default: Option<String>,
    needs_restart: bool,
}

columns! { SettingLine;
    "key" text = |it| &it.key,
    "value" text = |it| &it.value,
    "default" text = |it| it.default.as_ref(),
    "changeable" text = |it| if it.needs_restart { "no" } else { "yes" },
}

fn lines(proxy: &Proxy) -> Vec<SettingLine> {
    let config = proxy.config.load();
    let defaults = config::defaults(&config);
    let settings = config::entries(&config);
    let mut lines: Vec<SettingLine> = aliases(&config, &settings).collect();
    let mut ordered: BTreeMap<String, String> = in_force::all(proxy).iter().filter_map(ordered).collect();
    let mut own: Vec<SettingLine> = settings
        .into_iter()
        .map(|(key, setting)| {
            let default = defaults.get(&key).map(ConfigSetting::to_string);
            let value = ordered.remove(&key).unwrap_or_else(|| setting.to_string());
            SettingLine { key, value, default, needs_restart: setting.needs_restart }
        })
        .collect();
    // Of roles that the file gives no such key.
    own.extend(ordered.into_iter().map(|(key, value)| SettingLine { key, value, default: None, needs_restart: false }));
    own.sort_by(|a, b| a.key.cmp(&b.key));
    lines.extend(own);
    lines
}

/// The key whose value an order has replaced, and that value with its author and what the file says.
fn ordered(order: &OrderInForce) -> Option<(String, String)> {
    let file = order.file?.map_or_else(|| "nothing".to_owned(), |limit| limit.to_string());
    let limit = order.order.trim_start_matches("LIMIT ");
    let author = match &order.given {
        Some(given) => format!("by {} from {} since {}", given.by, given.from, time(given.at)),
        None => "by nobody that is known".to_owned(),
    };
    let until = order.until.map(|until| format!(", to be reached at {}", time(until))).unwrap_or_default();
    let key = config::key_path(&["roles", order.name(), "transactions_max"]);
    Some((key, format!("{limit} (ordered {author}{until}; the file says {file})")))
}

/// PgBouncer's name, the value as it writes it (times in seconds, 0 for no limit), and our key.
fn aliases(config: &Config, settings: &BTreeMap<String, ConfigSetting>) -> impl Iterator<Item = SettingLine> {
    let seconds = |duration: Duration| duration.as_secs_f64().to_string();
    let number = |is_on: bool| u8::from(is_on).to_string();
    let (listen, databases) = (&config.listen, config.database("*").or_else(|| config.databases.values().next()));
    let pool = databases.map(|database| &database.pool);
    let addresses = listen.addr.iter().filter_map(|addr| match addr {
        ListenAddr::Tcp(addr) => Some(*addr),
        ListenAddr::Unix(_) => None,
    });
    let (hosts, ports): (Vec<_>, Vec<_>) = addresses.map(|addr| (addr.ip().to_string(), addr.port())).unzip();
    let of_listen = [
        ("listen_addr", hosts.join(","), "listen.addr"),
        ("listen_port", ports.first().copied().unwrap_or(0).to_string(), "listen.addr"),
        ("max_client_conn", listen.clients_max.to_string(), "listen.clients_max"),
        ("client_login_timeout", seconds(listen.login_timeout), "listen.login_timeout"),
        ("client_idle_timeout", seconds(listen.idle_timeout), "listen.idle_timeout"),
        ("application_name_add_host", number(listen.application_name_address), "listen.application_name_address"),
        ("so_reuseport", number(listen.reuse_port), "listen.reuse_port"),
        ("log_connections", number(listen.log_logins), "listen.log_logins"),
        // Level debug has them all; check_postgres takes a SHOW CONFIG without this name for something else.
        ("log_pooler_errors", number(false), "listen.log_logins"),
        ("query_wait_notify", seconds(config.admission.notice_after), "admission.notice_after"),
    ];
    let of_pool = pool.map(|pool| {
        [
            ("pool_mode", pool.mode.word().to_owned(), "pool.mode"),
            ("default_pool_size", pool.size.to_string(), "pool.size"),
            ("min_pool_size", pool.idle_min.to_string(), "pool.idle_min"),
            ("reserve_pool_size", "0".to_owned(), "pool.size"),
            ("max_prepared_statements", pool.statements_max.to_string(), "pool.statements_max"),
            ("query_wait_timeout", seconds(pool.wait_timeout), "pool.wait_timeout"),
            ("server_reset_query_always", number(pool.reset == ResetWhen::Always), "pool.reset"),
            ("server_idle_timeout", seconds(pool.idle_timeout), "pool.idle_timeout"),
            ("server_lifetime", seconds(pool.lifetime), "pool.lifetime"),
            ("server_connect_timeout", seconds(pool.connect_timeout), "pool.connect_timeout"),
        ]
    });
    let of_databases = databases.map(|database| {
        let (backends, clients) = (database.backends_max.unwrap_or(0), database.clients_max.unwrap_or(0));
        [
            ("max_db_connections", backends.to_string(), "databases.*.backends_max"),
            ("max_db_client_connections", clients.to_string(), "databases.*.clients_max"),
        ]
    });
    let limits = config.role("*").map(|role| &role.limits);
    let transactions_max = limits.and_then(|limits| limits.admission.transactions_max).unwrap_or(0);
    let clients_max = limits.and_then(|limits| limits.clients_max).unwrap_or(0);
    let timeout = |of: fn(&RoleLimits) -> Option<Duration>| seconds(limits.and_then(of).unwrap_or_default());
    let of_roles = [
        ("query_timeout", timeout(|it| it.timeouts.statement), "roles.*.statement_timeout"),
        (
            "idle_transaction_timeout",
            timeout(|it| it.timeouts.idle_in_transaction),
            "roles.*.idle_in_transaction_timeout",
        ),
        ("transaction_timeout", timeout(|it| it.timeouts.transaction), "roles.*.transaction_timeout"),
        ("max_user_connections", transactions_max.to_string(), "roles.*.transactions_max"),
        ("max_user_client_connections", clients_max.to_string(), "roles.*.clients_max"),
    ];
    let all = of_listen.into_iter().chain(of_pool.into_iter().flatten()).chain(of_databases.into_iter().flatten());
    all.chain(of_roles).map(|(name, value, key)| SettingLine {
        key: name.to_owned(),
        value,
        default: None,
        needs_restart: settings.get(key).is_some_and(|setting| setting.needs_restart),
    })
}
