//! Errors of the server in the client's words: its prepared statements have other names there.

use super::statements::ClientStatements;
use crate::state::statements::{NAME_PREFIX, PreparedStatements};
use crate::wire::build::{self, error_fields};
use crate::wire::frame::HEADER_LEN;

/// SQLSTATEs of the errors that quote the name of a prepared statement: a Bind or an EXECUTE with too many or too few
/// values, a statement that is not there or is there already, one that is no SELECT.
const QUOTING: [&[u8]; 5] = [b"08P01", b"26000", b"42601", b"42809", b"42P05"];

/// The frame of an error that quotes the backend's name for a statement, with the client's in its place; `None` for
/// any other error, and for the head of a longer one. Of two names for one statement it is the first.
pub(super) fn translated(error: &[u8], client: &ClientStatements, backend: &PreparedStatements) -> Option<Vec<u8>> {
    let fields = error_fields(error.get(HEADER_LEN..)?);
    if !QUOTING.contains(&fields.code) {
        return None;
    }
    let message = fields.message;
    let start = memchr::memmem::find(message, NAME_PREFIX)?;
    let digits = &message[start + NAME_PREFIX.len()..];
    let length = digits.iter().take_while(|digit| digit.is_ascii_hexdigit()).count();
    let number = u64::from_str_radix(str::from_utf8(&digits[..length]).ok()?, 16).ok()?;
    let name = client.name_of(backend.id_of(number)?)?;
    let spoken = [&message[..start], name, &digits[length..]].concat();
    build::with_message(error, &spoken)
}
