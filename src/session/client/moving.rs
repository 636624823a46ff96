//! A client at rest moves to another worker: everything of it that a thread owns is taken down here and set up there.

use std::rc::Rc;

use super::again::Again;
use super::{Client, Phase};
use crate::clients::ClientHandle;
use crate::net::stream::Stream;
use crate::session::context::Worker;
use crate::session::leased::Leased;
use crate::session::session::Session;
use crate::session::side::Side;
use crate::state::memory::MemoryShare;

/// A client between two workers.
#[derive(Debug)]
pub(crate) struct Mover {
    handle: ClientHandle,
    memory: MemoryShare,
    stream: Stream,
    side: Side,
    session: Session,
    again: Option<Box<Again>>,
    /// The backend that it keeps, in session mode or pinned.
    leased: Option<Leased>,
}

impl Client {
    /// Nothing of the client is under way, in either direction.
    pub(super) fn is_at_rest(&self) -> bool {
        let is_between_cycles = match &self.phase {
            Phase::Idle => true,
            Phase::Leased(leased) => leased.is_at_rest(),
            Phase::Waiting(_) | Phase::Orphaned(_) => false,
        };
        is_between_cycles
            && self.held.is_empty()
            && self.side.is_at_rest()
            && !self.is_discarding
            && !self.is_unsynced
            && self.leaving.is_none()
            && self.broken.is_none()
            && self.signals.is_none()
            && self.withheld.is_none()
            && self.refusal.is_none()
            && self.copy_rest.is_none()
    }

    /// Leaves its worker; it has to be at rest.
    pub(crate) fn depart(self) -> Mover {
        let leased = match self.phase {
            Phase::Leased(leased) => Some(leased),
            Phase::Idle | Phase::Waiting(_) | Phase::Orphaned(_) => None,
        };
        let Self { handle, memory, stream, side, session, again, .. } = self;
        Mover { handle, memory, stream, side, session, again, leased }
    }
}

impl Mover {
    /// Arrives at the worker of this thread. A socket that cannot be registered here is lost: the client finds its own,
    /// or its backend's, broken at its first poll, and ends or goes on as after any such loss.
    pub(crate) fn arrive(mut self, worker: Rc<Worker>) -> Box<Client> {
        let _ = self.stream.adopt();
        if let Some(leased) = &mut self.leased {
            let _ = leased.lease.adopt(worker.id);
        }
        let mut client = Client::new(worker, self.handle, self.stream, self.session);
        client.memory = self.memory;
        client.side = self.side;
        client.again = self.again;
        if let Some(leased) = self.leased {
            client.phase = Phase::Leased(leased);
        }
        Box::new(client)
    }
}
