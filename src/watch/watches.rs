//! The watches of all databases that are watched, and which of them speaks for a whole server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;

use super::core::WatchCore;
use super::finding::{Finding, Reach};
use super::incidents::{Incident, IncidentChange};
use super::monitor::Monitor;
use super::server::WatchedServer;
use super::servers::{Part, ServerKey, Servers};

/// So many names of databases are listed in one place.
const LISTED_MAX: usize = 20;

/// One [`Monitor`] for each database, by its name as clients ask for it.
///
/// Its lock may be held while that of a core is taken, never the other way round.
#[derive(Debug, Default)]
pub struct Watches(Mutex<Registry>);

#[derive(Debug, Default)]
struct Registry {
    monitors: BTreeMap<Arc<str>, Arc<Monitor>>,
    /// Host and port of each database, as configured.
    addresses: BTreeMap<Arc<str>, Arc<str>>,
    servers: Servers,
}

/// A finding that is open, with the databases that it concerns.
#[derive(Debug)]
pub(crate) struct OpenFinding {
    pub(crate) databases: Vec<Arc<str>>,
    pub(crate) open: Incident<Finding>,
}

/// A server with the watches of its databases.
#[derive(Debug)]
pub(crate) struct ServerWatches {
    /// Host and port, as configured for the first of its databases.
    pub(crate) address: Arc<str>,
    pub(crate) monitors: Vec<Arc<Monitor>>,
    /// The one that asks for the whole server.
    pub(crate) leader: Arc<Monitor>,
}

/// Names in a row, cut where nobody would read on.
pub(crate) fn listed(names: &[Arc<str>]) -> String {
    match names.split_at_checked(LISTED_MAX) {
        Some((first, rest)) if !rest.is_empty() => format!("{} and {} more", first.join(", "), rest.len()),
        _ => names.join(", "),
    }
}

impl Registry {
    fn is_up(&self, database: &str) -> bool {
        self.monitors.get(database).is_some_and(|monitor| monitor.is_up(&monitor.core()))
    }

    fn settle(&mut self, monitor: &Monitor, key: ServerKey, oid: Option<u32>, now: Instant) -> Part {
        let mut servers = std::mem::take(&mut self.servers);
        let part = servers.settle(&monitor.database, key, oid, |database| self.is_up(database));
        self.servers = servers;
        match &part {
            Part::Same => {}
            Part::Leads => monitor.core().lead(None, now),
            Part::Succeeds(leader) => {
                let before = self.monitors.get(leader).and_then(|leader| leader.core().follow(now));
                monitor.core().lead(before, now);
            }
            // What it has found elsewhere ends with it.
            Part::Follows => {}
        }
        part
    }
}

impl Watches {
    pub(crate) fn all(&self) -> Vec<Arc<Monitor>> {
        self.registry().monitors.values().map(Arc::clone).collect()
    }

    /// A watch of this database has a connection, and answers on it.
    pub(crate) fn is_up(&self, database: &str) -> bool {
        self.registry().is_up(database)
    }

    /// Its database is watched from now on, at a server that is configured so.
    pub(crate) fn add(&self, monitor: Arc<Monitor>, address: Arc<str>, now: Instant) {
        let mut registry = self.registry();
        registry.addresses.insert(Arc::clone(&monitor.database), Arc::clone(&address));
        monitor.core().follow(now);
        registry.monitors.insert(Arc::clone(&monitor.database), Arc::clone(&monitor));
        registry.settle(&monitor, ServerKey::Configured(address), None, now);
    }

    /// Its server is configured otherwise now.
    pub(crate) fn moved(&self, database: &Arc<str>, address: Arc<str>) {
        self.registry().addresses.insert(Arc::clone(database), address);
    }

    /// All servers, each once.
    pub(crate) fn servers(&self) -> Vec<ServerWatches> {
        let registry = self.registry();
        let server = |(first, monitor): (&Arc<str>, &Arc<Monitor>)| {
            let mut beside = registry.servers.beside(first).map(|(name, _)| name).peekable();
            if beside.peek() != Some(&first) {
                return None;
            }
            let monitors = beside.filter_map(|name| registry.monitors.get(name)).map(Arc::clone).collect();
            let leader = registry.servers.leader(first).and_then(|leader| registry.monitors.get(leader));
            let address = registry.addresses.get(first).map(Arc::clone).unwrap_or_default();
            Some(ServerWatches { address, monitors, leader: Arc::clone(leader.unwrap_or(monitor)) })
        };
        registry.monitors.iter().filter_map(server).collect()
    }

    /// Nobody watches this database any more: what it has found at its server goes to another watch of that.
    pub(crate) fn remove(&self, database: &str, now: Instant) {
        let mut registry = self.registry();
        let Some(monitor) = registry.monitors.remove(database) else { return };
        registry.addresses.remove(database);
        let mut servers = std::mem::take(&mut registry.servers);
        let heir = servers.leave(database, |database| registry.is_up(database));
        registry.servers = servers;
        if let Some(heir) = heir.and_then(|heir| registry.monitors.get(&heir)) {
            let before = monitor.core().follow(now);
            heir.core().lead(before, now);
            heir.wake.notify_one();
        }
    }

    /// Lets a watch that has answers ask for its whole server, if nobody does. Returns what ends with that.
    pub(crate) fn settle(&self, monitor: &Monitor, now: Instant) -> Vec<IncidentChange<Finding>> {
        let place = monitor.core().server().map(|server: &WatchedServer| (server.identity, server.database));
        let Some((identity, oid)) = place else { return Vec::new() };
        match self.registry().settle(monitor, ServerKey::Identified(identity), Some(oid), now) {
            Part::Follows => monitor.core().resign(now),
            Part::Same | Part::Leads | Part::Succeeds(_) => Vec::new(),
        }
    }

    /// This watch has lost its connection: if it led, another may.
    pub(crate) fn lost(&self, monitor: &Monitor) {
        if monitor.core().leads() {
            let registry = self.registry();
            let others = registry.servers.beside(&monitor.database).filter(|(name, _)| **name != monitor.database);
            others.filter_map(|(name, _)| registry.monitors.get(name)).for_each(|other| other.wake.notify_one());
        }
    }

    /// The databases that a finding of this one's watch concerns.
    pub(crate) fn reached(&self, database: &Arc<str>, reach: &Reach) -> Vec<Arc<str>> {
        self.registry().servers.reached(database, reach)
    }

    /// The watch that asks for the server of this database.
    pub(crate) fn leader(&self, database: &str) -> Option<Arc<Monitor>> {
        let registry = self.registry();
        registry.servers.leader(database).and_then(|leader| registry.monitors.get(leader)).map(Arc::clone)
    }

    /// Asks the watches of these databases at a server for names of relations. Returns the databases that have none.
    pub(super) fn ask_for(&self, monitor: &Monitor, foreign: BTreeMap<u32, BTreeSet<u32>>) -> Vec<u32> {
        let registry = self.registry();
        let mut unknown = Vec::new();
        for (database, relations) in foreign {
            let is_there = |(name, oid): &(&Arc<str>, Option<u32>)| *oid == Some(database) && registry.is_up(name);
            let found = registry.servers.beside(&monitor.database).find(is_there);
            match found.and_then(|(name, _)| registry.monitors.get(name)) {
                Some(other) => other.name(relations),
                None => unknown.push(database),
            }
        }
        unknown
    }

    /// Findings of all databases and servers that are open, of each kind and watch `max` at most.
    pub(crate) fn findings(&self, max: usize, now: Instant) -> Vec<OpenFinding> {
        self.each(|_, core, reached| {
            let found = |open: Incident<Finding>| OpenFinding { databases: reached(&open.value.reach), open };
            core.findings(max, now).into_iter().map(found).collect()
        })
    }

    /// Lines of each watch; `reached` has the databases that a finding of it concerns.
    pub(crate) fn each<L>(
        &self,
        lines: impl Fn(&Arc<str>, &WatchCore, &dyn Fn(&Reach) -> Vec<Arc<str>>) -> Vec<L>,
    ) -> Vec<L> {
        let registry = self.registry();
        let of = |(database, monitor): (&Arc<str>, &Arc<Monitor>)| {
            lines(database, &monitor.core(), &|reach| registry.servers.reached(database, reach))
        };
        registry.monitors.iter().flat_map(of).collect()
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().expect("no panic while held")
    }
}
