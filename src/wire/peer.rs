//! The question of one instance of a fleet to another, and the answers.
//!
//! An instance that is asked to cancel for a client of another connects there as any client does, asks
//! [`PeerQuestion`], and if the answer is [`YES`] sends the CancelRequest as it came. The next answer says whether its
//! key was known; it comes when Postgres has been reached. To anything that is no pgweir the question is an unknown
//! version of the protocol.

use super::cancel_key::InstanceNumber;

/// Major and minor "version" of the question: `pw` and the version of its form.
pub(super) const PEER_CODE: (u16, u16) = (0x7077, 1);

/// It is so.
pub(crate) const YES: u8 = b'Y';

/// It is not.
pub(crate) const NO: u8 = b'N';

/// Asks whether the clients with this number are the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerQuestion {
    /// The asking instance, so that one which reaches itself by one of its addresses says no.
    pub from: u64,
    /// The number it asks for.
    pub number: InstanceNumber,
}

impl PeerQuestion {
    /// Behind the code.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let (from, pid) = body.split_first_chunk::<8>()?;
        let number = InstanceNumber::of(i32::from_be_bytes(*pid.first_chunk()?)).filter(|_| pid.len() == 4)?;
        Some(Self { from: u64::from_be_bytes(*from), number })
    }

    /// As a first packet.
    pub(crate) fn packet(self) -> Vec<u8> {
        let mut packet = Vec::with_capacity(20);
        packet.extend(20_u32.to_be_bytes());
        packet.extend(PEER_CODE.0.to_be_bytes());
        packet.extend(PEER_CODE.1.to_be_bytes());
        packet.extend(self.from.to_be_bytes());
        packet.extend(self.number.pid(0).to_be_bytes());
        packet
    }
}
