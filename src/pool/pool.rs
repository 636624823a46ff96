//! One pool as the shell knows it: its name, its settings, the parameters that its backends reported.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use slotmap::Key;
use tokio::time::Instant;

use super::confirmed::Confirmed;
use super::core::{DatabaseId, PoolId};
use super::in_use::{CountUses, Uses};
use super::proof::PasswordProof;
use super::route::Route;
use crate::auth::Credential;
use crate::config::{PoolSettings, ResetWhen, Secret};
use crate::metrics::PoolStats;
use crate::state::limits::Limits;
use crate::state::parameters::Latest;
use crate::wire::build::RefusedLogin;

/// The name of a pool: two clients with the same name share backends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolName {
    /// Database as clients ask for it.
    pub database: Arc<str>,
    /// Role as clients name it.
    pub role: Arc<str>,
    /// The use of its backends.
    pub kind: PoolKind,
}

/// The use of a pool's backends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PoolKind {
    /// Clients' queries.
    Ordinary,
    /// pgweir's own questions: for the secrets of roles that log in, and the watch's.
    Internal,
    /// One replication connection each, with these startup parameters.
    Replication(Arc<[(String, String)]>),
}

impl PoolName {
    /// Its backends serve one client each and are closed after it: replication.
    pub fn is_dedicated(&self) -> bool {
        matches!(self.kind, PoolKind::Replication(_))
    }

    /// More parameters for the StartupMessage.
    pub fn parameters(&self) -> &[(String, String)] {
        match &self.kind {
            PoolKind::Replication(parameters) => parameters,
            PoolKind::Ordinary | PoolKind::Internal => &[],
        }
    }
}

/// The backends of one role in one database.
#[derive(Debug)]
pub struct Pool {
    /// Its id in the core.
    pub id: PoolId,
    /// Its database in the core.
    pub database: DatabaseId,
    /// Its database, role and kind.
    pub name: PoolName,
    /// The parameters that its backends reported.
    pub parameters: Latest,
    /// A client has asked for `lastval` or `currval`: values of sequences are kept apart from then on.
    pub reads_sequences: AtomicBool,
    /// DISCARD ALL comes after each lease.
    pub resets_always: AtomicBool,
    /// Startup parameters that its server has taken.
    pub confirmed: Confirmed,
    /// Counters.
    pub stats: PoolStats,
    /// Index of the host that answered last.
    pub host: AtomicUsize,
    /// Whether a check of its server's role is under way.
    pub is_rechecking: AtomicBool,
    /// The server knows `transaction_timeout`; assumed until it says otherwise.
    pub takes_transaction_timeout: AtomicBool,
    /// Its server lets backends log in with `pgweir.intercept`; assumed until it says otherwise.
    pub takes_intercept: AtomicBool,
    epoch: AtomicU32,
    settings: ArcSwap<PoolSettings>,
    /// Where a topology sends its backends; `None`: to the hosts of the configuration.
    route: ArcSwapOption<Route>,
    credential: Mutex<Credential>,
    proof: Mutex<Option<PasswordProof>>,
    addresses: Mutex<HashSet<IpAddr>>,
    refusal: Mutex<Option<RefusedLogin>>,
    /// Uses by clients, and by connections outside the core that have its login.
    uses: Uses,
}

impl Pool {
    /// A pool that exists in the core already.
    pub fn new(
        id: PoolId,
        database: DatabaseId,
        name: PoolName,
        settings: PoolSettings,
        credential: Credential,
        stats: PoolStats,
    ) -> Self {
        Self {
            id,
            database,
            name,
            parameters: Latest::default(),
            reads_sequences: AtomicBool::new(false),
            resets_always: AtomicBool::new(settings.pool.reset == ResetWhen::Always),
            confirmed: Confirmed::default(),
            stats,
            host: AtomicUsize::new(0),
            is_rechecking: AtomicBool::new(false),
            takes_transaction_timeout: AtomicBool::new(true),
            takes_intercept: AtomicBool::new(true),
            epoch: AtomicU32::new(1),
            addresses: Mutex::default(),
            settings: ArcSwap::from_pointee(settings),
            route: ArcSwapOption::empty(),
            credential: Mutex::new(credential),
            proof: Mutex::default(),
            refusal: Mutex::default(),
            uses: Uses::default(),
        }
    }

    /// The key that keeps its prepared statements apart from those of other pools.
    pub fn key(&self) -> u64 {
        self.id.data().as_ffi()
    }

    /// Its backends serve one client each and are closed after it: replication.
    pub fn is_dedicated(&self) -> bool {
        self.name.is_dedicated()
    }

    /// Its present settings.
    pub fn settings(&self) -> arc_swap::Guard<Arc<PoolSettings>> {
        self.settings.load()
    }

    /// Changes its settings. Other timeouts, or another say of clients in them, begin an epoch.
    pub fn set_settings(&self, settings: PoolSettings) {
        let now = Limits::from(&settings);
        self.confirmed.forget();
        self.resets_always.store(settings.pool.reset == ResetWhen::Always, Ordering::Relaxed);
        let before = self.settings.swap(Arc::new(settings));
        if Limits::from(&*before) != now {
            self.epoch.fetch_add(1, Ordering::Release);
        }
    }

    /// Where a topology sends its backends, if one does.
    pub(crate) fn route(&self) -> Option<Arc<Route>> {
        self.route.load_full()
    }

    /// Has a topology say where its backends go, or no longer.
    pub(crate) fn set_route(&self, route: Option<Arc<Route>>) {
        self.route.store(route);
    }

    /// Its role's timeouts and what clients may do about them.
    pub fn limits(&self) -> Limits {
        Limits::from(&**self.settings())
    }

    /// Counts epochs, from 1.
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The credential with which its backends log in.
    pub fn credential(&self) -> Credential {
        self.credential.lock().expect("no panic while held").clone()
    }

    /// Uses another secret from the next dial on.
    pub fn set_credential(&self, credential: Credential) {
        *self.credential.lock().expect("no panic while held") = credential;
    }

    /// The server has accepted this password, at most `age_max` ago, and refused none since.
    pub fn is_proved(&self, password: &Secret, age_max: Duration) -> bool {
        self.proof().as_ref().is_some_and(|proof| proof.is_of(password) && proof.since.elapsed() <= age_max)
    }

    /// The server has accepted the pool's present password from a client, however long ago.
    pub fn has_proof(&self) -> bool {
        self.proof().is_some()
    }

    /// The server accepted this password.
    pub fn set_proof(&self, password: Secret, since: Instant) {
        *self.proof() = Some(PasswordProof::new(password, since));
    }

    /// The password, if it is time to try it again; that is then under way until [`Self::set_proof`],
    /// [`Self::forget_proof`] or [`Self::end_renewal`].
    pub(crate) fn begin_renewal(&self, age_max: Duration) -> Option<Secret> {
        self.proof().as_mut()?.begin_renewal(age_max, Instant::now())
    }

    /// The server could not be asked.
    pub(crate) fn end_renewal(&self) {
        if let Some(proof) = &mut *self.proof() {
            proof.is_renewing = false;
        }
    }

    /// The server took the password back: a client that comes with it has to prove it again. Returns whether it was
    /// this one, or any if it does not matter which.
    pub fn forget_proof(&self, password: Option<&Secret>) -> bool {
        self.proof().take_if(|proof| password.is_none_or(|password| proof.is_of(password))).is_some()
    }

    fn proof(&self) -> MutexGuard<'_, Option<PasswordProof>> {
        self.proof.lock().expect("no panic while held")
    }

    /// A backend was opened at this address.
    pub fn add_address(&self, addr: IpAddr) {
        self.addresses.lock().expect("no panic while held").insert(addr);
    }

    /// The addresses at which backends were opened since [`Self::forget_addresses`].
    pub fn addresses(&self) -> HashSet<IpAddr> {
        self.addresses.lock().expect("no panic while held").clone()
    }

    /// Forgets the addresses: all backends are being replaced.
    pub fn forget_addresses(&self) {
        self.addresses.lock().expect("no panic while held").clear();
    }

    /// The server's reason for refusing the last login, if it did.
    pub fn refusal(&self) -> Option<RefusedLogin> {
        self.refusal.lock().expect("no panic while held").clone()
    }

    /// Remembers the outcome of a login.
    pub fn set_refusal(&self, refusal: Option<RefusedLogin>) {
        *self.refusal.lock().expect("no panic while held") = refusal;
    }
}

impl CountUses for Pool {
    fn uses(&self) -> &Uses {
        &self.uses
    }
}
