//! The text that is run instead of a client's, where its own must not: it sets a value that its role may not have, or
//! is about channels and gets a stand-in.

use std::sync::Arc;

use super::session::Session;
use crate::sql::{self, StatementEffects, classify};
use crate::state::statements::{Statement, Statements};

/// The statement for a text, or for the text that is run instead of it.
pub(super) fn intern(session: &Session, statements: &Statements, rest: &[u8], text: &[u8]) -> Arc<Statement> {
    let (key, meaning) = (session.pool.key(), session.settings.meaning());
    let statement = statements.intern(rest, (key, meaning), || classify(text, session.lexer));
    let Some(class) = statement.class.as_deref() else { return statement };
    let types = &rest[text.len() + 1..];
    // Replaced texts have a key of their own: a client that sends this very text itself gets no warning of a
    // replacement.
    if let Some((other, class)) = replace(session, text, class) {
        return statements.intern(&[&other, &rest[text.len()..]].concat(), (!key, meaning), || class);
    }
    if !class.concerns_channels() {
        return statement;
    }
    // Stand-ins for several statements are the same text.
    match stand_in(session, text, types, class) {
        Some((other, class)) => {
            let instead = || ([&other, &rest[text.len()..]].concat().into(), class);
            statements.intern_instead(rest, (key, !meaning), instead)
        }
        None => statement,
    }
}

/// The text to run instead of one that assigns a value that is not allowed, or that is about channels.
pub(super) fn rewrite(
    session: &Session,
    text: &[u8],
    types: &[u8],
    class: &StatementEffects,
) -> Option<(Vec<u8>, StatementEffects)> {
    let replaced = replace(session, text, class);
    let (text, class) = replaced.as_ref().map_or((text, class), |(text, class)| (&text[..], class));
    match stand_in(session, text, types, class) {
        Some((text, stand_in)) => Some((text, StatementEffects { replaced: class.replaced.clone(), ..stand_in })),
        None => replaced,
    }
}

/// The text with stand-ins for its intercepted statements.
fn stand_in(
    session: &Session,
    text: &[u8],
    types: &[u8],
    class: &StatementEffects,
) -> Option<(Vec<u8>, StatementEffects)> {
    // Postgres refuses to prepare a transaction that has notified, so it has to see the notification.
    if !class.concerns_channels() || class.prepares_transaction() || !session.intercepts() {
        return None;
    }
    sql::stand_ins(text, session.lexer, |effect| session.wants(effect, types))
}

/// The text to run instead of one that gives its role's timeouts values that are not allowed.
fn replace(session: &Session, text: &[u8], class: &StatementEffects) -> Option<(Vec<u8>, StatementEffects)> {
    if !class.assigns {
        return None;
    }
    let limits = session.pool.limits();
    if limits.allow_all() || session.pool.is_dedicated() {
        return None;
    }
    let replaced = sql::replace_values(text, session.lexer, |name, value| limits.substitute(name, value))?;
    let class = StatementEffects { replaced: replaced.settings, ..classify(&replaced.text, session.lexer) };
    Some((replaced.text, class))
}
