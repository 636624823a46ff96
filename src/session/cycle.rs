//! The accounting of one lease: what the backend still owes, where the transaction is going, and queries of our own.
//!
//! Everything is written here and nowhere else; [`super::frontend`], [`super::answers`] and [`super::cleanup`] say what
//! happened. Boxed and used again by the worker's next lease, so that a lease costs no allocation.

use super::reply_action::ReplyAction;
use super::side::Side;
use super::transaction::TransactionLog;
use crate::sql::{Effect, StateFlags};
use crate::state::timeout::Timeout;
use crate::wire::build::{self, ServerError};
use crate::wire::expected::{Answer, Expect, ExpectedReplies, ExpectedReply, Origin, TransactionStatus, Unexpected};
use crate::wire::frame::HEADER_LEN;
use crate::wire::tag::backend;

/// More than any answer to a question of ours.
const ROW_MAX: usize = 1024;

/// State of the cycles of one lease.
#[derive(Debug, Default)]
pub(crate) struct CycleState {
    /// Messages not answered yet.
    replies: ExpectedReplies<ReplyAction>,
    /// Scratch of the replies: what an error made the server drop.
    dropped: Vec<ExpectedReply<ReplyAction>>,
    /// The backend's side of the relay.
    pub(super) backend: Side,
    /// Where the transaction is going.
    outcome: PendingOutcome,
    /// What the transaction did.
    log: TransactionLog,
    /// Queries of ours.
    own: OwnQueries,
    /// Our clock's part in it.
    limits: OwnLimits,
    /// The server's error before it ended the connection.
    final_error: Option<ServerError>,
}

/// Where the BEGIN, COMMIT and ROLLBACK that are under way lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum PendingOutcome {
    /// None is under way: the transaction stays as the server last said.
    #[default]
    Unchanged,
    /// The last of them leads to `status`.
    Changes {
        /// Idle or in a transaction.
        status: TransactionStatus,
        /// A COMMIT or PREPARE TRANSACTION is among them.
        commits: bool,
    },
}

/// Queries of ours that run on the backend of a client.
#[derive(Debug, Default)]
struct OwnQueries {
    /// Our replay of settings or our DISCARD ALL must succeed before anything of the client is sent.
    holds_client: bool,
    /// Parameters reported while one ran.
    reported: Vec<(String, String)>,
    /// As much as has come of the row that answers a question.
    row: Vec<u8>,
    /// One failed with this.
    refusal: Option<ServerError>,
}

/// Timeouts, as far as our own clock is concerned.
#[derive(Debug, Clone, Copy, Default)]
struct OwnLimits {
    /// The client changed timeouts, and our clock counts the most it may have.
    is_extended: bool,
    /// Our own clock has a cancel under way for this.
    cancelling: Option<Timeout>,
    /// That the transaction took too long is counted already.
    is_counted: bool,
}

impl CycleState {
    /// Makes it ready for another lease. False: something is outstanding, and it must not be used again.
    pub(crate) fn recycle(&mut self) -> bool {
        if !self.replies.can_release() {
            return false;
        }
        self.backend.set_forwarding(false);
        self.outcome = PendingOutcome::Unchanged;
        self.log = TransactionLog::default();
        self.own.holds_client = false;
        self.own.reported.clear();
        self.own.row.clear();
        self.own.refusal = None;
        self.limits = OwnLimits::default();
        self.final_error = None;
        self.dropped.clear();
        true
    }

    // ---- what the backend owes

    /// Messages not answered yet.
    #[inline]
    pub(super) fn replies(&self) -> &ExpectedReplies<ReplyAction> {
        &self.replies
    }

    /// Nothing is outstanding, no transaction is open, and no message is half-received: the backend can be released.
    #[inline]
    pub(super) fn can_release(&self) -> bool {
        self.replies.can_release() && self.backend.is_at_boundary()
    }

    /// A message of the client goes to the backend. The action of one that the server will drop unread comes back.
    #[inline]
    pub(super) fn expect(&mut self, expect: Expect, action: Option<ReplyAction>) -> Option<ReplyAction> {
        self.replies.push(expect, Origin::Client, action)
    }

    /// A message of ours goes to the backend.
    #[inline]
    pub(super) fn expect_own(&mut self, expect: Expect, action: Option<ReplyAction>) {
        self.replies.push(expect, Origin::Own, action);
    }

    /// Appends a Query of ours.
    pub(super) fn query(&mut self, out: &mut Vec<u8>, sql: &[u8], action: ReplyAction) {
        build::query(out, sql);
        self.expect_own(Expect::Query, Some(action));
    }

    /// Takes account of one message of the backend; `bytes` is its frame, or the head of a long one.
    #[inline]
    pub(super) fn answer(&mut self, tag: u8, bytes: &[u8]) -> Result<Answer<ReplyAction>, Unexpected> {
        let byte = bytes.get(HEADER_LEN).copied().filter(|_| tag == backend::READY_FOR_QUERY);
        self.replies.answer(tag, byte.and_then(TransactionStatus::from_byte), &mut self.dropped)
    }

    /// The next answer of ours to a message of the client, if it is its turn.
    #[inline]
    pub(super) fn pop_synthetic(&mut self) -> Option<ExpectedReply<ReplyAction>> {
        self.replies.pop_synthetic()
    }

    /// The message that the backend is answering.
    #[inline]
    pub(super) fn head_mut(&mut self) -> Option<&mut ExpectedReply<ReplyAction>> {
        self.replies.head_mut()
    }

    /// Entries that the last error made the server drop, oldest first; to be given back with [`Self::put_dropped`].
    pub(super) fn take_dropped(&mut self) -> Vec<ExpectedReply<ReplyAction>> {
        std::mem::take(&mut self.dropped)
    }

    /// Gives the emptied buffer of dropped entries back.
    pub(super) fn put_dropped(&mut self, mut dropped: Vec<ExpectedReply<ReplyAction>>) {
        dropped.clear();
        self.dropped = dropped;
    }

    /// Statements that may have run at the server since it answered last; `None`: nobody can tell.
    pub(super) fn statements(&self) -> Option<u32> {
        let of = |entry: &ExpectedReply<ReplyAction>| match (entry.expect, &entry.action) {
            (Expect::Query, Some(ReplyAction::Runs(runs))) if runs.class.may_begin.contains(StateFlags::UNCERTAIN) => {
                None
            }
            (Expect::Query, Some(ReplyAction::Runs(runs))) => {
                Some(runs.class.statements.saturating_sub(runs.completed))
            }
            (Expect::Query, Some(ReplyAction::Several(statements))) => Some(*statements),
            (Expect::Query | Expect::Execute | Expect::FunctionCall, _) => Some(1),
            _ => Some(0),
        };
        let sum = self.replies.iter().map(of).try_fold(0u32, |sum, of| sum.checked_add(of?))?;
        Some(sum.max(1))
    }

    // ---- the transaction

    /// The log of the transaction, to feed it; to be put back.
    #[inline]
    pub(super) fn log(&self) -> TransactionLog {
        self.log
    }

    /// Keeps what was fed into the log.
    #[inline]
    pub(super) fn set_log(&mut self, log: TransactionLog) {
        self.log = log;
    }

    /// The client got an error in the cycle under way.
    pub(super) fn error(&mut self) {
        self.log.error();
    }

    /// A statement with this effect is sent.
    ///
    /// ## Unchanged => Changes
    pub(super) fn sends(&mut self, effect: &Effect) {
        let status = match effect {
            Effect::Begin | Effect::Commit { chain: true } | Effect::Rollback { chain: true } => {
                TransactionStatus::InTransaction
            }
            Effect::Commit { .. } | Effect::Rollback { .. } | Effect::PrepareTransaction => TransactionStatus::Idle,
            _ => return,
        };
        let commits = self.is_committing() || matches!(effect, Effect::Commit { .. } | Effect::PrepareTransaction);
        self.outcome = PendingOutcome::Changes { status, commits };
    }

    /// A cycle of the client has ended.
    ///
    /// ## Changes => Unchanged, once nothing else is under way.
    #[inline]
    pub(super) fn cycle_ended(&mut self) {
        if self.replies.is_quiet() {
            self.outcome = PendingOutcome::Unchanged;
        }
    }

    /// A COMMIT is under way.
    #[inline]
    pub(super) fn is_committing(&self) -> bool {
        matches!(self.outcome, PendingOutcome::Changes { commits: true, .. })
    }

    /// Where the last BEGIN, COMMIT or ROLLBACK under way leads; `None`: there is none.
    #[inline]
    pub(super) fn pending_outcome(&self) -> Option<TransactionStatus> {
        match self.outcome {
            PendingOutcome::Unchanged => None,
            PendingOutcome::Changes { status, .. } => Some(status),
        }
    }

    /// Messages of the extended protocol were sent, and their Sync was not.
    pub(super) fn is_unit_open(&self) -> bool {
        self.replies.is_unsynced() || self.replies.is_skipping()
    }

    /// With its backend the client loses a transaction, and may send more of it before it knows.
    pub(super) fn loses_transaction(&self) -> bool {
        let is_open = self.replies.status() != TransactionStatus::Idle;
        let is_cycle = |entry: &&ExpectedReply<ReplyAction>| entry.origin == Origin::Client && entry.expect.is_cycle();
        match self.pending_outcome() {
            // A client that waits for the answer to its BEGIN is told that there is no transaction; one that has sent
            // more already would have that run on its own.
            Some(TransactionStatus::InTransaction) => {
                is_open || self.is_unit_open() || self.replies.iter().filter(is_cycle).count() > 1
            }
            Some(_) => false,
            None => is_open,
        }
    }

    /// The server said this and ends the connection.
    pub(super) fn set_final_error(&mut self, error: ServerError) {
        self.final_error = Some(error);
    }

    /// The server's error before it ended the connection.
    pub(super) fn take_final_error(&mut self) -> Option<ServerError> {
        self.final_error.take()
    }

    // ---- queries of ours

    /// Nothing of the client is sent until our query is answered.
    #[inline]
    pub(super) fn holds_client(&self) -> bool {
        self.own.holds_client
    }

    /// Whether anything of the client may be sent before our query is answered.
    pub(super) fn hold_client(&mut self, holds_client: bool) {
        self.own.holds_client = holds_client;
    }

    /// A parameter was reported while a query of ours ran.
    pub(super) fn push_reported(&mut self, name: String, value: String) {
        self.own.reported.push((name, value));
    }

    /// Everything that was reported while queries of ours ran.
    pub(super) fn take_reported(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.own.reported)
    }

    /// The row that answers a question of ours begins.
    pub(super) fn begin_row(&mut self, bytes: &[u8]) {
        self.own.row = bytes.to_vec();
    }

    /// More of a row of ours, which may come in pieces.
    pub(super) fn continue_row(&mut self, bytes: &[u8]) {
        if !self.own.row.is_empty() && self.own.row.len() < ROW_MAX {
            self.own.row.extend_from_slice(bytes);
        }
    }

    /// The row that answered a question of ours.
    pub(super) fn take_row(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.own.row)
    }

    /// A query of ours failed, or none did so far.
    pub(super) fn set_refusal(&mut self, error: Option<ServerError>) {
        self.own.refusal = error;
    }

    /// Why a query of ours failed, if it did.
    pub(super) fn take_refusal(&mut self) -> Option<ServerError> {
        self.own.refusal.take()
    }

    // ---- timeouts

    /// A statement is sent that changes timeouts of the client, perhaps.
    pub(super) fn extend_limits(&mut self, is_extended: bool) {
        self.limits.is_extended |= is_extended;
    }

    /// Whether timeouts of the client changed since the last release point.
    #[inline]
    pub(super) fn take_extended(&mut self) -> bool {
        std::mem::take(&mut self.limits.is_extended)
    }

    /// Our own clock has a statement cancelled.
    pub(super) fn cancel_for(&mut self, timeout: Timeout) {
        self.limits.cancelling = Some(timeout);
    }

    /// The timeout for which our own clock has a statement cancelled.
    pub(super) fn cancelling(&self) -> Option<Timeout> {
        self.limits.cancelling
    }

    /// The client got the error of a timeout, which is counted.
    pub(super) fn timeout_counted(&mut self, timeout: Timeout) {
        self.limits.is_counted |= timeout == Timeout::Transaction;
        self.limits.cancelling = None;
    }

    /// The timeout is counted already: an error of this transaction told of it.
    pub(super) fn is_counted(&self, timeout: Timeout) -> bool {
        self.limits.is_counted && timeout == Timeout::Transaction
    }
}
