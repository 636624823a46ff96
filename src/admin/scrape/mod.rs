//! `/metrics`: the values of all metrics, in Prometheus's text format.
//!
//! Counters of pools and of the process come with their metric; the rest is looked up here. Each lock is held for one
//! copy, never for the whole scrape. The one exception is a watch's: only the watch itself could wait for that.

mod exposition;
mod label;
mod own_process;

#[cfg(test)]
mod document;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tokio::time::Instant;

use self::exposition::Exposition;
use self::label::{ClientState, ObservedOutcome, RefreshOutcome, RoleRefusal, ServerSessionState};
pub use self::label::{LabelValues, values};
use super::group::{self, GroupName, PoolGroup};
use super::readers;
use super::statement_finding;
use crate::admission::limiter::LimiterState;
use crate::admission::shadow::ObservedCounts;
use crate::clients::Activity;
use crate::config::MetricsPer;
use crate::fleet::lease::holder::LeaseState;
use crate::metrics::{Metric, PoolHistogram, Totals};
use crate::notify::exchange::Exchange;
use crate::pool::core::{DatabaseId, EndpointView, RoleQueueView, SlotPhase};
use crate::proxy::Proxy;
use crate::session::pins;
use crate::watch::activity::LockKind;
use crate::watch::convoy::ConvoyState;
use crate::watch::culprit::CulpritKind;
use crate::watch::finding::FindingKind;
use crate::watch::monitor::Monitor;
use crate::watch::stats::Reaction;
use crate::watch::watches::ServerWatches;
use crate::workload::StatementView;

/// Limit on the pools shown that only a `"*"` of the configuration serves, and on such databases and roles: clients
/// make them by asking for any name.
const UNNAMED_MAX: usize = 200;

/// Everything as it is now.
pub(super) fn metrics(proxy: &Proxy) -> String {
    let now = Instant::now();
    let config = proxy.config.load();
    let has_database = |name: &str| config.databases.contains_key(name);
    let has_role = |name: &str| config.roles.contains_key(name);
    let mut page = Exposition::default();
    process(&mut page, proxy);
    let (groups, unlisted): (BTreeMap<_, _>, _) =
        bounded(group::all(proxy), |((database, role), _)| has_database(database) && has_role(role));
    page.put(Metric::PoolsUnlisted, &[], unlisted);
    clients(&mut page, proxy, &groups);
    let (databases, _): (Vec<_>, _) = bounded(proxy.directory.all_databases(), |(name, _)| has_database(name));
    for (name, id) in databases {
        put_database(&mut page, proxy, &name, id);
    }
    put_readers(&mut page, proxy);
    let (exchanges, _): (Vec<_>, _) = bounded(proxy.hub.all(), |exchange| has_database(&exchange.database));
    for exchange in exchanges {
        put_notifications(&mut page, &exchange);
    }
    let (monitors, _): (Vec<_>, _) = bounded(proxy.watches.all(), |monitor| has_database(&monitor.database));
    let unusual = statement_finding::findings(proxy);
    for server in proxy.watches.servers() {
        if server.monitors.iter().any(|of| monitors.iter().any(|monitor| of.database == monitor.database)) {
            put_watched_server(&mut page, &server);
        }
    }
    for monitor in monitors {
        let of_statements = unusual.iter().filter(|(database, ..)| *database == monitor.database).count();
        let warned = proxy.workload.as_ref().map_or(0, |workload| workload.warned(&monitor.database));
        put_watch(&mut page, &monitor, of_statements, warned);
    }
    for ((database, role), group) in &groups {
        put_group(&mut page, (database, role), group, now);
    }
    put_durations(&mut page, config.metrics.per, &groups);
    let (role_queues, _): (Vec<_>, _) = bounded(group::role_queues(proxy, now), |(role, _)| has_role(role));
    for (role, role_queue) in role_queues {
        put_role_queue(&mut page, &role, &role_queue, now);
    }
    lanes(&mut page, proxy, now);
    statements(&mut page, proxy);
    page.text()
}

/// The lanes of the file; those of orders come and go, and their statements have series.
fn lanes(page: &mut Exposition, proxy: &Proxy, now: Instant) {
    for lane in proxy.lanes.of_file().iter() {
        let Some(view) = proxy.pools.core().role_queue(lane.id, now) else { continue };
        let RoleQueueView { limiter, observed, .. } = &view;
        let (own, counters) = (&[&*lane.name], &limiter.counters);
        page.put(Metric::LaneActive, own, limiter.active);
        if let Some(effective) = group::effective_limit(limiter) {
            page.put(Metric::LaneEffectiveLimit, own, effective);
        }
        page.put(Metric::LaneWaiters, own, limiter.waiting);
        page.put(Metric::LaneStarts, own, counters.starts);
        page.put(Metric::LaneWaited, own, counters.starts - counters.immediate);
        let refused = group::refused(counters) + lane.refused_later.load(Ordering::Relaxed);
        page.put(Metric::LaneRefused, own, refused);
        page.put(Metric::LaneWaitTimeouts, own, counters.timed_out);
        if let Some((_, counts)) = observed {
            put_observed(page, Metric::LaneObserved, &lane.name, counts);
        }
    }
}

fn put_observed(page: &mut Exposition, metric: Metric, name: &str, counts: &ObservedCounts) {
    for outcome in ObservedOutcome::ALL {
        let count = match outcome {
            ObservedOutcome::Waits => counts.waits,
            ObservedOutcome::TimedOut => counts.timed_out,
            ObservedOutcome::Refused => counts.refused,
        };
        page.put(metric, &[name, outcome.word()], count);
    }
}

/// Statements with series of their own.
const STATEMENTS_MAX: usize = 20;

fn statements(page: &mut Exposition, proxy: &Proxy) {
    let Some(workload) = &proxy.workload else { return };
    let mut views = workload.view();
    views.retain(|view| view.digest.is_some());
    page.put(Metric::StatementsKept, &[], views.len());
    views.sort_by_key(|view| Reverse(view.totals.server_time()));
    for StatementView { digest, totals, .. } in views.into_iter().take(STATEMENTS_MAX) {
        let digest = digest.unwrap_or_default().to_string();
        page.put(Metric::StatementCalls, &[&digest], totals.calls);
        page.put(Metric::StatementServerTime, &[&digest], totals.server_time().as_secs_f64());
        page.put(Metric::StatementWaits, &[&digest], totals.waited.as_secs_f64());
        page.put(Metric::StatementErrors, &[&digest], totals.errors());
        page.put(Metric::StatementTimeouts, &[&digest], totals.timeouts());
    }
}

/// All that the configuration names, and of the rest no more than [`UNNAMED_MAX`]; with how many that leaves out.
fn bounded<T, C: FromIterator<T>>(all: impl IntoIterator<Item = T>, is_named: impl Fn(&T) -> bool) -> (C, usize) {
    let mut unnamed = 0;
    let is_listed = |item: &T| {
        is_named(item) || {
            unnamed += 1;
            unnamed <= UNNAMED_MAX
        }
    };
    let listed = all.into_iter().filter(is_listed).collect();
    (listed, unnamed.saturating_sub(UNNAMED_MAX))
}

fn process(page: &mut Exposition, proxy: &Proxy) {
    page.put(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1);
    let started = proxy.clock.started_at().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    page.put(Metric::StartTime, &[], started.as_secs_f64());
    own_process::put(page, started);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    for certificate in proxy.certificates.load().iter() {
        let left = certificate.expires.saturating_sub_unsigned(now);
        page.put(Metric::CertificateExpiry, &[&certificate.file.to_string_lossy()], left);
    }
    page.put(Metric::Draining, &[], u8::from(proxy.is_leaving()));
    page.put(Metric::ConfigCurrent, &[], u8::from(!proxy.process.is_outdated()));
    page.put(Metric::WorkersServing, &[], proxy.serving.load(Ordering::Relaxed) as u64);
    page.put(Metric::ClientMoves, &[], proxy.loads.iter().map(|load| load.moved_away()).sum::<u64>());
    page.put(Metric::BackendMoves, &[], proxy.loads.iter().map(|load| load.backends_come()).sum::<u64>());
    page.put(Metric::Connections, &[], proxy.places.connections());
    page.put(Metric::Arrivals, &[], proxy.places.arrivals());
    page.put(Metric::ClientsMax, &[], proxy.config.load().listen.clients_max);
    put_fleet(page, proxy);
    page.put(Metric::ClientMemory, &[], proxy.memory.used() as u64);
    if let Some(recorder) = &proxy.recorder {
        page.put(Metric::RecorderLost, &[], recorder.lost());
    }
    page.put_counters(&[], proxy.process.counters());
    for (metric, durations) in proxy.process.histograms() {
        page.put_distribution(metric, &[], &durations);
    }
    for (sqlstate, count) in proxy.errors.totals() {
        page.put(Metric::Errors, &[&sqlstate], count);
    }
}

fn put_fleet(page: &mut Exposition, proxy: &Proxy) {
    let now = Instant::now();
    if let Some(instances) = proxy.fleet_size(now) {
        page.put(Metric::FleetInstances, &[], instances);
    }
    let Some(view) = proxy.leases.as_ref().map(|leases| leases.view(now)) else { return };
    for state in LeaseState::ALL {
        page.put(Metric::FleetLeaseState, &[state.word()], u8::from(state == view.state));
    }
    for (outcome, count) in RefreshOutcome::WORDS.into_iter().zip([view.counts.answered, view.counts.failed]) {
        page.put(Metric::FleetRefreshes, &[outcome], count);
    }
    page.put(Metric::FleetRefreshSeconds, &[], view.lag.as_secs_f64());
}

/// Clients of one database and role.
#[derive(Default)]
struct GroupClients {
    by_state: [u32; ClientState::ALL.len()],
    pins: HashMap<&'static str, u32>,
}

fn clients(page: &mut Exposition, proxy: &Proxy, pools: &BTreeMap<GroupName, PoolGroup>) {
    // A pool whose clients have all left shows zeros.
    let mut groups: HashMap<GroupName, GroupClients> =
        pools.keys().map(|name| (name.clone(), GroupClients::default())).collect();
    for entry in proxy.clients.all() {
        let name = (Arc::clone(&entry.database), Arc::clone(&entry.role));
        let Some(group) = groups.get_mut(&name) else { continue };
        let state = match entry.activity() {
            Activity::Idle => ClientState::Idle,
            Activity::Waiting(_) => ClientState::Waiting,
            Activity::Active(_) => ClientState::Active,
        };
        group.by_state[state as usize] += 1;
        for reason in pins::names(entry.pins()) {
            *group.pins.entry(reason).or_default() += 1;
        }
    }
    for ((database, role), GroupClients { by_state, pins }) in groups {
        for (state, count) in ClientState::WORDS.into_iter().zip(by_state) {
            page.put(Metric::Clients, &[&database, &role, state], count);
        }
        for (reason, count) in pins {
            page.put(Metric::Pins, &[&database, &role, reason], count);
        }
    }
}

fn put_database(page: &mut Exposition, proxy: &Proxy, name: &str, id: DatabaseId) {
    let Some(view) = proxy.pools.core().database(id) else { return };
    page.put(Metric::EndpointUp, &[name], u8::from(!matches!(view.endpoint, EndpointView::Down(_))));
    page.put(Metric::Paused, &[name], u8::from(view.is_paused));
    page.put(Metric::Unproved, &[name], u8::from(view.is_unproved));
}

/// Readers of one database that are shown.
const READERS_MAX: usize = 32;

fn put_readers(page: &mut Exposition, proxy: &Proxy) {
    let mut shown: HashMap<Arc<str>, usize> = HashMap::new();
    for reader in readers::all(proxy) {
        let of_database = shown.entry(Arc::clone(&reader.database)).or_default();
        *of_database += 1;
        if *of_database > READERS_MAX {
            continue;
        }
        let labels = &[&*reader.database, &*reader.host];
        page.put(Metric::ReaderUsed, labels, u8::from(reader.is_used()));
        page.put(Metric::ReaderActive, labels, reader.active());
        page.put(Metric::ReaderBackends, labels, reader.backends());
        if let Some(lag) = reader.lag.and_then(|known| known.lag) {
            page.put(Metric::ReaderLag, labels, lag.as_secs_f64());
        }
    }
}

fn put_notifications(page: &mut Exposition, exchange: &Exchange) {
    let database = &*exchange.database;
    let own = &[database];
    let (listeners, channels) = exchange.size();
    let counts = exchange.stats.counts();
    page.put(Metric::NotifyQueue, own, exchange.outbox().depth() + exchange.overflow().depth());
    page.put(Metric::NotifyListeners, own, listeners);
    page.put(Metric::NotifyChannels, own, channels);
    page.put(Metric::NotifyIntercepted, own, counts.intercepted);
    page.put(Metric::NotifyPublished, own, counts.published);
    page.put(Metric::NotifyDelivered, own, counts.delivered);
    page.put(Metric::NotifyFolded, own, counts.folded);
    for (cause, count) in exchange.stats.drops() {
        page.put(Metric::NotifyDropped, &[database, cause], count);
    }
    for (cause, count) in exchange.stats.gaps() {
        page.put(Metric::NotifyGaps, &[database, cause], count);
    }
    page.put_distribution(Metric::NotifyBus, own, &exchange.stats.bus());
}

/// How many tables of a database are shown: those with the most dead rows.
const DEAD_TUPLES_MAX: usize = 5;

/// What is the same in all databases of a server; the watch that asks for it may have been another before.
fn put_watched_server(page: &mut Exposition, ServerWatches { address, monitors, leader }: &ServerWatches) {
    let server = &**address;
    let own = &[server];
    for monitor in monitors {
        page.put(Metric::WatchServer, &[server, &*monitor.database], 1);
    }
    let core = leader.core();
    let (convoy, sample) = (core.convoy(), core.convoy().sample());
    page.put(Metric::WatchStandby, own, u8::from(core.server().is_some_and(|server| server.is_standby)));
    for state in ConvoyState::ALL {
        page.put(Metric::WatchState, &[server, state.word()], u8::from(state == convoy.state()));
    }
    let open = core.open_counts(Instant::now());
    for kind in FindingKind::ALL.into_iter().filter(|kind| kind.is_of_server()) {
        page.put(Metric::WatchOpen, &[server, "", kind.word()], open[kind as usize]);
        let found: u64 = monitors.iter().map(|monitor| monitor.stats.findings(kind)).sum();
        page.put(Metric::WatchFound, &[server, "", kind.word()], found);
    }
    for (place, kind) in Reaction::WORDS.into_iter().enumerate() {
        let count: u64 = monitors.iter().map(|monitor| monitor.stats.reactions()[place].1).sum();
        page.put(Metric::WatchReactions, &[server, kind], count);
    }
    for state in ServerSessionState::ALL {
        let count = match state {
            ServerSessionState::Active => sample.active,
            ServerSessionState::IdleInTransaction => sample.idle_in_transaction,
            ServerSessionState::Idle => sample.idle(),
        };
        page.put(Metric::WatchSessions, &[server, state.word()], count);
    }
    for kind in LockKind::ALL {
        page.put(Metric::WatchLockWaiters, &[server, kind.word()], sample.count(kind));
    }
    page.put(Metric::WatchLockManagerWaiters, own, sample.lock_manager);
    page.put(Metric::WatchOldestLockWait, own, convoy.longest().as_secs_f64());
    page.put(Metric::ServerNotifyQueue, own, core.detectors().notify_queue.usage());
}

fn put_watch(page: &mut Exposition, monitor: &Monitor, of_statements: usize, warned: u64) {
    let database = &*monitor.database;
    let own = &[database];
    let core = monitor.core();
    page.put(Metric::WatchUp, own, u8::from(monitor.is_up(&core)));
    let mut open = core.open_counts(Instant::now());
    open[FindingKind::Statement as usize] = of_statements;
    for kind in FindingKind::ALL.into_iter().filter(|kind| !kind.is_of_server()) {
        page.put(Metric::WatchOpen, &["", database, kind.word()], open[kind as usize]);
        let found = if kind == FindingKind::Statement { warned } else { monitor.stats.findings(kind) };
        page.put(Metric::WatchFound, &["", database, kind.word()], found);
    }
    for kind in CulpritKind::ALL {
        let holds = || core.detectors().horizon.holds().filter(|hold| hold.culprit.kind() == kind);
        page.put(
            Metric::XminAgeTransactions,
            &[database, kind.word()],
            holds().map(|hold| hold.transactions).max().unwrap_or(0),
        );
        page.put(
            Metric::XminAge,
            &[database, kind.word()],
            holds().map(|hold| hold.age).max().unwrap_or_default().as_secs_f64(),
        );
    }
    for table in core.detectors().dead_tuples.tables().iter().take(DEAD_TUPLES_MAX) {
        page.put(Metric::DeadTuples, &[database, &table.name], table.dead);
    }
    page.put(Metric::WatchOutside, own, core.detectors().outside.count());
    page.put_distribution(Metric::WatchQuery, own, &monitor.stats.cost());
}

fn put_group(page: &mut Exposition, (database, role): (&str, &str), group: &PoolGroup, now: Instant) {
    let both = &[database, role];
    for phase in SlotPhase::ALL {
        page.put(Metric::Backends, &[database, role, phase.word()], group.counts.in_phase(phase));
    }
    page.put(Metric::BackendsMax, both, group.pool.settings().pool.size);
    page.put(Metric::Waiters, both, group.waiting);
    let oldest = group.waiting_since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
    page.put(Metric::OldestWait, both, oldest);
    let totals = &group.totals;
    page.put(Metric::Queries, both, totals.durations(PoolHistogram::Query).count());
    page.put(Metric::Transactions, both, totals.durations(PoolHistogram::Transaction).count());
    // Causes are many, and most pools know few of them.
    page.put_counters(both, totals.counters().filter(|((_, word), count)| word.is_empty() || *count > 0));
}

/// Durations have a series for each bound, so several pools share theirs unless the configuration wants them apart.
fn put_durations(page: &mut Exposition, per: MetricsPer, groups: &BTreeMap<GroupName, PoolGroup>) {
    let mut sums: BTreeMap<(&str, &str), Totals> = BTreeMap::new();
    for ((database, role), group) in groups {
        let name = match per {
            MetricsPer::Pool => (&**database, &**role),
            MetricsPer::Role => ("", &**role),
            MetricsPer::Database => (&**database, ""),
        };
        sums.entry(name).or_default().merge(&group.totals);
    }
    for ((database, role), totals) in &sums {
        for (metric, durations) in totals.histograms() {
            page.put_distribution(metric, &[database, role], durations);
        }
    }
}

fn put_role_queue(page: &mut Exposition, role: &str, role_queue: &RoleQueueView, now: Instant) {
    let RoleQueueView { limiter, observed, waiting_since } = role_queue;
    let own = &[role];
    if let Some((_, counts)) = observed {
        put_observed(page, Metric::RoleObserved, role, counts);
    }
    page.put(Metric::RoleActive, own, limiter.active);
    if let Some(limit) = limiter.limit {
        page.put(Metric::RoleLimit, own, limit);
    }
    if let Some(effective) = group::effective_limit(limiter) {
        page.put(Metric::RoleEffectiveLimit, own, effective);
    }
    if let Some(part) = limiter.part {
        page.put(Metric::RolePart, own, part);
    }
    page.put(Metric::RoleWaiters, own, limiter.waiting);
    let oldest = waiting_since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
    page.put(Metric::RoleOldestWait, own, oldest);
    for state in LimiterState::ALL {
        page.put(Metric::RoleState, &[role, state.word()], u8::from(state == limiter.state));
    }
    let counters = &limiter.counters;
    for reason in RoleRefusal::ALL {
        let count = match reason {
            RoleRefusal::Full => counters.refused_full,
            RoleRefusal::Shed => counters.refused_shed,
        };
        page.put(Metric::RoleRefused, &[role, reason.word()], count);
    }
    for (metric, count) in [
        (Metric::RoleStarts, counters.starts),
        (Metric::RoleStartsImmediate, counters.immediate),
        (Metric::RoleWaitTimeouts, counters.timed_out),
        (Metric::RoleBursts, counters.bursts),
        (Metric::RoleStuck, counters.stuck),
        (Metric::RoleConvoys, counters.stuck),
        (Metric::RoleLimitCuts, counters.cuts),
        (Metric::RoleLimitReverts, counters.reverts),
        (Metric::RolePaced, counters.paced),
        (Metric::RolePaceOverflow, counters.overdue),
        (Metric::RoleSpread, counters.spread),
    ] {
        page.put(metric, own, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fixtures::Trouble;
    use crate::auth::Credential;
    use crate::pool::pool::{PoolKind, PoolName};

    fn assert_lines(trouble: &Trouble, lines: &[&str]) {
        let page = metrics(&trouble.proxy);
        for line in lines {
            assert!(page.lines().any(|found| found == *line), "{line}\n{page}");
        }
    }

    #[test]
    fn names_that_clients_make_up_are_shown_up_to_a_bound_and_those_of_the_file_always() {
        let (listed, unlisted): (Vec<_>, _) = bounded(0..1000, |n| *n >= 995);
        assert_eq!(listed, (0..200).chain(995..1000).collect::<Vec<_>>());
        assert_eq!(unlisted, 795);
        assert_eq!(bounded::<_, Vec<_>>(0..5, |_| false).1, 0);
    }

    /// 50 roles with 20 databases each.
    fn with_a_thousand_pools(per: &str) -> Trouble {
        let databases = (0..20).map(|n| format!("[databases.d{n}]\nhost = \"h\"\n"));
        let roles = (0..50).map(|n| format!("[roles.r{n}]\nauth = \"trust\"\n"));
        let text =
            format!("[metrics]\nper = \"{per}\"\n{}{}", databases.collect::<String>(), roles.collect::<String>());
        let config = crate::config::parse(&text, std::path::Path::new("proxy.toml"), &|_| None).expect("valid");
        let trouble = Trouble::convoy();
        trouble.proxy.config.store(Arc::new(config));
        for (database, role) in (0..20).flat_map(|database| (0..50).map(move |role| (database, role))) {
            let (database, role) = (format!("d{database}").into(), format!("r{role}").into());
            let name = PoolName { database, role, kind: PoolKind::Ordinary };
            assert!(trouble.proxy.directory.pool(name, &Credential::Nothing, 0).is_some());
        }
        trouble
    }

    #[test]
    fn a_pool_has_few_series_unless_durations_are_wanted_for_each() {
        let series = |per: &str| {
            let page = metrics(&with_a_thousand_pools(per).proxy);
            let of_pools = page.lines().filter(|line| line.contains("role=\"r") && line.contains("database=\""));
            of_pools.count()
        };
        assert!(series("role") <= 25 * 1000, "{}", series("role"));
        assert!(series("database") <= 25 * 1000, "{}", series("database"));
        assert!(series("pool") > 100 * 1000, "{}", series("pool"));
        let page = metrics(&with_a_thousand_pools("role").proxy);
        assert!(page.contains("pgweir_query_seconds_count{database=\"\",role=\"r0\"} 0"), "summed over databases");
    }

    #[test]
    fn an_unwatched_database_has_no_series_and_an_unreached_one_is_not_up() {
        let trouble = Trouble::unreached();
        assert_lines(&trouble, &["pgweir_watch_up{database=\"app\"} 0"]);
        trouble.proxy.watches.remove("app", Instant::now());
        assert!(!metrics(&trouble.proxy).contains("pgweir_watch_"));
    }

    #[test]
    fn a_convoy_is_told_with_its_size_and_counted_once() {
        let trouble = Trouble::convoy();
        let lines = [
            "pgweir_watch_up{database=\"app\"} 1",
            "pgweir_watch_state{server=\"127.0.0.1:5432\",state=\"convoy\"} 1",
            "pgweir_watch_state{server=\"127.0.0.1:5432\",state=\"calm\"} 0",
            "pgweir_watch_lock_waiters{server=\"127.0.0.1:5432\",kind=\"row\"} 150",
            "pgweir_watch_lock_waiters{server=\"127.0.0.1:5432\",kind=\"extension\"} 0",
            "pgweir_watch_oldest_lock_wait_seconds{server=\"127.0.0.1:5432\"} 6",
            "pgweir_watch_sessions{server=\"127.0.0.1:5432\",state=\"idle\"} 8",
            "pgweir_watch_findings_open{server=\"127.0.0.1:5432\",database=\"\",kind=\"convoy\"} 1",
            "pgweir_watch_findings_open{server=\"127.0.0.1:5432\",database=\"\",kind=\"blocker\"} 1",
            "pgweir_watch_findings_open{server=\"\",database=\"app\",kind=\"idle_in_transaction\"} 1",
            "pgweir_watch_findings_total{server=\"127.0.0.1:5432\",database=\"\",kind=\"convoy\"} 1",
        ];
        assert_lines(&trouble, &lines);
        let ended = trouble.monitor.core().end(Instant::now());
        trouble.monitor.tell(&trouble.proxy, ended);
        let lines = [
            "pgweir_watch_findings_open{server=\"127.0.0.1:5432\",database=\"\",kind=\"convoy\"} 0",
            "pgweir_watch_findings_total{server=\"127.0.0.1:5432\",database=\"\",kind=\"convoy\"} 1",
        ];
        assert_lines(&trouble, &lines);
    }

    #[test]
    fn the_horizon_is_told_by_who_holds_it() {
        let lines = [
            "pgweir_xmin_age_transactions{database=\"app\",kind=\"slot\"} 2000000",
            "pgweir_xmin_age_transactions{database=\"app\",kind=\"backend\"} 40",
            "pgweir_xmin_age_seconds{database=\"app\",kind=\"prepared\"} 0",
            "pgweir_dead_tuples{database=\"app\",relation=\"public.jobs\"} 50000",
            "pgweir_watch_findings_open{server=\"\",database=\"app\",kind=\"dead_tuples\"} 1",
        ];
        assert_lines(&Trouble::horizon(), &lines);
    }
}
