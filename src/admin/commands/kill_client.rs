//! KILL_CLIENT.

use crate::admin::command::{ConsoleCommand, FollowUp};
use crate::admin::words::CommandArguments;
use crate::clients::Signal;
use crate::error::ConsoleFault;
use crate::session::context::Worker;

/// The client of this id, the last column of SHOW CLIENTS.
#[derive(Debug)]
pub(super) struct KillClient(i32);

impl ConsoleCommand for KillClient {
    const TAG: &'static str = "KILL_CLIENT";
    const USAGE: &'static [(&'static str, &'static str)] = &[("KILL_CLIENT id", "drop one client")];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        match arguments.folded() {
            [id] => id.parse().ok().map(Self),
            _ => None,
        }
    }

    fn run(&self, worker: &Worker, _: &str) -> Result<FollowUp, ConsoleFault> {
        let clients = worker.proxy.clients.all();
        let client = clients.iter().find(|entry| entry.pid == self.0).ok_or(ConsoleFault::NoClient(self.0))?;
        client.signal(Signal::Kill);
        Ok(FollowUp::Nothing)
    }
}
