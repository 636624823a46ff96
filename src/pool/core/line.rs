//! One pool's waiters in order of arrival.
//!
//! A waiter that leaves from the middle stays behind as a dead entry and is swept later, so leaving costs the same
//! at any length. The first entry is always alive.

use std::collections::VecDeque;
use std::task::Waker;

use slotmap::{SlotMap, new_key_type};
use tokio::time::Instant;

use super::{PoolId, SlotId, WaitError};

new_key_type! {
    /// A place in a pool's line. Ends with `poll_ticket` giving an outcome, or with `drop_ticket`.
    pub struct Ticket;
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) pool: PoolId,
    pub(super) since: Instant,
    pub(super) turn: Turn,
}

#[derive(Debug)]
pub(super) enum Turn {
    /// In line.
    Waiting(Waker),
    /// Out of line, this slot is reserved.
    Handed(SlotId),
    /// Out of line, for nothing.
    Failed(WaitError),
}

pub(super) type Waiters = SlotMap<Ticket, Waiter>;

#[derive(Debug, Default)]
pub(super) struct Line {
    entries: VecDeque<Ticket>,
    waiting: u32,
    first_since: Option<Instant>,
}

impl Line {
    pub(super) fn waiting(&self) -> u32 {
        self.waiting
    }

    /// When the first in line came.
    pub(super) fn first_since(&self) -> Option<Instant> {
        self.first_since
    }

    pub(super) fn join(&mut self, ticket: Ticket, since: Instant) {
        self.first_since.get_or_insert(since);
        self.entries.push_back(ticket);
        self.waiting += 1;
    }

    /// Takes the first out of line, with its waker.
    pub(super) fn serve(&mut self, waiters: &mut Waiters, turn: Turn) -> Option<Waker> {
        let ticket = self.entries.pop_front()?;
        self.waiting -= 1;
        let was = std::mem::replace(&mut waiters[ticket].turn, turn);
        self.sweep(waiters);
        match was {
            Turn::Waiting(waker) => Some(waker),
            Turn::Handed(_) | Turn::Failed(_) => unreachable!("the first in line is waiting"),
        }
    }

    /// A waiter left; it is no longer among `waiters`.
    pub(super) fn left(&mut self, waiters: &Waiters) {
        self.waiting -= 1;
        self.sweep(waiters);
    }

    fn sweep(&mut self, waiters: &Waiters) {
        if self.entries.len() > 2 * self.waiting as usize + 64 {
            self.entries.retain(|ticket| waiters.contains_key(*ticket));
        }
        while let Some(ticket) = self.entries.front() {
            if let Some(waiter) = waiters.get(*ticket) {
                self.first_since = Some(waiter.since);
                return;
            }
            self.entries.pop_front();
        }
        self.first_since = None;
    }
}
