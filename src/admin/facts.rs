//! The state of everything at one moment, to be judged and shown. Each lock is held for one copy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::group::{self, GroupName, PoolGroup};
use super::recent::{CounterSnapshot, Point, Recent, Served};
use super::statement_finding;
use crate::admission::limiter::LimiterState;
use crate::fleet::lease::holder::LeaseState;
use crate::pool::core::{EndpointView, RoleQueueView, SlotCounts};
use crate::proxy::Proxy;
use crate::watch::finding::Finding;
use crate::watch::watches::OpenFinding;

/// Findings of one kind and database that are shown at once.
const FINDINGS_MAX: usize = 5;

/// Everything at one moment.
#[derive(Debug, Default)]
pub(super) struct StatusFacts {
    pub(super) is_draining: bool,
    /// Connections of clients, logins included.
    pub(super) connections: usize,
    /// `listen.clients_max`.
    pub(super) clients_max: u32,
    /// Clients that are logged in.
    pub(super) clients: usize,
    pub(super) databases: Vec<DatabaseFacts>,
    pub(super) roles: Vec<RoleFacts>,
    pub(super) pools: BTreeMap<GroupName, PoolGroup>,
    /// The leases of the fleet's limits, where there are any, and how long the Redis has been lost.
    pub(super) leases: Option<(LeaseState, Duration)>,
    /// Findings of the watches, each with its databases.
    pub(super) findings: Vec<(Vec<Arc<str>>, Finding)>,
}

/// A database at one moment.
#[derive(Debug)]
pub(super) struct DatabaseFacts {
    pub(super) name: Arc<str>,
    pub(super) endpoint: EndpointView,
    /// Zero unless the endpoint is down.
    pub(super) down_for: Duration,
    pub(super) is_paused: bool,
    /// No server is known to have the role that it needs.
    pub(super) is_unproved: bool,
    pub(super) is_disabled: bool,
    /// Its clients that wait.
    pub(super) waiting: u32,
    pub(super) counts: SlotCounts,
    pub(super) backends_max: Option<u32>,
}

/// A role at one moment.
#[derive(Debug)]
pub(super) struct RoleFacts {
    pub(super) name: Arc<str>,
    pub(super) state: LimiterState,
    /// Its limit, or the one that a ramp leads to, and how long the ramp still takes.
    pub(super) limit: Option<u32>,
    pub(super) moves_for: Option<Duration>,
    pub(super) effective: Option<u32>,
    pub(super) active: u32,
    pub(super) waiting: u32,
    /// How long the first waiting client has waited.
    pub(super) oldest: Duration,
    /// The longest that a client may wait.
    pub(super) wait_timeout: Duration,
    /// Transactions that began in the last minute.
    pub(super) starts: u64,
    /// Transactions that were refused or waited too long in the last minute.
    pub(super) turned_away: u64,
}

impl StatusFacts {
    /// The facts of this moment, `second` seconds after the start; `recent` remembers them.
    pub(super) fn of(proxy: &Proxy, recent: &mut Recent, now: Instant, second: u64) -> Self {
        let pools = group::all(proxy);
        let role_queues = group::role_queues(proxy, now);
        recent.draw(
            second,
            &role_queues.iter().map(|(role, role_queue)| (Arc::clone(role), point(role_queue))).collect(),
        );
        recent.count(second, || CounterSnapshot {
            pools: pools.iter().map(|(name, group)| (name.clone(), Served::of(&group.totals))).collect(),
            roles: role_queues
                .iter()
                .map(|(role, role_queue)| (Arc::clone(role), role_queue.limiter.counters))
                .collect(),
            errors: proxy.errors.totals().into_iter().collect(),
        });
        let (before, _) = recent.minute_ago(second);
        let roles = role_queues.iter().map(|(name, role_queue)| role(name, role_queue, before, &pools, now)).collect();
        Self {
            is_draining: proxy.is_leaving(),
            connections: proxy.places.connections(),
            clients_max: proxy.config.load().listen.clients_max,
            clients: proxy.clients.len(),
            databases: databases(proxy, now),
            roles,
            leases: proxy.leases.as_ref().map(|leases| {
                let view = leases.view(now);
                let since = view.lost_since.unwrap_or(now);
                (view.state, now.saturating_duration_since(since))
            }),
            findings: findings(proxy, now),
            pools,
        }
    }
}

fn point(RoleQueueView { limiter, .. }: &RoleQueueView) -> Point {
    Point {
        active: limiter.active,
        waiting: limiter.waiting,
        limit: limiter.limit,
        effective: group::effective_limit(limiter),
        state: limiter.state,
    }
}

fn role(
    name: &Arc<str>,
    RoleQueueView { limiter, waiting_since, .. }: &RoleQueueView,
    before: &CounterSnapshot,
    pools: &BTreeMap<GroupName, PoolGroup>,
    now: Instant,
) -> RoleFacts {
    let earlier = before.roles.get(name).copied().unwrap_or_default();
    let since = |count: u64, earlier: u64| count.saturating_sub(earlier);
    let counters = &limiter.counters;
    let waits =
        pools.iter().filter(|((_, role), _)| role == name).map(|(_, group)| group.pool.settings().pool.wait_timeout);
    RoleFacts {
        name: Arc::clone(name),
        state: limiter.state,
        limit: limiter.limit,
        moves_for: limiter.moves_until.map(|until| until.saturating_duration_since(now)),
        effective: group::effective_limit(limiter),
        active: limiter.active,
        waiting: limiter.waiting,
        oldest: waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
        wait_timeout: waits.min().unwrap_or(Duration::MAX),
        starts: since(counters.starts, earlier.starts),
        turned_away: since(counters.refused_full, earlier.refused_full)
            + since(counters.refused_shed, earlier.refused_shed)
            + since(counters.timed_out, earlier.timed_out),
    }
}

fn databases(proxy: &Proxy, now: Instant) -> Vec<DatabaseFacts> {
    let config = proxy.config.load();
    let of = |(name, id): (Arc<str>, _)| {
        let view = proxy.pools.core().database(id)?;
        let down_for = match view.endpoint {
            EndpointView::Down(since) => now.saturating_duration_since(since),
            EndpointView::Up | EndpointView::Busy => Duration::ZERO,
        };
        Some(DatabaseFacts {
            endpoint: view.endpoint,
            down_for,
            is_paused: view.is_paused,
            is_unproved: view.is_unproved,
            is_disabled: proxy.directory.is_disabled(&name),
            waiting: view.waiting,
            counts: view.counts,
            backends_max: config.database(&name).and_then(|database| database.backends_max),
            name,
        })
    };
    proxy.directory.all_databases().into_iter().filter_map(of).collect()
}

fn findings(proxy: &Proxy, now: Instant) -> Vec<(Vec<Arc<str>>, Finding)> {
    let of_statements = statement_finding::findings(proxy).into_iter().take(FINDINGS_MAX);
    let of_watches = proxy.watches.findings(FINDINGS_MAX, now).into_iter();
    let of_watches = of_watches.map(|OpenFinding { databases, open }| (databases, open.value));
    of_watches.chain(of_statements.map(|(database, _, finding)| (vec![database], finding))).collect()
}
