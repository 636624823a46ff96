//! The pools, databases and roles that exist, by name: clients make them by asking, a configuration changes them, and
//! unused ones are forgotten.
//!
//! The [`core`](super::core) knows them by numbers. A name has one pool as long as the configuration serves it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::core::{
    Core, DatabaseId, DatabaseLimits, PoolLimits, ReaderDuty, ReaderRules, ReaderSpec, ReaderView, RoleQueueId,
    ServerEpoch,
};
use super::host_port::{HostPort, ServerTarget};
use super::in_use::{CountUses, InUse};
use super::lease::{Boxed, Commands, Pools};
use super::open::OpenError;
use super::pool::{Pool, PoolKind, PoolName};
use super::route::Route;
use crate::admission::limiter::LeaseScope;
use crate::auth::Credential;
use crate::auth::secrets::Stored;
use crate::config::{
    Auth, Config, Endpoint, PasswordSource, PoolKeys as PoolConfig, PoolMode, PoolSettings, ReaderKeys, Secret,
    TopologySource, own_settings, pool_settings, role_queue_settings,
};
use crate::metrics::PoolStats;
use crate::state::timeout::Timeout;

/// Backends that look secrets up, per database: one answers thousands in a second.
const LOOKUP_BACKENDS: u32 = 2;

/// All pools by name.
#[derive(Debug)]
pub(crate) struct Directory {
    config: Arc<ArcSwap<Config>>,
    pools: Arc<Pools>,
    /// Threads that serve clients: each pool counts for each of them.
    workers: usize,
    names: Mutex<Names>,
}

/// The names of everything that exists in the core.
#[derive(Debug, Default)]
struct Names {
    databases: HashMap<Arc<str>, DatabaseId>,
    pools: HashMap<PoolName, Arc<Pool>>,
    role_queues: HashMap<Arc<str>, RoleQueueId>,
    /// PAUSE of everything: databases yet to come are paused from the start.
    is_paused: bool,
    /// Databases that take no new clients.
    disabled: HashSet<String>,
    /// Where topologies send the backends of databases that have one.
    routes: HashMap<Arc<str>, Arc<Route>>,
    /// The servers of databases that are read from several.
    readers: HashMap<Arc<str>, ReaderPlan>,
}

/// The servers that a database is read from, as its topology sees them, and how they are used.
#[derive(Debug)]
struct ReaderPlan {
    rules: ReaderRules,
    specs: Vec<ReaderSpec>,
}

impl Directory {
    /// No pool exists so far.
    pub(crate) fn new(config: Arc<ArcSwap<Config>>, pools: Arc<Pools>, workers: usize) -> Self {
        Self { config, pools, workers, names: Mutex::default() }
    }

    /// The pool of a client, made if it is the first of its kind. `None`: the configuration does not serve it.
    pub(crate) fn pool(&self, name: PoolName, credential: &Credential, worker: usize) -> Option<InUse<Pool>> {
        let config = self.config.load();
        let settings = pool_settings(&config, &name.database, &name.role)?;
        let credential = configured(&config, &settings, &name.role).unwrap_or_else(|| credential.clone());
        self.pool_with(name, settings, credential, worker)
    }

    /// The pool of the role that looks secrets up, whether or not clients may log in as it.
    pub(crate) fn lookup_pool(&self, name: PoolName, credential: Credential, worker: usize) -> Option<InUse<Pool>> {
        let config = self.config.load();
        let settings = lookup_settings(&config, &name.database, &name.role)?;
        self.pool_with(name, settings, credential, worker)
    }

    /// The server accepted this password: it is the pool's password from now on.
    pub(crate) fn set_proof(&self, pool: &Pool, password: &Secret, since: Instant, worker: usize) {
        pool.set_proof(password.clone(), since);
        self.use_credential(pool, Credential::Password(password.clone()), worker);
    }

    /// The server took the password of the pool's clients back: the backends that it opened are closed, idle ones now,
    /// the others when they are given back. Only on a worker's thread.
    pub(crate) fn revoke(&self, pool: &Pool, worker: usize, error: &OpenError) {
        tracing::warn!(
            database = %pool.name.database, role = %pool.name.role, %error,
            "the server no longer takes the password of these clients; their backends are closed"
        );
        self.pools.decide(worker, |core, out| core.revoke_pool(pool.id, out));
    }

    /// Has backends log in with this credential from the next one on; at once if the last one was refused.
    fn use_credential(&self, pool: &Pool, credential: Credential, worker: usize) {
        if pool.credential() != credential {
            pool.set_credential(credential);
            let limits = pool_limits(&pool.settings());
            self.pools.decide(worker, |core, out| core.set_pool(pool.id, limits, Instant::now(), out));
        }
    }

    fn pool_with(
        &self,
        name: PoolName,
        settings: PoolSettings,
        credential: Credential,
        worker: usize,
    ) -> Option<InUse<Pool>> {
        let mut names = self.names();
        if let Some(pool) = names.pools.get(&name) {
            let pool = InUse::new(Arc::clone(pool));
            drop(names);
            if !matches!(credential, Credential::Nothing | Credential::Unproved(_)) {
                self.use_credential(&pool, credential, worker);
            }
            return Some(pool);
        }
        let route = names.route(&self.config.load(), &name.database);
        let mut core = self.pools.core();
        let limits = database_limits(&settings);
        let database = names.database(&mut core, &name.database, limits);
        let role_queue = match name.kind {
            PoolKind::Ordinary => names.role_queue(&mut core, &self.config.load(), &name.role),
            PoolKind::Internal | PoolKind::Replication(_) => None,
        };
        let id = core.add_pool(database, role_queue, pool_limits(&settings))?;
        drop(core);
        let stats = PoolStats::new(self.workers);
        let pool = Arc::new(Pool::new(id, database, name.clone(), settings, credential.proved(), stats));
        pool.set_route(route);
        self.pools.register(Arc::clone(&pool));
        names.pools.insert(name, Arc::clone(&pool));
        Some(InUse::new(pool))
    }

    /// The role queue of a role, made if nobody has asked for it so far; `None`: the configuration does not serve the
    /// role.
    pub(crate) fn role_queue(&self, role: &str) -> Option<RoleQueueId> {
        self.names().role_queue(&mut self.pools.core(), &self.config.load(), &role.into())
    }

    /// The roles that have role queues, by name.
    pub(crate) fn all_role_queues(&self) -> Vec<(Arc<str>, RoleQueueId)> {
        let mut role_queues: Vec<_> =
            self.names().role_queues.iter().map(|(role, id)| (Arc::clone(role), *id)).collect();
        role_queues.sort();
        role_queues
    }

    /// All pools, in order of their names.
    pub(crate) fn all_pools(&self) -> Vec<Arc<Pool>> {
        let mut pools: Vec<_> = self.names().pools.values().cloned().collect();
        pools.sort_by(|a, b| a.name.cmp(&b.name));
        pools
    }

    /// The databases that have pools, by name.
    pub(crate) fn all_databases(&self) -> Vec<(Arc<str>, DatabaseId)> {
        let mut databases: Vec<_> = self.names().databases.iter().map(|(name, id)| (Arc::clone(name), *id)).collect();
        databases.sort();
        databases
    }

    /// The databases that a command of the console is about: the one it names, or all that exist. A configured database
    /// that nobody has asked for so far begins to exist; `None`: the configuration does not serve it.
    pub(crate) fn meant(&self, name: Option<&str>) -> Option<Vec<DatabaseId>> {
        let Some(name) = name else {
            return Some(self.names().databases.values().copied().collect());
        };
        let config = self.config.load();
        let served = config.database(name)?;
        let limits = DatabaseLimits { backends_max: served.backends_max, connect_timeout: served.pool.connect_timeout };
        let mut names = self.names();
        names.route(&config, &name.into());
        Some(vec![names.database(&mut self.pools.core(), &name.into(), limits)])
    }

    /// Stops leases of these databases until [`Self::resume`], and closes their backends as they come back.
    pub(crate) fn pause(&self, worker: usize, databases: &[DatabaseId]) {
        let now = Instant::now();
        self.pools.decide(worker, |core, out| {
            for database in databases {
                core.pause(*database);
                core.retire_database(*database, now, out);
            }
        });
    }

    /// Ends a pause.
    pub(crate) fn resume(&self, worker: usize, databases: &[DatabaseId]) {
        let now = Instant::now();
        self.pools.decide(worker, |core, out| databases.iter().for_each(|database| core.resume(*database, now, out)));
    }

    /// A topology says from now on where the backends of this database go: nowhere, until it has found a server.
    pub(crate) fn begin_route(&self, worker: usize, name: &Arc<str>) -> Arc<Route> {
        let mut names = self.names();
        let route = names.begin_route(name);
        if names.readers.remove(name).is_some()
            && let Some(database) = names.databases.get(name)
        {
            route.set(Vec::new());
            self.pools.decide(worker, |core, out| core.end_readers(*database, Instant::now(), out));
        }
        if let Some(database) = names.databases.get(name)
            && route.servers().is_empty()
        {
            self.pools.decide(worker, |core, out| core.unprove(*database, Instant::now(), out));
        }
        route
    }

    /// A topology says from now on which servers this database is read from, by these rules. Returns those that were
    /// known before, which go on.
    pub(crate) fn begin_readers(
        &self,
        worker: usize,
        name: &Arc<str>,
        rules: ReaderRules,
    ) -> (Arc<Route>, Vec<ReaderSpec>) {
        let mut names = self.names();
        let route = names.begin_route(name);
        let known = names.readers.entry(Arc::clone(name)).or_insert_with(|| ReaderPlan { rules, specs: Vec::new() });
        known.rules = rules;
        let specs = known.specs.clone();
        if let Some(database) = names.databases.get(name) {
            let now = Instant::now();
            self.pools.decide(worker, |core, out| {
                core.set_readers(*database, rules, specs.clone(), now, out);
                core.prove(*database, ServerEpoch::Same, now, out);
            });
        }
        (route, specs)
    }

    /// These are the servers that this database is read from. Only on a worker's thread.
    pub(crate) fn set_readers(&self, worker: usize, name: &str, specs: Vec<ReaderSpec>) {
        let mut names = self.names();
        let Names { databases, routes, readers, .. } = &mut *names;
        let Some(known) = readers.get_mut(name) else { return };
        known.specs.clone_from(&specs);
        if let Some(route) = routes.get(name) {
            let reads = specs.iter().filter(|spec| spec.duty == ReaderDuty::Reads);
            route.set(reads.map(|spec| spec.target.host.clone()).collect());
        }
        if let Some(database) = databases.get(name) {
            let (rules, now) = (known.rules, Instant::now());
            self.pools.decide(worker, |core, out| core.set_readers(*database, rules, specs, now, out));
        }
    }

    /// A reader answered beside the pools. Only on a worker's thread.
    pub(crate) fn reader_reached(&self, worker: usize, name: &str, target: &ServerTarget) {
        if let Some(database) = self.names().databases.get(name) {
            let now = Instant::now();
            self.pools.decide(worker, |core, out| core.reader_reached(*database, target, now, out));
        }
    }

    /// The servers that a database is read from, as they are used.
    pub(crate) fn readers(&self, name: &str) -> Vec<ReaderView> {
        let Some(database) = self.names().databases.get(name).copied() else { return Vec::new() };
        self.pools.core().readers(database, Instant::now())
    }

    /// The backends of this database go where the configuration says again. Only on a worker's thread.
    pub(crate) fn end_route(&self, worker: usize, name: &str) {
        let mut names = self.names();
        names.routes.remove(name);
        names.readers.remove(name);
        names.pools_of(name).for_each(|pool| pool.set_route(None));
        if let Some(database) = names.databases.get(name) {
            let now = Instant::now();
            self.pools.decide(worker, |core, out| {
                core.end_readers(*database, now, out);
                core.prove(*database, ServerEpoch::New, now, out);
            });
        }
    }

    /// No server is known to have the role that this database needs: its clients wait. Only on a worker's thread.
    pub(crate) fn unprove(&self, worker: usize, name: &str) {
        let names = self.names();
        if let Some(route) = names.routes.get(name) {
            route.set(Vec::new());
        }
        if let Some(database) = names.databases.get(name) {
            self.pools.decide(worker, |core, out| core.unprove(*database, Instant::now(), out));
        }
    }

    /// This server has the role that the database needs. Only on a worker's thread.
    pub(crate) fn prove(&self, worker: usize, name: &str, server: HostPort, epoch: ServerEpoch) {
        let names = self.names();
        if let Some(route) = names.routes.get(name) {
            route.set(vec![server]);
        }
        if epoch == ServerEpoch::New {
            // Our own connections to the former server leave it, too.
            names.pools_of(name).for_each(|pool| pool.forget_addresses());
        }
        if let Some(database) = names.databases.get(name) {
            let now = Instant::now();
            self.pools.decide(worker, |core, out| core.prove(*database, epoch, now, out));
        }
    }

    /// Whether databases that nobody has asked for so far are to be paused from the start.
    pub(crate) fn pause_newcomers(&self, is_paused: bool) {
        self.names().is_paused = is_paused;
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.names().is_paused
    }

    /// Has a database take clients or refuse them.
    pub(crate) fn set_disabled(&self, database: &str, is_disabled: bool) {
        let disabled = &mut self.names().disabled;
        if is_disabled {
            disabled.insert(database.to_owned());
        } else {
            disabled.remove(database);
        }
    }

    /// The database takes no new clients.
    pub(crate) fn is_disabled(&self, database: &str) -> bool {
        self.names().disabled.contains(database)
    }

    /// Replaces all backends of a database: idle ones now, the others when they are given back. Only on a worker's
    /// thread.
    pub(crate) fn retire(&self, worker: usize, database: DatabaseId) {
        self.pools.decide(worker, |core, out| core.retire_database(database, Instant::now(), out));
    }

    /// Has our own connections leave the database `name` at the server of `pool`: idle backends and control connections
    /// now, others when they are given back. Postgres waits some seconds for them. Only on a worker's thread.
    pub(crate) fn leave_database(&self, worker: usize, pool: &Pool, name: &str) {
        let now = Instant::now();
        let database = Endpoint { dbname: name.to_owned(), ..pool.settings().endpoint.clone() };
        self.pools.opener().control_connections().leave(&database, now);
        let pools = self.pools.all();
        let to_it = pools.iter().filter(|pool| pool.settings().endpoint.is_same_database(&database));
        self.pools.decide(worker, |core, out| to_it.for_each(|pool| core.retire_pool(pool.id, now, out)));
    }

    /// Puts another configuration into force, and returns the pools of clients that it no longer serves. Only on a
    /// worker's thread.
    pub(crate) fn reload(&self, worker: usize, config: &Config) -> Vec<PoolName> {
        let now = Instant::now();
        let mut gone = Vec::new();
        let mut names = self.names();
        self.pools.decide(worker, |core, out| {
            core.set_total_max(config.backends_total_max, now, out);
            names.role_queues.retain(|role, role_queue| match role_queue_settings(config, role) {
                Some(settings) => {
                    core.set_role_queue(*role_queue, settings, now, out);
                    true
                }
                None => {
                    core.remove_role_queue(*role_queue);
                    false
                }
            });
            names.pools.retain(|name, pool| {
                let settings = match name.kind {
                    PoolKind::Internal => lookup_settings(config, &name.database, &name.role),
                    PoolKind::Ordinary | PoolKind::Replication(_) => pool_settings(config, &name.database, &name.role),
                };
                let Some(settings) = settings else {
                    core.remove_pool(pool.id, now, out);
                    if name.kind != PoolKind::Internal {
                        gone.push(name.clone());
                    }
                    return false;
                };
                core.set_database(pool.database, database_limits(&settings), now, out);
                core.set_pool(pool.id, pool_limits(&settings), now, out);
                if name.kind != PoolKind::Internal
                    && let Some(credential) = configured(config, &settings, &name.role)
                {
                    pool.set_credential(credential);
                }
                let before = Arc::clone(&pool.settings());
                // No SET brings back the server's own default: only a new login does.
                let unset = |timeout: Timeout| {
                    timeout.limit(&before.timeouts).is_some() && timeout.limit(&settings.timeouts).is_none()
                };
                let is_replaced = before.endpoint != settings.endpoint
                    || before.intercepts != settings.intercepts
                    || Timeout::ALL.into_iter().any(unset);
                pool.set_settings(settings);
                if is_replaced {
                    core.retire_pool(pool.id, now, out);
                }
                true
            });
        });
        gone
    }

    /// Has pools keep the backends that they are to keep while they have clients.
    pub(crate) fn keep_warm(&self) {
        let names = self.names();
        let mut core = self.pools.core();
        for (_, pool) in names.pools.iter().filter(|(name, _)| name.kind == PoolKind::Ordinary) {
            let backends = pool.settings().pool.idle_min;
            core.keep_warm(pool.id, if pool.uses().is_none() { 0 } else { backends });
        }
    }

    /// Forgets pools, databases and roles that the configuration does not name and nobody uses. Under `"*"` clients
    /// make them by asking, for any database and role, so they must not be many for long. Those named in the file stay,
    /// with their counters.
    pub(crate) fn forget_unused(&self, worker: usize) {
        let config = self.config.load();
        let now = Instant::now();
        let mut names = self.names();
        let Names { databases, pools, role_queues, .. } = &mut *names;
        self.pools.decide(worker, |core, out| {
            pools.retain(|name, pool| {
                let is_named = name.kind == PoolKind::Ordinary
                    && config.databases.contains_key(&*name.database)
                    && config.roles.contains_key(&*name.role);
                let counts = core.pool(pool.id).map(|view| view.counts).unwrap_or_default();
                let may_go = counts.open() == 0 || name.is_dedicated() && counts.open() == counts.idle;
                let is_unused = !is_named && may_go && pool.uses().is_none();
                if is_unused {
                    core.remove_pool(pool.id, now, out);
                }
                !is_unused
            });
            databases.retain(|name, id| {
                let is_used = config.databases.contains_key(&**name)
                    || core.database(*id).is_some_and(|view| view.is_paused)
                    || pools.values().any(|pool| pool.database == *id);
                if !is_used {
                    core.remove_database(*id, now, out);
                }
                is_used
            });
            role_queues
                .retain(|role, role_queue| config.roles.contains_key(&**role) || !core.forget_role_queue(*role_queue));
        });
    }

    /// Whether somebody has asked for this database, and it is not forgotten yet.
    pub(crate) fn has_database(&self, name: &str) -> bool {
        self.names().databases.contains_key(name)
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().expect("no panic while held")
    }
}

impl Names {
    /// Where a topology sends the backends of this database, if the configuration has one; before that has begun, too.
    fn route(&mut self, config: &Config, database: &Arc<str>) -> Option<Arc<Route>> {
        let keys = config.database(database)?;
        if keys.reads.readers {
            let ReaderKeys { load_balance, fallback_max, .. } = keys.reads;
            let rules = ReaderRules { load_balance, fallback_max };
            self.readers.entry(Arc::clone(database)).or_insert_with(|| ReaderPlan { rules, specs: Vec::new() });
        } else if keys.topology == TopologySource::Off {
            return None;
        }
        Some(Arc::clone(self.routes.entry(Arc::clone(database)).or_default()))
    }

    fn begin_route(&mut self, database: &Arc<str>) -> Arc<Route> {
        let route = Arc::clone(self.routes.entry(Arc::clone(database)).or_default());
        self.pools_of(database).for_each(|pool| pool.set_route(Some(Arc::clone(&route))));
        route
    }

    fn pools_of<'a>(&'a self, database: &'a str) -> impl Iterator<Item = &'a Arc<Pool>> {
        self.pools.iter().filter(move |(name, _)| *name.database == *database).map(|(_, pool)| pool)
    }

    fn database(&mut self, core: &mut Core<Boxed>, name: &Arc<str>, limits: DatabaseLimits) -> DatabaseId {
        *self.databases.entry(Arc::clone(name)).or_insert_with(|| {
            let database = core.add_database(limits);
            if self.is_paused {
                core.pause(database);
            }
            // There is nobody yet to whom anything could follow from either.
            let (now, out) = (Instant::now(), &mut Commands::new());
            if let Some(ReaderPlan { rules, specs }) = self.readers.get(name) {
                core.set_readers(database, *rules, specs.clone(), now, out);
            } else if self.routes.get(name).is_some_and(|route| route.servers().is_empty()) {
                core.unprove(database, now, out);
            }
            database
        })
    }

    fn role_queue(&mut self, core: &mut Core<Boxed>, config: &Config, role: &Arc<str>) -> Option<RoleQueueId> {
        if let Some(role_queue) = self.role_queues.get(role) {
            return Some(*role_queue);
        }
        let role_queue = core.add_role_queue(role_queue_settings(config, role)?, Instant::now());
        self.role_queues.insert(Arc::clone(role), role_queue);
        Some(role_queue)
    }
}

/// Settings of the pool for look-ups: the database's own, whether or not others are configured for clients of that
/// role. `None`: the database looks nothing up, or does so as another role.
fn lookup_settings(config: &Config, database: &str, role: &str) -> Option<PoolSettings> {
    let found = config.database(database)?;
    let query = found.auth_query.as_ref().filter(|query| query.role == role)?;
    // The password goes with each question.
    let mut settings = own_settings(database, found, role, None);
    if let Some(dbname) = &query.dbname {
        settings.endpoint.dbname.clone_from(dbname);
    }
    let size = settings.pool.size.min(LOOKUP_BACKENDS);
    Some(PoolSettings { pool: PoolConfig { size, ..settings.pool }, ..settings })
}

/// The configured login of backends of a role, whatever its clients know.
fn configured(config: &Config, settings: &PoolSettings, role: &str) -> Option<Credential> {
    match &settings.endpoint.password {
        Some(PasswordSource::Known(password)) => return Some(Stored::parse(password).ok()?.credential()),
        Some(PasswordSource::Command(command)) => return Some(Credential::Command(command.clone())),
        None => {}
    }
    match &config.role(role)?.auth {
        Auth::Password { secret, .. } => match Stored::parse(secret).ok()?.credential() {
            // A verifier opens no backend: the keys of a client's login do.
            Credential::Nothing => None,
            credential => Some(credential),
        },
        _ => None,
    }
}

pub(crate) fn database_limits(settings: &PoolSettings) -> DatabaseLimits {
    DatabaseLimits { backends_max: settings.backends_max, connect_timeout: settings.pool.connect_timeout }
}

pub(crate) fn pool_limits(settings: &PoolSettings) -> PoolLimits {
    let pool = &settings.pool;
    let limit = |duration: Duration| (!duration.is_zero()).then_some(duration);
    PoolLimits {
        size: pool.size,
        waiters_max: pool.waiters_max,
        wait_timeout: Some(pool.wait_timeout),
        idle_timeout: limit(pool.idle_timeout),
        lifetime: limit(pool.lifetime),
        lease_scope: match pool.mode {
            PoolMode::Session => LeaseScope::Session,
            PoolMode::Transaction | PoolMode::Statement => LeaseScope::Transaction,
        },
        share: settings.share,
    }
}
