//! Fills a page of metrics from what the process says about itself. Each lock is held for one copy, never for the page.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::group::{self, Group, Name};
use crate::admission::gate::State;
use crate::metrics::{Metric, Page, labels};
use crate::pool::core::{Counts, EndpointView, LaneView};
use crate::proxy::Proxy;
use crate::session::pins;
use crate::session::registry::Activity;
use crate::state::timeout::Timeout;

/// Everything as it is now.
pub(super) fn metrics(proxy: &Proxy) -> String {
    let now = Instant::now();
    let mut page = Page::default();
    process(&mut page, proxy, now);
    let groups = group::all(proxy);
    clients(&mut page, proxy, &groups);
    databases(&mut page, proxy);
    notifications(&mut page, proxy);
    for ((database, role), group) in &groups {
        put_group(&mut page, (database, role), group, now);
    }
    for (role, lane) in group::lanes(proxy, now) {
        put_lane(&mut page, &role, &lane, now);
    }
    page.text()
}

fn process(page: &mut Page, proxy: &Proxy, now: Instant) {
    let none = labels(&[]);
    page.put(Metric::BuildInfo, &labels(&[("version", env!("CARGO_PKG_VERSION"))]), 1);
    page.put(Metric::Uptime, &none, now.saturating_duration_since(proxy.started()).as_secs_f64());
    page.put(Metric::Draining, &none, u8::from(proxy.is_leaving()));
    page.put(Metric::Connections, &none, proxy.connections.load(Ordering::Acquire));
    for (reason, count) in proxy.process.login_refusals() {
        page.put(Metric::LoginFailures, &labels(&[("reason", reason)]), count);
    }
    page.put_distribution(Metric::LoginDelay, &none, &proxy.process.login_delays());
    page.put(Metric::CancelsDropped, &none, proxy.process.cancels_dropped());
    for (cause, count) in proxy.process.cancels() {
        page.put(Metric::Cancels, &labels(&[("cause", cause)]), count);
    }
    for (outcome, count) in proxy.process.reloads() {
        page.put(Metric::Reloads, &labels(&[("outcome", outcome)]), count);
    }
    for (sqlstate, count) in proxy.errors.totals() {
        page.put(Metric::Errors, &labels(&[("sqlstate", &sqlstate)]), count);
    }
}

/// Clients of one database and role.
#[derive(Default)]
struct Clients {
    idle: u32,
    waiting: u32,
    active: u32,
    pins: HashMap<&'static str, u32>,
}

fn clients(page: &mut Page, proxy: &Proxy, pools: &BTreeMap<Name, Group>) {
    // A pool whose clients have all left shows zeros.
    let mut groups: HashMap<Name, Clients> = pools.keys().map(|name| (name.clone(), Clients::default())).collect();
    for entry in proxy.clients.all() {
        let group = groups.entry((Arc::clone(&entry.database), Arc::clone(&entry.role))).or_default();
        match entry.activity() {
            Activity::Idle => group.idle += 1,
            Activity::Waiting(_) => group.waiting += 1,
            Activity::Active(_) => group.active += 1,
        }
        for reason in pins::names(entry.pins()) {
            *group.pins.entry(reason).or_default() += 1;
        }
    }
    for ((database, role), Clients { idle, waiting, active, pins }) in groups {
        for (state, count) in [("idle", idle), ("waiting", waiting), ("active", active)] {
            page.put(Metric::Clients, &labels(&[("database", &database), ("role", &role), ("state", state)]), count);
        }
        for reason in pins::all_names() {
            let count = pins.get(reason).copied().unwrap_or(0);
            page.put(Metric::Pins, &labels(&[("database", &database), ("role", &role), ("reason", reason)]), count);
        }
    }
}

fn databases(page: &mut Page, proxy: &Proxy) {
    for (name, id) in proxy.all_databases() {
        let Some(view) = proxy.pools.core().database(id) else { continue };
        let labels = labels(&[("database", &name)]);
        page.put(Metric::EndpointUp, &labels, u8::from(!matches!(view.endpoint, EndpointView::Down(_))));
        page.put(Metric::Paused, &labels, u8::from(view.is_paused));
    }
}

fn notifications(page: &mut Page, proxy: &Proxy) {
    for exchange in proxy.hub.all() {
        let database = &*exchange.database;
        let own = labels(&[("database", database)]);
        let (listeners, channels) = exchange.size();
        let counts = exchange.stats.counts();
        page.put(Metric::NotifyQueue, &own, exchange.outbox().depth() + exchange.overflow().depth());
        page.put(Metric::NotifyListeners, &own, listeners);
        page.put(Metric::NotifyChannels, &own, channels);
        page.put(Metric::NotifyIntercepted, &own, counts.intercepted);
        page.put(Metric::NotifyPublished, &own, counts.published);
        page.put(Metric::NotifyDelivered, &own, counts.delivered);
        page.put(Metric::NotifyFolded, &own, counts.folded);
        for (cause, count) in exchange.stats.drops() {
            page.put(Metric::NotifyDropped, &labels(&[("database", database), ("cause", cause)]), count);
        }
        for (cause, count) in exchange.stats.gaps() {
            page.put(Metric::NotifyGaps, &labels(&[("database", database), ("cause", cause)]), count);
        }
        page.put_distribution(Metric::NotifyBus, &own, &exchange.stats.bus());
    }
}

fn put_group(page: &mut Page, (database, role): (&str, &str), group: &Group, now: Instant) {
    let both = labels(&[("database", database), ("role", role)]);
    let Counts { opening, idle, handed, leased, closing, zombie } = group.counts;
    let at_rest = [("opening", opening), ("idle", idle), ("closing", closing)];
    for (state, count) in at_rest.into_iter().chain([("handed", handed), ("leased", leased), ("zombie", zombie)]) {
        page.put(Metric::Backends, &labels(&[("database", database), ("role", role), ("state", state)]), count);
    }
    page.put(Metric::BackendsMax, &both, group.pool.settings().pool.size);
    page.put(Metric::Waiters, &both, group.waiting);
    let oldest = group.waiting_since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
    page.put(Metric::OldestWait, &both, oldest);
    let totals = &group.totals;
    for (metric, count) in [
        (Metric::Queries, totals.queries),
        (Metric::Transactions, totals.transactions),
        (Metric::Leases, totals.leases),
        (Metric::Zombies, totals.zombies),
        (Metric::Logins, totals.logins),
        (Metric::Received, totals.received),
        (Metric::Sent, totals.sent),
    ] {
        page.put(metric, &both, count);
    }
    for (timeout, count) in Timeout::ALL.into_iter().zip(totals.timeouts) {
        let labels = labels(&[("database", database), ("role", role), ("kind", timeout.label())]);
        page.put(Metric::Timeouts, &labels, count);
    }
    page.put_distribution(Metric::Wait, &both, &totals.wait);
    page.put_distribution(Metric::Lease, &both, &totals.lease);
}

fn put_lane(page: &mut Page, role: &str, lane: &LaneView, now: Instant) {
    let LaneView { gate, waiting_since } = lane;
    let own = labels(&[("role", role)]);
    page.put(Metric::RoleActive, &own, gate.active);
    if let Some(limit) = gate.limit {
        page.put(Metric::RoleLimit, &own, limit);
    }
    if let Some(effective) = group::effective_limit(gate) {
        page.put(Metric::RoleEffectiveLimit, &own, effective);
    }
    page.put(Metric::RoleWaiters, &own, gate.waiting);
    let oldest = waiting_since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
    page.put(Metric::RoleOldestWait, &own, oldest);
    for state in State::ALL {
        let labels = labels(&[("role", role), ("state", state.name())]);
        page.put(Metric::RoleState, &labels, u8::from(state == gate.state));
    }
    let tally = &gate.tally;
    for (reason, count) in [("full", tally.refused_full), ("shed", tally.refused_hopeless)] {
        page.put(Metric::RoleRefused, &labels(&[("role", role), ("reason", reason)]), count);
    }
    for (metric, count) in [
        (Metric::RoleStarts, tally.starts),
        (Metric::RoleStartsImmediate, tally.immediate),
        (Metric::RoleWaitTimeouts, tally.timed_out),
        (Metric::RoleBursts, tally.bursts),
        (Metric::RoleConvoys, tally.convoys),
        (Metric::RoleLimitCuts, tally.cuts),
        (Metric::RoleLimitReverts, tally.reverts),
        (Metric::RolePaced, tally.paced),
        (Metric::RolePaceOverflow, tally.overdue),
        (Metric::RoleSpread, tally.spread),
    ] {
        page.put(metric, &own, count);
    }
}
