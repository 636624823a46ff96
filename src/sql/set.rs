//! Settings: exact reading of SET, RESET and `set_config`, and text that brings them back.
//!
//! Grammar: `VariableSetStmt` and `VariableResetStmt` of Postgres's `gram.y`. `None` means unread.

use std::borrow::Cow;

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::class::{Context, Effect};
use super::keyword::*;
use super::lex::{Kind, Lexer};
use super::quote::{self, quote_identifier, quote_literal};
use super::read::Reader;

/// How long a setting lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// For the session, if the transaction commits.
    Session,
    /// SET LOCAL: to the end of the transaction.
    Local,
}

/// A setting and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// In lower case, with its dot if it is custom.
    pub name: String,
    /// What it becomes.
    pub value: Value,
}

impl Setting {
    /// A value as StartupMessage and `set_config` carry it.
    fn text(name: &str, value: impl Into<Bytes>) -> Self {
        Self { name: name.to_owned(), value: Value::Text(value.into()) }
    }

    /// A `search_path` with the session's temporary schema in it.
    pub(super) fn names_pg_temp(&self) -> bool {
        let value = match &self.value {
            Value::Default => return false,
            Value::Text(bytes) | Value::Raw(bytes) => bytes,
        };
        self.name == "search_path" && value.to_ascii_lowercase().windows(7).any(|part| part == b"pg_temp")
    }
}

/// The value of a setting, in the client's encoding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// What the session began with.
    Default,
    /// One string, as StartupMessage and `set_config` carry it; a list in it is not yet split.
    Text(Bytes),
    /// SQL as it stood behind TO. Lists of quoted names (`search_path TO 'a, b'`) mean something else as [`Value::Text`]. Literals with
    /// a backslash are spelled so that both settings of `standard_conforming_strings` read them alike.
    Raw(Bytes),
}

impl Value {
    /// The one string that this sets, if it is one: of `'5s'`, `5000`, `-1.5`, `on` and the like, not of lists. For settings that are
    /// lists of names even a single literal is not the text of the list.
    pub fn plain(&self) -> Option<Cow<'_, [u8]>> {
        let raw = match self {
            Self::Default => return None,
            Self::Text(text) => return Some(Cow::Borrowed(text)),
            Self::Raw(raw) => raw,
        };
        let mut lexer = Lexer::new(raw, true);
        let token = lexer.token();
        if lexer.token().kind == Kind::End {
            return match token.kind {
                Kind::Word | Kind::Quoted => Some(quote::name(raw, token)?.to_vec().into()),
                Kind::Number => Some(Cow::Borrowed(raw)),
                _ => Some(quote::literal(raw, token)?.to_vec().into()),
            };
        }
        is_number(raw).then_some(Cow::Borrowed(raw))
    }
}

/// A sign, digits, dots and exponents without a space: what `NumericOnly` of the grammar may be made of, roughly.
fn is_number(raw: &[u8]) -> bool {
    let unsigned = raw.strip_prefix(b"-").or(raw.strip_prefix(b"+")).unwrap_or(raw);
    unsigned.first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'.')
        && unsigned.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(byte))
}

/// The effects of one statement; almost always one.
type Read = SmallVec<[Effect; 1]>;

/// SET in all its forms.
pub(super) fn read_set(text: &[u8], context: Context) -> Option<Read> {
    let mut reader = Reader::new(text, context);
    reader.advance();
    if reader.is(CONSTRAINTS) && !names_setting(text, &reader) {
        return Some(smallvec![Effect::SetTransaction]);
    }
    let mut scope = Scope::Session;
    if (reader.is(LOCAL) || reader.is(SESSION)) && !names_setting(text, &reader) && !is_session_form(&reader) {
        if reader.is(LOCAL) {
            scope = Scope::Local;
        }
        reader.advance();
    }
    if names_setting(text, &reader) {
        return generic(text, &mut reader, scope).map(|effect| smallvec![effect]);
    }
    let effects = special(text, &mut reader, scope)?;
    reader.is_at_end().then_some(effects)
}

/// Whether the word it stands on is the name of a setting, whatever else it may mean: `SET session TO`, `SET local.x =`.
fn names_setting(text: &[u8], reader: &Reader<'_>) -> bool {
    let second = reader.second();
    let next = second.of(text);
    matches!(next, b"." | b"=") || (second.kind == Kind::Word && matches!(keyword(next), TO | FROM))
}

/// `SET SESSION AUTHORIZATION` and `SET SESSION CHARACTERISTICS`, whose SESSION is no scope.
fn is_session_form(reader: &Reader<'_>) -> bool {
    let mut ahead = *reader;
    ahead.words(&[SESSION, AUTHORIZATION]) || ahead.words(&[SESSION, CHARACTERISTICS])
}

/// `name TO value, …`.
fn generic(text: &[u8], reader: &mut Reader<'_>, scope: Scope) -> Option<Effect> {
    let name = setting_name(reader)?;
    if !reader.symbol(b'=') && !reader.word(TO) {
        return None;
    }
    let value = if reader.is(DEFAULT) && reader.second().kind == Kind::End {
        Value::Default
    } else {
        Value::Raw(raw(text, reader)?)
    };
    Some(effect(scope, Setting { name, value }))
}

/// `name` or `class.name`. Settings are found whatever the case, quoted or not.
fn setting_name(reader: &mut Reader<'_>) -> Option<String> {
    let mut name = reader.name()?.to_ascii_lowercase();
    while reader.symbol(b'.') {
        name.push(b'.');
        name.extend(reader.name()?.to_ascii_lowercase());
    }
    String::from_utf8(name).ok()
}

/// Everything from here to the end of the statement.
fn raw(text: &[u8], reader: &Reader<'_>) -> Option<Bytes> {
    let start = reader.token().start;
    let mut reader = *reader;
    let mut raw = Vec::new();
    let mut copied = start;
    while !reader.is_at_end() {
        let token = reader.token();
        if token.kind == Kind::Unterminated {
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
fn special(text: &[u8], reader: &mut Reader<'_>, scope: Scope) -> Option<Read> {
    if reader.words(&[SESSION, AUTHORIZATION]) {
        let to_default = reader.is(DEFAULT);
        reader.advance();
        return Some(smallvec![match scope {
            Scope::Local => Effect::SetTransaction,
            Scope::Session => Effect::SetSessionAuthorization { to_default },
        }]);
    }
    if reader.words(&[SESSION, CHARACTERISTICS, AS, TRANSACTION]) {
        return characteristics(reader, scope);
    }
    if reader.word(TRANSACTION) {
        reader.skip();
        return Some(smallvec![Effect::SetTransaction]);
    }
    let setting = if reader.words(&[TIME, ZONE]) {
        let is_default = (reader.is(DEFAULT) || reader.is(LOCAL)) && reader.second().kind == Kind::End;
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
    Some(smallvec![effect(scope, setting)])
}

/// Transaction modes as defaults of the session.
fn characteristics(reader: &mut Reader<'_>, scope: Scope) -> Option<Read> {
    let mut effects = Read::new();
    while !reader.is_at_end() {
        let (name, value) = match () {
            () if reader.words(&[ISOLATION, LEVEL]) => ("default_transaction_isolation", isolation(reader)?),
            () if reader.words(&[READ, ONLY]) => ("default_transaction_read_only", "on"),
            () if reader.words(&[READ, WRITE]) => ("default_transaction_read_only", "off"),
            () if reader.word(DEFERRABLE) => ("default_transaction_deferrable", "on"),
            () if reader.words(&[NOT, DEFERRABLE]) => ("default_transaction_deferrable", "off"),
            () => return None,
        };
        effects.push(effect(scope, Setting::text(name, value)));
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

/// What setting this does: some names are not settings that a session keeps.
fn effect(scope: Scope, setting: Setting) -> Effect {
    match (setting.name.as_str(), scope, &setting.value) {
        ("transaction_isolation" | "transaction_read_only" | "transaction_deferrable", ..) => Effect::SetTransaction,
        ("session_authorization", Scope::Local, _) => Effect::SetTransaction,
        ("session_authorization", Scope::Session, value) => {
            Effect::SetSessionAuthorization { to_default: *value == Value::Default }
        }
        (_, Scope::Session, Value::Default) => Effect::Reset(setting.name),
        _ => Effect::Set { scope, setting },
    }
}

/// RESET in all its forms.
pub(super) fn read_reset(text: &[u8], context: Context) -> Option<Effect> {
    let mut reader = Reader::new(text, context);
    reader.advance();
    let effect = match () {
        () if reader.words(&[SESSION, AUTHORIZATION]) => Effect::SetSessionAuthorization { to_default: true },
        () if reader.words(&[TIME, ZONE]) => Effect::Reset("timezone".to_owned()),
        () if reader.words(&[TRANSACTION, ISOLATION, LEVEL]) => Effect::SetTransaction,
        () if reader.word(ALL) => Effect::ResetAll,
        () => effect(Scope::Session, Setting { name: setting_name(&mut reader)?, value: Value::Default }),
    };
    reader.is_at_end().then_some(effect)
}

/// A whole SELECT whose list holds `set_config` calls with literals, and `current_setting` calls at most besides.
pub(super) fn read_select(text: &[u8], context: Context) -> Option<Read> {
    let mut reader = Reader::new(text, context);
    reader.advance();
    let mut effects = Read::new();
    loop {
        reader.words(&[PG_CATALOG]).then(|| reader.symbol(b'.'));
        if reader.word(CURRENT_SETTING) {
            open(&mut reader)?;
            reader.literal()?;
            if reader.symbol(b',') && !reader.word(TRUE) && !reader.word(FALSE) {
                return None;
            }
        } else if reader.word(SET_CONFIG) {
            open(&mut reader)?;
            effects.push(arguments(&mut reader)?);
        } else {
            return None;
        }
        if !reader.symbol(b')') {
            return None;
        }
        // Any name may be a label, with AS or without; a FROM taken for one is followed by something that is no comma.
        let labelled = reader.word(AS);
        if reader.name().is_none() && labelled {
            return None;
        }
        if reader.is_at_end() {
            return Some(effects);
        }
        if !reader.symbol(b',') {
            return None;
        }
    }
}

fn open(reader: &mut Reader<'_>) -> Option<()> {
    reader.symbol(b'(').then_some(())
}

/// `'name', 'value', true | false`, the first two perhaps with `::text` behind.
fn arguments(reader: &mut Reader<'_>) -> Option<Effect> {
    let name = String::from_utf8(argument(reader)?.to_ascii_lowercase()).ok()?;
    let value = argument(reader)?;
    let scope = match () {
        () if reader.word(TRUE) => Scope::Local,
        () if reader.word(FALSE) => Scope::Session,
        () => return None,
    };
    Some(effect(scope, Setting { name, value: Value::Text(value) }))
}

/// One string argument and the comma behind it.
fn argument(reader: &mut Reader<'_>) -> Option<Bytes> {
    let value = reader.literal()?;
    if reader.symbol(b':') && !(reader.symbol(b':') && reader.word(TEXT)) {
        return None;
    }
    reader.symbol(b',').then_some(value)
}

/// One Query that brings a session from one set of settings to another; empty if there is nothing to do.
///
/// Text goes through `set_config`, which splits lists as StartupMessage does; SQL goes back as it came. A role is left first and
/// taken last, because the other settings may need the privileges of the login. The whole text is read in the encoding that the backend
/// has when it arrives, so a change of `client_encoding` and values that are not ASCII need a Query each.
pub fn replay<'a, Changes>(changes: Changes) -> Vec<u8>
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
        restore(name, value, &mut query);
    }
    for (name, value) in changes.filter(|change| is_role(change) && *change.1 != Value::Default) {
        restore(name, value, &mut query);
    }
    query
}

fn restore(name: &str, value: &Value, query: &mut Vec<u8>) {
    match value {
        Value::Default => {
            query.extend_from_slice(b"RESET ");
            query.extend(setting_identifier(name));
        }
        Value::Text(text) => {
            query.extend_from_slice(b"SELECT pg_catalog.set_config(");
            query.extend(quote_literal(name.as_bytes()));
            query.push(b',');
            query.extend(quote_literal(text));
            query.extend_from_slice(b",false)");
        }
        // The only value with a syntax of its own.
        Value::Raw(raw) if name == "timezone" && is_interval(raw) => {
            query.extend_from_slice(b"SET TIME ZONE ");
            query.extend_from_slice(raw);
        }
        Value::Raw(raw) => {
            query.extend_from_slice(b"SET ");
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
    token.kind == Kind::Word && keyword(token.of(raw)) == INTERVAL && lexer.token().kind != Kind::End
}

/// `"name"` or `"class"."name"`.
fn setting_identifier(name: &str) -> Vec<u8> {
    let parts: Vec<_> = name.split('.').map(|part| quote_identifier(part.as_bytes())).collect();
    parts.join(&b'.')
}
