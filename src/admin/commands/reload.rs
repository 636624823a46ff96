//! RELOAD.

use tokio::sync::oneshot;

use crate::admin::command::{ConsoleCommand, FollowUp};
use crate::admin::words::CommandArguments;
use crate::error::ConsoleFault;
use crate::orders::Order;
use crate::session::context::Worker;

#[derive(Debug)]
pub(super) struct Reload;

impl ConsoleCommand for Reload {
    const TAG: &'static str = "RELOAD";
    const USAGE: &'static [(&'static str, &'static str)] =
        &[("RELOAD", "read the configuration again, and tell what changed")];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        arguments.none().map(|()| Self)
    }

    fn run(&self, worker: &Worker, _: &str) -> Result<FollowUp, ConsoleFault> {
        let orders = worker.proxy.orders.clone();
        Ok(FollowUp::later(async move {
            let (reply, changes) = oneshot::channel();
            orders.send(Order::Reload(reply)).await.map_err(|_| ConsoleFault::GoingDown)?;
            changes.await.map_err(|_| ConsoleFault::GoingDown)?.map_err(ConsoleFault::Reload)
        }))
    }
}
