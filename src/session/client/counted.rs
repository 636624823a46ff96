//! Counts the statements of a client that have ended, where statements are counted.

use std::time::Duration;

use tokio::time::Instant;

use super::Client;
use crate::clients::ClientEntry;
use crate::session::context::Worker;
use crate::session::lanes::digests;
use crate::session::leased::Leased;
use crate::session::running::StatementError;
use crate::session::session::Session;
use crate::wire::message::Request;
use crate::workload::{StatementCaller, StatementRun, StatementRunError};

/// Counts the statements that have ended since the last call. Those that ended together share the time that passed
/// evenly: nobody knows more without a clock for each.
pub(super) fn count_ended(worker: &Worker, session: &Session, leased: &mut Leased, now: Instant) {
    let Some(recorder) = &worker.recorder else { return };
    let ended = leased.cycle.running().take_ended();
    let goes_on = !leased.cycle.replies().is_empty();
    let server =
        leased.cycle.times.stopwatch.split(now, goes_on) / u32::try_from(ended.len()).unwrap_or(u32::MAX).max(1);
    let bytes = std::mem::take(&mut leased.cycle.times.received) / (ended.len() as u64).max(1);
    let second = worker.proxy.clock.second();
    for ended in ended {
        let waited = std::mem::take(&mut leased.cycle.times.waited);
        let error = ended.error.as_ref().map(run_error);
        let run = StatementRun { rows: ended.rows, bytes, waited, server, error, role_bit: session.role_bit };
        recorder.count(ended.digest, &run, second, ended.note.as_deref(), || caller(&session.entry));
    }
}

impl Client {
    /// Counts the statement of a message that is refused before it came to a backend.
    #[cold]
    pub(super) fn count_refusal(&self, request: Request<'_>, waited: Duration, code: &str) {
        let Some(recorder) = &self.worker.recorder else { return };
        let Some(digests) = digests(&self.worker, &self.session, request) else { return };
        let second = self.worker.proxy.clock.second();
        let Some(digest) = digests.first().copied() else { return };
        let error = StatementRunError { code: code.as_bytes(), timeout: None };
        let run =
            StatementRun { waited, error: Some(error), role_bit: self.session.role_bit, ..StatementRun::default() };
        recorder.count_refusal(digest, &run, second, caller(&self.session.entry));
    }
}

fn run_error(error: &StatementError) -> StatementRunError<'_> {
    StatementRunError { code: &error.code, timeout: error.timeout }
}

fn caller(entry: &ClientEntry) -> StatementCaller {
    StatementCaller {
        role: entry.role.clone(),
        database: entry.database.clone(),
        application_name: (*entry.application_name).into(),
        addr: entry.addr.as_str().into(),
    }
}
