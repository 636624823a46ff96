//! A backend in the hands of one client: the lease, and all accounting that ends with it.

use std::io;
use std::task::Context;

use tokio::time::Instant;

use super::cycle::CycleState;
use super::reply_action::ReplyAction;
use super::stopwatch::Stopwatch;
use crate::pool::backend::Backend;
use crate::pool::lease::Lease;

/// What a client has besides the backend itself while it holds one.
#[derive(Debug)]
pub(crate) struct Leased {
    pub lease: Lease,
    /// What is outstanding, and how the backend's messages are cut.
    pub(super) cycle: Box<CycleState>,
    /// When the lease began.
    pub since: Instant,
    /// How long its queries and transactions take.
    pub stopwatch: Stopwatch,
}

impl Leased {
    #[inline]
    pub(crate) fn backend(&mut self) -> &mut Backend {
        &mut self.lease
    }

    /// Sends to the backend, behind what waits already.
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

    /// Sends what the backend's socket did not take.
    #[inline]
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.cycle.backend.buffer.flush(cx, &mut self.lease.stream)
    }
}
