//! `[listen]`: where and how clients come in.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use super::form::{
    client_source, count, duration, duration_above_zero, list, listen_addr, or_auto, size, some, truth, word,
};
use super::keys::section;
use super::raw::SectionReader;
use super::raw::Shape;
use super::{ClientSource, Secret};
use crate::words::words;

/// More clients than this have more sockets than one process gets.
pub(crate) const CLIENTS_MAX: u32 = 1_000_000;

/// A single long statement takes as much.
const MEMORY_MIN: usize = 4 * 1024 * 1024;

/// Far above any machine's memory.
const MEMORY_MOST: usize = 1 << 40;

/// Far above any machine's cores.
const WORKERS_MAX: u32 = 1024;

/// An address that only this machine reaches.
pub(super) const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

section! {
    /// `[listen]`; `Default` is the shipped file.
    pub struct Listen {
        /// Every address to accept on.
        pub addr: Vec<ListenAddr> = vec![ListenAddr::Tcp(loopback(6432))] => at_start(some(listen_addr()));
        /// Other processes may accept on the same addresses, `admin.addr` included.
        pub reuse_port: bool = false => at_start(truth());
        /// Clients logged in at once.
        pub clients_max: u32 = 10_000 => key(count(1..=CLIENTS_MAX));
        /// Connections of one client address, those that have not logged in included; `None`: not limited.
        pub clients_max_per_address: Option<u32> = None => maybe(count(1..=CLIENTS_MAX));
        /// Bytes that all clients together may take.
        pub memory_max: usize = 1024 * 1024 * 1024 => key(size(MEMORY_MIN..=MEMORY_MOST));
        /// Bytes that one client may take.
        pub client_memory_max: usize = 64 * 1024 * 1024 => key(size(MEMORY_MIN..=MEMORY_MOST));
        /// From accept to the end of the StartupMessage.
        pub startup_timeout: Duration = Duration::from_secs(2) => key(duration_above_zero());
        /// From accept to the end of the login.
        pub login_timeout: Duration = Duration::from_secs(15) => key(duration_above_zero());
        /// A client idle this long outside a transaction is disconnected; zero: never.
        pub idle_timeout: Duration = Duration::ZERO => key(duration());
        /// Threads that serve clients; `None`: as many as the load needs, up to one for each CPU.
        pub workers: Option<usize> = None => at_start(or_auto(count(1..=WORKERS_MAX)));
        /// How long a drain leaves clients alone before it tells them to go.
        pub linger: Duration = Duration::ZERO => key(duration());
        /// How long a drain waits for running transactions before it closes them. Less than the 30 s that Kubernetes
        /// and docker-compose habits leave before SIGKILL.
        pub shutdown_timeout: Duration = Duration::from_secs(25) => key(duration());
        /// Logins are recorded at level info; those that fail always are.
        pub log_logins: bool = false => key(truth());
        /// Balancers that say whose connections they pass on.
        pub proxy_protocol: ProxyProtocol = ProxyProtocol::default() => table();
        /// The address of a client is shown to the server, behind its `application_name`.
        pub application_name_address: bool = false => key(truth());
        /// Salts of SCRAM are made of it, for passwords in clear text and for roles that do not exist; `None`: of
        /// something random.
        pub salt_key: Option<Secret> = None => secret();
        /// TLS towards clients.
        pub tls: ClientTls = ClientTls::Disable => shaped_table();
    } salt_key_is_long
}

impl Listen {
    /// Most threads that serve clients: the number of the file, or one for each CPU that the process may use.
    pub fn workers_max(&self) -> usize {
        self.workers.unwrap_or_else(|| available_parallelism().map_or(1, usize::from))
    }
}

/// Characters of `listen.salt_key`: whoever guesses it learns which roles there are.
const SALT_KEY_MIN: usize = 16;

fn salt_key_is_long(listen: &Listen, section: &SectionReader<'_>) {
    if listen.salt_key.as_ref().is_some_and(|key| key.expose().len() < SALT_KEY_MIN) {
        section.blame("salt_key", format!("is too easy to guess; it needs {SALT_KEY_MIN} characters or more"));
    }
}

section! {
    /// `listen.proxy_protocol`.
    pub struct ProxyProtocol {
        /// Their addresses; each of their connections begins with a header.
        pub from: Vec<ClientSource> = Vec::new() => key(list(client_source()));
    }
}

/// One address of `listen.addr`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddr {
    /// `host:port`.
    Tcp(SocketAddr),
    /// `unix:/path/to/socket`.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
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

words! {
    /// `listen.tls.mode`.
    enum ClientTlsMode {
        Disable = "disable",
        Allow = "allow",
        Require = "require",
        VerifyClient = "verify-client",
    }
}

section! {
    /// `listen.tls` key by key.
    pub(super) struct ClientTlsKeys {
        mode: ClientTlsMode = ClientTlsMode::Disable => key(word());
        identity: IdentityKeys = IdentityKeys::default() => inline();
        client_ca: Option<PathBuf> = None => file();
    } client_tls_rules
}

fn client_tls_rules(keys: &ClientTlsKeys, section: &SectionReader<'_>) {
    section.needs("mode");
    let mode = keys.mode;
    if !section.is_sound("mode") {
        return;
    }
    for (name, is_needed) in [
        ("cert", mode != ClientTlsMode::Disable),
        ("key", mode != ClientTlsMode::Disable),
        ("client_ca", mode == ClientTlsMode::VerifyClient),
    ] {
        if is_needed && !section.has(name) {
            section.blame(name, format!("is missing; mode {:?} needs it", mode.word()));
        }
    }
    if section.has("client_ca") && matches!(mode, ClientTlsMode::Allow | ClientTlsMode::Require) {
        section.blame("client_ca", "is used by mode \"verify-client\" only");
    }
}

impl Shape for ClientTls {
    type Parts = ClientTlsKeys;

    fn parts(&self) -> ClientTlsKeys {
        let (mode, identity, client_ca) = match self {
            Self::Disable => (ClientTlsMode::Disable, None, None),
            Self::Allow(identity) => (ClientTlsMode::Allow, Some(identity), None),
            Self::Require(identity) => (ClientTlsMode::Require, Some(identity), None),
            Self::VerifyClient(identity, ca) => (ClientTlsMode::VerifyClient, Some(identity), Some(ca)),
        };
        ClientTlsKeys { mode, identity: identity.cloned().parts(), client_ca: client_ca.cloned() }
    }

    fn whole(keys: ClientTlsKeys) -> Option<Self> {
        let identity = Option::whole(keys.identity)?;
        Some(match keys.mode {
            ClientTlsMode::Disable => Self::Disable,
            ClientTlsMode::Allow => Self::Allow(identity?),
            ClientTlsMode::Require => Self::Require(identity?),
            ClientTlsMode::VerifyClient => Self::VerifyClient(identity?, keys.client_ca?),
        })
    }
}

/// Certificate chain and key, PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerIdentity {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

section! {
    /// A [`ServerIdentity`], or half of one.
    pub(super) struct IdentityKeys {
        cert: Option<PathBuf> = None => file();
        key: Option<PathBuf> = None => secret_file();
    }
}

impl Shape for Option<ServerIdentity> {
    type Parts = IdentityKeys;

    fn parts(&self) -> IdentityKeys {
        let Some(ServerIdentity { cert, key }) = self.clone() else {
            return IdentityKeys::default();
        };
        IdentityKeys { cert: Some(cert), key: Some(key) }
    }

    fn whole(IdentityKeys { cert, key }: IdentityKeys) -> Option<Self> {
        Some(cert.zip(key).map(|(cert, key)| ServerIdentity { cert, key }))
    }
}
