//! Where a connection comes from: its peer, or the client that a load balancer says it passes on.

use std::net::IpAddr;

use tokio::io::AsyncReadExt;

use super::head_clock::HeadClock;
use crate::admission::arrival_list::PeerOrigin;
use crate::admission::login::PeerAddress;
use crate::config::{Config, Listen};
use crate::error::LoginFault;
use crate::net::stream::{Socket, Stream};
use crate::wire::proxy_header::{self, HEAD_LEN};

/// The other end of a connection, as far as it is known.
pub(super) struct ClientOrigin {
    /// Its address; `None` on a Unix socket.
    ip: Option<IpAddr>,
    /// As the log and the console show it.
    pub(super) addr: String,
    /// A balancer has said so.
    is_passed_on: bool,
}

impl ClientOrigin {
    pub(super) fn new(ip: Option<IpAddr>, addr: String) -> Self {
        Self { ip, addr, is_passed_on: false }
    }

    /// The address that rates count by.
    pub(super) fn address(&self) -> PeerOrigin {
        self.ip.map(PeerAddress::from)
    }

    /// What is said on `socket` does not leave the machine.
    pub(super) fn is_local(&self, socket: &Socket) -> bool {
        // The way from the client to its balancer counts, too.
        socket.is_local() && (!self.is_passed_on || self.ip.is_some_and(|ip| ip.to_canonical().is_loopback()))
    }

    /// It came to a Unix socket, of its own accord.
    pub(super) fn is_unix(&self) -> bool {
        self.ip.is_none()
    }

    /// Reads the header of a balancer, where one has to be. Whether it names another address.
    pub(super) async fn read_header(
        &mut self,
        listen: &Listen,
        stream: &mut Stream,
        clock: &HeadClock,
    ) -> Result<bool, LoginFault> {
        if !listen.proxy_protocol.from.iter().any(|source| source.covers(self.ip)) {
            return Ok(false);
        }
        let mut head = [0; HEAD_LEN];
        clock.hear(stream.read_exact(&mut head)).await?;
        let head = proxy_header::head(&head)?;
        let mut rest = vec![0; head.rest];
        clock.hear(stream.read_exact(&mut rest)).await?;
        let Some(client) = proxy_header::source(head, &rest)? else { return Ok(false) };
        *self = Self { ip: Some(client.ip()), addr: client.to_string(), is_passed_on: true };
        Ok(true)
    }

    /// Refuses a role that may not come from here. One that does not exist may come from wherever some other may:
    /// nobody else learns which roles there are.
    pub(super) fn check_role(&self, config: &Config, name: &str) -> Result<(), LoginFault> {
        let is_open = match config.role(name) {
            Some(role) => role.access.is_open_to(self.ip),
            None => config.roles.values().any(|role| role.access.is_open_to(self.ip)),
        };
        if is_open { Ok(()) } else { Err(LoginFault::NotFromHere(name.to_owned())) }
    }
}
