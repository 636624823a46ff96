//! A configuration as rows of key path and value, for `SHOW CONFIG` and to tell what a reload changed.
//!
//! Structs are taken apart field by field, so a new key cannot be forgotten here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::parse::parse;
use super::raw::join;
use super::value::{duration_text, rate_text, size_text};
use super::{
    Admin, Admission, Auth, AuthQuery, BackendTls, ClientTls, Config, Database, Listen, ListenAddr, Notify, Pool, Rate,
    Role, RoleAdmission, Secret, ServerIdentity, Timeouts, Watch, WatchLogin, Word,
};

/// A value to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// As the file would say it, without quotes.
    Plain(String),
    /// Shows as `***`, compares by what it is.
    Secret(Secret),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => f.write_str(text),
            Self::Secret(secret) => fmt::Debug::fmt(secret, f),
        }
    }
}

/// Every setting in force by its key path, such as `roles.web.statement_timeout`; what is unset is absent.
pub fn entries(config: &Config) -> BTreeMap<String, Value> {
    let Config { listen, admin, backends_total_max, databases, roles, admission, notify, watch, files: _ } = config;
    let mut rows = Rows::default();
    rows.listen(listen);
    rows.admin(admin);
    rows.maybe("pool", "backends_total_max", backends_total_max.as_ref());
    for (name, database) in databases {
        rows.database(&join("databases", name), database);
    }
    for (name, role) in roles {
        rows.role(&join("roles", name), role);
    }
    rows.admission(admission);
    rows.notify(notify);
    rows.watch(watch);
    rows.0
}

/// As little as a file can say. Keys that others need are there, so that those show their defaults.
const LEAST: &str = r#"
    [databases."*"]
    host = "127.0.0.1"
    auth_query = { role = "lookup" }
    [roles."*"]
    auth = "passthrough"
    rate = "1/s"
"#;

/// How the paths end of what [`LEAST`] says.
const SAID: [&str; 4] = [".host", ".auth_query.role", ".auth", ".rate"];

/// The default of every setting that has one, for the databases and roles that `config` names.
pub fn defaults(config: &Config) -> BTreeMap<String, Value> {
    let least = parse(LEAST, Path::new("proxy.toml"), &|_| None).expect("a test reads it");
    let (database, role) = (&least.databases["*"], &least.roles["*"]);
    let databases = config.databases.keys().map(|name| (name.clone(), database.clone())).collect();
    let roles = config.roles.keys().map(|name| (name.clone(), role.clone())).collect();
    let mut defaults = entries(&Config { databases, roles, ..least.clone() });
    defaults.retain(|key, _| !SAID.iter().any(|said| key.ends_with(said)));
    defaults
}

#[derive(Default)]
struct Rows(BTreeMap<String, Value>);

impl Rows {
    fn listen(&mut self, listen: &Listen) {
        let Listen {
            addr,
            reuse_port,
            clients_max,
            login_timeout,
            idle_timeout,
            workers,
            linger,
            shutdown_timeout,
            tls,
        } = listen;
        let addr: Vec<String> = addr.iter().map(ListenAddr::to_string).collect();
        self.plain("listen", "addr", addr.join(", "));
        self.plain("listen", "reuse_port", reuse_port);
        self.plain("listen", "clients_max", clients_max);
        self.duration("listen", "login_timeout", *login_timeout);
        self.duration("listen", "idle_timeout", *idle_timeout);
        self.plain("listen", "workers", workers);
        self.duration("listen", "linger", *linger);
        self.duration("listen", "shutdown_timeout", *shutdown_timeout);
        let (mode, identity, client_ca) = match tls {
            ClientTls::Disable => ("disable", None, None),
            ClientTls::Allow(identity) => ("allow", Some(identity), None),
            ClientTls::Require(identity) => ("require", Some(identity), None),
            ClientTls::VerifyClient(identity, ca) => ("verify-client", Some(identity), Some(ca)),
        };
        self.plain("listen.tls", "mode", mode);
        self.identity("listen.tls", identity);
        self.path("listen.tls", "client_ca", client_ca.map(AsRef::as_ref));
    }

    fn admin(&mut self, admin: &Admin) {
        let Admin { addr, roles, stats_roles, token, hosts } = admin;
        let addr = addr.map_or("off".to_owned(), |addr| addr.to_string());
        self.plain("admin", "addr", addr);
        self.plain("admin", "roles", roles.join(", "));
        self.plain("admin", "stats_roles", stats_roles.join(", "));
        self.secret("admin", "token", token.as_ref());
        self.plain("admin", "hosts", hosts.join(", "));
    }

    fn database(&mut self, at: &str, database: &Database) {
        let Database { hosts, port, dbname, backends_max, standing, tls, auth_query, watch, pool } = database;
        self.plain(at, "host", hosts.join(", "));
        self.plain(at, "port", port);
        self.maybe(at, "dbname", dbname.as_ref());
        self.maybe(at, "backends_max", backends_max.as_ref());
        self.plain(at, "standing", standing.word());
        let BackendTls { mode, ca, identity } = tls;
        let tls_at = join(at, "tls");
        self.plain(&tls_at, "mode", mode.word());
        self.path(&tls_at, "ca", ca.as_deref());
        self.identity(&tls_at, identity.as_ref());
        if let Some(AuthQuery { role, password, query }) = auth_query {
            let at = join(at, "auth_query");
            self.plain(&at, "role", role);
            self.secret(&at, "password", password.as_ref());
            self.plain(&at, "query", query);
        }
        self.watch_login(&join(at, "watch"), watch.as_ref());
        self.pool(at, pool);
    }

    fn pool(&mut self, at: &str, pool: &Pool) {
        let Pool {
            mode,
            size,
            wait_timeout,
            waiters_max,
            statements_max,
            idle_timeout,
            lifetime,
            connect_timeout,
            cancel_timeout,
        } = pool;
        self.plain(at, "mode", mode.word());
        self.plain(at, "size", size);
        self.duration(at, "wait_timeout", *wait_timeout);
        self.plain(at, "waiters_max", waiters_max);
        self.plain(at, "statements_max", statements_max);
        self.duration(at, "idle_timeout", *idle_timeout);
        self.duration(at, "lifetime", *lifetime);
        self.duration(at, "connect_timeout", *connect_timeout);
        self.duration(at, "cancel_timeout", *cancel_timeout);
    }

    fn role(&mut self, at: &str, role: &Role) {
        let Role { auth, login_as, backend_password, mode, size, clients_max, timeouts, set_override, admission } =
            role;
        let (method, password) = match auth {
            Auth::Password { secret, md5: false } => ("password", Some(secret)),
            Auth::Password { secret, md5: true } => ("md5", Some(secret)),
            Auth::AuthQuery => ("auth-query", None),
            Auth::Passthrough => ("passthrough", None),
            Auth::Trust => ("trust", None),
            Auth::Certificate => ("certificate", None),
        };
        self.plain(at, "auth", method);
        self.secret(at, "password", password);
        self.maybe(at, "login_as", login_as.as_ref());
        self.secret(at, "backend_password", backend_password.as_ref());
        self.maybe(at, "mode", mode.map(Word::word).as_ref());
        self.maybe(at, "size", size.as_ref());
        self.maybe(at, "clients_max", clients_max.as_ref());
        let Timeouts { statement, lock, idle_in_transaction, transaction } = timeouts;
        for (key, timeout) in [
            ("statement_timeout", statement),
            ("lock_timeout", lock),
            ("idle_in_transaction_timeout", idle_in_transaction),
            ("transaction_timeout", transaction),
        ] {
            self.maybe(at, key, timeout.map(duration_text).as_ref());
        }
        self.plain(at, "override", set_override.word());
        self.role_admission(at, admission);
    }

    fn role_admission(&mut self, at: &str, admission: &RoleAdmission) {
        let RoleAdmission {
            transactions_max,
            transactions_min,
            waiters_max,
            priority,
            weight,
            ramp,
            rate,
            adaptive,
            jitter,
            spread_max,
        } = admission;
        self.maybe(at, "transactions_max", transactions_max.as_ref());
        self.plain(at, "transactions_min", transactions_min);
        self.maybe(at, "waiters_max", waiters_max.as_ref());
        self.plain(at, "class", priority.word());
        self.plain(at, "weight", weight);
        self.maybe(&join(at, "ramp"), "over", ramp.map(duration_text).as_ref());
        if let Some(Rate { per_second, burst, delay_max, when }) = rate {
            self.plain(at, "rate", rate_text(Some(*per_second)));
            self.plain(at, "rate_burst", burst);
            self.duration(at, "rate_delay_max", *delay_max);
            self.plain(at, "rate_when", when.word());
        }
        self.plain(at, "adaptive", adaptive);
        self.maybe(at, "jitter", jitter.map(Word::word).as_ref());
        self.maybe(at, "spread_max", spread_max.map(duration_text).as_ref());
    }

    fn admission(&mut self, admission: &Admission) {
        let Admission {
            mode,
            initial,
            slow_start_idle,
            jitter,
            jitter_window,
            spread_max,
            notice_after,
            login_rate,
            login_burst,
            login_delay_max,
            login_concurrency,
            login_rate_per_address,
            cancel_rate_per_address,
            zombie_max,
        } = admission;
        let at = "admission";
        self.plain(at, "mode", mode.word());
        self.plain(at, "initial", initial);
        self.duration(at, "slow_start_idle", *slow_start_idle);
        self.plain(at, "jitter", jitter.word());
        self.duration(at, "jitter_window", *jitter_window);
        self.duration(at, "spread_max", *spread_max);
        self.duration(at, "notice_after", *notice_after);
        self.plain(at, "login_rate", rate_text(*login_rate));
        self.plain(at, "login_burst", login_burst);
        self.duration(at, "login_delay_max", *login_delay_max);
        self.plain(at, "login_concurrency", login_concurrency);
        self.plain(at, "login_rate_per_address", rate_text(*login_rate_per_address));
        self.plain(at, "cancel_rate_per_address", rate_text(*cancel_rate_per_address));
        self.duration(at, "zombie_max", *zombie_max);
    }

    fn notify(&mut self, notify: &Notify) {
        let Notify { mode, bus, redis_url, stream_max, listener_queue, bus_queue, when_down, on_gap } = notify;
        let at = "notify";
        self.plain(at, "mode", mode.word());
        self.plain(at, "bus", bus.word());
        self.secret(at, "redis_url", redis_url.as_ref());
        self.plain(at, "stream_max", stream_max);
        self.plain(at, "listener_queue", size_text(*listener_queue));
        self.plain(at, "bus_queue", bus_queue);
        self.plain(at, "when_down", when_down.word());
        self.plain(at, "on_gap", on_gap.word());
    }

    fn watch(&mut self, watch: &Watch) {
        let Watch {
            login,
            convoy_waiters,
            blocked,
            idle_in_transaction,
            long_statement,
            horizon_age,
            horizon_transactions,
            dead_tuples,
            outside_max,
            on_convoy,
            on_idle_holder,
        } = watch;
        let at = "watch";
        self.watch_login(at, login.as_ref());
        self.plain(at, "convoy_waiters", convoy_waiters);
        self.duration(at, "blocked", *blocked);
        self.duration(at, "idle_in_transaction", *idle_in_transaction);
        self.duration(at, "long_statement", *long_statement);
        self.duration(at, "horizon_age", *horizon_age);
        self.plain(at, "horizon_transactions", horizon_transactions);
        self.plain(at, "dead_tuples", dead_tuples);
        self.maybe(at, "outside_max", outside_max.as_ref());
        self.plain(at, "on_convoy", on_convoy.word());
        self.plain(at, "on_idle_holder", on_idle_holder.word());
    }

    fn watch_login(&mut self, at: &str, login: Option<&WatchLogin>) {
        if let Some(WatchLogin { role, password }) = login {
            self.plain(at, "role", role);
            self.secret(at, "password", password.as_ref());
        }
    }

    fn identity(&mut self, at: &str, identity: Option<&ServerIdentity>) {
        self.path(at, "cert", identity.map(|identity| identity.cert.as_ref()));
        self.path(at, "key", identity.map(|identity| identity.key.as_ref()));
    }

    fn path(&mut self, at: &str, key: &str, path: Option<&Path>) {
        self.maybe(at, key, path.map(Path::display).as_ref());
    }

    fn duration(&mut self, at: &str, key: &str, duration: Duration) {
        self.plain(at, key, duration_text(duration));
    }

    fn maybe(&mut self, at: &str, key: &str, value: Option<&impl fmt::Display>) {
        if let Some(value) = value {
            self.plain(at, key, value);
        }
    }

    fn secret(&mut self, at: &str, key: &str, secret: Option<&Secret>) {
        if let Some(secret) = secret {
            self.0.insert(join(at, key), Value::Secret(secret.clone()));
        }
    }

    fn plain(&mut self, at: &str, key: &str, value: impl fmt::Display) {
        self.0.insert(join(at, key), Value::Plain(value.to_string()));
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
