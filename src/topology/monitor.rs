//! One database with a topology: its core behind a lock, and the way of each decision to the pools.
//!
//! Sources call it. It runs on the thread of one worker, because pools dial and close there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::core::{
    Doubt, LagState, MemberState, Observation, ReaderCore, ReaderLag, ReaderSettings, SeenRole, TopologyChange,
    TopologyCore,
};
use crate::config::TopologySource;
use crate::pool::core::{ReaderDuty, ReaderSpec, ReaderState};
use crate::pool::directory::Directory;
use crate::pool::host_port::{HostPort, ServerTarget};
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
    /// Where the database is read from several servers.
    readers: Option<ReaderCore>,
    /// The readers as the pools know them.
    told: Vec<ReaderSpec>,
    /// Since when the verdict is what it is.
    since: Instant,
}

impl MonitorState {
    /// Nobody waits for the next look.
    fn is_settled(&self) -> bool {
        match self.readers {
            None => self.core.verdict().is_ok(),
            Some(_) => self.told.iter().any(|spec| spec.duty == ReaderDuty::Reads),
        }
    }
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
    /// The use of each, where the database is read from several servers.
    pub(crate) readers: Option<Vec<ReaderSpec>>,
}

/// A server of a database that is read from several, as the topology sees it.
#[derive(Debug, Clone)]
pub(crate) struct SeenReader {
    pub(crate) spec: ReaderSpec,
    /// As of its last answer as a standby.
    pub(crate) lag: Option<ReaderLag>,
    /// Why it could not be asked.
    pub(crate) failure: Option<Arc<str>>,
}

impl TopologyMonitor {
    /// Clients of the database wait from now on until a server has proved its role.
    pub(super) fn new(
        database: Arc<str>,
        source: TopologySource,
        readers: Option<&ReaderSettings>,
        directory: Arc<Directory>,
        worker: usize,
    ) -> Self {
        let (route, told, readers) = match readers {
            None => (directory.begin_route(worker, &database), Vec::new(), None),
            Some(of) => {
                let (route, told) = directory.begin_readers(worker, &database, of.rules);
                let readers = ReaderCore::new(of.limits.clone(), told.clone());
                (route, told, Some(readers))
            }
        };
        let state = Mutex::new(MonitorState { core: TopologyCore::default(), readers, told, since: Instant::now() });
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
            readers: state.readers.is_some().then(|| state.told.clone()),
        }
    }

    /// The servers that the database is read from; `None`: it is not read from several.
    pub(crate) fn readers(&self) -> Option<Vec<SeenReader>> {
        let state = self.state();
        let of = state.readers.as_ref()?;
        let seen = |spec: &ReaderSpec| {
            // A server that was found by a name is known by its address.
            let ServerTarget { host, address } = &spec.target;
            let known = address.map_or_else(|| host.clone(), |it| HostPort { host: it.to_string(), port: host.port });
            let failure = match state.core.members().get(&known) {
                Some(MemberState::Failed(reason)) => Some(Arc::clone(reason)),
                _ => None,
            };
            SeenReader { spec: spec.clone(), lag: of.lag(&known), failure }
        };
        Some(state.told.iter().map(seen).collect())
    }

    /// Readers that could not be dialled.
    pub(super) fn down_readers(&self) -> Vec<ServerTarget> {
        let views = self.directory.readers(&self.database).into_iter();
        views.filter(|view| view.state == ReaderState::Down).map(|view| (*view.target).clone()).collect()
    }

    /// A reader answered beside the pools.
    pub(super) fn reached(&self, target: &ServerTarget) {
        self.directory.reader_reached(self.worker, &self.database, target);
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
        let is_settled = self.state().is_settled();
        let pause = if is_settled { LOOK_EVERY } else { SEARCH_EVERY };
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
        let change = self.change(|core| core.observed(host, observation.clone()));
        self.note_lag(host, &observation);
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

    /// A server of several that are read from has answered.
    fn note_lag(&self, host: &HostPort, observation: &Observation) {
        let mut state = self.state();
        let MonitorState { core, readers: Some(readers), .. } = &mut *state else { return };
        let changed = readers.observed(host, observation, core, Instant::now());
        let lag = readers.lag(host).and_then(|known| known.lag);
        drop(state);
        let database = &self.database;
        match changed {
            Some(LagState::TooFar) => {
                tracing::warn!(%database, reader = %host, ?lag, "a reader is further behind than lag_max: it gets nothing");
            }
            Some(LagState::Warned) => tracing::warn!(%database, reader = %host, ?lag, "a reader is behind"),
            Some(LagState::Fine) => tracing::info!(%database, reader = %host, ?lag, "a reader has caught up"),
            None => {}
        }
        if observation.role != SeenRole::Unasked {
            // Whether it takes connections is more than that it has an address.
            self.reached(&ServerTarget { host: host.clone(), address: None });
        }
    }

    fn apply(&self, change: TopologyChange) {
        let is_read = self.tell_readers();
        match change {
            TopologyChange::None => {}
            TopologyChange::Proved { host, epoch } => {
                tracing::info!(database = %self.database, primary = %host, ?epoch, "the primary is known");
                if !is_read {
                    self.directory.prove(self.worker, &self.database, host, epoch);
                }
                self.proved.notify_waiters();
            }
            TopologyChange::Doubted(doubt) if is_read => {
                tracing::info!(database = %self.database, %doubt, "no primary is known");
            }
            TopologyChange::Doubted(doubt) => {
                tracing::warn!(database = %self.database, %doubt, "no primary is known: clients wait");
                self.directory.unprove(self.worker, &self.database);
            }
        }
    }

    /// Tells the pools which servers are read from, where that has changed. True if the database is read from several.
    fn tell_readers(&self) -> bool {
        let mut state = self.state();
        let MonitorState { core, readers: Some(readers), told, .. } = &mut *state else { return false };
        let specs = readers.specs(core);
        if specs != *told {
            for spec in specs.iter().filter(|spec| !told.contains(spec)) {
                tracing::info!(database = %self.database, server = %spec.target, duty = spec.duty.word(), "a reader");
            }
            told.clone_from(&specs);
            drop(state);
            self.directory.set_readers(self.worker, &self.database, specs);
        }
        true
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
