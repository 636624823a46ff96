//! Stand-ins: statements run at the server in the place of those that pgweir does itself.
//!
//! A stand-in takes the place of its statement in the text, so that order, errors and aborted transactions stay
//! Postgres's business; its frames are those of the original but for the tag of a command (`tests/it/stand_in.rs`
//! compares them). A statement that is not read with certainty gets none and runs as it is: so does everything that
//! Postgres would refuse for its length.

use super::classify::classify;
use super::effect::{Argument, Context, Effect, Form, StatementEffects};
use super::lex::TokenKind;
use super::mask;
use super::notify::{Call, Function, Operand, Type, text_of};
use super::quote;
use super::read::Reader;
use super::scan::split;
use super::splice::TextSplice;
use super::state_flags::StateFlags;

/// Bytes a channel may have: `NAMEDATALEN` − 1.
pub(crate) const CHANNEL_MAX: usize = 63;

/// Bytes a payload may have: `NOTIFY_PAYLOAD_MAX_LENGTH` − 1 of `async.c`.
pub(crate) const PAYLOAD_MAX: usize = 7_999;

/// The stand-in for a statement that pgweir answers itself. It is cheap, has no rows, fails where NOTIFY, LISTEN and
/// DEALLOCATE fail, and does nothing on a backend that listens to nothing.
pub(crate) const STAND_IN: &[u8] = b"UNLISTEN pgweir_noop";

/// The text with stand-ins for the statements whose effects are wanted, out of NOTIFY, LISTEN and the calls of
/// `pg_notify` and `pg_listening_channels` that are whole statements; `None` if there is none.
///
/// The effects are those of `text`, with Listen, Notify and ListeningChannels left only where a stand-in was put. The
/// bytes of texts are those of the client; `wants` has to judge whether they are the server's too.
pub fn stand_ins(
    text: &[u8],
    context: Context,
    wants: impl Fn(&Effect) -> bool,
) -> Option<(Vec<u8>, StatementEffects)> {
    let (text, mut class) = mask::rewritten(text, context, |text, context| replace(text, context, wants))?;
    class.unmask();
    Some((text, class))
}

fn replace(text: &[u8], context: Context, wants: impl Fn(&Effect) -> bool) -> Option<(Vec<u8>, StatementEffects)> {
    let mut class = classify(text, context);
    if !class.concerns_channels() {
        return None;
    }
    let mut splice = TextSplice::new(text);
    let mut spans = (0..).zip(split(text, context));
    let mut listens = false;
    class.effects.retain(|(number, effect)| {
        if !effect.concerns_channels() {
            return true;
        }
        let Some((_, span)) = spans.find(|(at, _)| at == number) else { return false };
        let stand_in = wants(effect).then(|| stand_in(&text[span.clone()], context, effect)).flatten();
        match &stand_in {
            Some(stand_in) => splice.put(span, stand_in),
            None => listens |= matches!(effect, Effect::Listen(_)),
        }
        stand_in.is_some()
    });
    if !listens {
        class.may_begin = class.may_begin.without(StateFlags::LISTEN);
    }
    class.stands_in = true;
    Some((splice.finish()?, class))
}

/// The stand-in for one statement and its effect.
fn stand_in(text: &[u8], context: Context, effect: &Effect) -> Option<Vec<u8>> {
    match effect {
        _ if may_be_warned_of(text, context) => None,
        Effect::Notify { form: Form::Command, .. } | Effect::Listen(_) => command(text, context),
        Effect::Notify { form: Form::Call, .. } | Effect::ListeningChannels => {
            Call::read(text, context)?.stand_in(text)
        }
        _ => None,
    }
}

/// Postgres may warn of a backslash in a literal of the text (`escape_string_warning`).
fn may_be_warned_of(text: &[u8], context: Context) -> bool {
    !context.standard_conforming_strings && memchr::memchr(b'\\', text).is_some()
}

/// The stand-in for `LISTEN name` and `NOTIFY name [, 'payload']`. It keeps a name that is too long, so that Postgres
/// reports that it cuts it.
fn command(text: &[u8], context: Context) -> Option<Vec<u8>> {
    let mut reader = Reader::new(text, context);
    reader.advance();
    let name = reader.token();
    let whole = quote::whole_name(text, name)?;
    let is_cut = whole.len() > CHANNEL_MAX;
    // Outside ASCII, how a name is folded and where it is cut depends on the encoding of the database.
    if !whole.is_ascii() && (is_cut || name.kind == TokenKind::Word) {
        return None;
    }
    reader.advance();
    if reader.symbol(b',') && text_of(text, reader.token())?.len() > PAYLOAD_MAX {
        return None;
    }
    Some(if is_cut { [b"UNLISTEN ", name.of(text)].concat() } else { STAND_IN.to_vec() })
}

impl Call {
    fn stand_in(&self, text: &[u8]) -> Option<Vec<u8>> {
        let (expression, name) = match &self.function {
            Function::Notify { channel, payload } => (notified(channel, payload)?, &b"AS pg_notify"[..]),
            Function::ListeningChannels => {
                ("pg_catalog.unnest('{}'::pg_catalog.text[])".to_owned(), &b"AS pg_listening_channels"[..])
            }
        };
        let label = self.label.clone().map_or(name, |label| &text[label]);
        Some([b"SELECT ", expression.as_bytes(), b" ", label].concat())
    }
}

/// An expression of the type void that takes the same parameters. `concat` makes a text of anything, a NULL too.
fn notified(channel: &Operand, payload: &Operand) -> Option<String> {
    let channel_fits = match &channel.argument {
        Argument::Text(name) => (1..=CHANNEL_MAX).contains(&name.len()),
        Argument::Null => false,
        Argument::Parameter(_) => true,
    };
    let payload_fits = match &payload.argument {
        Argument::Text(text) => text.len() <= PAYLOAD_MAX,
        Argument::Null | Argument::Parameter(_) => true,
    };
    // One parameter under two types: Postgres has to say whether it gets one of them, and which.
    let is_ambiguous = channel.argument == payload.argument && channel.cast != payload.cast;
    if !channel_fits || !payload_fits || is_ambiguous {
        return None;
    }
    let parameters: Vec<_> = [channel, payload].into_iter().filter_map(Operand::parameter).collect();
    Some(match parameters.join(", ") {
        none if none.is_empty() => "pg_catalog.void_in('')".to_owned(),
        some => format!("pg_catalog.void_in(pg_catalog.textout(pg_catalog.concat({some})))"),
    })
}

impl Operand {
    /// The parameter as it is written in a stand-in.
    fn parameter(&self) -> Option<String> {
        let Argument::Parameter(number) = self.argument else { return None };
        Some(match self.cast {
            Type::Text => format!("${number}::text"),
            Type::Varchar => format!("${number}::varchar"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use bytes::Bytes;

    use super::*;

    fn effects(text: &str) -> Vec<(u32, Effect)> {
        classify(text.as_bytes(), Context::default()).effects.into_vec()
    }

    fn replaced(text: &str) -> Option<String> {
        let (text, class) = stand_ins(text.as_bytes(), Context::default(), |_| true)?;
        assert!(class.stands_in);
        Some(String::from_utf8(text).unwrap())
    }

    fn text(text: impl AsRef<str>) -> Argument {
        Argument::Text(Bytes::copy_from_slice(text.as_ref().as_bytes()))
    }

    fn call(channel: Argument, payload: Argument) -> Vec<(u32, Effect)> {
        vec![(0, Effect::Notify { form: Form::Call, channel, payload })]
    }

    #[test]
    fn a_call_of_pg_notify_is_read_however_its_arguments_are_written() {
        use Argument::{Null, Parameter};
        for (sql, channel, payload) in [
            ("SELECT pg_notify('a', 'b')", text("a"), text("b")),
            (" select PG_NOTIFY ( 'A' , 'it''s' ) ; ", text("A"), text("it's")),
            ("SELECT pg_catalog.pg_notify($1, $2)", Parameter(1), Parameter(2)),
            ("SELECT \"pg_catalog\" . \"pg_notify\"($2::text, $1 :: varchar)", Parameter(2), Parameter(1)),
            ("SELECT pg_notify(CAST($1 AS text), cast('b' as varchar))", Parameter(1), text("b")),
            ("SELECT pg_notify(E'a\\tb', $x$it's$x$)", text("a\tb"), text("it's")),
            ("SELECT pg_notify('é', E'it''s é')", text("é"), text("it's é")),
            ("SELECT pg_notify($1, NULL)", Parameter(1), Null),
            ("SELECT pg_notify(null::text, '')", Null, text("")),
            ("SELECT/* a */pg_notify--\n('a'/*,*/,'b')-- c", text("a"), text("b")),
            ("SELECT pg_notify($1, $1)", Parameter(1), Parameter(1)),
            ("SELECT pg_notify('a', 'b') AS \"Done\"", text("a"), text("b")),
            ("SELECT pg_notify('a', 'b') done", text("a"), text("b")),
            ("SELECT pg_notify('a', 'b'\n'c')", text("a"), text("bc")),
        ] {
            assert_eq!(effects(sql), call(channel, payload), "{sql}");
        }
    }

    #[test]
    fn a_call_that_is_not_the_whole_statement_or_has_other_arguments_is_left_to_postgres() {
        for sql in [
            "SELECT pg_notify('a')",
            "SELECT pg_notify('a', 'b', 'c')",
            "SELECT pg_notify()",
            "SELECT pg_notify('a', 'b'), 1",
            "SELECT 1, pg_notify('a', 'b')",
            "SELECT pg_notify('a', 'b') FROM t",
            "SELECT pg_notify('a', 'b') WHERE false",
            "SELECT pg_notify('a', 'b') UNION SELECT 1",
            "SELECT pg_notify('a', 'b') AS x FROM t",
            "SELECT pg_notify('a', 'b') INTO t",
            "SELECT pg_notify('a', 'b')::text",
            "SELECT (pg_notify('a', 'b'))",
            "SELECT DISTINCT pg_notify('a', 'b')",
            "SELECT * FROM pg_notify('a', 'b')",
            "SELECT pg_notify('a', 'b' || 'c')",
            "SELECT pg_notify('a', coalesce($1, ''))",
            "SELECT pg_notify('a', $1::json)",
            "SELECT pg_notify('a', $1::varchar(3))",
            "SELECT pg_notify('a', $1::text::text)",
            "SELECT pg_notify('a', $1: :text)",
            "SELECT pg_notify('a', $0)",
            "SELECT pg_notify('a', $65536)",
            "SELECT pg_notify('a', $1b)",
            "SELECT pg_notify('a', 5)",
            "SELECT pg_notify('a', text 'b')",
            "SELECT pg_notify('a', x'41')",
            "SELECT pg_notify('a', U&'b')",
            r"SELECT pg_notify('a', E'\u00e9')",
            r"SELECT pg_notify('a', E'\303\251')",
            "SELECT pg_notify(channel => 'a', payload => 'b')",
            "SELECT pg_notify(VARIADIC '{a,b}'::text[])",
            "SELECT public.pg_notify('a', 'b')",
            "SELECT db.pg_catalog.pg_notify('a', 'b')",
            "SELECT pg_notify",
            "SELECT 'pg_notify(''a'', ''b'')'",
            "INSERT INTO t SELECT pg_notify('a', 'b')",
            "EXPLAIN SELECT pg_notify('a', 'b')",
            "PREPARE p AS SELECT pg_notify('a', 'b')",
            "DO $$ BEGIN PERFORM pg_notify('a', 'b'); END $$",
            "SELECT pg_listening_channels(1)",
            "SELECT count(*) FROM pg_listening_channels()",
            "SELECT * FROM pg_listening_channels() c",
            "SELECT pg_listening_channels",
        ] {
            let ours = |(_, effect): &(u32, Effect)| effect.concerns_channels();
            assert!(!effects(sql).iter().any(ours), "{sql}: {:?}", effects(sql));
            assert_eq!(replaced(sql), None, "{sql}");
        }
    }

    #[test]
    fn channels_listened_to_are_asked_for_in_two_ways() {
        for sql in [
            "SELECT pg_listening_channels()",
            "select pg_catalog.pg_listening_channels ( )",
            "SELECT * FROM \"pg_listening_channels\"();",
        ] {
            assert_eq!(effects(sql), [(0, Effect::ListeningChannels)], "{sql}");
        }
    }

    #[test]
    fn a_stand_in_takes_the_place_of_its_statement_and_of_nothing_else() {
        let void = "pg_catalog.void_in('')";
        let concat = |parameters| format!("pg_catalog.void_in(pg_catalog.textout(pg_catalog.concat({parameters})))");
        let none = "SELECT pg_catalog.unnest('{}'::pg_catalog.text[])";
        for (sql, expected) in [
            ("NOTIFY a", "UNLISTEN pgweir_noop".to_owned()),
            ("/* x */ listen \"A b\" ; ", "/* x */ UNLISTEN pgweir_noop ; ".to_owned()),
            (
                "BEGIN; NOTIFY a, 'b;' -- c\n; SELECT 1; UNLISTEN a; LISTEN b",
                "BEGIN; UNLISTEN pgweir_noop -- c\n; SELECT 1; UNLISTEN a; UNLISTEN pgweir_noop".to_owned(),
            ),
            ("SELECT pg_notify('a', NULL)", format!("SELECT {void} AS pg_notify")),
            ("SELECT pg_notify('a', 'b') \"X y\"", format!("SELECT {void} \"X y\"")),
            ("SELECT pg_notify('a', 'b') AS/**/x;", format!("SELECT {void} AS/**/x;")),
            ("SELECT pg_notify($1, $2)", format!("SELECT {} AS pg_notify", concat("$1::text, $2::text"))),
            ("SELECT pg_notify($1, $1)", format!("SELECT {} AS pg_notify", concat("$1::text, $1::text"))),
            ("SELECT pg_notify('a', CAST($1 AS varchar))", format!("SELECT {} AS pg_notify", concat("$1::varchar"))),
            ("SELECT pg_notify($2::text, '')", format!("SELECT {} AS pg_notify", concat("$2::text"))),
            ("SELECT pg_listening_channels()", format!("{none} AS pg_listening_channels")),
            ("SELECT pg_listening_channels() c", format!("{none} c")),
            ("SELECT * FROM pg_listening_channels()", format!("{none} AS pg_listening_channels")),
        ] {
            assert_eq!(replaced(sql), Some(expected), "{sql}");
        }
    }

    #[test]
    fn a_name_that_postgres_cuts_stays_so_that_it_says_so() {
        for name in ["a".repeat(64), format!("\"{}\"", "A b".repeat(30))] {
            assert_eq!(replaced(&format!("NOTIFY {name}, 'x'")), Some(format!("UNLISTEN {name}")));
            assert_eq!(replaced(&format!("LISTEN {name}")), Some(format!("UNLISTEN {name}")));
        }
        let fits = format!("NOTIFY \"{}\"", "\"\"".repeat(63));
        assert_eq!(replaced(&fits).as_deref(), Some("UNLISTEN pgweir_noop"));
    }

    #[test]
    fn what_postgres_refuses_for_its_length_is_left_to_it() {
        let (name, long) = ("a".repeat(63), "x".repeat(8_000));
        for sql in [
            "SELECT pg_notify('', 'x')".to_owned(),
            "SELECT pg_notify(NULL, 'x')".to_owned(),
            format!("SELECT pg_notify('{name}a', 'x')"),
            format!("SELECT pg_notify('a', '{long}')"),
            format!("NOTIFY a, '{long}'"),
        ] {
            assert_eq!(effects(&sql).len(), 1);
            assert_eq!(replaced(&sql), None, "{sql}");
        }
        for sql in [format!("SELECT pg_notify('{name}', '{}')", &long[1..]), format!("NOTIFY a, '{}'", &long[1..])] {
            assert!(replaced(&sql).is_some(), "{sql}");
        }
    }

    #[test]
    fn what_the_encoding_of_the_database_decides_is_left_to_it() {
        for sql in [
            "NOTIFY größe".to_owned(),
            "LISTEN Größe".to_owned(),
            format!("LISTEN \"{}\"", "é".repeat(32)),
            r"NOTIFY a, E'\u00e9'".to_owned(),
        ] {
            assert_eq!(replaced(&sql), None, "{sql}");
        }
        for sql in ["NOTIFY \"größe\", 'é'", "LISTEN \"Größe\"", r"NOTIFY a, E'\u0041\n'", "NOTIFY a, E'é'"] {
            assert!(replaced(sql).is_some(), "{sql}");
        }
    }

    #[test]
    fn one_parameter_under_two_types_is_left_to_postgres() {
        assert_eq!(replaced("SELECT pg_notify($1, $1::varchar)"), None);
        assert!(replaced("SELECT pg_notify($1::varchar, $1::varchar)").is_some());
    }

    #[test]
    fn the_class_keeps_the_effects_that_have_a_stand_in_and_all_others() {
        let sql = b"BEGIN; NOTIFY a; LISTEN b; NOTIFY c; UNLISTEN d; COMMIT";
        let is_wanted = |name: &'static str| {
            move |effect: &Effect| match effect {
                Effect::Notify { channel, .. } => *channel == text(name),
                _ => true,
            }
        };
        let (replaced, class) = stand_ins(sql, Context::default(), is_wanted("c")).unwrap();
        assert_eq!(replaced, b"BEGIN; NOTIFY a; UNLISTEN pgweir_noop; UNLISTEN pgweir_noop; UNLISTEN d; COMMIT");
        assert_eq!(class.effects.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 2, 3, 4, 5]);
        assert_eq!((class.statements, class.may_begin), (6, StateFlags::NONE));
        assert_eq!(class.may_end, StateFlags::LISTEN);
    }

    #[test]
    fn a_listen_that_stays_is_still_suspected() {
        let sql = "LISTEN a; LISTEN größe";
        let (replaced, class) = stand_ins(sql.as_bytes(), Context::default(), |_| true).unwrap();
        assert_eq!(replaced, "UNLISTEN pgweir_noop; LISTEN größe".as_bytes());
        assert_eq!(class.may_begin, StateFlags::LISTEN);
        assert_eq!(class.effects[..], [(0, Effect::Listen(Bytes::from_static(b"a")))]);
    }

    #[test]
    fn without_standard_conforming_strings_a_backslash_escapes() {
        let context = Context { standard_conforming_strings: false, ..Context::default() };
        let class = classify(br"SELECT pg_notify('a', 'it\'s')", context);
        assert_eq!(class.effects[..], call(text("a"), text("it's")));
    }

    proptest! {
        #[test]
        fn a_text_keeps_its_statements_and_has_nothing_left_to_replace(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "NOTIFY a", "NOTIFY \"A;\", $$b;$$ /* ; */", "listen a", "UNLISTEN a", "SELECT pg_notify('a', ';')", "BEGIN",
                    "SELECT pg_notify($1, $2::varchar) AS x", "SELECT * FROM pg_listening_channels()", "SELECT ';'", "", "SET a = 1",
                    "NOTIFY größe", "SELECT pg_notify('', 'a')",
                ]),
                0..8,
            ),
        ) {
            let context = Context::default();
            let text = parts.join(";\n");
            let before = classify(text.as_bytes(), context);
            let Some((text, class)) = stand_ins(text.as_bytes(), context, |_| true) else { return Ok(()) };
            let after = classify(&text, context);
            prop_assert_eq!(after.statements, before.statements);
            prop_assert_eq!(class.statements, before.statements);
            prop_assert_eq!(stand_ins(&text, context, |_| true), None);
            // Each stand-in is where the class says that one is.
            let spans: Vec<_> = split(&text, context).map(|span| &text[span]).collect();
            for (number, effect) in class.effects {
                let stands_in = spans[number as usize].starts_with(STAND_IN) || spans[number as usize].starts_with(b"SELECT pg_catalog.");
                prop_assert_eq!(stands_in, effect.concerns_channels());
            }
        }

        #[test]
        fn any_mix_of_hard_words_is_read(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "SELECT ", "pg_notify", "pg_catalog.", "(", ")", ",", "'a'", "$1", "$", "::", ":", "text", "varchar", "CAST(", " AS ", "x",
                    "NULL", "E'\\", "'", "\"", "$$", "--", "\n", "/*", "*/", ";", "NOTIFY ", "LISTEN ", "é", "* FROM ",
                    "pg_listening_channels()",
                ]),
                0..24,
            ),
            standard_conforming_strings: bool,
        ) {
            let context = Context { standard_conforming_strings, ..Context::default() };
            stand_ins(parts.concat().as_bytes(), context, |_| true);
        }
    }
}
