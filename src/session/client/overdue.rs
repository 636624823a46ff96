//! Timeouts by pgweir's own clock: the backstop behind the timeouts of Postgres.
//!
//! Postgres enforces its timeouts by itself, unless a function lifted the limit, or the server is too old to know it.
//! The tick of the process compares stamps and leaves a signal; the action is decided here, by the task that owns the
//! backend. The same holds when the watch finds that others wait for a transaction that idles.

use std::sync::Arc;
use std::task::Context;

use tokio::time::timeout;

use super::{Client, End, Phase};
use crate::config::{OnIdleHolder, Watch};
use crate::metrics::{CancelCause, ProcessCounter};
use crate::state::timeout::Timeout;
use crate::wire::build;
use crate::wire::expected::{Expect, ExpectedReplies, TransactionStatus};

/// Reason to take a transaction from its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The transaction took longer than its role may, or its client did not go on with a message or a unit.
    Timeout(Timeout),
    /// The server answers neither a statement over its limit nor the cancel of it.
    Silent(Timeout),
    /// Others waited for the transaction while it was idle.
    Holding,
}

impl Client {
    /// A timeout may have passed: a running statement is cancelled, a transaction in which nothing runs is ended.
    pub(super) fn handle_clock(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let Phase::Leased(leased) = &mut self.phase else { return Ok(()) };
        let tick = self.worker.proxy.clock.ticks();
        let limits = self.session.pool.settings().timeouts;
        let clock = &leased.lease.target.clock;
        let Some(overdue) = clock.overdue(&limits, tick) else { return Ok(()) };
        let is_unanswered = leased.cycle.cancelling().is_some() && clock.is_unanswered();
        clock.act(tick);
        let replies = leased.cycle.replies();
        // A COMMIT has no timeout in Postgres: one that is cancelled while it waits for a synchronous standby would
        // still be done.
        let is_commit = leased.cycle.is_committing() && leased.cycle.is_single();
        // A client that does not read holds up its own statement.
        let is_unread = overdue == Timeout::Statement && !self.side.buffer.is_empty();
        if is_commit || is_unread {
            return Ok(());
        }
        if replies.is_empty() {
            let is_held = match overdue {
                Timeout::Statement => leased.cycle.is_unit_open(),
                _ => is_open(replies) || replies.is_skipping(),
            };
            return if is_held { self.expire(Reason::Timeout(overdue), cx) } else { Ok(()) };
        }
        // A server that waits for the rest of a message, of a unit or of a COPY has nothing to cancel.
        let is_mid_frame = self.side.is_mid_forward();
        let is_clients_turn = is_mid_frame || replies.is_unsynced() || replies.is_copying_in();
        match is_unanswered {
            true if is_clients_turn => self.expire(Reason::Timeout(overdue), cx),
            true => self.expire(Reason::Silent(overdue), cx),
            false if replies.is_copying_in() && !is_mid_frame => self.fail_copy(overdue, cx),
            false => {
                self.cancel_overdue(overdue);
                Ok(())
            }
        }
    }

    /// Ends a COPY of which no more comes: the server hears of a cancel only with its next bytes.
    fn fail_copy(&mut self, overdue: Timeout, cx: &mut Context<'_>) -> Result<(), End> {
        let Phase::Leased(leased) = &mut self.phase else { return Ok(()) };
        leased.cycle.cancel_for(overdue);
        let mut bytes = Vec::new();
        build::copy_fail(&mut bytes, format!("{} in pgweir", overdue.setting()).as_bytes());
        leased.cycle.expect_own(Expect::CopyEnd, None);
        if leased.send(cx, &bytes).is_err() { self.lose(cx) } else { Ok(()) }
    }

    /// Others wait for this client's transaction: it is ended, unless a statement runs in it or it has not been idle
    /// for long.
    pub(super) fn handle_waiters(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let Phase::Leased(leased) = &self.phase else { return Ok(()) };
        let proxy = &self.worker.proxy;
        let Watch { on_idle_holder, blocked, .. } = proxy.config.load().watch;
        let replies = leased.cycle.replies();
        let is_idle = replies.is_empty() && leased.lease.target.clock.may_have_idled(blocked, proxy.clock.ticks());
        match on_idle_holder {
            OnIdleHolder::Cancel if is_open(replies) && is_idle => self.expire(Reason::Holding, cx),
            _ => Ok(()),
        }
    }

    fn cancel_overdue(&mut self, overdue: Timeout) {
        let Phase::Leased(leased) = &mut self.phase else { return };
        leased.cycle.cancel_for(overdue);
        let aim = leased.lease.target.aim();
        let limit = self.session.pool.settings().pool.cancel_timeout;
        let proxy = Arc::clone(&self.worker.proxy);
        proxy.process.add(ProcessCounter::Cancels(CancelCause::Timeout));
        tokio::task::spawn_local(async move {
            let _ = timeout(limit, proxy.pools.opener().cancel(aim.target())).await;
        });
    }
}

/// True if a transaction is open at the server: the client's own, or the implicit one of messages that no Sync has
/// followed yet.
fn is_open<N>(replies: &ExpectedReplies<N>) -> bool {
    replies.status() != TransactionStatus::Idle || replies.is_unsynced()
}
