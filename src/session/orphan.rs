//! A client whose transaction was lost with its backend, until it acknowledges that.
//!
//! The client may have more statements of that transaction under way; on another backend they would take effect on
//! their own. So the client is kept in a failed transaction, as Postgres would after an error: ROLLBACK or COMMIT
//! (which is answered ROLLBACK) ends it, in any form of either protocol, names of statements come and go, and the rest
//! is 25P02. `IsTransactionExitStmt` of Postgres says which statements are prepared and bound meanwhile.

use std::sync::Arc;

use super::session::Session;
use super::statements::Unnamed;
use crate::error::Fault;
use crate::error::sqlstate;
use crate::sql::{Digest, Effect, StateFlags, StatementEffects, classify};
use crate::state::statements::{Analysis, Statement, Statements};
use crate::wire::build;
use crate::wire::expected::TransactionStatus;
use crate::wire::message::{Named, Request};

/// Portals that a client may open in a transaction that is lost.
const PORTALS_MAX: usize = 1000;

/// The portals bound in the failed transaction, and the error that the client has not got yet.
#[derive(Debug, Default)]
pub(crate) struct Orphan {
    /// The transaction was lost while nothing was under way: the next error carries this fault.
    unreported: Option<Fault>,
    /// Portals, and the texts in them; the unnamed one has an empty name.
    portals: Vec<(Box<[u8]>, WayOut)>,
}

/// A text, as far as it leaves a failed transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WayOut {
    /// Not at all, or not with its first statement.
    None,
    /// The text is empty.
    Empty,
    Commit,
    Rollback,
    /// A ROLLBACK with more statements behind it.
    RollbackAndMore,
    /// To a savepoint, or with AND CHAIN: prepared and bound as in Postgres, but what it needs is lost.
    InVain,
}

impl WayOut {
    fn of(class: &StatementEffects) -> Self {
        if class.may_begin.contains(StateFlags::UNCERTAIN) {
            return Self::None;
        }
        let first = class.effects.iter().find(|(at, _)| *at == 0).map(|(_, effect)| effect);
        match (class.statements, first) {
            (0, _) => Self::Empty,
            (1, Some(Effect::Rollback { chain: false })) => Self::Rollback,
            (1, Some(Effect::Commit { chain: false } | Effect::PrepareTransaction)) => Self::Commit,
            (1, Some(Effect::Rollback { .. } | Effect::Commit { .. } | Effect::RollbackTo(_))) => Self::InVain,
            (_, Some(Effect::Rollback { chain: false })) => Self::RollbackAndMore,
            _ => Self::None,
        }
    }

    fn of_statement(statement: &Statement) -> Self {
        match &statement.class {
            Some(class) => Self::of(class),
            None if statement.rest.first() == Some(&0) => Self::Empty,
            None => Self::None,
        }
    }

    fn of_unnamed(session: &Session) -> Option<Self> {
        match &session.statements.unnamed {
            Unnamed::None => None,
            Unnamed::Kept { class: Some(class), .. } => Some(Self::of(class)),
            Unnamed::Kept { class: None, .. } if session.statements.unnamed_text().first() == Some(&0) => {
                Some(Self::Empty)
            }
            Unnamed::Kept { .. } | Unnamed::Large { .. } => Some(Self::None),
        }
    }

    /// Postgres prepares it in a failed transaction.
    fn can_be_prepared(self) -> bool {
        self == Self::Empty || self.can_be_bound()
    }

    /// Postgres binds it in a failed transaction.
    fn can_be_bound(self) -> bool {
        matches!(self, Self::Commit | Self::Rollback | Self::InVain)
    }
}

/// Outcome of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrphanOutcome {
    Answered,
    /// The message was refused, and everything up to Sync is.
    Refused,
    /// The message ended the transaction and its own cycle.
    Over,
    /// The message ended the transaction, and the Sync of its unit is to come.
    Executed,
    /// The transaction is over, but a Sync has to follow the error that reported it.
    Failed,
    /// The transaction is over; the message goes to a backend, which warns that there is none to roll back.
    Passed,
}

impl Orphan {
    /// State of a client that got the error of its loss; with `unreported` it still has to get that.
    pub(crate) fn new(unreported: Option<Fault>) -> Self {
        Self { unreported, ..Self::default() }
    }

    /// Answers one message into `out`.
    pub(crate) fn message(
        &mut self,
        request: Request<'_>,
        session: &mut Session,
        statements: &Statements,
        out: &mut Vec<u8>,
    ) -> OrphanOutcome {
        let answered = match request {
            Request::Query { text } => {
                session.statements.unnamed = Unnamed::None;
                return self.query(text.map_or(WayOut::None, |text| WayOut::of(&classify(text, session.lexer))), out);
            }
            Request::FunctionCall { .. } => return self.query(WayOut::None, out),
            Request::Execute { portal } => return self.execute(portal, out),
            Request::Parse { name, rest, text } => parse(session, statements, name, rest, text),
            Request::Bind { portal, statement } => self.bind(session, portal, statement),
            Request::Describe(Named::Statement(name)) => match find(session, name) {
                Ok(exit) if exit.can_be_prepared() => Ok([build::NO_PARAMETERS, build::NO_DATA].concat().into()),
                Ok(_) => Err(Fault::TransactionLost),
                Err(fault) => Err(fault),
            },
            Request::Describe(Named::Portal(name)) => match self.portal(name) {
                Some(_) => Ok(build::NO_DATA.into()),
                None => Err(Fault::TransactionLost),
            },
            Request::Close(Named::Statement(name)) => {
                match name {
                    b"" => session.statements.unnamed = Unnamed::None,
                    name => drop(session.statements.remove(name)),
                }
                Ok(build::CLOSE_COMPLETE.into())
            }
            Request::Close(Named::Portal(name)) => {
                self.portals.retain(|(known, _)| **known != *name);
                Ok(build::CLOSE_COMPLETE.into())
            }
            Request::Sync => {
                build::ready_for_query(out, TransactionStatus::Failed);
                return OrphanOutcome::Answered;
            }
            Request::Flush | Request::CopyData | Request::CopyEnd => return OrphanOutcome::Answered,
        };
        match answered {
            Ok(frames) => {
                out.extend_from_slice(&frames);
                OrphanOutcome::Answered
            }
            Err(fault) => self.refuse(fault, out),
        }
    }

    /// A Query or FunctionCall.
    fn query(&mut self, exit: WayOut, out: &mut Vec<u8>) -> OrphanOutcome {
        match exit {
            WayOut::Empty => out.extend_from_slice(build::EMPTY_QUERY),
            WayOut::None | WayOut::InVain => self.report(Fault::TransactionLost, out),
            WayOut::RollbackAndMore => return OrphanOutcome::Passed,
            WayOut::Commit | WayOut::Rollback => {
                // Clients do not check the tag of a COMMIT: one that has not got an error yet would take it for done.
                match exit == WayOut::Commit && self.unreported.is_some() {
                    true => self.report(Fault::TransactionLost, out),
                    false => build::command_complete(out, b"ROLLBACK"),
                }
                build::ready_for_query(out, TransactionStatus::Idle);
                return OrphanOutcome::Over;
            }
        }
        build::ready_for_query(out, TransactionStatus::Failed);
        OrphanOutcome::Answered
    }

    fn bind(&mut self, session: &Session, portal: &[u8], statement: &[u8]) -> Result<Frames, Fault> {
        let exit = find(session, statement)?;
        if !exit.can_be_bound() {
            return Err(Fault::TransactionLost);
        }
        self.portals.retain(|(known, _)| **known != *portal);
        if self.portals.len() >= PORTALS_MAX {
            return Err(Fault::TooManyStatements);
        }
        self.portals.push((portal.into(), exit));
        Ok(build::BIND_COMPLETE.into())
    }

    fn execute(&mut self, portal: &[u8], out: &mut Vec<u8>) -> OrphanOutcome {
        match self.portal(portal) {
            Some(WayOut::Commit) if self.unreported.is_some() => {
                self.report(Fault::TransactionLost, out);
                OrphanOutcome::Failed
            }
            Some(WayOut::Commit | WayOut::Rollback) => {
                build::command_complete(out, b"ROLLBACK");
                OrphanOutcome::Executed
            }
            _ => self.refuse(Fault::TransactionLost, out),
        }
    }

    fn portal(&self, name: &[u8]) -> Option<WayOut> {
        self.portals.iter().find(|(known, _)| **known == *name).map(|(_, exit)| *exit)
    }

    fn refuse(&mut self, fault: Fault, out: &mut Vec<u8>) -> OrphanOutcome {
        self.report(fault, out);
        OrphanOutcome::Refused
    }

    fn report(&mut self, fault: Fault, out: &mut Vec<u8>) {
        let fault = self.unreported.take().unwrap_or(fault);
        build::error_response(out, &sqlstate::report(&fault));
    }
}

/// An answer: some constant frames.
type Frames = std::borrow::Cow<'static, [u8]>;

/// The text of a client's statement.
fn find(session: &Session, name: &[u8]) -> Result<WayOut, Fault> {
    match name {
        b"" => WayOut::of_unnamed(session).ok_or(Fault::NoUnnamedStatement),
        name => match session.statements.find(name) {
            Some(statement) => Ok(WayOut::of_statement(statement)),
            None => Err(Fault::NoStatement(String::from_utf8_lossy(name).into_owned())),
        },
    }
}

/// Keeps a statement, under its name if it has one; the backend that executes it later gets it then.
fn parse(
    session: &mut Session,
    statements: &Statements,
    name: &[u8],
    rest: &[u8],
    text: Option<&[u8]>,
) -> Result<Frames, Fault> {
    if name.is_empty() {
        session.statements.unnamed = Unnamed::None;
    }
    let Some(text) = text else { return Err(Fault::TransactionLost) };
    let class = classify(text, session.lexer);
    if !WayOut::of(&class).can_be_prepared() {
        return Err(Fault::TransactionLost);
    }
    if name.is_empty() {
        session.statements.keep_unnamed(rest, (!class.is_ordinary()).then(|| Arc::new(class)), Digest::NONE);
        session.statements.leave_unnamed();
    } else if session.statements.find(name).is_some() {
        return Err(Fault::DuplicateStatement(String::from_utf8_lossy(name).into_owned()));
    } else if session.statements.is_full() {
        return Err(Fault::TooManyStatements);
    } else {
        let class = (!class.is_ordinary()).then(|| Arc::new(class));
        let draft = statements.draft(rest, &[], class, session.settings.clone(), Digest::NONE);
        // None of them has parameters or columns.
        let statement = statements.analysed(&draft, session.pool.key(), Analysis::new(&[0, 0], &[]));
        session.statements.insert(name, statement);
    }
    Ok(build::PARSE_COMPLETE.into())
}
