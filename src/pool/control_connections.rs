//! The processes at the servers that pgweir is connected to outside the pools: they are no client's, and not strangers
//! either. They leave a database that somebody wants to drop, rename or copy.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::address::ServerAddress;
use crate::config::Endpoint;

/// How long no control connection goes back to a database that was left: Postgres waits five seconds for others to go.
const AWAY: Duration = Duration::from_secs(6);

/// All control connections that are open.
#[derive(Debug, Clone, Default)]
pub struct ControlConnections(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    open: Vec<ControlConnection>,
    /// Databases that were left, and until when.
    left: Vec<(Endpoint, Instant)>,
}

#[derive(Debug)]
struct ControlConnection {
    address: ServerAddress,
    pid: i32,
    endpoint: Endpoint,
    leave: Arc<Notify>,
}

impl ControlConnections {
    /// A connection to this process is open, until the entry is dropped.
    pub fn enter(&self, address: ServerAddress, pid: i32, endpoint: Endpoint) -> ListedConnection {
        let leave = Arc::<Notify>::default();
        let entry = ControlConnection { address: address.clone(), pid, endpoint, leave: Arc::clone(&leave) };
        self.state().open.push(entry);
        ListedConnection { all: self.clone(), address, pid, leave }
    }

    /// The processes at one server.
    pub fn at(&self, server: &ServerAddress) -> Vec<i32> {
        let state = self.state();
        state.open.iter().filter(|one| one.address.is_same_server(server)).map(|one| one.pid).collect()
    }

    /// Has those to this database leave, and keeps others away for a while.
    pub(crate) fn leave(&self, database: &Endpoint, now: Instant) {
        let mut state = self.state();
        state.left.retain(|(left, until)| now < *until && !left.is_same_database(database));
        state.left.push((database.clone(), now + AWAY));
        state.open.iter().filter(|one| one.endpoint.is_same_database(database)).for_each(|one| one.leave.notify_one());
    }

    /// Whether this database was left a moment ago.
    pub(crate) fn is_left(&self, database: &Endpoint, now: Instant) -> bool {
        self.state().left.iter().any(|(left, until)| now < *until && left.is_same_database(database))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while held")
    }
}

/// One control connection, listed until it is dropped.
#[derive(Debug)]
pub struct ListedConnection {
    all: ControlConnections,
    address: ServerAddress,
    pid: i32,
    leave: Arc<Notify>,
}

impl ListedConnection {
    /// Becomes notified when the connection has to leave its database.
    pub(crate) fn leave(&self) -> Arc<Notify> {
        Arc::clone(&self.leave)
    }
}

impl Drop for ListedConnection {
    fn drop(&mut self) {
        let open = &mut self.all.state().open;
        if let Some(at) = open.iter().position(|one| (&one.address, one.pid) == (&self.address, self.pid)) {
            open.swap_remove(at);
        }
    }
}
