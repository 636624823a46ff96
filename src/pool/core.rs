//! The decision core of all pools: which client gets which backend, which waits, which backends are dialled or closed.
//!
//! No I/O, no lock, no clock: `now` is an argument, chance comes from the seed. The shell keeps one [`Core`] behind one
//! mutex for all pools, because three bounds nest (backends per pool, per database, in all) and only code that sees all
//! three can keep them in step. Every operation may append [`Command`]s, which the shell executes after unlocking;
//! leasing an idle backend and giving it back appends none and allocates nothing.
//!
//! A waiter here is a ticket, not a client. It waits in its pool's queue; the role's limiter (`admission::limiter`)
//! decides whether its role may start one more, so that a wait for a backend and a wait for the role's turn are one.

mod bound;
mod endpoint;
mod fleet;
mod idle;
mod lane;
mod lane_rules;
mod lines;
mod manage;
mod queue_id;
mod readers;
mod reading;
mod role_queue;
mod share;
mod slot;
mod stops;
mod tick;
mod transition;
mod view;
mod waiter;
mod warm;

#[cfg(test)]
mod random_operations;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use fastrand::Rng;
use slotmap::{SecondaryMap, SlotMap, new_key_type};
use tokio::time::Instant;

use bound::Bound;
use endpoint::{Health, Retry};
use idle::IdleStacks;
pub(crate) use lines::LineShare;
use lines::PoolQueue;
use queue_id::LineId;
use readers::Readers;
use role_queue::{LeaseEnd, RoleQueue};
use slot::{ReaderId, Slot, SlotState};
use stops::DatabaseStops;
use waiter::{Notice, Turn, WaiterState, Waiters};

use crate::pool::host_port::ServerTarget;

pub(crate) use endpoint::FailureKind;
pub(crate) use fleet::{FleetLimit, FleetParts};
pub(crate) use lane_rules::LaneRules;
pub(crate) use manage::ServerEpoch;

pub use manage::{DatabaseLimits, PoolLimits};
pub(crate) use queue_id::RoleQueueId;
pub(crate) use readers::{ReaderDuty, ReaderRules, ReaderSpec, ReaderState, ReaderView};
pub(crate) use role_queue::RoleQueueView;
pub use slot::SlotId;
pub(crate) use slot::{SlotCounts, SlotPhase};
pub(crate) use view::{DatabaseView, EndpointView};
pub(crate) use waiter::Ticket;

new_key_type! {
    /// Names a database: one endpoint, one bound over its pools.
    pub struct DatabaseId;
    /// Names a pool: the backends of one role in one database.
    pub struct PoolId;
}

/// The actions that the shell must take once it has let go of the lock.
#[derive(Debug)]
pub enum Command<B> {
    /// Connect and log in, then report [`Core::opened`] or [`Core::failed`].
    Dial {
        /// The pool whose login to use.
        pool: PoolId,
        /// To be named in the report.
        slot: SlotId,
        /// Where to, where the database is read from several servers.
        to: Option<Arc<ServerTarget>>,
    },
    /// Close this backend, then report [`Core::closed`].
    Close {
        /// To be named in the report.
        slot: SlotId,
        /// The backend, owned by nobody else any more.
        backend: B,
    },
    /// A ticket has its outcome, or its client is to get the notice that it waits.
    Wake(Waker),
    /// Call [`Core::alarm`] at this time.
    Alarm(Instant),
}

/// The answer to [`Core::lease`].
#[derive(Debug)]
#[must_use = "a leased backend must be released or discarded, a ticket polled or dropped"]
pub enum LeaseAnswer<B> {
    /// An idle backend, at once.
    Ready(SlotId, B),
    /// Waiting, or about to be refused; the waker is called when [`Core::poll_ticket`] has an answer.
    Wait(Ticket),
    /// Waiting would be in vain.
    Failed(WaitError),
}

/// The answer to [`Core::poll_ticket`].
#[derive(Debug)]
#[must_use = "a leased backend must be released or discarded"]
pub enum Progress<B> {
    /// Still waiting.
    Pending,
    /// Still waiting, for `notice_after` by now. Reported once.
    Waits {
        /// Clients of the role waiting, this one included.
        waiting: u32,
    },
    /// A backend; the ticket is used up.
    Ready(SlotId, B),
    /// No backend; the ticket is used up.
    Failed(WaitError),
}

/// Why waiting ended without a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The endpoint stayed unreachable for `connect_timeout` while this waiter waited.
    #[error("the database cannot be reached")]
    EndpointDown,
    /// So long was there no reader that could be used.
    #[error("no reader can be used")]
    NoReader,
    /// It waited for `wait_timeout`.
    #[error("{0}")]
    TimedOut(Bottleneck),
    /// The pool's queue was as long as it may get.
    #[error("{waiting} clients wait for this pool already")]
    PoolFull { waiting: u32 },
    /// The queues of the lane were as long as they may get, or the lane was full and lets nobody wait.
    #[error("{waiting} transactions of this lane wait already")]
    LaneFull { waiting: u32 },
    /// The role's queues were as long as they may get.
    #[error("{waiting} clients of this role wait already")]
    RoleFull { waiting: u32 },
    /// It would have waited for much longer than `wait_timeout`.
    #[error("{waiting} clients of this role wait already, which will take {expected:?}")]
    Shed {
        waiting: u32,
        /// The time they will take.
        expected: Duration,
    },
    /// The server refuses the pool's login, and no other backend of the pool is at work.
    #[error("the database refuses this login")]
    Refused,
    /// The pool was removed, or the ticket was used up before.
    #[error("the pool is gone")]
    Removed,
}

/// The resource that a waiter waited for in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bottleneck {
    /// A backend of the pool.
    #[error("no backend became free in time")]
    Pool,
    /// A transaction of the role to end.
    #[error("none of the transactions that the role may have at once ended in time")]
    Role,
    /// A transaction of the lane to end.
    #[error("none of the transactions that the lane may have at once ended in time")]
    Lane,
    /// The role's limit to be more than zero.
    #[error("the role's valve is closed: its limit is 0")]
    Closed,
    /// A server that has the role which the database needs.
    #[error("no server was known to have the role that the database needs")]
    Unproved,
}

/// Longest time until a refusal is reported to a client that may not wait.
const REFUSAL_DELAY: Duration = Duration::from_secs(1);

/// All pools. `B` is a backend: a boxed socket in production, a number in tests.
#[derive(Debug)]
pub struct Core<B> {
    databases: SlotMap<DatabaseId, DatabaseState>,
    pools: SlotMap<PoolId, PoolState>,
    role_queues: SlotMap<RoleQueueId, RoleQueue>,
    slots: SlotMap<SlotId, Slot<B>>,
    waiters: Waiters,
    /// The times at which refusals are reported to those refused.
    refused: BinaryHeap<Reverse<(Instant, Ticket)>>,
    /// The next moment the shell has been asked to wake us at.
    alarm: Option<Instant>,
    total: Bound,
    /// The fleet's bound over all, of which `total` has our part.
    total_max: Option<u32>,
    parts: FleetParts,
    workers: usize,
    /// Every opened slot, in the order `tick` looks at them.
    idle_scan: VecDeque<SlotId>,
    rng: Rng,
}

#[derive(Debug)]
struct DatabaseState {
    limits: DatabaseLimits,
    bound: Bound,
    health: Health,
    /// The servers that it is read from, where those are several; each has a health of its own.
    readers: Option<Box<Readers>>,
    pools: Vec<PoolId>,
    stops: DatabaseStops,
    /// Counts pauses and their ends: who ends a pause later sees whether it is still his.
    pauses: u64,
    is_removed: bool,
}

#[derive(Debug)]
struct PoolState {
    database: DatabaseId,
    /// The role queue of its role, unless the pool has nothing to do with transactions of clients.
    role_queue: Option<RoleQueueId>,
    limits: PoolLimits,
    generation: u64,
    counts: SlotCounts,
    /// Openings of an older generation, which will serve nobody.
    openings_stale: u32,
    idle: IdleStacks,
    /// Where its database is read from several servers.
    readers: Option<Box<PoolReaders>>,
    queue: PoolQueue,
    /// Backends that it keeps though nobody needs them.
    warm: u32,
    /// The server refused this pool's login, and nothing has opened since.
    refused: Option<Retry>,
    is_removed: bool,
}

impl PoolState {
    /// Whether the pool counts when the shared bounds are divided.
    fn is_active(&self) -> bool {
        self.queue.waiting() > 0 || self.counts.live() > 0
    }

    /// All its idle backends.
    fn stacks(&self) -> impl Iterator<Item = &IdleStacks> {
        std::iter::once(&self.idle).chain(self.readers.iter().flat_map(|readers| readers.idle.values()))
    }
}

/// The backends of a pool whose database is read from several servers.
#[derive(Debug, Default)]
struct PoolReaders {
    idle: SecondaryMap<ReaderId, IdleStacks>,
    /// Backends that left one reader and have not been opened at another.
    owed: u32,
}

impl<B> Core<B> {
    /// An empty core for workers `0..workers`; at most `total_max` slots in all. `seed` feeds back-off and lifetimes.
    pub fn new(workers: usize, total_max: Option<u32>, seed: u64) -> Self {
        Self {
            databases: SlotMap::with_key(),
            pools: SlotMap::with_key(),
            role_queues: SlotMap::with_key(),
            slots: SlotMap::with_key(),
            waiters: SlotMap::with_key(),
            refused: BinaryHeap::new(),
            alarm: None,
            total: Bound::new(total_max),
            total_max,
            parts: FleetParts::default(),
            workers,
            idle_scan: VecDeque::new(),
            rng: Rng::with_seed(seed),
        }
    }

    /// Asks for a backend on behalf of a client of `worker` (below the number given to [`Core::new`]) whose transaction
    /// is in no lane.
    pub fn lease(
        &mut self,
        pool: PoolId,
        worker: usize,
        now: Instant,
        waker: &Waker,
        out: &mut Vec<Command<B>>,
    ) -> LeaseAnswer<B> {
        self.lease_in(None, pool, worker, now, waker, out)
    }

    /// Asks for a backend on behalf of a client of `worker`, for a transaction of this lane.
    ///
    /// An idle backend is given only while nobody waits whose turn it could be, so no newcomer takes a backend that is
    /// due to a waiter.
    #[inline]
    pub fn lease_in(
        &mut self,
        lane: Option<RoleQueueId>,
        pool: PoolId,
        worker: usize,
        now: Instant,
        waker: &Waker,
        out: &mut Vec<Command<B>>,
    ) -> LeaseAnswer<B> {
        let Some(asked) = self.pools.get(pool).filter(|pool| !pool.is_removed) else {
            return LeaseAnswer::Failed(WaitError::Removed);
        };
        // A lane that only observes has no line.
        let holds = |lane: &RoleQueueId| self.role_queues.get(*lane).is_some_and(|lane| lane.shadow.is_none());
        let line = lane.filter(holds);
        let is_stopped = self.databases[asked.database].stops.is_any();
        let is_first = asked.queue.waiting() == 0 || self.is_nobody_due(pool, now);
        let may_be_idle = is_first && !is_stopped && asked.counts.idle > 0;
        let (lease_scope, role_queue) = (asked.limits.lease_scope, asked.role_queue);
        if let Some(role_queue) = role_queue {
            self.role_queues[role_queue].limiter.arrived(now);
        }
        let is_admitted = match line {
            None => role_queue
                .is_none_or(|role_queue| may_be_idle && self.role_queues[role_queue].limiter.admits(lease_scope, now)),
            Some(lane) => {
                self.role_queues[lane].limiter.arrived(now);
                may_be_idle && self.admits_in_lane(pool, lane, now)
            }
        };
        if may_be_idle && is_admitted {
            while let Some(slot) = self.next_idle(pool, worker, now) {
                let backend = self.take(slot);
                if !self.is_spent(slot, now) {
                    self.enter(slot, lane, false, now);
                    return LeaseAnswer::Ready(slot, backend);
                }
                self.close(slot, backend, out);
            }
        }
        let asked = &self.pools[pool];
        let is_refused = asked.refused.is_some_and(|retry| !retry.is_due(now));
        if is_refused && asked.counts.live() == 0 {
            return LeaseAnswer::Failed(WaitError::Refused);
        }
        match self.refusal(pool, line, now) {
            Some(error) => LeaseAnswer::Wait(self.refuse((pool, line), worker, error, now, waker)),
            None => LeaseAnswer::Wait(self.queue((pool, line, lane), worker, now, waker, out)),
        }
    }

    /// The reason why nobody more may wait for this pool, if there is one.
    fn refusal(&self, id: PoolId, line: LineId, now: Instant) -> Option<WaitError> {
        if let Some(refusal) = line.and_then(|lane| self.lane_refusal(lane, now)) {
            return Some(refusal);
        }
        let pool = &self.pools[id];
        let waiting = pool.queue.waiting();
        if waiting >= pool.limits.waiters_max {
            return Some(WaitError::PoolFull { waiting });
        }
        let limiter = &self.role_queues[line.or(pool.role_queue)?].limiter;
        let waiting = limiter.waiting();
        if limiter.rules().waiters_max.is_some_and(|max| waiting >= max) {
            return Some(match line {
                None => WaitError::RoleFull { waiting },
                Some(_) => WaitError::LaneFull { waiting },
            });
        }
        let expected = limiter.shed(self.wait_timeout(id, line)?, now)?;
        Some(WaitError::Shed { waiting, expected })
    }

    /// Refuses a newcomer a little later, so that a client without a back-off does not spin.
    fn refuse(
        &mut self,
        (pool, line): (PoolId, LineId),
        worker: usize,
        error: WaitError,
        now: Instant,
        waker: &Waker,
    ) -> Ticket {
        let roll = self.rng.f64();
        let wait_timeout = self.wait_timeout(pool, line).unwrap_or(REFUSAL_DELAY * 10);
        let delay = (wait_timeout / 10).min(REFUSAL_DELAY).mul_f64(0.5 + 0.5 * roll);
        if let Some(limiter) = self.limiter(pool, line) {
            match error {
                WaitError::Shed { .. } => limiter.counters().refused_shed += 1,
                _ => limiter.counters().refused_full += 1,
            }
        }
        let turn = Turn::Refused(error, waker.clone());
        let ticket = self.waiters.insert(WaiterState {
            pool,
            worker,
            line,
            lane: line,
            since: now,
            batch: None,
            patience: 1.0,
            notice: Notice::Told,
            turn,
        });
        self.refused.push(Reverse((now + delay, ticket)));
        ticket
    }

    fn queue(
        &mut self,
        (pool, line, lane): (PoolId, LineId, Option<RoleQueueId>),
        worker: usize,
        now: Instant,
        waker: &Waker,
        out: &mut Vec<Command<B>>,
    ) -> Ticket {
        let (patience, roll) = (0.9 + 0.2 * self.rng.f64(), self.rng.f64());
        let oldest_wait = self.pools[pool].queue.first_of(line).map_or(Duration::ZERO, |since| now - since);
        let (mut held_until, mut window, mut is_drawing) = (None, Duration::ZERO, false);
        if let Some(limiter) = self.limiter(pool, line) {
            held_until = limiter.hold(roll, now);
            window = limiter.rules().jitter_window;
            is_drawing = limiter.is_drawing(now);
        }
        let turn = Turn::Waiting(waker.clone());
        let (since, batch, notice) = (now, None, Notice::Untold);
        let ticket =
            self.waiters.insert(WaiterState { pool, worker, line, lane, since, batch, patience, notice, turn });
        self.change_queue(pool, line, |queue, waiters| match held_until {
            Some(until) => queue.hold(ticket, until),
            None => waiters[ticket].batch = Some(queue.join(ticket, now, window, is_drawing)),
        });
        if let Some(until) = held_until {
            self.wake_at(until, out);
        }
        if let Some(limiter) = self.limiter(pool, line) {
            limiter.deepened(oldest_wait, now);
        }
        self.serve_lines(pool, worker, now, out);
        ticket
    }

    /// Whether this ticket's turn has come.
    pub fn poll_ticket(&mut self, ticket: Ticket, waker: &Waker) -> Progress<B> {
        let Some(waiter) = self.waiters.get_mut(ticket) else {
            return Progress::Failed(WaitError::Removed);
        };
        let outcome = match &mut waiter.turn {
            Turn::Waiting(current) => {
                current.clone_from(waker);
                // Reported at this poll, and at no other.
                if waiter.notice != Notice::Due {
                    return Progress::Pending;
                }
                waiter.notice = Notice::Told;
                let (pool, line) = (waiter.pool, waiter.line);
                let waiting = self.limiter(pool, line).map_or(0, |limiter| limiter.waiting());
                return Progress::Waits { waiting };
            }
            Turn::Refused(_, current) => {
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

    /// A waiter goes away, whatever its turn. A backend already handed to it goes to the next waiter.
    pub fn drop_ticket(&mut self, ticket: Ticket, now: Instant, out: &mut Vec<Command<B>>) {
        let Some(waiter) = self.waiters.remove(ticket) else {
            return;
        };
        match waiter.turn {
            Turn::Waiting(_) => self.change_queue(waiter.pool, waiter.line, |queue, waiters| {
                queue.left(waiter.batch, |ticket| is_waiting_in(waiters, ticket));
            }),
            Turn::Handed(slot) => {
                let backend = self.take(slot);
                let lane = self.leave(slot, LeaseEnd::Lost, now);
                self.place(slot, backend, now, out);
                self.serve_lane(lane, now, out);
            }
            Turn::Refused(..) | Turn::Failed(_) => {}
        }
    }

    /// Gives a leased backend back, ready for anybody, on the worker that had it.
    pub fn release(&mut self, slot: SlotId, backend: B, worker: usize, now: Instant, out: &mut Vec<Command<B>>) {
        match self.slots.get_mut(slot) {
            Some(leased) if matches!(leased.state, SlotState::Leased) => {
                leased.worker = worker;
                let lane = self.leave(slot, LeaseEnd::Served, now);
                self.place(slot, backend, now, out);
                self.serve_lane(lane, now, out);
            }
            _ => out.push(Command::Close { slot, backend }),
        }
    }

    /// A leased backend is unfit; its holder closes it and reports [`Core::closed`].
    pub fn discard(&mut self, slot: SlotId) {
        if self.is_in(slot, SlotPhase::Leased) {
            // ## Leased => Zombie
            self.change(slot, SlotState::Zombie);
        }
    }

    /// The socket is really closed: the slot is gone, and its part of the bounds goes to the pool that is owed it.
    pub fn closed(&mut self, slot: SlotId, now: Instant, out: &mut Vec<Command<B>>) {
        self.discard(slot);
        if self.is_in(slot, SlotPhase::Closing) || self.is_in(slot, SlotPhase::Zombie) {
            let pool = self.slots[slot].pool;
            let lane = self.leave(slot, LeaseEnd::Lost, now);
            let role_queue = self.pools[pool].role_queue;
            let mut database = Some(self.remove(slot));
            if let Some(role_queue) = role_queue {
                self.hand_out(role_queue, now, out);
                // Its permit may be of use in another database.
                database = database
                    .filter(|_| self.role_queues.get(role_queue).is_none_or(|role_queue| role_queue.pools.len() < 2));
            }
            self.serve(database, now, out);
            self.serve_lane(lane, now, out);
        }
    }

    /// A dial led to a backend ready for use, on `worker`.
    pub fn opened(&mut self, slot: SlotId, backend: B, worker: usize, now: Instant, out: &mut Vec<Command<B>>) {
        if !self.is_in(slot, SlotPhase::Opening) {
            out.push(Command::Close { slot, backend });
            return;
        }
        let opened = &mut self.slots[slot];
        let pool = &mut self.pools[opened.pool];
        opened.worker = worker;
        opened.opened = now;
        opened.spread = 0.8 + 0.4 * self.rng.f64();
        opened.expires = pool.limits.expiry(now, opened.spread);
        if opened.generation == pool.generation {
            pool.refused = None;
        } else {
            pool.openings_stale -= 1;
        }
        let database = pool.database;
        match opened.reader {
            Some(reader) => self.change_readers(database, now, out, |readers| readers.opened(reader, now)),
            None => {
                if self.databases[database].health.down_since().is_some() {
                    let pools = self.databases[database].pools.clone();
                    self.restart_role_queues(&pools, now);
                }
                self.databases[database].health.succeeded();
            }
        }
        self.idle_scan.push_back(slot);
        self.place(slot, backend, now, out);
        self.serve(Some(database), now, out);
    }

    /// A dial failed and its socket is closed.
    pub fn failed(&mut self, slot: SlotId, kind: FailureKind, now: Instant, out: &mut Vec<Command<B>>) {
        let Some(&Slot { pool: pool_id, reader, generation, state: SlotState::Opening { probe }, .. }) =
            self.slots.get(slot)
        else {
            return;
        };
        let roll = self.rng.f64();
        let database = self.pools[pool_id].database;
        match reader {
            Some(reader) => {
                self.change_readers(database, now, out, |readers| readers.failed(reader, kind, probe, now, roll));
            }
            None => self.databases[database].health.failed(kind, probe, now, roll),
        }
        let pool = &mut self.pools[pool_id];
        let is_of_pool = match kind {
            FailureKind::Refused => true,
            // A full one of several readers says nothing about the others.
            FailureKind::Full => reader.is_none(),
            FailureKind::Unreachable | FailureKind::Busy => false,
        };
        if generation != pool.generation {
            pool.openings_stale -= 1;
        } else if is_of_pool {
            match &mut pool.refused {
                Some(retry) if probe => *retry = retry.after_another(now, roll),
                Some(_) => {}
                none => *none = Some(Retry::of_login(now, roll)),
            }
            // This slot is the one still counted. If other backends are at work, they serve the waiters; a place under
            // a limit comes free when one of them has closed, too.
            let others = match kind {
                FailureKind::Full => pool.counts.open() - 1,
                _ => pool.counts.live() - 1,
            };
            if others == 0 {
                self.fail_waiters(pool_id, WaitError::Refused, |_| true, out);
            }
        }
        let database = self.remove(slot);
        self.serve(Some(database), now, out);
    }

    /// Decides where a backend goes that nobody holds. Its slot is in a state that does not hold a backend.
    fn place(&mut self, slot: SlotId, backend: B, now: Instant, out: &mut Vec<Command<B>>) {
        let Slot { pool: pool_id, worker, .. } = self.slots[slot];
        let pool = &self.pools[pool_id];
        let database = &self.databases[pool.database];
        let has_waiters = self.total.waiting > 0 && !database.stops.is_any() && self.ready(pool_id, now) > 0;
        let is_too_many =
            pool.counts.live() > pool.limits.size || database.bound.is_exceeded() || self.total.is_exceeded();
        let has_no_future = is_too_many || pool.is_removed || self.is_spent(slot, now);
        if has_no_future || has_waiters && self.is_owed_elsewhere(pool_id, now) {
            // ## (Opening | Handed | Leased) => Closing: unfit to stay, or another pool has less than its share
            self.close(slot, backend, out);
            self.serve_lines(pool_id, worker, now, out);
        } else {
            // ## (Opening | Handed | Leased) => Idle
            let database = pool.database;
            self.change(slot, SlotState::Idle { backend, since: now });
            self.lay_idle(slot);
            if self.total.waiting > 0 {
                // ## Idle => Handed, to the next waiter of the role
                self.serve_lines(pool_id, worker, now, out);
                if self.is_in(slot, SlotPhase::Idle) {
                    self.evict_for_waiters(database, now, out);
                }
            }
        }
    }
}

fn is_waiting_in(waiters: &Waiters, ticket: Ticket) -> bool {
    waiters.get(ticket).is_some_and(|waiter| waiter.turn.is_waiting())
}
