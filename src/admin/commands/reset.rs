//! RESET STATEMENTS.

use crate::admin::command::{ConsoleCommand, FollowUp};
use crate::admin::words::CommandArguments;
use crate::error::ConsoleFault;
use crate::session::context::Worker;

#[derive(Debug)]
pub(super) struct Reset;

impl ConsoleCommand for Reset {
    const TAG: &'static str = "RESET";
    const USAGE: &'static [(&'static str, &'static str)] =
        &[("RESET STATEMENTS", "forget what SHOW STATEMENTS has counted")];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        matches!(arguments.folded(), ["statements"]).then_some(Self)
    }

    fn run(&self, worker: &Worker, _: &str) -> Result<FollowUp, ConsoleFault> {
        if let Some(workload) = &worker.proxy.workload {
            workload.reset();
        }
        Ok(FollowUp::Nothing)
    }
}
