//! A backend in the hands of one client: the lease, and all accounting that ends with it.

use std::io;
use std::task::Context;

use tokio::time::Instant;

use super::cycle::CycleState;
use super::reply_action::ReplyAction;
use super::stopwatch::Stopwatch;
use crate::pool::backend::Backend;
use crate::pool::lease::Lease;

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

    /// Sends the bytes that the backend's socket did not take.
    #[inline]
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.cycle.backend.buffer.flush(cx, &mut self.lease.stream)
    }
}
