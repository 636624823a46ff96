//! Hands a CancelRequest to the instance whose client it is meant for: once, as it came, and never one that came from
//! another instance.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::owners::{KnownPeer, Owners};
use super::sibling::{self, Sibling};
use crate::config;
use crate::net::stream::Stream;
use crate::pool::address::ServerAddress;
use crate::pool::lease::Pools;
use crate::wire::cancel_key::InstanceNumber;
use crate::wire::peer::{NO, PeerQuestion, YES};
use crate::wire::startup::{CancelKey, build_cancel};

/// Numbers tried until one is free on this host.
const DRAWS: usize = 64;

/// CancelRequests handed on at once; each costs a connection or two. More wait.
const AT_ONCE: usize = 256;

/// The outcome of handing on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forwarded {
    /// The owner has dealt with it.
    Done,
    /// All that could be asked said that they have no such client.
    Unknown,
    /// Somebody who may have the client could not be asked.
    Unreached,
}

/// Our place in the fleet, and what is known of the others'.
#[derive(Debug)]
pub(crate) struct Cancels {
    /// In the process ids of our clients.
    pub(crate) number: InstanceNumber,
    /// In our questions, and what others know us by.
    pub(crate) id: u64,
    has_siblings: bool,
    /// Where siblings come in, until the service for them takes it.
    siblings: Mutex<Option<UnixListener>>,
    owners: Mutex<Owners>,
    /// Addresses that the names of `fleet.peers` led to.
    peers: Mutex<Vec<IpAddr>>,
    turns: Semaphore,
}

impl Cancels {
    /// Draws a number with these random bits; one that no other process on this host has, if it has siblings.
    pub(crate) fn new(has_siblings: bool, mut random: impl FnMut() -> u64) -> Self {
        let id = random();
        let mut drawn = (InstanceNumber::new(random()), None);
        for _ in 0..if has_siblings { DRAWS } else { 0 } {
            match sibling::listen(drawn.0) {
                Ok(listener) => {
                    drawn.1 = Some(listener);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => drawn.0 = InstanceNumber::new(random()),
                // A system without such sockets: there are no siblings.
                Err(_) => break,
            }
        }
        let (number, listener) = drawn;
        Self {
            number,
            id,
            has_siblings,
            siblings: Mutex::new(listener),
            owners: Mutex::default(),
            peers: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// The socket for siblings; the first caller gets it.
    pub(crate) fn take_siblings(&self) -> Option<UnixListener> {
        self.siblings.lock().expect("no panic while held").take()
    }

    /// The question is our own: it came to us by one of our addresses.
    pub(crate) fn is_own(&self, question: PeerQuestion) -> bool {
        question.from == self.id
    }

    /// A peer of the configuration has this address.
    pub(crate) fn is_peer(&self, address: IpAddr) -> bool {
        self.peers.lock().expect("no panic while held").contains(&address.to_canonical())
    }

    /// The process on this host whose clients have this number.
    pub(crate) async fn sibling(&self, number: InstanceNumber) -> Option<Sibling> {
        if !self.has_siblings || number == self.number {
            return None;
        }
        Sibling::connect(number).await
    }

    /// Hands the CancelRequest with this key to a sibling or a peer.
    pub(crate) async fn forward(
        self: &Arc<Self>,
        pools: &Arc<Pools>,
        settings: &config::Fleet,
        key: &CancelKey,
    ) -> Forwarded {
        let Some(number) = InstanceNumber::of(key.pid) else { return Forwarded::Unknown };
        let _turn = self.turns.acquire().await.expect("it is never closed");
        let question = PeerQuestion { from: self.id, number };
        let cancel: Arc<[u8]> = build_cancel(key).into();
        if let Some(mut sibling) = self.sibling(number).await
            && sibling.ask(&question.packet()).await
            && sibling.ask(&cancel).await
        {
            return Forwarded::Done;
        }
        let errand = Errand { cancels: self, pools, settings, question, cancel };
        let known = self.owners().known(number);
        let addresses = known.iter().map(|(addr, host)| errand.address(*addr, host)).collect();
        if !known.is_empty() && errand.send(addresses).await == Forwarded::Done {
            return Forwarded::Done;
        }
        if settings.peers.is_empty() || !self.owners().may_ask(number, Instant::now()) {
            return Forwarded::Unknown;
        }
        let (others, are_all_found) = errand.others(&known).await;
        let sent = errand.send(others).await;
        if sent != Forwarded::Done {
            self.owners().unknown(number, Instant::now());
        }
        if sent == Forwarded::Unknown && !are_all_found { Forwarded::Unreached } else { sent }
    }

    fn owners(&self) -> MutexGuard<'_, Owners> {
        self.owners.lock().expect("no panic while held")
    }
}

/// One CancelRequest on its way.
struct Errand<'a> {
    cancels: &'a Arc<Cancels>,
    pools: &'a Arc<Pools>,
    settings: &'a config::Fleet,
    question: PeerQuestion,
    cancel: Arc<[u8]>,
}

impl Errand<'_> {
    fn address(&self, addr: SocketAddr, host: &str) -> ServerAddress {
        ServerAddress::Tcp { addr, host: host.to_owned(), tls: self.settings.tls.clone() }
    }

    /// All peers but these, and whether every name led somewhere.
    async fn others(&self, known: &[KnownPeer]) -> (Vec<ServerAddress>, bool) {
        let (mut others, mut peers, mut are_all_found) = (Vec::new(), Vec::new(), true);
        for peer in &self.settings.peers {
            let found = self.pools.opener().names().look_up(&peer.host, peer.port).await;
            are_all_found &= found.is_ok();
            for addr in found.unwrap_or_default() {
                peers.push(addr.ip().to_canonical());
                if known.iter().all(|(tried, _)| *tried != addr) {
                    others.push(self.address(addr, &peer.host));
                }
            }
        }
        *self.cancels.peers.lock().expect("no panic while held") = peers;
        (others, are_all_found)
    }

    /// Asks all of these at once. The first that has the client ends it.
    async fn send(&self, addresses: Vec<ServerAddress>) -> Forwarded {
        let mut asked = JoinSet::new();
        for address in addresses {
            let (pools, cancels) = (Arc::clone(self.pools), Arc::clone(self.cancels));
            let (question, cancel) = (self.question, Arc::clone(&self.cancel));
            asked.spawn(async move { ask(&pools, &cancels, address, question, &cancel).await });
        }
        let mut sent = Forwarded::Unknown;
        while let Some(answered) = asked.join_next().await {
            match answered {
                Ok(Ok(true)) => return Forwarded::Done,
                Ok(Ok(false)) => {}
                Ok(Err(_)) | Err(_) => sent = Forwarded::Unreached,
            }
        }
        sent
    }
}

/// Whether the client was this peer's, and the peer has dealt with the cancel.
async fn ask(
    pools: &Pools,
    cancels: &Cancels,
    address: ServerAddress,
    question: PeerQuestion,
    cancel: &[u8],
) -> io::Result<bool> {
    let ServerAddress::Tcp { addr, ref host, .. } = address else { return Ok(false) };
    let lost = || cancels.owners().lost(question.number, addr);
    let asked = async {
        let (mut stream, is_owner) = question_at(pools, &address, question).await.inspect_err(|_| lost())?;
        if !is_owner {
            lost();
            return Ok(false);
        }
        cancels.owners().found(question.number, (addr, host.clone()));
        // A no is about the client: it may be gone while its instance is not.
        exchange(&mut stream, cancel).await.inspect_err(|_| lost())
    };
    let asked = asked.await;
    if !matches!(asked, Ok(true)) {
        tracing::debug!(peer = %addr, ?asked, "no cancel there");
    }
    asked
}

/// A connection to a peer, and whether the number is its.
async fn question_at(pools: &Pools, address: &ServerAddress, question: PeerQuestion) -> io::Result<(Stream, bool)> {
    let mut stream = pools.opener().reach(address).await.map_err(io::Error::other)?;
    let is_owner = exchange(&mut stream, &question.packet()).await?;
    Ok((stream, is_owner))
}

async fn exchange(stream: &mut Stream, packet: &[u8]) -> io::Result<bool> {
    stream.write_all(packet).await?;
    stream.flush().await?;
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    match answer[0] {
        YES => Ok(true),
        NO => Ok(false),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}
