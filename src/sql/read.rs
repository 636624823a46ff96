//! Exact reading of the short utility statements: transactions, prepared statements, channels, DISCARD.
//!
//! `None` means unread: either Postgres refuses the text too, or a name is written in a form we do not decode.

use bytes::Bytes;

use super::class::{Context, Discarded, Effect};
use super::keyword::*;
use super::lex::{Kind, Lexer, Token};
use super::quote;

/// What the statement `text`, whose first word is `head`, does; `Some(None)` for one that was read and does nothing of note.
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
            Effect::Notify { channel, payload }
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
        self.token.kind == Kind::End
    }

    /// Whether it stands on this unquoted word.
    pub(super) fn is(&self, word: u128) -> bool {
        self.token.kind == Kind::Word && keyword(self.token.of(self.text)) == word
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
        if self.second().kind != Kind::End {
            self.word(SAVEPOINT);
        }
        self.name()
    }

    /// `TRANSACTION 'id'` or `name [(types)] AS …`.
    fn prepare(&mut self) -> Option<Option<Effect>> {
        let is_literal = matches!(self.second().kind, Kind::Plain | Kind::Escaped | Kind::Dollar | Kind::OtherLiteral);
        if self.is(TRANSACTION) && is_literal {
            return Some(Some(Effect::PrepareTransaction));
        }
        Some(Some(Effect::Prepare(self.name()?)))
    }

    /// `[PREPARE] name` or `[PREPARE] ALL`, where the name may be `prepare`.
    fn deallocate(&mut self) -> Option<Effect> {
        if self.second().kind != Kind::End {
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
