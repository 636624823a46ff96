//! The process: the parts that workers, console and services share.
//!
//! [`sweep`] is its regular work, [`lifecycle`] its end. [`pool::directory`](crate::pool::directory) decides which
//! client gets which pool.

mod clock;
mod episodes;
mod fleet;
mod lifecycle;
mod observed;
mod proofs;
mod sweep;
pub(crate) mod worker_load;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(crate) use self::clock::ProcessClock;
pub(crate) use self::fleet::NamedUse;
use self::worker_load::WorkerLoad;
use crate::admission::entrance::Entrance;
use crate::admission::fair_queue::Caller;
use crate::admission::fair_turns::LoginTurn;
use crate::admission::fleet_share::FleetShare;
use crate::admission::places::{Places, Room, WhenFull};
use crate::auth::mock::{LookedUpForms, UsualLogin};
use crate::auth::random::random;
use crate::auth::secrets::{Secrets, Stored};
use crate::clients::{Clients, Signal};
use crate::config::{Auth, Config, FleetMode, Role, password_commands};
use crate::fleet::Cancels;
use crate::fleet::lease::leases::Leases;
use crate::lanes::Lanes;
use crate::metrics::{ErrorCounts, History, ProcessStats};
use crate::net::tls::{ServerTls, ShownCertificate, TlsError, shown_certificates};
use crate::notify::hub::Hub;
use crate::orders::Order;
use crate::orders::given::GivenOrders;
use crate::orders::log_level::LogLevel;
use crate::pool::core::{Core, FleetParts};
use crate::pool::directory::Directory;
use crate::pool::lease::Pools;
use crate::pool::open::Opener;
use crate::recorder::FlightRecorder;
use crate::state::memory::ClientMemory;
use crate::state::settings::SettingsRegistry;
use crate::state::statements::Statements;
use crate::topology::supervisor::{Supervised, Topologies};
use crate::watch::census::Census;
use crate::watch::watches::Watches;
use crate::workload::StatementStore;

/// Connections beyond `listen.clients_max` that are still served, where there are files enough.
pub(crate) const SPARE_MAX: usize = 1024;

/// Passwords whose keys are derived beforehand; each takes milliseconds of CPU.
const DERIVED_MAX: usize = 2000;

pub(crate) struct Proxy {
    /// The configuration in force.
    pub config: Arc<ArcSwap<Config>>,
    /// TLS towards clients.
    pub tls: ArcSwap<Option<ServerTls>>,
    /// The certificates in force, for metrics.
    pub certificates: ArcSwap<Vec<ShownCertificate>>,
    pub pools: Arc<Pools>,
    /// All clients that are logged in.
    pub clients: Arc<Clients>,
    /// The way of CancelRequests between instances.
    pub cancels: Arc<Cancels>,
    /// The listeners of each channel, and the notifications for them.
    pub hub: Arc<Hub>,
    /// The watches over other activity at the servers.
    pub watches: Watches,
    /// The number of instances, where limits are divided by it.
    pub census: Option<Census>,
    /// The leases, where limits are held by them.
    pub leases: Option<Arc<Leases>>,
    pub statements: Statements,
    /// The lanes of transactions, and orders about single statements.
    pub lanes: Lanes,
    /// The recording of transactions, where there is one.
    pub recorder: Option<Arc<FlightRecorder>>,
    /// What statements do, where that is counted.
    pub workload: Option<Arc<StatementStore>>,
    /// All sets of settings.
    pub settings: SettingsRegistry,
    /// The memory of all clients.
    pub memory: Arc<ClientMemory>,
    /// Errors that clients got.
    pub errors: ErrorCounts,
    /// Events of the whole process.
    pub process: ProcessStats,
    /// When logins may come in.
    pub entrance: Entrance,
    /// Keys of logins.
    pub secrets: Arc<Secrets>,
    /// How most roles log in.
    pub usual_login: ArcSwap<UsualLogin>,
    /// Forms of secrets that were looked up.
    pub looked_up_forms: LookedUpForms,
    /// The places of connections, of those that have not logged in, too.
    pub places: Arc<Places>,
    /// Threads that serve clients, at most.
    pub workers: usize,
    /// How many of them serve now; the others rest.
    pub serving: AtomicUsize,
    /// How busy each of them is.
    pub loads: Box<[Arc<WorkerLoad>]>,
    /// The level of the log.
    pub log_level: LogLevel,
    /// Orders of the console to the process.
    pub orders: mpsc::Sender<Order>,
    /// The authors of orders that may be in force.
    pub given_orders: GivenOrders,
    /// All pools by name.
    pub directory: Arc<Directory>,
    /// Which server has which role, where a topology says that.
    pub topologies: Arc<Topologies>,
    /// The time of the process.
    pub clock: ProcessClock,
    /// See [`Room::spare`].
    spare: AtomicUsize,
    history: Mutex<History>,
    /// What the log has of limits that only observe.
    observed: Mutex<observed::Told>,
    /// What the log has of bursts and refusals.
    episodes: Mutex<episodes::RoleEpisodes>,
    /// The part of the fleet's limits that is in force.
    share: Mutex<FleetShare>,
    is_leaving: AtomicBool,
    is_draining: AtomicBool,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").finish_non_exhaustive()
    }
}

impl Proxy {
    /// Everything that topologies need, on this worker.
    pub(crate) fn supervised(&self, worker: usize) -> Supervised {
        Supervised {
            config: Arc::clone(&self.config),
            directory: Arc::clone(&self.directory),
            pools: Arc::clone(&self.pools),
            topologies: Arc::clone(&self.topologies),
            worker,
        }
    }

    /// From a checked configuration; fails only on certificates.
    pub(crate) fn new(config: Config, orders: mpsc::Sender<Order>) -> Result<Self, TlsError> {
        let tls = ServerTls::new(&config.listen.tls)?;
        let certificates = ArcSwap::from_pointee(shown_certificates(&config));
        let settings = SettingsRegistry::default();
        let secrets = Arc::new(Secrets::new());
        prepare_logins(&secrets, &config);
        let usual_login = ArcSwap::from_pointee(UsualLogin::of(&config));
        let workers = config.listen.workers_max();
        let serving = AtomicUsize::new(config.listen.workers.unwrap_or(1));
        let started = Instant::now();
        let mut core = Core::new(workers, config.backends_total_max, fastrand::u64(..));
        let cancels = Cancels::new(config.fleet.siblings, || u64::from_ne_bytes(random()));
        let census = (config.fleet.mode == FleetMode::Count).then(|| Census::new(&config.fleet.name, cancels.id));
        let leases = (config.fleet.mode == FleetMode::Redis).then(|| Arc::new(Leases::new(cancels.id)));
        let share = match (&census, &leases) {
            (Some(census), _) => census.share(),
            (None, Some(_)) => FleetShare::Granted { most: 0, of: 1 },
            (None, None) => FleetShare::All,
        };
        core.set_parts(FleetParts::all(share), started, &mut Vec::new());
        let opener = Opener::new(Arc::clone(&secrets), settings.none());
        opener.passwords().set(password_commands(&config));
        let pools = Arc::new(Pools::new(core, opener));
        pools.set_zombie_max(config.admission.zombie_max);
        let recorder = config.recorder.path.as_ref().and_then(|path| {
            let recorder = FlightRecorder::start(path.as_ref(), config.recorder.size);
            recorder.inspect_err(|error| tracing::error!(path, %error, "transactions are not recorded")).ok()
        });
        let lanes = Lanes::default();
        lanes.set(&config, &pools, 0);
        let entrance = Entrance::new(&config.admission);
        let hub = Arc::new(Hub::new(config.notify.clone()));
        let memory = Arc::new(ClientMemory::default());
        memory.set(config.listen.memory_max, config.listen.client_memory_max);
        let workload = config
            .statements
            .track
            .then(|| Arc::new(StatementStore::new(workers, &config.statements, u64::from_ne_bytes(random()))));
        let config = Arc::new(ArcSwap::from_pointee(config));
        Ok(Self {
            lanes,
            recorder,
            workload,
            memory,
            entrance,
            hub,
            watches: Watches::default(),
            directory: Arc::new(Directory::new(Arc::clone(&config), Arc::clone(&pools), workers)),
            topologies: Arc::default(),
            config,
            tls: ArcSwap::from_pointee(tls),
            certificates,
            pools,
            clients: Arc::new(Clients::new(cancels.number)),
            cancels: Arc::new(cancels),
            census,
            leases,
            given_orders: GivenOrders::default(),
            log_level: LogLevel::default(),
            observed: Mutex::default(),
            episodes: Mutex::default(),
            share: Mutex::new(share),
            statements: Statements::default(),
            settings,
            errors: ErrorCounts::default(),
            process: ProcessStats::default(),
            secrets,
            usual_login,
            looked_up_forms: LookedUpForms::default(),
            places: Places::new(WhenFull::Newcomer),
            spare: AtomicUsize::new(SPARE_MAX),
            workers,
            serving,
            loads: (0..workers).map(|_| Arc::default()).collect(),
            orders,
            clock: ProcessClock::new(started),
            history: Mutex::new(History::new(started)),
            is_leaving: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
        })
    }

    /// `pool.cancel_timeout` where no database's own is at hand: the longest of all.
    pub(crate) fn cancel_timeout(&self) -> Duration {
        let config = self.config.load();
        config.databases.values().map(|database| database.pool.cancel_timeout).max().unwrap_or(Duration::from_secs(5))
    }

    /// How many connections there may be.
    pub(crate) fn room(&self) -> Room {
        let config = self.config.load();
        Room {
            clients: config.listen.clients_max as usize,
            spare: self.spare.load(Ordering::Relaxed),
            of_address: config.listen.clients_max_per_address.map(|most| most as usize),
        }
    }

    /// Has room for so many connections beyond `listen.clients_max`.
    pub(crate) fn set_spare(&self, spare: usize) {
        self.spare.store(spare.min(SPARE_MAX), Ordering::Relaxed);
    }

    /// Waits until one more login may ask the servers of this database something.
    pub(crate) async fn turn_to_ask(&self, database: &str, caller: Caller) -> LoginTurn {
        let config = self.config.load();
        let section = if config.databases.contains_key(database) { database } else { "*" };
        self.entrance.turn_to_ask(section, caller).await
    }

    /// Earlier totals, for averages.
    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("no panic while held")
    }

    /// Puts another configuration into force. Runs on a worker's thread.
    pub(crate) fn reload(&self, worker: usize, config: Config) -> Result<(), TlsError> {
        // Everything that can fail comes first: a bad file changes nothing.
        let tls = ServerTls::new(&config.listen.tls)?;
        crate::net::tls::check(&config).into_iter().next().map_or(Ok(()), |(_, error)| Err(error))?;
        self.tls.store(Arc::new(tls));
        self.certificates.store(Arc::new(shown_certificates(&config)));
        self.pools.opener().forget_certificates();
        self.pools.opener().passwords().set(password_commands(&config));
        let is_peer = |name: &str| config.fleet.peers.iter().any(|peer| peer.host == name);
        let is_host =
            |name: &str| config.databases.values().any(|of| of.hosts.iter().any(|host| host == name)) || is_peer(name);
        self.pools.opener().names().retain(is_host);
        self.pools.set_zombie_max(config.admission.zombie_max);
        self.memory.set(config.listen.memory_max, config.listen.client_memory_max);
        self.entrance.set(&config.admission);
        prepare_logins(&self.secrets, &config);
        self.usual_login.store(Arc::new(UsualLogin::of(&config)));
        self.hub.set(&config.notify);
        if let Some(workload) = &self.workload {
            workload.set(&config.statements);
        }
        let config = Arc::new(config);
        self.config.store(Arc::clone(&config));
        self.lanes.set(&config, &self.pools, worker);
        let gone = self.directory.reload(worker, &config);
        for entry in self.clients.all() {
            if gone.iter().any(|name| name.database == entry.database && name.role == entry.role) {
                entry.signal(Signal::Evict);
            }
        }
        Ok(())
    }
}

/// Sets the key of salts, and derives the keys of configured passwords, beside everything else: the first login of a
/// role must not take longer than one of a role that does not exist.
fn prepare_logins(secrets: &Arc<Secrets>, config: &Config) {
    if let Some(key) = &config.listen.salt_key {
        secrets.set_salt_key(key);
    }
    let plain = |(name, role): (&String, &Role)| match &role.auth {
        Auth::Password { secret, md5: false } => match Stored::parse(secret) {
            Ok(Stored::Plain(password)) => Some((name.clone(), password)),
            _ => None,
        },
        _ => None,
    };
    let passwords: Vec<_> = config.roles.iter().filter_map(plain).take(DERIVED_MAX).collect();
    if passwords.is_empty() {
        return;
    }
    let secrets = Arc::clone(secrets);
    let derived = std::thread::Builder::new().name("passwords".into()).spawn(move || {
        passwords.iter().for_each(|(role, password)| secrets.derive(role, password));
    });
    // Logins derive what is missing.
    if let Err(error) = derived {
        tracing::debug!(%error, "keys of passwords are derived at their first login");
    }
}
