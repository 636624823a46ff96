//! Processes of one user on one host: they may share an address, so only they know which of them it leads to.
//!
//! Each listens on an abstract Unix socket that has its number as its name. Such a socket has no file and ends with its
//! process; another user's process may take a name, so both ends look at the other's user.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::wire::cancel_key::InstanceNumber;
use crate::wire::peer::YES;

/// Connections the kernel holds while we are busy.
const BACKLOG: i32 = 128;

/// The name of the socket; the leading NUL makes it abstract.
fn name(number: InstanceNumber) -> String {
    format!("\0pgweir/{}", number.get())
}

/// Listens for siblings. Fails if a process on this host has the number.
pub(super) fn listen(number: InstanceNumber) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec().nonblocking(), None)?;
    socket.bind(&SockAddr::unix(name(number))?)?;
    socket.listen(BACKLOG)?;
    Ok(OwnedFd::from(socket).into())
}

/// The peer is a process of our own user.
pub(crate) fn is_ours(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw())
}

/// A connection to a sibling.
#[derive(Debug)]
pub(crate) struct Sibling(UnixStream);

impl Sibling {
    /// The sibling with this number, if there is one.
    pub(crate) async fn connect(number: InstanceNumber) -> Option<Self> {
        let stream = UnixStream::connect(name(number)).await.ok()?;
        is_ours(&stream).then_some(Self(stream))
    }

    /// Sends a packet; whether the answer was yes.
    pub(crate) async fn ask(&mut self, packet: &[u8]) -> bool {
        let mut answer = [0];
        let asked = async {
            self.0.write_all(packet).await?;
            self.0.read_exact(&mut answer).await
        };
        asked.await.is_ok() && answer == [YES]
    }
}
