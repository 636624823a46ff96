//! The clock of pgweir itself: the backstop behind the timeouts of Postgres.
//!
//! Postgres ends what takes too long by itself, unless a function lifted the limit, or the server is too old to know it. The tick of the
//! process compares stamps and leaves a signal; what is to be done is decided here, by the task that owns the backend.

use std::sync::Arc;
use std::task::Context;

use tokio::time::timeout;

use super::{Client, End, Phase};
use crate::metrics::Cause;
use crate::state::timeout::Timeout;
use crate::wire::ring::TransactionStatus;

impl Client {
    /// Something may have taken too long: what runs is cancelled, a transaction in which nothing runs is ended.
    pub(super) fn heed_clock(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let Phase::Leased(leased) = &mut self.phase else { return Ok(()) };
        let tick = self.worker.proxy.ticks();
        let limits = self.session.pool.settings().timeouts;
        let clock = &leased.lease.target.clock;
        // Nobody can tell when the last statement of a text began that is too long to be read.
        let statements = leased.books.statements().unwrap_or(u32::MAX);
        let Some(overdue) = clock.overdue(&limits, tick, statements) else { return Ok(()) };
        clock.act(tick);
        let ring = &leased.books.ring;
        // A COMMIT has no time-out in Postgres: cancelled while it waits for a synchronous standby it would still be done.
        let is_commit = leased.books.is_committing && statements == 1;
        // A client that does not read holds up its own statement.
        let is_unread = overdue == Timeout::Statement && !self.spill.is_empty();
        if is_commit || is_unread {
            return Ok(());
        }
        if !ring.is_empty() {
            self.cancel_overdue(overdue);
            return Ok(());
        }
        let is_open = ring.status() != TransactionStatus::Idle || ring.is_unsynced();
        if is_open && overdue != Timeout::Statement { self.expire(overdue, cx) } else { Ok(()) }
    }

    fn cancel_overdue(&mut self, overdue: Timeout) {
        let Phase::Leased(leased) = &mut self.phase else { return };
        leased.books.overdue = Some(overdue);
        let aim = leased.lease.target.aim();
        let limit = self.session.pool.settings().pool.cancel_timeout;
        let proxy = Arc::clone(&self.worker.proxy);
        proxy.process.cancel(Cause::Timeout);
        tokio::task::spawn_local(async move {
            let _ = timeout(limit, proxy.pools.opener().cancel(aim.target())).await;
        });
    }
}
