//! One pool as the shell knows it: whose it is, how it is set up, what its backends told.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use slotmap::Key;

use super::core::{DatabaseId, PoolId};
use crate::auth::Credential;
use crate::config::PoolSettings;
use crate::error::ServerError;
use crate::metrics::PoolStats;
use crate::state::parameters::Latest;

/// What makes two clients share backends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolName {
    /// Database as clients ask for it.
    pub database: Arc<str>,
    /// Role as clients name it.
    pub role: Arc<str>,
    /// Startup parameters of a replication connection, which has its backend for itself.
    pub replication: Option<Arc<[(String, String)]>>,
}

/// The backends of one role in one database.
#[derive(Debug)]
pub struct Pool {
    /// In the core.
    pub id: PoolId,
    /// Its database in the core.
    pub database: DatabaseId,
    /// Whose it is.
    pub name: PoolName,
    /// What its backends reported.
    pub parameters: Latest,
    /// Counters.
    pub stats: PoolStats,
    /// Which of its hosts answered last.
    pub host: AtomicUsize,
    /// Somebody is asking what its server is.
    pub is_doubted: AtomicBool,
    /// The server knows `transaction_timeout`; assumed until it says otherwise.
    pub takes_transaction_timeout: AtomicBool,
    settings: ArcSwap<PoolSettings>,
    credential: Mutex<Credential>,
    proved: Mutex<Option<Credential>>,
    addresses: Mutex<HashSet<IpAddr>>,
    refusal: Mutex<Option<ServerError>>,
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
            stats,
            host: AtomicUsize::new(0),
            is_doubted: AtomicBool::new(false),
            takes_transaction_timeout: AtomicBool::new(true),
            addresses: Mutex::default(),
            settings: ArcSwap::from_pointee(settings),
            credential: Mutex::new(credential),
            proved: Mutex::default(),
            refusal: Mutex::default(),
        }
    }

    /// Tells its prepared statements from those of other pools.
    pub fn key(&self) -> u64 {
        self.id.data().as_ffi()
    }

    /// Its backends serve one client each and are closed after it: replication.
    pub fn is_dedicated(&self) -> bool {
        self.name.replication.is_some()
    }

    /// How it is set up now.
    pub fn settings(&self) -> arc_swap::Guard<Arc<PoolSettings>> {
        self.settings.load()
    }

    /// Sets it up anew.
    pub fn set_settings(&self, settings: PoolSettings) {
        self.settings.store(Arc::new(settings));
    }

    /// With what its backends log in.
    pub fn credential(&self) -> Credential {
        self.credential.lock().expect("no panic while held").clone()
    }

    /// Uses another secret from the next dial on.
    pub fn set_credential(&self, credential: Credential) {
        *self.credential.lock().expect("no panic while held") = credential;
    }

    /// Backends of this pool have opened with exactly this.
    pub fn is_proved(&self, credential: &Credential) -> bool {
        *self.proved.lock().expect("no panic while held") == Some(credential.clone())
    }

    /// A backend opened with this: it is the pool's from now on.
    pub fn prove(&self, credential: Credential) {
        *self.proved.lock().expect("no panic while held") = Some(credential.clone());
        self.set_credential(credential);
    }

    /// A backend was opened there.
    pub fn add_address(&self, addr: IpAddr) {
        self.addresses.lock().expect("no panic while held").insert(addr);
    }

    /// Where backends were opened since [`Self::forget_addresses`].
    pub fn addresses(&self) -> HashSet<IpAddr> {
        self.addresses.lock().expect("no panic while held").clone()
    }

    /// All backends are being replaced.
    pub fn forget_addresses(&self) {
        self.addresses.lock().expect("no panic while held").clear();
    }

    /// Why the server refused the last login, if it did.
    pub fn refusal(&self) -> Option<ServerError> {
        self.refusal.lock().expect("no panic while held").clone()
    }

    /// Remembers the outcome of a login.
    pub fn set_refusal(&self, refusal: Option<ServerError>) {
        *self.refusal.lock().expect("no panic while held") = refusal;
    }
}
