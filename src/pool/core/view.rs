//! The state that the console and the metrics read, and the watch over idle backends.

use tokio::time::Instant;

use super::endpoint::Health;
use super::{Command, Core, DatabaseId, PoolId, SlotCounts, SlotId, SlotPhase, SlotState};

/// One pool at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolView {
    /// The database of the pool.
    pub database: DatabaseId,
    pub counts: SlotCounts,
    /// Length of its queue.
    pub waiting: u32,
    /// When the first waiter came.
    pub waiting_since: Option<Instant>,
    /// Counts retirements.
    pub generation: u64,
    /// The server refused this pool's login last.
    pub is_refused: bool,
    /// Going away with its last slot.
    pub is_removed: bool,
}

/// One database at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseView {
    /// Slots over all its pools.
    pub counts: SlotCounts,
    /// Waiters over all its pools.
    pub waiting: u32,
    /// State of its endpoint by the last dials.
    pub endpoint: EndpointView,
    /// Between `pause` and `resume`.
    pub is_paused: bool,
    /// No server is known to have the role that it needs.
    pub is_unproved: bool,
    /// Counts pauses and their ends.
    pub pauses: u64,
    /// No backend is with a client or promised to one.
    pub is_drained: bool,
}

/// State of an endpoint by its last dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointView {
    Up,
    /// It answers that it has no room.
    Busy,
    /// It has not answered since then.
    Down(Instant),
}

impl<B> Core<B> {
    /// One pool, unless it is gone.
    pub fn pool(&self, pool: PoolId) -> Option<PoolView> {
        self.pools.get(pool).map(|pool| PoolView {
            database: pool.database,
            counts: pool.counts,
            waiting: pool.queue.waiting(),
            waiting_since: pool.queue.first_since(),
            generation: pool.generation,
            is_refused: pool.refused.is_some(),
            is_removed: pool.is_removed,
        })
    }

    /// One database, unless it is gone.
    pub fn database(&self, database: DatabaseId) -> Option<DatabaseView> {
        self.databases.get(database).map(|database| {
            let counts = database.bound.counts;
            DatabaseView {
                counts,
                waiting: database.bound.waiting,
                endpoint: match (database.down_since(), database.health) {
                    (Some(since), _) => EndpointView::Down(since),
                    (None, Health::Busy { .. }) => EndpointView::Busy,
                    (None, _) => EndpointView::Up,
                },
                is_paused: database.stops.is_paused,
                is_unproved: database.stops.is_unproved,
                pauses: database.pauses,
                is_drained: counts.handed + counts.leased == 0,
            }
        })
    }

    /// The phase of one slot, unless it is gone.
    pub fn phase(&self, slot: SlotId) -> Option<SlotPhase> {
        self.slots.get(slot).map(|slot| slot.state.phase())
    }

    /// A retirement has ended its generation: it closes as soon as it is given back.
    pub fn is_retired(&self, slot: SlotId) -> bool {
        self.slots.get(slot).is_some_and(|slot| slot.generation != self.pools[slot.pool].generation)
    }

    /// Whether a database has retired slots.
    pub fn has_retired(&self, database: DatabaseId) -> bool {
        let is_meant = |pool: PoolId| self.pools[pool].database == database;
        self.slots.iter().any(|(id, slot)| is_meant(slot.pool) && self.is_retired(id))
    }

    /// Slots over everything.
    pub fn total(&self) -> SlotCounts {
        self.total.counts
    }

    /// All pools there are, removed ones until their last slot is gone.
    pub fn pool_ids(&self) -> impl Iterator<Item = PoolId> {
        self.pools.keys()
    }

    /// Lets the shell look at the idle backends on one worker's stack, the longest idle first; those it does not
    /// want to keep are closed.
    pub fn peek_idle(
        &mut self,
        pool: PoolId,
        worker: usize,
        mut keep: impl FnMut(&mut B) -> bool,
        out: &mut Vec<Command<B>>,
    ) {
        let Some(peeked) = self.pools.get(pool) else {
            return;
        };
        let mut unfit = Vec::new();
        for slot in peeked.stacks().flat_map(|stacks| stacks.of_worker(worker)) {
            if let SlotState::Idle { backend, .. } = &mut self.slots[slot].state
                && !keep(backend)
            {
                unfit.push(slot);
            }
        }
        for slot in unfit {
            self.close_idle(slot, out);
        }
    }
}
