//! A backend in the hands of one client: the lease, and all accounting that ends with it.

use std::io;
use std::task::Context;

use tokio::time::Instant;

use super::note::Note;
use super::spill::Spill;
use super::stopwatch::Stopwatch;
use crate::pool::backend::Backend;
use crate::pool::lease::Lease;
use crate::sql::Suspects;
use crate::state::timeout::Timeout;
use crate::wire::build;
use crate::wire::build::ServerError;
use crate::wire::frame::Walker;
use crate::wire::ring::{Entry, Expect, Origin, Ring, TransactionStatus};

/// What a client has besides the backend itself while it holds one.
#[derive(Debug)]
pub struct Leased {
    /// The backend.
    pub lease: Lease,
    /// What is outstanding, and how the backend's messages are cut.
    pub books: Box<Books>,
    /// When the lease began.
    pub since: Instant,
    /// How long its queries and transactions take.
    pub stopwatch: Stopwatch,
}

/// More than any answer to a question of ours.
const ROW_MAX: usize = 1024;

/// The accounting of a lease; boxed and used again by the worker's next lease.
#[derive(Debug, Default)]
pub struct Books {
    /// Messages not answered yet.
    pub ring: Ring<Note>,
    /// Position in what the backend sends.
    pub walker: Walker,
    /// What the backend's socket did not take yet.
    pub spill: Spill,
    /// The backend's frame under way goes to the client.
    pub is_forwarding: bool,
    /// A COMMIT is under way.
    pub is_committing: bool,
    /// Where the last BEGIN, COMMIT or ROLLBACK under way leads.
    pub heading: Option<TransactionStatus>,
    /// An error was seen in the current cycle.
    pub is_failed: bool,
    /// Our replay of settings or our DISCARD ALL must succeed before anything of the client is sent.
    pub is_checking: bool,
    /// Parameters reported while our own query ran.
    pub reported: Vec<(String, String)>,
    /// As much as has come of the row that answers our own question.
    pub row: Vec<u8>,
    /// What the server said before it ended the connection.
    pub last_words: Option<ServerError>,
    /// The client changed timeouts, and our clock counts the most it may have.
    pub is_stretched: bool,
    /// Our own clock has a cancel under way for this.
    pub overdue: Option<Timeout>,
    /// That the transaction took too long is counted already.
    pub is_counted: bool,
    /// Our own query failed with this.
    pub refusal: Option<ServerError>,
    /// Scratch of the ring.
    pub dropped: Vec<Entry<Note>>,
}

impl Books {
    /// Ready for another lease. Only books at rest are used again.
    pub fn reset(&mut self) {
        self.is_forwarding = false;
        self.is_committing = false;
        self.heading = None;
        self.is_failed = false;
        self.is_checking = false;
        self.reported.clear();
        self.row.clear();
        self.last_words = None;
        self.is_stretched = false;
        self.overdue = None;
        self.is_counted = false;
        self.refusal = None;
        self.dropped.clear();
    }

    /// Statements that may have run at the server since it answered last; `None`: nobody can tell.
    pub fn statements(&self) -> Option<u32> {
        let of = |entry: &Entry<Note>| match (entry.expect, &entry.note) {
            (Expect::Query, Some(Note::Runs(runs))) if runs.class.may_begin.contains(Suspects::UNCERTAIN) => None,
            (Expect::Query, Some(Note::Runs(runs))) => Some(runs.class.statements.saturating_sub(runs.completed)),
            (Expect::Query, Some(Note::Several(statements))) => Some(*statements),
            (Expect::Query | Expect::Execute | Expect::FunctionCall, _) => Some(1),
            _ => Some(0),
        };
        let sum = self.ring.iter().map(of).try_fold(0u32, |sum, of| sum.checked_add(of?))?;
        Some(sum.max(1))
    }

    /// More of a row of ours, which may come in pieces.
    pub fn go_on_with_row(&mut self, bytes: &[u8]) {
        if !self.row.is_empty() && self.row.len() < ROW_MAX {
            self.row.extend_from_slice(bytes);
        }
    }

    /// Appends a Query of ours.
    pub fn query(&mut self, out: &mut Vec<u8>, sql: &[u8], note: Note) {
        build::query(out, sql);
        self.ring.push(Expect::Query, Origin::Own, Some(note));
    }
}

impl Leased {
    /// The backend.
    #[inline]
    pub fn backend(&mut self) -> &mut Backend {
        &mut self.lease
    }

    /// Sends to the backend, behind what waits already.
    #[inline]
    pub fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        self.books.spill.send(cx, &mut self.lease.stream, bytes)
    }

    /// Sends a Query of ours.
    pub fn ask(&mut self, cx: &mut Context<'_>, sql: &[u8], note: Note) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.books.query(&mut bytes, sql, note);
        self.send(cx, &bytes)
    }

    /// Sends what the backend's socket did not take.
    #[inline]
    pub fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.books.spill.flush(cx, &mut self.lease.stream)
    }
}
