//! Warnings: doors that a valid configuration leaves open.
//!
//! Not mistakes: a test server may want them, and a network may be closed otherwise. `pgweir check` prints them.

use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::raw::join;
use super::{Auth, BackendTlsMode, ClientSource, ClientTls, Config, ListenAddr, Role};

/// Read permission of everybody.
const OTHERS_MAY_READ: u32 = 0o004;

/// A door left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exposure {
    /// A role without any proof, at an address that other machines reach.
    Trust {
        /// As in the file.
        role: String,
        /// The first such address.
        addr: SocketAddr,
    },
    /// A role of the console without any proof.
    TrustedAdmin {
        /// As in the file.
        role: String,
    },
    /// Clients in clear text, at an address that other machines reach.
    ClearText {
        /// The first such address.
        addr: SocketAddr,
    },
    /// A server on another machine whose certificate nobody checks.
    UncheckedServer {
        /// As in the file.
        database: String,
        /// Its first such host.
        host: String,
        /// The present mode.
        mode: BackendTlsMode,
    },
    /// The token for acting, over HTTP in clear text.
    Token {
        /// `admin.addr`.
        addr: SocketAddr,
    },
    /// A file with secrets that everybody may read.
    ReadableSecret {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trust { role, addr } => write!(
                f,
                "{}.auth = \"trust\" lets in whoever reaches {addr}: give the role a password, or listen on loopback only",
                join("roles", role)
            ),
            Self::TrustedAdmin { role } => {
                let role = join("roles", role);
                write!(f, "{role}.auth = \"trust\" lets everybody into the console: give the role a password")
            }
            Self::ClearText { addr } => write!(
                f,
                "listen.tls does not require TLS at {addr}: statements, rows and pass-through passwords can be read and \
                 changed on the way; set mode = \"require\""
            ),
            Self::UncheckedServer { database, host, mode } => write!(
                f,
                "{}.tls with mode {:?} does not check who answers as {host}: set mode = \"verify-full\"",
                join("databases", database),
                mode.word()
            ),
            Self::Token { addr } => write!(
                f,
                "admin.token goes over the network in clear text at {addr}: listen on loopback only, and put TLS in front"
            ),
            Self::ReadableSecret { path } => {
                let path = path.display();
                write!(f, "{path} has a secret in it, and every user of this machine may read it: chmod o-r {path}")
            }
        }
    }
}

/// Every door that is left open.
pub fn exposures(config: &Config) -> Vec<Exposure> {
    let public = config.listen.addr.iter().find_map(|addr| match addr {
        ListenAddr::Tcp(addr) if !is_loopback(addr.ip()) => Some(*addr),
        ListenAddr::Tcp(_) | ListenAddr::Unix(_) => None,
    });
    let mut found = Vec::new();
    if let Some(addr) = public {
        found.extend(trusted(config).map(|role| Exposure::Trust { role, addr }));
        if matches!(config.listen.tls, ClientTls::Disable | ClientTls::Allow(_)) {
            found.push(Exposure::ClearText { addr });
        }
    }
    let admins = config.admin.roles.iter().chain(&config.admin.stats_roles);
    let is_trusted = |name: &&String| config.role(name).is_some_and(|role| role.auth == Auth::Trust);
    found.extend(admins.filter(is_trusted).map(|role| Exposure::TrustedAdmin { role: role.clone() }));
    found.extend(unchecked_servers(config));
    if let Some(addr) = config.admin.addr.filter(|addr| config.admin.token.is_some() && !is_loopback(addr.ip())) {
        found.push(Exposure::Token { addr });
    }
    let is_readable =
        |path: &&PathBuf| fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & OTHERS_MAY_READ != 0);
    found.extend(
        config.secret_files.iter().filter(is_readable).map(|path| Exposure::ReadableSecret { path: path.clone() }),
    );
    found
}

fn trusted(config: &Config) -> impl Iterator<Item = String> {
    let is_near = |source: &ClientSource| match source {
        ClientSource::Unix => true,
        ClientSource::Network(network) => is_loopback(network.network()) && is_loopback(network.broadcast()),
    };
    let is_confined = move |role: &Role| !role.access.from.is_empty() && role.access.from.iter().all(is_near);
    config
        .roles
        .iter()
        .filter(move |(_, role)| role.auth == Auth::Trust && !is_confined(role))
        .map(|(name, _)| name.clone())
}

fn unchecked_servers(config: &Config) -> impl Iterator<Item = Exposure> {
    config.databases.iter().filter(|(_, database)| !database.tls.mode.checks_certificate()).filter_map(
        |(name, database)| {
            let host = database.hosts.iter().find(|host| is_remote(host))?.clone();
            Some(Exposure::UncheckedServer { database: name.clone(), host, mode: database.tls.mode })
        },
    )
}

/// A name may lead anywhere, but for `localhost`.
fn is_remote(host: &str) -> bool {
    !host.starts_with('/') && host != "localhost" && !host.parse().is_ok_and(is_loopback)
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
