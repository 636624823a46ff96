//! `[fleet]`: the other instances in front of the same databases.

use std::fmt;
use std::net::SocketAddr;

use super::database::BackendTls;
use super::form::{OrOff, list, peer, socket_addr, truth};
use super::keys::section;

section! {
    /// `[fleet]`; `Default` is the shipped file.
    pub struct Fleet {
        /// Where the instances are reached.
        pub peers: Vec<PeerName> = Vec::new() => key(list(peer()));
        /// Where only peers come in, to the end of the process; `None`: they come to `listen.addr`.
        pub addr: Option<SocketAddr> = None => at_start(OrOff(socket_addr()));
        /// Processes of our user on this host are asked, too.
        pub siblings: bool = true => at_start(truth());
        /// TLS towards peers.
        pub tls: BackendTls = BackendTls::default() => table();
    }
}

/// An address of `fleet.peers`: of one instance, or of all of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerName {
    /// A host name or an IP address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}
