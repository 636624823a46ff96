//! KILL: as PAUSE, but without waiting for anybody.

use super::pause::pause;
use crate::admin::command::{ConsoleCommand, FollowUp};
use crate::admin::words::CommandArguments;
use crate::clients::Signal;
use crate::config::CONSOLE_NAMES;
use crate::error::ConsoleFault;
use crate::orders::given::{OrderMark, OrderTarget};
use crate::session::context::Worker;

/// Of one database, or of all.
#[derive(Debug)]
pub(super) struct Kill(Option<String>);

impl ConsoleCommand for Kill {
    const TAG: &'static str = "KILL";
    const USAGE: &'static [(&'static str, &'static str)] =
        &[("KILL [db]", "drop clients and backends at once; new clients wait for RESUME")];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        arguments.name_or_all().map(Self)
    }

    fn run(&self, worker: &Worker, _: &str) -> Result<FollowUp, ConsoleFault> {
        let name = self.0.as_deref();
        pause(worker, name)?;
        for entry in worker.proxy.clients.all() {
            let is_meant = name.is_none_or(|name| *entry.database == *name);
            // Consoles stay, this one among them.
            if is_meant && !CONSOLE_NAMES.contains(&&*entry.database) {
                entry.signal(Signal::Kill);
            }
        }
        Ok(FollowUp::Nothing)
    }

    fn mark(&self) -> Option<OrderMark> {
        Some(OrderMark::Begins(OrderTarget::Pause(self.0.clone())))
    }
}
