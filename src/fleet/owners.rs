//! Addresses at which instances have said that a number is theirs.
//!
//! Only a shortcut: who is asked first. An instance that is gone says nothing or no, and is forgotten then.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::wire::cancel_key::InstanceNumber;

/// Not all are asked again for a number whose client nobody had a moment ago: keys that somebody makes up cost no more
/// than this. An owner that is known is asked all the same.
const PAUSE: Duration = Duration::from_secs(1);

/// As many numbers as there are may be asked for, one after the other.
#[derive(Debug, Default)]
pub(super) struct Owners(HashMap<InstanceNumber, Owner>);

/// An address, and the name that led to it.
pub(super) type KnownPeer = (SocketAddr, String);

/// The answers to the question for one number.
#[derive(Debug, Default)]
struct Owner {
    peers: Vec<KnownPeer>,
    /// When all peers were asked and nobody knew it.
    unknown: Option<Instant>,
}

impl Owners {
    /// Where its owner was found before.
    pub(super) fn known(&self, number: InstanceNumber) -> Vec<KnownPeer> {
        self.0.get(&number).map(|owner| owner.peers.clone()).unwrap_or_default()
    }

    /// Whether all peers may be asked.
    pub(super) fn may_ask(&self, number: InstanceNumber, now: Instant) -> bool {
        let unknown = self.0.get(&number).and_then(|owner| owner.unknown);
        unknown.is_none_or(|since| now >= since + PAUSE)
    }

    /// The owner is there.
    pub(super) fn found(&mut self, number: InstanceNumber, peer: KnownPeer) {
        let owner = self.0.entry(number).or_default();
        if !owner.peers.contains(&peer) {
            owner.peers.push(peer);
        }
    }

    /// The owner is not there, or not any more.
    pub(super) fn lost(&mut self, number: InstanceNumber, address: SocketAddr) {
        if let Some(owner) = self.0.get_mut(&number) {
            owner.peers.retain(|(known, _)| *known != address);
        }
    }

    /// No peer knew the client.
    pub(super) fn unknown(&mut self, number: InstanceNumber, now: Instant) {
        self.0.entry(number).or_default().unknown = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> KnownPeer {
        (([10, 0, 0, 1], port).into(), "peers".to_owned())
    }

    #[test]
    fn owner_is_known_until_it_is_lost() {
        let (mut owners, number) = (Owners::default(), InstanceNumber::new(1));
        assert!(owners.known(number).is_empty());
        owners.found(number, at(1));
        owners.found(number, at(1));
        owners.found(number, at(2));
        assert_eq!(owners.known(number), [at(1), at(2)]);
        owners.lost(number, at(1).0);
        assert_eq!(owners.known(number), [at(2)]);
        assert!(owners.known(InstanceNumber::new(2)).is_empty());
    }

    #[test]
    fn number_that_nobody_knows_is_asked_for_once_in_a_while() {
        let (mut owners, number, now) = (Owners::default(), InstanceNumber::new(1), Instant::now());
        assert!(owners.may_ask(number, now));
        owners.unknown(number, now);
        assert!(!owners.may_ask(number, now + PAUSE / 2));
        assert!(owners.may_ask(InstanceNumber::new(2), now));
        assert!(owners.may_ask(number, now + PAUSE));
    }
}
