//! Exact reading of the short utility statements: transactions, prepared statements, channels, DISCARD.
//!
//! `None` means unread: either Postgres refuses the text too, or a name is written in a form we do not decode.

use bytes::Bytes;

use super::effect::{Argument, Context, Discarded, Effect, Form};
use super::keyword::*;
use super::lex::{Lexer, Token, TokenKind};
use super::quote;

/// The effect of the statement `text`, whose first word is `head`; `Some(None)` for one that was read and has no effect
/// of note.
pub(super) fn read(text: &[u8], context: Context, head: u128) -> Option<Option<Effect>> {
    let mut reader = Reader::new(text, context);
    reader.advance();
    let effect = match head {
        BEGIN => return Some(Some(Effect::Begin)),
        START => return reader.word(TRANSACTION).then_some(Some(Effect::Begin)),
        // The second phase of a two-phase commit is no business of this session's transaction.
        COMMIT | ROLLBACK if reader.word(PREPARED) => return Some(None),
        COMMIT | END => Effect::Commit { chain: reader.chain()? },
        ABORT => Effect::Rollback { chain: reader.chain()? },
        ROLLBACK => {
            let _ = reader.word(WORK) || reader.word(TRANSACTION);
            if reader.word(TO) {
                Effect::RollbackTo(reader.savepoint()?)
            } else {
                Effect::Rollback { chain: reader.chain()? }
            }
        }
        SAVEPOINT => Effect::Savepoint(reader.name()?),
        RELEASE => Effect::Release(reader.savepoint()?),
        PREPARE => return reader.prepare(),
        DEALLOCATE => reader.deallocate()?,
        LISTEN => Effect::Listen(reader.name()?),
        UNLISTEN if reader.symbol(b'*') => Effect::UnlistenAll,
        UNLISTEN => Effect::Unlisten(reader.name()?),
        NOTIFY => {
            let channel = reader.name()?;
            let payload = if reader.symbol(b',') { reader.literal()? } else { Bytes::new() };
            Effect::Notify { form: Form::Command, channel: Argument::Text(channel), payload: Argument::Text(payload) }
        }
        DISCARD => reader.discard()?,
        _ => return None,
    };
    reader.is_at_end().then_some(Some(effect))
}

/// Takes a statement token by token.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    text: &'a [u8],
    lexer: Lexer<'a>,
    token: Token,
}

impl<'a> Reader<'a> {
    /// Stands on the first token of `text`.
    pub(super) fn new(text: &'a [u8], context: Context) -> Self {
        let mut lexer = Lexer::new(text, context.standard_conforming_strings);
        let token = lexer.token();
        Self { text, lexer, token }
    }

    /// All of the text.
    pub(super) fn text(&self) -> &'a [u8] {
        self.text
    }

    /// The token it stands on.
    pub(super) fn token(&self) -> Token {
        self.token
    }

    /// The token behind that one.
    pub(super) fn second(&self) -> Token {
        let mut lexer = self.lexer;
        lexer.token()
    }

    /// Goes one token on.
    pub(super) fn advance(&mut self) {
        self.token = self.lexer.token();
    }

    /// Takes everything that is left.
    pub(super) fn skip(&mut self) {
        while !self.is_at_end() {
            self.advance();
        }
    }

    /// Whether everything was taken.
    pub(super) fn is_at_end(&self) -> bool {
        self.token.kind == TokenKind::End
    }

    /// Whether it stands on this unquoted word.
    pub(super) fn is(&self, word: u128) -> bool {
        self.token.kind == TokenKind::Word && keyword(self.token.of(self.text)) == word
    }

    /// Takes this word if it stands there.
    pub(super) fn word(&mut self, word: u128) -> bool {
        let found = self.is(word);
        if found {
            self.advance();
        }
        found
    }

    /// Takes these words if all of them stand there.
    pub(super) fn words(&mut self, words: &[u128]) -> bool {
        let start = *self;
        let found = words.iter().all(|&word| self.word(word));
        if !found {
            *self = start;
        }
        found
    }

    /// Takes a token of one byte if it stands there.
    pub(super) fn symbol(&mut self, symbol: u8) -> bool {
        let found = self.token.of(self.text) == [symbol];
        if found {
            self.advance();
        }
        found
    }

    /// Takes a name.
    pub(super) fn name(&mut self) -> Option<Bytes> {
        let name = quote::name(self.text, self.token)?;
        self.advance();
        Some(name)
    }

    /// Takes a parameter, `$1`.
    pub(super) fn parameter(&mut self) -> Option<u16> {
        let number = self.token.of(self.text).strip_prefix(b"$")?;
        let number = str::from_utf8(number).ok()?.parse().ok().filter(|number| *number > 0)?;
        self.advance();
        Some(number)
    }

    /// Takes `::`, which is two tokens here.
    pub(super) fn typecast(&mut self) -> bool {
        let found = self.text[self.token.start..].starts_with(b"::");
        if found {
            self.advance();
            self.advance();
        }
        found
    }

    /// Takes a string literal.
    pub(super) fn literal(&mut self) -> Option<Bytes> {
        let literal = quote::literal(self.text, self.token)?;
        self.advance();
        Some(literal)
    }

    /// `[WORK | TRANSACTION] [AND [NO] CHAIN]`.
    fn chain(&mut self) -> Option<bool> {
        let _ = self.word(WORK) || self.word(TRANSACTION);
        if !self.word(AND) {
            return Some(false);
        }
        let refused = self.word(NO);
        self.word(CHAIN).then_some(!refused)
    }

    /// `[SAVEPOINT] name`, where the name may be `savepoint`.
    fn savepoint(&mut self) -> Option<Bytes> {
        if self.second().kind != TokenKind::End {
            self.word(SAVEPOINT);
        }
        self.name()
    }

    /// `TRANSACTION 'id'` or `name [(types)] AS …`.
    fn prepare(&mut self) -> Option<Option<Effect>> {
        let is_literal = matches!(
            self.second().kind,
            TokenKind::Plain | TokenKind::Escaped | TokenKind::Dollar | TokenKind::OtherLiteral
        );
        if self.is(TRANSACTION) && is_literal {
            return Some(Some(Effect::PrepareTransaction));
        }
        Some(Some(Effect::Prepare(self.name()?)))
    }

    /// `[PREPARE] name` or `[PREPARE] ALL`, where the name may be `prepare`.
    fn deallocate(&mut self) -> Option<Effect> {
        if self.second().kind != TokenKind::End {
            self.word(PREPARE);
        }
        if self.word(ALL) {
            return Some(Effect::DeallocateAll);
        }
        Some(Effect::Deallocate(self.name()?))
    }

    fn discard(&mut self) -> Option<Effect> {
        let discarded = match () {
            () if self.word(ALL) => return Some(Effect::DiscardAll),
            () if self.word(PLANS) => Discarded::Plans,
            () if self.word(SEQUENCES) => Discarded::Sequences,
            () if self.word(TEMP) || self.word(TEMPORARY) => Discarded::Temp,
            () => return None,
        };
        Some(Effect::Discard(discarded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{StateFlags, classify};

    fn effect(text: &str) -> Effect {
        let class = classify(text.as_bytes(), Context::default());
        assert_eq!((class.statements, class.effects.len()), (1, 1), "{text}: {class:?}");
        class.effects[0].1.clone()
    }

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn transactions_begin_and_end_in_every_spelling() {
        for text in ["BEGIN", "begin work", "START TRANSACTION READ ONLY", "BEGIN ISOLATION LEVEL SERIALIZABLE"] {
            assert_eq!(effect(text), Effect::Begin);
        }
        for text in ["COMMIT", "END", "COMMIT WORK", "END TRANSACTION", "COMMIT AND NO CHAIN"] {
            assert_eq!(effect(text), Effect::Commit { chain: false });
        }
        for text in ["ROLLBACK", "ABORT", "ROLLBACK TRANSACTION", "ABORT WORK AND NO CHAIN"] {
            assert_eq!(effect(text), Effect::Rollback { chain: false });
        }
        assert_eq!(effect("COMMIT WORK AND CHAIN"), Effect::Commit { chain: true });
        assert_eq!(effect("ROLLBACK AND CHAIN"), Effect::Rollback { chain: true });
        assert_eq!(effect("PREPARE TRANSACTION 'x'"), Effect::PrepareTransaction);
    }

    #[test]
    fn the_second_phase_of_two_is_not_followed() {
        let class = classify(b"COMMIT PREPARED 'x'; ROLLBACK PREPARED 'x'", Context::default());
        assert!(class.is_ordinary() && class.statements == 2);
    }

    #[test]
    fn savepoints_may_be_called_savepoint() {
        assert_eq!(effect("SAVEPOINT Foo"), Effect::Savepoint(bytes("foo")));
        assert_eq!(effect("RELEASE SAVEPOINT \"Foo\""), Effect::Release(bytes("Foo")));
        assert_eq!(effect("RELEASE savepoint"), Effect::Release(bytes("savepoint")));
        assert_eq!(effect("ROLLBACK WORK TO SAVEPOINT a"), Effect::RollbackTo(bytes("a")));
        assert_eq!(effect("ROLLBACK TO savepoint"), Effect::RollbackTo(bytes("savepoint")));
    }

    #[test]
    fn prepared_statements_may_be_called_transaction_or_prepare() {
        assert_eq!(effect("PREPARE transaction AS SELECT 1"), Effect::Prepare(bytes("transaction")));
        assert_eq!(effect("PREPARE p (int) AS SELECT $1"), Effect::Prepare(bytes("p")));
        assert_eq!(effect("DEALLOCATE prepare"), Effect::Deallocate(bytes("prepare")));
        assert_eq!(effect("DEALLOCATE PREPARE p"), Effect::Deallocate(bytes("p")));
        assert_eq!(effect("DEALLOCATE PREPARE ALL"), Effect::DeallocateAll);
        assert_eq!(effect("DEALLOCATE \"all\""), Effect::Deallocate(bytes("all")));
    }

    #[test]
    fn channels_and_payloads_are_read() {
        assert_eq!(effect("LISTEN FooBar"), Effect::Listen(bytes("foobar")));
        assert_eq!(effect("UNLISTEN \"FooBar\""), Effect::Unlisten(bytes("FooBar")));
        assert_eq!(effect("UNLISTEN *"), Effect::UnlistenAll);
        let notify = |channel, payload| {
            let (channel, payload) = (Argument::Text(bytes(channel)), Argument::Text(bytes(payload)));
            Effect::Notify { form: Form::Command, channel, payload }
        };
        assert_eq!(effect("NOTIFY A, 'it''s'"), notify("a", "it's"));
        assert_eq!(effect("NOTIFY \"A\""), notify("A", ""));
    }

    #[test]
    fn discard_is_read() {
        assert_eq!(effect("DISCARD ALL"), Effect::DiscardAll);
        assert_eq!(effect("DISCARD TEMPORARY"), Effect::Discard(Discarded::Temp));
    }

    #[test]
    fn a_name_in_unicode_escapes_is_uncertain() {
        let class = classify(br#"SAVEPOINT U&"\0061""#, Context::default());
        assert!(class.may_begin.contains(StateFlags::UNCERTAIN));
    }
}
