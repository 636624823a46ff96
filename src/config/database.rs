//! `[pool]` and `[databases.NAME]`: which servers, and how many backends of each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::PasswordSource;
use super::form::{
    BACKENDS_MAX, count, duration, duration_above_zero, host, port, role_query, some, text, truth, word,
};
use super::keys::section;
use super::listen::{CLIENTS_MAX, ServerIdentity};
use super::raw::SectionReader;
use super::readers::{ReaderKeys, reader_rules};
use super::topology::{AuroraCluster, PatroniApi, ProbeLogin, ReplayWhen, TopologySource};
use crate::words::words;

/// Names of the console; no database may have them.
pub const CONSOLE_NAMES: [&str; 2] = ["pgweir", "pgbouncer"];

/// Waiting clients hold memory, and a queue longer than this never moves in time.
pub(super) const WAITERS_MAX: u32 = 1_000_000;

/// Each prepared statement takes memory of its backend.
const STATEMENTS_MAX: u32 = 100_000;

/// The secret of a role that may log in, and none once it has expired.
const AUTH_QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil OPERATOR(pg_catalog.<) pg_catalog.now() THEN NULL ELSE rolpassword END \
     FROM pg_catalog.pg_authid WHERE rolname OPERATOR(pg_catalog.=) $1 AND rolcanlogin";

words! {
    /// When a backend goes back to its pool.
    pub enum PoolMode {
        /// When the transaction ends.
        Transaction = "transaction",
        /// When the client disconnects.
        Session = "session",
        /// After each cycle; a transaction of several statements is refused.
        Statement = "statement",
    }
}

words! {
    /// When a session is reset before another client gets its backend.
    pub enum ResetWhen {
        /// When it may have state that cannot be undone exactly.
        Dirty = "dirty",
        /// After each lease.
        Always = "always",
    }
}

section! {
    /// The keys of `[pool]`, after a database's own values replaced them; `Default` is the shipped file.
    pub struct PoolKeys {
        /// Release rule.
        pub mode: PoolMode = PoolMode::Transaction => key(word());
        /// When DISCARD ALL comes between two clients.
        pub reset: ResetWhen = ResetWhen::Dirty => key(word());
        /// Backends per (database, role).
        pub size: u32 = 20 => key(count(1..=BACKENDS_MAX));
        /// Backends that a pool with clients keeps though nobody needs them.
        pub idle_min: u32 = 0 => key(count(0..=BACKENDS_MAX));
        /// Longest wait for a backend.
        pub wait_timeout: Duration = Duration::from_secs(30) => key(duration_above_zero());
        /// Clients waiting per pool, more are refused with 53300; zero: nobody waits.
        pub waiters_max: u32 = 20_000 => key(count(0..=WAITERS_MAX));
        /// Prepared statements kept per backend.
        pub statements_max: u32 = 500 => key(count(1..=STATEMENTS_MAX));
        /// An idle backend older than this is closed; zero: never.
        pub idle_timeout: Duration = Duration::from_secs(10 * 60) => key(duration());
        /// A backend older than this (each ±20 %) is closed at its release; zero: never.
        pub lifetime: Duration = Duration::from_secs(60 * 60) => key(duration());
        /// From dial to the end of the login.
        pub connect_timeout: Duration = Duration::from_secs(5) => key(duration_above_zero());
        /// For a cancel, and for cleaning a backend up after its client went away.
        pub cancel_timeout: Duration = Duration::from_secs(5) => key(duration_above_zero());
    }
}

section! {
    /// `[pool]`.
    pub(super) struct PoolSection {
        /// Every database begins as a copy of these.
        pub(super) pool: PoolKeys = PoolKeys::default() => template();
        /// Backends in all, over every database; `None` means only the databases bound it.
        pub(super) backends_total_max: Option<u32> = None => maybe(count(1..=BACKENDS_MAX));
    }
}

section! {
    /// `[databases.NAME]`.
    pub struct Database {
        /// Hosts in the order to try; a path (starts with `/`) is the directory of a Unix socket.
        pub hosts as "host": Vec<String> = Vec::new() => required(some(host()));
        /// Port of every host.
        pub port: u16 = 5432 => key(port());
        /// Name at the server; `None`: the name the client asked for.
        pub dbname: Option<String> = None => maybe(text());
        /// Role that everybody logs in as there; `None`: each role as itself, or as its own `login_as`.
        pub login_as: Option<String> = None => maybe(text());
        /// The password of that role.
        pub password: Option<PasswordSource> = None => password();
        /// Backends over all roles of this database; for `"*"`, of each database it serves.
        pub backends_max: Option<u32> = None => maybe(count(1..=BACKENDS_MAX));
        /// Clients connected at once; for `"*"`, to each database it serves.
        pub clients_max: Option<u32> = None => maybe(count(1..=CLIENTS_MAX));
        /// Which server of a cluster is wanted.
        pub server_role: ServerRole = ServerRole::Any => key(word());
        /// How the server that has this role is found.
        pub topology: TopologySource = TopologySource::Off => key(word());
        /// Role that asks servers for their role, where it is not the one that watches them.
        pub probe: Option<ProbeLogin> = None => maybe_table();
        /// Patroni's REST API.
        pub patroni: Option<PatroniApi> = None => maybe_table();
        /// Names of Aurora's instances.
        pub aurora: Option<AuroraCluster> = None => maybe_table();
        /// Whether statements that did not run are sent to the next primary.
        pub replay: ReplayWhen = ReplayWhen::On => key(word());
        /// Whether and how it is read from several servers.
        pub reads: ReaderKeys = ReaderKeys::default() => inline();
        /// TLS towards the server.
        pub tls: BackendTls = BackendTls::default() => table();
        /// Role that looks up secrets for `auth = "auth-query"`, with its password.
        pub auth_query: Option<AuthQuery> = None => maybe_table();
        /// Role that watches this one, where it is not [`Watch::login`](super::Watch::login).
        pub watch: Option<WatchLogin> = None => maybe_table();
        /// Begins as `[pool]`; a role may override some.
        pub pool: PoolKeys = PoolKeys::default() => inline();
    } database_rules
}

impl Database {
    /// Statements that did not run are sent again: a topology says where to.
    pub fn replays(&self) -> bool {
        self.topology != TopologySource::Off && self.replay == ReplayWhen::On && !self.reads.readers
    }

    /// The role that a login checks: a topology looks for the primary unless another is wanted; of readers it knows the
    /// role, or nobody has asked for one.
    pub fn wanted_role(&self) -> ServerRole {
        match (self.topology, self.server_role) {
            (TopologySource::Off, role) => role,
            _ if self.reads.readers => ServerRole::Any,
            (_, role @ (ServerRole::Primary | ServerRole::Standby)) => role,
            (_, ServerRole::Any) => ServerRole::Primary,
        }
    }
}

fn database_rules(database: &Database, section: &SectionReader<'_>) {
    topology_rules(database, section);
    if database.reads.readers && database.server_role == ServerRole::Primary {
        section
            .blame("server_role", "a primary is not one of several readers: with readers it is \"standby\" or \"any\"");
    }
    let knows_lag =
        matches!(database.topology, TopologySource::Probe | TopologySource::Patroni | TopologySource::Aurora);
    reader_rules(&database.reads, knows_lag, section);
    if section.has("password") && !section.has("login_as") {
        section.blame("password", "is the password of login_as, which is missing");
    }
    section.needs_password("password", database.password.as_ref());
}

section! {
    /// How secrets are looked up at the server for roles with `auth = "auth-query"`.
    pub struct AuthQuery {
        /// Role to log in as.
        pub role: String = String::new() => required(text());
        /// Its password.
        pub password: Option<PasswordSource> = None => password();
        /// Database at the server that is asked; `None`: the one that the client asks for.
        pub dbname: Option<String> = None => maybe(text());
        /// Query with `$1` = role; returns role and secret.
        pub query: String = AUTH_QUERY.to_owned() => key(role_query());
    }
}

section! {
    /// How pgweir logs in to watch a database.
    pub struct WatchLogin {
        /// Role to log in as.
        pub role: String = String::new() => required(text());
        /// Its password.
        pub password: Option<PasswordSource> = None => password();
    }
}

words! {
    /// Which server of a cluster is wanted.
    pub enum ServerRole {
        /// `pg_is_in_recovery()` is false.
        Primary = "primary",
        /// `pg_is_in_recovery()` is true.
        Standby = "standby",
        /// Not checked.
        Any = "any",
    }
}

section! {
    /// `databases.*.tls`.
    #[derive(Eq, Hash)]
    pub struct BackendTls {
        /// How much is checked.
        pub mode: BackendTlsMode = BackendTlsMode::Prefer => key(word());
        /// Trust anchors, PEM; `None`: the system's.
        pub ca: Option<PathBuf> = None => file();
        /// A password in clear text is sent to a server whose certificate is not checked, too.
        pub clear_text_password: bool = false => key(truth());
        /// Client certificate towards the server.
        pub identity: Option<ServerIdentity> = None => shaped();
    } backend_tls_rules
}

words! {
    /// libpq's `sslmode`, without `allow`.
    #[derive(Hash)]
    pub enum BackendTlsMode {
        /// Never.
        Disable = "disable",
        /// TLS if the server has it; nothing is checked.
        Prefer = "prefer",
        /// TLS, nothing is checked.
        Require = "require",
        /// TLS, the chain is checked.
        VerifyCa = "verify-ca",
        /// TLS, the chain and the host name are checked.
        VerifyFull = "verify-full",
    }
}

impl BackendTlsMode {
    /// The chain of the server's certificate is checked.
    pub fn checks_certificate(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

/// Rules between the keys of a topology and the others of its database.
fn topology_rules(database: &Database, section: &SectionReader<'_>) {
    let source = database.topology;
    let wants_standby = database.server_role == ServerRole::Standby && section.is_sound("server_role");
    if source != TopologySource::Off && wants_standby && !database.reads.readers {
        section.blame("server_role", "a topology finds the primary; it is \"primary\" then, or set readers = true");
    }
    for (key, of) in [("patroni", TopologySource::Patroni), ("aurora", TopologySource::Aurora)] {
        if source == of && !section.has(key) {
            section.blame(key, format!("is missing; topology = {:?} needs it", of.word()));
        }
    }
}

/// Where a topology asks servers, it logs in to them.
pub(super) fn check_topology_login(database: &Database, is_watched: bool, section: &SectionReader<'_>) {
    let asks = matches!(database.topology, TopologySource::Probe | TopologySource::Aurora);
    if asks && database.probe.is_none() && database.watch.is_none() && !is_watched {
        let source = database.topology.word();
        section.blame("probe", format!("is missing; topology = {source:?} asks servers for their role, as this role"));
    }
}

fn backend_tls_rules(tls: &BackendTls, section: &SectionReader<'_>) {
    section.needs("mode");
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        if section.has(one) && !section.has(other) {
            section.blame(other, format!("is missing; {one} needs it"));
        }
    }
    // libpq checks the chain as soon as a root certificate is there; here the mode alone decides, so say so.
    let is_unchecked = matches!(tls.mode, BackendTlsMode::Prefer | BackendTlsMode::Require);
    if is_unchecked && section.is_sound("mode") && section.has("ca") {
        let mode = tls.mode.word();
        section.blame("ca", format!("mode {mode:?} checks no certificate; use \"verify-ca\" or \"verify-full\""));
    }
    if !is_unchecked && section.is_sound("mode") && tls.clear_text_password {
        section.blame("clear_text_password", "is for modes \"prefer\" and \"require\", which check no certificate");
    }
}

/// Every database, each beginning with the keys of `[pool]`; and whether any asks for an `auth_query`, right or wrong.
pub(super) fn read(root: &mut SectionReader<'_>, pool: &PoolKeys) -> (BTreeMap<String, Database>, bool) {
    let sections = root.children("databases");
    if sections.is_empty() {
        root.blame("databases", "there is none; add [databases.\"*\"] with a host, for example");
    }
    let mut databases = BTreeMap::new();
    let mut has_auth_query = false;
    for (name, section) in sections {
        let mut database = Database { pool: pool.clone(), ..Database::default() };
        if let Some(section) = section {
            name_is_allowed(&name, &section);
            has_auth_query |= section.has("auth_query");
            section.read(&mut database);
        }
        databases.insert(name, database);
    }
    (databases, has_auth_query)
}

fn name_is_allowed(name: &str, section: &SectionReader<'_>) {
    if CONSOLE_NAMES.contains(&name) {
        section.blame_all("is the name of the console; choose another");
    }
    if name.is_empty() {
        section.blame_all("a database needs a name");
    }
}
