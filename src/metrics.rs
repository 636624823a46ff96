//! What is counted, and under which names it is shown.
//!
//! Counters of the hot path are per worker, so that no two threads write the same line, and summed when somebody looks.
//! [`Metric`] is the one table of names, units and help; `text` writes them for Prometheus.

mod history;
mod text;

pub use history::{History, PERIOD};
pub use text::{Page, labels};

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::state::timeout::Timeout;

/// Counters of one pool.
#[derive(Debug)]
pub struct PoolStats {
    cells: Box<[Cell]>,
}

/// One worker's share. Only that worker writes it, so adding is a load and a store.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Cell {
    queries: Counter,
    transactions: Counter,
    leases: Counter,
    received: Counter,
    sent: Counter,
    zombies: Counter,
    logins: Counter,
    timeouts: [Counter; Timeout::ALL.len()],
    wait: Histogram,
    lease: Histogram,
}

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    #[inline]
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Buckets by powers of two of microseconds: bucket `n` holds durations below 2^n µs, the last everything else.
pub const BUCKETS: usize = 28;

/// Where a duration is counted, and its microseconds.
fn bucket(duration: Duration) -> (usize, u64) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    ((64 - micros.leading_zeros() as usize).min(BUCKETS - 1), micros)
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_micros: Counter,
}

impl Histogram {
    #[inline]
    fn record(&self, duration: Duration) {
        let (bucket, micros) = bucket(duration);
        self.buckets[bucket].add(1);
        self.sum_micros.add(micros);
    }
}

impl Cell {
    /// Cycles of clients that ended, and how many of them ended a transaction.
    #[inline]
    pub fn cycles(&self, cycles: u64, transactions: u64) {
        self.queries.add(cycles);
        self.transactions.add(transactions);
    }

    /// A lease ended that lasted so long.
    #[inline]
    pub fn leased(&self, duration: Duration) {
        self.leases.add(1);
        self.lease.record(duration);
    }

    /// A client stood in line so long, and got a backend.
    pub fn waited(&self, duration: Duration) {
        self.wait.record(duration);
    }

    /// Bytes from clients.
    #[inline]
    pub fn received(&self, bytes: usize) {
        self.received.add(bytes as u64);
    }

    /// Bytes to clients.
    #[inline]
    pub fn sent(&self, bytes: usize) {
        self.sent.add(bytes as u64);
    }

    /// A client vanished while its query ran.
    pub fn zombie(&self) {
        self.zombies.add(1);
    }

    /// A client logged in.
    pub fn login(&self) {
        self.logins.add(1);
    }

    /// A timeout ended something.
    pub fn timeout(&self, timeout: Timeout) {
        self.timeouts[timeout as usize].add(1);
    }
}

/// The sum over all workers at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Cycles ended.
    pub queries: u64,
    /// Transactions ended.
    pub transactions: u64,
    /// Leases ended.
    pub leases: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Bytes to clients.
    pub sent: u64,
    /// Clients that vanished while their query ran.
    pub zombies: u64,
    /// Logins.
    pub logins: u64,
    /// What timeouts ended, as [`Timeout::ALL`].
    pub timeouts: [u64; Timeout::ALL.len()],
    /// Waits for a backend, of those that had to.
    pub wait: Distribution,
    /// Lengths of leases.
    pub lease: Distribution,
}

impl Totals {
    /// What came since `before`, an earlier moment of the same.
    fn since(&self, before: &Self) -> Self {
        Self {
            queries: self.queries.saturating_sub(before.queries),
            transactions: self.transactions.saturating_sub(before.transactions),
            leases: self.leases.saturating_sub(before.leases),
            received: self.received.saturating_sub(before.received),
            sent: self.sent.saturating_sub(before.sent),
            zombies: self.zombies.saturating_sub(before.zombies),
            logins: self.logins.saturating_sub(before.logins),
            timeouts: std::array::from_fn(|i| self.timeouts[i].saturating_sub(before.timeouts[i])),
            wait: self.wait.since(&before.wait),
            lease: self.lease.since(&before.lease),
        }
    }

    /// Both together.
    pub fn merge(&mut self, other: &Self) {
        self.queries += other.queries;
        self.transactions += other.transactions;
        self.leases += other.leases;
        self.received += other.received;
        self.sent += other.sent;
        self.zombies += other.zombies;
        self.logins += other.logins;
        for (sum, other) in self.timeouts.iter_mut().zip(other.timeouts) {
            *sum += other;
        }
        self.wait.merge(&other.wait);
        self.lease.merge(&other.lease);
    }
}

/// A histogram at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Counts by bucket, as of [`BUCKETS`].
    pub buckets: [u64; BUCKETS],
    /// Sum of all recorded durations, in microseconds.
    pub sum_micros: u64,
}

impl Distribution {
    /// One more.
    pub fn record(&mut self, duration: Duration) {
        let (bucket, micros) = bucket(duration);
        self.buckets[bucket] += 1;
        self.sum_micros += micros;
    }

    fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.value();
        }
        self.sum_micros += histogram.sum_micros.value();
    }

    fn merge(&mut self, other: &Self) {
        for (sum, bucket) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += bucket;
        }
        self.sum_micros += other.sum_micros;
    }

    /// What came since `before`, an earlier moment of the same.
    fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        for (bucket, before) in since.buckets.iter_mut().zip(before.buckets) {
            *bucket = bucket.saturating_sub(before);
        }
        since.sum_micros = since.sum_micros.saturating_sub(before.sum_micros);
        since
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl PoolStats {
    /// For this many workers.
    pub fn new(workers: usize) -> Self {
        Self { cells: (0..workers).map(|_| Cell::default()).collect() }
    }

    /// The share of one worker, to be written by that worker only.
    #[inline]
    pub fn cell(&self, worker: usize) -> &Cell {
        &self.cells[worker]
    }

    /// Everything so far.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for cell in &self.cells {
            totals.queries += cell.queries.value();
            totals.transactions += cell.transactions.value();
            totals.leases += cell.leases.value();
            totals.received += cell.received.value();
            totals.sent += cell.sent.value();
            totals.zombies += cell.zombies.value();
            totals.logins += cell.logins.value();
            for (sum, timeout) in totals.timeouts.iter_mut().zip(&cell.timeouts) {
                *sum += timeout.value();
            }
            totals.wait.add(&cell.wait);
            totals.lease.add(&cell.lease);
        }
        totals
    }
}

/// Why a query is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its client asked for it.
    Client,
    /// Its client is gone.
    Zombie,
    /// It took longer than its role may.
    Timeout,
}

impl Cause {
    const ALL: [Self; 3] = [Self::Client, Self::Zombie, Self::Timeout];

    fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Zombie => "zombie",
            Self::Timeout => "timeout",
        }
    }
}

/// Why a connection does not become a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginRefusal {
    /// Not what the protocol has here, or TLS where there is none.
    Protocol,
    /// It did not prove who it is, or may not do what it wants.
    Authentication,
    /// No such database, or it takes no clients.
    Database,
    /// `listen.clients_max`.
    ClientsMax,
    /// `roles.*.clients_max`.
    RoleClientsMax,
    /// `admission.login_rate`.
    LoginRate,
    /// `admission.login_rate_per_address`.
    LoginRatePerAddress,
    /// The server was needed, and could not be had.
    Server,
    /// `listen.login_timeout`.
    Timeout,
    /// Going down.
    Draining,
}

impl LoginRefusal {
    const ALL: [Self; 10] = [
        Self::Protocol,
        Self::Authentication,
        Self::Database,
        Self::ClientsMax,
        Self::RoleClientsMax,
        Self::LoginRate,
        Self::LoginRatePerAddress,
        Self::Server,
        Self::Timeout,
        Self::Draining,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Authentication => "authentication",
            Self::Database => "database",
            Self::ClientsMax => "clients_max",
            Self::RoleClientsMax => "role_clients_max",
            Self::LoginRate => "login_rate",
            Self::LoginRatePerAddress => "login_rate_per_address",
            Self::Server => "server",
            Self::Timeout => "timeout",
            Self::Draining => "draining",
        }
    }
}

/// Events of the whole process; each is rare.
#[derive(Debug, Default)]
pub struct ProcessStats {
    login_refusals: [AtomicU64; LoginRefusal::ALL.len()],
    login_delays: Mutex<Distribution>,
    cancels_dropped: AtomicU64,
    cancels: [AtomicU64; Cause::ALL.len()],
    reloads_applied: AtomicU64,
    reloads_refused: AtomicU64,
}

impl ProcessStats {
    /// A connection was refused before it became a client.
    pub fn login_refused(&self, reason: LoginRefusal) {
        self.login_refusals[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A login was made to wait so long.
    pub fn login_delayed(&self, delay: Duration) {
        self.login_delays.lock().expect("no panic while held").record(delay);
    }

    /// Logins that had to wait.
    pub fn login_delays(&self) -> Distribution {
        self.login_delays.lock().expect("no panic while held").clone()
    }

    /// A CancelRequest came from an address that had sent too many.
    pub fn cancel_dropped(&self) {
        self.cancels_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// CancelRequests that were not looked at.
    pub fn cancels_dropped(&self) -> u64 {
        self.cancels_dropped.load(Ordering::Relaxed)
    }

    /// A CancelRequest goes to a server.
    pub fn cancel(&self, cause: Cause) {
        self.cancels[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// CancelRequests sent to servers.
    pub fn cancels(&self) -> [(&'static str, u64); Cause::ALL.len()] {
        Cause::ALL.map(|cause| (cause.word(), self.cancels[cause as usize].load(Ordering::Relaxed)))
    }

    /// The configuration was read again, with this outcome.
    pub fn reloaded(&self, is_applied: bool) {
        let count = if is_applied { &self.reloads_applied } else { &self.reloads_refused };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections refused.
    pub fn login_refusals(&self) -> [(&'static str, u64); LoginRefusal::ALL.len()] {
        LoginRefusal::ALL.map(|reason| (reason.word(), self.login_refusals[reason as usize].load(Ordering::Relaxed)))
    }

    /// Reloads by outcome.
    pub fn reloads(&self) -> [(&'static str, u64); 2] {
        let [applied, refused] = [&self.reloads_applied, &self.reloads_refused].map(|n| n.load(Ordering::Relaxed));
        [("applied", applied), ("refused", refused)]
    }
}

/// What a metric's values mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// As it is now.
    Gauge,
    /// Counts by duration.
    Histogram,
}

macro_rules! metrics {
    ($($variant:ident: $kind:ident $name:literal $help:literal)*) => {
        /// Everything `/metrics` shows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Metric {
            $(#[doc = $help] $variant,)*
        }

        impl Metric {
            /// All, in the order they are shown.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name, which ends in its unit.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What its values mean.
            pub fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }

            /// One sentence.
            pub fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

metrics! {
    BuildInfo: Gauge "pgweir_build_info" "Always 1; its label is the version."
    Uptime: Gauge "pgweir_uptime_seconds" "Time since the start."
    Draining: Gauge "pgweir_draining" "1 while pgweir goes down."
    Connections: Gauge "pgweir_connections" "Connections of clients, logins and consoles included."
    Clients: Gauge "pgweir_clients" "Clients that are logged in, by database, role and state: idle, waiting or active."
    Pins: Gauge "pgweir_pins" "Clients that keep their backend between transactions, by database, role and reason."
    Backends: Gauge "pgweir_backends" "Backends, by database, role and state: opening, idle, handed, leased, closing, or zombie: given up in the middle of something, and not ended by the server yet."
    BackendsMax: Gauge "pgweir_backends_max" "pool.size: backends that a pool may have."
    Waiters: Gauge "pgweir_waiters" "Clients in line for a backend."
    OldestWait: Gauge "pgweir_oldest_wait_seconds" "How long the first in line has waited."
    RoleActive: Gauge "pgweir_role_active" "Backends that are with clients of a role, over all databases."
    RoleLimit: Gauge "pgweir_role_limit" "roles.*.transactions_max, or what LIMIT said; absent where only the pools limit a role."
    RoleEffectiveLimit: Gauge "pgweir_role_effective_limit" "How many may be active now: the limit, its ramp and slow start; absent where nothing but the pools limits a role."
    RoleWaiters: Gauge "pgweir_role_waiters" "Clients of a role in line, over all databases."
    RoleOldestWait: Gauge "pgweir_role_oldest_wait_seconds" "How long the first of them has waited."
    RoleState: Gauge "pgweir_role_state" "1 for the state a role is in: calm, burst, convoy (full, and nothing ends) or closed."
    EndpointUp: Gauge "pgweir_endpoint_up" "1 if the database's server answered when it was dialled last, or was never dialled."
    Paused: Gauge "pgweir_paused" "1 between PAUSE and RESUME."
    WatchUp: Gauge "pgweir_watch_up" "1 while the watch of a database has a connection that answers."
    WatchStandby: Gauge "pgweir_watch_standby" "1 if the watched server follows another one."
    WatchState: Gauge "pgweir_watch_state" "1 for what the watch makes of the server: calm, suspect, convoy, blind (no answer) or recovered."
    WatchFindings: Gauge "pgweir_watch_findings" "What is the matter now, by kind; SHOW CONVOYS, HORIZON and BLOCKERS have it in words, with what would end it."
    WatchSessions: Gauge "pgweir_watch_sessions" "Sessions of the whole server, by state: active, idle_in_transaction or idle."
    WatchLockWaiters: Gauge "pgweir_watch_lock_waiters" "Sessions of the whole server that wait for a lock, by what it is on."
    WatchLockManagerWaiters: Gauge "pgweir_watch_lock_manager_waiters" "Sessions of the whole server that wait for the lock manager itself: deadlock checks run."
    WatchOldestLockWait: Gauge "pgweir_watch_oldest_lock_wait_seconds" "How long the first of those who wait for a lock has been seen waiting."
    XminAgeTransactions: Gauge "pgweir_xmin_age_transactions" "How many transactions ago the oldest snapshot was taken that keeps vacuum from its work, by who has it: backend, walsender, slot or prepared transaction."
    XminAge: Gauge "pgweir_xmin_age_seconds" "How long ago that was."
    DeadTuples: Gauge "pgweir_dead_tuples" "Dead rows of the tables with the most, five for each database."
    WatchOutside: Gauge "pgweir_watch_outside_connections" "Connections to a database that are not pgweir's."
    ServerNotifyQueue: Gauge "pgweir_server_notify_queue_ratio" "How full the server's own queue of notifications is, from 0 to 1."
    NotifyQueue: Gauge "pgweir_notify_queue" "Notifications that wait for the bus, by database."
    NotifyListeners: Gauge "pgweir_notify_listeners" "Clients that listen, by database."
    NotifyChannels: Gauge "pgweir_notify_channels" "Channels that clients listen to, by database."
    Logins: Counter "pgweir_logins_total" "Logins of clients."
    LoginFailures: Counter "pgweir_login_failures_total" "Connections refused before they became clients, by reason."
    LoginDelay: Histogram "pgweir_login_delay_seconds" "How long logins over admission.login_rate were kept waiting, of those that were."
    Queries: Counter "pgweir_queries_total" "Cycles ended: a Query, or a Sync with what came before it."
    Transactions: Counter "pgweir_transactions_total" "Transactions ended."
    Leases: Counter "pgweir_leases_total" "Leases of a backend ended."
    RoleStarts: Counter "pgweir_role_starts_total" "Transactions started."
    RoleStartsImmediate: Counter "pgweir_role_starts_immediate_total" "Transactions started without a wait."
    RoleRefused: Counter "pgweir_role_refused_total" "Transactions refused, by reason: full (the line) or shed (it would have waited too long)."
    RoleWaitTimeouts: Counter "pgweir_role_wait_timeouts_total" "Clients that left the line after wait_timeout."
    RoleBursts: Counter "pgweir_role_bursts_total" "Bursts begun."
    RoleConvoys: Counter "pgweir_role_convoys_total" "Times a role was full, somebody waited and nothing ended, until something did."
    RoleLimitCuts: Counter "pgweir_role_limit_cuts_total" "Times slow start or the adaptive limit lowered the effective limit."
    RoleLimitReverts: Counter "pgweir_role_limit_reverts_total" "Times the adaptive limit took its cuts back, since they did not help."
    RolePaced: Counter "pgweir_role_paced_total" "Transactions that roles.*.rate held up."
    RolePaceOverflow: Counter "pgweir_role_pace_overflow_total" "Transactions started above the rate, after rate_delay_max."
    RoleSpread: Counter "pgweir_role_spread_total" "Transactions that jitter = \"spread\" held up."
    Zombies: Counter "pgweir_zombies_total" "Clients that vanished while their query ran; it was cancelled."
    Cancels: Counter "pgweir_cancels_total" "CancelRequests sent to servers, by cause: client, zombie for one that vanished, or timeout."
    Timeouts: Counter "pgweir_timeouts_total" "What timeouts ended, by database, role and kind: statement, lock, idle_in_transaction or transaction."
    CancelsDropped: Counter "pgweir_cancels_dropped_total" "CancelRequests of clients over admission.cancel_rate_per_address; nothing came of them."
    NotifyIntercepted: Counter "pgweir_notify_intercepted_total" "Notifications kept out of the server's transactions, committed or not."
    NotifyPublished: Counter "pgweir_notify_published_total" "Intercepted notifications that were committed, handed to the listeners here and to the bus."
    NotifyDelivered: Counter "pgweir_notify_delivered_total" "Notifications sent to clients, each as often as it has listeners."
    NotifyFolded: Counter "pgweir_notify_folded_total" "Intercepted notifications that said the same as one before in their transaction."
    NotifyDropped: Counter "pgweir_notify_dropped_total" "Notifications lost, by cause: listener (one did not read, and was closed), bus (it took nothing for too long) or commit (its outcome is not known)."
    NotifyGaps: Counter "pgweir_notify_gaps_total" "Times listeners may have missed something, by cause: bridge (the connection that listens on the server), bus, hole (in its numbers) or switched."
    WatchFound: Counter "pgweir_watch_findings_total" "What has begun to be the matter, by kind."
    Convoys: Counter "pgweir_convoys_total" "Lock convoys seen at the server."
    WatchReactions: Counter "pgweir_watch_reactions_total" "What was done about findings: tighten (watch.on_convoy lowered a role's limit) or cancel (watch.on_idle_holder ended a transaction)."
    Received: Counter "pgweir_received_bytes_total" "Bytes from clients."
    Sent: Counter "pgweir_sent_bytes_total" "Bytes to clients."
    Errors: Counter "pgweir_errors_total" "Errors that clients got, by SQLSTATE, whoever raised them."
    Reloads: Counter "pgweir_config_reloads_total" "Readings of the configuration after the first, by outcome: applied or refused."
    Wait: Histogram "pgweir_pool_wait_seconds" "How long clients stood in line for a backend, of those that had to."
    Lease: Histogram "pgweir_lease_seconds" "How long clients held a backend."
    NotifyBus: Histogram "pgweir_notify_bus_seconds" "From the commit of a notification until the bus has it."
    WatchQuery: Histogram "pgweir_watch_query_seconds" "How long the server took for the questions of the watch."
}

/// Errors that clients got, by SQLSTATE.
#[derive(Debug, Default)]
pub struct ErrorCounts(Mutex<std::collections::BTreeMap<[u8; 5], u64>>);

impl ErrorCounts {
    /// One of ours.
    pub fn count(&self, code: &str) {
        self.count_bytes(code.as_bytes());
    }

    /// One of Postgres's; what is no SQLSTATE is counted as `?????`.
    pub fn count_bytes(&self, code: &[u8]) {
        let code = <[u8; 5]>::try_from(code).ok().filter(|code| code.iter().all(u8::is_ascii_alphanumeric));
        *self.0.lock().expect("no panic while held").entry(code.unwrap_or(*b"?????")).or_default() += 1;
    }

    /// Everything so far.
    pub fn totals(&self) -> Vec<(String, u64)> {
        let counts = self.0.lock().expect("no panic while held");
        counts.iter().map(|(code, n)| (String::from_utf8_lossy(code).into_owned(), *n)).collect()
    }
}
