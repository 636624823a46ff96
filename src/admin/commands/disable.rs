//! DISABLE.

use super::targets;
use crate::admin::command::{ConsoleCommand, FollowUp};
use crate::admin::words::CommandArguments;
use crate::error::ConsoleFault;
use crate::orders::given::{OrderMark, OrderTarget};
use crate::session::context::Worker;

#[derive(Debug)]
pub(super) struct Disable(String);

impl ConsoleCommand for Disable {
    const TAG: &'static str = "DISABLE";
    const USAGE: &'static [(&'static str, &'static str)] = &[("DISABLE db", "take no new clients")];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        arguments.one_name().map(Self)
    }

    fn run(&self, worker: &Worker, _: &str) -> Result<FollowUp, ConsoleFault> {
        targets::databases(&worker.proxy, Some(&self.0))?;
        worker.proxy.directory.set_disabled(&self.0, true);
        Ok(FollowUp::Nothing)
    }

    fn mark(&self) -> Option<OrderMark> {
        Some(OrderMark::Begins(OrderTarget::Disable(self.0.clone())))
    }
}
