//! The rows of SHOW, from what the process says about itself. Each lock is held for one copy, never for the table.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use tokio::time::Instant;

use super::group::{self, Group, Name};
use super::show::Show;
use super::table::{Cell, Row};
use crate::admission::gate::State;
use crate::clients::{Activity, Entry};
use crate::config::{self, CONSOLE_NAMES, Config, PoolMode};
use crate::metrics::{PoolCounter, PoolHistogram, Totals};
use crate::notify::exchange::{Exchange, Listener};
use crate::pool::core::{Counts, LaneView, Phase};
use crate::pool::open::Address;
use crate::pool::pool::{Pool, PoolKind};
use crate::proxy::Proxy;
use crate::session::pins;

/// Cells of one row, whatever they are made of.
macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$(Cell::from($cell)),*] };
}
pub(super) use row;

/// What PgBouncer calls its console and the user of its pool.
const CONSOLE: &str = "pgbouncer";

/// The console's own is the last.
pub(super) fn pools(proxy: &Proxy) -> Vec<Row> {
    let now = Instant::now();
    let mut idle: HashMap<Name, u32> = HashMap::new();
    for entry in proxy.clients.all() {
        if matches!(entry.activity(), Activity::Idle) {
            *idle.entry((Arc::clone(&entry.database), Arc::clone(&entry.role))).or_default() += 1;
        }
    }
    let row = |(name, group): (Name, Group)| {
        let Counts { opening, idle: free, handed, leased, closing: _, zombie: _ } = group.counts;
        // As in PgBouncer, a client that wants nothing is active.
        let active = idle.get(&name).copied().unwrap_or(0) + leased;
        let (wait, wait_us) = wait(group.waiting_since.map(|since| now.saturating_duration_since(since)));
        let settings = group.pool.settings();
        let hosts = &settings.endpoint.hosts;
        row![
            &*name.0,
            &*name.1,
            active,
            group.waiting,
            0,
            0,
            leased + handed,
            0,
            0,
            free,
            0,
            0,
            opening,
            wait,
            wait_us,
            settings.pool.mode.word(),
            (hosts.len() > 1).then_some("disable"),
        ]
    };
    let consoles: u32 =
        idle.iter().filter(|((database, _), _)| CONSOLE_NAMES.contains(&&**database)).map(|(_, n)| n).sum();
    let console = row![CONSOLE, CONSOLE, consoles, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, "statement", Cell::Null];
    group::all(proxy).into_iter().map(row).chain([console]).collect()
}

pub(super) fn clients(proxy: &Proxy) -> Vec<Row> {
    let row = |entry: Arc<Entry>| {
        let (addr, port) = address(&entry.addr);
        let activity = entry.activity();
        let (state, since, link) = match &activity {
            Activity::Idle => ("idle", None, String::new()),
            Activity::Waiting(since) => ("waiting", Some(since.elapsed()), String::new()),
            Activity::Active(target) => ("active", None, pointer(target)),
        };
        let (wait, wait_us) = wait(since);
        let active = proxy.started_at() + Duration::from_secs(entry.last_active().into());
        row![
            "C",
            &*entry.role,
            &*entry.database,
            "none",
            state,
            addr,
            port,
            "",
            0,
            time(entry.connected),
            time(active.max(entry.connected)),
            wait,
            wait_us,
            0,
            format!("{:p}", Arc::as_ptr(&entry)),
            link,
            0,
            if entry.is_tls { "TLS" } else { "" },
            &*entry.application_name,
            0,
            entry.pid,
        ]
    };
    proxy.clients.all().into_iter().map(row).collect()
}

pub(super) fn servers(proxy: &Proxy) -> Vec<Row> {
    let holders: HashMap<String, String> = proxy.clients.all().iter().filter_map(holding).collect();
    let mut rows = Vec::new();
    for (index, (slot, facts)) in proxy.pools.roster().all().into_iter().enumerate() {
        let core = proxy.pools.core();
        let Some(phase) = core.phase(slot) else { continue };
        let close_needed = phase == Phase::Closing || core.is_retired(slot);
        drop(core);
        let state = match phase {
            Phase::Opening => "new",
            Phase::Idle => "idle",
            Phase::Handed | Phase::Leased => "active",
            Phase::Closing => "closing",
            Phase::Zombie => "zombie",
        };
        let (addr, port) = match &facts.target.address {
            Address::Tcp { addr, .. } => (addr.ip().to_string(), addr.port()),
            Address::Unix(path) => (path.display().to_string(), 0),
        };
        let local = facts.local.map_or((String::new(), 0), |local| (local.ip().to_string(), local.port()));
        let name = &facts.pool.name;
        let pointer = pointer(&facts.target);
        let link = holders.get(&pointer).cloned().unwrap_or_default();
        let connected = time(facts.connected);
        rows.push(row![
            "S",
            &*name.role,
            &*name.database,
            replication(&facts.pool),
            state,
            addr,
            port,
            local.0,
            local.1,
            connected.clone(),
            connected,
            0,
            0,
            close_needed,
            pointer,
            link,
            facts.target.key.as_ref().map_or(0, |key| key.0),
            if facts.is_tls { "TLS" } else { "" },
            "",
            0,
            index,
        ]);
    }
    rows
}

/// A client with a backend: the backend's name and its own.
fn holding(entry: &Arc<Entry>) -> Option<(String, String)> {
    match entry.activity() {
        Activity::Active(target) => Some((pointer(&target), format!("{:p}", Arc::as_ptr(entry)))),
        Activity::Idle | Activity::Waiting(_) => None,
    }
}

fn pointer<T>(of: &Arc<T>) -> String {
    format!("{:p}", Arc::as_ptr(of))
}

/// Every database. The console is one, as in PgBouncer, where nothing is counted: programs that read these tables take an
/// empty one for a pooler that does not answer.
fn numbers(proxy: &Proxy) -> BTreeMap<Arc<str>, Numbers> {
    let now = Instant::now();
    let history = proxy.history();
    let mut by_database: BTreeMap<Arc<str>, (Totals, Totals)> = BTreeMap::from([(CONSOLE.into(), Default::default())]);
    let mut period = Duration::ZERO;
    for pool in proxy.all_pools() {
        let totals = pool.stats.totals();
        let (recent, since) = history.since(pool.key(), &totals, now);
        let (all, lately) = by_database.entry(Arc::clone(&pool.name.database)).or_default();
        all.merge(&totals);
        lately.merge(&recent);
        period = since;
    }
    by_database.into_iter().map(|(database, (all, lately))| (database, Numbers { all, lately, period })).collect()
}

/// What was counted of a database, or of all.
struct Numbers {
    all: Totals,
    /// The last of it.
    lately: Totals,
    /// How long that took.
    period: Duration,
}

impl Numbers {
    /// We count no prepared statements.
    fn totals(&self) -> Row {
        let all = &self.all;
        let [transaction, query, wait] =
            [PoolHistogram::Transaction, PoolHistogram::Query, PoolHistogram::Wait].map(|of| all.durations(of));
        row![
            all.count(PoolCounter::Leases),
            transaction.count(),
            query.count(),
            all.count(PoolCounter::Received),
            all.count(PoolCounter::Sent),
            transaction.sum_micros,
            query.sum_micros,
            wait.sum_micros,
            0,
            0,
            0,
        ]
    }

    /// The same each second, and how long each took.
    fn averages(&self) -> Row {
        let lately = &self.lately;
        let [transaction, query, wait] =
            [PoolHistogram::Transaction, PoolHistogram::Query, PoolHistogram::Wait].map(|of| lately.durations(of));
        let per_second = |n: u64| u128::from(n) * 1_000_000 / self.period.as_micros().max(1);
        let each = |micros: u64, n: u64| micros.checked_div(n).unwrap_or(0);
        row![
            per_second(lately.count(PoolCounter::Leases)),
            per_second(transaction.count()),
            per_second(query.count()),
            per_second(lately.count(PoolCounter::Received)),
            per_second(lately.count(PoolCounter::Sent)),
            each(transaction.sum_micros, transaction.count()),
            each(query.sum_micros, query.count()),
            each(wait.sum_micros, lately.count(PoolCounter::Leases)),
            0,
            0,
            0,
        ]
    }

    fn merge(mut self, other: &Self) -> Self {
        self.all.merge(&other.all);
        self.lately.merge(&other.lately);
        self.period = self.period.max(other.period);
        self
    }
}

fn by_database(proxy: &Proxy, cells: impl Fn(&Numbers) -> Row) -> Vec<Row> {
    let row = |(database, numbers): (Arc<str>, Numbers)| [row![&*database], cells(&numbers)].concat();
    numbers(proxy).into_iter().map(row).collect()
}

pub(super) fn stats(proxy: &Proxy) -> Vec<Row> {
    by_database(proxy, |numbers| [numbers.totals(), numbers.averages()].concat())
}

pub(super) fn stats_totals(proxy: &Proxy) -> Vec<Row> {
    by_database(proxy, Numbers::totals)
}

pub(super) fn stats_averages(proxy: &Proxy) -> Vec<Row> {
    by_database(proxy, Numbers::averages)
}

/// Over all databases, one number in each row.
pub(super) fn totals(proxy: &Proxy) -> Vec<Row> {
    let none = Numbers { all: Totals::default(), lately: Totals::default(), period: Duration::ZERO };
    let all = numbers(proxy).into_values().fold(none, |sum, numbers| sum.merge(&numbers));
    let names = |prefix: &'static str| TOTALS.iter().map(move |name| Cell::from(format!("{prefix}_{name}")));
    let named = names("total").zip(all.totals()).chain(names("avg").zip(all.averages()));
    named.map(|(name, number)| vec![name, number]).collect()
}

/// As SHOW TOTALS calls them, which is neither as SHOW STATS nor as SHOW STATS_TOTALS does.
const TOTALS: [&str; 11] = [
    "server_assignment_count",
    "xact_count",
    "query_count",
    "client_bytes",
    "server_bytes",
    "xact_time",
    "query_time",
    "wait_time",
    "client_parse_count",
    "server_parse_count",
    "bind_count",
];

pub(super) fn databases(proxy: &Proxy) -> Vec<Row> {
    let config = proxy.config.load();
    let known = proxy.all_databases();
    let ids: HashMap<&str, _> = known.iter().map(|(name, id)| (&**name, *id)).collect();
    let mut names: Vec<&str> = config.databases.keys().map(String::as_str).chain(ids.keys().copied()).collect();
    names.sort_unstable();
    names.dedup();
    let clients = count(proxy, |entry| &entry.database);
    let row = |name: &str| {
        let database = config.database(name)?;
        let view = ids.get(name).and_then(|id| proxy.pools.core().database(*id));
        let pool = &database.pool;
        Some(row![
            name,
            database.hosts.join(","),
            database.port,
            database.dbname.as_deref().unwrap_or(name),
            Cell::Null,
            pool.size,
            0,
            0,
            pool.lifetime.as_secs(),
            pool.mode.word(),
            (database.hosts.len() > 1).then_some("disable"),
            database.backends_max.unwrap_or(0),
            view.as_ref().map_or(0, |view| view.counts.open()),
            0,
            clients.get(name).copied().unwrap_or(0),
            view.as_ref().is_some_and(|view| view.is_paused),
            proxy.is_disabled(name),
        ])
    };
    names.into_iter().filter_map(row).collect()
}

pub(super) fn users(proxy: &Proxy) -> Vec<Row> {
    let config = proxy.config.load();
    let clients = count(proxy, |entry| &entry.role);
    let mut backends: HashMap<Arc<str>, u32> = HashMap::new();
    for pool in proxy.all_pools() {
        if let Some(view) = proxy.pools.core().pool(pool.id) {
            *backends.entry(Arc::clone(&pool.name.role)).or_default() += view.counts.open();
        }
    }
    let mut names: Vec<&str> = config.roles.keys().map(String::as_str).collect();
    names.extend(clients.keys().chain(backends.keys()).map(|name| &**name));
    names.sort_unstable();
    names.dedup();
    let row = |name: &str| {
        let role = config.role(name);
        row![
            name,
            role.and_then(|role| role.limits.size).map(|size| size.to_string()),
            Cell::Null,
            role.and_then(|role| role.limits.mode).map(PoolMode::word),
            0,
            backends.get(name).copied().unwrap_or(0),
            role.and_then(|role| role.limits.clients_max).unwrap_or(0),
            clients.get(name).copied().unwrap_or(0),
        ]
    };
    names.into_iter().map(row).collect()
}

/// The roles that have a lane, and those that the file names.
pub(super) fn roles(proxy: &Proxy) -> Vec<Row> {
    let now = Instant::now();
    let mut lanes: BTreeMap<Arc<str>, Option<LaneView>> =
        group::lanes(proxy, now).into_iter().map(|(role, lane)| (role, Some(lane))).collect();
    let config = proxy.config.load();
    for name in config.roles.keys().filter(|name| *name != "*") {
        lanes.entry(name.as_str().into()).or_default();
    }
    lanes
        .into_iter()
        .map(|(role, lane)| lane.map_or_else(|| unseen(&config, &role), |lane| gate(&role, &lane, now)))
        .collect()
}

fn gate(role: &str, lane: &LaneView, now: Instant) -> Row {
    let LaneView { gate, waiting_since } = lane;
    let (wait, wait_us) = wait(waiting_since.map(|since| now.saturating_duration_since(since)));
    let tally = &gate.tally;
    row![
        role,
        gate.state.word(),
        gate.limit,
        group::effective_limit(gate),
        gate.moves_until.map(|end| time(SystemTime::now() + end.saturating_duration_since(now))),
        gate.active,
        gate.waiting,
        wait,
        wait_us,
        tally.starts,
        tally.immediate,
        tally.refused_full,
        tally.refused_hopeless,
        tally.timed_out,
        tally.bursts,
        tally.convoys,
        tally.cuts,
        tally.reverts,
        tally.paced,
        tally.overdue,
        tally.spread,
    ]
}

/// Nobody has logged in as this role so far.
fn unseen(config: &Config, role: &str) -> Row {
    let limit = config.role(role).and_then(|role| role.limits.admission.transactions_max);
    let mut row = row![role, State::Calm.word(), limit, limit, Cell::Null];
    row.resize(Show::Roles.columns().len(), Cell::Int(0));
    row
}

/// Clients by one of their names.
fn count(proxy: &Proxy, name: impl Fn(&Entry) -> &Arc<str>) -> HashMap<Arc<str>, u32> {
    let mut counts = HashMap::new();
    for entry in proxy.clients.all() {
        *counts.entry(Arc::clone(name(&entry))).or_default() += 1;
    }
    counts
}

pub(super) fn pinned(proxy: &Proxy) -> Vec<Row> {
    let row = |entry: Arc<Entry>| {
        let reasons: Vec<_> = pins::names(entry.pins()).collect();
        let Activity::Active(target) = entry.activity() else { return None };
        let backend = target.key.as_ref().map_or(0, |key| key.0);
        (!reasons.is_empty()).then(|| row![&*entry.database, &*entry.role, entry.pid, backend, reasons.join(", ")])
    };
    proxy.clients.all().into_iter().filter_map(row).collect()
}

pub(super) fn listeners(proxy: &Proxy) -> Vec<Row> {
    let clients: HashMap<_, _> = proxy.clients.all().into_iter().map(|entry| (entry.pid, entry)).collect();
    let of = |exchange: Arc<Exchange>| {
        let row = |listener: Listener| {
            let entry = clients.get(&listener.pid)?;
            let channel = String::from_utf8_lossy(&listener.channel).into_owned();
            let since = time(listener.since);
            let Listener { pid, queued_bytes, .. } = listener;
            Some(row![&*exchange.database, channel, pid, &*entry.role, address(&entry.addr).0, queued_bytes, since])
        };
        exchange.listeners().into_iter().filter_map(row).collect::<Vec<_>>()
    };
    proxy.hub.all().into_iter().flat_map(of).collect()
}

pub(super) fn lists(proxy: &Proxy) -> Vec<Row> {
    let config = proxy.config.load();
    let clients = proxy.clients.len();
    let connections = proxy.connections.load(std::sync::atomic::Ordering::Acquire);
    let total = proxy.pools.core().total();
    vec![
        row!["databases", config.databases.len()],
        row!["users", config.roles.len()],
        row!["peers", 0],
        row!["pools", proxy.all_pools().len()],
        row!["peer_pools", 0],
        row!["free_clients", (config.listen.clients_max as usize).saturating_sub(connections)],
        row!["used_clients", clients],
        row!["login_clients", connections.saturating_sub(clients)],
        row!["free_servers", total.idle],
        row!["used_servers", total.open() - total.idle],
        row!["dns_names", 0],
        row!["dns_zones", 0],
        row!["dns_queries", 0],
        row!["dns_pending", 0],
    ]
}

pub(super) fn config(config: &Config) -> Vec<Row> {
    let defaults = config::defaults(config);
    let row = |(key, setting): (String, config::ConfigSetting)| {
        let changeable = if setting.needs_restart { "no" } else { "yes" };
        let default = defaults.get(&key).map(config::ConfigSetting::to_string);
        row![key, setting.to_string(), default, changeable]
    };
    config::entries(config).into_iter().map(row).collect()
}

pub(super) fn state(proxy: &Proxy) -> Vec<Row> {
    let say = |is: bool| if is { "yes" } else { "no" };
    let is_paused = proxy.is_paused();
    vec![row!["active", say(!is_paused)], row!["paused", say(is_paused)], row!["suspended", "no"]]
}

/// Whole seconds and the microseconds of the rest.
pub(super) fn wait(wait: Option<Duration>) -> (u64, u32) {
    wait.map_or((0, 0), |wait| (wait.as_secs(), wait.subsec_micros()))
}

pub(super) fn address(text: &str) -> (String, u16) {
    match text.parse::<SocketAddr>() {
        Ok(addr) => (addr.ip().to_canonical().to_string(), addr.port()),
        Err(_) => (text.to_owned(), 0),
    }
}

/// As PgBouncer writes it: `2026-01-31 23:59:59 UTC`.
pub(super) fn time(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let (date, hour, minute, second) = (at.date(), at.hour(), at.minute(), at.second());
    format!("{date} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Which replication protocol the pool's backends speak.
fn replication(pool: &Pool) -> &'static str {
    match &pool.name.kind {
        PoolKind::Replication(parameters) if parameters.iter().any(|(_, value)| value == "database") => "logical",
        PoolKind::Replication(_) => "physical",
        PoolKind::Ordinary | PoolKind::Own => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_pgbouncer_does() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_827_696, "2000-02-29 12:34:56 UTC"),
            (1_798_761_599, "2026-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn addresses_are_cut_at_their_port() {
        assert_eq!(address("127.0.0.1:5432"), ("127.0.0.1".into(), 5432));
        assert_eq!(address("[::1]:1"), ("::1".into(), 1));
        assert_eq!(address("unix"), ("unix".into(), 0));
    }
}
