//! The content of the status page as JSON: the state of everything, the problems, and the last minutes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::busiest;
use super::facts::{DatabaseFacts, RoleFacts, StatusFacts};
use super::figures::{per_second, seconds};
use super::group::{GroupName, PoolGroup};
use super::problem::{self, Log, Problem};
use super::recent::{CounterSnapshot, Recent, Served, wait_quantile};
use super::table::{ConsoleTable, TableCell};
use super::tables::{blockers, convoys, fleet, horizon, orders};
use crate::clients::Activity;
use crate::metrics::{PoolHistogram, Totals};
use crate::pool::core::{EndpointView, SlotCounts};
use crate::proxy::Proxy;
use crate::session::pins;

/// Of pools and roles the busiest; a page of thousands helps nobody.
const BUSIEST: usize = 100;

/// Of pins and errors the most.
const TOP: usize = 15;

/// The memory of the page.
#[derive(Debug, Default)]
pub(super) struct StatusMemory(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    recent: Recent,
    log: Log,
}

/// How everything is at one moment, and what is wrong with it.
pub(super) struct StatusMoment {
    facts: StatusFacts,
    problems: Vec<Problem>,
    now: Instant,
    second: u64,
}

impl StatusMemory {
    /// Looks at everything, and remembers what the page will show of it.
    pub(super) fn look(&self, proxy: &Proxy) -> StatusMoment {
        let now = Instant::now();
        let second = now.saturating_duration_since(proxy.clock.started()).as_secs();
        let mut remembered = self.remembered();
        let facts = StatusFacts::of(proxy, &mut remembered.recent, now, second);
        let problems = problem::problems(&facts);
        remembered.log.take(second, &problems);
        StatusMoment { facts, problems, now, second }
    }

    /// All roles over the last minutes.
    pub(super) fn lines(&self) -> Value {
        self.remembered().recent.lines()
    }

    pub(super) fn status(&self, proxy: &Proxy, moment: &StatusMoment) -> Value {
        let remembered = self.remembered();
        let StatusMoment { facts, problems, now, second } = moment;
        let (before, seconds) = remembered.recent.minute_ago(*second);
        let clients = ClientsByPool::of(proxy);
        let totals = facts.pools.values().fold(Totals::default(), |mut sum, group| {
            sum.merge(&group.totals);
            sum
        });
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "now": unix.as_millis() as u64,
            "uptime": second,
            "draining": facts.is_draining,
            "paused": proxy.directory.is_paused(),
            "may_act": proxy.config.load().admin.token.is_some(),
            "headline": problem::headline(problems),
            "problems": problem::shown(problems),
            "lately": remembered.log.shown(*second),
            "clients": {
                "connections": facts.connections,
                "max": facts.clients_max,
                "idle": clients.sum(|of| of.idle),
                "waiting": clients.sum(|of| of.waiting),
                "active": clients.sum(|of| of.active),
            },
            "transactions": totals.durations(PoolHistogram::Transaction).count(),
            "queries": totals.durations(PoolHistogram::Query).count(),
            // Alone, an instance is what the rest of the page shows.
            "fleet": proxy.leases.as_ref().map(|_| shown(&fleet::TABLE, proxy)),
            "orders": shown(&orders::TABLE, proxy),
            "databases": facts.databases.iter().map(database).collect::<Vec<_>>(),
            "roles": busiest(&facts.roles, |of| (of.waiting, of.active), |of| role(of, seconds)),
            "roles_left_out": facts.roles.len().saturating_sub(BUSIEST),
            "pools": pools(facts, &clients, before, seconds, *now),
            "pools_left_out": facts.pools.len().saturating_sub(BUSIEST),
            "watch": {
                "convoys": shown(&convoys::TABLE, proxy),
                "blockers": shown(&blockers::TABLE, proxy),
                "horizon": shown(&horizon::TABLE, proxy),
            },
            "statements": busiest::statements(proxy, *second),
            "listeners": listeners(proxy),
            "pins": clients.pins(),
            "errors": errors(proxy, before),
        })
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().expect("no panic while held")
    }
}

/// The busiest in the order they come in, so that nothing jumps from second to second.
fn busiest<T, K: Ord>(all: &[T], busy: impl Fn(&T) -> K, show: impl Fn(&T) -> Value) -> Value {
    let mut places: Vec<usize> = (0..all.len()).collect();
    places.sort_by_key(|place| Reverse(busy(&all[*place])));
    places.truncate(BUSIEST);
    places.sort_unstable();
    places.into_iter().map(|place| show(&all[place])).collect()
}

/// The rows of a table of the console, by the names of its columns.
fn shown(table: &ConsoleTable, proxy: &Proxy) -> Value {
    let row = |row: Vec<TableCell>| -> Value {
        let named = table.columns.iter().zip(row);
        named.map(|((name, _), cell)| ((*name).to_owned(), value(cell))).collect::<Map<_, _>>().into()
    };
    (table.rows)(proxy).into_iter().take(BUSIEST).map(row).collect()
}

fn value(cell: TableCell) -> Value {
    match cell {
        TableCell::Text(text) => text.into(),
        TableCell::Int(number) => number.into(),
        TableCell::Null => Value::Null,
    }
}

fn database(of: &DatabaseFacts) -> Value {
    let state = match of.endpoint {
        EndpointView::Up => "up",
        EndpointView::Busy => "full",
        EndpointView::Down(_) => "down",
    };
    json!({
        "database": &*of.name,
        "state": state,
        "down_for": of.down_for.as_secs(),
        "paused": of.is_paused,
        "unproved": of.is_unproved,
        "disabled": of.is_disabled,
        "backends": of.counts.open(),
        "backends_max": of.backends_max,
        "waiting": of.waiting,
    })
}

fn role(of: &RoleFacts, minute: u64) -> Value {
    json!({
        "role": &*of.name,
        "state": of.state.word(),
        "limit": of.limit,
        "effective": of.effective,
        "moves_for": of.moves_for.map(|left| left.as_secs_f64().ceil()),
        "active": of.active,
        "waiting": of.waiting,
        "oldest_wait": seconds(of.oldest),
        "starts_per_second": per_second(of.starts, minute),
        "turned_away": of.turned_away,
    })
}

fn pools(facts: &StatusFacts, clients: &ClientsByPool, before: &CounterSnapshot, minute: u64, now: Instant) -> Value {
    let all: Vec<(&GroupName, &PoolGroup)> = facts.pools.iter().collect();
    let none = Served::default();
    let show = |(name, group): &(&GroupName, &PoolGroup)| {
        let SlotCounts { opening, idle, handed, leased, closing, zombie } = group.counts;
        let settings = group.pool.settings();
        let lately = Served::of(&group.totals).since(before.pools.get(*name).unwrap_or(&none));
        let oldest = group.waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let quantile = |share| wait_quantile(&lately.wait, lately.leases, share).map(seconds);
        json!({
            "database": &*name.0,
            "role": &*name.1,
            "mode": settings.pool.mode.word(),
            "size": settings.pool.size,
            "clients": clients.of_pool(name),
            "active": leased + handed,
            "idle": idle,
            "opening": opening,
            "closing": closing + zombie,
            "waiting": group.waiting,
            "oldest_wait": seconds(oldest),
            "wait_p50": quantile(0.5),
            "wait_p99": quantile(0.99),
            "transactions_per_second": per_second(lately.transactions, minute),
        })
    };
    busiest(&all, |(_, group)| (group.waiting, group.counts.leased), show)
}

fn listeners(proxy: &Proxy) -> Value {
    let of = |exchange: Arc<crate::notify::exchange::Exchange>| {
        let (listeners, channels) = exchange.size();
        let counts = exchange.stats.counts();
        let queue = exchange.outbox().depth() + exchange.overflow().depth();
        (listeners > 0 || counts.intercepted > 0).then(|| {
            json!({
                "database": &*exchange.database,
                "listeners": listeners,
                "channels": channels,
                "queue": queue,
                "published": counts.published,
                "delivered": counts.delivered,
            })
        })
    };
    proxy.hub.all().into_iter().filter_map(of).collect()
}

fn errors(proxy: &Proxy, before: &CounterSnapshot) -> Value {
    let mut errors: Vec<(String, u64, u64)> = proxy
        .errors
        .totals()
        .into_iter()
        .map(|(code, total)| {
            let lately = total.saturating_sub(before.errors.get(&code).copied().unwrap_or(0));
            (code, lately, total)
        })
        .collect();
    errors.sort_by_key(|(_, lately, total)| Reverse((*lately, *total)));
    let show = |(code, lately, total)| json!({ "sqlstate": code, "last_minute": lately, "total": total });
    errors.into_iter().take(TOP).map(show).collect()
}

/// Clients of one pool by what they do, and what ties them to their backends.
#[derive(Default)]
struct ClientCounts {
    idle: u32,
    waiting: u32,
    active: u32,
    pins: BTreeMap<&'static str, u32>,
}

struct ClientsByPool(HashMap<GroupName, ClientCounts>);

impl ClientsByPool {
    fn of(proxy: &Proxy) -> Self {
        let mut clients: HashMap<GroupName, ClientCounts> = HashMap::new();
        for entry in proxy.clients.all() {
            let doing = clients.entry((Arc::clone(&entry.database), Arc::clone(&entry.role))).or_default();
            match entry.activity() {
                Activity::Idle => doing.idle += 1,
                Activity::Waiting(_) => doing.waiting += 1,
                Activity::Active(_) => doing.active += 1,
            }
            for reason in pins::names(entry.pins()) {
                *doing.pins.entry(reason).or_default() += 1;
            }
        }
        Self(clients)
    }

    fn sum(&self, of: impl Fn(&ClientCounts) -> u32) -> u32 {
        self.0.values().map(of).sum()
    }

    fn of_pool(&self, name: &GroupName) -> u32 {
        self.0.get(name).map_or(0, |doing| doing.idle + doing.waiting + doing.active)
    }

    fn pins(&self) -> Value {
        let of = |((database, role), doing): (&GroupName, &ClientCounts)| {
            let row =
                |(reason, count): (&&'static str, &u32)| (*count, Arc::clone(database), Arc::clone(role), *reason);
            doing.pins.iter().map(row).collect::<Vec<_>>()
        };
        let mut pins: Vec<_> = self.0.iter().flat_map(of).collect();
        pins.sort_by(|a, b| (Reverse(a.0), &a.1, &a.2, a.3).cmp(&(Reverse(b.0), &b.1, &b.2, b.3)));
        let show = |(count, database, role, reason)| -> Value {
            let (database, role): (Arc<str>, Arc<str>) = (database, role);
            json!({ "database": &*database, "role": &*role, "reason": reason, "clients": count })
        };
        pins.into_iter().take(TOP).map(show).collect()
    }
}
