//! CancelRequests: of clients of ours, of clients of other instances, and those that other instances hand to us.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::admission::arrival_list::PeerOrigin;
use crate::clients::Cancelled;
use crate::error::LoginFault;
use crate::fleet::{Forwarded, Sibling};
use crate::metrics::{CancelCause, FleetCancel, ProcessCounter};
use crate::net::stream::{Socket, Stream};
use crate::proxy::Proxy;
use crate::wire::peer::{NO, PeerQuestion, YES};
use crate::wire::startup::{CancelKey, build_cancel};

/// The other end of a connection, as far as it has shown itself.
#[derive(Debug)]
pub(super) enum Sender {
    /// A client, from this address.
    Client(PeerOrigin),
    /// Another instance. A sibling of ours that shares our address may be the one it wants.
    Peer(Option<Sibling>),
    /// A process of our user on this host.
    Sibling,
}

impl Sender {
    /// The address that its TLS handshake counts for; instances have none.
    pub(super) fn origin(&self) -> PeerOrigin {
        match self {
            Self::Client(origin) => *origin,
            Self::Peer(_) | Self::Sibling => None,
        }
    }

    /// Deals with a CancelRequest. Returns when the server has been reached, which the end of the connection shows.
    pub(super) async fn cancel(
        &mut self,
        proxy: &Arc<Proxy>,
        stream: &mut Stream,
        key: &CancelKey,
    ) -> Result<(), LoginFault> {
        let limit = proxy.cancel_timeout();
        let sibling = match self {
            Self::Client(origin) if !proxy.entrance.admits_cancel(*origin) => {
                too_many(proxy);
                return Ok(());
            }
            Self::Client(_) => {
                if !settle(proxy, key).await {
                    forward(proxy, key).await;
                }
                return Ok(());
            }
            Self::Peer(sibling) => sibling.as_mut(),
            Self::Sibling => None,
        };
        let done = match sibling {
            Some(sibling) => timeout(limit, sibling.ask(&build_cancel(key))).await.unwrap_or(false),
            None => {
                let done = settle(proxy, key).await;
                if done {
                    proxy.process.add(ProcessCounter::FleetCancels(FleetCancel::Received));
                }
                done
            }
        };
        answer(stream, done).await
    }

    /// Answers the question of another instance; whether the answer was yes.
    pub(super) async fn question(
        &mut self,
        proxy: &Proxy,
        stream: &mut Stream,
        question: PeerQuestion,
    ) -> Result<bool, LoginFault> {
        if let Self::Client(origin) = self {
            let is_peer = ip(stream).is_some_and(|ip| proxy.cancels.is_peer(ip));
            if !is_peer && !proxy.entrance.admits_cancel(*origin) {
                too_many(proxy);
                return Ok(false);
            }
        }
        let is_ours = question.number == proxy.cancels.number && !proxy.cancels.is_own(question);
        let mut sibling = None;
        if !is_ours && matches!(self, Self::Client(_)) {
            let ask = async {
                let mut found = proxy.cancels.sibling(question.number).await?;
                found.ask(&question.packet()).await.then_some(found)
            };
            sibling = timeout(proxy.cancel_timeout(), ask).await.ok().flatten();
        }
        let is_known = is_ours || sibling.is_some();
        answer(stream, is_known).await?;
        if matches!(self, Self::Client(_)) {
            *self = Self::Peer(sibling);
        }
        Ok(is_known)
    }
}

fn too_many(proxy: &Proxy) {
    tracing::debug!("cancel dropped: too many from one address");
    proxy.process.add(ProcessCounter::CancelsDropped);
}

fn ip(stream: &Stream) -> Option<IpAddr> {
    match stream.socket() {
        Socket::Tcp(tcp) => Some(tcp.peer_addr().ok()?.ip()),
        Socket::Unix(_) | Socket::Lost => None,
    }
}

async fn answer(stream: &mut Stream, is_so: bool) -> Result<(), LoginFault> {
    stream.write_all(&[if is_so { YES } else { NO }]).await?;
    Ok(stream.flush().await?)
}

/// Cancels for a client of ours; `false` if none has this key.
async fn settle(proxy: &Proxy, key: &CancelKey) -> bool {
    let aim = match proxy.clients.cancel(key.pid, &key.secret) {
        Cancelled::Unknown => return false,
        Cancelled::Done => return true,
        Cancelled::Aimed(aim) => aim,
    };
    proxy.process.add(ProcessCounter::Cancels(CancelCause::Client));
    aim.target().clock.ask(proxy.clock.ticks());
    let _ = timeout(proxy.cancel_timeout(), proxy.pools.opener().cancel(aim.target())).await;
    true
}

async fn forward(proxy: &Arc<Proxy>, key: &CancelKey) {
    let fleet = proxy.config.load().fleet.clone();
    let forward = proxy.cancels.forward(&proxy.pools, &fleet, key);
    let outcome = match timeout(proxy.cancel_timeout(), forward).await.unwrap_or(Forwarded::Unreached) {
        Forwarded::Done => FleetCancel::Forwarded,
        Forwarded::Unknown => FleetCancel::Unknown,
        Forwarded::Unreached => FleetCancel::Unreached,
    };
    proxy.process.add(ProcessCounter::FleetCancels(outcome));
}
