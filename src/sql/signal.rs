//! Exact reading of the calls that act on another session by its process id: `pg_cancel_backend` and
//! `pg_terminate_backend`, where they are whole statements.
//!
//! Clients are told ids of ours, which the server does not know; the session puts the id of their backend there.

use std::ops::Range;

use super::effect::Context;
use super::keyword::*;
use super::lex::TokenKind;
use super::read::Reader;

/// A SELECT of one such call and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignalCall {
    /// The session that it is about.
    pub target: SignalTarget,
    /// Where its process id is written.
    at: Range<usize>,
}

/// How a call names a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalTarget {
    Process(i32),
    Parameter(u16),
}

impl SignalCall {
    /// The text, about another process.
    pub(crate) fn redirected(&self, text: &[u8], process: i32) -> Vec<u8> {
        [&text[..self.at.start], process.to_string().as_bytes(), &text[self.at.end..]].concat()
    }
}

/// The call that `text` consists of, if it is one. Most texts are told apart by a few of their first bytes.
#[inline]
pub(crate) fn signal(text: &[u8], context: Context) -> Option<SignalCall> {
    let rest = text.trim_ascii_start();
    let head = rest.first_chunk::<6>()?.map(|byte| byte | 0x20);
    if &head != b"select" || !rest[6..].trim_ascii_start().get(..3)?.eq_ignore_ascii_case(b"pg_") {
        return None;
    }
    read(text, context)
}

fn read(text: &[u8], context: Context) -> Option<SignalCall> {
    let mut reader = Reader::new(text, context);
    reader.advance();
    let mut name = reader.name()?;
    if reader.symbol(b'.') {
        taken(&name[..] == b"pg_catalog")?;
        name = reader.name()?;
    }
    let has_timeout = match &name[..] {
        b"pg_cancel_backend" => false,
        b"pg_terminate_backend" => true,
        _ => return None,
    };
    taken(reader.symbol(b'('))?;
    let is_cast = reader.word(CAST);
    if is_cast {
        taken(reader.symbol(b'('))?;
    }
    let token = reader.token();
    let target = match reader.parameter() {
        Some(number) => SignalTarget::Parameter(number),
        None => SignalTarget::Process(number(text, &mut reader)?),
    };
    let call = SignalCall { target, at: token.start..token.end };
    if is_cast {
        taken(reader.word(AS))?;
        integer_type(&mut reader)?;
        taken(reader.symbol(b')'))?;
    } else if reader.typecast() {
        integer_type(&mut reader)?;
    }
    if has_timeout && reader.symbol(b',') {
        reader.parameter().map(drop).or_else(|| number(text, &mut reader).map(drop))?;
        if reader.typecast() {
            reader.name()?;
        }
    }
    taken(reader.symbol(b')'))?;
    if reader.word(AS) || !reader.is_at_end() && reader.token().kind != TokenKind::Semicolon {
        reader.name()?;
    }
    while reader.token().kind == TokenKind::Semicolon {
        reader.advance();
    }
    reader.is_at_end().then_some(call)
}

/// Takes a number, or a literal that is one. A literal keeps its quotes out of what is replaced: both forms mean the
/// same here.
fn number(text: &[u8], reader: &mut Reader<'_>) -> Option<i32> {
    let token = reader.token();
    let written = match token.kind {
        TokenKind::Number => {
            let written = std::str::from_utf8(token.of(text)).ok()?.to_owned();
            reader.advance();
            written
        }
        TokenKind::Plain => String::from_utf8(reader.literal()?.to_vec()).ok()?,
        _ => return None,
    };
    written.trim().parse().ok()
}

fn integer_type(reader: &mut Reader<'_>) -> Option<()> {
    let name = reader.name()?;
    taken(matches!(&name[..], b"int" | b"int4" | b"integer"))
}

fn taken(expected: bool) -> Option<()> {
    expected.then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redirected(text: &str) -> Option<String> {
        let call = signal(text.as_bytes(), Context::default())?;
        assert_eq!(call.target, SignalTarget::Process(8_388_608), "{text}");
        String::from_utf8(call.redirected(text.as_bytes(), 42)).ok()
    }

    #[test]
    fn a_call_is_redirected_in_every_form_that_drivers_write() {
        for (text, expected) in [
            ("SELECT pg_cancel_backend(8388608)", "SELECT pg_cancel_backend(42)"),
            ("select pg_cancel_backend(8388608);", "select pg_cancel_backend(42);"),
            (
                "  SELECT pg_catalog.pg_terminate_backend( 8388608 ) ;\n",
                "  SELECT pg_catalog.pg_terminate_backend( 42 ) ;\n",
            ),
            ("SELECT pg_terminate_backend(8388608, 5000)", "SELECT pg_terminate_backend(42, 5000)"),
            ("SELECT PG_CANCEL_BACKEND('8388608'::int) AS done", "SELECT PG_CANCEL_BACKEND(42::int) AS done"),
            (
                "SELECT pg_cancel_backend(CAST(8388608 AS integer)) done",
                "SELECT pg_cancel_backend(CAST(42 AS integer)) done",
            ),
        ] {
            assert_eq!(redirected(text).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_parameter_is_known_by_its_number() {
        for text in ["select pg_cancel_backend($1)", "SELECT pg_terminate_backend($1::int4, $2)"] {
            assert_eq!(
                signal(text.as_bytes(), Context::default()).map(|call| call.target),
                Some(SignalTarget::Parameter(1))
            );
        }
    }

    #[test]
    fn other_texts_are_left_alone() {
        for text in [
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity",
            "SELECT pg_cancel_backend(1), 2",
            "SELECT pg_cancel_backend(1) FROM t",
            "SELECT pg_cancel_backend(1 + 1)",
            "SELECT pg_cancel_backend(99999999999)",
            "SELECT pg_cancel_backend(1); SELECT 2",
            "SELECT pg_backend_pid()",
            "SELECT 'pg_cancel_backend(1)'",
            "SELECT pg_cancel_backend(",
            "SELECT",
        ] {
            assert_eq!(signal(text.as_bytes(), Context::default()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(tail: Vec<u8>) {
            signal(&tail, Context::default());
            signal(&[b"SELECT pg_cancel_backend(", &tail[..]].concat(), Context::default());
        }
    }
}
