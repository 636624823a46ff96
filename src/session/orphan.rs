//! A client whose transaction was lost with its backend, until it acknowledges that.
//!
//! It may have more statements of that transaction under way; run on another backend they would take effect on their
//! own. So the client is kept in a failed transaction, as Postgres would after an error: nothing but ROLLBACK or COMMIT
//! (which is answered ROLLBACK) is done, everything else is 25P02.

use std::sync::Arc;

use super::frontend::{Message, ends_transaction};
use super::session::Session;
use crate::error::Fault;
use crate::sql::classify;
use crate::sqlstate;
use crate::wire::build::{self, split_cstring};
use crate::wire::frame::HEADER_LEN;
use crate::wire::ring::TransactionStatus;

/// What of the extended protocol is open.
#[derive(Debug, Default)]
pub struct Orphan {
    /// The unnamed statement ends the transaction.
    statement_ends: bool,
    /// The unnamed portal does.
    portal_ends: bool,
    /// It was executed; Sync completes it.
    is_over: bool,
}

impl Orphan {
    /// Answers one message into `out`. True when the transaction is over.
    pub fn message(
        &mut self,
        message: Message<'_>,
        session: &Session,
        out: &mut Vec<u8>,
        is_discarding: &mut bool,
    ) -> Result<bool, Fault> {
        let body = &message.bytes[HEADER_LEN..];
        let ends = |text: &[u8]| ends_transaction(&classify(text, session.lexer));
        match message.tag {
            b'Q' => {
                let text = body.strip_suffix(b"\0").unwrap_or(body);
                if ends(text) {
                    build::command_complete(out, b"ROLLBACK");
                    build::ready_for_query(out, TransactionStatus::Idle);
                    return Ok(true);
                }
                refuse(out);
                build::ready_for_query(out, TransactionStatus::Failed);
            }
            b'P' => {
                let (name, rest) = split_cstring(body).ok_or(Fault::Malformed("Parse"))?;
                let (text, _) = split_cstring(rest).ok_or(Fault::Malformed("Parse"))?;
                self.statement_ends = name.is_empty() && ends(text);
                if !self.statement_ends {
                    return Ok(fail(out, is_discarding));
                }
                out.extend_from_slice(build::PARSE_COMPLETE);
            }
            b'B' => {
                let (portal, rest) = split_cstring(body).ok_or(Fault::Malformed("Bind"))?;
                let (name, _) = split_cstring(rest).ok_or(Fault::Malformed("Bind"))?;
                let named = session.statements.find(name).map(Arc::as_ref);
                let ends = named.map_or(self.statement_ends && name.is_empty(), |s| ends_transaction(&s.class));
                self.portal_ends = ends && portal.is_empty();
                if !self.portal_ends {
                    return Ok(fail(out, is_discarding));
                }
                out.extend_from_slice(build::BIND_COMPLETE);
            }
            b'D' if body.first() == Some(&b'S') => {
                out.extend_from_slice(build::NO_PARAMETERS);
                out.extend_from_slice(build::NO_DATA);
            }
            b'D' => out.extend_from_slice(build::NO_DATA),
            b'E' if self.portal_ends => {
                build::command_complete(out, b"ROLLBACK");
                self.is_over = true;
            }
            b'C' => out.extend_from_slice(build::CLOSE_COMPLETE),
            b'S' => {
                let status = if self.is_over { TransactionStatus::Idle } else { TransactionStatus::Failed };
                build::ready_for_query(out, status);
                return Ok(self.is_over);
            }
            b'F' => {
                refuse(out);
                build::ready_for_query(out, TransactionStatus::Failed);
            }
            b'H' | b'd' | b'c' | b'f' => {}
            b'E' => return Ok(fail(out, is_discarding)),
            other => return Err(Fault::MessageType(other)),
        }
        Ok(false)
    }
}

fn refuse(out: &mut Vec<u8>) {
    build::error_response(out, &sqlstate::report(&Fault::TransactionLost));
}

fn fail(out: &mut Vec<u8>, is_discarding: &mut bool) -> bool {
    refuse(out);
    *is_discarding = true;
    false
}
