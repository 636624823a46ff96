//! Answers that a client gets without a backend.

use super::session::Session;
use crate::sql::{self, Argument, CHANNEL_MAX, Effect, classify};

/// The effect of a Query that needs no backend: a lone NOTIFY, LISTEN or UNLISTEN.
#[inline]
pub(crate) fn query(session: &Session, text: Option<&[u8]>) -> Option<Effect> {
    // The first letters allow for NOTIFY, LISTEN or UNLISTEN.
    let text = text?;
    let head = text.first_chunk()?.map(|byte| byte | 0x20);
    matches!(&head, b"no" | b"li" | b"un").then(|| alone(session, text)).flatten()
}

fn alone(session: &Session, text: &[u8]) -> Option<Effect> {
    if !session.intercepts() {
        return None;
    }
    let class = classify(text, session.lexer);
    let [(_, effect)] = class.effects.as_slice() else { return None };
    // Postgres gets texts without a stand-in, and names that may have been cut, because it warns of those.
    let is_short = |channel: &[u8]| channel.len() < CHANNEL_MAX;
    let has_stand_in = || sql::stand_ins(text, session.lexer, |effect| session.wants(effect, b"")).is_some();
    let is_ours = match effect {
        Effect::Listen(channel) | Effect::Notify { channel: Argument::Text(channel), .. } => {
            is_short(channel) && has_stand_in()
        }
        Effect::Unlisten(channel) => is_short(channel) && session.wants(effect, b""),
        Effect::UnlistenAll => true,
        _ => false,
    };
    (class.statements == 1 && is_ours).then(|| effect.clone())
}
