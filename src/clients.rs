//! Every connected client as others see it: cancel requests, the console, a drain.
//!
//! A client's task owns all of its state; others only find it here by its process id, read a few facts and leave a
//! signal.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Wake, Waker};
use std::time::{Duration, SystemTime};

use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use crate::config::CLIENTS_MAX;
use crate::pool::address::ServerAddress;
use crate::pool::backend::{BackendHandle, CancelGuard};
use crate::sql::Digest;
use crate::wire::cancel_key::{CLIENTS, InstanceNumber};

/// A request to a client's task for its next poll; several may be pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Leave the queue: a CancelRequest came while it waits.
    Cancel = 1,
    /// Go, now.
    Kill = 2,
    /// Go as soon as no transaction is open.
    Drain = 4,
    /// Its database or role is gone: go as soon as no transaction is open.
    Evict = 8,
    /// It was idle for too long.
    Idle = 16,
    /// Its current work may have taken too long.
    Overdue = 32,
    /// Others wait for the transaction in which it idles.
    Holding = 64,
    /// It was idle for too long with a backend that it keeps.
    Pinned = 128,
}

/// The present activity of a client, and the target of a cancel of it.
#[derive(Debug, Clone)]
pub(crate) enum Activity {
    /// No backend, none wanted.
    Idle,
    Waiting(Instant),
    /// With the backend of this target.
    Active(Arc<BackendHandle>),
}

#[derive(Debug)]
pub(crate) struct ClientEntry {
    /// Process id reported to the client; positive, unique among those connected.
    pub pid: i32,
    /// Secret of its cancel key: 4 bytes for protocol 3.0, 32 for 3.2.
    secret: Box<[u8]>,
    /// Login role.
    pub role: Arc<str>,
    /// Database asked for.
    pub database: Arc<str>,
    /// Peer, for the console.
    pub addr: String,
    /// `application_name` at its login.
    pub application_name: Box<str>,
    /// Under TLS.
    pub is_tls: bool,
    /// Login.
    pub connected: SystemTime,
    /// Reasons for which it keeps its backend, as bits of `session::pins`.
    pins: AtomicU16,
    /// Digest of the last statement that it sent to its backend.
    statement: AtomicU64,
    /// Seconds since the process began, when the last cycle ended.
    active: AtomicU32,
    signals: AtomicU8,
    activity: Mutex<Activity>,
    waker: Mutex<Option<Waker>>,
}

impl ClientEntry {
    /// Leaves a signal and wakes the client's task.
    pub(crate) fn signal(&self, signal: Signal) {
        self.signals.fetch_or(signal as u8, Ordering::AcqRel);
        self.wake_task();
    }

    fn wake_task(&self) {
        let waker = self.waker.lock().expect("no panic while held").clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Signals left since the last look.
    #[inline]
    pub(crate) fn take_signals(&self) -> u8 {
        if self.signals.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.signals.swap(0, Ordering::AcqRel)
    }

    /// The task that signals wake, until the client moves to another worker and has another.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        *self.waker.lock().expect("no panic while held") = Some(waker.clone());
    }

    /// The client has no backend and wants none. From here on no cancel can be aimed at the backend it had.
    #[inline]
    pub(crate) fn set_idle(&self) {
        self.pins.store(0, Ordering::Relaxed);
        *self.lock() = Activity::Idle;
    }

    pub(crate) fn set_waiting(&self) {
        *self.lock() = Activity::Waiting(Instant::now());
    }

    /// Keeps its backend for these reasons, until [`Self::set_idle`].
    pub(crate) fn set_pins(&self, bits: u16) {
        self.pins.store(bits, Ordering::Relaxed);
    }

    /// It sends this statement to its backend.
    #[inline]
    pub(crate) fn set_statement(&self, digest: Digest) {
        self.statement.store(digest.0, Ordering::Relaxed);
    }

    /// The last statement that it sent to its backend.
    pub(crate) fn statement(&self) -> Digest {
        Digest(self.statement.load(Ordering::Relaxed))
    }

    /// Reasons for which it keeps its backend; `session::pins::names` reads them.
    pub(crate) fn pins(&self) -> u16 {
        self.pins.load(Ordering::Relaxed)
    }

    /// Holds the backend with this target.
    #[inline]
    pub(crate) fn set_active(&self, target: Arc<BackendHandle>) {
        *self.lock() = Activity::Active(target);
    }

    /// A cycle ended, so many seconds after the process began. True if none had ended in that second before.
    #[inline]
    pub(crate) fn touch(&self, second: u32) -> bool {
        let is_first = self.active.load(Ordering::Relaxed) != second;
        self.active.store(second, Ordering::Relaxed);
        is_first
    }

    /// Second of the last cycle's end.
    pub(crate) fn last_active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// Whether its last cycle ended this long ago.
    pub(crate) fn has_idled(&self, limit: Duration, second: u32) -> bool {
        let limit = u32::try_from(limit.as_secs()).unwrap_or(u32::MAX).max(1);
        self.last_active() < second.saturating_sub(limit)
    }

    /// Its present activity.
    pub(crate) fn activity(&self) -> Activity {
        self.lock().clone()
    }

    /// Secret of its cancel key.
    pub(crate) fn secret(&self) -> &[u8] {
        &self.secret
    }

    fn lock(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().expect("no panic while held")
    }
}

/// A waker of its entry wakes whichever task a client has by then.
impl Wake for ClientEntry {
    fn wake(self: Arc<Self>) {
        self.wake_task();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_task();
    }
}

#[derive(Debug)]
pub(crate) struct Clients {
    /// Ours, in the process ids.
    instance: InstanceNumber,
    entries: Mutex<ClientsByPid>,
    /// Number of [`ClientSlot`]s held, by role; only roles with clients are here.
    roles: Mutex<HashMap<Arc<str>, u32>>,
    /// The same by database.
    databases: Mutex<HashMap<Arc<str>, u32>>,
    /// Number of [`PinSlot`]s held, likewise.
    pins: Mutex<HashMap<Arc<str>, u32>>,
}

/// One of the pinned clients of a role, counted until it is dropped: when its backend is free again.
#[derive(Debug)]
pub(crate) struct PinSlot {
    _slot: ClientSlot,
}

/// A client's place; gone when dropped.
#[derive(Debug)]
pub(crate) struct ClientHandle {
    clients: Arc<Clients>,
    entry: Arc<ClientEntry>,
    /// It counts among the clients of its database, too.
    has_database: bool,
}

/// One of the clients of a role or a database, counted until it is dropped: from the proof of its identity to its
/// goodbye.
#[derive(Debug)]
pub(crate) struct ClientSlot {
    /// `None`: its [`ClientHandle`] has taken it over.
    clients: Option<Arc<Clients>>,
    of: Arc<str>,
    counts: CountedClients,
}

/// The counts of clients by role, or by database.
type CountedClients = fn(&Clients) -> MutexGuard<'_, HashMap<Arc<str>, u32>>;

impl Drop for ClientSlot {
    fn drop(&mut self) {
        if let Some(clients) = &self.clients {
            clients.uncount(self.counts, &self.of);
        }
    }
}

impl ClientSlot {
    /// It stays counted until the handle of its client is dropped, which says of whom.
    fn hand_over(mut self) -> Arc<str> {
        self.clients = None;
        Arc::clone(&self.of)
    }
}

impl ClientHandle {
    /// A slot for this client among the pinned ones of its role; `None` if `most` are taken.
    pub(crate) fn pin_slot(&self, most: Option<u32>) -> Option<PinSlot> {
        self.clients.count(Clients::pins, &self.entry.role, most).map(|slot| PinSlot { _slot: slot })
    }

    /// The entry as others see it.
    pub(crate) fn entry(&self) -> &Arc<ClientEntry> {
        &self.entry
    }
}

impl std::ops::Deref for ClientHandle {
    type Target = ClientEntry;

    fn deref(&self) -> &ClientEntry {
        &self.entry
    }
}

impl Drop for ClientHandle {
    fn drop(&mut self) {
        self.clients.entries().by_pid.remove(&self.entry.pid);
        self.clients.uncount(Clients::roles, &self.entry.role);
        if self.has_database {
            self.clients.uncount(Clients::databases, &self.entry.database);
        }
    }
}

/// Facts about a client that has logged in.
#[derive(Debug)]
pub(crate) struct ClientFacts {
    /// The slot of its login role.
    pub slot: ClientSlot,
    /// That of its database; the console is none.
    pub database_slot: Option<ClientSlot>,
    /// Database asked for.
    pub database: Arc<str>,
    /// Peer.
    pub addr: String,
    /// `application_name` of its StartupMessage.
    pub application_name: Box<str>,
    /// Under TLS.
    pub is_tls: bool,
    /// Bytes of its cancel secret.
    pub secret_len: usize,
}

// There are more ids than clients.
const _: () = assert!(CLIENTS_MAX < CLIENTS);

/// The outcome of a CancelRequest.
#[derive(Debug)]
pub(crate) enum Cancelled {
    /// No client has this key.
    Unknown,
    /// There is nothing to do at a server.
    Done,
    /// To be sent to a backend.
    Aimed(CancelGuard),
}

/// The clients by process id.
#[derive(Debug, Default)]
struct ClientsByPid {
    by_pid: BTreeMap<i32, Arc<ClientEntry>>,
    /// Where the search for the next id begins: one that was free a moment ago may still be in the hands of others.
    next: u32,
}

impl ClientsByPid {
    /// An id that no client has; there are more of them than there may be clients.
    fn free_pid(&mut self, instance: InstanceNumber) -> i32 {
        loop {
            let pid = instance.pid(self.next);
            self.next = (self.next + 1) % CLIENTS;
            if !self.by_pid.contains_key(&pid) {
                return pid;
            }
        }
    }
}

impl Clients {
    /// Nobody yet, at this instance.
    pub(crate) fn new(instance: InstanceNumber) -> Self {
        Self {
            instance,
            entries: Mutex::default(),
            roles: Mutex::default(),
            databases: Mutex::default(),
            pins: Mutex::default(),
        }
    }

    /// Takes a client in, with a fresh cancel key.
    pub(crate) fn admit(self: &Arc<Self>, facts: ClientFacts, second: u32) -> ClientHandle {
        let mut secret = vec![0; facts.secret_len].into_boxed_slice();
        SystemRandom::new().fill(&mut secret).expect("the system has randomness");
        let has_database = facts.database_slot.map(ClientSlot::hand_over).is_some();
        let mut entries = self.entries();
        let entry = Arc::new(ClientEntry {
            pid: entries.free_pid(self.instance),
            secret,
            role: facts.slot.hand_over(),
            database: facts.database,
            addr: facts.addr,
            application_name: facts.application_name,
            is_tls: facts.is_tls,
            connected: SystemTime::now(),
            pins: AtomicU16::new(0),
            statement: AtomicU64::new(0),
            active: AtomicU32::new(second),
            signals: AtomicU8::new(0),
            activity: Mutex::new(Activity::Idle),
            waker: Mutex::default(),
        });
        entries.by_pid.insert(entry.pid, Arc::clone(&entry));
        drop(entries);
        ClientHandle { clients: Arc::clone(self), entry, has_database }
    }

    /// A slot for one more client of this role; `None` if `most` are taken.
    pub(crate) fn role_slot(self: &Arc<Self>, role: &Arc<str>, most: Option<u32>) -> Option<ClientSlot> {
        self.count(Self::roles, role, most)
    }

    /// The same of this database.
    pub(crate) fn database_slot(self: &Arc<Self>, database: &Arc<str>, most: Option<u32>) -> Option<ClientSlot> {
        self.count(Self::databases, database, most)
    }

    fn count(self: &Arc<Self>, counts: CountedClients, of: &Arc<str>, most: Option<u32>) -> Option<ClientSlot> {
        let mut slots = counts(self);
        let taken = slots.get(of).copied().unwrap_or(0);
        if most.is_some_and(|most| taken >= most) {
            return None;
        }
        slots.insert(Arc::clone(of), taken + 1);
        Some(ClientSlot { clients: Some(Arc::clone(self)), of: Arc::clone(of), counts })
    }

    fn uncount(&self, counts: CountedClients, of: &Arc<str>) {
        let mut slots = counts(self);
        if let Some(taken) = slots.get_mut(of) {
            *taken -= 1;
            if *taken == 0 {
                slots.remove(of);
            }
        }
    }

    /// Whether a client of this role is logged in.
    pub(crate) fn has_role(&self, role: &str) -> bool {
        self.roles().contains_key(role)
    }

    pub(crate) fn all(&self) -> Vec<Arc<ClientEntry>> {
        self.entries().by_pid.values().map(Arc::clone).collect()
    }

    /// Number of clients connected.
    pub(crate) fn len(&self) -> usize {
        self.entries().by_pid.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A CancelRequest with this key. A waiting client leaves the queue at once.
    pub(crate) fn cancel(&self, pid: i32, secret: &[u8]) -> Cancelled {
        let Some(entry) = self.find(pid).filter(|entry| entry.secret().ct_eq(secret).into()) else {
            return Cancelled::Unknown;
        };
        // The lock is held while aiming, so the client cannot give the backend back in between.
        let activity = entry.lock();
        match &*activity {
            Activity::Active(target) => Cancelled::Aimed(target.aim()),
            Activity::Waiting(_) => {
                drop(activity);
                entry.signal(Signal::Cancel);
                Cancelled::Done
            }
            Activity::Idle => Cancelled::Done,
        }
    }

    /// Cancels for the backends of all clients that run this statement now; nobody else gets one before its guard is
    /// dropped.
    pub(crate) fn aim_at_statement(&self, digest: Digest) -> Vec<CancelGuard> {
        let aim = |entry: Arc<ClientEntry>| match &*entry.lock() {
            Activity::Active(target) if entry.statement() == digest => Some(target.aim()),
            _ => None,
        };
        self.all().into_iter().filter_map(aim).collect()
    }

    /// How many clients run each statement now. One that is idle in a transaction runs none.
    pub(crate) fn running(&self) -> HashMap<Digest, u32> {
        let mut running = HashMap::new();
        for entry in self.all() {
            if matches!(&*entry.lock(), Activity::Active(target) if target.clock.is_running()) {
                *running.entry(entry.statement()).or_default() += 1;
            }
        }
        running
    }

    /// The process at `server` that works for the client with this id now; nobody else gets it until the guard is
    /// dropped. A client that waits leaves its queue, if `role` is its own.
    pub(crate) fn signal_target(&self, pid: i32, server: &ServerAddress, role: &str) -> Option<(i32, CancelGuard)> {
        let entry = self.find(pid)?;
        let activity = entry.lock();
        match &*activity {
            Activity::Active(target) if target.address.is_same_server(server) => {
                let (process, _) = target.key.as_ref()?;
                Some((*process, target.aim()))
            }
            Activity::Waiting(_) if *entry.role == *role => {
                drop(activity);
                entry.signal(Signal::Cancel);
                None
            }
            Activity::Active(_) | Activity::Waiting(_) | Activity::Idle => None,
        }
    }

    fn find(&self, pid: i32) -> Option<Arc<ClientEntry>> {
        self.entries().by_pid.get(&pid).cloned()
    }

    fn pins(&self) -> MutexGuard<'_, HashMap<Arc<str>, u32>> {
        self.pins.lock().expect("no panic while held")
    }

    fn roles(&self) -> MutexGuard<'_, HashMap<Arc<str>, u32>> {
        self.roles.lock().expect("no panic while held")
    }

    fn databases(&self) -> MutexGuard<'_, HashMap<Arc<str>, u32>> {
        self.databases.lock().expect("no panic while held")
    }

    fn entries(&self) -> MutexGuard<'_, ClientsByPid> {
        self.entries.lock().expect("no panic while held")
    }
}
