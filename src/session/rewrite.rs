//! The text that is run instead of a client's, where its own must not: it sets a value that its role may not have, or
//! is about channels and gets a stand-in.

use super::session::Session;
use crate::sql::{self, StatementEffects, classify};

/// The text to run instead of one that assigns a value that is not allowed, is about channels, or resets a setting that
/// the client began with.
pub(super) fn rewrite(
    session: &Session,
    text: &[u8],
    types: &[u8],
    class: &StatementEffects,
) -> Option<(Vec<u8>, StatementEffects)> {
    let mut rewritten = replace(session, text, class);
    let (now, effects) = rewritten.as_ref().map_or((text, class), |(text, class)| (&text[..], class));
    if let Some((text, stand_in)) = stand_in(session, now, types, effects) {
        let replaced = effects.replaced.clone();
        rewritten = Some((text, StatementEffects { replaced, ..stand_in }));
    }
    let (now, effects) = rewritten.as_ref().map_or((text, class), |(text, class)| (&text[..], class));
    let startup = session.startup.values().iter().map(|(name, value)| (name.as_str(), value));
    sql::restore_startup(now, session.lexer, effects, startup).or(rewritten)
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
