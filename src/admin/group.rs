//! Pools as operators see them, by database and role, with all their kinds of backends; and the queue of each role.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::admission::limiter::{LimiterCounters, LimiterView};
use crate::metrics::Totals;
use crate::pool::core::{RoleQueueView, SlotCounts};
use crate::pool::pool::Pool;
use crate::proxy::Proxy;

/// Database and role.
pub(super) type GroupName = (Arc<str>, Arc<str>);

/// All pools of one name: the one for queries, those of replication connections, the one for look-ups of secrets.
#[derive(Debug)]
pub(super) struct PoolGroup {
    /// Any of them; they are set up alike.
    pub(super) pool: Arc<Pool>,
    pub(super) counts: SlotCounts,
    pub(super) waiting: u32,
    /// Since when the first waiting client has waited.
    pub(super) waiting_since: Option<Instant>,
    pub(super) totals: Totals,
}

/// The queue of every role at this moment.
pub(super) fn role_queues(proxy: &Proxy, now: Instant) -> Vec<(Arc<str>, RoleQueueView)> {
    let ids = proxy.directory.all_role_queues();
    let core = proxy.pools.core();
    ids.into_iter().filter_map(|(role, id)| Some((role, core.role_queue(id, now)?))).collect()
}

/// The effective limit, if anything but the pools limits the role.
pub(super) fn effective_limit(limiter: &LimiterView) -> Option<u32> {
    (limiter.effective < u32::MAX).then_some(limiter.effective)
}

/// Transactions that it refused at once.
pub(super) fn refused(counters: &LimiterCounters) -> u64 {
    counters.refused_full + counters.refused_shed
}

/// Every group at this moment.
pub(super) fn all(proxy: &Proxy) -> BTreeMap<GroupName, PoolGroup> {
    let mut groups: BTreeMap<GroupName, PoolGroup> = BTreeMap::new();
    for pool in proxy.directory.all_pools() {
        let Some(view) = proxy.pools.core().pool(pool.id) else { continue };
        let name = (Arc::clone(&pool.name.database), Arc::clone(&pool.name.role));
        let totals = pool.stats.totals();
        let group = groups.entry(name).or_insert_with(|| PoolGroup {
            pool,
            counts: SlotCounts::default(),
            waiting: 0,
            waiting_since: None,
            totals: Totals::default(),
        });
        group.counts.add(view.counts);
        group.waiting += view.waiting;
        group.waiting_since = [group.waiting_since, view.waiting_since].into_iter().flatten().min();
        group.totals.merge(&totals);
    }
    groups
}
