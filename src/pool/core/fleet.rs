//! The limits that are the fleet's: what this instance uses of each, and its parts.

use std::collections::HashMap;

use tokio::time::Instant;

use super::queue_id::RoleQueueId;
use super::share::Level;
use super::{Command, Core, DatabaseId};
use crate::admission::fleet_share::{FleetShare, FleetUse};

/// A limit of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FleetLimit {
    /// Transactions of a role, or of a lane.
    Role(RoleQueueId),
    /// Backends of a database.
    Database(DatabaseId),
    /// All backends.
    Total,
}

/// This instance's parts of the fleet's limits.
#[derive(Debug, Clone, Default)]
pub struct FleetParts {
    /// Where there is no part of its own.
    pub general: FleetShare,
    /// Parts of single limits.
    pub own: HashMap<FleetLimit, FleetShare>,
    /// From then on all parts are nothing.
    pub lapses: Option<Instant>,
}

impl FleetParts {
    /// The same part of every limit.
    pub fn all(general: FleetShare) -> Self {
        Self { general, ..Self::default() }
    }

    fn of(&self, limit: FleetLimit) -> FleetShare {
        self.own.get(&limit).copied().unwrap_or(self.general)
    }

    pub(super) fn bound(&self, limit: FleetLimit, max: Option<u32>) -> Option<u32> {
        max.map(|max| self.of(limit).of(max))
    }

    /// Of a limit that did not exist when the parts were made.
    pub(super) fn of_newcomer(&self, max: Option<u32>) -> Option<u32> {
        max.map(|max| self.general.of(max))
    }

    #[inline]
    pub(super) fn is_lapsed(&self, now: Instant) -> bool {
        self.lapses.is_some_and(|then| now >= then)
    }
}

impl<B> Core<B> {
    /// Takes other parts of the fleet's limits. As with every limit: more admits at once; less closes idle backends
    /// now and leased ones as they come back.
    pub fn set_parts(&mut self, parts: FleetParts, now: Instant, out: &mut Vec<Command<B>>) {
        self.parts = parts;
        self.total.max = self.parts.bound(FleetLimit::Total, self.total_max);
        self.trim(Level::Total, out);
        for database in self.databases.keys().collect::<Vec<_>>() {
            let max = self.databases[database].limits.backends_max;
            self.databases[database].bound.max = self.parts.bound(FleetLimit::Database(database), max);
            self.trim(Level::Database(database), out);
        }
        let lapses = self.parts.lapses;
        for role_queue in self.role_queues.keys().filter(|id| self.is_of_fleet(*id)).collect::<Vec<_>>() {
            let share = self.parts.of(FleetLimit::Role(role_queue));
            self.change_role_queue(role_queue, now, out, |queue| queue.set_share(share, lapses, now));
        }
        self.serve(None, now, out);
    }

    /// Every limit of the fleet that exists here, and our use of it.
    pub fn fleet_uses(&self, now: Instant) -> Vec<(FleetLimit, FleetUse)> {
        let of = |bound: &super::Bound, max: Option<u32>| {
            let used = bound.counts.open();
            // Idle backends are closed where others need the slots more.
            let wanted = used - bound.counts.idle + bound.waiting;
            Some(FleetUse { limit: max?, cap: bound.max?, used, wanted })
        };
        let of_fleet = self.role_queues.iter().filter(|(id, _)| self.is_of_fleet(*id));
        let roles = of_fleet.map(|(id, queue)| (FleetLimit::Role(id), queue.limiter.fleet_use(now)));
        let databases = self
            .databases
            .iter()
            .map(|(id, database)| (FleetLimit::Database(id), of(&database.bound, database.limits.backends_max)));
        let total = (FleetLimit::Total, of(&self.total, self.total_max));
        roles.chain(databases).chain([total]).filter_map(|(limit, uses)| Some((limit, uses?))).collect()
    }
}
