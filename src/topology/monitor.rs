//! One database with a topology: its core behind a lock, and the way of each decision to the pools.
//!
//! Sources call it. It runs on the thread of one worker, because pools dial and close there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::core::{Doubt, MemberState, Observation, TopologyChange, TopologyCore};
use crate::config::TopologySource;
use crate::pool::directory::Directory;
use crate::pool::host_port::HostPort;
use crate::pool::route::Route;

/// How often servers are asked while a primary is known.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often they are asked while clients wait for one.
const SEARCH_EVERY: Duration = Duration::from_millis(200);

/// The topology of one database.
#[derive(Debug)]
pub(crate) struct TopologyMonitor {
    pub(crate) database: Arc<str>,
    pub(crate) source: TopologySource,
    directory: Arc<Directory>,
    route: Arc<Route>,
    worker: usize,
    state: Mutex<MonitorState>,
    /// Becomes notified with each primary that is proved.
    proved: Notify,
}

#[derive(Debug)]
struct MonitorState {
    core: TopologyCore,
    /// Since when the verdict is what it is.
    since: Instant,
}

/// What the console shows.
#[derive(Debug, Clone)]
pub(crate) struct TopologyView {
    pub(crate) members: Vec<(HostPort, MemberState)>,
    /// The primary, or why there is none.
    pub(crate) verdict: Result<HostPort, Doubt>,
    /// Time since the verdict became what it is.
    pub(crate) age: Duration,
    /// Counts the primaries that were proved.
    pub(crate) epoch: u64,
}

impl TopologyMonitor {
    /// Clients of the database wait from now on until a server has proved its role.
    pub(super) fn new(database: Arc<str>, source: TopologySource, directory: Arc<Directory>, worker: usize) -> Self {
        let route = directory.begin_route(worker, &database);
        let state = Mutex::new(MonitorState { core: TopologyCore::default(), since: Instant::now() });
        Self { database, source, directory, route, worker, state, proved: Notify::new() }
    }

    /// The cluster at this moment.
    pub(crate) fn view(&self) -> TopologyView {
        let state = self.state();
        TopologyView {
            members: state.core.members().iter().map(|(host, seen)| (host.clone(), seen.clone())).collect(),
            verdict: state.core.verdict().map(|primary| primary.host.clone()).map_err(Clone::clone),
            age: state.since.elapsed(),
            epoch: state.core.epoch(),
        }
    }

    /// Waits until another primary is proved than that of `epoch`, or until `deadline`. True if one is.
    pub(crate) async fn primary_after(&self, epoch: u64, deadline: Instant) -> bool {
        loop {
            let proved = self.proved.notified();
            if self.is_proved_after(epoch) {
                return true;
            }
            tokio::select! {
                () = proved => {}
                () = sleep_until(deadline) => return self.is_proved_after(epoch),
            }
        }
    }

    fn is_proved_after(&self, epoch: u64) -> bool {
        let state = self.state();
        state.core.epoch() > epoch && state.core.verdict().is_ok()
    }

    /// An operator vouches for the servers as they are.
    pub(crate) fn forget(&self) {
        let change = self.change(TopologyCore::forget);
        self.apply(change);
        self.route.doubt();
    }

    /// Waits for the time of the next look at a server: soon, where somebody doubts it or clients wait.
    pub(super) async fn next_look(&self) {
        let is_proved = self.state().core.verdict().is_ok();
        let pause = if is_proved { LOOK_EVERY } else { SEARCH_EVERY };
        tokio::select! {
            () = sleep(pause) => {}
            // Many may doubt at once, for as long as it takes to see what is the matter.
            () = self.route.doubted() => sleep(SEARCH_EVERY / 10).await,
        }
    }

    /// These are the servers.
    pub(super) fn members(&self, members: &BTreeSet<HostPort>) {
        let change = self.change(|core| core.set_members(members));
        self.apply(change);
    }

    /// A server said this.
    pub(super) fn observed(&self, host: &HostPort, observation: Observation) {
        let change = self.change(|core| core.observed(host, observation));
        self.apply(change);
    }

    /// A server could not be asked.
    pub(super) fn failed(&self, host: &HostPort, reason: &str) {
        let change = self.change(|core| core.failed(host, reason.into()));
        self.apply(change);
    }

    fn change(&self, change: impl FnOnce(&mut TopologyCore) -> TopologyChange) -> TopologyChange {
        let mut state = self.state();
        let change = change(&mut state.core);
        if change != TopologyChange::None {
            state.since = Instant::now();
        }
        change
    }

    fn apply(&self, change: TopologyChange) {
        match change {
            TopologyChange::None => {}
            TopologyChange::Proved { host, epoch } => {
                tracing::info!(database = %self.database, primary = %host, ?epoch, "the primary is known");
                self.directory.prove(self.worker, &self.database, host, epoch);
                self.proved.notify_waiters();
            }
            TopologyChange::Doubted(doubt) => {
                tracing::warn!(database = %self.database, %doubt, "no primary is known: clients wait");
                self.directory.unprove(self.worker, &self.database);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, MonitorState> {
        self.state.lock().expect("no panic while held")
    }
}

/// Has `future` for at most `limit`; its error, or that of the limit, as words.
pub(super) async fn within<T, E: ToString>(
    limit: Duration,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(limit, future).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}
