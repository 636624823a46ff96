//! Backends that a pool keeps open though nobody needs them, so that the first clients after a quiet time wait for no
//! login.
//!
//! Nothing is taken from anybody for them: they are opened behind all that somebody waits for, one a tick for each
//! pool, where the bounds have room, and they are evicted as any idle backend is. A login that the server refuses is
//! not tried again for them.

use tokio::time::Instant;

use super::{Command, Core, PoolId, PoolState};

impl<B> Core<B> {
    /// From now on this pool keeps so many backends, as far as its size and the bounds over it let it.
    pub fn keep_warm(&mut self, pool: PoolId, backends: u32) {
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.warm = backends;
        }
    }

    /// Opens one more backend for every pool that has too few.
    pub(super) fn warm_up(&mut self, now: Instant, out: &mut Vec<Command<B>>) {
        let pools: Vec<PoolId> = self.pools.keys().filter(|pool| self.may_warm_up(*pool, now)).collect();
        for pool in pools {
            // Those before it have taken their part of the pace and of the bounds.
            if self.may_warm_up(pool, now) {
                self.dial(pool, now, out);
            }
        }
    }

    fn may_warm_up(&self, id: PoolId, now: Instant) -> bool {
        let pool = &self.pools[id];
        if pool.counts.live() >= pool.warm || pool.counts.open() >= pool.limits.size {
            return false;
        }
        let database = &self.databases[pool.database];
        let is_stopped = pool.is_removed || database.stops.is_any() || self.parts.is_lapsed(now);
        let dials = match &database.readers {
            None if !database.health.is_up() => 0,
            None => database.health.dials_allowed(database.bound.counts.opening, now),
            Some(readers) => readers.dials_allowed(now),
        };
        !is_stopped && pool.refused.is_none() && dials > 0 && self.fits(id)
    }
}

impl PoolState {
    /// Whether one backend less would leave it with too few.
    pub(super) fn is_barely_warm(&self) -> bool {
        self.counts.live() <= self.warm
    }
}
