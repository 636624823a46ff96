//! Who stands in line, and what became of them. The line itself is `admission::line`.

use std::task::Waker;

use slotmap::{SlotMap, new_key_type};
use tokio::time::Instant;

use super::{PoolId, SlotId, WaitError};

new_key_type! {
    /// A place in a pool's line. Ends with `poll_ticket` giving an outcome, or with `drop_ticket`.
    pub struct Ticket;
}

/// One pool's waiters.
pub(super) type Line = crate::admission::line::Line<Ticket>;

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) pool: PoolId,
    pub(super) since: Instant,
    /// Its arrival batch; `None` while it is held back.
    pub(super) batch: Option<u64>,
    /// Its part of `wait_timeout`, drawn from 0.9–1.1: who came together does not leave together.
    pub(super) patience: f64,
    pub(super) notice: Notice,
    pub(super) turn: Turn,
}

/// Has its client been told that it waits?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    Untold,
    /// At the next poll.
    Due,
    /// Or need not be.
    Told,
}

#[derive(Debug)]
pub(super) enum Turn {
    /// In line.
    Waiting(Waker),
    /// Out of line, this slot is reserved.
    Handed(SlotId),
    /// Never was in line, and is told so a little later.
    Refused(WaitError, Waker),
    /// Out of line, for nothing.
    Failed(WaitError),
}

impl Turn {
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting(_))
    }
}

pub(super) type Waiters = SlotMap<Ticket, Waiter>;
