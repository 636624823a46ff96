//! One logged-in connection to Postgres and what pgweir knows about the session behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use lru::LruCache;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::clock::Clock;
use super::open::Address;
use crate::net::stream::Stream;
use crate::state::parameters::Parameters;
use crate::state::settings::Settings;

/// A backend between leases, or with the client that leases it.
#[derive(Debug)]
pub struct Backend {
    /// The connection.
    pub stream: Stream,
    /// What it reported at login.
    pub parameters: Parameters,
    /// Settings of a client that it still has.
    pub applied: Settings,
    /// Ids of the shared statements it has, the one used longest ago first to go.
    pub statements: LruCache<u32, ()>,
    /// Statements it has that must be parsed afresh: closed in front of the next cycle.
    pub stale: Vec<u32>,
    /// State we cannot undo exactly: DISCARD ALL comes before anybody else.
    pub is_soiled: bool,
    /// Where a CancelRequest goes.
    pub target: Arc<Target>,
    /// Worker whose reactor has the socket.
    pub worker: usize,
    /// Until then after its release the reactor is trusted to have seen whether it closed.
    pub fresh_until: Instant,
    /// When it logged in.
    pub connected: SystemTime,
}

impl Backend {
    /// A backend fresh from its login.
    pub fn new(stream: Stream, parameters: Parameters, none: Settings, target: Target, worker: usize) -> Self {
        Self {
            stream,
            parameters,
            applied: none,
            // Unbounded: who adds a statement also sends the Close of the one that makes room, and the bound may change.
            statements: LruCache::unbounded(),
            stale: Vec::new(),
            is_soiled: false,
            target: Arc::new(target),
            worker,
            fresh_until: Instant::now(),
            connected: SystemTime::now(),
        }
    }
}

/// Where and with which key a backend's query is cancelled.
#[derive(Debug)]
pub struct Target {
    /// The very server, not its name: a name may lead elsewhere by now.
    pub address: Address,
    /// Process id and secret of BackendKeyData; `None` from servers that send none (RDS Proxy).
    pub key: Option<(i32, Vec<u8>)>,
    /// What it is at.
    pub clock: Clock,
    in_flight: AtomicU32,
    settled: Notify,
}

impl Target {
    /// For a backend at `address`.
    pub fn new(address: Address, key: Option<(i32, Vec<u8>)>) -> Self {
        Self { address, key, clock: Clock::default(), in_flight: AtomicU32::new(0), settled: Notify::new() }
    }

    /// Marks a cancel as under way until the guard is dropped. Must be called while the client is known to hold the backend.
    pub fn aim(self: &Arc<Self>) -> Aim {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        Aim(Arc::clone(self))
    }

    /// A cancel is under way that may hit whoever uses the backend.
    #[inline]
    pub fn is_aimed_at(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    /// Waits until no cancel is under way.
    pub async fn settle(&self) {
        loop {
            let settled = self.settled.notified();
            if !self.is_aimed_at() {
                return;
            }
            settled.await;
        }
    }
}

/// A cancel under way.
#[derive(Debug)]
#[must_use = "the backend is held back until this is dropped"]
pub struct Aim(Arc<Target>);

impl Aim {
    /// At what.
    pub fn target(&self) -> &Target {
        &self.0
    }
}

impl Drop for Aim {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.settled.notify_waiters();
        }
    }
}
