//! `proxy.toml` as checked, immutable values.
//!
//! A file goes `raw` (as written) → `parse` (every mistake in one run) → [`Config`], which has no "maybe unset" left:
//! `defaults` are filled in there and nowhere else. `limits` says what holds for one (database, role), `reload` watches
//! the file and compares two configurations. Nothing in this module does network I/O.

mod advice;
mod defaults;
#[cfg(test)]
mod document;
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

pub use advice::{Overload, Untimed, overloads, untimed};
pub use limits::{Endpoint, LaneSettings, PoolSettings, Share, lane_settings, own_settings, pool_settings};
pub use mistake::{Mistake, Mistakes, Place};
pub use parse::{load, parse};
pub use reload::{Change, Changes, Watcher, diff, needs_restart};
pub use show::{Value, defaults, entries};
pub use value::{duration_text, read_duration};
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
    /// How bursts of transactions and logins are let in.
    pub admission: Admission,
    /// How NOTIFY travels.
    pub notify: Notify,
    /// What is watched at the servers, and from where on something is the matter.
    pub watch: Watch,
    /// Other files the configuration names, secrets and certificates, for [`Watcher`].
    pub files: Vec<PathBuf>,
}

/// `[listen]`; `Default` is the shipped file.
#[derive(Debug, Clone, PartialEq)]
pub struct Listen {
    /// Every address to accept on.
    pub addr: Vec<ListenAddr>,
    /// Other processes may accept on the same addresses, `admin.addr` included.
    pub reuse_port: bool,
    /// Clients connected at once, logins in progress included.
    pub clients_max: u32,
    /// From accept to the end of the login.
    pub login_timeout: Duration,
    /// A client idle this long outside a transaction is disconnected; zero: never.
    pub idle_timeout: Duration,
    /// Threads that serve clients; a change needs a restart.
    pub workers: usize,
    /// How long a drain leaves clients alone before it tells them to go.
    pub linger: Duration,
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
    /// HTTP address of the status page, `/metrics`, `/healthz`, `/readyz`; `None` switches it off.
    pub addr: Option<SocketAddr>,
    /// Roles that may do everything in the console.
    pub roles: Vec<String>,
    /// Roles that may only look there.
    pub stats_roles: Vec<String>,
    /// Who knows it may act over HTTP; `None`: nobody may.
    pub token: Option<Secret>,
    /// Names, besides addresses, under which browsers may act.
    pub hosts: Vec<String>,
}

/// What a role may do in the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// SHOW, and what drivers say to every server.
    Look,
    /// Everything.
    Act,
}

impl Admin {
    /// What this role may do in the console; `None`: it may not come in.
    pub fn access(&self, role: &str) -> Option<Access> {
        let names = |list: &[String]| list.iter().any(|name| name == role);
        if names(&self.roles) {
            return Some(Access::Act);
        }
        names(&self.stats_roles).then_some(Access::Look)
    }
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
    /// Role that watches this one, where it is not [`Watch::login`].
    pub watch: Option<WatchLogin>,
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

/// `[roles.NAME]`, with everything of `[roles."*"]` filled in that says not who the role is.
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
    /// What a client's own SET of such a timeout may do.
    pub set_override: Override,
    /// How many of its transactions may run, and how they are let in.
    pub admission: RoleAdmission,
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

/// `roles.*.override`: what a client's own SET, SET LOCAL or startup option of a timeout in [`Timeouts`] may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Override {
    /// Anything, as without pgweir.
    #[default]
    Any,
    /// Only lower it; zero counts as infinity.
    Lower,
    /// Nothing.
    None,
}

/// `[admission]`; `Default` is the shipped file.
#[derive(Debug, Clone, PartialEq)]
pub struct Admission {
    /// Whether bursts are broken up at all.
    pub mode: AdmissionMode,
    /// Where the effective limit of a role, and a ramp, begin.
    pub initial: u32,
    /// A role below half of `initial` for this long starts slowly again.
    pub slow_start_idle: Duration,
    /// How those who wait are mixed, where the role does not say.
    pub jitter: Jitter,
    /// Nobody is overtaken by a transaction that came later than this.
    pub jitter_window: Duration,
    /// Longest delay of [`Jitter::Spread`], where the role does not say.
    pub spread_max: Duration,
    /// A client that waits longer gets a NOTICE; zero: never.
    pub notice_after: Duration,
    /// Logins per second; `None`: not limited.
    pub login_rate: Option<f64>,
    /// Logins that `login_rate` lets in at one instant.
    pub login_burst: u32,
    /// A login that would be delayed longer is refused with 53300.
    pub login_delay_max: Duration,
    /// Logins in authentication at once.
    pub login_concurrency: u32,
    /// Logins per second of one client address; `None`: not limited.
    pub login_rate_per_address: Option<f64>,
    /// Cancel requests per second of one client address; `None`: not limited.
    pub cancel_rate_per_address: Option<f64>,
    /// How long the slot of a closed backend counts while its server process lives on; zero: not at all.
    pub zombie_max: Duration,
}

/// `admission.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdmissionMode {
    /// Everything.
    On,
    /// Limits and rates stay; no slow start, jitter, spreading or refusal by expected wait. For comparison.
    Off,
}

/// How transactions in line are mixed, so that clients in lockstep fall out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jitter {
    /// Drawn at random from those who come first after a quiet time, within `jitter_window`; costs no time.
    Soft,
    /// As `Soft`, and during a burst each waits up to `spread_max` first.
    Spread,
    /// Strictly in order of arrival.
    Off,
}

/// The admission keys of a role; `Default` is the shipped file.
#[derive(Debug, Clone, PartialEq)]
pub struct RoleAdmission {
    /// Transactions at once over all databases; zero closes the valve, `None`: the pools bound it.
    pub transactions_max: Option<u32>,
    /// Of each database's backends, never lent to another role.
    pub transactions_min: u32,
    /// Clients in line over all databases; `None`: the pools' own lines bound it.
    pub waiters_max: Option<u32>,
    /// Who goes first when several roles wait for one database.
    pub priority: Priority,
    /// Share when several roles of one priority wait for one database.
    pub weight: u32,
    /// How long the limit takes to grow from `admission.initial` after a start, a recovery or RAMP.
    pub ramp: Option<Duration>,
    /// Starts per second.
    pub rate: Option<Rate>,
    /// Finds the effective limit by the server's own response time.
    pub adaptive: bool,
    /// Overrides `admission.jitter`.
    pub jitter: Option<Jitter>,
    /// Overrides `admission.spread_max`.
    pub spread_max: Option<Duration>,
}

/// `roles.*.class`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// People wait for it: before `Batch`.
    Interactive,
    /// Gets every eighth turn while `Interactive` waits.
    Batch,
}

/// `roles.*.rate` and what belongs to it: for what concurrency does not bound, such as provisioned I/O.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Transactions started per second.
    pub per_second: f64,
    /// Started at one instant.
    pub burst: u32,
    /// Longest delay; those who would wait longer for the rate alone are started.
    pub delay_max: Duration,
    /// When it holds.
    pub when: RateWhen,
}

/// `roles.*.rate_when`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateWhen {
    /// While a burst is recognised.
    Burst,
    /// Always.
    Always,
}

/// `[notify]`; `Default` is the shipped file.
#[derive(Debug, Clone, PartialEq)]
pub struct Notify {
    /// Whether NOTIFY and LISTEN are taken out of the transactions.
    pub mode: NotifyMode,
    /// What carries notifications to listeners elsewhere.
    pub bus: Bus,
    /// Where the Redis of [`Bus::Redis`] is, password included; there whenever that is the bus.
    pub redis_url: Option<Secret>,
    /// About how many notifications of each database the Redis keeps.
    pub stream_max: u32,
    /// Bytes that may wait for one listener; more, and it is disconnected.
    pub listener_queue: usize,
    /// Notifications of each database that may wait for the bus.
    pub bus_queue: u32,
    /// What happens when `bus_queue` is full.
    pub when_down: WhenDown,
    /// What listeners get when notifications were lost on the way.
    pub on_gap: OnGap,
}

/// `notify.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyMode {
    /// pgweir keeps them until the commit and delivers them itself.
    Intercept,
    /// They are Postgres's own; a client that listens holds its backend.
    Off,
}

/// `notify.bus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// Nothing: they reach the clients of this process.
    Memory,
    /// Postgres itself, by one connection for each database.
    Postgres,
    /// A Redis or Valkey.
    Redis,
}

/// `notify.when_down`: what happens to notifications once `notify.bus_queue` is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenDown {
    /// They go by way of Postgres; where that is the bus, as `Drop`.
    Postgres,
    /// New NOTIFYs are refused; what is committed already is dropped.
    Error,
    /// They are dropped.
    Drop,
}

/// `notify.on_gap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnGap {
    /// Every listener of the database is disconnected with 08006, as by a failover.
    Disconnect,
    /// The gap is counted; listeners do not learn of it.
    Count,
}

/// `[watch]`; `Default` is the shipped file.
#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    /// Role that watches; `None`: only databases with a login of their own are watched.
    pub login: Option<WatchLogin>,
    /// Sessions in wait for locks that are a convoy.
    pub convoy_waiters: u32,
    /// Keeping others waiting for so long.
    pub blocked: Duration,
    /// Idling in a transaction for so long.
    pub idle_in_transaction: Duration,
    /// One statement for so long.
    pub long_statement: Duration,
    /// The oldest snapshot, in time.
    pub horizon_age: Duration,
    /// The oldest snapshot, in transactions.
    pub horizon_transactions: u32,
    /// Dead rows of one table.
    pub dead_tuples: u32,
    /// Connections that are not pgweir's; `None`: any number is fine.
    pub outside_max: Option<u32>,
    /// What is done about a convoy.
    pub on_convoy: OnConvoy,
    /// What is done about a client that idles in a transaction others wait for.
    pub on_idle_holder: OnIdleHolder,
}

/// Who watches a database.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchLogin {
    /// Role to log in as.
    pub role: String,
    /// Its password.
    pub password: Option<Secret>,
}

/// `watch.on_convoy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConvoy {
    /// It is told.
    Observe,
    /// Also, roles whose clients are in it may start fewer transactions while it lasts.
    Tighten,
}

/// `watch.on_idle_holder`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnIdleHolder {
    /// It is told.
    Observe,
    /// Also, its transaction is ended, if it is a client's of pgweir.
    Cancel,
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
