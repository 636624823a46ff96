//! Settings: exact reading of SET, RESET and `set_config`, and text that brings them back.
//!
//! Grammar: `VariableSetStmt` and `VariableResetStmt` of Postgres's `gram.y`. `None` means unread.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use smallvec::smallvec;

use super::effect::{Context, Effect, EffectList, Scope, Setting, Value};
use super::encoding::EncodingFamily;
use super::keyword::*;
use super::lex::{Lexer, TokenKind};
use super::mask;
use super::quote::{self, quote_identifier, quote_literal};
use super::read::Reader;
use super::set_config::SetConfig;

impl Value {
    /// Bytes of its text.
    pub fn text_len(&self) -> usize {
        match self {
            Self::Default => 0,
            Self::Text(text) | Self::Raw(text) => text.len(),
        }
    }

    /// Whether its bytes are the same in every encoding.
    pub(crate) fn is_ascii(&self) -> bool {
        match self {
            Self::Default => true,
            Self::Text(bytes) | Self::Raw(bytes) => bytes.is_ascii(),
        }
    }

    /// The one string that this sets, if it is one: of `'5s'`, `5000`, `-1.5`, `on` and the like, not of lists. For
    /// settings that are lists of names even a single literal is not the text of the list.
    pub fn plain(&self) -> Option<Cow<'_, [u8]>> {
        let raw = match self {
            Self::Default => return None,
            Self::Text(text) => return Some(Cow::Borrowed(text)),
            Self::Raw(raw) => raw,
        };
        let mut lexer = Lexer::new(raw, true);
        let token = lexer.token();
        if lexer.token().kind == TokenKind::End {
            return match token.kind {
                TokenKind::Word | TokenKind::Quoted => Some(quote::name(raw, token)?.to_vec().into()),
                TokenKind::Number => Some(Cow::Borrowed(raw)),
                _ => Some(quote::literal(raw, token)?.to_vec().into()),
            };
        }
        is_number(raw).then_some(Cow::Borrowed(raw))
    }
}

/// A sign, digits, dots and exponents without a space: what `NumericOnly` of the grammar may be made of, roughly.
fn is_number(raw: &[u8]) -> bool {
    let unsigned = raw.strip_prefix(b"-").or_else(|| raw.strip_prefix(b"+")).unwrap_or(raw);
    unsigned.first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'.')
        && unsigned.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(byte))
}

/// SET in all its forms.
pub(super) fn read_set(text: &[u8], context: Context) -> Option<EffectList> {
    let mut reader = Reader::new(text, context);
    reader.advance();
    if reader.is(CONSTRAINTS) && !names_setting(text, &reader) {
        return Some(smallvec![Effect::SetTransaction]);
    }
    let scope = scope(text, &mut reader);
    if names_setting(text, &reader) {
        return generic(text, &mut reader, scope);
    }
    let effects = special(text, &mut reader, scope)?;
    reader.is_at_end().then_some(effects)
}

/// Where a SET has its value, if it has one: the name, the value and its place.
pub(super) fn find_value(text: &[u8], context: Context) -> Option<(String, Value, Range<usize>)> {
    let mut reader = Reader::new(text, context);
    reader.advance();
    scope(text, &mut reader);
    if !names_setting(text, &reader) {
        return None;
    }
    let name = setting_name(&mut reader)?;
    if !reader.symbol(b'=') && !reader.word(TO) {
        return None;
    }
    if reader.is_at_end() || reader.is(DEFAULT) && reader.second().kind == TokenKind::End {
        return None;
    }
    let raw = raw(text, &reader);
    let mut span = reader.token().start..reader.token().end;
    while !reader.is_at_end() {
        span.end = reader.token().end;
        reader.advance();
    }
    let value = Value::Raw(raw.unwrap_or_else(|| Bytes::copy_from_slice(&text[span.clone()])));
    Some((name, value, span))
}

/// Takes LOCAL or SESSION if it stands on one of them.
fn scope(text: &[u8], reader: &mut Reader<'_>) -> Scope {
    if !(reader.is(LOCAL) || reader.is(SESSION)) || names_setting(text, reader) || is_session_form(reader) {
        return Scope::Session;
    }
    let scope = if reader.is(LOCAL) { Scope::Local } else { Scope::Session };
    reader.advance();
    scope
}

/// Whether the word it stands on is the name of a setting, whatever else it may mean: `SET session TO`, `SET local.x
/// =`.
fn names_setting(text: &[u8], reader: &Reader<'_>) -> bool {
    let second = reader.second();
    let next = second.of(text);
    matches!(next, b"." | b"=") || (second.kind == TokenKind::Word && matches!(keyword(next), TO | FROM))
}

/// `SET SESSION AUTHORIZATION` and `SET SESSION CHARACTERISTICS`, whose SESSION is no scope.
fn is_session_form(reader: &Reader<'_>) -> bool {
    let mut ahead = *reader;
    ahead.words(&[SESSION, AUTHORIZATION]) || ahead.words(&[SESSION, CHARACTERISTICS])
}

/// `name TO value, …`.
fn generic(text: &[u8], reader: &mut Reader<'_>, scope: Scope) -> Option<EffectList> {
    let name = setting_name(reader)?;
    if !reader.symbol(b'=') && !reader.word(TO) {
        return reader.words(&[FROM, CURRENT]).then(|| Effect::set_unknown(scope, name));
    }
    let value = if reader.is(DEFAULT) && reader.second().kind == TokenKind::End {
        Value::Default
    } else {
        match raw(text, reader) {
            Some(raw) => Value::Raw(raw),
            None => return Some(Effect::set_unknown(scope, name)),
        }
    };
    Some(Effect::set(scope, Setting { name, value }))
}

/// `name` or `class.name`. Settings are found whatever the case, quoted or not; a dot inside quotes is the same as one
/// between names (`var_name` of the grammar joins them).
fn setting_name(reader: &mut Reader<'_>) -> Option<String> {
    let mut parts = Vec::new();
    loop {
        let part = reader.name()?;
        parts.push(String::from_utf8(part.to_ascii_lowercase()).ok()?);
        if !reader.symbol(b'.') {
            return Some(parts.join("."));
        }
    }
}

/// Everything from here to the end of the statement.
fn raw(text: &[u8], reader: &Reader<'_>) -> Option<Bytes> {
    let start = reader.token().start;
    let mut reader = *reader;
    let mut raw = Vec::new();
    let mut copied = start;
    while !reader.is_at_end() {
        let token = reader.token();
        if token.kind == TokenKind::Unterminated {
            return None;
        }
        raw.extend_from_slice(&text[copied..token.start]);
        raw.extend(quote::portable(text, token)?);
        copied = token.end;
        reader.advance();
    }
    (!raw.is_empty()).then(|| raw.into())
}

/// The forms of SET that are not `name TO value`.
fn special(text: &[u8], reader: &mut Reader<'_>, scope: Scope) -> Option<EffectList> {
    if reader.words(&[SESSION, AUTHORIZATION]) {
        let to_default = reader.is(DEFAULT);
        reader.advance();
        return Some(Effect::set_session_authorization(scope, to_default));
    }
    if reader.words(&[SESSION, CHARACTERISTICS, AS, TRANSACTION]) {
        return characteristics(reader, scope);
    }
    if reader.word(TRANSACTION) {
        reader.skip();
        return Some(smallvec![Effect::SetTransaction]);
    }
    let setting = if reader.words(&[TIME, ZONE]) {
        let is_default = (reader.is(DEFAULT) || reader.is(LOCAL)) && reader.second().kind == TokenKind::End;
        let value = if is_default { Value::Default } else { Value::Raw(raw(text, reader)?) };
        reader.skip();
        Setting { name: "timezone".to_owned(), value }
    } else if reader.word(NAMES) {
        if reader.is_at_end() || reader.word(DEFAULT) {
            Setting { name: "client_encoding".to_owned(), value: Value::Default }
        } else {
            Setting::text("client_encoding", reader.literal()?)
        }
    } else if reader.word(SCHEMA) {
        // One name, however it looks, so it stays a quoted literal.
        let value = Value::Raw(quote_literal(&reader.literal()?).into());
        Setting { name: "search_path".to_owned(), value }
    } else if reader.word(ROLE) {
        let role = reader.name().or_else(|| reader.literal())?;
        Setting::text("role", role)
    } else if reader.words(&[XML, OPTION, DOCUMENT]) {
        Setting::text("xmloption", "document")
    } else if reader.words(&[XML, OPTION, CONTENT]) {
        Setting::text("xmloption", "content")
    } else {
        return None;
    };
    Some(Effect::set(scope, setting))
}

/// Transaction modes as defaults of the session.
fn characteristics(reader: &mut Reader<'_>, scope: Scope) -> Option<EffectList> {
    let mut effects = EffectList::new();
    while !reader.is_at_end() {
        let (name, value) = match () {
            () if reader.words(&[ISOLATION, LEVEL]) => ("default_transaction_isolation", isolation(reader)?),
            () if reader.words(&[READ, ONLY]) => ("default_transaction_read_only", "on"),
            () if reader.words(&[READ, WRITE]) => ("default_transaction_read_only", "off"),
            () if reader.word(DEFERRABLE) => ("default_transaction_deferrable", "on"),
            () if reader.words(&[NOT, DEFERRABLE]) => ("default_transaction_deferrable", "off"),
            () => return None,
        };
        effects.extend(Effect::set(scope, Setting::text(name, value)));
        reader.symbol(b',');
    }
    (!effects.is_empty()).then_some(effects)
}

fn isolation(reader: &mut Reader<'_>) -> Option<&'static str> {
    match () {
        () if reader.words(&[READ, UNCOMMITTED]) => Some("read uncommitted"),
        () if reader.words(&[READ, COMMITTED]) => Some("read committed"),
        () if reader.words(&[REPEATABLE, READ]) => Some("repeatable read"),
        () if reader.word(SERIALIZABLE) => Some("serializable"),
        () => None,
    }
}

/// RESET in all its forms.
pub(super) fn read_reset(text: &[u8], context: Context) -> Option<EffectList> {
    let mut reader = Reader::new(text, context);
    reader.advance();
    let reset = |name| Effect::set(Scope::Session, Setting { name, value: Value::Default });
    let effects = match () {
        () if reader.words(&[SESSION, AUTHORIZATION]) => reset("session_authorization".to_owned()),
        () if reader.words(&[TIME, ZONE]) => reset("timezone".to_owned()),
        () if reader.words(&[TRANSACTION, ISOLATION, LEVEL]) => smallvec![Effect::SetTransaction],
        () if reader.word(ALL) => smallvec![Effect::ResetAll],
        () => reset(setting_name(&mut reader)?),
    };
    reader.is_at_end().then_some(effects)
}

/// A whole SELECT of calls of `set_config`, and of `current_setting`, literals and parameters at most besides: each
/// call is made once. `None` also if the name of a setting is an expression.
pub(super) fn read_select(text: &[u8], context: Context) -> Option<EffectList> {
    let mut reader = Reader::new(text, context);
    reader.advance();
    let mut effects = EffectList::new();
    loop {
        reader.words(&[PG_CATALOG]).then(|| reader.symbol(b'.'));
        let is_call = reader.name_ahead().is_some_and(|name| SetConfig::is_name(&name));
        if reader.word(CURRENT_SETTING) {
            reader.symbol(b'(').then_some(())?;
            reader.literal()?;
            if reader.symbol(b',') && !reader.word(TRUE) && !reader.word(FALSE) {
                return None;
            }
            reader.symbol(b')').then_some(())?;
        } else if is_call && reader.second().kind == TokenKind::Open {
            reader.advance();
            let (call, behind) = SetConfig::read(text, context, reader.lexer());
            effects.extend(call.effects()?);
            reader.resume(behind?);
        } else {
            constant(&mut reader)?;
        }
        // Any name may be a label, with AS or without; a FROM taken for one is followed by something that is no comma.
        let labelled = reader.word(AS);
        if reader.name().is_none() && labelled {
            return None;
        }
        if reader.is_at_end() {
            return Some(effects);
        }
        reader.symbol(b',').then_some(())?;
    }
}

/// A literal, a number, a parameter or NULL, perhaps cast to the type of one name.
fn constant(reader: &mut Reader<'_>) -> Option<()> {
    if reader.token().kind == TokenKind::Number {
        reader.advance();
    } else if !reader.word(NULL) && !reader.word(TRUE) && !reader.word(FALSE) && reader.parameter().is_none() {
        reader.literal()?;
    }
    if reader.typecast() {
        reader.name()?;
    }
    Some(())
}

/// One Query that brings a session from one set of settings to another; empty if there is nothing to do.
///
/// Text goes through `set_config`, which splits lists as StartupMessage does; SQL goes back as it came. A role is left
/// first and taken last, because the other settings may need the privileges of the login. The whole text is read in the
/// encoding that the backend has when it arrives, so a change of `client_encoding` and values that are not ASCII need a
/// Query each.
pub(crate) fn replay<'a, Changes>(changes: Changes) -> Vec<u8>
where
    Changes: IntoIterator<Item = (&'a str, &'a Value)>,
    Changes::IntoIter: Clone,
{
    replay_in(EncodingFamily::AsciiSafe, changes)
}

/// The same for a backend with an encoding of this family, in which a byte of a value may only look like a backslash.
pub(crate) fn replay_in<'a, Changes>(family: EncodingFamily, changes: Changes) -> Vec<u8>
where
    Changes: IntoIterator<Item = (&'a str, &'a Value)>,
    Changes::IntoIter: Clone,
{
    if family == EncodingFamily::AsciiSafe {
        return replay_readable(changes);
    }
    let masked = |bytes: &Bytes| mask::mask(bytes, family).map_or_else(|| bytes.clone(), Bytes::from);
    let changes: Vec<_> = changes
        .into_iter()
        .map(|(name, value)| match value {
            Value::Default => (name, Value::Default),
            Value::Text(text) => (name, Value::Text(masked(text))),
            Value::Raw(raw) => (name, Value::Raw(masked(raw))),
        })
        .collect();
    mask::unmask(&replay_readable(changes.iter().map(|(name, value)| (*name, value))))
}

fn replay_readable<'a, Changes>(changes: Changes) -> Vec<u8>
where
    Changes: IntoIterator<Item = (&'a str, &'a Value)>,
    Changes::IntoIter: Clone,
{
    let changes = changes.into_iter();
    let is_role = |(name, _): &(&str, &Value)| *name == "role";
    let mut query = Vec::new();
    if changes.clone().any(|change| is_role(&change)) {
        query.extend_from_slice(b"RESET ROLE;");
    }
    for (name, value) in changes.clone().filter(|change| !is_role(change)) {
        restore(name, value, Scope::Session, &mut query);
    }
    for (name, value) in changes.filter(|change| is_role(change) && *change.1 != Value::Default) {
        restore(name, value, Scope::Session, &mut query);
    }
    query
}

/// A Query that gives settings these values to the end of the transaction it runs in.
pub(crate) fn assume<'a>(values: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Vec<u8> {
    let mut query = Vec::new();
    for (name, value) in values {
        restore(name, value, Scope::Local, &mut query);
    }
    query
}

/// True for a value that only SET TIME ZONE takes.
pub(super) fn is_interval_of_zone(name: &str, raw: &[u8]) -> bool {
    name == "timezone" && is_interval(raw)
}

fn restore(name: &str, value: &Value, scope: Scope, query: &mut Vec<u8>) {
    let (set, is_local): (&[u8], &[u8]) = match scope {
        Scope::Session => (b"SET ", b",false)"),
        Scope::Local => (b"SET LOCAL ", b",true)"),
    };
    match value {
        Value::Default if scope == Scope::Local => {
            query.extend_from_slice(set);
            query.extend(setting_identifier(name));
            query.extend_from_slice(b" TO DEFAULT");
        }
        Value::Default => {
            query.extend_from_slice(b"RESET ");
            query.extend(setting_identifier(name));
        }
        Value::Text(text) => {
            query.extend_from_slice(b"SELECT pg_catalog.set_config(");
            query.extend(quote_literal(name.as_bytes()));
            query.push(b',');
            query.extend(quote_literal(text));
            query.extend_from_slice(is_local);
        }
        // The only value with a syntax of its own.
        Value::Raw(raw) if is_interval_of_zone(name, raw) => {
            query.extend_from_slice(set);
            query.extend_from_slice(b"TIME ZONE ");
            query.extend_from_slice(raw);
        }
        Value::Raw(raw) => {
            query.extend_from_slice(set);
            query.extend(setting_identifier(name));
            query.extend_from_slice(b" TO ");
            query.extend_from_slice(raw);
        }
    }
    query.push(b';');
}

/// `INTERVAL '…'`, but not the word alone, which is a string.
fn is_interval(raw: &[u8]) -> bool {
    let mut lexer = Lexer::new(raw, true);
    let token = lexer.token();
    token.kind == TokenKind::Word && keyword(token.of(raw)) == INTERVAL && lexer.token().kind != TokenKind::End
}

/// `"name"` or `"class"."name"`.
pub(super) fn setting_identifier(name: &str) -> Vec<u8> {
    let parts: Vec<_> = name.split('.').map(|part| quote_identifier(part.as_bytes())).collect();
    parts.join(&b'.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::classify;

    fn effects(text: &str) -> Vec<Effect> {
        let class = classify(text.as_bytes(), Context::default());
        assert!(class.may_begin.is_empty() && class.may_end.is_empty(), "{text}: {class:?}");
        class.effects.into_iter().map(|(_, effect)| effect).collect()
    }

    fn set(scope: Scope, name: &str, value: Value) -> Vec<Effect> {
        vec![Effect::Set { scope, setting: Setting { name: name.to_owned(), value } }]
    }

    fn raw(text: &'static str) -> Value {
        Value::Raw(Bytes::from_static(text.as_bytes()))
    }

    fn text(text: &'static str) -> Value {
        Value::Text(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn set_keeps_its_value_as_written() {
        use Scope::{Local, Session};
        assert_eq!(effects("SET extra_float_digits = 3"), set(Session, "extra_float_digits", raw("3")));
        assert_eq!(effects("SET x =-1 -- c"), set(Session, "x", raw("-1")));
        assert_eq!(effects("SET SESSION Search_Path TO a, 'b, c'"), set(Session, "search_path", raw("a, 'b, c'")));
        assert_eq!(effects("SET LOCAL \"A\".b TO 'x'"), set(Local, "a.b", raw("'x'")));
        assert_eq!(effects("SET LOCAL x TO DEFAULT"), set(Local, "x", Value::Default));
        assert_eq!(effects("SET x = DEFAULT"), [Effect::Reset("x".to_owned())]);
    }

    #[test]
    fn words_of_the_grammar_may_be_names_of_settings() {
        use Scope::{Local, Session};
        assert_eq!(effects("SET session = 1"), set(Session, "session", raw("1")));
        assert_eq!(effects("SET LOCAL session.x = 1"), set(Local, "session.x", raw("1")));
        assert_eq!(effects("SET local TO 1"), set(Session, "local", raw("1")));
        assert_eq!(effects("SET time TO 1"), set(Session, "time", raw("1")));
        assert_eq!(effects("SET TimeZone TO interval"), set(Session, "timezone", raw("interval")));
    }

    #[test]
    fn special_forms_are_settings_underneath() {
        use Scope::{Local, Session};
        assert_eq!(effects("SET ROLE Foo"), set(Session, "role", text("foo")));
        assert_eq!(effects("SET LOCAL ROLE NONE"), set(Local, "role", text("none")));
        assert_eq!(effects("SET NAMES 'UTF8'"), set(Session, "client_encoding", text("UTF8")));
        assert_eq!(effects("SET NAMES"), [Effect::Reset("client_encoding".to_owned())]);
        assert_eq!(effects("SET SCHEMA 'a, b'"), set(Session, "search_path", raw("'a, b'")));
        assert_eq!(effects("SET XML OPTION DOCUMENT"), set(Session, "xmloption", text("document")));
        assert_eq!(effects("SET TIME ZONE -7"), set(Session, "timezone", raw("-7")));
        assert_eq!(effects("SET TIME ZONE LOCAL"), [Effect::Reset("timezone".to_owned())]);
        assert_eq!(effects("RESET TIME ZONE"), [Effect::Reset("timezone".to_owned())]);
        assert_eq!(effects("RESET ALL"), [Effect::ResetAll]);
    }

    #[test]
    fn characteristics_are_the_defaults_of_transactions() {
        let modes = effects(
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY NOT DEFERRABLE",
        );
        let expected = [
            set(Scope::Session, "default_transaction_isolation", text("repeatable read")),
            set(Scope::Session, "default_transaction_read_only", text("on")),
            set(Scope::Session, "default_transaction_deferrable", text("off")),
        ];
        assert_eq!(modes, expected.concat());
    }

    #[test]
    fn what_ends_with_the_transaction_is_no_setting() {
        for text in [
            "SET TRANSACTION READ ONLY",
            "SET CONSTRAINTS ALL DEFERRED",
            "SET transaction_isolation TO 'serializable'",
            "SELECT set_config('transaction_read_only', 'on', false)",
        ] {
            assert_eq!(effects(text), [Effect::SetTransaction], "{text}");
        }
    }

    #[test]
    fn set_config_with_literals_is_a_setting() {
        use Scope::{Local, Session};
        assert_eq!(effects("SELECT pg_catalog.set_config('JIT', 'off', false)"), set(Session, "jit", text("off")));
        assert_eq!(effects("SELECT set_config('a.b', 'x'::text, true) x"), set(Local, "a.b", text("x")));
        let asyncpg = "SELECT current_setting('jit') AS cur, set_config('jit', 'off', false) AS new";
        assert_eq!(effects(asyncpg), set(Session, "jit", text("off")));
    }

    #[test]
    fn a_set_whose_value_cannot_be_read_is_one_of_an_unknown_value() {
        let unknown = |name: &str| vec![Effect::SetUnknown { scope: Scope::Session, name: name.to_owned() }];
        assert_eq!(effects("SET a FROM CURRENT"), unknown("a"));
        assert_eq!(effects(r"SET a.b = '\', E'\ud800'"), unknown("a.b"));
        assert_eq!(effects("SET \"a.b\" = 1"), set(Scope::Session, "a.b", raw("1")));
        assert_eq!(effects(r#"SET U&"st\0061tement_timeout" = 0"#), set(Scope::Session, "statement_timeout", raw("0")));
    }

    #[test]
    fn session_authorization_takes_the_role_with_it() {
        use Scope::{Local, Session};
        let begun = |effects: Vec<Effect>| {
            let mut all = vec![Effect::SetSessionAuthorization { to_default: false }];
            all.extend(effects);
            all
        };
        let all = |sql: &str| {
            let class = classify(sql.as_bytes(), Context::default());
            class.effects.into_iter().map(|(_, effect)| effect).collect::<Vec<_>>()
        };
        for sql in [
            "SET SESSION AUTHORIZATION x",
            "SET session_authorization = x",
            "SELECT set_config('session_authorization', 'x', false)",
        ] {
            assert_eq!(all(sql), begun(set(Session, "role", text("none"))), "{sql}");
        }
        let ended = [Effect::SetSessionAuthorization { to_default: true }, Effect::Reset("role".to_owned())];
        for sql in ["RESET SESSION AUTHORIZATION", "SET SESSION AUTHORIZATION DEFAULT", "RESET session_authorization"] {
            assert_eq!(all(sql), ended, "{sql}");
        }
        let local = [Effect::SetTransaction, set(Local, "role", text("none")).remove(0)];
        assert_eq!(all("SET LOCAL SESSION AUTHORIZATION x"), local);
    }

    #[test]
    fn a_raw_value_means_the_same_under_both_kinds_of_strings() {
        let read = |text: &str, standard_conforming_strings| {
            let context = Context { standard_conforming_strings, ..Context::default() };
            classify(text.as_bytes(), context).effects[0].1.clone()
        };
        let expected = |value| set(Scope::Session, "a", value).remove(0);
        assert_eq!(read(r"SET a = 'x\y'", true), expected(raw(r"E'x\\y'")));
        assert_eq!(read(r"SET a = 'x\\y', b", false), expected(raw(r"E'x\\y', b")));
    }

    #[test]
    fn plain_is_the_one_string_of_a_value() {
        for (value, plain) in [("'5s'", "5s"), ("5000", "5000"), ("-1.5e3", "-1.5e3"), ("ON", "on"), ("\"On\"", "On")] {
            assert_eq!(raw(value).plain().as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(raw("a, b").plain(), None);
        assert_eq!(text("a, b").plain().as_deref(), Some(&b"a, b"[..]));
    }

    #[test]
    fn replay_spells_lists_as_they_came() {
        let (path, list, interval) = (text("a, b'c"), raw("a, 'b, c'"), raw("INTERVAL '1' HOUR"));
        let (role, default) = (text("r"), Value::Default);
        let query = replay([
            ("role", &role),
            ("search_path", &path),
            ("a.b", &list),
            ("timezone", &interval),
            ("work_mem", &default),
        ]);
        assert_eq!(
            String::from_utf8(query).unwrap(),
            "RESET ROLE;SELECT pg_catalog.set_config('search_path','a, b''c',false);SET \"a\".\"b\" TO a, 'b, c';\
             SET TIME ZONE INTERVAL '1' HOUR;RESET \"work_mem\";SELECT pg_catalog.set_config('role','r',false);"
        );
        assert_eq!(replay([]), b"");
    }

    #[test]
    fn a_character_that_ends_in_a_backslash_stays_whole() {
        let value = Value::Text(Bytes::from_static(b"\x95\x5c'\\"));
        let query = replay_in(EncodingFamily::Sjis, [("a", &value)]);
        assert_eq!(query, b"SELECT pg_catalog.set_config('a',E'\x95\x5c''\\\\',false);");
    }
}
