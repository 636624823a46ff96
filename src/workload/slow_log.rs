//! The log of slow statements: time in the queue and at the server apart.

use super::caller::StatementCaller;
use super::run::StatementRun;
use crate::sql::Digest;

/// Writes one line. `note`: its tags, and its text where that may be logged.
pub(super) fn write(digest: Digest, text: &str, run: &StatementRun<'_>, note: Option<&str>, caller: &StatementCaller) {
    tracing::info!(
        target: "pgweir::slow",
        %digest,
        role = %caller.role,
        database = %caller.database,
        application = %caller.application_name,
        client.addr = %caller.addr,
        waited = ?run.waited,
        server = ?run.server,
        rows = run.rows,
        error = run.error.map(|error| String::from_utf8_lossy(error.code).into_owned()),
        tags = note,
        text,
        "slow statement"
    );
}
