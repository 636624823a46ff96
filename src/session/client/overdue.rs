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
use crate::wire::expected::{ExpectedReplies, TransactionStatus};

/// Reason to take a transaction from its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The transaction took longer than its role may.
    Timeout(Timeout),
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
        if !replies.is_empty() {
            self.cancel_overdue(overdue);
            return Ok(());
        }
        if is_open(replies) && overdue != Timeout::Statement {
            self.expire(Reason::Timeout(overdue), cx)
        } else {
            Ok(())
        }
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
