//! LIMIT.

use std::time::Duration;

use tokio::time::Instant;

use super::targets;
use crate::admin::command::{ConsoleCommand, FollowUp};
use crate::admin::words::{CommandArguments, duration};
use crate::error::ConsoleFault;
use crate::session::context::Worker;

#[derive(Debug)]
pub(super) struct LimitRole {
    role: String,
    /// Transactions at once; 0: all wait. `None`: as the file says.
    max: Option<u32>,
    /// Step by step in this time, not at once.
    over: Option<Duration>,
}

impl ConsoleCommand for LimitRole {
    const TAG: &'static str = "LIMIT";
    const USAGE: &'static [(&'static str, &'static str)] = &[
        ("LIMIT role n [OVER '60s']", "another transactions_max until the file says another one; 0: all wait"),
        ("LIMIT role DEFAULT", "the transactions_max of the file again"),
    ];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        let role = arguments.name(0)?;
        match arguments.folded() {
            [_, "default"] => Some(Self { role, max: None, over: None }),
            [_, max] => Some(Self { role, max: Some(max.parse().ok()?), over: None }),
            [_, max, "over", over] => Some(Self { role, max: Some(max.parse().ok()?), over: Some(duration(over)?) }),
            _ => None,
        }
    }

    fn run(&self, worker: &Worker) -> Result<FollowUp, ConsoleFault> {
        let proxy = &worker.proxy;
        let role_queue = targets::role(proxy, &self.role)?;
        let now = Instant::now();
        proxy.pools.decide(worker.id, |core, out| match self.max {
            Some(max) => core.limit_role_queue(role_queue, Some(max), self.over, now, out),
            None => core.unlimit_role_queue(role_queue, now, out),
        });
        Ok(FollowUp::Nothing)
    }
}
