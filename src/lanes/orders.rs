//! Orders about single statements: each with an author and an end.
//!
//! Looking one up costs a load while there is none.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::pool::core::RoleQueueId;
use crate::pool::lease::Pools;
use crate::sql::Digest;

/// Orders that may be in force at once.
pub(crate) const ORDERS_MAX: usize = 256;

/// An order about a statement.
#[derive(Debug)]
pub(crate) struct StatementOrder {
    pub digest: Digest,
    pub kind: OrderKind,
    /// Who gave it.
    pub by: Arc<str>,
    pub given: Instant,
    pub until: Instant,
    /// Runs that it refused.
    pub refused: AtomicU64,
}

#[derive(Debug)]
pub(crate) enum OrderKind {
    /// It is refused.
    Block,
    /// So many transactions that begin with it may be under way, in this lane; the others wait.
    Limit(u32, RoleQueueId),
}

impl StatementOrder {
    pub(crate) fn new(digest: Digest, kind: OrderKind, by: &str, now: Instant, lasts: Duration) -> Self {
        Self { digest, kind, by: by.into(), given: now, until: now + lasts, refused: AtomicU64::new(0) }
    }

    /// The lane of those that it holds back.
    pub(crate) fn lane(&self) -> Option<RoleQueueId> {
        match self.kind {
            OrderKind::Block => None,
            OrderKind::Limit(_, lane) => Some(lane),
        }
    }
}

/// Those in force.
#[derive(Debug, Default)]
pub(crate) struct StatementOrders {
    is_any: AtomicBool,
    by_digest: ArcSwap<HashMap<Digest, Arc<StatementOrder>>>,
}

impl StatementOrders {
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Relaxed)
    }

    /// The order about a statement.
    pub(crate) fn find(&self, digest: Digest) -> Option<Arc<StatementOrder>> {
        self.by_digest.load().get(&digest).cloned()
    }

    /// Whether one was given after `then`.
    pub(crate) fn is_any_since(&self, then: Instant) -> bool {
        self.is_any() && self.by_digest.load().values().any(|order| order.given >= then)
    }

    /// All of them, the latest first.
    pub(crate) fn all(&self) -> Vec<Arc<StatementOrder>> {
        let mut all: Vec<_> = self.by_digest.load().values().cloned().collect();
        all.sort_by_key(|order| std::cmp::Reverse(order.given));
        all
    }

    /// Puts an order into force, in the place of the one about the same statement. False: there are too many. Only on a
    /// worker's thread.
    pub(crate) fn give(&self, order: StatementOrder, pools: &Arc<Pools>, worker: usize) -> bool {
        let order = Arc::new(order);
        let mut before = None;
        let orders = self.by_digest.load();
        if orders.len() >= ORDERS_MAX && !orders.contains_key(&order.digest) {
            return false;
        }
        self.by_digest.rcu(|orders| {
            let mut orders = HashMap::clone(orders);
            before = orders.insert(order.digest, Arc::clone(&order));
            orders
        });
        self.is_any.store(true, Ordering::Relaxed);
        before.iter().for_each(|order| end(order, pools, worker));
        true
    }

    /// Takes the order about a statement back. False: there was none. Only on a worker's thread.
    pub(crate) fn take_back(&self, digest: Digest, pools: &Arc<Pools>, worker: usize) -> bool {
        self.remove(|order| order.digest == digest, pools, worker) > 0
    }

    /// Time passes: orders end.
    pub(crate) fn tick(&self, pools: &Arc<Pools>, worker: usize, now: Instant) {
        if self.is_any() {
            self.remove(|order| order.until <= now, pools, worker);
        }
    }

    fn remove(&self, is_over: impl Fn(&StatementOrder) -> bool, pools: &Arc<Pools>, worker: usize) -> usize {
        let over: Vec<_> = self.by_digest.load().values().filter(|order| is_over(order)).cloned().collect();
        if !over.is_empty() {
            self.by_digest.rcu(|orders| {
                let mut orders = HashMap::clone(orders);
                over.iter().for_each(|order| drop(orders.remove(&order.digest)));
                orders
            });
            self.is_any.store(!self.by_digest.load().is_empty(), Ordering::Relaxed);
            over.iter().for_each(|order| end(order, pools, worker));
        }
        over.len()
    }
}

/// Everybody who waits under an order that ends goes on. Only on a worker's thread.
fn end(order: &StatementOrder, pools: &Arc<Pools>, worker: usize) {
    let refused = order.refused.load(Ordering::Relaxed);
    tracing::info!(digest = %order.digest, by = %order.by, refused, "order about a statement ended");
    if let OrderKind::Limit(_, lane) = order.kind {
        pools.decide(worker, |core, out| core.remove_lane(lane, Instant::now(), out));
    }
}
