//! The watch of one database, as the rest of the process sees it: its core, its counters, and what it is asked for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::core::WatchCore;
use super::finding::Finding;
use super::incidents::IncidentChange;
use super::settings::WatchSettings;
use super::stats::WatchStats;

/// The watch of one database.
#[derive(Debug)]
pub struct Monitor {
    /// As clients ask for it.
    pub database: Arc<str>,
    /// Counters of findings and of the cost of questions.
    pub stats: WatchStats,
    core: Mutex<WatchCore>,
    /// Something else is to be asked now.
    pub(super) wake: Notify,
    /// Relations that the watch of another database wants to be named.
    pub(super) unnamed: Mutex<BTreeSet<u32>>,
}

impl Monitor {
    /// Not connected yet.
    pub fn new(database: Arc<str>, settings: WatchSettings, offset: f64, now: Instant) -> Self {
        Self {
            database,
            stats: WatchStats::default(),
            core: Mutex::new(WatchCore::new(settings, offset, now)),
            wake: Notify::new(),
            unnamed: Mutex::default(),
        }
    }

    /// The core, locked.
    pub fn core(&self) -> MutexGuard<'_, WatchCore> {
        self.core.lock().expect("no panic while held")
    }

    /// It has a connection, and what `core` knows is of this moment.
    pub fn is_up(&self, core: &WatchCore) -> bool {
        self.stats.is_connected() && core.server().is_some() && !core.is_silent()
    }

    /// Ends what is open: nobody watches any more.
    pub(crate) fn end(&self) {
        for change in self.core().end(Instant::now()) {
            if let IncidentChange::Closed(finding, lasted) = change {
                close(&self.database, &finding, lasted, "no longer watched");
            }
        }
    }

    /// Has relations of its database named for the watch that asks for the server.
    pub(super) fn name(&self, relations: BTreeSet<u32>) {
        self.unnamed.lock().expect("no panic while held").extend(relations);
        self.wake.notify_one();
    }
}

/// Records the end of a finding.
pub(super) fn close(database: &str, finding: &Finding, lasted: Duration, why: &str) {
    let Finding { kind, what, culprit, .. } = finding;
    let culprit = culprit.as_ref().map(tracing::field::display);
    tracing::info!(database, kind = kind.word(), culprit, ?lasted, "{why}: {what}");
}
