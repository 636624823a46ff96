//! Starts and ends the monitors: one for each database of the configuration that has a topology, and for those under
//! `"*"` once a client has asked for one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::monitor::TopologyMonitor;
use super::source::SourceSettings;
use crate::config::Config;
use crate::pool::directory::Directory;
use crate::pool::lease::Pools;

/// How often to look for databases that have appeared or gone.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The monitor of each database that has a topology, by its name as clients ask for it.
#[derive(Debug, Default)]
pub(crate) struct Topologies(Mutex<BTreeMap<Arc<str>, Arc<TopologyMonitor>>>);

impl Topologies {
    pub(crate) fn all(&self) -> Vec<Arc<TopologyMonitor>> {
        self.monitors().values().cloned().collect()
    }

    /// The monitor of one database.
    pub(crate) fn of(&self, database: &str) -> Option<Arc<TopologyMonitor>> {
        self.monitors().get(database).cloned()
    }

    fn monitors(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<TopologyMonitor>>> {
        self.0.lock().expect("no panic while held")
    }
}

/// A source at work.
struct Running {
    settings: SourceSettings,
    task: JoinHandle<()>,
}

/// Everything that supervision needs, and the worker on whose thread it runs.
#[derive(Debug)]
pub(crate) struct Supervised {
    pub(crate) config: Arc<ArcSwap<Config>>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) pools: Arc<Pools>,
    pub(crate) topologies: Arc<Topologies>,
    pub(crate) worker: usize,
}

/// Keeps monitors as the configuration wants them, until it is dropped.
pub(crate) async fn supervise(of: Supervised) {
    let mut running: BTreeMap<Arc<str>, Running> = BTreeMap::new();
    loop {
        let wanted = of.wanted();
        let is_stale =
            |(name, it): (&Arc<str>, &Running)| (wanted.get(name) != Some(&it.settings)).then(|| Arc::clone(name));
        let stale: Vec<_> = running.iter().filter_map(is_stale).collect();
        for name in stale {
            if let Some(ended) = running.remove(&name) {
                ended.task.abort();
                of.topologies.monitors().remove(&name);
                if !wanted.contains_key(&name) {
                    of.directory.end_route(of.worker, &name);
                }
            }
        }
        for (name, settings) in wanted {
            running.entry(Arc::clone(&name)).or_insert_with(|| of.start(name, settings));
        }
        sleep(LOOK_EVERY).await;
    }
}

impl Supervised {
    fn wanted(&self) -> BTreeMap<Arc<str>, SourceSettings> {
        let config = self.config.load();
        let named = config.databases.keys().filter(|name| *name != "*").map(|name| Arc::from(name.as_str()));
        let known = self.directory.all_databases().into_iter().map(|(name, _)| name);
        let settings = |name: Arc<str>| {
            let settings = SourceSettings::of(&name, config.database(&name)?, config.watch_login(&name))?;
            Some((name, settings))
        };
        named.chain(known).filter_map(settings).collect()
    }

    fn start(&self, name: Arc<str>, settings: SourceSettings) -> Running {
        let directory = Arc::clone(&self.directory);
        let monitor = Arc::new(TopologyMonitor::new(
            Arc::clone(&name),
            settings.source,
            settings.readers.as_ref(),
            directory,
            self.worker,
        ));
        self.topologies.monitors().insert(name, Arc::clone(&monitor));
        let task = tokio::task::spawn_local(settings.start(&self.pools).run(monitor));
        Running { settings, task }
    }
}
