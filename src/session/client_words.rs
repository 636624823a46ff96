//! Errors of the server in the client's words: its prepared statements have other names there.

use std::sync::Arc;

use super::statements::{ClientStatements, Undo};
use crate::sql::StatementEffects;
use crate::state::statements::{NAME_PREFIX, PreparedStatements};
use crate::wire::build::{self, error_fields};
use crate::wire::frame::HEADER_LEN;

/// SQLSTATEs of the errors that quote the name of a prepared statement: a Bind or an EXECUTE with too many or too few
/// values, a statement that is not there or is there already, one that is no SELECT.
const QUOTING: [&[u8]; 5] = [b"08P01", b"26000", b"42601", b"42809", b"42P05"];

/// The names that the failed message has: two of the client's may be of one statement.
pub(super) enum Quoted {
    /// A Bind or Describe of the name with this tag.
    Tagged(u32),
    /// What a text with these effects executes.
    Executed(Arc<StatementEffects>),
    /// Nobody knows.
    Any,
}

/// The frame of an error that quotes the backend's name for a statement, with the client's in its place; `None` for
/// any other error, and for the head of a longer one. `under_way`: changes of the client's names behind the message.
pub(super) fn translated<'a>(
    error: &[u8],
    quoted: &Quoted,
    client: &'a ClientStatements,
    mut under_way: impl Iterator<Item = &'a Undo>,
    backend: &PreparedStatements,
) -> Option<Vec<u8>> {
    let fields = error_fields(error.get(HEADER_LEN..)?);
    if !QUOTING.contains(&fields.code) {
        return None;
    }
    let message = fields.message;
    let start = memchr::memmem::find(message, NAME_PREFIX)?;
    let digits = &message[start + NAME_PREFIX.len()..];
    let length = digits.iter().take_while(|digit| digit.is_ascii_hexdigit()).count();
    let number = u64::from_str_radix(str::from_utf8(&digits[..length]).ok()?, 16).ok()?;
    let name = match quoted {
        Quoted::Tagged(tag) => {
            client.name_tagged(*tag).or_else(|| under_way.find_map(|undo| undo.name_tagged(*tag)))?
        }
        Quoted::Executed(class) => {
            let id = backend.id_of(number)?;
            let is_meant = |name: &&[u8]| client.find(name).is_some_and(|statement| statement.id == id);
            class.executed().find(is_meant).or_else(|| client.name_of(id))?
        }
        Quoted::Any => client.name_of(backend.id_of(number)?)?,
    };
    let spoken = [&message[..start], name, &digits[length..]].concat();
    build::with_message(error, &spoken)
}
