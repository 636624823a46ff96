//! Names and literals between their written form and what they mean.
//!
//! Decoding answers `None` where the meaning depends on something the text does not say (an escape outside ASCII in
//! `U&''` is one of the server's encoding) or where Postgres would refuse it; the caller then treats the statement as
//! unread.

use bytes::Bytes;

use super::lex::{Token, TokenKind, continuation};

/// Bytes a name keeps: `NAMEDATALEN` − 1.
const NAME_MAX: usize = 63;

/// The name a token spells: folded unless quoted, cut to 63 bytes.
pub(super) fn name(text: &[u8], token: Token) -> Option<Bytes> {
    cut_name(whole_name(text, token)?)
}

/// A decoded name as Postgres keeps it.
pub(super) fn cut_name(mut name: Vec<u8>) -> Option<Bytes> {
    truncate(&mut name);
    (!name.is_empty()).then(|| name.into())
}

/// The same before it is cut.
pub(super) fn whole_name(text: &[u8], token: Token) -> Option<Vec<u8>> {
    let written = token.of(text);
    let name = match token.kind {
        TokenKind::Word => written.to_ascii_lowercase(),
        TokenKind::Quoted => undouble(&written[1..written.len() - 1], b'"'),
        _ => return None,
    };
    (!name.is_empty()).then_some(name)
}

/// Cuts at a character boundary, as `truncate_identifier` does in a UTF-8 database.
fn truncate(name: &mut Vec<u8>) {
    if name.len() > NAME_MAX {
        let is_boundary = |at: &usize| name[*at] & 0xc0 != 0x80;
        let end = (NAME_MAX - 3..=NAME_MAX).rev().find(is_boundary).unwrap_or(NAME_MAX);
        name.truncate(end);
    }
}

/// The text a string literal stands for, its continuations joined.
pub(super) fn literal(text: &[u8], token: Token) -> Option<Bytes> {
    let written = token.of(text);
    match token.kind {
        TokenKind::Dollar => {
            let tag = memchr::memchr(b'$', &written[1..])? + 2;
            Some(Bytes::copy_from_slice(&written[tag..written.len() - tag]))
        }
        TokenKind::Plain => {
            let mut value = Vec::with_capacity(written.len());
            for part in parts(written, false) {
                value.extend(undouble(part, b'\''));
            }
            Some(value.into())
        }
        TokenKind::Escaped => {
            let mut value = Vec::with_capacity(written.len());
            for part in parts(written, true) {
                unescape(part, &mut value)?;
            }
            Some(value.into())
        }
        _ => None,
    }
}

/// The content of `U&"name"` or `U&'text'`, if its escapes are ASCII and so the same in every encoding.
pub(super) fn unicode(written: &[u8], escape: u8) -> Option<Vec<u8>> {
    let quoted = written.get(2..)?;
    let content = match quoted {
        [b'"', content @ .., b'"'] => undouble(content, b'"'),
        _ => parts(quoted, false).flat_map(|part| undouble(part, b'\'')).collect(),
    };
    let mut value = Vec::with_capacity(content.len());
    let mut rest = &content[..];
    while let Some(at) = memchr::memchr(escape, rest) {
        value.extend_from_slice(&rest[..at]);
        let after = &rest[at + 1..];
        let (digits_at, width) = match after.first()? {
            again if *again == escape => {
                value.push(escape);
                rest = &after[1..];
                continue;
            }
            b'+' => (1, 6),
            _ => (0, 4),
        };
        let (code, count) = digits(&after[digits_at..], 16, width)?;
        let character = u8::try_from(code).ok().filter(|code| count == width && matches!(code, 1..0x80))?;
        value.push(character);
        rest = &after[digits_at + width..];
    }
    value.extend_from_slice(rest);
    Some(value)
}

/// The texts between the quotes of a literal and of its continuations. The lexer made sure that all of them are closed.
fn parts(written: &[u8], escapes: bool) -> impl Iterator<Item = &[u8]> {
    let mut quote = memchr::memchr(b'\'', written);
    std::iter::from_fn(move || {
        let start = quote? + 1;
        let mut end = start;
        loop {
            // Long literals are long because of what is neither.
            let rest = written.get(end..)?;
            end += if escapes { memchr::memchr2(b'\'', b'\\', rest)? } else { memchr::memchr(b'\'', rest)? };
            match &written[end..] {
                [b'\\', ..] | [b'\'', b'\'', ..] => end += 2,
                _ => break,
            }
        }
        quote = continuation(written, end + 1);
        Some(&written[start..end])
    })
}

fn undouble(written: &[u8], quote: u8) -> Vec<u8> {
    let mut value = Vec::with_capacity(written.len());
    let mut rest = written;
    while let Some(at) = memchr::memchr(quote, rest) {
        value.extend_from_slice(&rest[..=at]);
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    value.extend_from_slice(rest);
    value
}

/// `xeescape`, `xeoctesc`, `xehexesc` and `xeunicode` of `scan.l`.
fn unescape(written: &[u8], value: &mut Vec<u8>) -> Option<()> {
    let mut rest = written;
    while let Some(at) = memchr::memchr2(b'\'', b'\\', rest) {
        value.extend_from_slice(&rest[..at]);
        let after = &rest[at + 1..];
        match rest[at] {
            byte @ b'\'' => {
                value.push(byte);
                rest = after.get(1..)?;
            }
            _ => {
                let sequence = after;
                let (&escaped, after) = sequence.split_first()?;
                rest = after;
                match escaped {
                    b'b' => value.push(0x08),
                    b'f' => value.push(0x0c),
                    b'n' => value.push(b'\n'),
                    b'r' => value.push(b'\r'),
                    b't' => value.push(b'\t'),
                    b'v' => value.push(0x0b),
                    b'0'..=b'7' => {
                        let (code, count) = digits(sequence, 8, 3)?;
                        value.push((code & 0xff) as u8);
                        rest = &sequence[count..];
                    }
                    b'x' if after.first().is_some_and(u8::is_ascii_hexdigit) => {
                        let (code, count) = digits(after, 16, 2)?;
                        value.push(code as u8);
                        rest = &after[count..];
                    }
                    b'u' | b'U' => {
                        let width = if escaped == b'u' { 4 } else { 8 };
                        let (code, count) = digits(after, 16, width)?;
                        let character = char::from_u32(code).filter(|_| count == width)?;
                        value.extend(character.encode_utf8(&mut [0; 4]).as_bytes());
                        rest = &after[count..];
                    }
                    other => value.push(other),
                }
            }
        }
    }
    value.extend_from_slice(rest);
    // A zero byte is an error in Postgres and would end our own text.
    memchr::memchr(0, value).is_none().then_some(())
}

/// The number that up to `max` digits spell, and how many there were.
fn digits(written: &[u8], radix: u32, max: usize) -> Option<(u32, usize)> {
    let mut code = 0u32;
    let mut count = 0;
    while count < max {
        let Some(digit) = written.get(count).and_then(|&byte| char::from(byte).to_digit(radix)) else {
            break;
        };
        code = code.checked_mul(radix)?.checked_add(digit)?;
        count += 1;
    }
    (count > 0).then_some((code, count))
}

/// `value` as a literal that means the same with `standard_conforming_strings` on and off (`quote_literal` of
/// Postgres).
pub(crate) fn quote_literal(value: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(value.len() + 3);
    if memchr::memchr(b'\\', value).is_some() {
        quoted.push(b'E');
    }
    quoted.push(b'\'');
    let mut rest = value;
    while let Some(at) = memchr::memchr2(b'\'', b'\\', rest) {
        quoted.extend_from_slice(&rest[..=at]);
        quoted.push(rest[at]);
        rest = &rest[at + 1..];
    }
    quoted.extend_from_slice(rest);
    quoted.push(b'\'');
    quoted
}

/// `name` as one quoted identifier.
pub(crate) fn quote_identifier(name: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(name.len() + 2);
    quoted.push(b'"');
    for &byte in name {
        if byte == b'"' {
            quoted.push(byte);
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    quoted
}

/// `written`, one plain or escaped literal, spelled so that both settings of `standard_conforming_strings` read it
/// alike.
pub(super) fn portable(text: &[u8], token: Token) -> Option<Vec<u8>> {
    let written = token.of(text);
    match token.kind {
        TokenKind::Plain | TokenKind::Escaped if written.contains(&b'\\') => {
            // An escape outside ASCII is one of the server's encoding.
            let high = |bytes: &[u8]| bytes.iter().filter(|byte| !byte.is_ascii()).count();
            let value = literal(text, token).filter(|value| high(value) == high(written))?;
            Some(quote_literal(&value))
        }
        _ => Some(written.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::lex::Lexer;
    use super::*;

    fn read(text: &str) -> Option<Bytes> {
        literal(text.as_bytes(), Lexer::new(text.as_bytes(), true).token())
    }

    fn named(text: &str) -> Option<Bytes> {
        name(text.as_bytes(), Lexer::new(text.as_bytes(), true).token())
    }

    #[test]
    fn literals_are_decoded() {
        assert_eq!(read(r"'it''s \n'").unwrap(), r"it's \n");
        assert_eq!(read(r"E'it\'s''\n\t\\\x41\101\u00e9\U0001F600\q'").unwrap(), "it's'\n\t\\AAé😀q");
        assert_eq!(read("$a$x''\\y$a$").unwrap(), r"x''\y");
        assert_eq!(read("'a' -- ''\n 'b''' \n'c'").unwrap(), "ab'c");
    }

    #[test]
    fn literals_that_postgres_refuses_are_not_decoded() {
        for text in [r"E'\u12'", r"E'\000'", r"E'\ud800'", "U&'a'", "x'41'"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn unicode_escapes_are_decoded_if_they_are_ascii() {
        for (written, escape, value) in [
            (r#"U&"d\0061t\+000061""#, b'\\', Some("data")),
            (r"u&'it''s \\ !'", b'\\', Some(r"it's \ !")),
            (r"U&'d!0061t!!'", b'!', Some("dat!")),
            (r"U&'\00e9'", b'\\', None),
            (r"U&'\0000'", b'\\', None),
            (r"U&'\006'", b'\\', None),
            (r"U&'\'", b'\\', None),
            (r"U&'\+'", b'\\', None),
        ] {
            assert_eq!(unicode(written.as_bytes(), escape).as_deref(), value.map(str::as_bytes), "{written}");
        }
    }

    #[test]
    fn names_are_folded_unless_quoted_and_cut_to_63_bytes() {
        assert_eq!(named("FooBar").unwrap(), "foobar");
        assert_eq!(named(r#""Foo""Bar""#).unwrap(), r#"Foo"Bar"#);
        assert_eq!(named(&"a".repeat(64)).unwrap().len(), 63);
        assert_eq!(named(&"é".repeat(32)).unwrap(), "é".repeat(31));
        assert_eq!(named(r#""""#), None);
    }

    proptest! {
        #[test]
        fn a_quoted_value_is_read_back_under_both_settings(value in proptest::collection::vec(1u8.., 0..40)) {
            let quoted = quote_literal(&value);
            for standard_conforming_strings in [true, false] {
                let token = Lexer::new(&quoted, standard_conforming_strings).token();
                prop_assert_eq!(token.end, quoted.len());
                prop_assert_eq!(&literal(&quoted, token).unwrap()[..], &value[..]);
            }
        }
    }
}
