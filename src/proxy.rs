//! The process: everything that workers, console and reload share.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use crate::admission::entrance::Entrance;
use crate::admission::gate::Tenure;
use crate::auth::Credential;
use crate::auth::secrets::{Secrets, Stored};
use crate::config::{
    Auth, Config, PoolKeys as PoolConfig, PoolMode, PoolSettings, Secret, lane_settings, own_settings, pool_settings,
};
use crate::metrics::{ErrorCounts, History, PoolStats, ProcessStats};
use crate::net::tls::{ServerTls, TlsError};
use crate::notify::hub::Hub;

use crate::clients::{Activity, Clients, Signal};
use crate::orders::Order;
use crate::pool::clock;
use crate::pool::core::{Core, DatabaseId, DatabaseLimits, LaneId, PoolLimits};
use crate::pool::keep;
use crate::pool::lease::{Boxed, Pools};
use crate::pool::open::Opener;
use crate::pool::pool::{Pool, PoolKind, PoolName};
use crate::state::settings::SettingsRegistry;
use crate::state::statements::Statements;
use crate::state::timeout::Timeout;
use crate::watch::watches::Watches;

/// Backends that look secrets up, per database: one answers thousands in a second.
const LOOKUP_BACKENDS: u32 = 2;

/// Idle backends with outdated timeouts that a worker closes at one tick, so that a reload replaces them one after the other.
const OUTDATED_AT_ONCE: u32 = 2;

/// Everything shared.
pub struct Proxy {
    /// The configuration in force.
    pub config: ArcSwap<Config>,
    /// TLS towards clients.
    pub tls: ArcSwap<Option<ServerTls>>,
    /// All pools.
    pub pools: Arc<Pools>,
    /// All clients that are logged in.
    pub clients: Arc<Clients>,
    /// Who listens to what, and what was notified of.
    pub hub: Arc<Hub>,
    /// What goes on at the servers besides.
    pub watches: Watches,
    /// All prepared statements.
    pub statements: Statements,
    /// All sets of settings.
    pub settings: SettingsRegistry,
    /// Errors that clients got.
    pub errors: ErrorCounts,
    /// Events of the whole process.
    pub process: ProcessStats,
    /// When logins may come in.
    pub entrance: Entrance,
    /// Keys of logins.
    pub secrets: Arc<Secrets>,
    /// Connections of clients, logins included.
    pub connections: AtomicUsize,
    /// Threads that serve clients.
    pub workers: usize,
    /// What the console has the process do.
    pub orders: mpsc::Sender<Order>,
    directory: Mutex<Directory>,
    history: Mutex<History>,
    started: Instant,
    started_at: SystemTime,
    second: AtomicU32,
    ticks: AtomicU32,
    is_leaving: AtomicBool,
    is_draining: AtomicBool,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").finish_non_exhaustive()
    }
}

/// Which databases and pools exist in the core, by name.
#[derive(Debug, Default)]
struct Directory {
    databases: HashMap<Arc<str>, DatabaseId>,
    pools: HashMap<PoolName, Arc<Pool>>,
    lanes: HashMap<Arc<str>, LaneId>,
    /// PAUSE of everything: databases yet to come are paused from the start.
    is_paused: bool,
    /// Databases that take no new clients.
    disabled: HashSet<String>,
}

impl Proxy {
    /// From a checked configuration; fails only on certificates.
    pub fn new(config: Config, orders: mpsc::Sender<Order>) -> Result<Self, TlsError> {
        let tls = ServerTls::new(&config.listen.tls)?;
        let settings = SettingsRegistry::default();
        let secrets = Arc::new(Secrets::new());
        let workers = config.listen.workers;
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0u8);
        let started = Instant::now();
        let core = Core::new(workers, config.backends_total_max, seed);
        let opener = Opener::new(Arc::clone(&secrets), settings.none());
        let pools = Arc::new(Pools::new(core, opener));
        pools.set_zombie_max(config.admission.zombie_max);
        Ok(Self {
            entrance: Entrance::new(&config.admission),
            hub: Arc::new(Hub::new(config.notify.clone())),
            watches: Watches::default(),
            config: ArcSwap::from_pointee(config),
            tls: ArcSwap::from_pointee(tls),
            pools,
            clients: Arc::default(),
            statements: Statements::default(),
            settings,
            errors: ErrorCounts::default(),
            process: ProcessStats::default(),
            secrets,
            connections: AtomicUsize::new(0),
            workers,
            orders,
            directory: Mutex::default(),
            history: Mutex::new(History::new(started)),
            started,
            started_at: SystemTime::now(),
            second: AtomicU32::new(0),
            ticks: AtomicU32::new(1),
            is_leaving: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
        })
    }

    /// Seconds since the start, as of the last tick.
    #[inline]
    pub fn second(&self) -> u32 {
        self.second.load(Ordering::Relaxed)
    }

    /// The tick under way, or one a little earlier: no clock is asked.
    #[inline]
    pub fn ticks(&self) -> u32 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// The tick under way at `now`.
    pub fn tick_at(&self, now: Instant) -> u32 {
        clock::tick_of(now.saturating_duration_since(self.started))
    }

    /// When it started, by the calendar.
    pub fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// When it started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// `pool.cancel_timeout` where no database's own is at hand: the longest of all.
    pub fn cancel_timeout(&self) -> Duration {
        let config = self.config.load();
        config.databases.values().map(|database| database.pool.cancel_timeout).max().unwrap_or(Duration::from_secs(5))
    }

    /// The pool of a client, made if it is the first of its kind. `None`: the configuration does not serve it.
    pub fn pool(&self, name: PoolName, credential: &Credential, worker: usize) -> Option<Arc<Pool>> {
        let config = self.config.load();
        let settings = pool_settings(&config, &name.database, &name.role)?;
        let credential = configured(&config, &settings, &name.role).unwrap_or_else(|| credential.clone());
        self.pool_with(name, settings, credential, worker)
    }

    /// The pool of the role that looks secrets up, whether or not clients may log in as it.
    pub fn lookup_pool(&self, name: PoolName, credential: Credential, worker: usize) -> Option<Arc<Pool>> {
        let config = self.config.load();
        let settings = lookup_settings(&config, &name.database, &name.role)?;
        self.pool_with(name, settings, credential, worker)
    }

    /// A backend opened with this password: it is the pool's from now on.
    pub fn prove(&self, pool: &Pool, password: &Secret, worker: usize) {
        pool.prove(password.clone());
        self.use_credential(pool, Credential::Password(password.clone()), worker);
    }

    /// Has backends log in with this from the next one on; at once if the last one was refused.
    fn use_credential(&self, pool: &Pool, credential: Credential, worker: usize) {
        if pool.credential() != credential {
            pool.set_credential(credential);
            let limits = pool_limits(&pool.settings());
            self.pools.decide(worker, |core, out| core.set_pool(pool.id, limits, Instant::now(), out));
        }
    }

    /// Waits until one more login may ask the servers of this database something.
    pub async fn turn_to_ask(&self, database: &str) -> OwnedSemaphorePermit {
        let config = self.config.load();
        let section = if config.databases.contains_key(database) { database } else { "*" };
        self.entrance.turn_to_ask(section).await
    }

    fn pool_with(
        &self,
        name: PoolName,
        settings: PoolSettings,
        credential: Credential,
        worker: usize,
    ) -> Option<Arc<Pool>> {
        let mut directory = self.directory();
        if let Some(pool) = directory.pools.get(&name) {
            let pool = Arc::clone(pool);
            drop(directory);
            if !matches!(credential, Credential::Nothing | Credential::Unproved(_)) {
                self.use_credential(&pool, credential, worker);
            }
            return Some(pool);
        }
        let mut core = self.pools.core();
        let limits = database_limits(&settings);
        let database = directory.database(&mut core, &name.database, limits);
        let lane = match name.kind {
            PoolKind::Ordinary => directory.lane(&mut core, &self.config.load(), &name.role),
            PoolKind::Own | PoolKind::Replication(_) => None,
        };
        let id = core.add_pool(database, lane, pool_limits(&settings))?;
        drop(core);
        let stats = PoolStats::new(self.workers);
        let pool = Arc::new(Pool::new(id, database, name.clone(), settings, credential.proved(), stats));
        self.pools.register(Arc::clone(&pool));
        directory.pools.insert(name, Arc::clone(&pool));
        Some(pool)
    }

    /// The lane of a role, made if nobody has asked for it so far; `None`: the configuration does not serve the role.
    pub fn lane(&self, role: &str) -> Option<LaneId> {
        self.directory().lane(&mut self.pools.core(), &self.config.load(), &role.into())
    }

    /// The roles that have lanes, by name.
    pub fn all_lanes(&self) -> Vec<(Arc<str>, LaneId)> {
        let mut lanes: Vec<_> = self.directory().lanes.iter().map(|(role, id)| (Arc::clone(role), *id)).collect();
        lanes.sort();
        lanes
    }

    /// All pools, in order of their names.
    pub fn all_pools(&self) -> Vec<Arc<Pool>> {
        let mut pools: Vec<_> = self.directory().pools.values().cloned().collect();
        pools.sort_by(|a, b| a.name.cmp(&b.name));
        pools
    }

    /// The databases that have pools, by name.
    pub fn all_databases(&self) -> Vec<(Arc<str>, DatabaseId)> {
        let mut databases: Vec<_> =
            self.directory().databases.iter().map(|(name, id)| (Arc::clone(name), *id)).collect();
        databases.sort();
        databases
    }

    /// The databases that a command of the console is about: the one it names, or all that exist. A configured database
    /// nobody has asked for so far begins to exist; `None`: the configuration does not serve it.
    pub fn meant(&self, name: Option<&str>) -> Option<Vec<DatabaseId>> {
        let Some(name) = name else {
            return Some(self.directory().databases.values().copied().collect());
        };
        let config = self.config.load();
        let served = config.database(name)?;
        let limits = DatabaseLimits { backends_max: served.backends_max, connect_timeout: served.pool.connect_timeout };
        let mut directory = self.directory();
        Some(vec![directory.database(&mut self.pools.core(), &name.into(), limits)])
    }

    /// Stops leases of these databases until [`Self::resume`], and closes their backends as they come back.
    pub fn pause(&self, worker: usize, databases: &[DatabaseId]) {
        let now = Instant::now();
        self.pools.decide(worker, |core, out| {
            for database in databases {
                core.pause(*database);
                core.retire_database(*database, now, out);
            }
        });
    }

    /// Ends a pause.
    pub fn resume(&self, worker: usize, databases: &[DatabaseId]) {
        let now = Instant::now();
        self.pools.decide(worker, |core, out| databases.iter().for_each(|database| core.resume(*database, now, out)));
    }

    /// Whether databases that nobody has asked for so far are to be paused from the start.
    pub fn pause_newcomers(&self, is_paused: bool) {
        self.directory().is_paused = is_paused;
    }

    /// Everything is paused.
    pub fn is_paused(&self) -> bool {
        self.directory().is_paused
    }

    /// Has a database take clients or refuse them.
    pub fn set_disabled(&self, database: &str, is_disabled: bool) {
        let disabled = &mut self.directory().disabled;
        if is_disabled {
            disabled.insert(database.to_owned());
        } else {
            disabled.remove(database);
        }
    }

    /// The database takes no new clients.
    pub fn is_disabled(&self, database: &str) -> bool {
        self.directory().disabled.contains(database)
    }

    /// Earlier totals, for averages.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("no panic while held")
    }

    /// Replaces all backends of a database: idle ones now, the others when they are given back. Only on a worker's thread.
    pub fn retire(&self, worker: usize, database: DatabaseId) {
        self.pools.decide(worker, |core, out| core.retire_database(database, Instant::now(), out));
    }

    /// Puts another configuration into force. Runs on a worker's thread.
    pub fn reload(&self, worker: usize, config: Config) -> Result<(), TlsError> {
        // Everything that can fail comes first: a bad file changes nothing.
        let tls = ServerTls::new(&config.listen.tls)?;
        crate::net::tls::check(&config).into_iter().next().map_or(Ok(()), |(_, error)| Err(error))?;
        self.tls.store(Arc::new(tls));
        self.pools.opener().forget_certificates();
        let is_host = |name: &str| config.databases.values().any(|of| of.hosts.iter().any(|host| host == name));
        self.pools.opener().names().retain(is_host);
        self.pools.set_zombie_max(config.admission.zombie_max);
        self.entrance.set(&config.admission);
        self.hub.set(&config.notify);
        let config = Arc::new(config);
        self.config.store(Arc::clone(&config));
        let now = Instant::now();
        let mut gone = Vec::new();
        let mut directory = self.directory();
        self.pools.decide(worker, |core, out| {
            core.set_total_max(config.backends_total_max, now, out);
            directory.lanes.retain(|role, lane| match lane_settings(&config, role) {
                Some(settings) => {
                    core.set_lane(*lane, settings, now, out);
                    true
                }
                None => {
                    core.remove_lane(*lane);
                    false
                }
            });
            directory.pools.retain(|name, pool| {
                let settings = match name.kind {
                    PoolKind::Own => lookup_settings(&config, &name.database, &name.role),
                    PoolKind::Ordinary | PoolKind::Replication(_) => pool_settings(&config, &name.database, &name.role),
                };
                let Some(settings) = settings else {
                    core.remove_pool(pool.id, now, out);
                    if name.kind != PoolKind::Own {
                        gone.push(name.clone());
                    }
                    return false;
                };
                core.set_database(pool.database, database_limits(&settings), now, out);
                core.set_pool(pool.id, pool_limits(&settings), now, out);
                if name.kind != PoolKind::Own
                    && let Some(credential) = configured(&config, &settings, &name.role)
                {
                    pool.set_credential(credential);
                }
                let before = Arc::clone(&pool.settings());
                // No SET brings back what the server would say of itself: only a new login does.
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
        drop(directory);
        for entry in self.clients.all() {
            if gone.iter().any(|name| name.database == entry.database && name.role == entry.role) {
                entry.signal(Signal::Evict);
            }
        }
        Ok(())
    }

    /// Regular work, on each worker for its own stacks; once in all for what is shared.
    pub fn tick(self: &Arc<Self>, worker: usize) {
        let now = Instant::now();
        self.ticks.store(self.tick_at(now), Ordering::Relaxed);
        if worker == 0 {
            let second = u32::try_from(now.saturating_duration_since(self.started).as_secs()).unwrap_or(u32::MAX);
            if self.second.swap(second, Ordering::Relaxed) != second {
                self.entrance.tick(now);
            }
            self.pools.decide(worker, |core, out| core.tick(now, out));
            self.forget_unused(worker);
            self.history()
                .roll(now, || self.pools.all().iter().map(|pool| (pool.key(), pool.stats.totals())).collect());
            self.pools.sweep();
            self.end_idle_clients();
            self.look_for_overdue();
        }
        let pools = self.pools.all();
        self.pools.decide(worker, |core, out| {
            let mut cx = Context::from_waker(Waker::noop());
            let mut outdated = 0;
            for pool in &pools {
                core.peek_idle(
                    pool.id,
                    worker,
                    |backend| {
                        if outdated < OUTDATED_AT_ONCE && backend.is_outdated(pool, now) {
                            outdated += 1;
                            return false;
                        }
                        !backend.stream.is_readable(&mut cx) || keep::is_fit(backend, pool, &mut cx)
                    },
                    out,
                );
            }
        });
    }

    /// Forgets pools, databases and roles that the configuration does not name and nobody uses. Under `"*"` clients make them by asking, for any
    /// database and role, so they must not be many for long. Those named in the file stay, with their counters.
    fn forget_unused(&self, worker: usize) {
        let now = Instant::now();
        let config = self.config.load();
        let mut directory = self.directory();
        let Directory { databases, pools, lanes, .. } = &mut *directory;
        self.pools.decide(worker, |core, out| {
            pools.retain(|name, pool| {
                let is_named = name.kind == PoolKind::Ordinary
                    && config.databases.contains_key(&*name.database)
                    && config.roles.contains_key(&*name.role);
                let counts = core.pool(pool.id).map(|view| view.counts).unwrap_or_default();
                let may_go = counts.open() == 0 || name.is_dedicated() && counts.open() == counts.idle;
                // This directory, the list of all pools and its idle backends have it, and neither a client nor a dial.
                let is_unused = !is_named && may_go && Arc::strong_count(pool) == 2 + counts.idle as usize;
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
            lanes.retain(|role, lane| config.roles.contains_key(&**role) || !core.forget_lane(*lane));
        });
        self.hub.forget_unused(|name| !config.databases.contains_key(name) && !databases.contains_key(name));
    }

    /// Tells clients whose backends are at something for longer than their role's limits allow.
    fn look_for_overdue(&self) {
        let tick = self.ticks();
        let overdue = self.pools.roster().find(|facts| {
            let limits = &facts.pool.settings().timeouts;
            !facts.pool.is_dedicated() && facts.target.clock.overdue(limits, tick, 1).is_some()
        });
        if overdue.is_empty() {
            return;
        }
        for entry in self.clients.all() {
            if matches!(entry.activity(), Activity::Active(at) if overdue.iter().any(|target| Arc::ptr_eq(target, &at)))
            {
                entry.signal(Signal::Overdue);
            }
        }
    }

    fn end_idle_clients(&self) {
        let limit = self.config.load().listen.idle_timeout;
        if limit.is_zero() {
            return;
        }
        let oldest = self.second().saturating_sub(u32::try_from(limit.as_secs()).unwrap_or(u32::MAX).max(1));
        for entry in self.clients.all() {
            if entry.last_active() < oldest {
                entry.signal(Signal::Idle);
            }
        }
    }

    /// From now on nobody new should be sent here; those who are here notice nothing yet.
    pub fn leave(&self) {
        self.is_leaving.store(true, Ordering::Release);
    }

    /// From now on clients leave as soon as no transaction of theirs is open, and nobody is taken in.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Release);
        self.entrance.close();
        for entry in self.clients.all() {
            entry.signal(Signal::Drain);
        }
    }

    /// All clients leave now, whatever they do.
    pub fn kill(&self) {
        for entry in self.clients.all() {
            entry.signal(Signal::Kill);
        }
    }

    /// Going down, whether or not clients have been told.
    pub fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire)
    }

    /// Going down, and clients have been told.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().expect("no panic while held")
    }
}

impl Directory {
    fn database(&mut self, core: &mut Core<Boxed>, name: &Arc<str>, limits: DatabaseLimits) -> DatabaseId {
        *self.databases.entry(Arc::clone(name)).or_insert_with(|| {
            let database = core.add_database(limits);
            if self.is_paused {
                core.pause(database);
            }
            database
        })
    }

    fn lane(&mut self, core: &mut Core<Boxed>, config: &Config, role: &Arc<str>) -> Option<LaneId> {
        if let Some(lane) = self.lanes.get(role) {
            return Some(*lane);
        }
        let lane = core.add_lane(lane_settings(config, role)?, Instant::now());
        self.lanes.insert(Arc::clone(role), lane);
        Some(lane)
    }
}

/// Settings of the pool for look-ups: the database's own, whatever may be configured for clients of that role. `None`: the
/// database looks nothing up, or as another role.
fn lookup_settings(config: &Config, database: &str, role: &str) -> Option<PoolSettings> {
    let found = config.database(database)?;
    found.auth_query.as_ref().filter(|query| query.role == role)?;
    // The password goes with each question.
    let settings = own_settings(database, found, role, None);
    let size = settings.pool.size.min(LOOKUP_BACKENDS);
    Some(PoolSettings { pool: PoolConfig { size, ..settings.pool }, ..settings })
}

/// What the configuration says backends of a role log in with, whatever its clients know.
fn configured(config: &Config, settings: &PoolSettings, role: &str) -> Option<Credential> {
    if let Some(password) = &settings.endpoint.password {
        return Stored::parse(password).ok().map(|stored| stored.credential());
    }
    match &config.role(role)?.auth {
        Auth::Password { secret, .. } => match Stored::parse(secret).ok()?.credential() {
            // A verifier opens nothing: the keys of a client's login do.
            Credential::Nothing => None,
            credential => Some(credential),
        },
        _ => None,
    }
}

fn database_limits(settings: &PoolSettings) -> DatabaseLimits {
    DatabaseLimits { backends_max: settings.backends_max, connect_timeout: settings.pool.connect_timeout }
}

fn pool_limits(settings: &PoolSettings) -> PoolLimits {
    let pool = &settings.pool;
    let limit = |duration: Duration| (!duration.is_zero()).then_some(duration);
    PoolLimits {
        size: pool.size,
        waiters_max: pool.waiters_max,
        wait_timeout: Some(pool.wait_timeout),
        idle_timeout: limit(pool.idle_timeout),
        lifetime: limit(pool.lifetime),
        tenure: match pool.mode {
            PoolMode::Session => Tenure::Session,
            PoolMode::Transaction | PoolMode::Statement => Tenure::Transaction,
        },
        share: settings.share,
    }
}
