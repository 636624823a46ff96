//! One logged-in connection to Postgres, with the state of the session behind it as far as pgweir knows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::address::ServerAddress;
use super::clock::Clock;
use super::pool::Pool;
use crate::config::Timeouts;
use crate::net::stream::Stream;
use crate::state::parameters::Parameters;
use crate::state::settings::{Settings, SettingsRegistry};
use crate::state::statements::PreparedStatements;
use crate::state::timeout::Timeout;

/// A backend between leases, or with the client that leases it.
#[derive(Debug)]
pub struct Backend {
    pub stream: Stream,
    /// The parameters that the server reported at login.
    pub parameters: Parameters,
    /// Settings of a client that it still has, and of its role if they changed since it logged in.
    pub applied: Settings,
    /// The role's timeouts with which it logged in.
    pub epoch: Epoch,
    /// Clients that may have got values from sequences in its session.
    pub sequences: SequenceUser,
    /// Statements of clients that it has.
    pub statements: PreparedStatements,
    /// The session has state that we cannot undo exactly: DISCARD ALL comes before anybody else.
    pub is_dirty: bool,
    /// The target of a CancelRequest.
    pub target: Arc<BackendHandle>,
    /// Worker whose reactor has the socket.
    pub worker: usize,
    /// Until this time after its release the reactor is trusted to have seen whether it closed.
    pub fresh_until: Instant,
    /// When it logged in.
    pub connected: SystemTime,
}

/// Clients that may have got values from sequences in a session, by the process ids they were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceUser {
    None,
    One(i32),
    Several,
}

/// The clients that used a backend before the one that begins to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// None since its login.
    First,
    /// The same one.
    GoesOn,
    BehindOthers,
}

impl Backend {
    /// A backend fresh from its login.
    pub fn new(
        stream: Stream,
        parameters: Parameters,
        none: Settings,
        epoch: Epoch,
        target: BackendHandle,
        worker: usize,
    ) -> Self {
        Self {
            stream,
            parameters,
            applied: none,
            epoch,
            sequences: SequenceUser::None,
            statements: PreparedStatements::default(),
            is_dirty: false,
            target: Arc::new(target),
            worker,
            fresh_until: Instant::now(),
            connected: SystemTime::now(),
        }
    }

    /// A client begins to use it.
    #[inline]
    pub fn begin_use(&mut self, client: i32) -> Use {
        match self.sequences {
            SequenceUser::One(known) if known == client => Use::GoesOn,
            SequenceUser::None => {
                self.sequences = SequenceUser::One(client);
                Use::First
            }
            SequenceUser::One(_) | SequenceUser::Several => {
                self.sequences = SequenceUser::Several;
                Use::BehindOthers
            }
        }
    }

    /// Resets the record to a fresh login: DISCARD ALL is done.
    pub fn forget_session(&mut self, none: Settings) {
        self.applied = none;
        self.is_dirty = false;
        self.statements.clear();
        self.sequences = SequenceUser::None;
        self.target.clock.clear();
    }

    /// The settings it must have for a client with these: its role's timeouts are among them if they changed since it
    /// logged in.
    pub fn wanted(&mut self, own: &Settings, pool: &Pool, registry: &SettingsRegistry) -> Settings {
        let current = pool.epoch();
        // Replication takes no SET.
        if self.epoch.number == current || pool.is_dedicated() {
            return own.clone();
        }
        let takes_transaction = self.takes_transaction_timeout();
        let Epoch { number, timeouts, overlaid } = &mut self.epoch;
        if let Some((epoch, known, wanted)) = overlaid
            && *epoch == current
            && known.is_same(own)
        {
            return wanted.clone();
        }
        let now = pool.settings().timeouts;
        if now == *timeouts {
            *number = current;
            return own.clone();
        }
        let lacks = |timeout: &Timeout| {
            timeout.limit(&now) != timeout.limit(timeouts)
                && !own.values().contains_key(timeout.setting())
                && (*timeout != Timeout::Transaction || takes_transaction)
        };
        let lacking =
            Timeout::ALL.into_iter().filter(lacks).filter_map(|timeout| Some((timeout, timeout.limit(&now)?)));
        let mut values = own.values().clone();
        values.extend(lacking.map(|(timeout, limit)| (timeout.setting().to_owned(), Timeout::value(limit))));
        let wanted = registry.intern(values);
        *overlaid = Some((current, own.clone(), wanted.clone()));
        wanted
    }

    /// Whether its role's timeouts changed since it logged in and nobody has used it for a while: it is to be replaced,
    /// so that RESET comes back to the values in force.
    pub fn is_outdated(&self, pool: &Pool, now: Instant) -> bool {
        self.epoch.number != pool.epoch()
            && now >= self.fresh_until + OUTDATED_AFTER
            && self.epoch.timeouts != pool.settings().timeouts
    }

    /// Its server has the setting: Postgres 17 and later.
    fn takes_transaction_timeout(&self) -> bool {
        let version = self.parameters.value("server_version").unwrap_or_default();
        let major = version.split(|c: char| !c.is_ascii_digit()).next().and_then(|major| major.parse::<u32>().ok());
        major.is_some_and(|major| major >= TRANSACTION_TIMEOUT_SINCE)
    }
}

/// A backend with outdated timeouts is closed when it has been idle for so long.
const OUTDATED_AFTER: Duration = Duration::from_secs(1);

/// The first version of Postgres with `transaction_timeout`.
const TRANSACTION_TIMEOUT_SINCE: u32 = 17;

/// The timeouts of a role as they were when a backend logged in.
#[derive(Debug)]
pub struct Epoch {
    number: u32,
    timeouts: Timeouts,
    /// In this later epoch, the settings that clients with those settings want of this backend: nearly always the same
    /// as the last time.
    overlaid: Option<(u32, Settings, Settings)>,
}

impl Epoch {
    /// Of a backend of `pool` that logged in with these.
    pub fn new(pool: &Pool, timeouts: Timeouts) -> Self {
        // In this order: a number that is too old does no harm.
        let number = pool.epoch();
        let is_current = pool.settings().timeouts == timeouts;
        Self { number: if is_current { number } else { 0 }, timeouts, overlaid: None }
    }

    /// Counts changes of the role's timeouts.
    #[inline]
    pub fn number(&self) -> u32 {
        self.number
    }
}

/// Where and with which key a backend's query is cancelled.
#[derive(Debug)]
pub struct BackendHandle {
    /// The very server, not its name: a name may lead elsewhere by now.
    pub address: ServerAddress,
    /// Process id and secret of BackendKeyData; `None` from servers that send none (RDS Proxy).
    pub key: Option<(i32, Vec<u8>)>,
    /// Its current activity, and since when.
    pub clock: Clock,
    in_flight: AtomicU32,
    settled: Notify,
}

impl BackendHandle {
    /// For a backend at `address`.
    pub fn new(address: ServerAddress, key: Option<(i32, Vec<u8>)>) -> Self {
        Self { address, key, clock: Clock::default(), in_flight: AtomicU32::new(0), settled: Notify::new() }
    }

    /// Process id of its BackendKeyData.
    pub fn pid(&self) -> Option<i32> {
        self.key.as_ref().map(|(pid, _)| *pid)
    }

    /// Marks a cancel as under way until the guard is dropped. Must be called while the client is known to hold the
    /// backend.
    pub fn aim(self: &Arc<Self>) -> CancelGuard {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        CancelGuard(Arc::clone(self))
    }

    /// Whether a cancel is under way that may hit the present user of the backend.
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
pub struct CancelGuard(Arc<BackendHandle>);

impl CancelGuard {
    pub fn target(&self) -> &BackendHandle {
        &self.0
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.settled.notify_waiters();
        }
    }
}
