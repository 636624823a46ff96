//! SET log_level. It holds until the next one, or the next start, which takes `--log-level`.

use crate::admin::command::{ConsoleCommand, FollowUp};
use crate::admin::words::{CommandArguments, unquoted};
use crate::error::ConsoleFault;
use crate::session::context::Worker;

/// The name of the setting.
pub(in crate::admin) const NAME: &str = "log_level";

#[derive(Debug)]
pub(super) struct SetLogLevel(String);

impl ConsoleCommand for SetLogLevel {
    const TAG: &'static str = "SET";
    const USAGE: &'static [(&'static str, &'static str)] =
        &[("SET log_level = 'debug'", "the least level that is logged from now on, also of one module")];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        let text = arguments.folded().join(" ");
        let rest = text.strip_prefix(NAME)?.trim_start();
        let value = rest.strip_prefix('=').or_else(|| rest.strip_prefix("to "))?.trim();
        (!value.is_empty()).then(|| Self(unquoted(value)))
    }

    fn run(&self, worker: &Worker, _: &str) -> Result<FollowUp, ConsoleFault> {
        worker.proxy.log_level.set(&self.0).map_err(ConsoleFault::LogLevel)?;
        Ok(FollowUp::Nothing)
    }
}
