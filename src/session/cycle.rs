//! The accounting of one lease: outstanding answers of the backend, the outcome of the transaction, and queries of
//! ours.
//!
//! Everything is written here and nowhere else; [`super::frontend`], [`super::answers`] and [`super::cleanup`] report
//! each event. The state is boxed and used again by the worker's next lease, so that a lease costs no allocation.

use super::facts::Facts;
use super::reply_action::ReplyAction;
use super::running::RunningStatements;
use super::side::Side;
use super::stopwatch::LeaseTimes;
use super::transaction::TransactionLog;
use crate::sql::{Effect, StateFlags, StatementEffects};
use crate::state::statements::Analysis;
use crate::state::timeout::Timeout;
use crate::wire::build::{self, ServerError};
use crate::wire::expected::{Answer, Expect, ExpectedReplies, ExpectedReply, Origin, TransactionStatus, Unexpected};
use crate::wire::frame::HEADER_LEN;
use crate::wire::tag::backend;

/// Longer than any answer to a question of ours.
const ROWS_MAX: usize = 1024 * 1024;

/// Name of the statement and portal of our questions; no client uses it.
const OWN_NAME: &[u8] = b"pgweir_question";

/// Times that a question of ours is asked again, because a cancel that came too late for the client's query hit it.
const RETRIES_MAX: u32 = 3;

/// State of the cycles of one lease.
#[derive(Debug, Default)]
pub(crate) struct CycleState {
    /// Messages not answered yet.
    replies: ExpectedReplies<ReplyAction>,
    /// Scratch of the replies: entries that an error made the server drop.
    dropped: Vec<ExpectedReply<ReplyAction>>,
    /// The backend's side of the relay.
    pub(super) backend: Side,
    /// Outcome of the transaction control under way.
    outcome: PendingOutcome,
    /// Facts that messages under way may change; void once all of them are answered.
    pending: Facts,
    /// The answer that the client's next message waits for.
    hold: HeldFor,
    /// Log of the transaction.
    log: TransactionLog,
    /// Queries of ours.
    own: OwnQueries,
    /// Timeouts by our own clock.
    limits: OwnLimits,
    /// The server's error before it ended the connection.
    final_error: Option<ServerError>,
    /// Statements of the client, where they are counted.
    running: RunningStatements,
    pub(super) times: LeaseTimes,
    /// So many messages wait for their answers that the client is not read.
    pub(super) is_throttled: bool,
}

/// The answer that the client's next message waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum HeldFor {
    /// None: it may be sent.
    #[default]
    None,
    /// That to everything in front of it, on which its meaning depends.
    Answers,
    /// That to a query of ours.
    Own,
}

/// Outcome of the BEGIN, COMMIT and ROLLBACK that are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum PendingOutcome {
    /// None is under way: the transaction stays as the server reported it last.
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
    /// Parameters reported while a query of ours ran.
    reported: Vec<(String, String)>,
    /// The rows that answer a question, as far as they have come.
    rows: Vec<u8>,
    /// Times that a question failed.
    retries: u32,
    /// Frame of the error of a query of ours that failed.
    refusal: Option<Box<[u8]>>,
    /// Types that the answer to a Describe of ours begins with.
    parameters: Vec<u8>,
    /// Statement that the backend could not prepare as the client has it, and the error for the message that needs it.
    unprepared: Option<(u64, Box<[u8]>)>,
}

/// Timeouts, as far as our own clock is concerned.
#[derive(Debug, Clone, Copy, Default)]
struct OwnLimits {
    /// The client changed timeouts, and our clock applies the longest it may have.
    is_extended: bool,
    /// Timeout for which our own clock has a cancel under way.
    cancelling: Option<Timeout>,
    /// The transaction timeout is counted already.
    is_counted: bool,
}

impl CycleState {
    /// Resets the state for another lease. False: something is outstanding, and the state must not be used again.
    pub(crate) fn recycle(&mut self) -> bool {
        if !self.replies.can_release() {
            return false;
        }
        self.backend.set_forwarding(false);
        self.outcome = PendingOutcome::Unchanged;
        self.log = TransactionLog::default();
        self.pending = Facts::NONE;
        self.hold = HeldFor::None;
        self.own.reported.clear();
        self.own.rows.clear();
        self.own.retries = 0;
        self.own.refusal = None;
        self.own.unprepared = None;
        self.limits = OwnLimits::default();
        self.final_error = None;
        self.running.clear();
        self.dropped.clear();
        self.is_throttled = false;
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

    /// Records a message of the client to the backend. Returns the action of a message that the server will drop
    /// unread.
    #[inline]
    pub(super) fn expect(&mut self, expect: Expect, action: Option<ReplyAction>) -> Option<ReplyAction> {
        if self.is_anything_pending()
            && expect.is_cycle()
            && self.pending().intersects(Facts::UNIT_NAMES.or(Facts::UNIT_UNNAMED))
        {
            self.unit_ends();
        }
        let before = self.replies.len();
        let refused = self.replies.push(expect, Origin::Client, action);
        if self.running.has_subject() && self.replies.len() > before {
            self.running.sent(expect);
        }
        refused
    }

    /// Records a message of ours to the backend.
    #[inline]
    pub(super) fn expect_own(&mut self, expect: Expect, action: Option<ReplyAction>) {
        self.replies.push(expect, Origin::Own, action);
    }

    /// Appends a Query of ours.
    pub(super) fn query(&mut self, out: &mut Vec<u8>, sql: &[u8], action: ReplyAction) {
        build::query(out, sql);
        self.expect_own(Expect::Query, Some(action));
    }

    /// Appends a question of ours, in messages that leave the unnamed statement and portal alone.
    pub(super) fn question(&mut self, out: &mut Vec<u8>, sql: &[u8], action: ReplyAction) {
        for expect in [Expect::Close, Expect::Parse, Expect::Bind, Expect::Execute, Expect::Close] {
            self.expect_own(expect, None);
        }
        self.expect_own(Expect::Sync, Some(action));
        build::close_statement(out, OWN_NAME);
        build::parse(out, OWN_NAME, &[sql, b"\0\0\0"].concat());
        build::bind(out, OWN_NAME, OWN_NAME);
        build::execute(out, OWN_NAME);
        build::close_statement(out, OWN_NAME);
        out.extend_from_slice(build::SYNC);
    }

    /// Handles one message of the backend; `bytes` is its frame, or the head of a long one.
    #[inline]
    pub(super) fn answer(&mut self, tag: u8, bytes: &[u8]) -> Result<Answer<ReplyAction>, Unexpected> {
        let byte = bytes.get(HEADER_LEN).copied().filter(|_| tag == backend::READY_FOR_QUERY);
        let answer = self.replies.answer(tag, byte.and_then(TransactionStatus::from_byte), &mut self.dropped);
        if !self.running.is_empty()
            && let Ok(answer) = &answer
            && answer.origin == Some(Origin::Client)
        {
            statement_answered(&mut self.running, tag, bytes, answer);
        }
        answer
    }

    /// Statements of the client, where they are counted.
    #[inline]
    pub(super) fn running(&mut self) -> &mut RunningStatements {
        &mut self.running
    }

    /// The next answer of ours to a message of the client, if it is due.
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

    /// No more than one statement may have run at the server since its last answer.
    pub(super) fn is_single(&self) -> bool {
        let of = |entry: &ExpectedReply<ReplyAction>| match (entry.expect, &entry.action) {
            (Expect::Query, Some(ReplyAction::Runs(runs))) if runs.class.may_begin.contains(StateFlags::UNCERTAIN) => 2,
            (Expect::Query, Some(ReplyAction::Runs(runs))) => runs.class.statements.saturating_sub(runs.completed),
            (Expect::Query, Some(ReplyAction::Several(statements))) => *statements,
            (Expect::Query | Expect::Execute | Expect::FunctionCall, _) => 1,
            _ => 0,
        };
        self.replies.iter().map(of).fold(0, u32::saturating_add) <= 1
    }

    /// True if statements of the client follow the unit that the server is at: it will begin them without being asked.
    pub(super) fn has_units_behind(&self) -> bool {
        let runs = |entry: &ExpectedReply<ReplyAction>| {
            entry.origin == Origin::Client
                && matches!(entry.expect, Expect::Query | Expect::Execute | Expect::FunctionCall)
        };
        self.replies.iter().skip_while(|entry| !entry.expect.is_cycle()).skip(1).any(runs)
    }

    /// Bytes of memory that it takes, about.
    #[inline]
    pub(super) fn memory(&self) -> usize {
        self.replies.len() * size_of::<ExpectedReply<ReplyAction>>() + self.backend.memory()
    }

    // ---- the transaction

    /// A copy of the transaction's log to add to; give it back with [`Self::set_log`].
    #[inline]
    pub(super) fn log(&self) -> TransactionLog {
        self.log
    }

    /// Stores the log.
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

    /// Status that the last BEGIN, COMMIT or ROLLBACK under way leads to; `None`: there is none.
    #[inline]
    pub(super) fn pending_outcome(&self) -> Option<TransactionStatus> {
        match self.outcome {
            PendingOutcome::Unchanged => None,
            PendingOutcome::Changes { status, .. } => Some(status),
        }
    }

    /// The status behind everything under way, unless something fails.
    pub(super) fn status_under_way(&self) -> TransactionStatus {
        self.pending_outcome().unwrap_or_else(|| self.replies.status())
    }

    /// Messages of the extended protocol were sent, and their Sync was not.
    pub(super) fn is_unit_open(&self) -> bool {
        self.replies.is_unsynced() || self.replies.is_skipping()
    }

    /// True if the error under way ends a query of ours, or a unit of ours to its own Sync; the client gets all others.
    pub(super) fn is_own_error(&self) -> bool {
        self.replies.head().is_some_and(|head| head.origin == Origin::Own && head.expect.is_cycle())
    }

    /// True if the client loses a transaction with its backend, and may send more of it before it knows.
    pub(super) fn loses_transaction(&self) -> bool {
        let is_open = self.replies.status() != TransactionStatus::Idle;
        let is_cycle = |entry: &&ExpectedReply<ReplyAction>| entry.origin == Origin::Client && entry.expect.is_cycle();
        match self.pending_outcome() {
            // A client that waits for the answer to its BEGIN learns from its error that there is no transaction; if it
            // has sent more already, that would run on its own.
            Some(TransactionStatus::InTransaction) => {
                is_open || self.is_unit_open() || self.replies.iter().filter(is_cycle).count() > 1
            }
            Some(_) => false,
            None => is_open,
        }
    }

    /// The server sent this error and ends the connection.
    pub(super) fn set_final_error(&mut self, error: ServerError) {
        self.final_error = Some(error);
    }

    /// The server's error before it ended the connection.
    pub(super) fn take_final_error(&mut self) -> Option<ServerError> {
        self.final_error.take()
    }

    // ---- messages that wait

    /// Statements with these effects are about to be sent; `is_followed`: as in [`Facts::changed_by`].
    pub(super) fn changes(&mut self, class: &StatementEffects, is_followed: bool) {
        let is_followed = is_followed || self.pending().intersects(Facts::SETTINGS);
        self.note(Facts::changed_by(class, is_followed));
    }

    /// The open unit gives or takes names of prepared statements.
    pub(super) fn changes_names(&mut self) {
        self.note(Facts::UNIT_NAMES);
    }

    /// The open unit prepares the unnamed statement, behind messages that may fail.
    pub(super) fn changes_unnamed(&mut self) {
        self.note(Facts::UNIT_UNNAMED);
    }

    /// True if a message that means the unnamed statement has to wait: whether an earlier unit has prepared it is not
    /// known yet. At worst the backend has one of another client.
    pub(super) fn must_wait_for_unnamed(&self) -> bool {
        !self.pending().intersects(Facts::UNIT_UNNAMED) && self.must_wait_for(Facts::UNNAMED)
    }

    /// What the open unit changes is pending for the next.
    fn unit_ends(&mut self) {
        for (within, behind) in [(Facts::UNIT_NAMES, Facts::NAMES), (Facts::UNIT_UNNAMED, Facts::UNNAMED)] {
            if self.pending.intersects(within) {
                self.pending = self.pending.without(within).or(behind);
            }
        }
    }

    fn note(&mut self, facts: Facts) {
        self.pending = self.pending().or(facts);
    }

    /// Facts that messages under way may change.
    #[inline]
    pub(super) fn pending(&self) -> Facts {
        if self.replies.is_empty() { Facts::NONE } else { self.pending }
    }

    /// False if no message under way changes any fact.
    #[inline]
    pub(super) fn is_anything_pending(&self) -> bool {
        self.pending != Facts::NONE
    }

    /// True if a message that depends on these facts has to wait. The server reads no more before the end of a COPY, so
    /// nothing waits then.
    #[inline]
    pub(super) fn must_wait_for(&self, facts: Facts) -> bool {
        self.pending().intersects(facts) && !self.replies.is_copying_in() && !self.replies.is_skipping()
    }

    /// The answers that a message waited for are there: it is handled, and what follows need not wait for others.
    #[inline]
    pub(super) fn end_wait(&mut self) {
        if self.hold == HeldFor::Answers {
            self.hold = HeldFor::None;
        }
    }

    /// The next message of the client waits until everything in front of it is answered.
    pub(super) fn hold_for_answers(&mut self) {
        self.hold = HeldFor::Answers;
    }

    /// True if the client's next message must wait.
    #[inline]
    pub(super) fn holds_client(&self) -> bool {
        match self.hold {
            HeldFor::None => false,
            HeldFor::Answers => !self.replies.is_empty() && !self.replies.is_copying_in(),
            HeldFor::Own => true,
        }
    }

    /// Sets whether the client's next message waits for a query of ours.
    pub(super) fn hold_client(&mut self, holds_client: bool) {
        self.hold = if holds_client { HeldFor::Own } else { HeldFor::None };
    }

    // ---- queries of ours

    /// A parameter was reported while a query of ours ran.
    pub(super) fn push_reported(&mut self, name: String, value: String) {
        self.own.reported.push((name, value));
    }

    /// All parameters that were reported while queries of ours ran.
    pub(super) fn take_reported(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.own.reported)
    }

    /// A row that answers a question of ours begins.
    pub(super) fn begin_row(&mut self, bytes: &[u8]) {
        if self.own.rows.len() < ROWS_MAX {
            self.own.rows.extend_from_slice(bytes);
        }
    }

    /// More of a row of ours, which may come in pieces.
    pub(super) fn continue_row(&mut self, bytes: &[u8]) {
        if !self.own.rows.is_empty() {
            self.begin_row(bytes);
        }
    }

    /// The rows that answered a question of ours.
    pub(super) fn take_rows(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.own.rows)
    }

    /// A question of ours failed. True if it may be asked again.
    pub(super) fn may_retry(&mut self) -> bool {
        self.own.rows.clear();
        self.own.retries += 1;
        self.own.retries <= RETRIES_MAX
    }

    /// Stores the frame of the error of a query of ours, unless one before it failed.
    pub(super) fn refused(&mut self, error: Box<[u8]>) {
        self.own.refusal.get_or_insert(error);
    }

    /// Frame of the error of a query of ours, if one failed.
    pub(super) fn take_refusal(&mut self) -> Option<Box<[u8]>> {
        self.own.refusal.take()
    }

    /// The answer to a Describe of ours begins with these types.
    pub(super) fn set_parameters(&mut self, body: &[u8]) {
        self.own.parameters.clear();
        self.own.parameters.extend_from_slice(body);
    }

    /// The answer to a Describe of ours is complete with these columns.
    pub(super) fn analysis(&self, columns: &[u8]) -> Analysis {
        Analysis::new(&self.own.parameters, columns)
    }

    /// The message that waits for statement `id` gets this error instead.
    pub(super) fn set_unprepared(&mut self, id: u64, error: Box<[u8]>) {
        self.own.unprepared = Some((id, error));
    }

    /// The error for a message that needs statement `id`, if the backend could not prepare it just now.
    pub(super) fn take_unprepared(&mut self, id: u64) -> Option<Box<[u8]>> {
        self.own.unprepared.take().filter(|(of, _)| *of == id).map(|(_, error)| error)
    }

    // ---- timeouts

    /// A statement is sent that may change timeouts of the client.
    pub(super) fn extend_limits(&mut self, is_extended: bool) {
        self.limits.is_extended |= is_extended;
    }

    /// True if timeouts of the client changed since the last release point.
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

    /// True if the timeout is counted already, for an earlier error of this transaction.
    pub(super) fn is_counted(&self, timeout: Timeout) -> bool {
        self.limits.is_counted && timeout == Timeout::Transaction
    }
}

/// An answer for the client may end one of its statements; the caller tells errors, since it knows their timeouts.
#[inline]
fn statement_answered(running: &mut RunningStatements, tag: u8, bytes: &[u8], answer: &Answer<ReplyAction>) {
    let completed = answer.completed.as_ref().map(|entry| entry.expect);
    let is_execute = completed == Some(Expect::Execute);
    match tag {
        backend::COMMAND_COMPLETE => {
            let tag = bytes[HEADER_LEN..].strip_suffix(b"\0").unwrap_or_default();
            running.completed(is_execute, tag);
        }
        backend::EMPTY_QUERY_RESPONSE | backend::PORTAL_SUSPENDED => running.completed(is_execute, b""),
        backend::READY_FOR_QUERY if completed == Some(Expect::Query) => running.query_ended(),
        _ => {}
    }
}
