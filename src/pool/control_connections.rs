//! The processes at the servers that pgweir is connected to outside the pools: they are no client's, and not strangers
//! either.

use std::sync::{Arc, Mutex, MutexGuard};

use super::address::ServerAddress;

/// All control connections that are open.
#[derive(Debug, Clone, Default)]
pub struct ControlConnections(Arc<Mutex<Vec<(ServerAddress, i32)>>>);

impl ControlConnections {
    /// A connection to this process is open, until the entry is dropped.
    pub fn enter(&self, address: ServerAddress, pid: i32) -> ListedConnection {
        self.open().push((address.clone(), pid));
        ListedConnection { all: self.clone(), address, pid }
    }

    /// The processes at one server.
    pub fn at(&self, server: &ServerAddress) -> Vec<i32> {
        self.open().iter().filter(|(address, _)| address.is_same_server(server)).map(|(_, pid)| *pid).collect()
    }

    fn open(&self) -> MutexGuard<'_, Vec<(ServerAddress, i32)>> {
        self.0.lock().expect("no panic while held")
    }
}

/// One control connection, listed until it is dropped.
#[derive(Debug)]
pub struct ListedConnection {
    all: ControlConnections,
    address: ServerAddress,
    pid: i32,
}

impl Drop for ListedConnection {
    fn drop(&mut self) {
        let mut open = self.all.open();
        if let Some(at) = open.iter().position(|(address, pid)| (address, *pid) == (&self.address, self.pid)) {
            open.swap_remove(at);
        }
    }
}
