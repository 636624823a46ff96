//! SHUTDOWN.

use crate::admin::command::{ConsoleCommand, FollowUp};
use crate::admin::words::CommandArguments;
use crate::error::ConsoleFault;
use crate::orders::Order;
use crate::session::context::Worker;

#[derive(Debug)]
pub(super) struct Shutdown {
    /// Without waiting for transactions.
    now: bool,
}

impl ConsoleCommand for Shutdown {
    const TAG: &'static str = "SHUTDOWN";
    const USAGE: &'static [(&'static str, &'static str)] = &[
        (
            "SHUTDOWN",
            "end: after listen.linger clients are told to go when their transaction has ended, and after \
             listen.shutdown_timeout at once",
        ),
        ("SHUTDOWN WAIT_FOR_SERVERS", "the same; listen.linger gives clients time to go of their own accord"),
        ("SHUTDOWN NOW", "end at once"),
    ];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        match arguments.folded() {
            [] | ["wait_for_servers"] => Some(Self { now: false }),
            ["now"] => Some(Self { now: true }),
            _ => None,
        }
    }

    fn run(&self, worker: &Worker, _: &str) -> Result<FollowUp, ConsoleFault> {
        let (orders, now) = (worker.proxy.orders.clone(), self.now);
        Ok(FollowUp::later(async move {
            orders.send(Order::Shutdown { now }).await.map_err(|_| ConsoleFault::GoingDown)?;
            Ok(Vec::new())
        }))
    }
}
