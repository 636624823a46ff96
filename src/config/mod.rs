//! `proxy.toml` as checked, immutable values.
//!
//! A file goes `raw` (as written) → `parse` (every mistake in one run) → [`Config`], which has no "maybe unset" left:
//! `defaults` are filled in there and nowhere else. `limits` says what holds for one (database, role), `reload` watches
//! the file and compares two configurations. Nothing in this module does network I/O.

mod defaults;
mod limits;
mod mistake;
mod parse;
mod raw;
mod reload;
mod show;
mod value;
mod word;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use limits::{Endpoint, PoolSettings, pool_settings};
pub use mistake::{Mistake, Mistakes, Place};
pub use parse::{load, parse};
pub use reload::{Change, Changes, Watcher, diff, needs_restart};
pub use show::{Value, entries};
pub use word::Word;

/// Names of the console; no database may have them.
pub const CONSOLE_NAMES: [&str; 2] = ["pgweir", "pgbouncer"];

/// A whole checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where clients come in.
    pub listen: Listen,
    /// Where operators come in.
    pub admin: Admin,
    /// Backends in all, over every database; `None` means only the databases bound it.
    pub backends_total_max: Option<u32>,
    /// Databases by the name clients ask for; `"*"` serves any name not listed.
    pub databases: BTreeMap<String, Database>,
    /// Roles by name; `"*"`, if it is here, serves any role not listed.
    pub roles: BTreeMap<String, Role>,
    /// Other files the configuration names, secrets and certificates, for [`Watcher`].
    pub files: Vec<PathBuf>,
}

/// `[listen]`; `Default` is the shipped file.
#[derive(Debug, Clone, PartialEq)]
pub struct Listen {
    /// Every address to accept on.
    pub addr: Vec<ListenAddr>,
    /// Clients connected at once, logins in progress included.
    pub clients_max: u32,
    /// From accept to the end of the login.
    pub login_timeout: Duration,
    /// A client idle this long outside a transaction is disconnected; zero: never.
    pub idle_timeout: Duration,
    /// Threads that serve clients; a change needs a restart.
    pub workers: usize,
    /// How long a drain waits for running transactions before it closes them.
    pub shutdown_timeout: Duration,
    /// TLS towards clients.
    pub tls: ClientTls,
}

/// One address of `listen.addr`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddr {
    /// `host:port`.
    Tcp(SocketAddr),
    /// `unix:/path/to/socket`.
    Unix(PathBuf),
}

/// `listen.tls`: what clients may or must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientTls {
    /// SSLRequest is answered `N`.
    Disable,
    /// TLS is offered, clear text accepted.
    Allow(ServerIdentity),
    /// Clear text is refused with 28000.
    Require(ServerIdentity),
    /// As `Require`, and the client must show a certificate signed by `client_ca` whose common name is its role.
    VerifyClient(ServerIdentity, PathBuf),
}

/// Certificate chain and key, PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerIdentity {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// `[admin]`; `Default` is the shipped file.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// HTTP address of `/metrics`, `/healthz`, `/readyz`; `None` switches it off.
    pub addr: Option<SocketAddr>,
    /// Roles that may use the console.
    pub roles: Vec<String>,
}

/// When a backend goes back to its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// When the client disconnects.
    Session,
    /// When the transaction ends.
    Transaction,
    /// After each cycle; a transaction of several statements is refused.
    Statement,
}

/// `[databases.NAME]`, with the defaults of `[pool]` filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// Hosts in the order to try; a path (starts with `/`) is the directory of a Unix socket.
    pub hosts: Vec<String>,
    /// Port of every host.
    pub port: u16,
    /// Name at the server; `None`: the name the client asked for.
    pub dbname: Option<String>,
    /// Backends over all roles of this database; for `"*"`, of each database it serves.
    pub backends_max: Option<u32>,
    /// What the server must be.
    pub standing: Standing,
    /// TLS towards the server.
    pub tls: BackendTls,
    /// Role that looks up secrets for `auth = "auth-query"`, with its password.
    pub auth_query: Option<AuthQuery>,
    /// Pool defaults of this database; a role may override some.
    pub pool: Pool,
}

/// The keys of `[pool]`, after a database's own values replaced them; `Default` is the shipped file.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Release rule.
    pub mode: PoolMode,
    /// Backends per (database, role).
    pub size: u32,
    /// Longest wait for a backend.
    pub wait_timeout: Duration,
    /// Clients in line per pool, more are refused with 53300; zero: nobody waits.
    pub waiters_max: u32,
    /// Prepared statements kept per backend.
    pub statements_max: u32,
    /// An idle backend older than this is closed; zero: never.
    pub idle_timeout: Duration,
    /// A backend older than this (each ±20 %) is closed at its release; zero: never.
    pub lifetime: Duration,
    /// From dial to the end of the login.
    pub connect_timeout: Duration,
    /// For a cancel, and for cleaning a backend up after its client went away.
    pub cancel_timeout: Duration,
}

/// How secrets are looked up at the server for roles with `auth = "auth-query"`.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthQuery {
    /// Role to log in as.
    pub role: String,
    /// Its password.
    pub password: Option<Secret>,
    /// Query with `$1` = role; returns role and secret.
    pub query: String,
}

/// Which server of a cluster is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// `pg_is_in_recovery()` is false.
    Primary,
    /// `pg_is_in_recovery()` is true.
    Standby,
    /// Not checked.
    Any,
}

/// `databases.*.tls`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BackendTls {
    /// How much is checked.
    pub mode: BackendTlsMode,
    /// Trust anchors, PEM; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Client certificate towards the server.
    pub identity: Option<ServerIdentity>,
}

/// libpq's `sslmode`, without `allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendTlsMode {
    /// Never.
    Disable,
    /// TLS if the server has it; nothing is checked.
    Prefer,
    /// TLS, nothing is checked.
    Require,
    /// TLS, the chain is checked.
    VerifyCa,
    /// TLS, the chain and the host name are checked.
    VerifyFull,
}

/// `[roles.NAME]`, with `auth`, `mode`, `size`, `clients_max` and the timeouts of `[roles."*"]` filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    /// How clients of this role log in.
    pub auth: Auth,
    /// Role towards the server, if not its own name.
    pub login_as: Option<String>,
    /// Password towards the server, if not the client's.
    pub backend_password: Option<Secret>,
    /// Overrides the database's mode.
    pub mode: Option<PoolMode>,
    /// Overrides the database's size.
    pub size: Option<u32>,
    /// Clients of this role connected at once.
    pub clients_max: Option<u32>,
    /// Injected into each backend's StartupMessage; `None`: the server's own value.
    pub timeouts: Timeouts,
}

/// Limits that Postgres enforces itself, sent as startup parameters; zero: no limit, as in Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// `statement_timeout`.
    pub statement: Option<Duration>,
    /// `lock_timeout`.
    pub lock: Option<Duration>,
    /// `idle_in_transaction_session_timeout`.
    pub idle_in_transaction: Option<Duration>,
    /// `transaction_timeout`, sent only to servers that have it (17 and later).
    pub transaction: Option<Duration>,
}

/// How a client proves who it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Auth {
    /// SCRAM-SHA-256 (or MD5 when `md5` is set) against this secret: plain text or a SCRAM verifier.
    Password {
        /// Plain text, `SCRAM-SHA-256$…` or `md5…`.
        secret: Secret,
        /// Ask old drivers for MD5 instead of SCRAM.
        md5: bool,
    },
    /// The secret is asked of the database's `auth_query`.
    AuthQuery,
    /// The client's own login opens its backends.
    Passthrough,
    /// No proof is asked.
    Trust,
    /// The TLS client certificate's common name must be the role.
    Certificate,
}

/// A secret that never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself; never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}
