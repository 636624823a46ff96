//! The settings of one (database, role), and of a role over all databases: role over database over `[pool]`.
//!
//! A pool is opened from these settings; after a reload it compares the old with the new ones: another [`Endpoint`]
//! replaces its backends, everything else takes effect on those it has.

use std::time::Duration;

use super::{
    Admission, AdmissionMode, BackendTls, Config, Database, Jitter, LimitMode, NotifyMode, Override, PasswordSource,
    PoolKeys, Priority, Role, RoleAdmission, RoleRate, ServerRole, Timeouts, WatchLogin,
};

/// The settings of one pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSettings {
    /// Where its backends go.
    pub endpoint: Endpoint,
    /// Mode, size, queue and lifetimes.
    pub pool: PoolKeys,
    /// Backends over all roles of this database.
    pub backends_max: Option<u32>,
    /// Injected into each backend's StartupMessage.
    pub timeouts: Timeouts,
    /// Limits of a client's own SET of one of them.
    pub set_override: Override,
    /// Its part of backends that are short.
    pub share: Share,
    /// Functions may hand their notifications to pgweir.
    pub intercepts: bool,
    /// Statements that did not run are sent again.
    pub replays: bool,
}

/// How backends are divided where several roles want those of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Before or after others.
    pub priority: Priority,
    /// Relative to others of the same priority.
    pub weight: u32,
    /// Backends that no other role may have.
    pub reserved: u32,
}

impl Default for Share {
    fn default() -> Self {
        Self { priority: Priority::Interactive, weight: 1, reserved: 0 }
    }
}

/// Where a pool's backends go, and as whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Hosts in the order to try.
    pub hosts: Vec<String>,
    /// Port of every host.
    pub port: u16,
    /// The database's name at the server.
    pub dbname: String,
    /// Which server of a cluster is wanted.
    pub server_role: ServerRole,
    /// TLS towards the server.
    pub tls: BackendTls,
    /// The role to log in as.
    pub role: String,
    /// Its password, where the file says one; `None`: what the client's login gave.
    pub password: Option<PasswordSource>,
}

impl Endpoint {
    /// Whether both lead to the same database of the same servers.
    pub fn is_same_database(&self, other: &Self) -> bool {
        (&self.hosts, self.port, &self.dbname) == (&other.hosts, other.port, &other.dbname)
    }
}

/// The settings of a role queue: how the transactions of one role are let in, over all databases.
#[derive(Debug, Clone, PartialEq)]
pub struct RoleQueueSettings {
    /// Whether bursts are broken up; if not, `jitter` is off and `adaptive` false already.
    pub mode: AdmissionMode,
    /// It holds nobody back, and counts what the other rules would do.
    pub observes: bool,
    /// Transactions at once; zero lets nobody start, `None`: the pools bound it.
    pub transactions_max: Option<u32>,
    /// Backends of each database that are never lent to another role queue.
    pub transactions_min: u32,
    /// Waiting clients; `None`: `pool.waiters_max` bounds them.
    pub waiters_max: Option<u32>,
    /// How long the limit takes to grow from `initial` after a start, a recovery or RAMP.
    pub ramp: Option<Duration>,
    /// Starts per second.
    pub rate: Option<RoleRate>,
    /// Finds the effective limit by response time instead of starting slowly.
    pub adaptive: bool,
    /// Where the effective limit and a ramp begin.
    pub initial: u32,
    /// Below half of `initial` for this long, it starts slowly again.
    pub slow_start_idle: Duration,
    /// How waiting transactions are mixed.
    pub jitter: Jitter,
    /// Nobody is overtaken by one who came later than this.
    pub jitter_window: Duration,
    /// Longest delay of [`Jitter::Spread`].
    pub spread_max: Duration,
    /// A client that waits longer gets a NOTICE; zero: never.
    pub notice_after: Duration,
}

impl RoleQueueSettings {
    pub(super) fn of(admission: &Admission, role: &RoleAdmission) -> Self {
        let is_on = admission.mode == AdmissionMode::On;
        Self {
            mode: admission.mode,
            observes: role.limit_mode == LimitMode::Observe,
            transactions_max: role.transactions_max,
            transactions_min: role.transactions_min,
            waiters_max: role.waiters_max,
            ramp: role.ramp.map(|ramp| ramp.over),
            rate: role.rate.rate(),
            adaptive: role.adaptive && is_on,
            initial: admission.initial,
            slow_start_idle: admission.slow_start_idle,
            jitter: if is_on { role.jitter.unwrap_or(admission.jitter) } else { Jitter::Off },
            jitter_window: admission.jitter_window,
            spread_max: role.spread_max.unwrap_or(admission.spread_max),
            notice_after: admission.notice_after,
        }
    }
}

impl RoleQueueSettings {
    /// The same with nothing but its limit and rate.
    pub fn limits_only(self) -> Self {
        Self { mode: AdmissionMode::Off, jitter: Jitter::Off, adaptive: false, ..self }
    }

    /// What of it holds while it only observes.
    pub fn let_go(&self) -> Self {
        let Self { transactions_min, notice_after, .. } = *self;
        Self { transactions_min, notice_after, ..Self::open() }
    }

    /// Those of a queue that keeps nobody back.
    pub fn open() -> Self {
        Self::default().limits_only()
    }
}

impl Default for RoleQueueSettings {
    fn default() -> Self {
        Self::of(&Admission::default(), &RoleAdmission::default())
    }
}

impl Config {
    /// The database a client asks for by this name.
    pub fn database(&self, name: &str) -> Option<&Database> {
        self.databases.get(name).or_else(|| self.databases.get("*"))
    }

    /// The login that watches the database a client asks for by this name.
    pub fn watch_login(&self, name: &str) -> Option<&WatchLogin> {
        self.database(name)?.watch.as_ref().or(self.watch.login.as_ref())
    }

    /// Some database is watched.
    pub fn is_anything_watched(&self) -> bool {
        self.databases.values().any(|database| database.watch.is_some()) || self.watch.login.is_some()
    }

    /// The role a client names as `user`.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name).or_else(|| self.roles.get("*"))
    }
}

/// The settings of the pool of this database and role; `None` if one of them is not served.
pub fn pool_settings(config: &Config, database_name: &str, role_name: &str) -> Option<PoolSettings> {
    let database = config.database(database_name)?;
    let role = config.role(role_name)?;
    Some(PoolSettings {
        endpoint: Endpoint {
            hosts: database.hosts.clone(),
            port: database.port,
            dbname: database.dbname.clone().unwrap_or_else(|| database_name.to_owned()),
            server_role: database.wanted_role(),
            tls: database.tls.clone(),
            role: database.login_as.clone().or_else(|| role.login_as.clone()).unwrap_or_else(|| role_name.to_owned()),
            password: database.password.clone().or_else(|| role.backend_password.clone()),
        },
        pool: PoolKeys {
            mode: role.limits.mode.unwrap_or(database.pool.mode),
            reset: role.limits.reset.unwrap_or(database.pool.reset),
            size: role.limits.size.unwrap_or(database.pool.size),
            ..database.pool.clone()
        },
        backends_max: database.backends_max,
        timeouts: role.limits.timeouts,
        set_override: role.limits.set_override,
        share: Share {
            priority: role.limits.admission.priority,
            weight: role.limits.admission.weight,
            reserved: role.limits.admission.transactions_min,
        },
        intercepts: config.notify.mode == NotifyMode::Intercept,
        replays: database.replays(),
    })
}

/// The settings of a pool that pgweir opens for itself as this role; the keys of `[roles]` are for clients only.
pub fn own_settings(name: &str, database: &Database, role: &str, password: Option<&PasswordSource>) -> PoolSettings {
    PoolSettings {
        endpoint: Endpoint {
            hosts: database.hosts.clone(),
            port: database.port,
            dbname: database.dbname.clone().unwrap_or_else(|| name.to_owned()),
            server_role: database.wanted_role(),
            tls: database.tls.clone(),
            role: role.to_owned(),
            password: password.cloned(),
        },
        pool: database.pool.clone(),
        backends_max: database.backends_max,
        timeouts: Timeouts::default(),
        set_override: Override::Any,
        share: Share::default(),
        intercepts: false,
        replays: false,
    }
}

/// The settings of the role queue of this role; `None` if it is not served.
pub fn role_queue_settings(config: &Config, role_name: &str) -> Option<RoleQueueSettings> {
    Some(RoleQueueSettings::of(&config.admission, &config.role(role_name)?.limits.admission))
}

/// The settings of a lane with this limit and length of its queue: that of a role with nothing but a limit.
pub fn lane_settings(config: &Config, transactions_max: Option<u32>, waiters_max: Option<u32>) -> RoleQueueSettings {
    let limits = RoleAdmission { transactions_max, waiters_max, ..RoleAdmission::default() };
    RoleQueueSettings::of(&config.admission, &limits)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{PoolMode, parse};

    fn config() -> Config {
        let text = r#"
            [pool]
            size = 5
            mode = "session"
            [databases.app]
            host = "app.example"
            size = 10
            backends_max = 30
            [databases."*"]
            host = "other.example"
            [roles.web]
            password = "w"
            login_as = "app_rw"
            backend_password = "b"
            mode = "transaction"
            [roles."*"]
            auth = "passthrough"
            size = 2
            statement_timeout = "5s"
        "#;
        parse(text, Path::new("proxy.toml"), &|_| None).expect("a valid file")
    }

    #[test]
    fn role_overrides_database_overrides_pool() {
        let settings = |database, role| pool_settings(&config(), database, role).expect("served").pool;
        assert_eq!(settings("app", "web").mode, PoolMode::Transaction);
        assert_eq!(settings("app", "eve").mode, PoolMode::Session);
        assert_eq!(settings("app", "eve").size, 2);
        let mut config = config();
        config.roles.get_mut("web").expect("web").limits.size = None;
        let size = |database| pool_settings(&config, database, "web").expect("served").pool.size;
        assert_eq!(size("app"), 10);
        assert_eq!(size("else"), 5);
    }

    #[test]
    fn named_role_takes_limits_but_no_identity_from_the_star() {
        let web = pool_settings(&config(), "app", "web").expect("served");
        assert_eq!(web.timeouts.statement, Some(Duration::from_secs(5)));
        assert_eq!(web.endpoint.role, "app_rw");
        let eve = pool_settings(&config(), "app", "eve").expect("served");
        assert_eq!(eve.endpoint.role, "eve");
        assert_eq!(eve.endpoint.password, None);
    }

    #[test]
    fn role_queue_takes_from_the_role_what_it_says_and_the_rest_from_admission() {
        let text = r#"
            [admission]
            jitter = "spread"
            spread_max = "3s"
            initial = 4
            [databases.app]
            host = "app.example"
            [roles.web]
            password = "w"
            jitter = "soft"
            [roles."*"]
            auth = "passthrough"
            spread_max = "2s"
            transactions_max = 40
            adaptive = true
        "#;
        let mut config = parse(text, Path::new("proxy.toml"), &|_| None).expect("a valid file");
        let web = role_queue_settings(&config, "web").expect("served");
        assert_eq!((web.jitter, web.spread_max, web.initial), (Jitter::Soft, Duration::from_secs(2), 4));
        assert_eq!((web.transactions_max, web.adaptive), (Some(40), true));
        assert_eq!(role_queue_settings(&config, "eve").expect("served").jitter, Jitter::Spread);
        config.admission.mode = AdmissionMode::Off;
        let web = role_queue_settings(&config, "web").expect("served");
        assert_eq!((web.transactions_max, web.adaptive, web.jitter), (Some(40), false, Jitter::Off));
    }

    #[test]
    fn star_serves_the_name_asked_for() {
        let other = pool_settings(&config(), "other", "web").expect("served");
        assert_eq!(other.endpoint.dbname, "other");
        assert_eq!(other.endpoint.hosts, ["other.example"]);
        assert_eq!(other.backends_max, None);
    }

    #[test]
    fn what_is_not_listed_is_not_served_without_a_star() {
        let mut config = config();
        config.databases.remove("*");
        config.roles.remove("*");
        assert!(pool_settings(&config, "app", "web").is_some());
        assert!(pool_settings(&config, "other", "web").is_none());
        assert!(pool_settings(&config, "app", "eve").is_none());
    }
}
