//! The address of a backend's server.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::BackendTls;

/// A server's address as it was when a backend connected to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddress {
    /// TCP, with the name it came from (for TLS).
    Tcp {
        /// Where.
        addr: SocketAddr,
        /// As configured.
        host: String,
        /// TLS as at the login.
        tls: BackendTls,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl ServerAddress {
    /// Whether both are the same server, however its certificate is checked.
    pub fn is_same_server(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { addr, .. }, Self::Tcp { addr: other, .. }) => addr == other,
            (Self::Unix(path), Self::Unix(other)) => path == other,
            _ => false,
        }
    }
}

impl std::fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { addr, .. } => addr.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}
