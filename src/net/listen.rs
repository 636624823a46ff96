//! Accepts connections and deals them to workers, the least loaded first.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};

use crate::config::ListenAddr;

/// Connections the kernel holds for us while we are busy.
const BACKLOG: i32 = 1024;

/// Pause after an accept that failed for want of file descriptors or memory: the listener would be ready at once again.
const SHORTAGE: Duration = Duration::from_millis(100);

/// An address that cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {addr}: {source}")]
pub struct ListenError {
    /// As configured.
    pub addr: String,
    /// What the system said.
    pub source: io::Error,
}

/// A bound address.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix; the file is removed when it is dropped.
    Unix(UnixListener, SocketFile),
}

/// A socket file of ours.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An accepted connection, not registered with any reactor.
#[derive(Debug)]
pub enum Accepted {
    /// TCP and the peer.
    Tcp(std::net::TcpStream, SocketAddr),
    /// Unix.
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    /// The peer's address, if it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, peer) => Some(peer.ip()),
            Self::Unix(_) => None,
        }
    }
}

impl Listener {
    /// Binds an address.
    pub fn bind(addr: &ListenAddr) -> Result<Self, ListenError> {
        let bound = match addr {
            ListenAddr::Tcp(addr) => bind_tcp(*addr).map(Self::Tcp),
            ListenAddr::Unix(path) => bind_unix(path).map(|unix| Self::Unix(unix, SocketFile(path.clone()))),
        };
        bound.map_err(|source| ListenError { addr: addr.to_string(), source })
    }

    /// What it is bound to, with the real port.
    pub fn local_addr(&self) -> String {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().map_or_else(|_| "?".to_owned(), |addr| addr.to_string()),
            Self::Unix(_, file) => format!("unix:{}", file.0.display()),
        }
    }

    /// The next connection. Shortage of descriptors is waited out; a connection that was gone already is passed over.
    pub async fn accept(&self) -> Accepted {
        loop {
            let accepted = match self {
                Self::Tcp(tcp) => tcp.accept().await.and_then(|(s, peer)| Ok(Accepted::Tcp(s.into_std()?, peer))),
                Self::Unix(unix, _) => unix.accept().await.and_then(|(s, _)| Ok(Accepted::Unix(s.into_std()?))),
            };
            match accepted {
                Ok(accepted) => return accepted,
                Err(error) if is_connection_error(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept; trying again");
                    tokio::time::sleep(SHORTAGE).await;
                }
            }
        }
    }
}

fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn bind_tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(addr))?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A file left behind by a process that is gone is replaced; one that somebody listens on is not.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

/// Accepts for ever and hands each connection on.
pub async fn accept_all<F: Future<Output = ()>>(listener: Arc<Listener>, deal: impl Fn(Accepted) -> F) {
    loop {
        deal(listener.accept().await).await;
    }
}
