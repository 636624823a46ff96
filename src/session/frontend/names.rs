//! Prepared statements by their names in SQL, which are the client's, while those of the backend are ours.

use std::sync::Arc;

use super::{Frontend, Rest, TEXT_MAX};
use crate::error::{Fault, WrongBind, sqlstate};
use crate::session::facts::Facts;
use crate::session::prepare::{self, EMPTY_TEXT, FAILING_NAME, Presence};
use crate::session::reply_action::{ReplyAction, Runs};
use crate::sql;
use crate::sql::{Effect, NameUse, StateFlags, StatementEffects, StatementName, quote_identifier};
use crate::state::statements::{self, Statement};
use crate::wire::expected::Expect;
use crate::wire::message::Message;
use crate::wire::tag::{backend, frontend};
use crate::wire::{bind, build};

impl Frontend<'_, '_> {
    /// The text with the backend's names for prepared statements of the client; an error is the outcome of a message
    /// that has to wait for them. An EXECUTE has the effects of its statement from here on.
    pub(super) fn rename_in_sql(
        &mut self,
        message: Message<'_>,
        text: &[u8],
        class: &mut StatementEffects,
    ) -> Result<Option<Vec<u8>>, Rest> {
        if !class.names_statements() {
            return Ok(None);
        }
        if self.leased.cycle.must_wait_for(Facts::NAMES) {
            return Err(self.hold());
        }
        let mut numbers = Vec::new();
        for StatementName { used, name, number, is_direct, .. } in sql::statement_names(text, self.session.lexer) {
            let Some(statement) = self.session.statements.find(&name).cloned() else { continue };
            if let (NameUse::Execute, Some(prepared)) = (used, &statement.class) {
                class.execute(number, prepared, is_direct);
            }
            if !self.session.keeps_own_names() {
                let presence = self.presence(&statement);
                // To parse an EXECUTE, Postgres does not plan what it executes.
                if message.tag == frontend::PARSE && matches!(presence, Presence::Refused(_)) {
                    continue;
                }
                let number = self.number_if(presence, message, &statement)?;
                numbers.push((name, statements::name(number)));
            }
        }
        let number = |name: &[u8]| numbers.iter().find(|(known, _)| known == name).map(|(_, number)| number.to_vec());
        Ok(sql::rename_statements(text, self.session.lexer, |_, name| number(name)))
    }

    /// The same for the body of a Parse behind its name.
    pub(super) fn rename_in_parse(
        &mut self,
        message: Message<'_>,
        rest: &[u8],
        class: &mut StatementEffects,
    ) -> Result<Option<Vec<u8>>, Rest> {
        let Some((text, types)) = build::split_cstring(rest) else { return Ok(None) };
        let renamed = self.rename_in_sql(message, text, class)?;
        Ok(renamed.map(|text| [&text, &b"\0"[..], types].concat()))
    }

    /// The text with the client's texts in the place of each EXECUTE of a statement that is a stand-in; an error is the
    /// outcome of a message that has to wait for the names.
    pub(super) fn executed_instead(&mut self, text: &[u8], class: &StatementEffects) -> Result<Option<Vec<u8>>, Rest> {
        if !class.executes() {
            return Ok(None);
        }
        if self.leased.cycle.must_wait_for(Facts::NAMES) {
            return Err(self.hold());
        }
        let statements = &self.session.statements;
        let prepared = |name: &[u8], is_explained: bool| {
            let statement = statements.find(name)?;
            let class = statement.class.as_ref().filter(|class| class.stands_in)?;
            // Within EXPLAIN nothing but a query is run.
            (!is_explained || class.calls_of_channels()).then(|| statement.original_text()).flatten()
        };
        Ok(sql::replace_executes(text, self.session.lexer, prepared, TEXT_MAX))
    }

    /// The same for the body of a Parse behind its name.
    pub(super) fn executed_in_parse(&mut self, rest: &[u8], class: &StatementEffects) -> Result<Option<Vec<u8>>, Rest> {
        let Some((text, types)) = build::split_cstring(rest) else { return Ok(None) };
        let other = self.executed_instead(text, class)?;
        Ok(other.map(|text| [&text, &b"\0"[..], types].concat()))
    }

    /// The error of a lone PREPARE under a name that the client gave by the protocol.
    pub(super) fn duplicate(&self, class: &StatementEffects) -> Option<Box<[u8]>> {
        match class.effects.as_slice() {
            [(_, Effect::Prepare(name))] if class.statements == 1 && !self.session.keeps_own_names() => {
                self.session.statements.find(name).map(|_| duplicate_error(name))
            }
            _ => None,
        }
    }

    /// The number of a statement of the client, once the backend has it; an error as before.
    pub(super) fn number(&mut self, message: Message<'_>, statement: &Arc<Statement>) -> Result<u64, Rest> {
        let presence = self.presence(statement);
        self.number_if(presence, message, statement)
    }

    fn presence(&mut self, statement: &Arc<Statement>) -> Presence {
        match self.leased.lease.statements.find(statement.id) {
            Some(name) => Presence::Here(name.number),
            None => prepare::bring(statement, self.session, self.leased, self.registry, self.out),
        }
    }

    fn number_if(&mut self, presence: Presence, message: Message<'_>, statement: &Statement) -> Result<u64, Rest> {
        match presence {
            Presence::Here(number) => Ok(number),
            Presence::Wait => Err(self.hold()),
            Presence::UnderWay => Err(Rest::Hold),
            Presence::Refused(error) => Err(self.refuse_unprepared(message, statement, error)),
            Presence::Aborted => Err(self.answer_in_aborted(message, statement)),
        }
    }

    /// Answers a message about a statement that cannot be prepared any more, as Postgres, which finds that out when it
    /// plans it: Describe tells the parameters first, and a Bind is counted.
    fn refuse_unprepared(&mut self, message: Message<'_>, statement: &Statement, error: Box<[u8]>) -> Rest {
        if let Some(rest) = self.describe_without_rows(message, statement) {
            return rest;
        }
        match (wrong_bind(message, statement), statement.analysis()) {
            (Some(wrong), _) => self.refuse(message, &wrong.into()),
            (None, Some(analysis)) if message.tag == frontend::DESCRIBE => {
                let frames = [&parameter_description(analysis.parameters()), &error[..]].concat();
                self.refuse_with(message, frames.into(), false)
            }
            (None, _) => self.refuse_with(message, error, false),
        }
    }

    /// Answers a Describe of a statement that has no rows, which Postgres need not plan for that.
    fn describe_without_rows(&mut self, message: Message<'_>, statement: &Statement) -> Option<Rest> {
        if message.tag != frontend::DESCRIBE {
            return None;
        }
        let mut frames = parameter_description(statement.analysis()?.parameters_without_rows()?);
        frames.extend_from_slice(build::NO_DATA);
        Some(self.answer(message, ReplyAction::Answers { frames: frames.into(), undo: None }))
    }

    /// Answers a message about a statement that the backend lacks, in a failed transaction: as Postgres, which has it
    /// there, but executes nothing.
    fn answer_in_aborted(&mut self, message: Message<'_>, statement: &Statement) -> Rest {
        if let Some(rest) = self.describe_without_rows(message, statement) {
            return rest;
        }
        if let Some(wrong) = wrong_bind(message, statement) {
            return self.refuse(message, &wrong.into());
        }
        // The error is the server's own, 25P02.
        self.refuse_with(message, Box::default(), false)
    }

    /// True for a lone DEALLOCATE of names that Postgres does not know, because they are the client's own.
    pub(super) fn is_our_deallocate(&self, class: &StatementEffects) -> bool {
        !self.session.keeps_own_names()
            && class.is_lone_deallocate()
            && match class.effects.as_slice() {
                [(_, Effect::Deallocate(name))] => self.session.statements.find(name).is_some(),
                _ => !self.session.pins.may_hold(StateFlags::PREPARE),
            }
    }

    /// The action for a DEALLOCATE of the client's own names, which go when its stand-in has completed.
    pub(super) fn deallocates(&mut self, class: StatementEffects) -> ReplyAction {
        let class = StatementEffects { stands_in: true, ..class };
        self.leased.cycle.changes(&class, false);
        ReplyAction::Runs(Box::new(Runs::new(Arc::new(class))))
    }

    /// Executes a DEALLOCATE whose portal is a stand-in.
    pub(super) fn execute_deallocate(
        &mut self,
        message: Message<'_>,
        portal: &[u8],
        class: Arc<StatementEffects>,
    ) -> Rest {
        if self.leased.cycle.must_wait_for(Facts::NAMES) {
            return self.hold();
        }
        if self.is_our_deallocate(&class) {
            self.leased.cycle.changes(&class, false);
            // A second Execute is the server's to refuse: the portal has run.
            self.session.statements.bind(portal, None);
            return self.pass(message, Some(Expect::Execute), Some(ReplyAction::Runs(Box::new(Runs::new(class)))));
        }
        let text = match class.effects.as_slice() {
            [(_, Effect::Deallocate(name))] => deallocate(name),
            _ => b"DEALLOCATE ALL".to_vec(),
        };
        self.leased.cycle.changes(&class, false);
        // The server says whether the portal is there: its Bind may have failed.
        for expect in [Expect::Execute, Expect::Close, Expect::Parse, Expect::Bind] {
            self.leased.cycle.expect_own(expect, None);
        }
        let class = Arc::new(StatementEffects { stands_in: false, ..(*class).clone() });
        self.push(Expect::Execute, Some(ReplyAction::Runs(Box::new(Runs::new(class)))));
        self.out.skip(message.fresh);
        let out = self.out.buffer();
        build::execute(out, portal);
        build::close_statement(out, FAILING_NAME);
        build::parse(out, FAILING_NAME, &[&text, EMPTY_TEXT].concat());
        build::bind(out, FAILING_NAME, FAILING_NAME);
        build::execute(out, FAILING_NAME);
        Rest::Discard
    }
}

fn parameter_description(parameters: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    build::frame(&mut frame, backend::PARAMETER_DESCRIPTION, |out| out.extend_from_slice(parameters));
    frame
}

/// The fault of a Bind that does not fit the analysis of its statement: Postgres looks for it before it looks at the
/// statement itself (`exec_bind_message`).
pub(super) fn wrong_bind(message: Message<'_>, statement: &Statement) -> Option<WrongBind> {
    if message.tag != frontend::BIND {
        return None;
    }
    let bind = message.payload();
    let (formats, values) = bind::counts(bind)?;
    let wanted = statement.analysis()?.parameter_count();
    if formats > 1 && formats != values {
        return Some(WrongBind::Formats { formats, values });
    }
    let (_portal, rest) = build::split_cstring(bind)?;
    let (name, _) = build::split_cstring(rest)?;
    let statement = String::from_utf8_lossy(name).into_owned();
    (values != wanted).then_some(WrongBind::Values { values, statement, wanted })
}

/// The frame of Postgres's error for a name that is taken.
pub(super) fn duplicate_error(name: &[u8]) -> Box<[u8]> {
    let mut error = Vec::new();
    let fault = Fault::DuplicateStatement(String::from_utf8_lossy(name).into_owned());
    build::error_response(&mut error, &sqlstate::report(&fault));
    error.into()
}

pub(super) fn deallocate(name: &[u8]) -> Vec<u8> {
    [b"DEALLOCATE ", &quote_identifier(name)[..]].concat()
}
