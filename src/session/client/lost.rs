//! A client that lost its backend: what it is told at once, and its messages until it knows.

use std::task::Context;

use super::{Client, End, Phase, Step};
use crate::session::orphan::OrphanOutcome;
use crate::wire::build;
use crate::wire::expected::CopyRest;
use crate::wire::message::{Message, Request};
use crate::wire::splice::Splice;

impl Client {
    /// Reports again each parameter whose last report is of a change that went with the backend. The lexer goes back
    /// to the values of before, too.
    pub(super) fn tell_lost_values(&mut self) {
        let Some(follow) = self.session.follow.take() else { return };
        for (name, told) in follow.reports() {
            let Some((spelled, _)) = self.session.reported.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))
            else {
                continue;
            };
            if let Some(value) = self.session.reported_value(name).filter(|value| value != told) {
                build::parameter_status(self.side.buffer.bytes(), spelled, &value);
            }
        }
        self.session.update_lexer();
    }

    /// Handles a message in a transaction that was lost.
    ///
    /// ## Orphaned => Idle
    pub(super) fn orphaned(
        &mut self,
        message: Message<'_>,
        request: Request<'_>,
        out: &mut Splice<'_>,
        cx: &mut Context<'_>,
    ) -> Result<Step, End> {
        let Phase::Orphaned(orphan) = &mut self.phase else { return Ok(Step::Done) };
        let statements = &self.worker.proxy.statements;
        let outcome = orphan.message(request, &mut self.session, statements, self.side.buffer.bytes());
        match outcome {
            OrphanOutcome::Answered => {}
            OrphanOutcome::Refused => self.is_discarding = true,
            OrphanOutcome::Over => self.phase = Phase::Idle,
            OrphanOutcome::Executed => {
                self.phase = Phase::Idle;
                self.is_unsynced = true;
            }
            OrphanOutcome::Failed => {
                self.phase = Phase::Idle;
                self.is_discarding = true;
            }
            OrphanOutcome::Passed => {
                self.phase = Phase::Idle;
                return self.message(message, &[], out, cx);
            }
        }
        out.skip(message.fresh);
        Ok(Step::Done)
    }

    /// True if a message belongs to a COPY that was lost: its client sends it to the end before it knows. The Syncs of
    /// that COPY had one ReadyForQuery to come, which went out with the error.
    pub(super) fn is_rest(&mut self, request: Request<'_>) -> bool {
        let (is_rest, next) = match (request, self.copy_rest) {
            (Request::CopyEnd, Some(_)) => (true, Some(CopyRest::Sync)),
            (Request::Sync, Some(CopyRest::Sync)) => (true, None),
            (Request::Sync | Request::CopyData | Request::Flush, rest @ Some(_)) => (true, rest),
            _ => (false, None),
        };
        self.copy_rest = next;
        is_rest
    }
}
