//! WAIT_CLOSE.

use super::targets;
use crate::admin::command::{ActionWait, ConsoleCommand, FollowUp};
use crate::admin::words::CommandArguments;
use crate::error::ConsoleFault;
use crate::session::context::Worker;

/// Of one database, or of all.
#[derive(Debug)]
pub(super) struct WaitClose(Option<String>);

impl ConsoleCommand for WaitClose {
    const TAG: &'static str = "WAIT_CLOSE";
    const USAGE: &'static [(&'static str, &'static str)] =
        &[("WAIT_CLOSE [db]", "wait until RECONNECT or RELOAD has replaced them all")];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        arguments.name_or_all().map(Self)
    }

    fn run(&self, worker: &Worker, _: &str) -> Result<FollowUp, ConsoleFault> {
        let databases = targets::databases(&worker.proxy, self.0.as_deref())?;
        Ok(FollowUp::Wait(ActionWait {
            pending: Box::new(move |proxy| {
                let core = proxy.pools.core();
                let is_any = databases.iter().any(|database| core.has_retired(*database));
                is_any.then(|| "backends that are to be replaced are still open".to_owned())
            }),
            canceled: ConsoleFault::WaitCanceled,
            undo: Box::new(|_| {}),
        }))
    }
}
