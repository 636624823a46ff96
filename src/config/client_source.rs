//! Where clients may come from: `roles.*.from` and `listen.proxy_protocol.from`.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// One entry of such a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientSource {
    /// Unix sockets.
    Unix,
    /// These addresses.
    Network(IpNet),
}

impl ClientSource {
    /// Reads `unix`, an address, or a network such as `10.0.0.0/8`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "unix" {
            return Some(Self::Unix);
        }
        let network = text.parse::<IpNet>().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)))?;
        Some(Self::Network(network.trunc()))
    }

    /// Every client that `other` means is meant.
    pub(super) fn includes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix, Self::Unix) => true,
            (Self::Network(ours), Self::Network(theirs)) => ours.contains(theirs),
            (Self::Unix, Self::Network(_)) | (Self::Network(_), Self::Unix) => false,
        }
    }

    /// Whether a client with this address is meant; one of a Unix socket has none.
    pub fn covers(&self, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (Self::Unix, None) => true,
            (Self::Network(network), Some(address)) => network.contains(&address.to_canonical()),
            (Self::Unix, Some(_)) | (Self::Network(_), None) => false,
        }
    }
}

impl fmt::Display for ClientSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => f.write_str("unix"),
            Self::Network(network) => network.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_addresses_and_unix_sockets_are_told_apart() {
        let covers = |text: &str, address: Option<&str>| {
            let source = ClientSource::parse(text).expect("a source");
            source.covers(address.map(|address| address.parse().expect("an address")))
        };
        assert!(covers("10.0.0.0/8", Some("10.255.0.1")) && !covers("10.0.0.0/8", Some("11.0.0.1")));
        assert!(covers("10.0.0.0/8", Some("::ffff:10.0.0.1")), "as a socket of both families shows it");
        assert!(covers("10.1.2.3", Some("10.1.2.3")) && !covers("10.1.2.3", Some("10.1.2.4")));
        assert!(covers("fd00::/8", Some("fd00::1")) && !covers("::/0", Some("10.0.0.1")));
        assert!(covers("unix", None) && !covers("unix", Some("127.0.0.1")) && !covers("0.0.0.0/0", None));
        assert_eq!(ClientSource::parse("10.1.2.3/8").expect("a network").to_string(), "10.0.0.0/8");
        for wrong in ["", "10.0.0.0/33", "10.0.0", "db.internal", "10.0.0.0/8, ::1"] {
            assert_eq!(ClientSource::parse(wrong), None, "{wrong}");
        }
    }
}
