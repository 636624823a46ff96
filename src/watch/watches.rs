//! The watches of all databases that are watched, for the views that show their findings.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::monitor::Monitor;

/// One [`Monitor`] for each database, by its name as clients ask for it.
#[derive(Debug, Default)]
pub(crate) struct Watches(Mutex<BTreeMap<Arc<str>, Arc<Monitor>>>);

impl Watches {
    pub(crate) fn all(&self) -> Vec<Arc<Monitor>> {
        self.monitors().values().map(Arc::clone).collect()
    }

    /// A watch of this database has a connection, and answers on it.
    pub(crate) fn is_up(&self, database: &str) -> bool {
        let monitor = self.monitors().get(database).map(Arc::clone);
        monitor.is_some_and(|monitor| monitor.is_up(&monitor.core()))
    }

    /// Its database is watched from now on.
    pub(crate) fn add(&self, monitor: Arc<Monitor>) {
        self.monitors().insert(Arc::clone(&monitor.database), monitor);
    }

    /// Nobody watches this database any more.
    pub(crate) fn remove(&self, database: &str) {
        self.monitors().remove(database);
    }

    fn monitors(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Monitor>>> {
        self.0.lock().expect("no panic while held")
    }
}
