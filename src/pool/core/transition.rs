//! The moves of a slot and of a queue, each with its counting; nothing is decided here.
//!
//! Slots and waiters are counted at three levels (pool, database, all), in one function each.

use std::task::Waker;

use tokio::time::Instant;

use super::bound::ActivityChange;
use super::queue_id::LineId;
use super::slot::{ReaderId, Slot, SlotPhase, SlotState};
use super::waiter::{TicketQueue, Turn, WaiterState, Waiters};
use super::{Command, Core, DatabaseId, PoolId, RoleQueueId, SlotId, WaitError, is_waiting_in};

impl<B> Core<B> {
    /// Whether the slot is of an older generation, past its lifetime, or at a server that is no longer used.
    pub(super) fn is_spent(&self, slot: SlotId, now: Instant) -> bool {
        let slot = &self.slots[slot];
        slot.generation != self.pools[slot.pool].generation
            || slot.expires.is_some_and(|expires| now >= expires)
            || slot.reader.is_some_and(|reader| self.is_unused_reader(slot.pool, reader))
    }

    pub(super) fn is_in(&self, slot: SlotId, phase: SlotPhase) -> bool {
        self.slots.get(slot).is_some_and(|slot| slot.state.phase() == phase)
    }

    /// Takes the backend out of an idle or handed slot, which is leased from then on.
    pub(super) fn take(&mut self, slot: SlotId) -> B {
        match self.change(slot, SlotState::Leased) {
            SlotState::Idle { backend, .. } | SlotState::Handed { backend } => backend,
            SlotState::Opening { .. } | SlotState::Leased | SlotState::Closing | SlotState::Zombie => {
                unreachable!("only slots that hold a backend are taken from")
            }
        }
    }

    pub(super) fn close(&mut self, slot: SlotId, backend: B, out: &mut Vec<Command<B>>) {
        self.change(slot, SlotState::Closing);
        out.push(Command::Close { slot, backend });
    }

    /// Closes an idle backend that is still on its stack.
    pub(super) fn close_idle(&mut self, slot: SlotId, out: &mut Vec<Command<B>>) {
        let Slot { pool, worker, reader, .. } = self.slots[slot];
        let pool = &mut self.pools[pool];
        match reader {
            None => pool.idle.remove(worker, slot),
            Some(reader) => {
                if let Some(stacks) = pool.readers.as_mut().and_then(|readers| readers.idle.get_mut(reader)) {
                    stacks.remove(worker, slot);
                }
            }
        }
        let backend = self.take(slot);
        self.close(slot, backend, out);
    }

    pub(super) fn change(&mut self, slot: SlotId, to: SlotState<B>) -> SlotState<B> {
        let slot = &mut self.slots[slot];
        let (pool, reader) = (slot.pool, slot.reader);
        let phase = to.phase();
        let was = std::mem::replace(&mut slot.state, to);
        self.shift((pool, reader), Some(was.phase()), Some(phase));
        was
    }

    /// Ends a slot; returns the database whose bound it was under.
    pub(super) fn remove(&mut self, slot: SlotId) -> DatabaseId {
        let slot = self.slots.remove(slot).expect("the caller has looked at it");
        self.shift((slot.pool, slot.reader), Some(slot.state.phase()), None);
        let database = self.pools[slot.pool].database;
        self.bury(slot.pool);
        database
    }

    /// The one place where slots are counted, at all three levels and at their reader.
    pub(super) fn shift(
        &mut self,
        (pool, reader): (PoolId, Option<ReaderId>),
        from: Option<SlotPhase>,
        to: Option<SlotPhase>,
    ) {
        let pool = &mut self.pools[pool];
        let is_live = |phase: Option<SlotPhase>| {
            phase.is_some_and(|phase| !matches!(phase, SlotPhase::Closing | SlotPhase::Zombie))
        };
        // From one live state to another, as every lease and release, changes nothing more.
        let may_matter = !(is_live(from) && is_live(to));
        let was_active = may_matter && pool.is_active();
        pool.counts.shift(from, to);
        let active = match may_matter {
            true => ActivityChange::between(was_active, pool.is_active()),
            false => ActivityChange::None,
        };
        let share = pool.limits.share;
        let database = &mut self.databases[pool.database];
        database.bound.shift(from, to, active, share);
        if let Some(reader) = reader
            && let Some(readers) = &mut database.readers
        {
            readers.shift(reader, from, to);
        }
        self.total.shift(from, to, active, share);
    }

    /// The one place where waiters are counted: at all three levels, and by their roles and lanes.
    pub(super) fn change_queue<R>(
        &mut self,
        pool_id: PoolId,
        line: LineId,
        change: impl FnOnce(&mut TicketQueue, &mut Waiters) -> R,
    ) -> R {
        let pool = &mut self.pools[pool_id];
        let (was_active, waited) = (pool.is_active(), pool.queue.waiting());
        let queue = pool.queue.line_mut(line);
        let before = queue.waiting();
        let result = change(queue, &mut self.waiters);
        let after = queue.waiting();
        pool.queue.tidy();
        let (is_active, waiting) = (pool.is_active(), pool.queue.waiting());
        if let Some(role_queue) = pool.role_queue {
            let limiter = &mut self.role_queues[role_queue].limiter;
            match line {
                None => limiter.queued(before, after),
                Some(_) => limiter.queued_beside(before, after),
            }
        }
        if let Some(lane) = line.and_then(|lane| self.role_queues.get_mut(lane)) {
            lane.limiter.queued(before, after);
            match ActivityChange::between(before > 0, after > 0) {
                ActivityChange::Began => lane.pools.push(pool_id),
                ActivityChange::Ended => lane.pools.retain(|pool| *pool != pool_id),
                ActivityChange::None => {}
            }
        }
        let share = pool.limits.share;
        for bound in [&mut self.databases[pool.database].bound, &mut self.total] {
            bound.waiting = bound.waiting - waited + waiting;
            bound.note(ActivityChange::between(was_active, is_active), share);
            match ActivityChange::between(waited > 0, waiting > 0) {
                ActivityChange::Began => bound.hungry.push(pool_id),
                ActivityChange::Ended => bound.hungry.retain(|hungry| *hungry != pool_id),
                ActivityChange::None => {}
            }
        }
        if let Some(lane) = line.filter(|_| after == 0) {
            self.bury_role_queue(lane);
        }
        result
    }

    /// Takes the next out of a line, rather one of this worker, with its waker and its lane.
    pub(super) fn pop_waiter(
        &mut self,
        pool: PoolId,
        line: LineId,
        worker: usize,
        turn: Turn,
    ) -> Option<(Waker, Option<RoleQueueId>)> {
        // A copy for the time of the call, because the queue is ours, too.
        let mut rng = self.rng.clone();
        let popped = self.change_queue(pool, line, |queue, waiters| {
            let is_near = |ticket| waiters.get(ticket).is_some_and(|waiter| waiter.worker == worker);
            let ticket = queue.pop(&mut rng, |ticket| is_waiting_in(waiters, ticket), is_near)?;
            let waiter = &mut waiters[ticket];
            match std::mem::replace(&mut waiter.turn, turn) {
                Turn::Waiting(waker) => Some((waker, waiter.lane)),
                Turn::Handed(_) | Turn::Refused(..) | Turn::Failed(_) => unreachable!("a waiter in the queue waits"),
            }
        });
        self.rng = rng;
        popped
    }

    /// Takes waiters out of all lines of a pool that are due.
    pub(super) fn fail_waiters(
        &mut self,
        pool: PoolId,
        error: WaitError,
        is_due: impl Fn(&WaiterState) -> bool,
        out: &mut Vec<Command<B>>,
    ) {
        let lines: Vec<LineId> = self.pools[pool].queue.all().map(|(line, _)| line).collect();
        for line in lines {
            self.fail_line(pool, line, error, |_| true, &is_due, out);
        }
    }

    /// Takes waiters out of a line that are due, looking only into batches that began early enough.
    pub(super) fn fail_line(
        &mut self,
        pool: PoolId,
        line: LineId,
        error: WaitError,
        may_hold: impl Fn(Instant) -> bool,
        is_due: impl Fn(&WaiterState) -> bool,
        out: &mut Vec<Command<B>>,
    ) -> u64 {
        let due = self.change_queue(pool, line, |queue, waiters| {
            let due = queue.take_due(may_hold, |ticket| {
                waiters.get(ticket).is_some_and(|waiter| waiter.turn.is_waiting() && is_due(waiter))
            });
            for ticket in &due {
                if let Turn::Waiting(waker) = std::mem::replace(&mut waiters[*ticket].turn, Turn::Failed(error)) {
                    out.push(Command::Wake(waker));
                }
            }
            due.len()
        });
        due as u64
    }
}
