//! Changes by an operator or a reload: databases and pools, limits, generations, pause.

use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::bound::{ActivityChange, Bound};
use super::endpoint::Health;
use super::fleet::FleetLimit;
use super::idle::IdleStacks;
use super::lines::PoolQueue;
use super::queue_id::RoleQueueId;
use super::role_queue::LeaseEnd;
use super::share::Level;
use super::slot::Slot;
use super::stops::DatabaseStops;
use super::waiter::{Ticket, Turn, WaiterState};
use super::{Command, Core, DatabaseId, DatabaseState, PoolId, PoolState, SlotCounts, WaitError};
use crate::admission::limiter::LeaseScope;
use crate::config::Share;

/// The properties of a database that may change at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseLimits {
    /// Slots over all its pools.
    pub backends_max: Option<u32>,
    /// How long a waiter waits while the endpoint is down.
    pub connect_timeout: Duration,
}

/// The properties of a pool that may change at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolLimits {
    /// Slots of this pool.
    pub size: u32,
    /// Length of its queue.
    pub waiters_max: u32,
    /// A waiter leaves the queue after this long, as of the next tick.
    pub wait_timeout: Option<Duration>,
    /// An idle backend is closed after this long, ±20 %.
    pub idle_timeout: Option<Duration>,
    /// A backend is closed at this age, ±20 %, when nobody has it.
    pub lifetime: Option<Duration>,
    /// How long a lease lasts.
    pub lease_scope: LeaseScope,
    /// Its part where slots of a database are short.
    pub share: Share,
}

impl PoolLimits {
    /// When a backend opened at `opened` is past its lifetime.
    pub(super) fn expiry(&self, opened: Instant, spread: f64) -> Option<Instant> {
        Some(opened + self.lifetime?.mul_f64(spread))
    }
}

/// Whether backends that are open may be those of another server than the one that has shown its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerEpoch {
    /// The same server process has had the role all the time.
    Same,
    New,
}

impl<B> Core<B> {
    /// Adds an endpoint.
    pub fn add_database(&mut self, limits: DatabaseLimits) -> DatabaseId {
        self.databases.insert(DatabaseState {
            bound: Bound::new(self.parts.of_newcomer(limits.backends_max)),
            limits,
            health: Health::new(),
            readers: None,
            pools: Vec::new(),
            stops: DatabaseStops::default(),
            pauses: 0,
            is_removed: false,
        })
    }

    /// Adds a pool, in the role queue of its role; `None` when the database was removed.
    pub fn add_pool(
        &mut self,
        database: DatabaseId,
        role_queue: Option<RoleQueueId>,
        limits: PoolLimits,
    ) -> Option<PoolId> {
        let owner = self.databases.get_mut(database).filter(|database| !database.is_removed)?;
        let role_queue = role_queue.filter(|role_queue| self.role_queues.contains_key(*role_queue));
        let pool = self.pools.insert(PoolState {
            database,
            role_queue,
            limits,
            generation: 0,
            counts: SlotCounts::default(),
            openings_stale: 0,
            idle: IdleStacks::new(self.workers),
            readers: owner.readers.is_some().then(Box::default),
            queue: PoolQueue::default(),
            warm: 0,
            refused: None,
            is_removed: false,
        });
        owner.pools.push(pool);
        if let Some(role_queue) = role_queue {
            self.role_queues[role_queue].pools.push(pool);
        }
        Some(pool)
    }

    /// Changes the bound over all. As with every limit: raising admits at once; lowering closes idle backends now and
    /// leased ones as they come back.
    pub fn set_total_max(&mut self, total_max: Option<u32>, now: Instant, out: &mut Vec<Command<B>>) {
        self.total_max = total_max;
        self.total.max = self.parts.bound(FleetLimit::Total, total_max);
        self.trim(Level::Total, out);
        self.serve(None, now, out);
    }

    /// Changes a database's limits.
    pub fn set_database(
        &mut self,
        database: DatabaseId,
        limits: DatabaseLimits,
        now: Instant,
        out: &mut Vec<Command<B>>,
    ) {
        let Some(changed) = self.databases.get_mut(database) else {
            return;
        };
        changed.bound.max = self.parts.bound(FleetLimit::Database(database), limits.backends_max);
        changed.limits = limits;
        self.trim(Level::Database(database), out);
        self.serve(Some(database), now, out);
    }

    /// Changes a pool's limits. A login refused before is tried again at once.
    pub fn set_pool(&mut self, pool: PoolId, limits: PoolLimits, now: Instant, out: &mut Vec<Command<B>>) {
        let Some(changed) = self.pools.get_mut(pool) else {
            return;
        };
        for slot in self.slots.values_mut().filter(|slot| slot.pool == pool) {
            slot.expires = limits.expiry(slot.opened, slot.spread);
        }
        let database = changed.database;
        if changed.is_active() {
            let (before, after) = (changed.limits.share, limits.share);
            for bound in [&mut self.databases[database].bound, &mut self.total] {
                bound.note(ActivityChange::Ended, before);
                bound.note(ActivityChange::Began, after);
            }
        }
        changed.limits = limits;
        changed.refused = None;
        while self.pools[pool].counts.live() > self.pools[pool].limits.size {
            let Some((slot, _)) = self.longest_idle(pool) else {
                break;
            };
            self.close_idle(slot, out);
        }
        self.serve_lines(pool, 0, now, out);
        self.serve(Some(database), now, out);
    }

    /// Fails the waiters and closes idle backends; leased backends are closed as they come back, and then the id ends.
    pub fn remove_pool(&mut self, pool: PoolId, now: Instant, out: &mut Vec<Command<B>>) {
        let Some(removed) = self.pools.get_mut(pool) else {
            return;
        };
        removed.is_removed = true;
        removed.limits.share.reserved = 0;
        self.fail_waiters(pool, WaitError::Removed, |_| true, out);
        self.close_all_idle(pool, out);
        let database = self.pools[pool].database;
        self.bury(pool);
        // The slots reserved for it are free for any pool now.
        if self.databases.contains_key(database) {
            self.serve(Some(database), now, out);
        }
    }

    /// Removes all pools of a database and, when their last slot is gone, the database.
    pub fn remove_database(&mut self, database: DatabaseId, now: Instant, out: &mut Vec<Command<B>>) {
        let Some(removed) = self.databases.get_mut(database) else {
            return;
        };
        removed.is_removed = true;
        for pool in removed.pools.clone() {
            self.remove_pool(pool, now, out);
        }
        self.bury_database(database);
    }

    /// Starts a new generation: idle backends are closed now, leased ones (and those handed to a waiter) as they come
    /// back, openings as they arrive. Waiters wait. A login refused before is tried again at once.
    pub fn retire_pool(&mut self, pool: PoolId, now: Instant, out: &mut Vec<Command<B>>) {
        self.revoke_pool(pool, out);
        self.replace(pool, now, out);
    }

    /// Opens what a retirement leaves to be opened.
    pub(super) fn replace(&mut self, pool: PoolId, now: Instant, out: &mut Vec<Command<B>>) {
        let Some(retired) = self.pools.get_mut(pool) else {
            return;
        };
        retired.refused = None;
        let database = retired.database;
        self.serve(Some(database), now, out);
    }

    /// Starts a new generation, as [`Self::retire_pool`]; but the login of its backends is refused, so none is opened
    /// before somebody asks.
    pub fn revoke_pool(&mut self, pool: PoolId, out: &mut Vec<Command<B>>) {
        let Some(revoked) = self.pools.get_mut(pool) else {
            return;
        };
        revoked.generation += 1;
        revoked.openings_stale = revoked.counts.opening;
        self.close_all_idle(pool, out);
    }

    /// Retires every pool of a database.
    pub fn retire_database(&mut self, database: DatabaseId, now: Instant, out: &mut Vec<Command<B>>) {
        let Some(retired) = self.databases.get(database) else {
            return;
        };
        for pool in retired.pools.clone() {
            self.retire_pool(pool, now, out);
        }
    }

    /// DatabaseStops leases and dials; clients that ask wait. See [`DatabaseView::is_drained`](super::DatabaseView).
    pub fn pause(&mut self, database: DatabaseId) {
        if let Some(paused) = self.databases.get_mut(database) {
            paused.stops.is_paused = true;
            paused.pauses += 1;
        }
    }

    /// Ends a pause: the queue gets the idle backends, and dials start.
    pub fn resume(&mut self, database: DatabaseId, now: Instant, out: &mut Vec<Command<B>>) {
        let Some(resumed) = self.databases.get_mut(database) else {
            return;
        };
        resumed.stops.is_paused = false;
        resumed.pauses += 1;
        resumed.health.resumed(now);
        if let Some(readers) = &mut resumed.readers {
            readers.resumed(now);
        }
        self.let_in(database, now, out);
    }

    /// No server is known to have the role that the database needs: no leases and no dials; clients that ask wait, and
    /// so do those that have been promised a backend and not picked it up.
    pub fn unprove(&mut self, database: DatabaseId, now: Instant, out: &mut Vec<Command<B>>) {
        if let Some(unproved) = self.databases.get_mut(database) {
            unproved.stops.is_unproved = true;
            self.recall(database, |_| true, now, out);
        }
    }

    /// A server has shown that it has the role. Backends of an earlier epoch are closed: idle and promised ones now,
    /// the others as they come back. The queue is let in slowly.
    pub fn prove(&mut self, database: DatabaseId, epoch: ServerEpoch, now: Instant, out: &mut Vec<Command<B>>) {
        if epoch == ServerEpoch::New && self.databases.contains_key(database) {
            let pools = self.databases[database].pools.clone();
            pools.iter().for_each(|pool| self.revoke_pool(*pool, out));
            self.recall(database, |_| true, now, out);
            pools.iter().for_each(|pool| self.replace(*pool, now, out));
        }
        let Some(proved) = self.databases.get_mut(database) else {
            return;
        };
        proved.health.proved();
        if std::mem::take(&mut proved.stops.is_unproved) {
            self.let_in(database, now, out);
        }
    }

    /// Takes back every such backend that a waiter of the database has been promised and not picked up. The waiter goes
    /// back to its place: it was woken, so it will poll and find that it still waits.
    pub(super) fn recall(
        &mut self,
        database: DatabaseId,
        is_meant: impl Fn(&Slot<B>) -> bool,
        now: Instant,
        out: &mut Vec<Command<B>>,
    ) {
        let promised = |(ticket, waiter): (Ticket, &WaiterState)| match waiter.turn {
            Turn::Handed(slot) if self.pools[waiter.pool].database == database && is_meant(&self.slots[slot]) => {
                Some((waiter.batch?, waiter.since, ticket, slot))
            }
            _ => None,
        };
        let mut recalled: Vec<_> = self.waiters.iter().filter_map(promised).collect();
        // The last first, so that each is in front of those that came later.
        recalled.sort_unstable_by(|a, b| b.cmp(a));
        let mut backends = Vec::with_capacity(recalled.len());
        for (batch, since, ticket, slot) in recalled {
            let backend = self.take(slot);
            let lane = self.leave(slot, LeaseEnd::Lost, now);
            let pool = self.waiters[ticket].pool;
            if self.pools[pool].is_removed {
                self.waiters[ticket].turn = Turn::Failed(WaitError::Removed);
            } else {
                self.waiters[ticket].turn = Turn::Waiting(Waker::noop().clone());
                self.rejoin(ticket, batch, since, now);
            }
            backends.push((slot, backend, lane));
        }
        for (slot, backend, lane) in backends {
            // ## Handed => (Idle | Closing)
            self.place(slot, backend, now, out);
            self.serve_lane(lane, now, out);
        }
    }

    /// A waiter goes back to its place in its line; if the lane has ended, to the end of the line of those in none.
    fn rejoin(&mut self, ticket: Ticket, batch: u64, since: Instant, now: Instant) {
        let WaiterState { pool, line, .. } = self.waiters[ticket];
        match line.is_none_or(|lane| self.role_queues.contains_key(lane)) {
            true => self.change_queue(pool, line, |queue, _| queue.rejoin(ticket, batch, since)),
            false => self.change_queue(pool, None, |queue, waiters| {
                let batch = queue.join(ticket, now, Duration::ZERO, false);
                (waiters[ticket].line, waiters[ticket].batch) = (None, Some(batch));
            }),
        }
    }

    /// The queue gets the idle backends, and dials start.
    pub(super) fn let_in(&mut self, database: DatabaseId, now: Instant, out: &mut Vec<Command<B>>) {
        let pools = self.databases[database].pools.clone();
        self.restart_role_queues(&pools, now);
        for pool in pools {
            self.serve_lines(pool, 0, now, out);
        }
        self.serve(Some(database), now, out);
    }

    pub(super) fn trim(&mut self, level: Level, out: &mut Vec<Command<B>>) {
        while self.bound(level).is_some_and(Bound::is_exceeded)
            && let Some(slot) = self.least_recently_used(level, None)
        {
            self.close_idle(slot, out);
        }
    }

    fn close_all_idle(&mut self, pool: PoolId, out: &mut Vec<Command<B>>) {
        while let Some((slot, _)) = self.longest_idle(pool) {
            self.close_idle(slot, out);
        }
    }

    /// Ends a removed pool once its last slot is gone.
    pub(super) fn bury(&mut self, pool: PoolId) {
        let buried = &self.pools[pool];
        if buried.is_removed && buried.counts.open() == 0 {
            let database = buried.database;
            self.leave_role_queue(pool);
            self.pools.remove(pool);
            self.databases[database].pools.retain(|other| *other != pool);
            self.bury_database(database);
        }
    }

    fn bury_database(&mut self, database: DatabaseId) {
        let is_over = |database: &DatabaseState| database.is_removed && database.pools.is_empty();
        if self.databases.get(database).is_some_and(is_over) {
            self.databases.remove(database);
        }
    }
}
