//! Sockets that clients connect to: those we bind, and those handed to us.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Type};
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
    /// The system's error.
    pub source: io::Error,
}

/// A socket that somebody else opened for us, and may have given to others, too.
#[derive(Debug)]
pub(crate) enum Handed {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// Unix.
    Unix(std::os::unix::net::UnixListener),
}

/// A socket that clients connect to.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: ListeningSocket,
    origin: SocketOrigin,
}

#[derive(Debug)]
enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The opener of a socket: it decides what becomes of connections that wait in the socket at the end.
#[derive(Debug)]
enum SocketOrigin {
    /// Opened by us; its socket file, if there is one, is removed with it.
    Bound(Option<SocketFile>),
    /// Handed to us: it outlives us, and connections that wait in it are served by others.
    Handed,
}

/// A socket file of ours, removed with it unless another process has put its own in its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_path_buf(), inode: inode(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
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
    /// Binds an address. Where ports are reused, another process may have it, too: of TCP connections the kernel gives
    /// each a share, and a Unix socket takes the other's place.
    pub(crate) fn bind(addr: &ListenAddr, reuse_port: bool) -> Result<Self, ListenError> {
        let bound = match addr {
            ListenAddr::Tcp(addr) => bind_tcp(*addr, reuse_port)
                .map(|tcp| Self { socket: ListeningSocket::Tcp(tcp), origin: SocketOrigin::Bound(None) }),
            ListenAddr::Unix(path) => bind_unix(path, reuse_port).map(|(unix, file)| Self {
                socket: ListeningSocket::Unix(unix),
                origin: SocketOrigin::Bound(Some(file)),
            }),
        };
        bound.map_err(|source| ListenError { addr: addr.to_string(), source })
    }

    /// Takes over a socket that listens already.
    pub(crate) fn adopt(handed: Handed) -> Result<Self, ListenError> {
        let adopted = match handed {
            Handed::Tcp(tcp) => {
                tcp.set_nonblocking(true).and_then(|()| TcpListener::from_std(tcp)).map(ListeningSocket::Tcp)
            }
            Handed::Unix(unix) => {
                unix.set_nonblocking(true).and_then(|()| UnixListener::from_std(unix)).map(ListeningSocket::Unix)
            }
        };
        adopted
            .map(|socket| Self { socket, origin: SocketOrigin::Handed })
            .map_err(|source| ListenError { addr: "LISTEN_FDS".to_owned(), source })
    }

    /// The address it is bound to, with the real port.
    pub(crate) fn local_addr(&self) -> String {
        let unix = |path: &Path| format!("unix:{}", path.display());
        let known = match (&self.socket, &self.origin) {
            (ListeningSocket::Tcp(tcp), _) => tcp.local_addr().ok().map(|addr| addr.to_string()),
            // It may have been bound under another name.
            (ListeningSocket::Unix(_), SocketOrigin::Bound(Some(file))) => Some(unix(&file.path)),
            (ListeningSocket::Unix(socket), _) => {
                socket.local_addr().ok().and_then(|addr| addr.as_pathname().map(unix))
            }
        };
        known.unwrap_or_else(|| "?".to_owned())
    }

    /// The next connection. Shortage of descriptors is waited out; a connection that was gone already is passed over.
    pub(crate) async fn accept(&self) -> Accepted {
        loop {
            let accepted = match &self.socket {
                ListeningSocket::Tcp(tcp) => {
                    tcp.accept().await.and_then(|(s, peer)| Ok(Accepted::Tcp(s.into_std()?, peer)))
                }
                ListeningSocket::Unix(unix) => unix.accept().await.and_then(|(s, _)| Ok(Accepted::Unix(s.into_std()?))),
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

    /// Stops listening; returns the connections that had arrived and were not accepted yet. (Closing alone would reset
    /// them. A TCP connection that arrives between the last look and the close is still reset; see tcp_migrate_req in
    /// the kernel's ip-sysctl.)
    pub(crate) fn close(self) -> Vec<Accepted> {
        let Self { socket, origin } = self;
        let is_ours = matches!(origin, SocketOrigin::Bound(_));
        // The file is removed first: nobody can connect to this socket any more.
        drop(origin);
        if !is_ours {
            return Vec::new();
        }
        // Plain sockets, because tokio accepts only after its reactor has seen that there is something.
        let mut next: Box<dyn FnMut() -> io::Result<Accepted>> = match socket {
            ListeningSocket::Tcp(tcp) => {
                let Ok(tcp) = tcp.into_std() else { return Vec::new() };
                Box::new(move || accepted_tcp(tcp.accept()?))
            }
            ListeningSocket::Unix(unix) => {
                let Ok(unix) = unix.into_std() else { return Vec::new() };
                Box::new(move || accepted_unix(unix.accept()?.0))
            }
        };
        let mut came = Vec::new();
        // At most as many as the queue holds: a storm of connections does not keep it open.
        for _ in 0..BACKLOG {
            match next() {
                Ok(accepted) => came.push(accepted),
                Err(error) if is_connection_error(&error) => {}
                Err(_) => break,
            }
        }
        came
    }
}

/// An accepted socket made non-blocking: tokio requires that, and the setting is not inherited from the listener.
fn accepted_tcp((stream, peer): (std::net::TcpStream, SocketAddr)) -> io::Result<Accepted> {
    stream.set_nonblocking(true)?;
    Ok(Accepted::Tcp(stream, peer))
}

fn accepted_unix(stream: std::os::unix::net::UnixStream) -> io::Result<Accepted> {
    stream.set_nonblocking(true)?;
    Ok(Accepted::Unix(stream))
}

fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Listens on a TCP address.
pub(crate) fn bind_tcp(addr: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(addr))?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A socket left behind by a process that is gone is replaced, no other file ever; one that somebody listens on only
/// where ports are reused.
fn bind_unix(path: &Path, reuse_port: bool) -> io::Result<(UnixListener, SocketFile)> {
    let bound = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if !fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(io::Error::new(error.kind(), "a file that is no socket is in its place"));
            }
            if reuse_port {
                replace_unix(path)?
            } else if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(error);
            } else {
                fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
        }
        bound => bound?,
    };
    Ok((bound, SocketFile::new(path)?))
}

/// Replaces a socket file so that the path is never empty: the new socket is made beside it and takes its name.
fn replace_unix(path: &Path) -> io::Result<UnixListener> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let unix = UnixListener::bind(&beside)?;
    fs::rename(&beside, path)?;
    Ok(unix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_sockets_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("front");
        for reuse_port in [false, true] {
            fs::write(&path, "worth keeping").unwrap();
            let error = bind_unix(&path, reuse_port).unwrap_err();
            assert_eq!(error.to_string(), "a file that is no socket is in its place");
            assert_eq!(fs::read(&path).unwrap(), b"worth keeping");
            fs::remove_file(&path).unwrap();

            std::os::unix::fs::symlink("elsewhere", &path).unwrap();
            bind_unix(&path, reuse_port).unwrap_err();
            assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
            fs::remove_file(&path).unwrap();

            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            bind_unix(&path, reuse_port).expect("nobody listens on it");
        }
    }
}
