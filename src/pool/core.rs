//! The decision core of all pools: who gets which backend, who waits, what is dialled, what is closed.
//!
//! No I/O, no lock, no clock: `now` is an argument, chance comes from the seed. The shell keeps one [`Core`] behind
//! one mutex for all pools, because three bounds nest (backends per pool, per database, in all) and only something
//! that sees all three cannot let them get out of step. Every operation may append [`Command`]s, which the shell
//! executes after unlocking; leasing an idle backend and giving it back appends none and allocates nothing.
//!
//! A waiter here is a ticket, not a client. Its time limit is the shell's business: it drops the ticket.

mod bound;
mod dice;
mod endpoint;
mod line;
mod manage;
mod share;
mod slot;
mod tick;
mod transition;
mod view;

#[cfg(test)]
mod random_operations;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::task::Waker;

use slotmap::{SlotMap, new_key_type};
use tokio::time::Instant;

use bound::Bound;
use dice::Dice;
use endpoint::{Backoff, Health};
use line::{Line, Turn, Waiter, Waiters};
use slot::{Slot, State};

pub use endpoint::{DIALS_MAX, FailureKind};
pub use line::Ticket;
pub use manage::{DatabaseLimits, PoolLimits};
pub use slot::{Counts, Phase, SlotId};
pub use view::{DatabaseView, EndpointView, PoolView};

new_key_type! {
    /// Names a database: one endpoint, one bound over its pools.
    pub struct DatabaseId;
    /// Names a pool: the backends of one role in one database.
    pub struct PoolId;
}

/// What the shell must do once it has let go of the lock.
#[derive(Debug)]
pub enum Command<B> {
    /// Connect and log in, then report [`Core::opened`] or [`Core::failed`].
    Dial {
        /// Whose login to use.
        pool: PoolId,
        /// To be named in the report.
        slot: SlotId,
    },
    /// Close this backend, then report [`Core::closed`].
    Close {
        /// To be named in the report.
        slot: SlotId,
        /// The backend, owned by nobody else any more.
        backend: B,
    },
    /// A ticket has its outcome.
    Wake(Waker),
}

/// The answer to [`Core::lease`].
#[derive(Debug)]
#[must_use = "a leased backend must be released or discarded, a ticket polled or dropped"]
pub enum Lease<B> {
    /// An idle backend, at once.
    Ready(SlotId, B),
    /// In line; the waker is called when [`Core::poll_ticket`] has something to say.
    Wait(Ticket),
    /// The line is as long as it may get.
    Full,
    /// No use waiting.
    Failed(WaitError),
}

/// The answer to [`Core::poll_ticket`].
#[derive(Debug)]
#[must_use = "a leased backend must be released or discarded"]
pub enum Progress<B> {
    /// Still in line.
    Pending,
    /// A backend; the ticket is used up.
    Ready(SlotId, B),
    /// No backend; the ticket is used up.
    Failed(WaitError),
}

/// Why waiting ended without a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The endpoint stayed unreachable for `connect_timeout` while this waiter stood in line.
    #[error("the database cannot be reached")]
    EndpointDown,
    /// It stood in line for `wait_timeout`.
    #[error("no backend became free in time")]
    TimedOut,
    /// The server refuses the pool's login, and no other backend of the pool is at work.
    #[error("the database refuses this login")]
    Refused,
    /// The pool was removed, or the ticket was used up before.
    #[error("the pool is gone")]
    Removed,
}

/// All pools. `B` is a backend: a boxed socket in production, a number in tests.
#[derive(Debug)]
pub struct Core<B> {
    databases: SlotMap<DatabaseId, Database>,
    pools: SlotMap<PoolId, Pool>,
    slots: SlotMap<SlotId, Slot<B>>,
    waiters: Waiters,
    total: Bound,
    workers: usize,
    /// Every opened slot, in the order `tick` looks at them.
    patrol: VecDeque<SlotId>,
    dice: Dice,
}

#[derive(Debug)]
struct Database {
    limits: DatabaseLimits,
    bound: Bound,
    health: Health,
    pools: Vec<PoolId>,
    is_paused: bool,
    is_removed: bool,
}

#[derive(Debug)]
struct Pool {
    database: DatabaseId,
    limits: PoolLimits,
    generation: u64,
    counts: Counts,
    /// Openings of an older generation: nobody will be served by them.
    openings_stale: u32,
    /// Per worker, the longest idle in front.
    idle: Vec<VecDeque<SlotId>>,
    line: Line,
    /// The server refused this pool's login, and nothing has opened since.
    refused: Option<Backoff>,
    is_removed: bool,
}

impl Pool {
    /// Counts when the shared bounds are divided.
    fn is_active(&self) -> bool {
        self.line.waiting() > 0 || self.counts.live() > 0
    }

    /// The backend used last by this worker, else by the worker that has most to spare.
    fn take_idle(&mut self, worker: usize) -> Option<SlotId> {
        self.idle[worker].pop_back().or_else(|| self.idle.iter_mut().max_by_key(|stack| stack.len())?.pop_back())
    }
}

impl<B> Core<B> {
    /// An empty core for workers `0..workers`; at most `total_max` slots in all. `seed` feeds back-off and lifetimes.
    pub fn new(workers: usize, total_max: Option<u32>, seed: u64) -> Self {
        Self {
            databases: SlotMap::with_key(),
            pools: SlotMap::with_key(),
            slots: SlotMap::with_key(),
            waiters: SlotMap::with_key(),
            total: Bound::new(total_max),
            workers,
            patrol: VecDeque::new(),
            dice: Dice(seed),
        }
    }

    /// Asks for a backend on behalf of a client of `worker` (below the number given to [`Core::new`]).
    ///
    /// An idle backend is given only while nobody waits, so no newcomer takes what a waiter is due.
    pub fn lease(
        &mut self,
        pool: PoolId,
        worker: usize,
        now: Instant,
        waker: &Waker,
        out: &mut Vec<Command<B>>,
    ) -> Lease<B> {
        let Some(asked) = self.pools.get(pool).filter(|pool| !pool.is_removed) else {
            return Lease::Failed(WaitError::Removed);
        };
        let is_paused = self.databases[asked.database].is_paused;
        if asked.line.waiting() == 0 && !is_paused && asked.counts.idle > 0 {
            while let Some(slot) = self.pools[pool].take_idle(worker) {
                let backend = self.take(slot);
                if !self.is_spent(slot, now) {
                    return Lease::Ready(slot, backend);
                }
                self.close(slot, backend, out);
            }
        }
        let asked = &self.pools[pool];
        let is_refused = asked.refused.is_some_and(|backoff| !backoff.is_over(now));
        if is_refused && asked.counts.live() == 0 {
            return Lease::Failed(WaitError::Refused);
        }
        if asked.line.waiting() >= asked.limits.waiters_max {
            return Lease::Full;
        }
        let ticket = self.waiters.insert(Waiter { pool, since: now, turn: Turn::Waiting(waker.clone()) });
        self.change_line(pool, |line, _| line.join(ticket, now));
        self.serve_newcomer(pool, now, out);
        Lease::Wait(ticket)
    }

    /// Has this ticket's turn come?
    pub fn poll_ticket(&mut self, ticket: Ticket, waker: &Waker) -> Progress<B> {
        let Some(waiter) = self.waiters.get_mut(ticket) else {
            return Progress::Failed(WaitError::Removed);
        };
        let outcome = match &mut waiter.turn {
            Turn::Waiting(current) => {
                current.clone_from(waker);
                return Progress::Pending;
            }
            // ## Handed => Leased
            Turn::Handed(slot) => {
                let slot = *slot;
                Progress::Ready(slot, self.take(slot))
            }
            Turn::Failed(error) => Progress::Failed(*error),
        };
        self.waiters.remove(ticket);
        outcome
    }

    /// A waiter goes away, whatever its turn. A backend already handed to it goes to the next in line.
    pub fn drop_ticket(&mut self, ticket: Ticket, now: Instant, out: &mut Vec<Command<B>>) {
        let Some(waiter) = self.waiters.remove(ticket) else {
            return;
        };
        match waiter.turn {
            Turn::Waiting(_) => self.change_line(waiter.pool, |line, waiters| line.left(waiters)),
            Turn::Handed(slot) => {
                let backend = self.take(slot);
                self.place(slot, backend, now, out);
            }
            Turn::Failed(_) => {}
        }
    }

    /// Gives a leased backend back, ready for anybody, on the worker that had it.
    pub fn release(&mut self, slot: SlotId, backend: B, worker: usize, now: Instant, out: &mut Vec<Command<B>>) {
        match self.slots.get_mut(slot) {
            Some(leased) if matches!(leased.state, State::Leased) => {
                leased.worker = worker;
                self.place(slot, backend, now, out);
            }
            _ => out.push(Command::Close { slot, backend }),
        }
    }

    /// A leased backend is unfit; its holder closes it and reports [`Core::closed`].
    pub fn discard(&mut self, slot: SlotId) {
        if self.is_in(slot, Phase::Leased) {
            // ## Leased => Zombie
            self.change(slot, State::Zombie);
        }
    }

    /// The socket is really closed: the slot is gone, and what it took of the bounds goes to whoever is owed it.
    pub fn closed(&mut self, slot: SlotId, now: Instant, out: &mut Vec<Command<B>>) {
        self.discard(slot);
        if self.is_in(slot, Phase::Closing) || self.is_in(slot, Phase::Zombie) {
            let database = self.remove(slot);
            self.serve(Some(database), now, out);
        }
    }

    /// A dial led to a backend ready for use, on `worker`.
    pub fn opened(&mut self, slot: SlotId, backend: B, worker: usize, now: Instant, out: &mut Vec<Command<B>>) {
        if !self.is_in(slot, Phase::Opening) {
            out.push(Command::Close { slot, backend });
            return;
        }
        let opened = &mut self.slots[slot];
        let pool = &mut self.pools[opened.pool];
        opened.worker = worker;
        opened.opened = now;
        opened.spread = 0.8 + 0.4 * self.dice.roll();
        opened.expires = pool.limits.expiry(now, opened.spread);
        if opened.generation == pool.generation {
            pool.refused = None;
        } else {
            pool.openings_stale -= 1;
        }
        let database = pool.database;
        self.databases[database].health.succeeded();
        self.patrol.push_back(slot);
        self.place(slot, backend, now, out);
        self.serve(Some(database), now, out);
    }

    /// A dial failed and its socket is closed.
    pub fn failed(&mut self, slot: SlotId, kind: FailureKind, now: Instant, out: &mut Vec<Command<B>>) {
        let Some(&Slot { pool: pool_id, generation, state: State::Opening { probe }, .. }) = self.slots.get(slot)
        else {
            return;
        };
        let roll = self.dice.roll();
        let pool = &mut self.pools[pool_id];
        self.databases[pool.database].health.failed(kind, probe, now, roll);
        if generation != pool.generation {
            pool.openings_stale -= 1;
        } else if kind == FailureKind::Refused {
            match &mut pool.refused {
                Some(backoff) if probe => *backoff = backoff.after_another(now, roll),
                Some(_) => {}
                none => *none = Some(Backoff::after_first(now, roll)),
            }
            // This slot is the one still counted. Where others are at work, waiters are served by them.
            if pool.counts.live() == 1 {
                self.fail_waiters(pool_id, WaitError::Refused, |_| true, out);
            }
        }
        let database = self.remove(slot);
        self.serve(Some(database), now, out);
    }

    /// Decides where a backend goes that nobody holds. Its slot is in any state that does not hold a backend.
    fn place(&mut self, slot: SlotId, backend: B, now: Instant, out: &mut Vec<Command<B>>) {
        let Slot { pool: pool_id, worker, .. } = self.slots[slot];
        let pool = &self.pools[pool_id];
        let database = &self.databases[pool.database];
        let has_waiters = pool.line.waiting() > 0 && !database.is_paused;
        let is_too_many =
            pool.counts.live() > pool.limits.size || database.bound.is_exceeded() || self.total.is_exceeded();
        if is_too_many || pool.is_removed || self.is_spent(slot, now) {
            // ## (Opening | Handed | Leased) => Closing: it has no future
            self.close(slot, backend, out);
        } else if !has_waiters {
            // ## (Opening | Handed | Leased) => Idle
            let database = pool.database;
            self.change(slot, State::Idle { backend, since: now });
            self.pools[pool_id].idle[worker].push_back(slot);
            if self.total.waiting > 0 {
                self.evict_for_waiters(database, now, out);
            }
        } else if self.is_owed_elsewhere(pool_id, now) {
            // ## (Opening | Handed | Leased) => Closing: another pool has less than its share
            self.close(slot, backend, out);
        } else {
            // ## (Opening | Handed | Leased) => Handed
            self.change(slot, State::Handed { backend });
            let waker = self.change_line(pool_id, |line, waiters| line.serve(waiters, Turn::Handed(slot)));
            out.extend(waker.map(Command::Wake));
        }
    }
}
