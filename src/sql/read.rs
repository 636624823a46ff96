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
    let is_two_phase = reader.is_two_phase();
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
        SAVEPOINT => Effect::Savepoint(reader.free_name()?),
        RELEASE => Effect::Release(reader.savepoint()?),
        PREPARE if is_two_phase => return Some(Some(Effect::PrepareTransaction)),
        PREPARE => return Some(Some(Effect::Prepare(reader.free_name()?))),
        DEALLOCATE => reader.deallocate()?,
        LISTEN => Effect::Listen(reader.free_name()?),
        UNLISTEN if reader.symbol(b'*') => Effect::UnlistenAll,
        UNLISTEN => Effect::Unlisten(reader.free_name()?),
        NOTIFY => {
            let channel = reader.free_name()?;
            let payload = if reader.symbol(b',') { reader.literal()? } else { Bytes::new() };
            Effect::Notify { form: Form::Command, channel: Argument::Text(channel), payload: Argument::Text(payload) }
        }
        DISCARD => reader.discard()?,
        _ => return None,
    };
    reader.is_at_end().then_some(Some(effect))
}

/// Whether a statement, or a part of it, is an UPDATE of `pg_settings`, which is a SET by a rule of the view's.
pub(super) fn updates_settings(text: &[u8], context: Context) -> bool {
    let mut reader = Reader::new(text, context);
    while !reader.is_at_end() {
        if !reader.word(UPDATE) {
            reader.advance();
            continue;
        }
        let mut ahead = reader;
        ahead.word(ONLY);
        let mut name = ahead.name();
        if ahead.symbol(b'.') {
            name = ahead.name();
        }
        if name.as_deref() == Some(b"pg_settings") {
            return true;
        }
    }
    false
}

/// Takes a statement token by token.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    text: &'a [u8],
    context: Context,
    lexer: Lexer<'a>,
    token: Token,
    previous_end: usize,
}

impl<'a> Reader<'a> {
    /// Stands on the first token of `text`.
    pub(super) fn new(text: &'a [u8], context: Context) -> Self {
        let mut lexer = Lexer::new(text, context.standard_conforming_strings);
        let token = lexer.token();
        Self { text, context, lexer, token, previous_end: 0 }
    }

    /// All of the text.
    pub(super) fn text(&self) -> &'a [u8] {
        self.text
    }

    /// What the session says about how to read it.
    pub(super) fn context(&self) -> Context {
        self.context
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

    /// Goes to the first token that `lexer` gives, which walks the same text.
    pub(super) fn resume(&mut self, lexer: Lexer<'a>) {
        self.lexer = lexer;
        self.advance();
    }

    /// What walks the text behind the token it stands on.
    pub(super) fn lexer(&self) -> Lexer<'a> {
        self.lexer
    }

    /// Goes one token on.
    pub(super) fn advance(&mut self) {
        self.previous_end = self.token.end;
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

    /// The name it stands on.
    pub(super) fn name_ahead(&self) -> Option<Bytes> {
        let mut ahead = *self;
        ahead.name()
    }

    /// Takes a name.
    pub(super) fn name(&mut self) -> Option<Bytes> {
        if self.token.kind == TokenKind::UnicodeQuoted {
            let (ahead, name) = self.unicode()?;
            let name = quote::cut_name(name)?;
            *self = ahead;
            return Some(name);
        }
        let name = quote::name(self.text, self.token)?;
        self.advance();
        Some(name)
    }

    /// Takes a name that is free to choose: unless it is quoted, no keyword that the grammar needs itself (`ColId`).
    pub(super) fn free_name(&mut self) -> Option<Bytes> {
        let is_word = self.token.kind == TokenKind::Word;
        let mut ahead = *self;
        let name = ahead.name().filter(|name| !is_word || !is_reserved(name))?;
        *self = ahead;
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
        if self.is_unicode_literal() {
            let (ahead, literal) = self.unicode()?;
            *self = ahead;
            return Some(literal.into());
        }
        let literal = quote::literal(self.text, self.token)?;
        self.advance();
        Some(literal)
    }

    /// Takes the name of a named argument, `name =>` or `name :=`.
    pub(super) fn argument_name(&mut self) -> Option<Bytes> {
        let mut ahead = *self;
        let name = ahead.name()?;
        let rest = &ahead.text[ahead.token.start..];
        if !rest.starts_with(b"=>") && !rest.starts_with(b":=") {
            return None;
        }
        ahead.advance();
        ahead.advance();
        *self = ahead;
        Some(name)
    }

    /// Where the token before this one ended.
    pub(super) fn previous_end(&self) -> usize {
        self.previous_end
    }

    /// `U&'text'`.
    pub(super) fn is_unicode_literal(&self) -> bool {
        self.token.kind == TokenKind::OtherLiteral && matches!(self.token.of(self.text), [b'u' | b'U', ..])
    }

    /// What `U&"name"` or `U&'text'` spells, perhaps with a UESCAPE behind, and the reader behind that.
    fn unicode(&self) -> Option<(Self, Vec<u8>)> {
        let mut ahead = *self;
        ahead.advance();
        let mut escape = b'\\';
        if ahead.word(UESCAPE) {
            let written = quote::literal(ahead.text, ahead.token)?;
            let [byte] = written[..] else { return None };
            let is_refused = byte.is_ascii_hexdigit() || byte.is_ascii_whitespace() || b"+'\"".contains(&byte);
            escape = Some(byte).filter(|byte| byte.is_ascii() && !is_refused)?;
            ahead.advance();
        }
        let spelled = quote::unicode(self.token.of(self.text), escape)?;
        Some((ahead, spelled))
    }

    /// Goes to the query of the `CREATE … TABLE … AS` that it stands on. False: it is none.
    pub(super) fn enter_created_query(&mut self) -> bool {
        self.word(CREATE);
        while [GLOBAL, LOCAL, TEMP, TEMPORARY, UNLOGGED].into_iter().any(|word| self.word(word)) {}
        if !self.word(TABLE) {
            return false;
        }
        let mut depth = 0usize;
        while !self.is_at_end() {
            match self.token().kind {
                TokenKind::Open => depth += 1,
                TokenKind::Close => depth = depth.saturating_sub(1),
                _ if depth == 0 && self.word(AS) => return true,
                _ => {}
            }
            self.advance();
        }
        false
    }

    /// Whether the PREPARE that it stands on is `PREPARE TRANSACTION 'id'`.
    pub(super) fn is_two_phase(&self) -> bool {
        let mut ahead = *self;
        ahead.advance();
        ahead.word(TRANSACTION)
            && matches!(
                ahead.token.kind,
                TokenKind::Plain | TokenKind::Escaped | TokenKind::Dollar | TokenKind::OtherLiteral
            )
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
        self.free_name()
    }

    /// `[PREPARE] name` or `[PREPARE] ALL`, where the name may be `prepare`.
    fn deallocate(&mut self) -> Option<Effect> {
        if self.second().kind != TokenKind::End {
            self.word(PREPARE);
        }
        if self.word(ALL) {
            return Some(Effect::DeallocateAll);
        }
        Some(Effect::Deallocate(self.free_name()?))
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
    fn a_name_in_unicode_escapes_is_read_if_it_is_ascii() {
        for text in [r#"SAVEPOINT U&"\0061""#, r#"SAVEPOINT U&"!0061" UESCAPE '!'"#] {
            assert_eq!(effect(text), Effect::Savepoint(bytes("a")));
        }
        for text in [r#"SAVEPOINT U&"\00e9""#, r#"SAVEPOINT U&"+0061" UESCAPE '+'"#] {
            let class = classify(text.as_bytes(), Context::default());
            assert!(class.may_begin.contains(StateFlags::UNCERTAIN), "{text}");
        }
    }
}
