//! Calls of `set_config`: their arguments, wherever the call stands, and what it does.

use std::ops::Range;

use bytes::Bytes;
use smallvec::smallvec;

use super::effect::{Argument, BoundText, Context, Effect, EffectList, IsLocal, Scope, Value};
use super::keyword::*;
use super::lex::{Lexer, Token, TokenKind};
use super::notify::text_of;
use super::quote;
use super::read::Reader;

/// Tokens of one call that are looked at; keeps nested calls linear.
const TOKENS_MAX: usize = 64;

/// Parentheses and casts around an argument that are looked through.
const DEPTH_MAX: usize = 8;

/// One call as it is written. An argument that is an expression, missing, or too long to be looked at is `None`.
#[derive(Debug, Default)]
pub(super) struct SetConfig {
    name: Option<ConfigArgument>,
    value: Option<ConfigArgument>,
    is_local: Option<ConfigArgument>,
}

/// A literal, NULL or a parameter, perhaps in parentheses, perhaps cast to a text or a boolean.
#[derive(Debug)]
struct ConfigArgument {
    argument: Argument,
    /// Where it stands, without cast and parentheses.
    span: Range<usize>,
}

impl SetConfig {
    /// Whether this is its name.
    pub(super) fn is_name(name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(b"set_config")
    }

    /// Reads the call that `lexer` is in, behind its parenthesis, to its end: the lexer behind that, if it was reached.
    pub(super) fn read<'a>(text: &'a [u8], context: Context, mut lexer: Lexer<'a>) -> (Self, Option<Lexer<'a>>) {
        let mut call = Self::default();
        let (mut depth, mut index) = (0usize, 0);
        let mut span: Option<Range<usize>> = None;
        for _ in 0..TOKENS_MAX {
            let token = lexer.token();
            let written = token.of(text);
            match token.kind {
                TokenKind::Close | TokenKind::Symbol if depth == 0 && matches!(written, b")" | b",") => {
                    call.take(text, context, index, span.take());
                    index += 1;
                    if written == b")" {
                        return (call, Some(lexer));
                    }
                    continue;
                }
                TokenKind::End | TokenKind::Unterminated | TokenKind::Semicolon => break,
                _ if matches!(written, b"(" | b"[") => depth += 1,
                _ if matches!(written, b")" | b"]") => depth = depth.saturating_sub(1),
                _ => {}
            }
            span = Some(span.map_or(token.start, |span| span.start)..token.end);
        }
        (call, None)
    }

    /// Takes argument `index`, or the one that it names.
    fn take(&mut self, text: &[u8], context: Context, index: usize, span: Option<Range<usize>>) {
        let Some(span) = span else { return };
        let mut reader = Reader::new(&text[span.clone()], context);
        let (argument, is_flag) = match (reader.argument_name().as_deref(), index) {
            (Some(b"setting_name"), _) | (None, 0) => (&mut self.name, false),
            (Some(b"new_value"), _) | (None, 1) => (&mut self.value, false),
            (Some(b"is_local"), _) | (None, 2) => (&mut self.is_local, true),
            _ => return,
        };
        let operand = ConfigArgument::read(&mut reader, is_flag, DEPTH_MAX).filter(|_| reader.is_at_end());
        *argument = operand.map(|operand| ConfigArgument {
            span: span.start + operand.span.start..span.start + operand.span.end,
            ..operand
        });
    }

    /// The effects of a call that is made once if its statement succeeds; `None`: any setting may have been set.
    pub(super) fn effects(self) -> Option<EffectList> {
        let is_local = self.is_local();
        let argument = |operand: ConfigArgument| operand.argument;
        let effect = Effect::SetBound { name: argument(self.name?), value: self.value.map(argument), is_local };
        let Effect::SetBound { name, value, is_local } = &effect else { unreachable!() };
        let is_bound = |argument: &Argument| matches!(argument, Argument::Parameter(_));
        if is_bound(name) || value.as_ref().is_some_and(is_bound) || matches!(is_local, IsLocal::Parameter(_)) {
            return Some(smallvec![effect]);
        }
        Some(effect.bound(|_| BoundText::Unknown))
    }

    /// The effects of a call that may be made any number of times, with any value.
    pub(super) fn effects_anywhere(self) -> Option<EffectList> {
        Self { value: None, ..self }.effects()
    }

    /// Nothing outlives the transaction.
    pub(super) fn is_surely_local(&self) -> bool {
        self.is_local() == IsLocal::Known(Scope::Local)
    }

    /// The name of the setting, its value and where that stands, if both are literals.
    pub(super) fn literals(&self) -> Option<(String, Value, Range<usize>)> {
        let Argument::Text(name) = &self.name.as_ref()?.argument else { return None };
        let name = String::from_utf8(name.to_ascii_lowercase()).ok()?;
        let value = self.value.as_ref()?;
        let Argument::Text(text) = &value.argument else { return None };
        Some((name, Value::Text(text.clone()), value.span.clone()))
    }

    /// The name of the setting, and where the NULL stands that is its value.
    pub(super) fn null_value(&self) -> Option<(String, Range<usize>)> {
        let Argument::Text(name) = &self.name.as_ref()?.argument else { return None };
        let value = self.value.as_ref().filter(|value| value.argument == Argument::Null)?;
        Some((String::from_utf8(name.to_ascii_lowercase()).ok()?, value.span.clone()))
    }

    fn is_local(&self) -> IsLocal {
        match self.is_local.as_ref().map(|operand| &operand.argument) {
            None => IsLocal::Unknown,
            Some(Argument::Null) => IsLocal::Known(Scope::Session),
            Some(Argument::Parameter(number)) => IsLocal::Parameter(*number),
            // Postgres refuses any other text.
            Some(Argument::Text(flag)) => Scope::of_flag(flag).map_or(IsLocal::Unknown, IsLocal::Known),
        }
    }
}

impl ConfigArgument {
    fn read(reader: &mut Reader<'_>, is_flag: bool, depth: usize) -> Option<Self> {
        let depth = depth.checked_sub(1)?;
        let operand = if reader.symbol(b'(') {
            let operand = Self::read(reader, is_flag, depth)?;
            reader.symbol(b')').then_some(operand)?
        } else if reader.word(CAST) {
            reader.symbol(b'(').then_some(())?;
            let operand = Self::read(reader, is_flag, depth)?;
            (reader.word(AS) && skip_type(reader, is_flag) && reader.symbol(b')')).then_some(operand)?
        } else {
            Self::read_bare(reader, is_flag)?
        };
        while reader.typecast() {
            skip_type(reader, is_flag).then_some(())?;
        }
        Some(operand)
    }

    /// Without parentheses and casts, but for a type in front of a literal.
    fn read_bare(reader: &mut Reader<'_>, is_flag: bool) -> Option<Self> {
        let mut ahead = *reader;
        if skip_type(&mut ahead, is_flag) && is_literal(ahead.token()) {
            *reader = ahead;
        }
        let start = reader.token();
        let span = start.start..start.end;
        if reader.word(NULL) {
            return Some(Self { argument: Argument::Null, span });
        }
        if is_flag && (reader.is(TRUE) || reader.is(FALSE)) {
            let argument = Argument::Text(Bytes::copy_from_slice(start.of(reader.text())));
            reader.advance();
            return Some(Self { argument, span });
        }
        if let Some(number) = reader.parameter() {
            return Some(Self { argument: Argument::Parameter(number), span });
        }
        if let Some(text) = national(reader.text(), start, reader.context()) {
            reader.advance();
            return Some(Self { argument: Argument::Text(text), span });
        }
        if !reader.is_unicode_literal() {
            let text = text_of(reader.text(), start)?;
            reader.advance();
            return Some(Self { argument: Argument::Text(text), span });
        }
        let text = reader.literal()?;
        Some(Self { argument: Argument::Text(text), span: start.start..reader.previous_end() })
    }
}

/// The text of `N'text'`, which is of the type `char` and so loses its last blanks.
fn national(text: &[u8], literal: Token, context: Context) -> Option<Bytes> {
    let [b'n' | b'N', quoted @ ..] = literal.of(text) else { return None };
    if literal.kind != TokenKind::OtherLiteral {
        return None;
    }
    let text = text_of(quoted, Lexer::new(quoted, context.standard_conforming_strings).token())?;
    let end = text.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    Some(text.slice(..end))
}

fn is_literal(token: Token) -> bool {
    matches!(token.kind, TokenKind::Plain | TokenKind::Escaped | TokenKind::Dollar | TokenKind::OtherLiteral)
}

/// Takes the name of a type that keeps a text as it is, or of the boolean.
fn skip_type(reader: &mut Reader<'_>, is_flag: bool) -> bool {
    let start = *reader;
    if reader.word(PG_CATALOG) && !reader.symbol(b'.') {
        *reader = start;
        return false;
    }
    let found = if is_flag {
        reader.word(BOOLEAN) || reader.word(BOOL)
    } else {
        reader.word(TEXT) || reader.word(VARCHAR) || reader.words(&[CHARACTER, VARYING])
    };
    if !found {
        *reader = start;
    }
    found
}

/// Every call in a statement, one inside another too, and where its name stands.
pub(super) fn calls<'a>(text: &'a [u8], context: Context) -> impl Iterator<Item = (usize, SetConfig)> + use<'a> {
    let mut lexer = Lexer::new(text, context.standard_conforming_strings);
    std::iter::from_fn(move || {
        loop {
            let token = lexer.token();
            let is_named = match token.kind {
                TokenKind::End | TokenKind::Unterminated => return None,
                TokenKind::Word | TokenKind::Quoted => {
                    quote::name(text, token).is_some_and(|name| SetConfig::is_name(&name))
                }
                _ => continue,
            };
            let mut ahead = lexer;
            if is_named && ahead.token().kind == TokenKind::Open {
                return Some((token.start, SetConfig::read(text, context, ahead).0));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::effect::Setting;
    use super::super::{StateFlags, classify, quote_literal};
    use super::*;

    fn effects(text: &str) -> Vec<Effect> {
        let class = classify(text.as_bytes(), Context::default());
        assert!(class.may_begin.is_empty() && class.may_end.is_empty(), "{text}: {class:?}");
        class.effects.into_iter().map(|(_, effect)| effect).collect()
    }

    fn text(text: &str) -> Argument {
        Argument::Text(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn set(scope: Scope, name: &str, value: &str) -> Effect {
        let value = Value::Text(Bytes::copy_from_slice(value.as_bytes()));
        Effect::Set { scope, setting: Setting { name: name.to_owned(), value } }
    }

    fn unknown(scope: Scope, name: &str) -> Effect {
        Effect::SetUnknown { scope, name: name.to_owned() }
    }

    use Argument::Parameter;
    use Scope::{Local, Session};

    #[test]
    fn literals_are_read_however_they_are_written() {
        for call in [
            "set_config('A.b', 'x', false)",
            "pg_catalog.set_config($$a.b$$, E'\\x78', 'f')",
            "\"set_config\"(('a.b'), ('x'::text)::varchar, 'no'::boolean)",
            "set_config(CAST('a.b' AS text), CAST('x' AS character varying), bool 'off')",
            "SET_CONFIG(text 'a.b', varchar 'x', NULL)",
            "set_config(is_local => false, setting_name => 'a.b', new_value := 'x')",
            "set_config('a.b', is_local => false, new_value => 'x')",
            r"set_config(U&'\0061.b', U&'!0078' UESCAPE '!', CAST('0' AS bool))",
            "set_config(N'a.b', N'x  ', pg_catalog.bool 'n')",
        ] {
            assert_eq!(effects(&format!("SELECT {call}")), [set(Session, "a.b", "x")], "{call}");
            assert_eq!(
                effects(&format!("SELECT 1, {call} AS x, $1::int, 'y' z")),
                [set(Session, "a.b", "x")],
                "{call}"
            );
        }
        assert_eq!(effects("SELECT set_config('a.b', NULL, false)"), [Effect::Reset("a.b".to_owned())]);
        assert_eq!(effects("SELECT set_config('a.b', 'x', 'yes')"), [set(Local, "a.b", "x")]);
    }

    #[test]
    fn any_argument_may_be_bound() {
        let bound = |name, value, is_local| Effect::SetBound { name, value: Some(value), is_local };
        let known = IsLocal::Known;
        for (call, effect) in [
            ("set_config($1, $2, false)", bound(Parameter(1), Parameter(2), known(Session))),
            ("set_config('A.b', $1::text, true)", bound(text("A.b"), Parameter(1), known(Local))),
            ("set_config(CAST($2 AS text), 'x', $1)", bound(Parameter(2), text("x"), IsLocal::Parameter(1))),
            ("set_config($1, NULL, $2::bool)", bound(Parameter(1), Argument::Null, IsLocal::Parameter(2))),
            (
                "set_config(is_local => $3, new_value => $2, setting_name => $1)",
                bound(Parameter(1), Parameter(2), IsLocal::Parameter(3)),
            ),
            (
                "set_config($1, current_user, false)",
                Effect::SetBound { name: Parameter(1), value: None, is_local: known(Session) },
            ),
        ] {
            assert_eq!(effects(&format!("SELECT {call}")), std::slice::from_ref(&effect), "{call}");
            assert_eq!(
                effects(&format!("SELECT set_config('c', 'd', false), {call} AS x")),
                [set(Session, "c", "d"), effect],
                "{call}"
            );
        }
    }

    #[test]
    fn an_expression_is_asked_of_the_server() {
        for (sql, effect) in [
            ("SELECT set_config('a.b', x::text, false)", unknown(Session, "a.b")),
            ("SELECT set_config('a.b', current_user, true)", unknown(Local, "a.b")),
            ("SELECT set_config('a.b', 'x', (1=2))", unknown(Session, "a.b")),
            ("SELECT set_config('a.b', $1::int::text, false)", unknown(Session, "a.b")),
            ("SELECT set_config('a.b', 'x', false) FROM t", unknown(Session, "a.b")),
            ("SELECT set_config('a.b', 'x', false) WHERE false", unknown(Session, "a.b")),
            ("SELECT now(), set_config('a.b', 'x', false)", unknown(Session, "a.b")),
            ("(SELECT set_config('a.b', 'x', false))", unknown(Session, "a.b")),
            ("VALUES (set_config('a.b', 'x', true))", unknown(Local, "a.b")),
            ("WITH x AS (SELECT set_config('a.b', 'x', false)) SELECT * FROM x", unknown(Session, "a.b")),
            ("INSERT INTO t SELECT length(\"set_config\"('a.b', 'x', false))", unknown(Session, "a.b")),
            ("SELECT * FROM set_config('a.b', 'x', false)", unknown(Session, "a.b")),
            ("EXPLAIN ANALYZE SELECT set_config('a.b', 'x', false)", unknown(Session, "a.b")),
            ("COPY (SELECT set_config('a.b', 'x', false)) TO STDOUT", unknown(Session, "a.b")),
            ("CREATE TABLE t AS SELECT set_config('a.b', 'x', false)", unknown(Session, "a.b")),
            (
                "WITH x AS (SELECT set_config($1, $2, false)) SELECT * FROM x",
                Effect::SetBound { name: Parameter(1), value: None, is_local: IsLocal::Known(Session) },
            ),
        ] {
            assert_eq!(effects(sql), [effect], "{sql}");
        }
        let both = [unknown(Session, "c"), unknown(Local, "a.b")];
        assert_eq!(effects("INSERT INTO t SELECT set_config('c', '', false), set_config('a.b', '', true)"), both);
    }

    #[test]
    fn any_setting_may_be_one_with_a_name_in_a_table() {
        for (sql, scope) in [
            ("UPDATE pg_settings SET setting = 'x' WHERE name = 'y'", Session),
            ("update only PG_CATALOG . \"pg_settings\" s SET setting = 'x'", Session),
            ("WITH x AS (UPDATE pg_settings SET setting = '' RETURNING 1) SELECT 1", Session),
            ("SELECT set_config(name, 'x', true) FROM t", Local),
        ] {
            let class = classify(sql.as_bytes(), Context::default());
            assert_eq!(class.effects[..], [(0, Effect::SetAny { scope })], "{sql}");
            // It may be a search_path.
            assert_eq!(class.may_begin, StateFlags::TEMP, "{sql}");
        }
    }

    #[test]
    fn a_name_that_is_not_known_is_suspected() {
        for sql in [
            "SELECT set_config(name, 'x', false) FROM t",
            "SELECT set_config('a' || 'b', 'x', false)",
            "SELECT set_config(set_config($1, 'x', true), 'y', $2)",
            "SELECT * FROM set_config(VARIADIC '{}')",
        ] {
            assert_eq!(classify(sql.as_bytes(), Context::default()).may_begin, StateFlags::SETTINGS, "{sql}");
        }
        let prepared =
            ["PREPARE p AS SELECT set_config('a', 'b', false)", "PREPARE p AS UPDATE pg_settings SET setting = ''"];
        for sql in prepared {
            let class = classify(sql.as_bytes(), Context::default());
            assert_eq!(class.may_begin, StateFlags::PREPARE | StateFlags::SETTINGS, "{sql}");
        }
        assert_eq!(effects("SELECT * FROM pg_settings"), []);
        assert_eq!(effects("UPDATE t SET a = (SELECT setting FROM pg_settings)"), []);
    }

    #[test]
    fn a_bind_tells_what_its_parameters_are() {
        let sql = "SELECT set_config($1, $2, $3)";
        let [effect] = &effects(sql)[..] else { panic!("one effect") };
        let bound = |values: [BoundText<'static>; 3]| effect.bound(|number| values[usize::from(number) - 1]).into_vec();
        let (name, value) = (BoundText::Text(b"A.b"), BoundText::Text(b"x"));
        for flag in [&b"t"[..], b"TRUE", b" on ", b"1", &[1], b"y"] {
            assert_eq!(bound([name, value, BoundText::Text(flag)]), [set(Local, "a.b", "x")], "{flag:?}");
        }
        for flag in [&b"f"[..], b"of", b"0", &[0], b"No"] {
            assert_eq!(bound([name, value, BoundText::Text(flag)]), [set(Session, "a.b", "x")], "{flag:?}");
        }
        assert_eq!(bound([name, value, BoundText::Null]), [set(Session, "a.b", "x")]);
        assert_eq!(bound([name, BoundText::Null, BoundText::Null]), [Effect::Reset("a.b".to_owned())]);
        assert_eq!(bound([name, BoundText::Unknown, BoundText::Null]), [unknown(Session, "a.b")]);
        assert_eq!(bound([name, value, BoundText::Unknown]), [unknown(Session, "a.b")]);
        assert_eq!(bound([BoundText::Unknown, value, BoundText::Null]), [Effect::SetAny { scope: Session }]);
        // Postgres refuses these.
        assert_eq!(bound([name, value, BoundText::Text(b"o")]), []);
        assert_eq!(bound([BoundText::Null, value, BoundText::Null]), []);
    }

    proptest! {
        #[test]
        fn a_parameter_is_as_good_as_a_literal(
            name in proptest::sample::select(vec!["a.b", "JIT", "role", "search_path", "session_authorization", "transaction_isolation"]),
            value in proptest::option::of("[a-z' \\\\]{0,8}"),
            is_local: bool,
            which in 0u8..8,
        ) {
            let spelled = |value: Option<&str>| match value {
                Some(value) => String::from_utf8(quote_literal(value.as_bytes())).unwrap(),
                None => "NULL".to_owned(),
            };
            let flag = if is_local { "true" } else { "false" };
            let literals = [spelled(Some(name)), spelled(value.as_deref()), flag.to_owned()];
            let mixed = (0..3).map(|at| if which & 1 << at == 0 { literals[at].clone() } else { format!("${}", at + 1) });
            let read = |list: Vec<String>| {
                let sql = format!("SELECT set_config({})", list.join(", "));
                let effects = classify(sql.as_bytes(), Context::default()).effects;
                effects.into_iter().map(|(_, effect)| effect).collect::<Vec<_>>()
            };
            let values = [Some(name), value.as_deref(), Some(flag)];
            let bind = |number: u16| match values[usize::from(number) - 1] {
                Some(value) => BoundText::Text(value.as_bytes()),
                None => BoundText::Null,
            };
            let expected = read(literals.to_vec());
            let bound: Vec<_> = read(mixed.collect()).into_iter().flat_map(|effect| match effect {
                Effect::SetBound { .. } => effect.bound(bind).into_vec(),
                effect => vec![effect],
            }).collect();
            prop_assert_eq!(bound, expected);
        }

        #[test]
        fn any_mix_of_hard_words_is_read(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "SELECT ", "set_config", "(", ")", ",", "'a'", "$1", "::", "text", "bool", "CAST(", " AS ", "=>", "new_value", "is_local", ":=",
                    "NULL", "U&'", "UESCAPE", "'!'", "N'", "E'\\", "[", "]", ";", "true", "UPDATE ", "pg_settings", "--\n", "é", " FROM ",
                ]),
                0..24,
            ),
            standard_conforming_strings: bool,
        ) {
            let context = Context { standard_conforming_strings, ..Context::default() };
            classify(parts.concat().as_bytes(), context);
        }
    }
}
