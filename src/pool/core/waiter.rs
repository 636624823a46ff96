//! Waiters and their outcomes. The queue itself is `admission::wait_queue`.

use std::task::Waker;

use slotmap::{SlotMap, new_key_type};
use tokio::time::Instant;

use super::queue_id::LineId;
use super::{PoolId, RoleQueueId, SlotId, WaitError};

new_key_type! {
    /// A place in a pool's queue. Ends with `poll_ticket` giving an outcome, or with `drop_ticket`.
    pub struct Ticket;
}

/// One line of a pool's waiters.
pub(super) type TicketQueue = crate::admission::wait_queue::WaitQueue<Ticket>;

#[derive(Debug)]
pub(super) struct WaiterState {
    pub(super) pool: PoolId,
    /// The worker of its client.
    pub(super) worker: usize,
    /// The line of its pool's queue that it stands in.
    pub(super) line: LineId,
    /// The lane that its transaction is of.
    pub(super) lane: Option<RoleQueueId>,
    pub(super) since: Instant,
    /// Its arrival batch; `None` while it is held back.
    pub(super) batch: Option<u64>,
    /// Its part of `wait_timeout`, drawn from 0.9–1.1: waiters that came together do not leave together.
    pub(super) patience: f64,
    pub(super) notice: Notice,
    pub(super) turn: Turn,
}

/// Whether it has been reported to the client that it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    Untold,
    /// To be reported at the next poll.
    Due,
    /// Reported already, or need not be.
    Told,
}

#[derive(Debug)]
pub(super) enum Turn {
    Waiting(Waker),
    /// Out of the queue; this slot is reserved for the waiter.
    Handed(SlotId),
    /// Never waited: the refusal is reported a little later.
    Refused(WaitError, Waker),
    /// Out of the queue without a backend.
    Failed(WaitError),
}

impl Turn {
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting(_))
    }
}

pub(super) type Waiters = SlotMap<Ticket, WaiterState>;
