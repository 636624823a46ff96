//! Prepares a client's statements on the backend that it has now, as they were when the client prepared them.
//!
//! A backend that lacks a statement gets it with the types of its first analysis and under the settings of that moment,
//! and nothing of the client is sent until Describe has shown the same columns: where they differ, the client gets the
//! error that Postgres gives to a statement whose table has changed (`RevalidateCachedQuery` of `plancache.c`). Only a
//! statement whose Parse no backend has read means what this one makes of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::leased::Leased;
use super::reply_action::ReplyAction;
use super::session::Session;
use crate::sql::{Value, assume, assume_one, is_read_when_run};
use crate::state::settings::{ENCODING, Settings, SettingsRegistry, is_harmless};
use crate::state::statements::{self, Statement};
use crate::wire::build;
use crate::wire::build::split_cstring;
use crate::wire::expected::{Expect, TransactionStatus};
use crate::wire::splice::Splice;

/// Name of the failing statement and portal, and of those of ours within a unit of the client; no client uses it, and
/// no shared statement has it.
pub(super) const FAILING_NAME: &[u8] = b"pgweir_spoiler";

/// Name of a statement of the client that executes others by their names.
pub(super) const EXECUTING_NAME: &[u8] = b"pgweir_executing";

/// Body of a Parse of the empty text, behind the name. Postgres takes it in a failed transaction, too.
pub(super) const EMPTY_TEXT: &[u8] = b"\0\0\0";

/// Number of no statement.
const NOWHERE: u64 = u64::MAX;

/// Where a statement of the client is.
pub(super) enum Presence {
    /// The backend has it under this number, or drops the message unread anyway.
    Here(u64),
    /// Everything in front has to be answered first.
    Wait,
    /// The backend is preparing it.
    UnderWay,
    /// The backend could not prepare it: the frame of the error.
    Refused(Box<[u8]>),
    /// The transaction has failed, and nothing is prepared in it.
    Aborted,
}

/// Lets the backend prepare a statement that it lacks.
pub(super) fn bring(
    statement: &Arc<Statement>,
    session: &mut Session,
    leased: &mut Leased,
    registry: &SettingsRegistry,
    out: &mut Splice<'_>,
) -> Presence {
    if let Some(error) = leased.cycle.take_unprepared(statement.id) {
        return Presence::Refused(error);
    }
    // The server drops the message unread; or the text is too large to be kept, and gone with its backend.
    if leased.cycle.replies().is_skipping() || statement.is_large() {
        return Presence::Here(NOWHERE);
    }
    if !leased.cycle.replies().is_empty() && !leased.cycle.replies().is_copying_in() {
        return Presence::Wait;
    }
    if statement.analysis().is_none() {
        return Presence::Here(NOWHERE);
    }
    if leased.cycle.status_under_way() == TransactionStatus::Failed && !statement.is_taken_when_failed(session.lexer) {
        return Presence::Aborted;
    }
    let (in_force, _) = session.settings_in_force(registry);
    let in_unit = leased.cycle.is_unit_open();
    let mut differing = differing(&in_force, &statement.settings);
    // A statement that means the same under all settings may have to be the first of its transaction.
    if !differing.is_empty()
        && (statement.class.as_ref().is_some_and(|class| class.controls_transactions_only())
            || split_cstring(statement.rest()).is_some_and(|(text, _)| is_read_when_run(text, session.lexer)))
    {
        differing.clear();
    }
    // In a transaction a Query would end the unnamed portal of the client.
    let is_within =
        !differing.is_empty() && (in_unit || leased.cycle.replies().status() == TransactionStatus::InTransaction);
    let is_apart = !differing.is_empty() && leased.cycle.replies().status() == TransactionStatus::Idle && !in_unit;
    let frame = is_apart.then(|| Surrounding::new(&differing, &statement.settings));
    if let Some(frame) = &frame {
        session.statements.leave_unnamed();
        leased.cycle.query(out.buffer(), &frame.begin, ReplyAction::Assumes);
    }
    if is_within {
        assume_within(&differing, &statement.settings, leased, out);
    }
    let number = admit(statement, session, leased, out);
    let name = statements::name(number);
    let action = ReplyAction::Parses { statement: Arc::clone(statement), undo: None };
    leased.cycle.expect_own(Expect::Parse, Some(action));
    if statement.is_borrowed() {
        build::parse(out.buffer(), &name, statement.rest());
    } else {
        build::parse(out.buffer(), &name, &statement.rest_with_types());
    }
    leased.cycle.expect_own(Expect::DescribeStatement, Some(ReplyAction::Verifies(Arc::clone(statement))));
    build::describe_statement(out.buffer(), &name);
    if is_within {
        assume_within(&differing, &in_force, leased, out);
    }
    if in_unit {
        // Its answer is the last.
        leased.cycle.expect_own(Expect::Close, Some(ReplyAction::Prepared(Arc::clone(statement))));
        build::close_statement(out.buffer(), FAILING_NAME);
        out.insert(build::FLUSH);
    } else {
        let action = match &frame {
            Some(_) => ReplyAction::Assumes,
            None => ReplyAction::Prepared(Arc::clone(statement)),
        };
        leased.cycle.expect_own(Expect::Sync, Some(action));
        out.insert(build::SYNC);
    }
    if let Some(frame) = frame {
        leased.cycle.query(out.buffer(), frame.end, ReplyAction::Prepared(Arc::clone(statement)));
    }
    leased.cycle.hold_client(true);
    Presence::UnderWay
}

/// Gives a statement a number, and closes others to make room: outdated ones, and those used longest ago if the backend
/// is full.
pub(super) fn admit(statement: &Statement, session: &Session, leased: &mut Leased, out: &mut Splice<'_>) -> u64 {
    if !leased.cycle.replies().is_skipping() {
        let most = session.pool.settings().pool.statements_max.max(1) as usize;
        while let Some(number) = leased.lease.statements.next_to_close(most) {
            leased.cycle.expect_own(Expect::Close, Some(ReplyAction::Closes(number)));
            build::close_statement(out.buffer(), &statements::name(number));
        }
    }
    leased.lease.statements.prepare(statement.id)
}

/// Settings that an analysis depends on and that differ between two sets, by name.
fn differing<'a>(have: &'a Settings, want: &'a Settings) -> BTreeSet<&'a str> {
    if have.meaning() == want.meaning() {
        return BTreeSet::new();
    }
    let names = have.values().keys().chain(want.values().keys()).map(String::as_str);
    names.filter(|name| !is_harmless(name) && have.values().get(*name) != want.values().get(*name)).collect()
}

/// Queries around an analysis under other settings: what they set is gone afterwards, and the statement stays.
struct Surrounding {
    begin: Vec<u8>,
    end: &'static [u8],
}

impl Surrounding {
    fn new(names: &BTreeSet<&str>, settings: &Settings) -> Self {
        let values = names.iter().map(|name| (*name, settings.values().get(*name).unwrap_or(&Value::Default)));
        let begin = b"BEGIN ISOLATION LEVEL READ COMMITTED, NOT DEFERRABLE;";
        Self { begin: [&begin[..], &assume(values)].concat(), end: b"ROLLBACK" }
    }
}

/// Gives settings these values within a unit or transaction of the client, to its end. Behind the analysis they have
/// those of before: what the client has set for longer stays.
fn assume_within(names: &BTreeSet<&str>, values: &Settings, leased: &mut Leased, out: &mut Splice<'_>) {
    // The bytes of all others are of the encoding that is in force with them.
    let (encoding, others): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| **name == ENCODING);
    for name in encoding.iter().chain(&others) {
        let value = values.values().get(*name).unwrap_or(&Value::Default);
        execute_own(&assume_one(name, value), leased, out);
    }
}

/// Sends a statement of ours within the client's unit.
pub(super) fn execute_own(text: &[u8], leased: &mut Leased, out: &mut Splice<'_>) {
    let closes = [Expect::Close, Expect::Close];
    for expect in [Expect::Close, Expect::Parse, Expect::Bind, Expect::Execute].into_iter().chain(closes) {
        leased.cycle.expect_own(expect, None);
    }
    let out = out.buffer();
    build::close_statement(out, FAILING_NAME);
    build::parse(out, FAILING_NAME, &[text, EMPTY_TEXT].concat());
    build::bind(out, FAILING_NAME, FAILING_NAME);
    build::execute(out, FAILING_NAME);
    build::close_portal(out, FAILING_NAME);
    build::close_statement(out, FAILING_NAME);
}
