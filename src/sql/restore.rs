//! RESET and its like for a client with startup values: at its backend the default of a setting is the server's, so
//! each becomes a statement that gives the setting the value that the client began with.
//!
//! One statement stays one statement, whatever it has to do, so that counts and the extended protocol stay right. A
//! RESET ALL becomes a DO; its values go through `set_config`, which reads lists as StartupMessage does.

use std::ops::Range;

use bytes::Bytes;

use super::effect::{Context, Effect, Effects, Scope, Setting, StatementEffects, Value};
use super::keyword::*;
use super::mask;
use super::quote::{quote_identifier, quote_literal};
use super::read::Reader;
use super::scan::split;
use super::set::{is_interval_of_zone, setting_identifier};
use super::set_config;
use super::splice::TextSplice;

/// Settings whose lists are of names (`GUC_LIST_QUOTE`), so that one literal in a SET is one name. Extensions cannot
/// have such settings.
const LISTS_OF_NAMES: [&str; 4] =
    ["search_path", "temp_tablespaces", "session_preload_libraries", "local_preload_libraries"];

/// `GUC_NO_RESET_ALL`: RESET ALL leaves them alone.
const NOT_RESET: [&str; 3] = ["role", "session_authorization", "seed"];

/// The text with the startup values in it, and its effects: what it sets is set, not reset. `class` has the effects of
/// `text`, stand-ins in it perhaps. `None` if nothing has to be replaced. DISCARD ALL is left alone, and a default for
/// which a parameter is bound.
pub(crate) fn restore_startup<'v, Startup>(
    text: &[u8],
    context: Context,
    class: &StatementEffects,
    startup: Startup,
) -> Option<(Vec<u8>, StatementEffects)>
where
    Startup: IntoIterator<Item = (&'v str, &'v Value)> + Clone,
{
    if !class.effects.iter().any(|(_, effect)| is_default(effect)) {
        return None;
    }
    let values: Vec<StartupValue<'_>> = startup
        .into_iter()
        .filter_map(|(name, value)| match value {
            Value::Text(text) => Some(StartupValue { name, text, readable: mask::mask(text, context.encoding)? }),
            Value::Default | Value::Raw(_) => None,
        })
        .collect();
    mask::rewritten(text, context, |text, context| restore(text, context, class, &values))
}

fn restore(
    text: &[u8],
    context: Context,
    class: &StatementEffects,
    values: &[StartupValue<'_>],
) -> Option<(Vec<u8>, StatementEffects)> {
    let mut splice = TextSplice::new(text);
    let mut class = class.clone();
    let mut effects = Effects::new();
    let mut tags = Vec::new();
    for (number, span) in (0..).zip(split(text, context)) {
        let own: Vec<_> = class.effects.iter().filter(|(at, _)| *at == number).map(|(_, effect)| effect).collect();
        let statement = ResetStatement { text: &text[span.clone()], context, values };
        let restored = own.iter().any(|effect| is_default(effect)).then(|| statement.restore(&own));
        let Some(restored) = restored.flatten() else {
            effects.extend(own.into_iter().map(|effect| (number, effect.clone())));
            continue;
        };
        for (place, bytes) in restored.places {
            splice.put(span.start + place.start..span.start + place.end, &bytes);
        }
        effects.extend(restored.effects.into_iter().map(|effect| (number, effect)));
        tags.extend(restored.tag.map(|tag| (number, tag)));
    }
    class.effects = effects;
    class.tags.extend(tags);
    Some((splice.finish()?, class))
}

/// The value of a setting at the start of the session.
struct StartupValue<'a> {
    name: &'a str,
    text: &'a Bytes,
    /// The same as it stands in a text that the lexer may read.
    readable: Vec<u8>,
}

/// One statement that goes back to a default.
struct ResetStatement<'a> {
    text: &'a [u8],
    context: Context,
    values: &'a [StartupValue<'a>],
}

/// The bytes to put into a statement, in order, and what it is then.
struct Restored {
    places: Vec<(Range<usize>, Vec<u8>)>,
    effects: Vec<Effect>,
    /// The CommandComplete tag to show, if it has another one now.
    tag: Option<&'static [u8]>,
}

impl ResetStatement<'_> {
    fn restore(&self, effects: &[&Effect]) -> Option<Restored> {
        let reader = Reader::new(self.text, self.context);
        let tag: &'static [u8] = match () {
            () if reader.is(RESET) => b"RESET",
            () if reader.is(SET) => b"SET",
            () => return self.restore_calls(effects),
        };
        let effect = match effects {
            [effect] => effect,
            // SET SESSION AUTHORIZATION takes the role with it, by a default of its own to that of the startup.
            [authorization, role] => return self.restore_role(authorization, role, tag),
            _ => return None,
        };
        if **effect == Effect::ResetAll {
            return self.restore_all();
        }
        let (name, scope) = reset_name(effect)?;
        let value = self.value(name)?;
        let (sql, is_do) = match assigned(name, &value.readable, scope) {
            Some(sql) => (sql, false),
            None => (block(b"", [value], scope), true),
        };
        let tag = Some(tag).filter(|tag| is_do || *tag != b"SET");
        Some(Restored { places: vec![(0..self.text.len(), sql)], effects: vec![value.set(scope)], tag })
    }

    /// SET SESSION AUTHORIZATION DEFAULT.
    fn restore_role(&self, authorization: &Effect, role: &Effect, tag: &'static [u8]) -> Option<Restored> {
        let (name, scope) = reset_name(role)?;
        let value = self.value(name)?;
        let first = [self.text, b"; "].concat();
        let places = vec![(0..self.text.len(), block(&first, [value], scope))];
        Some(Restored { places, effects: vec![authorization.clone(), value.set(scope)], tag: Some(tag) })
    }

    fn restore_all(&self) -> Option<Restored> {
        let values: Vec<_> = self.values.iter().filter(|value| !NOT_RESET.contains(&value.name)).collect();
        if values.is_empty() {
            return None;
        }
        let sets = values.iter().map(|value| value.set(Scope::Session));
        let effects = std::iter::once(Effect::ResetAll).chain(sets).collect();
        let sql = block(b"RESET ALL; ", values.iter().copied(), Scope::Session);
        Some(Restored { places: vec![(0..self.text.len(), sql)], effects, tag: Some(b"RESET") })
    }

    /// `set_config('name', NULL, …)`.
    fn restore_calls(&self, effects: &[&Effect]) -> Option<Restored> {
        let mut places = Vec::new();
        for (_, call) in set_config::calls(self.text, self.context) {
            if let Some((name, place)) = call.null_value()
                && let Some(value) = self.value(&name)
            {
                places.push((place, quote_literal(&value.readable)));
            }
        }
        let effects = effects.iter().map(|effect| match reset_name(effect) {
            Some((name, scope)) => self.value(name).map_or_else(|| (*effect).clone(), |value| value.set(scope)),
            None => (*effect).clone(),
        });
        (!places.is_empty()).then(|| Restored { places, effects: effects.collect(), tag: None })
    }

    fn value(&self, name: &str) -> Option<&StartupValue<'_>> {
        self.values.iter().find(|value| value.name == name)
    }
}

/// One statement that gives a setting this value to the end of the transaction. It takes no snapshot unless it has to.
pub(crate) fn assume_one(name: &str, value: &Value) -> Vec<u8> {
    let assign = |value: &[u8]| [b"SET LOCAL ", &setting_identifier(name)[..], b" TO ", value].concat();
    match value {
        Value::Default => assign(b"DEFAULT"),
        Value::Text(text) => assigned(name, text, Scope::Local).unwrap_or_else(|| {
            let value = StartupValue { name, text, readable: text.to_vec() };
            block(b"", [&value], Scope::Local)
        }),
        Value::Raw(raw) if is_interval_of_zone(name, raw) => [b"SET LOCAL TIME ZONE ", &raw[..]].concat(),
        Value::Raw(raw) => assign(raw),
    }
}

fn is_default(effect: &Effect) -> bool {
    reset_name(effect).is_some() || *effect == Effect::ResetAll
}

/// The setting that an effect puts back to its default.
fn reset_name(effect: &Effect) -> Option<(&str, Scope)> {
    match effect {
        Effect::Reset(name) => Some((name, Scope::Session)),
        Effect::Set { scope, setting: Setting { name, value: Value::Default } } => Some((name, *scope)),
        _ => None,
    }
}

impl StartupValue<'_> {
    fn set(&self, scope: Scope) -> Effect {
        let setting = Setting { name: self.name.to_owned(), value: Value::Text(self.text.clone()) };
        Effect::Set { scope, setting }
    }
}

/// A SET that means what the value means in a StartupMessage, if there is one.
fn assigned(name: &str, value: &[u8], scope: Scope) -> Option<Vec<u8>> {
    let literals = if LISTS_OF_NAMES.contains(&name) {
        names(value)?.iter().map(|name| quote_literal(name)).collect::<Vec<_>>().join(&b", "[..])
    } else {
        quote_literal(value)
    };
    let head: &[u8] = if scope == Scope::Local { b"SET LOCAL " } else { b"SET " };
    Some([head, &setting_identifier(name), b" TO ", &literals].concat())
}

/// The names in a list as `SplitIdentifierString` finds them; `None` for an empty list, one that Postgres refuses, and
/// names whose letters it may fold otherwise than we.
fn names(list: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut rest = list.trim_ascii();
    let mut names = Vec::new();
    loop {
        let mut name = Vec::new();
        if let Some(mut quoted) = rest.strip_prefix(b"\"") {
            loop {
                let end = quoted.iter().position(|byte| *byte == b'"')?;
                name.extend_from_slice(&quoted[..end]);
                quoted = &quoted[end + 1..];
                match quoted.strip_prefix(b"\"") {
                    Some(more) => {
                        name.push(b'"');
                        quoted = more;
                    }
                    None => break,
                }
            }
            rest = quoted;
        } else {
            let end = rest.iter().position(|byte| *byte == b',' || byte.is_ascii_whitespace()).unwrap_or(rest.len());
            name = rest[..end].to_ascii_lowercase();
            rest = &rest[end..];
            if name.is_empty() || !name.is_ascii() {
                return None;
            }
        }
        names.push(name);
        rest = rest.trim_ascii_start();
        match rest.split_first() {
            None => return Some(names),
            Some((b',', more)) => rest = more.trim_ascii_start(),
            Some(_) => return None,
        }
    }
}

/// One statement that sets all of them.
fn block<'a>(first: &[u8], values: impl IntoIterator<Item = &'a StartupValue<'a>>, scope: Scope) -> Vec<u8> {
    let mut body = [b"BEGIN ", first].concat();
    let is_local: &[u8] = if scope == Scope::Local { b"true" } else { b"false" };
    for value in values {
        body.extend_from_slice(b"PERFORM pg_catalog.set_config(");
        body.extend(quote_literal(value.name.as_bytes()));
        body.push(b',');
        body.extend(quote_literal(&value.readable));
        body.push(b',');
        body.extend_from_slice(is_local);
        body.extend_from_slice(b"); ");
    }
    body.extend_from_slice(b"END");
    [b"DO LANGUAGE ", &quote_identifier(b"plpgsql")[..], b" ", &quote_literal(&body)].concat()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::sql::{classify, stand_ins};

    fn startup() -> Vec<(&'static str, Value)> {
        [
            ("a.b", "it's"),
            ("datestyle", "ISO, DMY"),
            ("role", "r"),
            ("search_path", "\"A b\", Public,x"),
            ("temp_tablespaces", ""),
        ]
        .map(|(name, value)| (name, Value::Text(Bytes::from_static(value.as_bytes()))))
        .to_vec()
    }

    fn restored(text: &str) -> Option<(String, StatementEffects)> {
        let values = startup();
        let class = classify(text.as_bytes(), Context::default());
        let all = values.iter().map(|(name, value)| (*name, value));
        let (text, class) = restore_startup(text.as_bytes(), Context::default(), &class, all)?;
        Some((String::from_utf8(text).unwrap(), class))
    }

    #[test]
    fn a_reset_becomes_a_set_of_the_value_at_startup() {
        for (text, expected, tag) in [
            ("RESET a.b", "SET \"a\".\"b\" TO 'it''s'", Some("RESET")),
            (" set A.B to default ; ", " SET \"a\".\"b\" TO 'it''s' ; ", None),
            ("SET LOCAL DateStyle = DEFAULT", "SET LOCAL \"datestyle\" TO 'ISO, DMY'", None),
            ("RESET search_path", "SET \"search_path\" TO 'A b', 'public', 'x'", Some("RESET")),
            ("RESET role", "SET \"role\" TO 'r'", Some("RESET")),
            (
                "SET temp_tablespaces TO DEFAULT",
                "DO LANGUAGE \"plpgsql\" 'BEGIN PERFORM pg_catalog.set_config(''temp_tablespaces'','''',false); END'",
                Some("SET"),
            ),
            ("SELECT set_config('a.b', NULL, false)", "SELECT set_config('a.b', 'it''s', false)", None),
        ] {
            let (replaced, class) = restored(text).expect(text);
            assert_eq!(replaced, expected);
            let tags: Vec<_> = class.tags.iter().map(|(at, tag)| (*at, str::from_utf8(tag).unwrap())).collect();
            assert_eq!(tags, tag.map(|tag| (0, tag)).into_iter().collect::<Vec<_>>(), "{text}");
            assert!(matches!(&class.effects[..], [(0, Effect::Set { .. })]), "{text}: {class:?}");
        }
    }

    #[test]
    fn a_default_authorization_comes_with_the_role_at_startup() {
        for (text, is_local, tag) in [
            ("RESET SESSION AUTHORIZATION", false, "RESET"),
            ("SET SESSION AUTHORIZATION DEFAULT", false, "SET"),
            ("SET LOCAL SESSION AUTHORIZATION DEFAULT", true, "SET"),
        ] {
            let (replaced, class) = restored(text).expect(text);
            let expected = format!(
                "DO LANGUAGE \"plpgsql\" 'BEGIN {text}; PERFORM pg_catalog.set_config(''role'',''r'',{is_local}); END'"
            );
            assert_eq!(replaced, expected);
            assert_eq!(class.tags[..], [(0, tag.as_bytes())], "{text}");
            assert!(matches!(&class.effects[1], (0, Effect::Set { setting, .. }) if setting.name == "role"), "{text}");
        }
    }

    #[test]
    fn reset_all_is_one_statement_and_leaves_the_role() {
        let (text, class) = restored("SELECT 1; RESET ALL; SELECT 2").unwrap();
        assert_eq!(
            text,
            "SELECT 1; DO LANGUAGE \"plpgsql\" 'BEGIN RESET ALL; PERFORM pg_catalog.set_config(''a.b'',''it''''s'',false); \
             PERFORM pg_catalog.set_config(''datestyle'',''ISO, DMY'',false); \
             PERFORM pg_catalog.set_config(''search_path'',''\"A b\", Public,x'',false); \
             PERFORM pg_catalog.set_config(''temp_tablespaces'','''',false); END'; SELECT 2"
        );
        assert_eq!((class.statements, &class.tags[..]), (3, &[(1, &b"RESET"[..])][..]));
        assert_eq!(class.effects.len(), 5);
        assert_eq!(class.effects[0], (1, Effect::ResetAll));
    }

    #[test]
    fn what_has_no_startup_value_is_left_alone() {
        for text in [
            "RESET work_mem",
            "DISCARD ALL",
            "SET SESSION AUTHORIZATION x",
            "SET a.b = 1",
            "SELECT set_config('a.b', $1, false)",
            "RESET TRANSACTION ISOLATION LEVEL",
        ] {
            assert_eq!(restored(text), None, "{text}");
        }
        let class = classify(b"RESET ALL", Context::default());
        assert_eq!(restore_startup(b"RESET ALL", Context::default(), &class, []), None);
    }

    #[test]
    fn stand_ins_stay() {
        let (text, class) = stand_ins(b"NOTIFY a; RESET a.b", Context::default(), |_| true).unwrap();
        let values = startup();
        let all = values.iter().map(|(name, value)| (*name, value));
        let (text, class) = restore_startup(&text, Context::default(), &class, all).unwrap();
        assert_eq!(text, b"UNLISTEN pgweir_noop; SET \"a\".\"b\" TO 'it''s'");
        assert!(class.stands_in && class.notifies());
    }

    proptest! {
        #[test]
        fn a_restored_text_has_as_many_statements_and_nothing_of_a_value_outside_its_literal(
            value in "[a-z'\"$\\\\; ]{0,12}",
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "RESET x", "RESET search_path", "RESET ALL", "SET LOCAL x TO DEFAULT", "SELECT set_config('x', NULL, true)", "SELECT ';'",
                    "BEGIN", "SET x = 1", "",
                ]),
                0..6,
            ),
            standard_conforming_strings: bool,
        ) {
            let context = Context { standard_conforming_strings, ..Context::default() };
            let text = parts.join(";");
            let before = classify(text.as_bytes(), context);
            let value = Value::Text(value.into_bytes().into());
            let all = [("search_path", &value), ("x", &value)];
            let Some((text, class)) = restore_startup(text.as_bytes(), context, &before, all) else { return Ok(()) };
            let after = classify(&text, context);
            prop_assert_eq!(after.statements, before.statements);
            prop_assert_eq!(class.statements, before.statements);
            prop_assert!(!after.effects.iter().any(|(_, effect)| is_default(effect)), "{:?}", after);
        }

        #[test]
        fn a_list_of_names_comes_back(names in proptest::collection::vec("[a-zA-Z\", ]{1,6}", 1..4)) {
            let list = names.iter().map(|name| quote_identifier(name.as_bytes())).collect::<Vec<_>>().join(&b", "[..]);
            let read = super::names(&list).unwrap();
            prop_assert_eq!(read, names.into_iter().map(String::into_bytes).collect::<Vec<_>>());
        }
    }
}
