//! EXECUTE in SQL: the text of a prepared statement in its place.
//!
//! A backend may have another text under the name than the client has prepared, where pgweir does itself what the
//! client's says. Then the client's own is read once more, with the arguments where its parameters were.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use super::effect::Context;
use super::keyword::*;
use super::lex::TokenKind;
use super::mask::{Readable, unmask};
use super::quote;
use super::read::Reader;
use super::scan::split;
use super::splice::TextSplice;
use super::statement_names::skip_options;

/// An EXECUTE that is a statement, or all of an EXPLAIN.
struct Executed<'a> {
    name: Bytes,
    is_explained: bool,
    /// As they are written.
    arguments: Vec<&'a [u8]>,
    span: Range<usize>,
}

/// The text with the texts that `prepared` gives for some of its EXECUTEs in their place: it is asked with a name, and
/// whether the EXECUTE is within an EXPLAIN. `None` if there is none. No more than `room` bytes are put in.
pub(crate) fn replace_executes<'p>(
    text: &[u8],
    context: Context,
    prepared: impl Fn(&[u8], bool) -> Option<&'p [u8]>,
    mut room: usize,
) -> Option<Vec<u8>> {
    let (readable, is_masked) = match Readable::of(text, context) {
        Readable::AsIs(text) => (Cow::Borrowed(text), false),
        Readable::Masked(text) => (Cow::Owned(text), true),
        Readable::Unreadable => return None,
    };
    let mut splice = TextSplice::new(&readable);
    for span in split(&readable, context.readable()) {
        let Some(executed) = read(&readable[span.clone()], context.readable()) else { continue };
        let name = if is_masked { unmask(&executed.name).into() } else { executed.name };
        let Some(original) = prepared(&name, executed.is_explained) else { continue };
        let put = match Readable::of(original, context) {
            Readable::AsIs(original) => with_arguments(original, context.readable(), &executed.arguments),
            Readable::Masked(original) => with_arguments(&original, context.readable(), &executed.arguments)
                .map(|text| if is_masked { text } else { unmask(&text) }),
            Readable::Unreadable => None,
        };
        let Some(put) = put.filter(|put| put.len() <= room) else { continue };
        room -= put.len();
        splice.put(span.start + executed.span.start..span.start + executed.span.end, &put);
    }
    let text = splice.finish()?;
    Some(if is_masked { unmask(&text) } else { text })
}

fn read(text: &[u8], context: Context) -> Option<Executed<'_>> {
    let mut reader = Reader::new(text, context);
    let is_explained = reader.word(EXPLAIN);
    if is_explained {
        skip_options(&mut reader);
    }
    let start = reader.token().start;
    if !reader.word(EXECUTE) {
        return None;
    }
    let name = reader.free_name()?;
    let arguments = match reader.token().kind {
        TokenKind::Open => arguments(&mut reader)?,
        _ => Vec::new(),
    };
    let span = start..reader.previous_end();
    while reader.token().kind == TokenKind::Semicolon {
        reader.advance();
    }
    reader.is_at_end().then_some(Executed { name, is_explained, arguments, span })
}

/// Takes arguments in parentheses. `None` if there are none, or one has a parameter: Postgres refuses both.
fn arguments<'a>(reader: &mut Reader<'a>) -> Option<Vec<&'a [u8]>> {
    reader.advance();
    let (mut arguments, mut depth, mut start) = (Vec::new(), 0usize, reader.token().start);
    loop {
        let token = reader.token();
        let ends = token.kind == TokenKind::Close || token.of(reader.text()) == b",";
        if ends && depth == 0 {
            if token.start == start {
                return None;
            }
            arguments.push(&reader.text()[start..reader.previous_end()]);
            reader.advance();
            start = reader.token().start;
            if token.kind == TokenKind::Close {
                return Some(arguments);
            }
            continue;
        }
        match token.kind {
            TokenKind::Open => depth += 1,
            TokenKind::Close => depth -= 1,
            TokenKind::Symbol if matches!(token.of(reader.text()), b"[" | b"{") => depth += 1,
            TokenKind::Symbol if matches!(token.of(reader.text()), b"]" | b"}") => depth = depth.checked_sub(1)?,
            TokenKind::End | TokenKind::Unterminated => return None,
            _ if reader.parameter().is_some() => return None,
            _ => {}
        }
        reader.advance();
    }
}

/// The text with arguments in the place of its parameters, all of which are texts; `None` if it has more or fewer.
fn with_arguments(text: &[u8], context: Context, arguments: &[&[u8]]) -> Option<Vec<u8>> {
    let mut splice = TextSplice::new(text);
    let mut reader = Reader::new(text, context);
    let mut highest = 0;
    while !reader.is_at_end() {
        let start = reader.token().start;
        match reader.parameter() {
            Some(number) => {
                highest = highest.max(usize::from(number));
                let argument = arguments.get(usize::from(number) - 1)?;
                splice.put(start..reader.previous_end(), &as_text(argument, context));
            }
            None => reader.advance(),
        }
    }
    // Postgres reads no arguments where there is no parameter.
    if highest != 0 && highest != arguments.len() {
        return None;
    }
    let mut text = splice.finish().unwrap_or_else(|| text.to_vec());
    // It may end in a comment.
    text.push(b'\n');
    Some(text)
}

/// An argument as a text: Postgres converts it as in an assignment.
fn as_text<'a>(argument: &'a [u8], context: Context) -> Cow<'a, [u8]> {
    let mut reader = Reader::new(argument, context);
    let is_literal = quote::literal(argument, reader.token()).is_some() || reader.is(NULL);
    reader.advance();
    if is_literal && reader.is_at_end() {
        return Cow::Borrowed(argument);
    }
    Cow::Owned([b"CAST(", argument, b" AS text)"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::EncodingFamily;

    fn replaced(text: &str, prepared: &str) -> Option<String> {
        let prepared = |name: &[u8], _| (name == b"p").then_some(prepared.as_bytes());
        let text = replace_executes(text.as_bytes(), Context::default(), prepared, 1000)?;
        Some(String::from_utf8(text).unwrap())
    }

    #[test]
    fn an_execute_gives_way_wherever_it_is_a_statement() {
        for (text, expected) in [
            ("EXECUTE p", "LISTEN a\n"),
            (" execute \"p\" ; ", " LISTEN a\n ; "),
            ("SELECT 1; EXECUTE P; EXECUTE q", "SELECT 1; LISTEN a\n; EXECUTE q"),
            ("EXPLAIN (ANALYZE) EXECUTE p", "EXPLAIN (ANALYZE) LISTEN a\n"),
            ("EXECUTE p(1)", "LISTEN a\n"),
        ] {
            assert_eq!(replaced(text, "LISTEN a").as_deref(), Some(expected), "{text}");
        }
        for text in ["EXECUTE q", "EXECUTE p x", "EXECUTE p()", "CREATE TABLE t AS EXECUTE p", "EXECUTE"] {
            assert_eq!(replaced(text, "LISTEN a"), None, "{text}");
        }
    }

    #[test]
    fn arguments_take_the_places_of_parameters() {
        let prepared = "SELECT pg_notify($1, $2::text) -- $1";
        for (text, expected) in [
            ("EXECUTE p('a', 'b')", "SELECT pg_notify('a', 'b'::text) -- $1\n"),
            ("EXECUTE p(NULL, E'b\\n')", "SELECT pg_notify(NULL, E'b\\n'::text) -- $1\n"),
            ("EXECUTE p(f(1, 2), 5)", "SELECT pg_notify(CAST(f(1, 2) AS text), CAST(5 AS text)::text) -- $1\n"),
            (
                "EXECUTE p((ARRAY['a', 'b'])[1], ',')",
                "SELECT pg_notify(CAST((ARRAY['a', 'b'])[1] AS text), ','::text) -- $1\n",
            ),
        ] {
            assert_eq!(replaced(text, prepared).as_deref(), Some(expected), "{text}");
        }
        for text in
            ["EXECUTE p('a')", "EXECUTE p('a', 'b', 'c')", "EXECUTE p('a', $1)", "EXECUTE p", "EXECUTE p('a', )"]
        {
            assert_eq!(replaced(text, prepared), None, "{text}");
        }
    }

    #[test]
    fn no_more_is_put_in_than_there_is_room_for() {
        let text = "EXECUTE p;".repeat(200);
        let replaced = replaced(&text, "LISTEN abc").unwrap();
        assert_eq!(replaced.matches("LISTEN").count(), 1000 / 11);
    }

    #[test]
    fn texts_in_unsafe_encodings_are_read() {
        let context = Context { encoding: EncodingFamily::Sjis, ..Context::default() };
        // The second byte of the character is a backslash.
        let prepared = |name: &[u8], _| (name == b"\x83\x5c").then_some(&b"NOTIFY a, '\x83\x5c'"[..]);
        let replaced = replace_executes(b"EXECUTE \"\x83\x5c\"; SELECT 1", context, prepared, 1000);
        assert_eq!(replaced.as_deref(), Some(&b"NOTIFY a, '\x83\x5c'\n; SELECT 1"[..]));
    }
}
