//! Handles the messages of a client: each is forwarded, renamed, preceded by another message, or answered by us.
//!
//! Nothing here does I/O: messages go into a [`Splice`] and into the [cycle](super::cycle) of the lease. Where Postgres
//! would raise an error that only we can foresee, a message that is bound to fail is sent instead and its error
//! replaced, so that order, aborted transactions and skip-until-Sync stay Postgres's business.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::leased::Leased;
use super::notifications;
use super::reply_action::{ReplyAction, Runs};
use super::rewrite::{intern, rewrite};
use super::session::Session;
use super::statements::{NAMES_MAX, Portal, Unnamed};
use crate::config::PoolMode;
use crate::error::Fault;
use crate::error::sqlstate;
use crate::notify::notification::Unnotifiable;
use crate::sql::{Effect, Milliseconds, STAND_IN, StateFlags, StatementEffects, classify, milliseconds};
use crate::state::statements::{self, NAME_PREFIX, Statement, Statements};
use crate::state::timeout::Timeout;
use crate::wire::build;
use crate::wire::expected::{Expect, ExpectedReply, TransactionStatus};
use crate::wire::frame::Header;
use crate::wire::message::{Message, Named, Request};
use crate::wire::splice::Splice;
use crate::wire::tag::frontend as tag;

/// Longest Query or Parse body that is read whole, in bytes; longer ones are streamed and taken as uncertain.
const TEXT_MAX: usize = 64 * 1024;

/// Bytes of other messages that are read, enough to hold all names in them.
const NAMES_WANTED: usize = 1024;

/// Bytes of a Bind that are read, enough to hold the arguments of a `pg_notify`, too.
const BIND_WANTED: usize = NAMES_WANTED + 8 * 1024;

/// Query sent ahead of a PREPARE TRANSACTION that must fail. Nobody listens to it, and the transaction will not commit.
const FAILING_NOTIFY: &[u8] = b"NOTIFY pgweir_noop";

/// Name of the failing statement and portal; no client uses it, and no shared statement has it.
const FAILING_NAME: &[u8] = b"pgweir_spoiler";

/// Text bound to fail in its analysis, so that a failed transaction is reported first, as with any Parse.
const WILL_FAIL: &[u8] = b"SELECT pgweir_refused_this_statement";

/// `pg_advisory_lock` and its like of `pg_proc.dat`.
const ADVISORY_OIDS: RangeInclusive<u32> = 2880..=2892;

/// `set_config` of `pg_proc.dat`.
const SET_CONFIG_OID: u32 = 2078;

/// A name that no statement has.
const NOBODY: &[u8] = b"pgweir_nobody";

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

/// Handling of the rest of a message that is not all there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// The rest follows to the backend.
    Forward,
    /// The rest is left out.
    Discard,
}

/// One message on its way, with everything it may change.
pub(crate) struct Frontend<'a, 'b> {
    pub session: &'a mut Session,
    pub leased: &'a mut Leased,
    pub statements: &'a Statements,
    /// Output to the backend.
    pub out: &'a mut Splice<'b>,
}

impl Frontend<'_, '_> {
    /// Handles one message.
    #[inline]
    pub(crate) fn message(&mut self, message: Message<'_>, request: Request<'_>) -> Rest {
        match request {
            Request::Query { text } => self.query(message, text),
            Request::Parse { name: b"", rest, text } => self.parse_unnamed(message, rest, text),
            Request::Parse { name, rest, text } => self.parse_named(message, name, rest, text),
            Request::Bind { portal, statement } => self.bind(message, portal, statement),
            Request::Describe(target) => self.describe(message, target),
            Request::Execute { portal } => self.execute(message, portal),
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

    /// Sends a message that fails at Postgres in the place of one that we refuse: for a Query, a Parse, or else a Bind.
    fn refuse(&mut self, message: Message<'_>, fault: &Fault) -> Rest {
        let mut error = Vec::new();
        build::error_response(&mut error, &sqlstate::report(fault));
        let expect = match message.tag {
            tag::QUERY => Expect::Query,
            tag::PARSE => Expect::Parse,
            _ => Expect::Bind,
        };
        self.push(expect, Some(ReplyAction::Refuses(error.into())));
        self.out.skip(message.fresh);
        let out = self.out.buffer();
        match expect {
            Expect::Query => build::query(out, WILL_FAIL),
            Expect::Parse => {
                build::parse(out, b"", &[WILL_FAIL, b"\0\0\0"].concat());
                self.session.statements.leave_unnamed();
            }
            _ => build::bind(out, b"", NOBODY),
        }
        Rest::Discard
    }

    #[inline]
    fn query(&mut self, message: Message<'_>, text: Option<&[u8]>) -> Rest {
        self.session.statements.unnamed = Unnamed::None;
        let class = text.map_or_else(uncertain, |text| classify(text, self.session.lexer));
        if class.is_ordinary() {
            let action = (class.statements > 1).then_some(ReplyAction::Several(class.statements));
            return self.pass(message, Some(Expect::Query), action);
        }
        if let Some(fault) = self.forbidden(&class) {
            return self.refuse(message, &fault);
        }
        if self.is_our_deallocate(&class) {
            let action = Some(self.deallocates(Arc::new(class)));
            return self.query_instead(message, action, STAND_IN);
        }
        let Some((text, class)) = text.and_then(|text| rewrite(self.session, text, b"", &class)) else {
            self.fail_prepare(&class);
            let action = self.runs(|| Arc::new(class.clone()), &class);
            return self.pass(message, Some(Expect::Query), action);
        };
        if let Some(fault) = self.unnotifiable(&class) {
            return self.refuse(message, &fault);
        }
        self.fail_prepare(&class);
        let class = Arc::new(class);
        let action = self.runs(|| Arc::clone(&class), &class);
        self.query_instead(message, action, &text)
    }

    /// Sends another Query in the place of the client's.
    fn query_instead(&mut self, message: Message<'_>, action: Option<ReplyAction>, text: &[u8]) -> Rest {
        self.push(Expect::Query, action);
        self.out.skip(message.fresh);
        build::query(self.out.buffer(), text);
        Rest::Discard
    }

    #[inline]
    fn parse_unnamed(&mut self, message: Message<'_>, rest: &[u8], text: Option<&[u8]>) -> Rest {
        let action = ReplyAction::Parses { statement: None, undo: None };
        let Some(text) = text else {
            self.session.statements.unnamed = Unnamed::Large { class: Some(Arc::new(uncertain())) };
            return self.pass(message, Some(Expect::Parse), Some(action));
        };
        let class = classify(text, self.session.lexer);
        if class.is_ordinary() {
            self.session.statements.keep_unnamed(rest, None);
            return self.pass(message, Some(Expect::Parse), Some(action));
        }
        if let Some(fault) = self.forbidden(&class) {
            return self.refuse(message, &fault);
        }
        if self.is_our_deallocate(&class) {
            let rest = [STAND_IN, b"\0\0\0"].concat();
            return self.parse_instead(message, action, &rest, class);
        }
        if let Some((other, class)) = rewrite(self.session, text, &rest[text.len() + 1..], &class) {
            let rest = [&other, &rest[text.len()..]].concat();
            return self.parse_instead(message, action, &rest, class);
        }
        self.session.statements.keep_unnamed(rest, Some(Arc::new(class)));
        self.pass(message, Some(Expect::Parse), Some(action))
    }

    /// Sends another unnamed statement in the place of the client's.
    fn parse_instead(
        &mut self,
        message: Message<'_>,
        action: ReplyAction,
        rest: &[u8],
        class: StatementEffects,
    ) -> Rest {
        self.session.statements.keep_unnamed(rest, Some(Arc::new(class)));
        self.push(Expect::Parse, Some(action));
        self.out.skip(message.fresh);
        build::parse(self.out.buffer(), b"", rest);
        Rest::Discard
    }

    fn parse_named(&mut self, message: Message<'_>, name: &[u8], rest: &[u8], text: Option<&[u8]>) -> Rest {
        if self.session.statements.find(name).is_some() {
            let fault = Fault::DuplicateStatement(String::from_utf8_lossy(name).into_owned());
            return self.refuse(message, &fault);
        }
        if self.session.statements.len() >= NAMES_MAX {
            return self.refuse(message, &Fault::TooManyStatements);
        }
        let statement = match text {
            Some(text) => intern(self.session, self.statements, rest, text),
            None => self.statements.large(uncertain()),
        };
        if let Some(fault) = statement.class.as_deref().and_then(|class| self.forbidden(class)) {
            return self.refuse(message, &fault);
        }
        let undo = Some(self.session.statements.insert(name, Arc::clone(&statement)));
        // In a failed transaction Parse must fail, unless its statement ends the transaction.
        let is_failed = self.leased.cycle.replies().status() == TransactionStatus::Failed
            && !statement.class.as_deref().is_some_and(StatementEffects::ends_transaction);
        if !is_failed && self.leased.lease.statements.get(&statement.id).is_some() {
            return self.answer(message, ReplyAction::Answers { frames: build::PARSE_COMPLETE, undo });
        }
        if !statement.is_large() {
            admit(&statement, self.session, self.leased, self.out);
        }
        self.push(Expect::Parse, Some(ReplyAction::Parses { statement: Some(Arc::clone(&statement)), undo }));
        if !statement.is_large() && *statement.rest != *rest {
            self.out.skip(message.fresh);
            build::parse(self.out.buffer(), statement.name(), &statement.rest);
            return Rest::Discard;
        }
        rename(self.out, message, &[], name, statement.name());
        Rest::Forward
    }

    #[inline]
    fn bind(&mut self, message: Message<'_>, portal: &[u8], name: &[u8]) -> Rest {
        if name.is_empty() {
            if !self.bring_unnamed() {
                return self.refuse(message, &Fault::NoUnnamedStatement);
            }
            let bound = self.session.statements.unnamed_class().map(|class| self.bound(class, message));
            self.session.statements.bind(portal, bound);
            return self.pass(message, Some(Expect::Bind), None);
        }
        let before = &message.payload()[..=portal.len()];
        let Some(statement) = self.forward_use(message, before, name) else {
            // The statement is one of SQL PREPARE, or the backend refuses it.
            self.session.statements.bind(portal, Some(Arc::new(uncertain()).into()));
            return self.unknown(message, Expect::Bind, name);
        };
        let (id, class) = (statement.id, statement.class.clone());
        let bound = class.map(|class| self.bound(class, message));
        self.session.statements.bind(portal, bound);
        self.push(Expect::Bind, Some(ReplyAction::Uses(id)));
        Rest::Forward
    }

    /// The effect of executing the portal of this Bind.
    fn bound(&self, class: Arc<StatementEffects>, message: Message<'_>) -> Portal {
        let given = class.stands_in.then(|| notifications::given(&class, message.payload())).flatten();
        let given = given.map(|given| match given {
            Ok(notification) if notification.is_ascii() || self.session.shares_encoding() => Ok(notification),
            Ok(_) => Err(Unnotifiable::Untranslatable),
            Err(error) => Err(error.into()),
        });
        Portal { class, given }
    }

    /// Sends a message that names a statement of the client, with the statement itself before it if the backend lacks
    /// it. `None`: the client has no statement of that name.
    #[inline]
    fn forward_use(&mut self, message: Message<'_>, before: &[u8], name: &[u8]) -> Option<&Statement> {
        let statement = self.session.statements.find(name)?;
        bring(statement, self.session, self.leased, self.out);
        rename(self.out, message, before, name, statement.name());
        Some(statement)
    }

    fn describe(&mut self, message: Message<'_>, target: Named<'_>) -> Rest {
        match target {
            Named::Portal(_) => self.pass(message, Some(Expect::DescribePortal), None),
            Named::Statement(b"") if self.bring_unnamed() => self.pass(message, Some(Expect::DescribeStatement), None),
            Named::Statement(b"") => self.refuse(message, &Fault::NoUnnamedStatement),
            Named::Statement(name) => match self.forward_use(message, &[crate::wire::tag::STATEMENT], name) {
                Some(statement) => {
                    let action = ReplyAction::Uses(statement.id);
                    self.push(Expect::DescribeStatement, Some(action));
                    Rest::Forward
                }
                None => self.unknown(message, Expect::DescribeStatement, name),
            },
        }
    }

    #[inline]
    fn execute(&mut self, message: Message<'_>, portal: &[u8]) -> Rest {
        let Some(Portal { class, given }) = self.session.statements.portal(portal) else {
            return self.pass(message, Some(Expect::Execute), None);
        };
        if self.is_our_deallocate(&class) {
            let action = Some(self.deallocates(class));
            return self.pass(message, Some(Expect::Execute), action);
        }
        let given = match given.transpose() {
            Ok(given) => given,
            Err(error) => return self.refuse(message, &Fault::Unnotifiable(error)),
        };
        if let Some(fault) = self.unnotifiable(&class) {
            return self.refuse(message, &fault);
        }
        self.fail_unit(&class);
        let mut action = self.runs(|| Arc::clone(&class), &class);
        if let Some(ReplyAction::Runs(runs)) = &mut action {
            runs.given = given;
        }
        self.pass(message, Some(Expect::Execute), action)
    }

    fn close(&mut self, message: Message<'_>, target: Named<'_>) -> Rest {
        match target {
            Named::Portal(name) => {
                self.session.statements.bind(name, None);
                self.pass(message, Some(Expect::Close), None)
            }
            Named::Statement(b"") => {
                self.session.statements.unnamed = Unnamed::None;
                self.pass(message, Some(Expect::Close), None)
            }
            // A name we do not know may be one of SQL PREPARE.
            Named::Statement(name)
                if self.session.pins.may_hold(StateFlags::PREPARE) && self.session.statements.find(name).is_none() =>
            {
                self.pass(message, Some(Expect::Close), None)
            }
            Named::Statement(name) => {
                let undo = self.session.statements.remove(name);
                self.answer(message, ReplyAction::Answers { frames: build::CLOSE_COMPLETE, undo })
            }
        }
    }

    /// Sends a Parse of the unnamed statement if the backend lacks it. False: the client has none.
    #[inline]
    fn bring_unnamed(&mut self) -> bool {
        match &mut self.session.statements.unnamed {
            Unnamed::None => return false,
            Unnamed::Kept { here: true, .. } | Unnamed::Large { .. } => return true,
            // The server drops it anyway, up to the next Sync.
            Unnamed::Kept { .. } if self.leased.cycle.replies().is_skipping() => return true,
            Unnamed::Kept { here, .. } => *here = true,
        }
        self.leased.cycle.expect_own(Expect::Parse, Some(ReplyAction::Parses { statement: None, undo: None }));
        build::parse(self.out.buffer(), b"", self.session.statements.unnamed_text());
        true
    }

    /// Handles a name that the client never gave. Postgres raises the error itself, unless the name looks like one of
    /// ours.
    fn unknown(&mut self, message: Message<'_>, expect: Expect, name: &[u8]) -> Rest {
        if name.starts_with(NAME_PREFIX) {
            let fault = Fault::NoStatement(String::from_utf8_lossy(name).into_owned());
            return self.refuse(message, &fault);
        }
        self.pass(message, Some(expect), None)
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

    /// True for a lone DEALLOCATE of names that Postgres does not know, because they are the client's own.
    fn is_our_deallocate(&self, class: &StatementEffects) -> bool {
        class.statements == 1
            && match class.effects.as_slice() {
                [(_, Effect::Deallocate(name))] => self.session.statements.find(name).is_some(),
                [(_, Effect::DeallocateAll)] => !self.session.pins.may_hold(StateFlags::PREPARE),
                _ => false,
            }
    }

    /// The action for a DEALLOCATE of the client's own names. The names go now: messages pipelined behind it may reuse
    /// them.
    fn deallocates(&mut self, class: Arc<StatementEffects>) -> ReplyAction {
        let undo = match class.effects.as_slice() {
            [(_, Effect::Deallocate(name))] => self.session.statements.remove(name),
            _ => Some(self.session.statements.clear_named()),
        };
        ReplyAction::Runs(Box::new(Runs { undo, ..Runs::new(class) }))
    }

    /// Reason why a text with stand-ins for notifications cannot run now.
    fn unnotifiable(&self, class: &StatementEffects) -> Option<Fault> {
        let notifications = &self.session.notifications;
        (class.stands_in && class.notifies() && (notifications.is_full() || notifications.exchange().refuses()))
            .then_some(Fault::TooManyNotifications)
    }

    /// PREPARE TRANSACTION must fail after statements that the backend never saw: the backend gets a NOTIFY of ours
    /// then.
    fn fail_prepare(&mut self, class: &StatementEffects) {
        if self.must_fail(class) {
            self.leased.cycle.expect_own(Expect::Query, None);
            build::query(self.out.buffer(), FAILING_NOTIFY);
        }
    }

    /// The same as [`Self::fail_prepare`], within the extended protocol.
    fn fail_unit(&mut self, class: &StatementEffects) {
        if !self.must_fail(class) {
            return;
        }
        for expect in [Expect::Parse, Expect::Bind, Expect::Execute, Expect::Close] {
            self.leased.cycle.expect_own(expect, None);
        }
        let out = self.out.buffer();
        build::parse(out, FAILING_NAME, &[FAILING_NOTIFY, b"\0\0\0"].concat());
        build::bind(out, FAILING_NAME, FAILING_NAME);
        build::execute(out, FAILING_NAME);
        build::close_statement(out, FAILING_NAME);
    }

    fn must_fail(&self, class: &StatementEffects) -> bool {
        let (session, replies) = (&self.session, self.leased.cycle.replies());
        let stands_in = |entry: &ExpectedReply<ReplyAction>| match &entry.action {
            Some(ReplyAction::Runs(runs)) => runs.class.stands_in,
            _ => false,
        };
        class.prepares_transaction()
            && replies.status() != TransactionStatus::Failed
            && (session.notifications.has_pending() || replies.iter().any(stands_in))
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
        if class.changes_settings() {
            self.session.follow.get_or_insert_default();
            self.extend(class);
        }
        // Tags are not enough for savepoints: the effect of one may be known only after it.
        let is_told_by_tag = |effect: &Effect| {
            effect.controls_transaction()
                && !matches!(effect, Effect::Savepoint(_) | Effect::Release(_) | Effect::RollbackTo(_))
        };
        let only_transactions = class.replaced.is_empty()
            && (class.may_begin | class.may_end).is_empty()
            && class.effects.iter().all(|(_, effect)| is_told_by_tag(effect));
        if only_transactions && self.session.follow.is_none() {
            return (class.statements > 1).then_some(ReplyAction::Several(class.statements));
        }
        Some(ReplyAction::Runs(Box::new(Runs::new(shared()))))
    }
}

/// Sends a Parse of a shared statement if the backend lacks it.
#[inline]
fn bring(statement: &Arc<Statement>, session: &Session, leased: &mut Leased, out: &mut Splice<'_>) {
    // A large statement is here as long as its client; a message sent while the backend skips to Sync is dropped.
    if leased.lease.statements.get(&statement.id).is_some()
        || statement.is_large()
        || leased.cycle.replies().is_skipping()
    {
        return;
    }
    admit(statement, session, leased, out);
    let action = ReplyAction::Parses { statement: Some(Arc::clone(statement)), undo: None };
    leased.cycle.expect_own(Expect::Parse, Some(action));
    build::parse(out.buffer(), statement.name(), &statement.rest);
}

/// Records that the backend is going to have a statement, and closes others to make room: outdated ones, and those used
/// longest ago if it is full.
fn admit(statement: &Statement, session: &Session, leased: &mut Leased, out: &mut Splice<'_>) {
    if leased.cycle.replies().is_skipping() {
        leased.lease.statements.put(statement.id, ());
        return;
    }
    for id in std::mem::take(&mut leased.lease.stale) {
        leased.cycle.expect_own(Expect::Close, Some(ReplyAction::Outdated(id)));
        build::close_statement(out.buffer(), &statements::name(id));
    }
    let most = session.pool.settings().pool.statements_max.max(1) as usize;
    while leased.lease.statements.len() >= most {
        let Some((id, ())) = leased.lease.statements.pop_lru() else { break };
        leased.cycle.expect_own(Expect::Close, Some(ReplyAction::Evicts(id)));
        build::close_statement(out.buffer(), &statements::name(id));
    }
    leased.lease.statements.put(statement.id, ());
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
