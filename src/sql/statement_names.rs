//! Names of prepared statements in SQL: where PREPARE, EXECUTE and DEALLOCATE have theirs, and other names put there.
//!
//! Postgres has one list of names for SQL and the protocol; ours at a backend are not those of the client.

use std::ops::Range;

use bytes::Bytes;

use super::effect::Context;
use super::keyword::*;
use super::lex::TokenKind;
use super::mask::{self, Readable, unmask};
use super::quote::quote_identifier;
use super::read::Reader;
use super::scan::split;
use super::splice::TextSplice;

/// What a statement does with the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameUse {
    Prepare,
    /// EXECUTE, and EXPLAIN and CREATE TABLE … AS of it.
    Execute,
    Deallocate,
}

/// A name and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatementName {
    pub used: NameUse,
    /// Folded unless it is quoted, and cut.
    pub name: Bytes,
    /// As it is written.
    pub span: Range<usize>,
    /// Number of the statement that has it among those not empty.
    pub number: u32,
    /// The statement is an EXECUTE, not an EXPLAIN or CREATE TABLE … AS of one.
    pub is_direct: bool,
}

/// The names of prepared statements in a text; DEALLOCATE ALL has none.
pub(crate) fn statement_names(text: &[u8], context: Context) -> Vec<StatementName> {
    match Readable::of(text, context) {
        Readable::AsIs(text) => find(text, context.readable()).collect(),
        Readable::Masked(text) => find(&text, context.readable())
            .map(|found| StatementName {
                name: unmask(&found.name).into(),
                span: mask::place(&text, found.span.start)..mask::place(&text, found.span.end),
                ..found
            })
            .collect(),
        Readable::Unreadable => Vec::new(),
    }
}

fn find(text: &[u8], context: Context) -> impl Iterator<Item = StatementName> {
    (0..).zip(split(text, context)).filter_map(move |(number, span)| {
        let statement = &text[span.clone()];
        let (used, name, place) = read_name(statement, context)?;
        let is_direct = Reader::new(statement, context).is(EXECUTE);
        Some(StatementName { used, name, span: span.start + place.start..span.start + place.end, number, is_direct })
    })
}

/// The text with the names that `other` gives for some of its names; `None` if it gives none.
pub(crate) fn rename_statements(
    text: &[u8],
    context: Context,
    other: impl Fn(NameUse, &[u8]) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let mut splice = TextSplice::new(text);
    for StatementName { used, name, span, .. } in statement_names(text, context) {
        if let Some(name) = other(used, &name) {
            let mut quoted = quote_identifier(&name);
            // Two quotes that touch are one within the name.
            if text.get(span.end) == Some(&b'"') {
                quoted.push(b' ');
            }
            splice.put(span, &quoted);
        }
    }
    splice.finish()
}

/// The name that a statement executes.
pub(super) fn executed(text: &[u8], context: Context) -> Option<Bytes> {
    read_name(text, context).and_then(|(used, name, _)| (used == NameUse::Execute).then_some(name))
}

/// The name in one statement, and where it stands.
fn read_name(text: &[u8], context: Context) -> Option<(NameUse, Bytes, Range<usize>)> {
    let mut reader = Reader::new(text, context);
    let used = match () {
        () if reader.word(EXECUTE) => NameUse::Execute,
        () if reader.word(EXPLAIN) => {
            skip_options(&mut reader);
            if reader.is(CREATE) && !reader.enter_created_query() {
                return None;
            }
            reader.word(EXECUTE).then_some(NameUse::Execute)?
        }
        () if reader.is(CREATE) => {
            (reader.enter_created_query() && reader.word(EXECUTE)).then_some(NameUse::Execute)?
        }
        () if reader.is(PREPARE) && !reader.is_two_phase() => {
            reader.advance();
            NameUse::Prepare
        }
        () if reader.word(DEALLOCATE) => {
            if reader.second().kind != TokenKind::End {
                reader.word(PREPARE);
            }
            if reader.is(ALL) {
                return None;
            }
            NameUse::Deallocate
        }
        () => return None,
    };
    let start = reader.token().start;
    let name = reader.free_name()?;
    Some((used, name, start..reader.previous_end()))
}

/// `ANALYZE VERBOSE` or `(option, …)` of an EXPLAIN.
pub(super) fn skip_options(reader: &mut Reader<'_>) {
    let _ = reader.word(ANALYZE) || reader.word(ANALYSE);
    reader.word(VERBOSE);
    if reader.token().kind != TokenKind::Open {
        return;
    }
    let mut depth = 0usize;
    while !reader.is_at_end() {
        match reader.token().kind {
            TokenKind::Open => depth += 1,
            TokenKind::Close => depth -= 1,
            _ => {}
        }
        reader.advance();
        if depth == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Effect, StateFlags, classify};
    use super::*;

    fn names(text: &str) -> Vec<(NameUse, String, &str)> {
        statement_names(text.as_bytes(), Context::default())
            .into_iter()
            .map(|found| (found.used, String::from_utf8(found.name.to_vec()).unwrap(), &text[found.span]))
            .collect()
    }

    fn renamed(text: &str) -> Option<String> {
        let other = |_, name: &[u8]| (name == b"p").then(|| b"pgweir_\"1".to_vec());
        rename_statements(text.as_bytes(), Context::default(), other).map(|text| String::from_utf8(text).unwrap())
    }

    use NameUse::{Deallocate, Execute, Prepare};

    #[test]
    fn names_are_found_wherever_they_may_stand() {
        for (text, used, name, written) in [
            ("EXECUTE P", Execute, "p", "P"),
            ("execute \"P\"(1, 'x')", Execute, "P", "\"P\""),
            ("EXPLAIN EXECUTE p", Execute, "p", "p"),
            ("EXPLAIN ANALYZE VERBOSE EXECUTE p(1)", Execute, "p", "p"),
            ("EXPLAIN (ANALYZE, COSTS (off)) EXECUTE p", Execute, "p", "p"),
            ("CREATE TEMP TABLE t (a, b) AS EXECUTE p", Execute, "p", "p"),
            ("CREATE UNLOGGED TABLE IF NOT EXISTS s.t AS /* */ EXECUTE p(1) WITH NO DATA", Execute, "p", "p"),
            ("EXPLAIN CREATE TABLE t AS EXECUTE p", Execute, "p", "p"),
            ("PREPARE p (int) AS SELECT $1", Prepare, "p", "p"),
            ("PREPARE transaction AS SELECT 1", Prepare, "transaction", "transaction"),
            ("DEALLOCATE p", Deallocate, "p", "p"),
            ("DEALLOCATE PREPARE p", Deallocate, "p", "p"),
            ("DEALLOCATE prepare", Deallocate, "prepare", "prepare"),
            (r#"EXECUTE U&"!0070" UESCAPE '!' (1)"#, Execute, "p", r#"U&"!0070" UESCAPE '!'"#),
        ] {
            assert_eq!(names(text), [(used, name.to_owned(), written)], "{text}");
        }
        for text in [
            "DEALLOCATE ALL",
            "PREPARE TRANSACTION 'p'",
            "GRANT EXECUTE ON FUNCTION p TO x",
            "CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW EXECUTE FUNCTION p()",
            "CREATE TABLE t AS SELECT 'EXECUTE p'",
            "SELECT execute FROM p",
        ] {
            assert_eq!(names(text), [], "{text}");
        }
    }

    #[test]
    fn an_execute_is_an_effect_and_no_suspicion() {
        let class = classify(b"SELECT 1; EXPLAIN EXECUTE P", Context::default());
        assert_eq!(class.effects[..], [(1, Effect::Execute(Bytes::from_static(b"p")))]);
        assert!(class.may_begin.is_empty() && class.moves_sequence);
        let class = classify(b"CREATE TRIGGER t AFTER INSERT ON x EXECUTE FUNCTION f()", Context::default());
        assert_eq!((class.may_begin, class.effects.len()), (StateFlags::EXECUTED, 0));
    }

    #[test]
    fn names_are_replaced_where_they_stand() {
        let text = "EXECUTE p(1); SELECT 'p'; EXECUTE q; DEALLOCATE \"p\" ; EXPLAIN EXECUTE P";
        let expected = "EXECUTE \"pgweir_\"\"1\"(1); SELECT 'p'; EXECUTE q; DEALLOCATE \"pgweir_\"\"1\" ; \
                        EXPLAIN EXECUTE \"pgweir_\"\"1\"";
        assert_eq!(renamed(text).as_deref(), Some(expected));
        assert_eq!(renamed("EXECUTE q"), None);
        assert_eq!(renamed("EXECUTE p\"").as_deref(), Some("EXECUTE \"pgweir_\"\"1\" \""));
    }

    proptest! {
        #[test]
        fn any_mix_of_hard_words_is_read(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "EXECUTE ", "EXPLAIN ", "ANALYZE ", "(", ")", "CREATE ", "TEMP ", "TABLE ", " AS ", "p ", "\"", "U&\"", "UESCAPE ", "'!'",
                    "PREPARE ", "TRANSACTION ", "DEALLOCATE ", "ALL", ";", "'", "--\n", "é ",
                ]),
                0..24,
            ),
        ) {
            let text = parts.concat();
            let count = names(&text).len();
            if let Some(replaced) = rename_statements(text.as_bytes(), Context::default(), |_, _| Some(b"x".to_vec())) {
                prop_assert_eq!(names(str::from_utf8(&replaced).unwrap()).len(), count);
            }
        }
    }
}
