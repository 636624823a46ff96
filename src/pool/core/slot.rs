//! A slot: the right to one backend, from the decision to dial until its socket is really closed.
//!
//! A slot counts against every bound for that whole time; a closed backend lives on in Postgres for some
//! milliseconds, and replacing it at once would overshoot `max_connections`. One that was given up at work may live on
//! much longer.

use slotmap::new_key_type;
use tokio::time::Instant;

use super::{PoolId, RoleQueueId};
use crate::words::words;

new_key_type! {
    /// Names a slot; finds nothing once the slot is gone.
    pub struct SlotId;
    /// Names one of the servers that a database is read from.
    pub(super) struct ReaderId;
}

/// The state of a slot, with the backend where the core holds it.
#[derive(Debug)]
pub(super) enum SlotState<B> {
    /// Being dialled. `probe`: dialled to find out whether the endpoint (or the pool's login) works again.
    Opening { probe: bool },
    /// On a worker's stack since `since`.
    Idle { backend: B, since: Instant },
    /// Promised to a waiter that has not picked it up.
    Handed { backend: B },
    /// With its holder.
    Leased,
    /// On its way out; the socket may still be open.
    Closing,
    /// Given up by its holder: its server process may go on with its work until it notices.
    Zombie,
}

words! {
    /// The phase of a slot; the index into [`SlotCounts`].
    pub enum SlotPhase {
        /// Being dialled.
        Opening = "opening",
        /// On a stack, free to lease.
        Idle = "idle",
        /// Promised to a waiter that has not picked it up yet.
        Handed = "handed",
        /// With a holder.
        Leased = "leased",
        /// Idle before, asked to close, not yet reported closed.
        Closing = "closing",
        /// Given up by its holder, not yet reported closed: its server process may still be at work.
        Zombie = "zombie",
    }
}

impl<B> SlotState<B> {
    pub(super) fn phase(&self) -> SlotPhase {
        match self {
            Self::Opening { .. } => SlotPhase::Opening,
            Self::Idle { .. } => SlotPhase::Idle,
            Self::Handed { .. } => SlotPhase::Handed,
            Self::Leased => SlotPhase::Leased,
            Self::Closing => SlotPhase::Closing,
            Self::Zombie => SlotPhase::Zombie,
        }
    }
}

#[derive(Debug)]
pub(super) struct Slot<B> {
    pub(super) pool: PoolId,
    /// The role queue of its pool.
    pub(super) role_queue: Option<RoleQueueId>,
    /// The server that it is at, where its database is read from several.
    pub(super) reader: Option<ReaderId>,
    pub(super) state: SlotState<B>,
    /// The pool's generation when the dial was decided.
    pub(super) generation: u64,
    /// The worker that last had it; an idle slot lies on that worker's stack.
    pub(super) worker: usize,
    pub(super) opened: Instant,
    /// When its backend went to a client; it holds a permit of its role since.
    pub(super) entered: Option<Instant>,
    /// The lane of that client's transaction, of which it holds a permit, too.
    pub(super) lane: Option<RoleQueueId>,
    /// Drawn at birth from 0.8–1.2: spreads this backend's lifetime and idle timeout, so that backends born
    /// together do not die together.
    pub(super) spread: f64,
    pub(super) expires: Option<Instant>,
}

/// How many slots are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotCounts {
    /// Being dialled.
    pub opening: u32,
    /// On a stack, free to lease.
    pub idle: u32,
    /// Promised to a waiter that has not picked it up yet.
    pub handed: u32,
    /// With a holder.
    pub leased: u32,
    /// Idle before, asked to close, not yet reported closed.
    pub closing: u32,
    /// Given up by its holder, not yet reported closed. Unlike closing slots, it may take any time until it is free.
    pub zombie: u32,
}

impl SlotCounts {
    /// Every slot: the number that the bounds limit.
    pub fn open(&self) -> u32 {
        self.live() + self.closing + self.zombie
    }

    /// Every slot but those on their way out.
    pub fn live(&self) -> u32 {
        self.opening + self.idle + self.handed + self.leased
    }

    /// Adds the counts of another pool.
    pub fn add(&mut self, other: Self) {
        let Self { opening, idle, handed, leased, closing, zombie } = other;
        self.opening += opening;
        self.idle += idle;
        self.handed += handed;
        self.leased += leased;
        self.closing += closing;
        self.zombie += zombie;
    }

    pub(super) fn shift(&mut self, from: Option<SlotPhase>, to: Option<SlotPhase>) {
        if let Some(from) = from {
            *self.of(from) -= 1;
        }
        if let Some(to) = to {
            *self.of(to) += 1;
        }
    }

    /// Number of slots in one phase.
    pub fn in_phase(mut self, phase: SlotPhase) -> u32 {
        *self.of(phase)
    }

    fn of(&mut self, phase: SlotPhase) -> &mut u32 {
        match phase {
            SlotPhase::Opening => &mut self.opening,
            SlotPhase::Idle => &mut self.idle,
            SlotPhase::Handed => &mut self.handed,
            SlotPhase::Leased => &mut self.leased,
            SlotPhase::Closing => &mut self.closing,
            SlotPhase::Zombie => &mut self.zombie,
        }
    }
}
