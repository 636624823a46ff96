//! Replaces the values that a text gives to settings, so that everything else in it stays as it was sent.
//!
//! Only literals are found: `SET name TO value`, and `set_config('name', 'value', …)` wherever it is called; of other
//! values [`classify`](super::classify()) says that they are unknown. A `CREATE` is left alone, as it takes effect
//! later, but for the query of a `CREATE TABLE … AS`.

use std::ops::Range;

use super::effect::{Context, Value};
use super::keyword::*;
use super::mask;
use super::read::Reader;
use super::scan::Scanner;
use super::set;
use super::set_config;
use super::splice::TextSplice;

/// The value put in the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Substitute {
    /// The value that RESET would set.
    Default,
    Milliseconds(u32),
}

/// A text with other values in it, and the settings that were replaced with the numbers of their statements.
type ReplacedParts = (Vec<u8>, Vec<(u32, String)>);

/// A text with other values in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replaced {
    /// The text to send instead.
    pub text: Vec<u8>,
    /// The settings whose values were replaced, each with the number of its statement among those not empty.
    pub settings: Vec<(u32, String)>,
}

/// Asks `judge` about each value by the name of its setting; `None` if nothing is replaced.
pub(crate) fn replace_values(
    text: &[u8],
    context: Context,
    judge: impl FnMut(&str, &Value) -> Option<Substitute>,
) -> Option<Replaced> {
    let (text, settings) = mask::rewritten(text, context, |text, context| replace_readable(text, context, judge))?;
    Some(Replaced { text, settings })
}

/// The text with other values, and their settings.
fn replace_readable(
    text: &[u8],
    context: Context,
    mut judge: impl FnMut(&str, &Value) -> Option<Substitute>,
) -> Option<ReplacedParts> {
    let mut splice = TextSplice::new(text);
    let mut settings = Vec::new();
    let mut scanner = Scanner::new(text, context);
    let mut number = 0;
    while let Some(statement) = scanner.statement() {
        let start = statement.span.start;
        let written = &text[statement.span];
        let mut visit = |name: String, value: &Value, span: Range<usize>, is_call: bool| {
            let Some(substitute) = judge(&name, value) else { return };
            splice.put(start + span.start..start + span.end, spelled(substitute, is_call).as_bytes());
            settings.push((number, name));
        };
        match statement.head {
            SET => {
                if let Some((name, value, span)) = set::find_value(written, context) {
                    visit(name, &value, span, false);
                }
            }
            ALTER => {}
            head if statement.calls_set_config => {
                let from = if head == CREATE { created_query(written, context) } else { Some(0) };
                for (at, call) in set_config::calls(written, context) {
                    if from.is_some_and(|from| at >= from)
                        && let Some((name, value, span)) = call.literals()
                    {
                        visit(name, &value, span, true);
                    }
                }
            }
            _ => {}
        }
        number += 1;
    }
    Some((splice.finish()?, settings))
}

fn spelled(substitute: Substitute, is_call: bool) -> String {
    match substitute {
        Substitute::Default if is_call => "NULL".to_owned(),
        Substitute::Default => "DEFAULT".to_owned(),
        Substitute::Milliseconds(limit) => format!("'{limit}'"),
    }
}

/// Where the query of a CREATE TABLE … AS begins, which runs at once; other things are made to be run later.
fn created_query(text: &[u8], context: Context) -> Option<usize> {
    let mut reader = Reader::new(text, context);
    reader.enter_created_query().then(|| reader.token().start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sql::{Milliseconds, classify, milliseconds};

    fn replaced(text: &str, substitute: Substitute) -> Option<(String, Vec<u32>)> {
        let judge = |name: &str, _: &Value| (name == "statement_timeout").then_some(substitute);
        let replaced = replace_values(text.as_bytes(), Context::default(), judge)?;
        let numbers = replaced.settings.iter().map(|(number, _)| *number).collect();
        Some((String::from_utf8(replaced.text).unwrap(), numbers))
    }

    #[test]
    fn a_value_is_replaced_where_it_stands() {
        for (text, expected) in [
            ("SET statement_timeout = 0", "SET statement_timeout = '5'"),
            (" set local Statement_Timeout TO '60s' -- x", " set local Statement_Timeout TO '5' -- x"),
            ("SET SESSION \"statement_timeout\" = -1; ", "SET SESSION \"statement_timeout\" = '5'; "),
            ("SET statement_timeout = U&'60s'", "SET statement_timeout = '5'"),
            (
                "SELECT set_config('statement_timeout', '0', false), 1 FROM t",
                "SELECT set_config('statement_timeout', '5', false), 1 FROM t",
            ),
            (
                "INSERT INTO t SELECT pg_catalog.\"set_config\"('STATEMENT_TIMEOUT'::text, E'0'::text, $1)",
                "INSERT INTO t SELECT pg_catalog.\"set_config\"('STATEMENT_TIMEOUT'::text, '5'::text, $1)",
            ),
            (
                "PREPARE p AS SELECT set_config('statement_timeout', '0', true)",
                "PREPARE p AS SELECT set_config('statement_timeout', '5', true)",
            ),
            (
                "SELECT set_config(setting_name => U&'statement_timeout', new_value => ('0'::text), is_local => false)",
                "SELECT set_config(setting_name => U&'statement_timeout', new_value => ('5'::text), is_local => false)",
            ),
            (
                "SELECT set_config($a$statement_timeout$a$, N'0', (1=2))",
                "SELECT set_config($a$statement_timeout$a$, '5', (1=2))",
            ),
            (
                "SELECT set_config('statement_timeout', U&'!0030' UESCAPE '!', false)",
                "SELECT set_config('statement_timeout', '5', false)",
            ),
            (
                "CREATE TEMP TABLE x AS SELECT set_config('statement_timeout', '0', false)",
                "CREATE TEMP TABLE x AS SELECT set_config('statement_timeout', '5', false)",
            ),
            ("SET U&\"statement_timeout\" = E'0'", "SET U&\"statement_timeout\" = '5'"),
            ("/* */ SET/**/statement_timeout/**/=/**/0x0", "/* */ SET/**/statement_timeout/**/=/**/'5'"),
        ] {
            let (text, numbers) = replaced(text, Substitute::Milliseconds(5)).expect(text);
            assert_eq!((text.as_str(), &numbers[..]), (expected, &[0][..]));
        }
    }

    #[test]
    fn each_statement_of_a_text_is_looked_at() {
        let text = "BEGIN; SET statement_timeout = 1; SELECT 1; SET LOCAL statement_timeout = 2; COMMIT";
        let expected =
            "BEGIN; SET statement_timeout = DEFAULT; SELECT 1; SET LOCAL statement_timeout = DEFAULT; COMMIT";
        assert_eq!(replaced(text, Substitute::Default), Some((expected.to_owned(), vec![1, 3])));
        let call = "SELECT set_config('statement_timeout', '1', false)";
        let expected = "SELECT set_config('statement_timeout', NULL, false)";
        assert_eq!(replaced(call, Substitute::Default), Some((expected.to_owned(), vec![0])));
    }

    #[test]
    fn what_is_no_literal_and_what_is_no_value_is_left_alone() {
        for text in [
            "SET statement_timeout TO DEFAULT",
            "RESET statement_timeout",
            "SET lock_timeout = 0",
            "SELECT set_config('statement_timeout', $1, false)",
            "SELECT set_config('statement_timeout', '1' || '0', false)",
            "SELECT set_config('statement_timeout', NULL, false)",
            "SELECT 'set_config(''statement_timeout'', ''0'', false)'",
            "CREATE FUNCTION f() RETURNS text BEGIN ATOMIC SELECT set_config('statement_timeout', '0', false); END",
            "CREATE VIEW v AS SELECT set_config('statement_timeout', '0', false)",
            "CREATE TABLE t (a text DEFAULT set_config('statement_timeout', '0', false))",
            "ALTER ROLE r SET statement_timeout = 0",
            "DO $$ BEGIN SET statement_timeout = 0; END $$",
        ] {
            assert_eq!(replaced(text, Substitute::Milliseconds(5)), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_replaced_text_has_as_many_statements_and_only_the_new_value(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "SET statement_timeout = 9", "SET LOCAL statement_timeout TO '9s' /* ; */", "SELECT ';'", "BEGIN",
                    "SELECT set_config('statement_timeout', '9', true)", "RESET statement_timeout", "SELECT $$;$$ -- ;\n",
                ]),
                0..6,
            ),
        ) {
            let text = parts.join(";");
            let before = classify(text.as_bytes(), Context::default());
            let Some((text, _)) = replaced(&text, Substitute::Milliseconds(5)) else { return Ok(()) };
            let after = classify(text.as_bytes(), Context::default());
            prop_assert_eq!(before.statements, after.statements);
            prop_assert_eq!(before.effects.len(), after.effects.len());
            let mut seen = Vec::new();
            replace_values(text.as_bytes(), Context::default(), |_, value| { seen.push(milliseconds(value)); None });
            prop_assert!(seen.iter().all(|value| *value == Milliseconds::Known(5)));
        }

        #[test]
        fn any_bytes_are_taken(text: Vec<u8>, standard_conforming_strings: bool) {
            let context = Context { standard_conforming_strings, ..Context::default() };
            replace_values(&text, context, |_, _| Some(Substitute::Default));
        }
    }
}
