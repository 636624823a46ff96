//! A client whose transaction was lost with its backend, until it acknowledges that.
//!
//! The client may have more statements of that transaction under way; on another backend they would take effect on
//! their own. So the client is kept in a failed transaction, as Postgres would after an error: only ROLLBACK or COMMIT
//! (which is answered ROLLBACK) is done, everything else is 25P02.

use super::session::Session;
use crate::error::Fault;
use crate::error::sqlstate;
use crate::sql::{Effect, StatementEffects, classify};
use crate::wire::build;
use crate::wire::expected::TransactionStatus;
use crate::wire::message::{Named, Request};

/// State of the extended protocol, and the error that the client has not got yet.
#[derive(Debug, Default)]
pub(crate) struct Orphan {
    /// The transaction was lost while nothing was under way: the next error carries this fault.
    unreported: Option<Fault>,
    /// Effect of the unnamed statement on the transaction.
    statement: Ending,
    /// Effect of the unnamed portal on the transaction.
    portal: Ending,
    /// The portal was executed; Sync completes it.
    is_over: bool,
}

/// The way a text ends the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Ending {
    /// Not at all, or not as its first and (unless it is a ROLLBACK) only statement.
    #[default]
    None,
    Commit,
    Rollback,
    /// More statements follow the ROLLBACK.
    RollbackAndMore,
}

impl Ending {
    fn of(class: &StatementEffects) -> Self {
        match class.effects.iter().find(|(at, _)| *at == 0) {
            Some((_, Effect::Rollback { chain: false })) if class.statements > 1 => Self::RollbackAndMore,
            Some((_, Effect::Rollback { chain: false })) => Self::Rollback,
            Some((_, Effect::Commit { chain: false } | Effect::PrepareTransaction)) if class.statements == 1 => {
                Self::Commit
            }
            _ => Self::None,
        }
    }

    /// True if the transaction is over once the text was executed, with nothing behind it.
    fn is_alone(self) -> bool {
        matches!(self, Self::Commit | Self::Rollback)
    }
}

/// Outcome of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrphanOutcome {
    Answered,
    /// The message was refused, and everything up to Sync is.
    Refused,
    /// The message ended the transaction.
    Over,
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
    pub(crate) fn message(&mut self, request: Request<'_>, session: &Session, out: &mut Vec<u8>) -> OrphanOutcome {
        let ending = |text: Option<&[u8]>| text.map_or(Ending::None, |text| Ending::of(&classify(text, session.lexer)));
        match request {
            Request::Query { text } => return self.query(ending(text), out),
            Request::FunctionCall { .. } => return self.query(Ending::None, out),
            Request::Parse { name, text, .. } => {
                let ending = ending(text.filter(|_| name.is_empty()));
                if !ending.is_alone() {
                    return self.refuse(out);
                }
                self.statement = ending;
                out.extend_from_slice(build::PARSE_COMPLETE);
            }
            Request::Bind { portal, statement } => {
                let ending = match session.statements.find(statement) {
                    Some(statement) => statement.class.as_deref().map_or(Ending::None, Ending::of),
                    None if statement.is_empty() => self.statement,
                    None => Ending::None,
                };
                if !portal.is_empty() || !ending.is_alone() {
                    return self.refuse(out);
                }
                self.portal = ending;
                out.extend_from_slice(build::BIND_COMPLETE);
            }
            Request::Describe(Named::Statement(_)) => {
                out.extend_from_slice(build::NO_PARAMETERS);
                out.extend_from_slice(build::NO_DATA);
            }
            Request::Describe(Named::Portal(_)) => out.extend_from_slice(build::NO_DATA),
            Request::Execute { .. } => match self.portal {
                Ending::Commit if self.unreported.is_some() => {
                    self.report(out);
                    return OrphanOutcome::Failed;
                }
                Ending::Commit | Ending::Rollback => {
                    build::command_complete(out, b"ROLLBACK");
                    self.is_over = true;
                }
                Ending::None | Ending::RollbackAndMore => return self.refuse(out),
            },
            Request::Close(_) => out.extend_from_slice(build::CLOSE_COMPLETE),
            Request::Sync if self.is_over => {
                build::ready_for_query(out, TransactionStatus::Idle);
                return OrphanOutcome::Over;
            }
            Request::Sync => build::ready_for_query(out, TransactionStatus::Failed),
            Request::Flush | Request::CopyData | Request::CopyEnd => {}
        }
        OrphanOutcome::Answered
    }

    /// A Query or FunctionCall.
    fn query(&mut self, ending: Ending, out: &mut Vec<u8>) -> OrphanOutcome {
        match ending {
            Ending::None => {
                self.report(out);
                build::ready_for_query(out, TransactionStatus::Failed);
                return OrphanOutcome::Answered;
            }
            Ending::RollbackAndMore => return OrphanOutcome::Passed,
            // Clients do not check the tag of a COMMIT: one that has not got an error yet would take it for done.
            Ending::Commit if self.unreported.is_some() => self.report(out),
            Ending::Commit | Ending::Rollback => build::command_complete(out, b"ROLLBACK"),
        }
        build::ready_for_query(out, TransactionStatus::Idle);
        OrphanOutcome::Over
    }

    fn refuse(&mut self, out: &mut Vec<u8>) -> OrphanOutcome {
        self.report(out);
        OrphanOutcome::Refused
    }

    fn report(&mut self, out: &mut Vec<u8>) {
        let fault = self.unreported.take().unwrap_or(Fault::TransactionLost);
        build::error_response(out, &sqlstate::report(&fault));
    }
}
