//! Which transactions are held back by more than their role's limit: the lanes of the configuration, and orders about
//! single statements.
//!
//! A transaction belongs to one lane at most: that of an order about its first statement, else the first of the file
//! that matches. As far as that depends on the client only, it is decided once for each client. The limiters are in
//! [`pool::core`](crate::pool::core); here are their names and whom they mean.

mod matching;
pub(crate) mod orders;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

pub(crate) use self::matching::{LaneCaller, LaneSubject};
use self::matching::{matches_caller, matches_subject};
use self::orders::{StatementOrder, StatementOrders};
use crate::config::{Config, LaneKeys, LaneMatch, LaneMode};
use crate::pool::core::{LaneRules, LineShare, RoleQueueId};
use crate::pool::lease::Pools;
use crate::sql::Digest;

/// A lane of the configuration.
#[derive(Debug)]
pub(crate) struct Lane {
    pub name: Arc<str>,
    pub id: RoleQueueId,
    pub mode: LaneMode,
    pub statement_timeout: Option<Duration>,
    /// Statements that were not the first of their transactions, and that it refused, or would have.
    pub refused_later: Arc<AtomicU64>,
    matches: LaneMatch,
    digests: Vec<Digest>,
}

impl Lane {
    /// It is looked at for each transaction.
    pub(crate) fn is_of_statements(&self) -> bool {
        self.matches.is_of_statements()
    }

    /// Its statements may be refused wherever they stand in a transaction.
    fn looks_later(&self) -> bool {
        self.is_of_statements() && self.mode != LaneMode::Queue
    }

    fn matches(&self, subject: &LaneSubject<'_>) -> bool {
        !self.is_of_statements() || matches_subject(&self.matches, &self.digests, subject)
    }
}

/// The lane that a transaction belongs to.
#[derive(Debug, Clone)]
pub(crate) enum LaneOf {
    /// Made by an order about its first statement.
    Order(Arc<StatementOrder>),
    File(Arc<Lane>),
}

impl LaneOf {
    pub(crate) fn id(&self) -> Option<RoleQueueId> {
        match self {
            Self::Order(order) => order.lane(),
            Self::File(lane) => Some(lane.id),
        }
    }

    pub(crate) fn statement_timeout(&self) -> Option<Duration> {
        match self {
            Self::Order(_) => None,
            Self::File(lane) => lane.statement_timeout,
        }
    }
}

/// The lanes that a client's transactions may be in, as of one configuration: in order, up to the first that depends on
/// nothing else.
#[derive(Debug)]
pub(crate) struct ClientLanes {
    generation: u64,
    lanes: Vec<Arc<Lane>>,
}

impl ClientLanes {
    /// Statements decide.
    pub(crate) fn looks_at_statements(&self) -> bool {
        self.lanes.iter().any(|lane| lane.is_of_statements())
    }

    /// The lane of a transaction that begins with these statements.
    pub(crate) fn find(&self, subject: &LaneSubject<'_>) -> Option<&Arc<Lane>> {
        self.lanes.iter().find(|lane| lane.matches(subject))
    }

    /// Lanes other than that of the transaction that may refuse a later statement of it.
    pub(crate) fn later(&self, own: Option<RoleQueueId>, subject: &LaneSubject<'_>) -> Option<&Arc<Lane>> {
        let mut lanes = self.lanes.iter().filter(|lane| lane.looks_later() && Some(lane.id) != own);
        lanes.find(|lane| lane.matches(subject))
    }
}

/// Everything in force.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    pub orders: StatementOrders,
    of_file: ArcSwap<Vec<Arc<Lane>>>,
    /// Counts configurations.
    generation: AtomicU64,
    is_any: AtomicBool,
    looks_later: AtomicBool,
}

impl Lanes {
    /// There is something to look at when a transaction begins.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Relaxed)
    }

    /// There is something to look at for each statement.
    #[inline]
    pub(crate) fn looks_later(&self) -> bool {
        self.looks_later.load(Ordering::Relaxed)
    }

    /// Those of the file, in its order.
    pub(crate) fn of_file(&self) -> Arc<Vec<Arc<Lane>>> {
        self.of_file.load_full()
    }

    /// Those that may be a client's.
    pub(crate) fn of_client(&self, caller: &LaneCaller<'_>) -> ClientLanes {
        let generation = self.generation.load(Ordering::Acquire);
        let mut lanes = Vec::new();
        for lane in self.of_file.load().iter().filter(|lane| matches_caller(&lane.matches, caller)) {
            lanes.push(Arc::clone(lane));
            if !lane.is_of_statements() {
                break;
            }
        }
        ClientLanes { generation, lanes }
    }

    /// No other configuration has come since.
    #[inline]
    pub(crate) fn is_current(&self, lanes: &ClientLanes) -> bool {
        lanes.generation == self.generation.load(Ordering::Acquire)
    }

    /// Puts the lanes of a configuration into force. Only on a worker's thread, or before there is any.
    pub(crate) fn set(&self, config: &Config, pools: &Arc<Pools>, worker: usize) {
        let (before, now) = (self.of_file.load_full(), Instant::now());
        let lanes: Vec<_> = pools.decide(worker, |core, out| {
            let lanes = config.lanes.iter().map(|keys| {
                let (queue, rules) = (keys.queue(config), rules(keys));
                match before.iter().find(|lane| *lane.name == *keys.name) {
                    Some(lane) => {
                        core.set_lane(lane.id, queue, rules, now, out);
                        Arc::new(in_force(keys, lane.id, Arc::clone(&lane.refused_later)))
                    }
                    None => Arc::new(in_force(keys, core.add_lane(queue, rules, now), Arc::default())),
                }
            });
            let lanes: Vec<_> = lanes.collect();
            let is_gone = |lane: &&Arc<Lane>| lanes.iter().all(|other| other.id != lane.id);
            before.iter().filter(is_gone).for_each(|lane| core.remove_lane(lane.id, now, out));
            lanes
        });
        self.of_file.store(Arc::new(lanes));
        self.generation.fetch_add(1, Ordering::Release);
        self.note();
    }

    /// Puts an order into force. False: there are too many. Only on a worker's thread.
    pub(crate) fn order(&self, order: StatementOrder, pools: &Arc<Pools>, worker: usize) -> bool {
        let is_given = self.orders.give(order, pools, worker);
        self.note();
        is_given
    }

    /// Takes the order about a statement back. False: there was none. Only on a worker's thread.
    pub(crate) fn take_back(&self, digest: Digest, pools: &Arc<Pools>, worker: usize) -> bool {
        let was_there = self.orders.take_back(digest, pools, worker);
        self.note();
        was_there
    }

    /// Time passes: orders end.
    pub(crate) fn tick(&self, pools: &Arc<Pools>, worker: usize, now: Instant) {
        if self.orders.is_any() {
            self.orders.tick(pools, worker, now);
            self.note();
        }
    }

    fn note(&self) {
        let (of_file, has_orders) = (self.of_file.load(), self.orders.is_any());
        self.is_any.store(has_orders || !of_file.is_empty(), Ordering::Relaxed);
        self.looks_later.store(has_orders || of_file.iter().any(|lane| lane.looks_later()), Ordering::Relaxed);
    }
}

/// The rules of a lane beside those of its limiter.
pub(crate) fn rules(keys: &LaneKeys) -> LaneRules {
    LaneRules {
        share: LineShare { priority: keys.priority, weight: keys.weight },
        wait_timeout: keys.wait_timeout,
        refuses: keys.mode == LaneMode::Refuse,
        is_of_fleet: true,
    }
}

fn in_force(keys: &LaneKeys, id: RoleQueueId, refused_later: Arc<AtomicU64>) -> Lane {
    Lane {
        name: keys.name.as_str().into(),
        id,
        mode: keys.mode,
        statement_timeout: keys.statement_timeout.filter(|of| !of.is_zero() && keys.mode != LaneMode::Observe),
        refused_later,
        matches: keys.matches.clone(),
        digests: keys.matches.digests.iter().filter_map(|digest| Digest::read(digest)).collect(),
    }
}
