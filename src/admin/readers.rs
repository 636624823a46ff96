//! The readers of databases: the servers as their topology sees them, with their backends as the pools know them.

use std::sync::Arc;

use crate::pool::core::{ReaderDuty, ReaderState, ReaderView};
use crate::proxy::Proxy;
use crate::topology::core::{LagState, ReaderLag};
use crate::topology::monitor::{SeenReader, TopologyMonitor};

/// One reader, or a server that was one and still has backends.
pub(super) struct ReaderFacts {
    pub(super) database: Arc<str>,
    /// As the topology names it.
    pub(super) host: String,
    /// What it is for; `None`: nothing any more.
    duty: Option<ReaderDuty>,
    /// `None`: nobody has asked for the database so far.
    view: Option<ReaderView>,
    pub(super) lag: Option<ReaderLag>,
    failure: Option<Arc<str>>,
}

/// The readers of all databases.
pub(super) fn all(proxy: &Proxy) -> Vec<ReaderFacts> {
    proxy.topologies.all().iter().flat_map(|monitor| of(proxy, monitor)).collect()
}

fn of(proxy: &Proxy, monitor: &TopologyMonitor) -> Vec<ReaderFacts> {
    let Some(seen) = monitor.readers() else { return Vec::new() };
    let database = &monitor.database;
    let mut views = proxy.directory.readers(database);
    let known = |SeenReader { spec, lag, failure }: SeenReader| {
        let place = views.iter().position(|view| *view.target == spec.target);
        let view = place.map(|place| views.remove(place));
        let host = spec.target.to_string();
        ReaderFacts { database: Arc::clone(database), host, duty: Some(spec.duty), view, lag, failure }
    };
    let mut facts: Vec<_> = seen.into_iter().map(known).collect();
    facts.extend(views.into_iter().map(|view| ReaderFacts {
        database: Arc::clone(database),
        host: view.target.to_string(),
        duty: None,
        view: Some(view),
        lag: None,
        failure: None,
    }));
    facts
}

impl ReaderFacts {
    /// As the pools use it; before they know it, as they will.
    pub(super) fn state(&self) -> ReaderState {
        match (&self.view, self.duty) {
            (Some(view), _) => view.state,
            (None, Some(ReaderDuty::Reads)) => ReaderState::Entering,
            (None, Some(ReaderDuty::StandsIn)) => ReaderState::Spare,
            (None, Some(ReaderDuty::Drains) | None) => ReaderState::Draining,
        }
    }

    /// Clients are sent to it.
    pub(super) fn is_used(&self) -> bool {
        matches!(self.state(), ReaderState::Used | ReaderState::Entering)
    }

    /// Backends that are with clients.
    pub(super) fn active(&self) -> u32 {
        self.view.as_ref().map_or(0, |view| view.counts.leased + view.counts.handed)
    }

    pub(super) fn backends(&self) -> u32 {
        self.view.as_ref().map_or(0, |view| view.counts.open())
    }

    /// How often a client got a backend of it.
    pub(super) fn leases(&self) -> u64 {
        self.view.as_ref().map_or(0, |view| view.leases)
    }

    /// Why it is not used, or may soon not be.
    pub(super) fn reason(&self) -> Option<String> {
        match (&self.failure, self.duty, self.lag.map(|lag| lag.state)) {
            (Some(failure), ..) => Some(failure.to_string()),
            (_, _, Some(LagState::TooFar)) => Some("further behind than lag_max".to_owned()),
            (_, _, Some(LagState::Warned)) => Some("further behind than lag_warn".to_owned()),
            (_, Some(ReaderDuty::StandsIn), _) => Some("the primary".to_owned()),
            (_, Some(ReaderDuty::Drains), _) => Some("one of several that say they are the primary".to_owned()),
            (_, None, _) => Some("no longer a reader".to_owned()),
            (_, Some(ReaderDuty::Reads), _) => {
                (self.state() == ReaderState::Down).then(|| "no backend could be opened; the log says why".to_owned())
            }
        }
    }
}
