//! A backend in the hands of one client: the lease, and all accounting that ends with it.

use std::io;
use std::task::Context;

use tokio::time::Instant;

use super::cycle::CycleState;
use super::reply_action::ReplyAction;
use super::stopwatch::Stopwatch;
use crate::pool::backend::Backend;
use crate::pool::lease::Lease;
use crate::state::settings::{AT_ONCE, DEFERRABLE};

/// Takes a session back to what it was after login.
pub(crate) const RESET: &[u8] = b"DISCARD ALL";

/// See [`DEFERRABLE`].
const RESET_DEFERRABLE: &[u8] = b"RESET default_transaction_deferrable";

/// State of a client that holds a backend, with the backend itself.
#[derive(Debug)]
pub(crate) struct Leased {
    pub lease: Lease,
    /// Outstanding answers, and the position in the backend's messages.
    pub(super) cycle: Box<CycleState>,
    /// Start of the lease.
    pub since: Instant,
    /// Times of the queries and transactions.
    pub stopwatch: Stopwatch,
}

impl Leased {
    #[inline]
    pub(crate) fn backend(&mut self) -> &mut Backend {
        &mut self.lease
    }

    /// Sends to the backend, behind the bytes that wait already.
    #[inline]
    pub(crate) fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        self.cycle.backend.buffer.send(cx, &mut self.lease.stream, bytes)
    }

    /// Sends a Query of ours.
    pub(crate) fn ask(&mut self, cx: &mut Context<'_>, sql: &[u8], action: ReplyAction) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.cycle.query(&mut bytes, sql, action);
        self.send(cx, &bytes)
    }

    /// Sends what takes the session back to its login. No statement runs with it, so a default that would make it wait
    /// is reset before it.
    pub(crate) fn reset(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.may_wait_for_snapshot() {
            self.ask(cx, RESET_DEFERRABLE, ReplyAction::Applies(None))?;
        }
        self.ask(cx, RESET, ReplyAction::Resets)
    }

    /// True if a transaction begun by default may wait for others at its first snapshot.
    fn may_wait_for_snapshot(&self) -> bool {
        self.lease.applied.values().contains_key(DEFERRABLE)
    }

    /// Sends a question of ours.
    pub(crate) fn question(&mut self, cx: &mut Context<'_>, sql: &[u8], action: ReplyAction) -> io::Result<()> {
        let mut bytes = Vec::new();
        if self.may_wait_for_snapshot() {
            self.cycle.query(&mut bytes, &[AT_ONCE, sql].concat(), action);
        } else {
            self.cycle.question(&mut bytes, sql, action);
        }
        self.send(cx, &bytes)
    }

    /// Sends the bytes that the backend's socket did not take.
    #[inline]
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.cycle.backend.buffer.flush(cx, &mut self.lease.stream)
    }
}
