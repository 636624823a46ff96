//! RECONNECT.

use super::targets;
use crate::admin::command::{ConsoleCommand, FollowUp};
use crate::admin::words::CommandArguments;
use crate::error::ConsoleFault;
use crate::session::context::Worker;

/// Of one database, or of all.
#[derive(Debug)]
pub(super) struct Reconnect(Option<String>);

impl ConsoleCommand for Reconnect {
    const TAG: &'static str = "RECONNECT";
    const USAGE: &'static [(&'static str, &'static str)] =
        &[("RECONNECT [db]", "replace the backends: idle ones now, others as they come back")];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        arguments.name_or_all().map(Self)
    }

    fn run(&self, worker: &Worker, _: &str) -> Result<FollowUp, ConsoleFault> {
        for database in targets::databases(&worker.proxy, self.0.as_deref())? {
            worker.proxy.directory.retire(worker.id, database);
        }
        // Who gives this command knows the servers: a former primary may be the right one now.
        for monitor in worker.proxy.topologies.all() {
            if self.0.as_ref().is_none_or(|name| *name == *monitor.database) {
                monitor.forget();
            }
        }
        Ok(FollowUp::Nothing)
    }
}
