//! Bind, Describe, Execute and Close: messages that use a prepared statement or a portal.

use std::borrow::Cow;
use std::sync::Arc;

use super::names::wrong_bind;
use super::{Frontend, NOBODY, Naming, Rest, rename};
use crate::error::{Fault, Holding};
use crate::notify::notification::Unnotifiable;
use crate::session::notifications;
use crate::session::prepare::EXECUTING_NAME;
use crate::session::reply_action::ReplyAction;
use crate::session::statements::{Portal, Unnamed};
use crate::sql::{BoundText, Digest, Effect, Effects, StateFlags, StatementEffects};
use crate::state::statements::{self, BackendName, NAME_PREFIX, Statement};
use crate::wire::bind::{self, BindValue};
use crate::wire::build;
use crate::wire::expected::{Expect, TransactionStatus};
use crate::wire::message::{Message, Named};
use crate::wire::splice::Splice;

impl Frontend<'_, '_> {
    #[inline]
    pub(super) fn bind(&mut self, message: Message<'_>, portal: &[u8], name: &[u8]) -> Rest {
        if self.session.statements.has_too_many_portals() && !portal.is_empty() {
            return self.refuse(message, &Fault::HoldsTooMuch(Holding::Portals));
        }
        if name.is_empty() {
            match self.bring_unnamed(message) {
                UnnamedUse::Here => {}
                UnnamedUse::Missing => return self.refuse(message, &Fault::NoUnnamedStatement),
                UnnamedUse::Wait => return self.hold(),
                UnnamedUse::Handled(rest) => return rest,
            }
            let class = match self.session.statements.unnamed_class() {
                Some(class) if class.executes() => {
                    let rest = self.session.statements.unnamed_text().to_vec();
                    match self.execute_anew(message, &rest, b"") {
                        Err(rest) => return rest,
                        Ok(anew) => Some(anew.map_or(class, Arc::new)),
                    }
                }
                class => class,
            };
            let bound = class.map(|class| self.bound(class, message));
            self.session.statements.bind(portal, bound);
            self.bind_digest(portal, name, self.session.statements.unnamed_digest());
            return self.pass(message, Some(Expect::Bind), None);
        }
        let before = &message.payload()[..=portal.len()];
        match self.forward_use(NamingMessage { message, expect: Expect::Bind, before, name }) {
            Naming::Forwarded(class, digest) => {
                let bound = class.map(|class| self.bound(class, message));
                self.session.statements.bind(portal, bound);
                self.bind_digest(portal, name, digest);
                Rest::Forward
            }
            Naming::Unknown => {
                // The statement is one of SQL PREPARE, or the backend refuses it.
                let executed = StatementEffects { may_begin: StateFlags::EXECUTED, ..StatementEffects::default() };
                self.session.statements.bind(portal, Some(Arc::new(executed).into()));
                self.bind_digest(portal, name, Digest::NONE);
                self.unknown(message, Expect::Bind, name)
            }
            Naming::Handled(rest) => rest,
        }
    }

    /// The effect of executing the portal of this Bind.
    pub(super) fn bound(&self, class: Arc<StatementEffects>, message: Message<'_>) -> Portal {
        let class = with_parameters(class, message.payload());
        let given = class.stands_in.then(|| notifications::given(&class, message.payload())).flatten();
        let given = given.map(|given| match given {
            Ok(notification) if notification.is_ascii() || self.session.shares_encoding() => Ok(notification),
            Ok(_) => Err(Unnotifiable::Untranslatable),
            Err(error) => Err(error.into()),
        });
        Portal { class, given }
    }

    /// Sends a message that names a statement of the client, once the backend has it.
    #[inline]
    pub(super) fn forward_use(&mut self, used: NamingMessage<'_>) -> Naming {
        let Some((statement, tag)) = self.session.statements.find_tagged(used.name) else { return Naming::Unknown };
        let (class, digest) = (statement.class.clone(), statement.digest);
        if class.as_ref().is_some_and(|class| class.executes()) {
            let statement = Arc::clone(statement);
            return self.forward_executing(used, &statement, tag);
        }
        if self.session.keeps_own_names() {
            self.push(used.expect, None);
            self.out.pass(used.message.bytes, used.message.fresh);
            return Naming::Forwarded(class, digest);
        }
        if let Some(BackendName { number, name: server_name }) = self.leased.lease.statements.find(statement.id) {
            let number = *number;
            used.rename(self.out, server_name);
            self.push(used.expect, Some(ReplyAction::Uses { number, tag }));
            return Naming::Forwarded(class, digest);
        }
        let statement = Arc::clone(statement);
        self.forward_brought(used, &statement, tag)
    }

    fn forward_brought(&mut self, used: NamingMessage<'_>, statement: &Arc<Statement>, tag: u32) -> Naming {
        let number = match self.number(used.message, statement) {
            Ok(number) => number,
            Err(rest) => return Naming::Handled(rest),
        };
        used.rename(self.out, &statements::name(number));
        self.push(used.expect, Some(ReplyAction::Uses { number, tag }));
        Naming::Forwarded(statement.class.clone(), statement.digest)
    }

    /// Sends a Bind or Describe of a statement that executes others by their names: as what they are now. What Describe
    /// tells is as old as the Parse, where the backend still has that.
    fn forward_executing(&mut self, used: NamingMessage<'_>, statement: &Arc<Statement>, tag: u32) -> Naming {
        let keeps_own_names = self.session.keeps_own_names();
        let is_there = keeps_own_names || self.leased.lease.statements.find(statement.id).is_some();
        if used.expect == Expect::Bind || !is_there {
            if let Some(wrong) = wrong_bind(used.message, statement) {
                return Naming::Handled(self.refuse(used.message, &wrong.into()));
            }
            match self.execute_anew(used.message, statement.rest(), EXECUTING_NAME) {
                Ok(Some(class)) => {
                    used.rename(self.out, EXECUTING_NAME);
                    self.push(used.expect, None);
                    return Naming::Forwarded(Some(Arc::new(class)), statement.digest);
                }
                Ok(None) => {}
                Err(rest) => return Naming::Handled(rest),
            }
        }
        if keeps_own_names {
            self.push(used.expect, None);
            self.out.pass(used.message.bytes, used.message.fresh);
            return Naming::Forwarded(statement.class.clone(), statement.digest);
        }
        self.forward_brought(used, statement, tag)
    }

    pub(super) fn describe(&mut self, message: Message<'_>, target: Named<'_>) -> Rest {
        match target {
            Named::Portal(_) => self.pass(message, Some(Expect::DescribePortal), None),
            Named::Statement(b"") => match self.bring_unnamed(message) {
                UnnamedUse::Here => self.pass(message, Some(Expect::DescribeStatement), None),
                UnnamedUse::Missing => self.refuse(message, &Fault::NoUnnamedStatement),
                UnnamedUse::Wait => self.hold(),
                UnnamedUse::Handled(rest) => rest,
            },
            Named::Statement(name) => {
                let (expect, before) = (Expect::DescribeStatement, &[crate::wire::tag::STATEMENT][..]);
                match self.forward_use(NamingMessage { message, expect, before, name }) {
                    Naming::Forwarded(..) => Rest::Forward,
                    Naming::Unknown => self.unknown(message, Expect::DescribeStatement, name),
                    Naming::Handled(rest) => rest,
                }
            }
        }
    }

    #[inline]
    pub(super) fn execute(&mut self, message: Message<'_>, portal: &[u8]) -> Rest {
        let Some(Portal { class, given }) = self.session.statements.portal(portal) else {
            return self.pass(message, Some(Expect::Execute), None);
        };
        if class.stands_in && class.is_lone_deallocate() {
            if self.leased.cycle.status_under_way() == TransactionStatus::Failed {
                return self.pass(message, Some(Expect::Execute), None);
            }
            return self.execute_deallocate(message, portal, class);
        }
        let given = match given.transpose() {
            Ok(given) => given,
            Err(error) => return self.refuse(message, &Fault::Unnotifiable(error)),
        };
        if let Some(fault) = self.unnotifiable(&class).or_else(|| self.oversized(&class)) {
            return self.refuse(message, &fault);
        }
        if self.waits_to_prepare(&class) {
            return self.hold();
        }
        self.fail_unit(&class);
        self.leave_sequences(&class, false);
        let mut action = self.runs(|| Arc::clone(&class), &class);
        if let Some(ReplyAction::Runs(runs)) = &mut action {
            runs.given = given;
        }
        self.pass(message, Some(Expect::Execute), action)
    }

    pub(super) fn close(&mut self, message: Message<'_>, target: Named<'_>) -> Rest {
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
            Named::Statement(name) if self.may_be_of_sql(name) => {
                self.leased.cycle.changes_names();
                self.pass(message, Some(Expect::Close), Some(ReplyAction::ClosesOfSql(name.into())))
            }
            Named::Statement(name) if self.session.keeps_own_names() => {
                let undo = self.session.statements.remove(name);
                self.leased.cycle.changes_names();
                self.pass(message, Some(Expect::Close), Some(ReplyAction::Renames(undo)))
            }
            Named::Statement(name) => {
                let undo = self.session.statements.remove(name);
                self.leased.cycle.changes_names();
                if self.leased.cycle.replies().is_copying_in() {
                    // It ends the COPY, or the connection, so the server has to see it.
                    self.push(Expect::Close, Some(ReplyAction::Renames(undo)));
                    self.out.skip(message.fresh);
                    build::close_statement(self.out.buffer(), NOBODY);
                    return Rest::Discard;
                }
                self.answer(message, ReplyAction::Answers { frames: Cow::Borrowed(build::CLOSE_COMPLETE), undo })
            }
        }
    }

    /// Sends a Parse of the unnamed statement if the backend lacks it. Nothing in front of it may be unanswered: if the
    /// server dropped it, the statement of another client would be there instead.
    #[inline]
    pub(super) fn bring_unnamed(&mut self, message: Message<'_>) -> UnnamedUse {
        let cycle = &self.leased.cycle;
        if self.session.keeps_own_names() || cycle.replies().is_skipping() {
            return UnnamedUse::Here;
        }
        if cycle.must_wait_for_unnamed() {
            return UnnamedUse::Wait;
        }
        match &mut self.session.statements.unnamed {
            Unnamed::None => return UnnamedUse::Missing,
            Unnamed::Kept { here: true, .. } | Unnamed::Large { .. } => return UnnamedUse::Here,
            Unnamed::Kept { .. } if !cycle.replies().is_empty() && !cycle.replies().is_copying_in() => {
                return UnnamedUse::Wait;
            }
            Unnamed::Kept { .. } => {}
        }
        let renamed = match self.unnamed_renamed(message) {
            Ok(renamed) => renamed,
            Err(rest) => return UnnamedUse::Handled(rest),
        };
        if let Unnamed::Kept { here, .. } = &mut self.session.statements.unnamed {
            *here = true;
        }
        self.leased.cycle.expect_own(Expect::Parse, Some(ReplyAction::BringsUnnamed));
        let text = renamed.as_deref().unwrap_or_else(|| self.session.statements.unnamed_text());
        build::parse(self.out.buffer(), b"", text);
        UnnamedUse::Here
    }

    /// The unnamed statement with this backend's names, if it has any of the client's.
    #[inline]
    fn unnamed_renamed(&mut self, message: Message<'_>) -> Result<Option<Vec<u8>>, Rest> {
        let Some(class) = self.session.statements.unnamed_class().filter(|class| class.names_statements()) else {
            return Ok(None);
        };
        let rest = self.session.statements.unnamed_text().to_vec();
        self.rename_in_parse(message, &rest, &mut (*class).clone())
    }

    /// Handles a name that the client never gave. Postgres raises the error itself, unless the name looks like one of
    /// ours.
    pub(super) fn unknown(&mut self, message: Message<'_>, expect: Expect, name: &[u8]) -> Rest {
        if name.starts_with(NAME_PREFIX) {
            let fault = Fault::NoStatement(String::from_utf8_lossy(name).into_owned());
            return self.refuse(message, &fault);
        }
        self.pass(message, Some(expect), None)
    }
}

/// A Bind or Describe that names a statement of the client.
#[derive(Clone, Copy)]
pub(super) struct NamingMessage<'m> {
    message: Message<'m>,
    expect: Expect,
    /// Its body in front of the name.
    before: &'m [u8],
    name: &'m [u8],
}

impl NamingMessage<'_> {
    /// Sends it with another name.
    fn rename(self, out: &mut Splice<'_>, server_name: &[u8]) {
        rename(out, self.message, self.before, self.name, server_name);
    }
}

/// Where the unnamed statement is, for a message that means it.
pub(super) enum UnnamedUse {
    /// At the backend, or the server drops the message unread.
    Here,
    /// The client has none.
    Missing,
    /// That is known only later.
    Wait,
    /// The message waits for it or was refused.
    Handled(Rest),
}

/// The effects of a statement once its parameters are known.
pub(super) fn with_parameters(class: Arc<StatementEffects>, bind: &[u8]) -> Arc<StatementEffects> {
    let is_bound = |(_, effect): &(u32, Effect)| matches!(effect, Effect::SetBound { .. });
    if !class.effects.iter().any(is_bound) {
        return class;
    }
    let parameter = |number| match bind::value(bind, number) {
        Some(BindValue::Null) => BoundText::Null,
        Some(BindValue::Whole(text)) => BoundText::Text(text),
        Some(BindValue::Cut) | None => BoundText::Unknown,
    };
    let mut known = StatementEffects { effects: Effects::new(), ..(*class).clone() };
    for (number, effect) in &class.effects {
        match effect {
            Effect::SetBound { .. } => {
                let effects = effect.bound(parameter);
                for effect in effects {
                    let (begins, ends) = effect.flags();
                    known.may_begin |= begins;
                    known.may_end |= ends;
                    known.effects.push((*number, effect));
                }
            }
            effect => known.effects.push((*number, effect.clone())),
        }
    }
    Arc::new(known)
}
