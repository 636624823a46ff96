//! PAUSE.

use super::{resume, targets};
use crate::admin::command::{ActionWait, ConsoleCommand, FollowUp};
use crate::admin::words::CommandArguments;
use crate::error::ConsoleFault;
use crate::pool::core::DatabaseId;
use crate::proxy::Proxy;
use crate::session::context::Worker;

/// Of one database, or of all.
#[derive(Debug)]
pub(super) struct Pause(Option<String>);

impl ConsoleCommand for Pause {
    const TAG: &'static str = "PAUSE";
    const USAGE: &'static [(&'static str, &'static str)] =
        &[("PAUSE [db]", "stop leases, wait until all backends are closed; clients wait")];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        arguments.name_or_all().map(Self)
    }

    fn run(&self, worker: &Worker) -> Result<FollowUp, ConsoleFault> {
        let databases = pause(worker, self.0.as_deref())?;
        let (waited, is_all) = (databases.clone(), self.0.is_none());
        Ok(FollowUp::Wait(ActionWait {
            pending: Box::new(move |proxy| match open_backends(proxy, &waited) {
                0 => None,
                open => Some(format!("{open} backends are still open; each is closed when its transaction ends")),
            }),
            canceled: ConsoleFault::PauseCanceled,
            undo: Box::new(move |worker| resume::resume(worker, is_all, &databases)),
        }))
    }
}

/// Stops the leases of a database, or of all and of those that nobody has asked for so far.
pub(super) fn pause(worker: &Worker, name: Option<&str>) -> Result<Vec<DatabaseId>, ConsoleFault> {
    let proxy = &worker.proxy;
    let databases = targets::databases(proxy, name)?;
    proxy.directory.pause_newcomers(name.is_none() || proxy.directory.is_paused());
    proxy.directory.pause(worker.id, &databases);
    Ok(databases)
}

fn open_backends(proxy: &Proxy, databases: &[DatabaseId]) -> u32 {
    let core = proxy.pools.core();
    databases.iter().filter_map(|id| core.database(*id)).map(|database| database.counts.open()).sum()
}
