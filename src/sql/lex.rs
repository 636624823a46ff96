//! Bytes to tokens, by the rules of Postgres's `src/backend/parser/scan.l`.
//!
//! A token is a kind and a span; nothing is copied or decoded here. Only the ends of literals, comments and statements
//! have to be exact, so numbers and operators come out in smaller pieces than in Postgres: `1.5e3` is four tokens and
//! `<=` two.

use memchr::{memchr, memchr2};

/// The kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// An unquoted identifier or keyword.
    Word,
    /// `"name"`.
    Quoted,
    /// `U&"name"`, which may hide any name.
    UnicodeQuoted,
    /// `'text'` in which a backslash is a backslash.
    Plain,
    /// `E'text'`, or `'text'` with `standard_conforming_strings` off: a backslash escapes.
    Escaped,
    /// `$tag$text$tag$`.
    Dollar,
    /// `B''`, `X''`, `N''` and `U&''`: delimited, never decoded.
    OtherLiteral,
    /// A run of digits.
    Number,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `;`
    Semicolon,
    /// Any other single byte outside the kinds above.
    Symbol,
    /// A literal, quoted name or comment that the text ends in.
    Unterminated,
    /// The end of the text.
    End,
}

/// A kind and where its bytes are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Token {
    /// The token's bytes, quotes and prefixes included.
    pub(super) fn of<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.start..self.end]
    }
}

/// Walks a text once; copying it is a cheap look-ahead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    standard_conforming_strings: bool,
}

/// How a quoted literal treats backslashes.
#[derive(Clone, Copy, PartialEq)]
enum Backslash {
    Ordinary,
    Escapes,
}

/// The kind of token, space or comment that a byte may begin.
#[derive(Clone, Copy, PartialEq)]
enum Begin {
    Space,
    Word,
    Digit,
    Quote,
    DoubleQuote,
    Dollar,
    Dash,
    Slash,
    Open,
    Close,
    Semicolon,
    Symbol,
}

/// The kind that each byte begins outside literals and comments.
static BEGIN: [Begin; 256] = {
    let mut table = [Begin::Symbol; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => Begin::Space,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => Begin::Word,
            b'0'..=b'9' => Begin::Digit,
            b'\'' => Begin::Quote,
            b'"' => Begin::DoubleQuote,
            b'$' => Begin::Dollar,
            b'-' => Begin::Dash,
            b'/' => Begin::Slash,
            b'(' => Begin::Open,
            b')' => Begin::Close,
            b';' => Begin::Semicolon,
            _ => Begin::Symbol,
        };
        byte += 1;
    }
    table
};

/// True for bytes that continue a word (`ident_cont`).
pub(super) static CONTINUES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(BEGIN[byte], Begin::Word | Begin::Digit | Begin::Dollar);
        byte += 1;
    }
    table
};

impl<'a> Lexer<'a> {
    /// Begins at the start of `text`, which has no terminating zero.
    pub(super) fn new(text: &'a [u8], standard_conforming_strings: bool) -> Self {
        Self { text, at: 0, standard_conforming_strings }
    }

    /// The next token; at the end of the text, [`TokenKind::End`] for ever.
    #[inline(always)]
    pub(super) fn token(&mut self) -> Token {
        loop {
            let start = self.at;
            let Some(&byte) = self.text.get(start) else {
                return self.cut(TokenKind::End, start, start);
            };
            let kind = match BEGIN[byte as usize] {
                Begin::Space => {
                    self.at += 1;
                    continue;
                }
                Begin::Word => return self.word(start),
                Begin::Open => TokenKind::Open,
                Begin::Close => TokenKind::Close,
                Begin::Semicolon => TokenKind::Semicolon,
                Begin::Symbol => TokenKind::Symbol,
                Begin::Digit => {
                    let end = self.run(start + 1, |byte| byte.is_ascii_digit());
                    return self.cut(TokenKind::Number, start, end);
                }
                Begin::Quote if self.standard_conforming_strings => {
                    return self.literal(TokenKind::Plain, start, start, Backslash::Ordinary);
                }
                Begin::Quote => {
                    return self.literal(TokenKind::Escaped, start, start, Backslash::Escapes);
                }
                Begin::DoubleQuote => return self.quoted(TokenKind::Quoted, start, start),
                Begin::Dollar => return self.dollar(start),
                Begin::Dash if self.text.get(start + 1) == Some(&b'-') => {
                    self.at = line_end(self.text, start + 2);
                    continue;
                }
                Begin::Slash if self.text.get(start + 1) == Some(&b'*') => {
                    match block_end(self.text, start + 2) {
                        Some(end) => self.at = end,
                        None => return self.cut(TokenKind::Unterminated, start, self.text.len()),
                    }
                    continue;
                }
                Begin::Dash | Begin::Slash => TokenKind::Symbol,
            };
            return self.cut(kind, start, start + 1);
        }
    }

    /// Goes on at `at`, behind bytes that the caller has read itself.
    pub(super) fn go_to(&mut self, at: usize) {
        self.at = at;
    }

    fn cut(&mut self, kind: TokenKind, start: usize, end: usize) -> Token {
        self.at = end;
        Token { kind, start, end }
    }

    /// The first position from `at` on whose byte is not `wanted`.
    #[inline]
    fn run(&self, at: usize, wanted: impl Fn(u8) -> bool) -> usize {
        let rest = &self.text[at..];
        at + rest.iter().position(|&byte| !wanted(byte)).unwrap_or(rest.len())
    }

    /// A word, or the literal that a one-letter word introduces when a quote follows without a space.
    #[inline]
    fn word(&mut self, start: usize) -> Token {
        let end = self.run(start + 1, |byte| CONTINUES[byte as usize]);
        if end == start + 1
            && let Some(token) = self.prefixed(start)
        {
            return token;
        }
        self.cut(TokenKind::Word, start, end)
    }

    fn prefixed(&mut self, start: usize) -> Option<Token> {
        let plain = if self.standard_conforming_strings { Backslash::Ordinary } else { Backslash::Escapes };
        let (prefix, rest) = self.text[start..].split_first()?;
        match (prefix.to_ascii_lowercase(), rest) {
            (b'e', [b'\'', ..]) => Some(self.literal(TokenKind::Escaped, start, start + 1, Backslash::Escapes)),
            (b'n', [b'\'', ..]) => Some(self.literal(TokenKind::OtherLiteral, start, start + 1, plain)),
            (b'b' | b'x', [b'\'', ..]) => {
                Some(self.literal(TokenKind::OtherLiteral, start, start + 1, Backslash::Ordinary))
            }
            (b'u', [b'&', b'\'', ..]) => {
                Some(self.literal(TokenKind::OtherLiteral, start, start + 2, Backslash::Ordinary))
            }
            (b'u', [b'&', b'"', ..]) => Some(self.quoted(TokenKind::UnicodeQuoted, start, start + 2)),
            _ => None,
        }
    }

    /// A quoted literal with all its continuations on later lines, which keep the first part's backslash rule.
    fn literal(&mut self, kind: TokenKind, start: usize, quote: usize, backslash: Backslash) -> Token {
        let mut open = quote;
        loop {
            let Some(end) = literal_end(self.text, open + 1, backslash) else {
                return self.cut(TokenKind::Unterminated, start, self.text.len());
            };
            match continuation(self.text, end) {
                Some(next) => open = next,
                None => return self.cut(kind, start, end),
            }
        }
    }

    fn quoted(&mut self, kind: TokenKind, start: usize, quote: usize) -> Token {
        let mut at = quote + 1;
        while let Some(found) = memchr(b'"', &self.text[at..]) {
            at += found + 1;
            if self.text.get(at) != Some(&b'"') {
                return self.cut(kind, start, at);
            }
            at += 1;
        }
        self.cut(TokenKind::Unterminated, start, self.text.len())
    }

    /// `$1`, `$tag$…$tag$`, or a lone dollar sign.
    fn dollar(&mut self, start: usize) -> Token {
        let first = self.text.get(start + 1).copied();
        if first.is_some_and(|byte| byte.is_ascii_digit()) {
            let end = self.run(start + 2, |byte| byte.is_ascii_digit());
            return self.cut(TokenKind::Symbol, start, end);
        }
        let tag_end = self.run(start + 1, |byte| byte != b'$' && CONTINUES[byte as usize]);
        if self.text.get(tag_end) != Some(&b'$') {
            return self.cut(TokenKind::Symbol, start, start + 1);
        }
        // A tag holds no dollar sign, so every comparison stops at the next one and the search stays linear.
        let tag = &self.text[start..=tag_end];
        let mut at = tag_end + 1;
        while let Some(found) = memchr(b'$', &self.text[at..]) {
            at += found;
            if self.text[at..].starts_with(tag) {
                return self.cut(TokenKind::Dollar, start, at + tag.len());
            }
            at += 1;
        }
        self.cut(TokenKind::Unterminated, start, self.text.len())
    }
}

/// Where the line comment that is open at `at` ends.
fn line_end(text: &[u8], at: usize) -> usize {
    memchr2(b'\n', b'\r', &text[at..]).map_or(text.len(), |found| at + found)
}

/// Behind the block comment that is open at `at`; they nest.
fn block_end(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 1;
    while let Some(found) = memchr2(b'*', b'/', &text[at..]) {
        at += found;
        match &text[at..] {
            [b'/', b'*', ..] => depth += 1,
            [b'*', b'/', ..] => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Behind the closing quote of the literal whose content begins at `at`.
fn literal_end(text: &[u8], mut at: usize, backslash: Backslash) -> Option<usize> {
    loop {
        let rest = text.get(at..)?;
        let found = match backslash {
            Backslash::Ordinary => memchr(b'\'', rest)?,
            Backslash::Escapes => memchr2(b'\'', b'\\', rest)?,
        };
        at += found;
        match &text[at..] {
            [b'\\', ..] | [b'\'', b'\'', ..] => at += 2,
            _ => return Some(at + 1),
        }
    }
}

/// The quote that continues a literal closed before `at`: white space with a newline in it, line comments included
/// (`quotecontinue`).
pub(super) fn continuation(text: &[u8], mut at: usize) -> Option<usize> {
    let mut newline = false;
    loop {
        match text.get(at..)? {
            [b'\n' | b'\r', ..] => newline = true,
            [b' ' | b'\t' | 0x0b | 0x0c, ..] => {}
            [b'-', b'-', ..] => {
                at = line_end(text, at + 2);
                continue;
            }
            [b'\'', ..] if newline => return Some(at),
            _ => return None,
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str, standard_conforming_strings: bool) -> Vec<(TokenKind, &str)> {
        let mut lexer = Lexer::new(text.as_bytes(), standard_conforming_strings);
        std::iter::from_fn(|| {
            let token = lexer.token();
            (token.kind != TokenKind::End).then(|| (token.kind, &text[token.start..token.end]))
        })
        .collect()
    }

    fn on(text: &str) -> Vec<(TokenKind, &str)> {
        kinds(text, true)
    }

    fn off(text: &str) -> Vec<(TokenKind, &str)> {
        kinds(text, false)
    }

    #[test]
    fn a_dollar_sign_inside_a_word_quotes_nothing() {
        assert_eq!(on("a$b$c"), [(TokenKind::Word, "a$b$c")]);
        assert_eq!(on("a$$b"), [(TokenKind::Word, "a$$b")]);
        assert_eq!(on("é$ü"), [(TokenKind::Word, "é$ü")]);
    }

    #[test]
    fn a_dollar_quote_ends_with_its_own_tag_only() {
        assert_eq!(on("$$;$$"), [(TokenKind::Dollar, "$$;$$")]);
        assert_eq!(
            on("$a$ $b$ $$ $a $aa$ $a$x"),
            [(TokenKind::Dollar, "$a$ $b$ $$ $a $aa$ $a$"), (TokenKind::Word, "x")]
        );
        assert_eq!(on("$é$;$é$"), [(TokenKind::Dollar, "$é$;$é$")]);
        assert_eq!(on("$a$ $b$a$"), [(TokenKind::Dollar, "$a$ $b$a$")]);
        assert_eq!(on("$a$ $a"), [(TokenKind::Unterminated, "$a$ $a")]);
    }

    #[test]
    fn a_parameter_is_no_dollar_quote() {
        assert_eq!(on("$1$$;$$"), [(TokenKind::Symbol, "$1"), (TokenKind::Dollar, "$$;$$")]);
        assert_eq!(on("$ $"), [(TokenKind::Symbol, "$"), (TokenKind::Symbol, "$")]);
    }

    #[test]
    fn a_backslash_escapes_in_e_literals_and_with_conforming_strings_off() {
        assert_eq!(on(r"E'\''"), [(TokenKind::Escaped, r"E'\''")]);
        assert_eq!(on(r"e'\\'"), [(TokenKind::Escaped, r"e'\\'")]);
        assert_eq!(on(r"'\'"), [(TokenKind::Plain, r"'\'")]);
        assert_eq!(on(r"'\''"), [(TokenKind::Unterminated, r"'\''")]);
        assert_eq!(off(r"'\''"), [(TokenKind::Escaped, r"'\''")]);
        assert_eq!(off(r"'\'"), [(TokenKind::Unterminated, r"'\'")]);
        assert_eq!(off(r"n'\''"), [(TokenKind::OtherLiteral, r"n'\''")]);
        assert_eq!(off(r"b'\'"), [(TokenKind::OtherLiteral, r"b'\'")]);
    }

    #[test]
    fn a_doubled_quote_stays_inside() {
        assert_eq!(on("'it''s'"), [(TokenKind::Plain, "'it''s'")]);
        assert_eq!(on(r#""a"";b""#), [(TokenKind::Quoted, r#""a"";b""#)]);
        assert_eq!(
            on(r#"U&"a;" u&'b;'"#),
            [(TokenKind::UnicodeQuoted, r#"U&"a;""#), (TokenKind::OtherLiteral, "u&'b;'")]
        );
    }

    #[test]
    fn only_a_whole_word_introduces_a_literal() {
        assert_eq!(on(r"be'\'"), [(TokenKind::Word, "be"), (TokenKind::Plain, r"'\'")]);
        assert_eq!(on("e 'x'"), [(TokenKind::Word, "e"), (TokenKind::Plain, "'x'")]);
        assert_eq!(on("u & 'x'"), [(TokenKind::Word, "u"), (TokenKind::Symbol, "&"), (TokenKind::Plain, "'x'")]);
        assert_eq!(on(r"1E'\''"), [(TokenKind::Number, "1"), (TokenKind::Escaped, r"E'\''")]);
    }

    #[test]
    fn a_literal_goes_on_after_a_newline_under_its_first_rule() {
        assert_eq!(on("E'a'\n'\\''"), [(TokenKind::Escaped, "E'a'\n'\\''")]);
        assert_eq!(on("E'a' -- it's\n -- x\r '\\''"), [(TokenKind::Escaped, "E'a' -- it's\n -- x\r '\\''")]);
        assert_eq!(on("'a' 'b'").len(), 2);
        assert_eq!(on("'a' /*\n*/ 'b'").len(), 2);
    }

    #[test]
    fn comments_nest_and_line_comments_end_at_either_newline() {
        assert_eq!(on("/* /* ; */ ' */ a"), [(TokenKind::Word, "a")]);
        assert_eq!(on("/*/ a */ b /***/ c /*/*/ */ */"), [(TokenKind::Word, "b"), (TokenKind::Word, "c")]);
        assert_eq!(on("-- ' \ra --"), [(TokenKind::Word, "a")]);
        assert_eq!(on("/* /* */"), [(TokenKind::Unterminated, "/* /* */")]);
    }

    #[test]
    fn comments_begin_inside_operators() {
        assert_eq!(
            on("+-- ;\n*/* ; */-"),
            [(TokenKind::Symbol, "+"), (TokenKind::Symbol, "*"), (TokenKind::Symbol, "-")]
        );
        assert_eq!(on("4 - - 2 / 1").len(), 6);
    }
}
