//! What holds for one (database, role): role over database over `[pool]`.
//!
//! A pool is opened from these settings; after a reload it compares the old with the new ones: another [`Endpoint`]
//! replaces its backends, everything else takes effect on those it has.

use super::{BackendTls, Config, Database, Pool, Role, Secret, Standing, Timeouts};

/// The settings of one pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSettings {
    /// Where its backends go.
    pub endpoint: Endpoint,
    /// Mode, size, line and lifetimes.
    pub pool: Pool,
    /// Backends over all roles of this database.
    pub backends_max: Option<u32>,
    /// Injected into each backend's StartupMessage.
    pub timeouts: Timeouts,
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
    /// What the server must be.
    pub standing: Standing,
    /// TLS towards the server.
    pub tls: BackendTls,
    /// The role to log in as.
    pub role: String,
    /// Its password, where the file says one; `None`: what the client's login gave.
    pub password: Option<Secret>,
}

impl Config {
    /// The database a client asks for by this name.
    pub fn database(&self, name: &str) -> Option<&Database> {
        self.databases.get(name).or_else(|| self.databases.get("*"))
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
            standing: database.standing,
            tls: database.tls.clone(),
            role: role.login_as.clone().unwrap_or_else(|| role_name.to_owned()),
            password: role.backend_password.clone(),
        },
        pool: Pool {
            mode: role.mode.unwrap_or(database.pool.mode),
            size: role.size.unwrap_or(database.pool.size),
            ..database.pool.clone()
        },
        backends_max: database.backends_max,
        timeouts: role.timeouts,
    })
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
        config.roles.get_mut("web").expect("web").size = None;
        let size = |database| pool_settings(&config, database, "web").expect("served").pool.size;
        assert_eq!(size("app"), 10);
        assert_eq!(size("else"), 5);
    }

    #[test]
    fn named_role_takes_limits_but_no_identity_from_the_star() {
        let web = pool_settings(&config(), "app", "web").expect("served");
        assert_eq!(web.timeouts.statement, Some(std::time::Duration::from_secs(5)));
        assert_eq!(web.endpoint.role, "app_rw");
        let eve = pool_settings(&config(), "app", "eve").expect("served");
        assert_eq!(eve.endpoint.role, "eve");
        assert_eq!(eve.endpoint.password, None);
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
