//! Handles the messages of a client: each is forwarded, renamed, preceded by another message, or answered by us.
//!
//! Nothing here does I/O: messages go into a [`Splice`] and into the [cycle](super::cycle) of the lease. Where Postgres
//! would raise an error that only we can foresee, a message that is bound to fail is sent instead and its error
//! replaced, so that order, aborted transactions and skip-until-Sync stay Postgres's business.

mod names;
mod own;
mod parse;
mod portals;
mod subject;

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::context::Worker;
use super::facts::Facts;
use super::lanes;
use super::leased::Leased;
use super::prepare::EMPTY_TEXT;
use super::reply_action::{ReplyAction, Runs};
use super::rewrite::rewrite;
use super::session::Session;
use crate::config::PoolMode;
use crate::error::Fault;
use crate::error::sqlstate;
use crate::sql::{Digest, Effect, Milliseconds, STAND_IN, StateFlags, StatementEffects, classify, milliseconds};
use crate::state::settings::SettingsRegistry;
use crate::state::statements::Statements;
use crate::state::timeout::Timeout;
use crate::wire::build;
use crate::wire::expected::Expect;
use crate::wire::frame::Header;
use crate::wire::message::{Message, Named, Request};
use crate::wire::splice::Splice;
use crate::wire::tag::frontend as tag;

/// Longest Query or Parse body that is read whole, in bytes; longer ones are streamed and taken as uncertain.
const TEXT_MAX: usize = 1024 * 1024;

/// Bytes of other messages that are read, enough to hold all names in them.
const NAMES_WANTED: usize = 64 * 1024;

/// Bytes of a Bind that are read, enough to hold names of any length and the arguments of a `pg_notify`.
const BIND_WANTED: usize = TEXT_MAX;

/// Query sent ahead of a PREPARE TRANSACTION that must fail. Nobody listens to it, and the transaction will not commit.
const FAILING_NOTIFY: &[u8] = b"NOTIFY pgweir_noop";

/// Text bound to fail in its analysis, so that a failed transaction is reported first, as with any Parse.
const WILL_FAIL: &[u8] = b"SELECT pgweir_refused_this_statement";

/// `pg_advisory_lock` and its like of `pg_proc.dat`.
const ADVISORY_OIDS: RangeInclusive<u32> = 2880..=2892;

/// `set_config` of `pg_proc.dat`.
const SET_CONFIG_OID: u32 = 2078;

/// A name that no statement has.
const NOBODY: &[u8] = b"pgweir_nobody";

/// Forgets what the last users of the backend got from sequences.
pub(super) const DISCARD_SEQUENCES: &[u8] = b"DISCARD SEQUENCES";

/// Bytes of a client's frame that are needed before it can be handled.
pub(crate) fn want(header: Header) -> usize {
    match header.tag {
        tag::QUERY | tag::PARSE => TEXT_MAX,
        tag::BIND => BIND_WANTED,
        tag::DESCRIBE | tag::CLOSE | tag::EXECUTE => NAMES_WANTED,
        tag::FUNCTION_CALL => size_of::<u32>(),
        _ => 0,
    }
}

/// Handling of a message, and of its rest if that is not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// The rest follows to the backend.
    Forward,
    /// The rest is left out.
    Discard,
    /// The message has to wait, with everything behind it.
    Hold,
}

/// One message on its way, with everything it may change.
pub(crate) struct Frontend<'a, 'b> {
    pub session: &'a mut Session,
    pub leased: &'a mut Leased,
    pub statements: &'a Statements,
    /// All sets of settings.
    pub registry: &'a SettingsRegistry,
    /// The thread's own state.
    pub worker: &'a Worker,
    /// Output to the backend.
    pub out: &'a mut Splice<'b>,
}

impl Frontend<'_, '_> {
    /// Handles one message.
    #[inline]
    pub(crate) fn message(&mut self, message: Message<'_>, request: Request<'_>) -> Rest {
        self.leased.cycle.end_wait();
        if self.leased.cycle.is_anything_pending() && self.leased.cycle.must_wait_for(needs(request)) {
            return self.hold();
        }
        // Within a COPY, too: the server has failed it already, and carries this out; or it loses its place in the
        // stream, and the connection ends.
        if self.worker.proxy.lanes.looks_later()
            && let Some(fault) = lanes::refused(self.worker, self.session, self.leased.lane_id(), request)
        {
            return self.refuse(message, &fault);
        }
        match request {
            Request::Query { text } => {
                let is_plain = self.begin_query(text);
                self.query(message, text, is_plain)
            }
            Request::Parse { name: b"", rest, text } => self.parse_unnamed(message, rest, text),
            Request::Parse { name, rest, text } => self.parse_named(message, name, rest, text),
            Request::Bind { portal, statement } => self.bind(message, portal, statement),
            Request::Describe(target) => self.describe(message, target),
            Request::Execute { portal } => {
                self.begin_execute(portal);
                self.execute(message, portal)
            }
            Request::Close(target) => self.close(message, target),
            Request::Sync => self.pass(message, Some(Expect::Sync), None),
            Request::FunctionCall { function } => self.function_call(message, function),
            Request::CopyEnd => self.pass(message, Some(Expect::CopyEnd), None),
            Request::Flush | Request::CopyData => self.pass(message, None, None),
        }
    }

    #[inline]
    fn push(&mut self, expect: Expect, action: Option<ReplyAction>) {
        let refused = self.leased.cycle.expect(expect, action);
        if let Some(action) = refused {
            self.session.take_back(action, &mut self.leased.lease);
        }
    }

    /// Forwards a message as it is.
    #[inline]
    fn pass(&mut self, message: Message<'_>, expect: Option<Expect>, action: Option<ReplyAction>) -> Rest {
        if let Some(expect) = expect {
            self.push(expect, action);
        }
        self.out.pass(message.bytes, message.fresh);
        Rest::Forward
    }

    /// Answers a message ourselves, in its place.
    fn answer(&mut self, message: Message<'_>, action: ReplyAction) -> Rest {
        self.push(Expect::Synthetic, Some(action));
        self.out.skip(message.fresh);
        Rest::Discard
    }

    /// Lets the client's messages wait for the answers to everything in front of this one.
    fn hold(&mut self) -> Rest {
        self.leased.cycle.hold_for_answers();
        // The server answers an open unit only when it is told to.
        if self.leased.cycle.replies().is_unsynced() {
            self.out.insert(build::FLUSH);
        }
        Rest::Hold
    }

    /// Sends a message that fails at Postgres in the place of one that we refuse: a Query or else a Parse, so that a
    /// failed transaction is reported first; for a Bind of a statement that does not exist, or that does not fit it, a
    /// Bind, whose error comes before that.
    fn refuse(&mut self, message: Message<'_>, fault: &Fault) -> Rest {
        let mut error = Vec::new();
        build::error_response(&mut error, &sqlstate::report(fault));
        let is_first = matches!(fault, Fault::NoStatement(_) | Fault::NoUnnamedStatement | Fault::WrongBind(_));
        self.refuse_with(message, error.into(), is_first)
    }

    fn refuse_with(&mut self, message: Message<'_>, error: Box<[u8]>, is_first: bool) -> Rest {
        let expect = match message.tag {
            tag::QUERY => Expect::Query,
            _ if is_first => Expect::Bind,
            _ => Expect::Parse,
        };
        self.push(expect, Some(ReplyAction::Refuses(error)));
        self.out.skip(message.fresh);
        let out = self.out.buffer();
        match expect {
            Expect::Query => build::query(out, WILL_FAIL),
            Expect::Bind => build::bind(out, b"", NOBODY),
            _ => {
                build::parse(out, b"", &[WILL_FAIL, EMPTY_TEXT].concat());
                self.session.statements.leave_unnamed();
            }
        }
        Rest::Discard
    }

    #[inline]
    fn query(&mut self, message: Message<'_>, text: Option<&[u8]>, is_plain: bool) -> Rest {
        if self.leased.cycle.is_unit_open() && self.waits_to_drop_unnamed() {
            return self.hold();
        }
        let is_read = !text.is_some_and(|text| self.session.is_unreadable(text));
        if is_read && !self.leased.cycle.replies().is_skipping() {
            self.session.statements.drop_unnamed();
        }
        if is_plain {
            return self.pass(message, Some(Expect::Query), None);
        }
        let class = text.map_or_else(uncertain, |text| classify(text, self.session.lexer));
        if class.is_ordinary() {
            let action = (class.statements > 1).then_some(ReplyAction::Several(class.statements));
            return self.pass(message, Some(Expect::Query), action);
        }
        let executed = match text.map(|text| self.executed_instead(text, &class)) {
            Some(Err(rest)) => return rest,
            Some(Ok(executed)) => executed,
            None => None,
        };
        let (text, class) = match &executed {
            Some(text) => (Some(&text[..]), classify(text, self.session.lexer)),
            None => (text, class),
        };
        if let Some(fault) = self.forbidden(&class) {
            return self.refuse(message, &fault);
        }
        if class.is_lone_deallocate()
            && !self.session.keeps_own_names()
            && self.leased.cycle.must_wait_for(Facts::NAMES)
        {
            return self.hold();
        }
        if self.is_our_deallocate(&class) {
            let action = Some(self.deallocates(class));
            return self.query_instead(message, action, STAND_IN);
        }
        let (instead, mut class) = match text.and_then(|text| rewrite(self.session, text, b"", &class)) {
            Some((text, class)) => (Some(text), class),
            None => (None, class),
        };
        let renamed = match instead.as_deref().or(text).map(|text| self.rename_in_sql(message, text, &mut class)) {
            Some(Err(rest)) => return rest,
            Some(Ok(renamed)) => renamed,
            None => None,
        };
        if self.waits_to_prepare(&class) {
            return self.hold();
        }
        if let Some(fault) = self.unnotifiable(&class).or_else(|| self.oversized(&class)) {
            return self.refuse(message, &fault);
        }
        self.fail_prepare(&class);
        self.leave_sequences(&class, true);
        let class = Arc::new(class);
        let action = match self.duplicate(&class) {
            Some(error) => Some(ReplyAction::Duplicates(error)),
            None => self.runs(|| Arc::clone(&class), &class),
        };
        match renamed.or(instead).or(executed) {
            Some(text) => self.query_instead(message, action, &text),
            None => self.pass(message, Some(Expect::Query), action),
        }
    }

    /// True if an error in front of a Query without a Sync between may drop it: then the unnamed statement stays.
    #[cold]
    fn waits_to_drop_unnamed(&self) -> bool {
        let replies = self.leased.cycle.replies();
        !replies.is_empty() && !replies.is_copying_in() && !replies.is_skipping()
    }

    /// Sends another Query in the place of the client's.
    fn query_instead(&mut self, message: Message<'_>, action: Option<ReplyAction>, text: &[u8]) -> Rest {
        self.push(Expect::Query, action);
        self.out.skip(message.fresh);
        build::query(self.out.buffer(), text);
        Rest::Discard
    }

    fn function_call(&mut self, message: Message<'_>, function: u32) -> Rest {
        let may_begin = match function {
            oid if ADVISORY_OIDS.contains(&oid) => StateFlags::ADVISORY,
            SET_CONFIG_OID => StateFlags::SETTINGS,
            _ => return self.pass(message, Some(Expect::FunctionCall), None),
        };
        let class = Arc::new(StatementEffects { statements: 1, may_begin, ..StatementEffects::default() });
        let action = ReplyAction::Runs(Box::new(Runs::new(class)));
        self.pass(message, Some(Expect::FunctionCall), Some(action))
    }

    /// The fault of a text that the pool's mode forbids.
    fn forbidden(&self, class: &StatementEffects) -> Option<Fault> {
        (self.session.mode == PoolMode::Statement && class.begins_transaction()).then_some(Fault::StatementMode)
    }

    /// Lets our clock apply a timeout that the client sets as soon as it is sent: the answer may come together with
    /// that of the next statement.
    fn extend(&mut self, class: &StatementEffects) {
        let leased = &mut *self.leased;
        for (_, effect) in &class.effects {
            let is_extended = match effect {
                Effect::Set { setting, .. } => Timeout::of_setting(&setting.name).is_some_and(|timeout| {
                    let own = match milliseconds(&setting.value) {
                        Milliseconds::Known(own) => own,
                        Milliseconds::Refused => return false,
                        Milliseconds::Unread => 0,
                    };
                    leased.lease.target.clock.extend(timeout, own, &self.session.pool.settings().timeouts);
                    true
                }),
                Effect::Reset(name) => Timeout::of_setting(name).is_some(),
                Effect::ResetAll => true,
                _ => false,
            };
            leased.cycle.extend_limits(is_extended);
        }
    }

    /// The action for a text that is not ordinary.
    #[inline]
    fn runs(
        &mut self,
        shared: impl FnOnce() -> Arc<StatementEffects>,
        class: &StatementEffects,
    ) -> Option<ReplyAction> {
        for (_, effect) in &class.effects {
            self.leased.cycle.sends(effect);
        }
        let is_followed = self.session.follow.is_some() || self.leased.cycle.pending().intersects(Facts::SETTINGS);
        self.leased.cycle.changes(class, is_followed);
        if class.changes_settings() {
            self.extend(class);
        }
        // Tags are not enough for savepoints: the effect of one may be known only after it. That of a PREPARE
        // TRANSACTION outside a block is ROLLBACK, though nothing is rolled back.
        let is_told_by_tag = |effect: &Effect| {
            use Effect::{PrepareTransaction, Release, RollbackTo, Savepoint};
            effect.controls_transaction()
                && !matches!(effect, Savepoint(_) | Release(_) | RollbackTo(_) | PrepareTransaction)
        };
        let only_transactions = class.replaced.is_empty()
            && (class.may_begin | class.may_end).is_empty()
            && class.effects.iter().all(|(_, effect)| is_told_by_tag(effect));
        if only_transactions && !is_followed {
            return (class.statements > 1).then_some(ReplyAction::Several(class.statements));
        }
        Some(ReplyAction::Runs(Box::new(Runs::new(shared()))))
    }
}

/// Outcome of a message that names a statement.
enum Naming {
    /// The message was sent; the effects of the statement, if any, and its digest.
    Forwarded(Option<Arc<StatementEffects>>, Digest),
    /// The client has no statement of that name.
    Unknown,
    /// The message waits or was refused.
    Handled(Rest),
}

/// The facts that the meaning of a message depends on.
#[inline]
fn needs(request: Request<'_>) -> Facts {
    match request {
        Request::Query { .. } | Request::Parse { name: b"", .. } => Facts::SESSION.or(Facts::LEXER),
        Request::Parse { .. } => Facts::SESSION.or(Facts::LEXER).or(Facts::SETTINGS).or(Facts::NAMES),
        Request::Bind { statement: b"", .. } | Request::Describe(Named::Statement(b"")) => Facts::SESSION,
        Request::Bind { .. } | Request::Describe(Named::Statement(_)) | Request::Close(Named::Statement(_)) => {
            Facts::SESSION.or(Facts::NAMES)
        }
        Request::Execute { .. } | Request::FunctionCall { .. } => Facts::SESSION,
        _ => Facts::NONE,
    }
}

/// Sends a message with another name of its statement. `before`: the body in front of the name.
#[inline]
fn rename(out: &mut Splice<'_>, message: Message<'_>, before: &[u8], name: &[u8], ours: &[u8]) {
    let length = message.body + 4 - name.len() + ours.len();
    let length = u32::try_from(length).expect("checked by the walker");
    out.skip(message.fresh);
    let out = out.buffer();
    out.push(message.tag);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(before);
    out.extend_from_slice(ours);
    out.extend_from_slice(&message.payload()[before.len() + name.len()..]);
}

/// The effects of a text that was not read to its end.
fn uncertain() -> StatementEffects {
    StatementEffects { may_begin: StateFlags::UNCERTAIN, ..StatementEffects::default() }
}
