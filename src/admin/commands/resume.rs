//! RESUME.

use super::targets;
use crate::admin::command::{ConsoleCommand, FollowUp};
use crate::admin::words::CommandArguments;
use crate::error::ConsoleFault;
use crate::orders::given::{OrderMark, OrderTarget};
use crate::pool::core::DatabaseId;
use crate::session::context::Worker;

/// Of one database, or of all.
#[derive(Debug)]
pub(super) struct Resume(Option<String>);

impl ConsoleCommand for Resume {
    const TAG: &'static str = "RESUME";
    const USAGE: &'static [(&'static str, &'static str)] = &[("RESUME [db]", "end PAUSE or KILL")];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        arguments.name_or_all().map(Self)
    }

    fn run(&self, worker: &Worker, _: &str) -> Result<FollowUp, ConsoleFault> {
        let (proxy, is_all) = (&worker.proxy, self.0.is_none());
        let databases = targets::databases(proxy, self.0.as_deref())?;
        let is_paused = |database: &DatabaseId| proxy.pools.core().database(*database).is_some_and(|it| it.is_paused);
        if !(databases.iter().any(is_paused) || is_all && proxy.directory.is_paused()) {
            return Err(ConsoleFault::NotPaused);
        }
        resume(worker, is_all, &databases);
        Ok(FollowUp::Nothing)
    }

    fn mark(&self) -> Option<OrderMark> {
        Some(OrderMark::Ends(OrderTarget::Pause(self.0.clone())))
    }
}

/// Lets clients of these databases have backends again; `is_all`: of those that nobody has asked for so far, too.
pub(super) fn resume(worker: &Worker, is_all: bool, databases: &[DatabaseId]) {
    if is_all {
        worker.proxy.directory.pause_newcomers(false);
    }
    worker.proxy.directory.resume(worker.id, databases);
}
