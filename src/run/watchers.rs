//! Starts and ends the watches: one for each database that the file names, and for those under `"*"` once there is a
//! backend to one.
//!
//! They run on the process's main thread, which serves no clients, and their connections count in no pool: a database
//! that is full has to be watched all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::service::TaskService;
use crate::auth::Credential;
use crate::clients::{Activity, ClientEntry, Signal};
use crate::config::{Config, Endpoint, PoolSettings, own_settings};
use crate::metrics::PoolStats;
use crate::pool::address::ServerAddress;
use crate::pool::core::{DatabaseId, PoolId};
use crate::pool::in_use::InUse;
use crate::pool::pool::{Pool, PoolKind, PoolName};
use crate::pool::server_role;
use crate::proxy::Proxy;
use crate::watch::asking::Process;
use crate::watch::census::Census;
use crate::watch::monitor::Monitor;
use crate::watch::own_backends::{OwnBackends, OwnClient};
use crate::watch::reaction::IdleHolder;
use crate::watch::settings::WatchSettings;
use crate::watch::watches::Watches;

/// How often to look for databases that have appeared or gone.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Starts the watches that the configuration asks for; with it they end, and their connections.
pub(super) fn start(proxy: &Arc<Proxy>) -> TaskService {
    TaskService::start(|reloaded, stop| watch_all(Arc::clone(proxy), reloaded, stop))
}

/// One database that is watched.
struct Watched {
    monitor: Arc<Monitor>,
    /// Its server and the role it logs in as.
    endpoint: Endpoint,
    settings: WatchSettings,
    task: JoinHandle<()>,
}

impl Watched {
    fn start(proxy: &Arc<Proxy>, name: &Arc<str>, settings: WatchSettings, login: PoolSettings) -> Self {
        let offset = fastrand::f64();
        let monitor = Arc::new(Monitor::new(Arc::clone(name), settings, offset, Instant::now()));
        let endpoint = login.endpoint.clone();
        proxy.watches.add(Arc::clone(&monitor), address(&endpoint), Instant::now());
        let task = tokio::spawn(watch(Arc::clone(proxy), Arc::clone(&monitor), login));
        Self { monitor, endpoint, settings, task }
    }

    fn set(&mut self, proxy: &Arc<Proxy>, settings: WatchSettings, login: PoolSettings) {
        if self.settings != settings {
            self.monitor.core().set(settings);
            self.settings = settings;
        }
        // An open finding stays open until the new connection has looked.
        if self.endpoint != login.endpoint {
            self.task.abort();
            self.endpoint = login.endpoint.clone();
            proxy.watches.moved(&self.monitor.database, address(&self.endpoint));
            self.task = tokio::spawn(watch(Arc::clone(proxy), Arc::clone(&self.monitor), login));
        }
    }

    async fn end(self, proxy: &Proxy) {
        self.task.abort();
        // Its connection is closed when this returns.
        let _ = self.task.await;
        proxy.watches.remove(&self.monitor.database, Instant::now());
        if let Some(census) = &proxy.census {
            census.forget(&self.monitor.database);
        }
        self.monitor.end();
    }
}

/// Where a server is, as configured.
fn address(endpoint: &Endpoint) -> Arc<str> {
    format!("{}:{}", endpoint.hosts.join(","), endpoint.port).into()
}

async fn watch_all(proxy: Arc<Proxy>, reloaded: Arc<Notify>, stop: CancellationToken) {
    let mut watched: BTreeMap<Arc<str>, Watched> = BTreeMap::new();
    let mut is_off = false;
    while !stop.is_cancelled() {
        let config = Arc::clone(&proxy.config.load());
        let was_off = std::mem::replace(&mut is_off, !config.is_anything_watched());
        if is_off && !was_off {
            tracing::info!("no database is watched: watch.role is not set");
        }
        adjust(&proxy, &config, &mut watched).await;
        tokio::select! {
            () = stop.cancelled() => {}
            () = reloaded.notified() => {}
            () = sleep(LOOK_EVERY), if !is_off => {}
        }
    }
    for watched in watched.into_values() {
        watched.end(&proxy).await;
    }
}

/// Starts missing watches, ends those no longer wanted, and hands changes to the others.
async fn adjust(proxy: &Arc<Proxy>, config: &Config, watched: &mut BTreeMap<Arc<str>, Watched>) {
    let settings = WatchSettings::from(&config.watch);
    let mut wanted = databases(proxy, config, watched);
    wanted.retain(|name| config.watch_login(name).is_some());
    let gone: Vec<_> = watched.keys().filter(|name| !wanted.contains(*name)).cloned().collect();
    for name in gone {
        if let Some(gone) = watched.remove(&name) {
            gone.end(proxy).await;
        }
    }
    for name in wanted {
        let Some(login) = login(config, &name) else { continue };
        match watched.get_mut(&name) {
            Some(watched) => watched.set(proxy, settings, login),
            None => {
                let new = Watched::start(proxy, &name, settings, login);
                watched.insert(name, new);
            }
        }
    }
}

/// The databases that the file names, and of those under `"*"` all that exist: a client may ask for any name.
fn databases(proxy: &Proxy, config: &Config, watched: &BTreeMap<Arc<str>, Watched>) -> BTreeSet<Arc<str>> {
    let named = config.databases.keys().filter(|name| *name != "*").map(|name| Arc::from(name.as_str()));
    let mut all: BTreeSet<Arc<str>> = named.collect();
    if config.databases.contains_key("*") {
        all.extend(proxy.pools.backends().all().into_iter().map(|(_, facts)| Arc::clone(&facts.pool.name.database)));
        let known = proxy.directory.all_databases().into_iter().map(|(name, _)| name);
        all.extend(known.filter(|name| watched.contains_key(name)));
    }
    all
}

/// How the watch of a database logs in; `None`: it is not watched.
fn login(config: &Config, name: &str) -> Option<PoolSettings> {
    let (database, login) = (config.database(name)?, config.watch_login(name)?);
    let backends_max = database.backends_max.into_iter().chain(config.backends_total_max).min();
    Some(PoolSettings { backends_max, ..own_settings(name, database, &login.role, login.password.as_ref()) })
}

/// Watches one database until it is aborted.
async fn watch(proxy: Arc<Proxy>, monitor: Arc<Monitor>, login: PoolSettings) {
    let credential = Credential::from(login.endpoint.password.clone());
    let role = login.endpoint.role.as_str().into();
    let name = PoolName { database: Arc::clone(&monitor.database), role, kind: PoolKind::Internal };
    // In no core: only the monitor logs in by it.
    let (id, database) = (PoolId::default(), DatabaseId::default());
    let pool = InUse::new(Arc::new(Pool::new(id, database, name, login, credential, PoolStats::new(1))));
    let follow_name = async {
        loop {
            sleep(server_role::RESOLVE_EVERY).await;
            // The monitor looks for itself whether its server is one of those the pool knows.
            server_role::leads_elsewhere(proxy.pools.opener().names(), &pool).await;
        }
    };
    tokio::join!(monitor.run(proxy.pools.opener(), &pool, &*proxy), follow_name);
}

impl Process for Proxy {
    fn watches(&self) -> &Watches {
        &self.watches
    }

    fn own_backends(&self, server: &ServerAddress) -> OwnBackends {
        let mut own = OwnBackends::default();
        for entry in self.clients.all() {
            let Activity::Active(target) = entry.activity() else { continue };
            let Some((pid, _)) = target.key.as_ref().filter(|_| target.address.is_same_server(server)) else {
                continue;
            };
            let (role, addr) = (Arc::clone(&entry.role), entry.addr.clone());
            let (application, statement) = (entry.application_name.clone(), entry.statement());
            let client = OwnClient { pid: entry.pid, role, addr, application, statement };
            own.give(*pid, client);
        }
        let backends = self.pools.backends().find(|facts| facts.target.address.is_same_server(server));
        own.add(backends.iter().filter_map(|target| target.key.as_ref()).map(|(pid, _)| *pid));
        own.add(self.pools.opener().control_connections().at(server));
        own
    }

    fn census(&self) -> Option<&Census> {
        self.census.as_ref()
    }

    fn tighten(&self, role: &str) -> Option<u32> {
        let role_queue = self.directory.role_queue(role)?;
        self.pools.core().tighten_role_queue(role_queue, Instant::now())
    }

    fn cancel(&self, server: &ServerAddress, holder: &IdleHolder) -> bool {
        let has_it = |entry: &Arc<ClientEntry>| {
            let Activity::Active(target) = entry.activity() else { return false };
            let is_process = target.key.as_ref().is_some_and(|(pid, _)| *pid == holder.backend);
            entry.pid == holder.client.pid && is_process && target.address.is_same_server(server)
        };
        let client = self.clients.all().into_iter().find(has_it);
        client.inspect(|entry| entry.signal(Signal::Holding)).is_some()
    }
}
