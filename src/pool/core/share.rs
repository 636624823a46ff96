//! The order of pools when slots are short: which may dial, which is evicted, which a release is owed to.
//!
//! A bound is shared among the pools that have live slots or waiters; a pool's share is the smaller of the parts that
//! its database's bound and the bound over all leave it. A pool below its share comes first, then the one whose first
//! waiter came first. Slots are not swapped for ever, because only a pool *above* its share gives, only one *below*
//! takes, and slots already on their way out count as given.

use std::cmp::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::bound::Bound;
use super::idle::IdleStacks;
use super::slot::{ReaderId, Slot, SlotPhase, SlotState};
use super::{Command, Core, DatabaseId, DatabaseState, PoolId, SlotId};
use crate::config::Priority;

/// A pool within its share keeps a backend this long after its last use when the pool that wants it has its share, so
/// that a busy pool and one with a query now and then do not swap the same slot all the time.
const REST: Duration = Duration::from_secs(1);

/// A pool without any backend takes one even from a pool within its share once its first waiter has waited this long:
/// the pace at which pools take turns where they outnumber the slots.
const TURN_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Database(DatabaseId),
    Total,
}

/// Slots that pools under a bound could use at once.
#[derive(Default)]
struct Claims {
    all: u32,
    /// Slots that would only fill up a pool's share.
    below_share: u32,
}

impl<B> Core<B> {
    /// Dials or evicts for a pool whose queue grew, or whose role may do more. The others' position is unchanged:
    /// everything that could be dialled for them is being dialled already.
    pub(super) fn serve_newcomer(&mut self, pool: PoolId, now: Instant, out: &mut Vec<Command<B>>) {
        while self.claim(pool, now) > 0 {
            if !self.fits(pool) {
                return self.evict_for_waiters(self.pools[pool].database, now, out);
            }
            self.dial(pool, now, out);
        }
    }

    /// Dials and evicts all that may be, after something changed in `database` or (`None`) anywhere.
    pub(super) fn serve(&mut self, database: Option<DatabaseId>, now: Instant, out: &mut Vec<Command<B>>) {
        if self.total.waiting == 0 {
            return;
        }
        // Under a bound over all, another database may use a slot that one database frees.
        let level = match database {
            Some(database) if self.total.max.is_none() => Level::Database(database),
            _ => Level::Total,
        };
        while let Some(pool) = self.next_to_dial(level, now) {
            self.dial(pool, now, out);
        }
        match database {
            Some(database) => self.evict_for_waiters(database, now, out),
            None => {
                for i in 0..self.total.hungry.len() {
                    let database = self.pools[self.total.hungry[i]].database;
                    self.evict(Level::Database(database), now, out);
                }
                self.evict(Level::Total, now, out);
            }
        }
    }

    /// Closes idle backends of `database`, and of any, where a bound is full and somebody waits for a slot under it.
    pub(super) fn evict_for_waiters(&mut self, database: DatabaseId, now: Instant, out: &mut Vec<Command<B>>) {
        self.evict(Level::Database(database), now, out);
        self.evict(Level::Total, now, out);
    }

    fn evict(&mut self, level: Level, now: Instant, out: &mut Vec<Command<B>>) {
        let Some(bound) = self.bound(level) else {
            return;
        };
        if bound.waiting == 0 || bound.counts.idle == 0 || !self.is_tight(level) {
            return;
        }
        let mut closing = bound.counts.closing;
        let claims = self.claims(level, None, now);
        while closing < claims.all {
            let rested = (closing >= claims.below_share).then_some(now);
            let Some(victim) = self.least_recently_used(level, rested) else {
                return;
            };
            // ## Idle => Closing: evicted
            self.close_idle(victim, out);
            closing += 1;
        }
    }

    /// Whether the slot that `pool` is about to use again is owed to a pool below its share.
    pub(super) fn is_owed_elsewhere(&self, pool: PoolId, now: Instant) -> bool {
        let own = &self.pools[pool];
        [Level::Database(own.database), Level::Total].into_iter().any(|level| {
            self.bound(level).is_some_and(|bound| {
                self.is_tight(level)
                    && bound.waiting > own.queue.waiting()
                    && (own.counts.live() > self.share(pool) || self.is_anyone_starving(level, pool, now))
                    && self.claims(level, Some(pool), now).below_share > bound.counts.closing
            })
        })
    }

    /// Whether a pool with less than its reservation, or a pool without any backend that waited its turn, has waited
    /// longer than the first waiter of `pool`.
    fn is_anyone_starving(&self, level: Level, pool: PoolId, now: Instant) -> bool {
        let own_since = self.servable_since(pool, now);
        self.claimants(level, now).any(|(id, _)| {
            let other = &self.pools[id];
            let has_waited_its_turn =
                |since| now >= since + TURN_MAX && own_since.is_none_or(|own_since| since < own_since);
            other.counts.live() < self.parts.general.kept(other.limits.share.reserved)
                || other.counts.live() == 0 && self.servable_since(id, now).is_some_and(has_waited_its_turn)
        })
    }

    fn next_to_dial(&self, level: Level, now: Instant) -> Option<PoolId> {
        if self.total.is_full() {
            return None;
        }
        self.claimants(level, now)
            .filter(|(pool, _)| self.fits(*pool))
            .map(|(pool, _)| pool)
            .min_by(|a, b| self.precedence(*a, now).partial_cmp(&self.precedence(*b, now)).unwrap_or(Ordering::Equal))
    }

    /// The smaller comes first: reserved slots, shares, interactive before batch, the least for its weight, the longest
    /// wait.
    fn precedence(&self, id: PoolId, now: Instant) -> (bool, bool, bool, f64, Option<Instant>) {
        let pool = &self.pools[id];
        let live = pool.counts.live();
        (
            live >= self.parts.general.kept(pool.limits.share.reserved),
            live >= self.share(id),
            pool.limits.share.priority == Priority::Batch,
            f64::from(live) / f64::from(pool.limits.share.weight.max(1)),
            self.servable_since(id, now),
        )
    }

    /// Dials every endpoint that is down and whose back-off is over, though nobody waits for it: readiness and metrics
    /// show that it answers again before clients are sent here, and they are sent where that shows.
    pub(super) fn probe(&mut self, now: Instant, out: &mut Vec<Command<B>>) {
        let is_due = |database: &DatabaseState| {
            let is_down = database.readers.is_none() && database.health.down_since().is_some();
            let is_due = is_down && database.health.dials_allowed(database.bound.counts.opening, now) > 0;
            is_due && !database.stops.is_any()
        };
        let can_probe = |id: &PoolId| {
            let pool = &self.pools[*id];
            let may_open = !pool.is_removed && pool.refused.is_none() && pool.counts.open() < pool.limits.size;
            may_open && self.fits(*id)
        };
        let down = self.databases.values().filter(|database| is_due(database));
        let probers: Vec<_> = down.filter_map(|database| database.pools.iter().copied().find(can_probe)).collect();
        let of_readers = self.due_reader_probes(can_probe, now);
        for pool in probers {
            // Each probe takes a slot of the bound over all.
            if self.fits(pool) {
                self.dial(pool, now, out);
            }
        }
        for (pool, reader) in of_readers {
            // Several readers may be due, each of which takes a slot of the same pool.
            let has_room = self.pools[pool].counts.open() < self.pools[pool].limits.size;
            if has_room && self.fits(pool) {
                self.dial_at(pool, Some(reader), now, out);
            }
        }
    }

    /// Dials the endpoint, or the reader that has the least.
    pub(super) fn dial(&mut self, pool: PoolId, now: Instant, out: &mut Vec<Command<B>>) {
        let reader = self.dial_target(pool, now);
        self.dial_at(pool, reader, now, out);
    }

    fn dial_at(&mut self, pool_id: PoolId, reader: Option<ReaderId>, now: Instant, out: &mut Vec<Command<B>>) {
        let pool = &self.pools[pool_id];
        let database = &self.databases[pool.database];
        let (is_probe, to) = match (reader, &database.readers) {
            (Some(reader), Some(readers)) => (readers.is_probe(reader), readers.target(reader)),
            _ => (!database.health.is_up(), None),
        };
        // ## nothing => Opening
        let slot = self.slots.insert(Slot {
            pool: pool_id,
            role_queue: pool.role_queue,
            reader,
            state: SlotState::Opening { probe: pool.refused.is_some() || is_probe },
            generation: pool.generation,
            worker: 0,
            opened: now,
            entered: None,
            lane: None,
            spread: 1.0,
            expires: None,
        });
        self.shift((pool_id, reader), None, Some(SlotPhase::Opening));
        if let Some(readers) = &mut self.pools[pool_id].readers {
            readers.owed = readers.owed.saturating_sub(1);
        }
        out.push(Command::Dial { pool: pool_id, slot, to });
    }

    /// Number of slots that this pool could still use at once, if the shared bounds had room.
    pub(super) fn claim(&self, id: PoolId, now: Instant) -> u32 {
        let pool = &self.pools[id];
        let database = &self.databases[pool.database];
        if database.stops.is_any() || pool.is_removed || self.parts.is_lapsed(now) {
            return 0;
        }
        let arriving = pool.counts.opening - pool.openings_stale;
        // An idle backend beside a waiter lacks a permit of the role, and is there when the role has one.
        let coming = arriving + pool.counts.idle;
        let by_line = self.ready(id, now).saturating_sub(coming);
        let permits = pool
            .role_queue
            .map_or(u32::MAX, |role_queue| self.role_queues[role_queue].limiter.permits(pool.limits.lease_scope, now));
        let by_role = permits.saturating_sub(coming);
        let by_size = pool.limits.size.saturating_sub(pool.counts.open());
        let by_login = match pool.refused {
            Some(retry) => u32::from(pool.counts.opening == 0 && retry.is_due(now)),
            None => u32::MAX,
        };
        let by_pace = match &database.readers {
            None => database.health.dials_allowed(database.bound.counts.opening, now),
            Some(readers) => readers.dials_allowed(now),
        };
        by_line.min(by_role).min(by_size).min(by_login).min(by_pace)
    }

    /// Whether the shared bounds have room for one more slot of this pool, leaving alone those reserved for others. A
    /// pool without any slot has a right to one, however much is reserved.
    pub(super) fn fits(&self, id: PoolId) -> bool {
        let pool = &self.pools[id];
        let database = &self.databases[pool.database];
        if self.total.is_full() || database.bound.is_full() {
            return false;
        }
        let Some(max) = database.bound.max else { return true };
        pool.counts.live() == 0 || database.bound.counts.open() + self.reserved(pool.database, Some(id)) < max
    }

    /// Slots of a database that are reserved and not in use, for pools other than this.
    fn reserved(&self, database: DatabaseId, except: Option<PoolId>) -> u32 {
        let others = self.databases[database].pools.iter().filter(|pool| Some(**pool) != except);
        others
            .map(|pool| {
                let pool = &self.pools[*pool];
                self.parts.general.kept(pool.limits.share.reserved).saturating_sub(pool.counts.live())
            })
            .sum()
    }

    /// Whether a bound has no room but the reserved slots.
    fn is_tight(&self, level: Level) -> bool {
        match level {
            Level::Total => self.total.is_full(),
            Level::Database(id) => self.databases.get(id).is_some_and(|database| {
                database.bound.max.is_some_and(|max| database.bound.counts.open() + self.reserved(id, None) >= max)
            }),
        }
    }

    /// Pools that could use a slot under this bound, and how many. Where a database's own bound is full, room in
    /// the bound over all would not help its pools.
    fn claimants(&self, level: Level, now: Instant) -> impl Iterator<Item = (PoolId, u32)> {
        let hungry = self.bound(level).map_or(&[][..], |bound| &bound.hungry);
        hungry.iter().filter_map(move |pool| {
            let claim = self.claim(*pool, now);
            let is_held_back = level == Level::Total && self.databases[self.pools[*pool].database].bound.is_full();
            (claim > 0 && !is_held_back).then_some((*pool, claim))
        })
    }

    /// The slots that this pool may have before the others.
    fn share(&self, pool: PoolId) -> u32 {
        let pool = &self.pools[pool];
        let share = pool.limits.share;
        self.databases[pool.database].bound.share(share).min(self.total.share(share)).max(pool.limits.share.reserved)
    }

    fn live(&self, pool: PoolId) -> u32 {
        self.pools[pool].counts.live()
    }

    fn claims(&self, level: Level, except: Option<PoolId>, now: Instant) -> Claims {
        self.claimants(level, now).filter(|(pool, _)| Some(*pool) != except).fold(
            Claims::default(),
            |sum, (pool, claim)| Claims {
                all: sum.all + claim,
                below_share: sum.below_share + claim.min(self.share(pool).saturating_sub(self.live(pool))),
            },
        )
    }

    /// The idle backend under this bound that was used the longest ago; with `rested`, only one that has rested by
    /// then or whose pool has more than its share.
    pub(super) fn least_recently_used(&self, level: Level, rested: Option<Instant>) -> Option<SlotId> {
        let pools: &mut dyn Iterator<Item = PoolId> = match level {
            Level::Database(database) => &mut self.databases[database].pools.iter().copied(),
            Level::Total => &mut self.pools.keys(),
        };
        pools
            .filter_map(|pool| {
                let (slot, since) = self.longest_idle(pool)?;
                let is_free = rested.is_none_or(|now| now >= since + REST || self.live(pool) > self.share(pool));
                is_free.then_some((slot, since))
            })
            .min_by_key(|(_, since)| *since)
            .map(|(slot, _)| slot)
    }

    /// The backend of a pool that was used the longest ago.
    pub(super) fn longest_idle(&self, pool: PoolId) -> Option<(SlotId, Instant)> {
        let pool = &self.pools[pool];
        if pool.counts.idle == 0 {
            return None;
        }
        pool.stacks()
            .flat_map(IdleStacks::oldest)
            .map(|slot| match self.slots[slot].state {
                SlotState::Idle { since, .. } => (slot, since),
                _ => unreachable!("what lies on a stack is idle"),
            })
            .min_by_key(|(_, since)| *since)
    }

    pub(super) fn bound(&self, level: Level) -> Option<&Bound> {
        match level {
            Level::Database(database) => self.databases.get(database).map(|database| &database.bound),
            Level::Total => Some(&self.total),
        }
    }
}
