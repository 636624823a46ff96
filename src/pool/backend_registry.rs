//! Every open backend as the console shows it, in use or not. Written only when a backend opens and when it is closed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use super::backend::{Backend, BackendHandle};
use super::core::SlotId;
use super::pool::Pool;

/// The facts about a backend that do not change.
#[derive(Debug, Clone)]
pub(crate) struct BackendFacts {
    pub pool: Arc<Pool>,
    /// Where it is, with its process id; the same as its client's entry has while it is leased.
    pub target: Arc<BackendHandle>,
    /// Our end of the connection, if it is TCP.
    pub local: Option<SocketAddr>,
    /// Under TLS.
    pub is_tls: bool,
    /// When it logged in.
    pub connected: SystemTime,
}

impl BackendFacts {
    /// Of a backend of `pool` that has just opened.
    pub(crate) fn new(pool: Arc<Pool>, backend: &Backend) -> Self {
        Self {
            pool,
            target: Arc::clone(&backend.target),
            local: backend.stream.socket().local_addr(),
            is_tls: backend.stream.is_tls(),
            connected: backend.connected,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct BackendRegistry(Mutex<HashMap<SlotId, BackendFacts>>);

impl BackendRegistry {
    /// A backend opened in this slot.
    pub(crate) fn enter(&self, slot: SlotId, facts: BackendFacts) {
        self.slots().insert(slot, facts);
    }

    /// The slot's backend is closed.
    pub(crate) fn leave(&self, slot: SlotId) -> Option<BackendFacts> {
        self.slots().remove(&slot)
    }

    pub(crate) fn all(&self) -> Vec<(SlotId, BackendFacts)> {
        self.slots().iter().map(|(slot, facts)| (*slot, facts.clone())).collect()
    }

    /// The targets of the backends for which `is` holds.
    pub(crate) fn find(&self, is: impl Fn(&BackendFacts) -> bool) -> Vec<Arc<BackendHandle>> {
        self.slots().values().filter(|facts| is(facts)).map(|facts| Arc::clone(&facts.target)).collect()
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<SlotId, BackendFacts>> {
        self.0.lock().expect("no panic while held")
    }
}
