//! A proxy without a process around it: one worker on the current thread, no listener, no service. Its clients come
//! over socket pairs. The fuzz target of sessions drives it.

use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::connection;
use super::worker::keep;
use crate::config::Config;
use crate::net::listen::Accepted;
use crate::net::tls::TlsError;
use crate::proxy::Proxy;
use crate::session::context::Worker;

/// The proxy, within a local runtime of tokio.
#[derive(Debug)]
pub struct InProcess {
    worker: Rc<Worker>,
}

/// What clients hold at a moment. Nothing is left when all of them are gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldByClients {
    /// Connections, those that have not logged in included.
    pub connections: usize,
    /// Clients in the registry.
    pub clients: usize,
    /// Bytes that are counted for them.
    pub memory: usize,
    /// Backends that are not idle.
    pub backends: u32,
}

impl InProcess {
    /// A proxy of this configuration; fails on certificates.
    pub fn start(config: Config) -> Result<Self, TlsError> {
        let proxy = Proxy::new(config, mpsc::channel(1).0)?;
        let worker = Rc::new(Worker::new(0, Arc::new(proxy)));
        tokio::task::spawn_local(keep(Rc::clone(&worker)));
        Ok(Self { worker })
    }

    /// The client's end of a new connection.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let (ours, client) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        client.set_nonblocking(true)?;
        connection::serve(&self.worker, Accepted::Unix(ours));
        Ok(client)
    }

    /// What clients hold now.
    pub fn held(&self) -> HeldByClients {
        let proxy = &self.worker.proxy;
        let backends = proxy.pools.core().total();
        HeldByClients {
            connections: proxy.places.connections(),
            clients: proxy.clients.len(),
            memory: proxy.memory.used(),
            backends: backends.opening + backends.handed + backends.leased + backends.zombie,
        }
    }
}
