//! `[fleet]`: the other instances in front of the same databases.

use std::fmt;
use std::net::SocketAddr;

use super::Secret;
use super::database::BackendTls;
use super::form::{count, fleet_name, list, or_off, peer, socket_addr, truth, word};
use super::keys::section;
use super::raw::SectionReader;
use super::redis_url::redis_url_is_sound;
use crate::words::words;

/// Longest name of a fleet: it is part of an `application_name`, of which Postgres keeps 63 bytes.
pub(crate) const FLEET_NAME_MAX: usize = 32;

section! {
    /// `[fleet]`; `Default` is the shipped file.
    pub struct Fleet {
        /// The same for all instances of one fleet.
        pub name: String = "main".to_owned() => at_start(fleet_name());
        /// How limits are held over the instances.
        pub mode: FleetMode = FleetMode::Off => at_start(word());
        /// The Redis or Valkey that keeps the leases.
        pub url: Option<Secret> = None => secret();
        /// Weight of this instance where all together want more than the limit.
        pub weight: u32 = 1 => key(count(1..=WEIGHT_MAX));
        /// Where the instances are reached.
        pub peers: Vec<PeerName> = Vec::new() => key(list(peer()));
        /// Where only peers come in, to the end of the process; `None`: they come to `listen.addr`.
        pub addr: Option<SocketAddr> = None => at_start(or_off(socket_addr()));
        /// Processes of our user on this host are asked, too.
        pub siblings: bool = true => at_start(truth());
        /// TLS towards peers.
        pub tls: BackendTls = BackendTls::default() => table();
    } redis_rules
}

/// Heavier instances leave nothing for others.
const WEIGHT_MAX: u32 = 1000;

fn redis_rules(fleet: &Fleet, section: &SectionReader<'_>) {
    if fleet.mode == FleetMode::Redis && !section.has("url") {
        section.blame("url", "is missing; mode \"redis\" needs it");
    }
    if let Some(url) = &fleet.url
        && let Err(text) = redis_url_is_sound(url.expose())
    {
        section.blame("url", text);
    }
}

words! {
    /// `fleet.mode`.
    pub enum FleetMode {
        /// Each instance has the limits of its file for itself.
        Off = "off",
        /// Each has its part, by the number of instances that the watches see at the servers.
        Count = "count",
        /// Each has what it wants, as far as all together want no more; a Redis or Valkey keeps the leases.
        Redis = "redis",
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
