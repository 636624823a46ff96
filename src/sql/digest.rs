//! The digest of a statement: one number for all texts that differ only in literals, parameters, case, blanks and
//! comments, or in how often a list repeats an element.
//!
//! It agrees with the query ids of `pg_stat_statements` as far as a text can tell. A list is collapsed by its elements:
//! of equal neighbours in `IN (…)`, `ARRAY[…]` and the rows of VALUES one is left. [`Normalizer`] is the one place of
//! these rules; it hashes, and writes the normalised text where somebody will read it.

use std::fmt;

use smallvec::SmallVec;

use super::effect::Context;
use super::keyword::*;
use super::lex::{Lexer, Token, TokenKind};
use super::mask::Readable;
use super::scan::split;

/// Names a statement for people and for the configuration: 16 hexadecimal digits. Instances and releases agree on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Digest(pub(crate) u64);

impl Digest {
    /// Of no text: nothing is known of the statement.
    pub(crate) const NONE: Self = Self(0);

    /// From 16 hexadecimal digits.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Bytes of a normalised text that are kept.
const TEXT_MAX: usize = 2048;

/// Lists within lists that are collapsed; deeper ones are taken as they are.
const LISTS_MAX: usize = 16;

/// Statements of one text that have digests of their own; the rest shares the last one.
const STATEMENTS_MAX: usize = 64;

/// The digests of the statements of a text, in order.
pub type Digests = SmallVec<[Digest; 1]>;

/// The digests of the statements of `text`, one for each that is not empty.
pub fn digests(text: &[u8], context: Context) -> Digests {
    let readable = Readable::of(text, context);
    let Some(text) = readable.text() else { return Digests::new() };
    let spans = split(text, context.readable()).take(STATEMENTS_MAX);
    spans.map(|span| Normalizer::new(&text[span], context.readable()).digest()).collect()
}

/// The text of the statement with this digest, without its literals, cut to a length that a table can show.
pub(crate) fn normalized(text: &[u8], context: Context, digest: Digest) -> Option<String> {
    let readable = Readable::of(text, context);
    let text = readable.text()?;
    split(text, context.readable()).take(STATEMENTS_MAX).find_map(|span| {
        let mut normalizer = Normalizer::new(&text[span], context.readable());
        normalizer.text = Some(Vec::new());
        let (found, text) = normalizer.run();
        (found == digest).then(|| String::from_utf8_lossy(&text.unwrap_or_default()).into_owned())
    })
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Bytes that stand for parts in the hash; none occurs in a text outside literals.
mod part {
    pub(super) const LITERAL: u8 = 1;
    pub(super) const WORD: u8 = 2;
    pub(super) const EXACT: u8 = 3;
    pub(super) const ELEMENT: u8 = 4;
}

/// A list whose elements are being collapsed.
#[derive(Debug)]
struct CollapsedList {
    kind: ListKind,
    /// Depth of parentheses and brackets inside it.
    depth: usize,
    /// The hash before the element under way.
    outer: u64,
    /// The hash of the element before.
    last: Option<u64>,
    /// Length of the text before the element under way.
    mark: usize,
    /// An element was left out.
    is_shortened: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ListKind {
    /// `IN (…)` and `ARRAY[…]`: commas part the elements.
    Elements,
    /// The rows of VALUES, each in its parentheses.
    Rows,
}

/// Walks the tokens of one statement.
struct Normalizer<'a> {
    source: &'a [u8],
    lexer: Lexer<'a>,
    hash: u64,
    /// `None`: only the digest is wanted.
    text: Option<Vec<u8>>,
    lists: SmallVec<[CollapsedList; 2]>,
    depth: usize,
    /// The token before.
    previous: Token,
    /// The words behind the first are names that clients make up, such as those of savepoints.
    names_are_literals: bool,
}

impl<'a> Normalizer<'a> {
    fn new(source: &'a [u8], context: Context) -> Self {
        Self {
            source,
            lexer: Lexer::new(source, context.standard_conforming_strings),
            hash: FNV_OFFSET,
            text: None,
            lists: SmallVec::new(),
            depth: 0,
            previous: Token { kind: TokenKind::End, start: 0, end: 0 },
            names_are_literals: false,
        }
    }

    fn digest(self) -> Digest {
        self.run().0
    }

    fn run(mut self) -> (Digest, Option<Vec<u8>>) {
        loop {
            let token = self.lexer.token();
            match token.kind {
                TokenKind::End | TokenKind::Unterminated => break,
                TokenKind::Semicolon if self.depth == 0 => continue,
                _ => self.token(token),
            }
        }
        while !self.lists.is_empty() {
            self.end_list();
        }
        (Digest(finish(self.hash)), self.text)
    }

    fn token(&mut self, token: Token) {
        let bytes = token.of(self.source);
        match token.kind {
            TokenKind::Word => self.word(token, bytes),
            TokenKind::Quoted | TokenKind::UnicodeQuoted if self.names_are_literals => self.literal(token),
            TokenKind::Quoted => self.quoted(token, bytes),
            TokenKind::UnicodeQuoted => self.exact(token, bytes),
            TokenKind::Plain | TokenKind::Escaped | TokenKind::Dollar | TokenKind::OtherLiteral => self.literal(token),
            TokenKind::Number => self.number(token),
            TokenKind::Symbol if bytes.len() > 1 => self.literal(token),
            TokenKind::Symbol => self.symbol(token, bytes[0]),
            TokenKind::Open => self.open(token, b'('),
            TokenKind::Close => self.close(token, b')'),
            TokenKind::Semicolon => self.emit(token, b";"),
            TokenKind::Unterminated | TokenKind::End => {}
        }
    }

    fn word(&mut self, token: Token, bytes: &[u8]) {
        let is_first = self.previous.kind == TokenKind::End;
        if is_first {
            self.names_are_literals = matches!(keyword(bytes), SAVEPOINT | RELEASE | ROLLBACK | DEALLOCATE);
        } else if self.is_literal(bytes) {
            return self.literal(token);
        }
        self.add(part::WORD);
        bytes.iter().for_each(|byte| self.add(byte.to_ascii_lowercase()));
        self.write(token, bytes);
    }

    /// True for words that are values: TRUE, FALSE and NULL, except in a test (`IS NULL`) and a constraint (`NOT
    /// NULL`); and names that clients make up.
    fn is_literal(&self, word: &[u8]) -> bool {
        let is = |other: &[u8]| word.eq_ignore_ascii_case(other);
        if self.names_are_literals {
            let words: [&[u8]; 9] =
                [b"savepoint", b"to", b"work", b"transaction", b"and", b"no", b"chain", b"all", b"prepare"];
            return !words.iter().any(|other| is(other)) && !is(b"prepared");
        }
        (is(b"null") || is(b"true") || is(b"false")) && !(self.follows(b"is") || self.follows(b"not"))
    }

    /// True if the token before is this word.
    fn follows(&self, word: &[u8]) -> bool {
        self.previous.kind == TokenKind::Word && self.previous.of(self.source).eq_ignore_ascii_case(word)
    }

    /// `"name"` is the word `name`, unless a word could not be spelled so.
    fn quoted(&mut self, token: Token, bytes: &[u8]) {
        let name = &bytes[1..bytes.len() - 1];
        let is_word = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'_' || byte.is_ascii_digit();
        if !name.iter().all(is_word) || name.first().is_none_or(u8::is_ascii_digit) {
            return self.exact(token, bytes);
        }
        self.add(part::WORD);
        name.iter().for_each(|byte| self.add(*byte));
        self.write(token, bytes);
    }

    fn exact(&mut self, token: Token, bytes: &[u8]) {
        self.add(part::EXACT);
        bytes.iter().for_each(|byte| self.add(*byte));
        self.write(token, bytes);
    }

    fn literal(&mut self, token: Token) {
        self.add(part::LITERAL);
        self.write(token, b"?");
    }

    /// A number with everything that the lexer cuts off it: `1.5e-3`, `0x1F`, `1_000`.
    fn number(&mut self, token: Token) {
        let mut end = token.end;
        loop {
            match self.source.get(end) {
                Some(byte) if byte.is_ascii_alphanumeric() || *byte == b'_' => end += 1,
                Some(b'.') if self.source.get(end + 1) != Some(&b'.') => end += 1,
                Some(b'+' | b'-')
                    if self.source[end - 1].eq_ignore_ascii_case(&b'e')
                        && !self.source[token.start..end].starts_with(b"0x")
                        && self.source.get(end + 1).is_some_and(u8::is_ascii_digit) =>
                {
                    end += 1;
                }
                _ => break,
            }
        }
        self.lexer.go_to(end);
        self.literal(Token { end, ..token });
    }

    fn symbol(&mut self, token: Token, byte: u8) {
        match byte {
            b'[' => return self.open(token, byte),
            b']' => return self.close(token, byte),
            b',' => return self.comma(token),
            b'.' | b'+' | b'-' if !self.follows_operand() || byte == b'.' && self.previous.end < token.start => {
                let mut ahead = self.lexer;
                let next = ahead.token();
                if next.kind == TokenKind::Number && (byte != b'.' || next.start == token.end) {
                    // The sign belongs to the number, as does the point of `.5`.
                    self.lexer = ahead;
                    return self.number(Token { start: token.start, ..next });
                }
            }
            _ => {}
        }
        self.emit(token, &[byte]);
    }

    /// True if an operator behind the token before has a left side.
    fn follows_operand(&self) -> bool {
        let bytes = self.previous.of(self.source);
        match self.previous.kind {
            TokenKind::Word => !BEFORE_EXPRESSIONS.iter().any(|word| bytes.eq_ignore_ascii_case(word)),
            TokenKind::Open | TokenKind::End => false,
            TokenKind::Symbol => bytes.len() > 1 || bytes == b"]",
            _ => true,
        }
    }

    fn open(&mut self, token: Token, byte: u8) {
        let begins = match byte {
            b'(' if self.follows(b"in") => Some(ListKind::Elements),
            b'[' if self.follows(b"array") => Some(ListKind::Elements),
            b'(' if self.follows(b"values") => Some(ListKind::Rows),
            _ => None,
        };
        let begins = begins.filter(|_| self.lists.len() < LISTS_MAX);
        if begins == Some(ListKind::Rows) {
            self.begin_list(ListKind::Rows, self.depth);
        }
        self.depth += 1;
        self.emit(token, &[byte]);
        if begins == Some(ListKind::Elements) {
            self.begin_list(ListKind::Elements, self.depth);
        }
    }

    fn close(&mut self, token: Token, byte: u8) {
        while self.list().is_some_and(|list| match list.kind {
            ListKind::Elements => list.depth == self.depth,
            ListKind::Rows => list.depth >= self.depth,
        }) {
            self.end_list();
        }
        self.depth = self.depth.saturating_sub(1);
        self.emit(token, &[byte]);
        let ends_row = self.list().is_some_and(|list| list.kind == ListKind::Rows && list.depth == self.depth);
        if ends_row && !self.has_another_row() {
            self.end_list();
        }
    }

    fn has_another_row(&self) -> bool {
        let mut ahead = self.lexer;
        ahead.token().of(self.source) == b"," && ahead.token().kind == TokenKind::Open
    }

    fn comma(&mut self, token: Token) {
        if self.list().is_none_or(|list| list.depth != self.depth) {
            return self.emit(token, b",");
        }
        self.end_element();
        self.write(token, b",");
        self.begin_element();
    }

    fn list(&self) -> Option<&CollapsedList> {
        self.lists.last()
    }

    fn begin_list(&mut self, kind: ListKind, depth: usize) {
        let mark = self.text.as_ref().map_or(0, Vec::len);
        self.lists.push(CollapsedList { kind, depth, outer: self.hash, last: None, mark, is_shortened: false });
        self.begin_element();
    }

    fn begin_element(&mut self) {
        self.hash = FNV_OFFSET;
    }

    /// An element equal to the one before it is left out.
    fn end_element(&mut self) {
        let hash = self.hash;
        let Some(list) = self.lists.last_mut() else { return };
        if list.last == Some(hash) {
            list.is_shortened = true;
            if let Some(text) = &mut self.text {
                text.truncate(list.mark);
            }
        } else {
            list.last = Some(hash);
            list.outer =
                hash.to_le_bytes().iter().fold(step(list.outer, part::ELEMENT), |hash, byte| step(hash, *byte));
            list.mark = self.text.as_ref().map_or(0, Vec::len);
        }
        self.hash = list.outer;
    }

    fn end_list(&mut self) {
        self.end_element();
        let Some(list) = self.lists.pop() else { return };
        if list.is_shortened
            && let Some(text) = &mut self.text
        {
            text.extend_from_slice(", …".as_bytes());
        }
    }

    fn emit(&mut self, token: Token, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.add(*byte));
        self.write(token, bytes);
    }

    fn add(&mut self, byte: u8) {
        self.hash = step(self.hash, byte);
    }

    fn write(&mut self, token: Token, shown: &[u8]) {
        if let Some(text) = &mut self.text
            && text.len() < TEXT_MAX
        {
            if token.start > self.previous.end && !text.is_empty() {
                text.push(b' ');
            }
            text.extend_from_slice(&shown[..shown.len().min(TEXT_MAX)]);
        }
        self.previous = token;
    }
}

/// Words behind which a sign is that of a number.
const BEFORE_EXPRESSIONS: [&[u8]; 22] = [
    b"select",
    b"where",
    b"and",
    b"or",
    b"not",
    b"then",
    b"else",
    b"when",
    b"by",
    b"in",
    b"limit",
    b"offset",
    b"returning",
    b"values",
    b"between",
    b"like",
    b"set",
    b"on",
    b"case",
    b"default",
    b"distinct",
    b"having",
];

fn step(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
}

/// Spreads the last bytes over all bits.
fn finish(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(text: &str) -> Digests {
        digests(text.as_bytes(), Context::default())
    }

    fn shown(text: &str) -> String {
        normalized(text.as_bytes(), Context::default(), digest(text)[0]).expect("it is one statement")
    }

    #[test]
    fn texts_that_differ_in_literals_case_blanks_and_comments_share_a_digest() {
        for (one, other) in [
            ("SELECT a FROM t WHERE b = 1", "select A\nfrom T where B = 250;"),
            ("SELECT 'a'", "SELECT $$b$$ -- c"),
            ("SELECT $1", "/* a */ SELECT E'\\''"),
            ("SELECT 1", "SELECT -1.5e-3"),
            ("SELECT 1.5", "SELECT .5"),
            ("SELECT 0x1F, a", "SELECT 1_000, a"),
            ("SELECT x FROM t WHERE id IN (1, 2, 3)", "SELECT x FROM t WHERE id IN ($1)"),
            ("SELECT ARRAY[1, 2]", "SELECT ARRAY[1,2,3,4]"),
            ("INSERT INTO t VALUES (1, 'a')", "INSERT INTO t VALUES (1, NULL), (2, 'b'), (3, true)"),
            ("INSERT INTO t VALUES (1, now())", "INSERT INTO t VALUES (1, now()),(2, now()) "),
            ("SELECT * FROM t WHERE x IN ($1::int, $2::int)", "SELECT * FROM t WHERE x IN ($1::int)"),
            ("SELECT \"a\" FROM \"t\"", "SELECT a FROM t"),
            ("SAVEPOINT a1", "savepoint \"b\""),
            ("ROLLBACK TO SAVEPOINT x", "ROLLBACK TO SAVEPOINT y"),
            ("SELECT a-1", "SELECT a - 2"),
        ] {
            assert_eq!(digest(one), digest(other), "{one} / {other}: {} / {}", shown(one), shown(other));
        }
    }

    #[test]
    fn texts_that_do_something_else_have_another_digest() {
        for (one, other) in [
            ("SELECT a FROM t", "SELECT b FROM t"),
            ("SELECT a, b FROM t", "SELECT ab FROM t"),
            ("SELECT 1", "SELECT 1, 2"),
            ("SELECT a IS NULL", "SELECT a IS NOT NULL"),
            ("SELECT a IS TRUE", "SELECT a IS FALSE"),
            ("SELECT \"A\" FROM t", "SELECT a FROM t"),
            ("SELECT t1.a", "SELECT t2.a"),
            ("SELECT x FROM t WHERE id IN (a, b)", "SELECT x FROM t WHERE id IN (a)"),
            ("SELECT x FROM t WHERE id IN (1)", "SELECT x FROM t WHERE id NOT IN (1)"),
            ("INSERT INTO t VALUES (1, 2)", "INSERT INTO t VALUES (1, 2, 3)"),
            ("SELECT f(1)", "SELECT f(1, 2)"),
            ("SELECT a - 1", "SELECT a + 1"),
            ("ROLLBACK", "ROLLBACK TO a"),
            ("BEGIN", "COMMIT"),
            ("VALUES (1), (2)", "SELECT 1"),
        ] {
            assert_ne!(digest(one), digest(other), "{one} / {other}");
        }
    }

    #[test]
    fn a_text_of_several_statements_has_a_digest_for_each() {
        assert_eq!(
            digest("BEGIN; UPDATE t SET a = 1; COMMIT;")[..],
            [digest("begin")[0], digest("UPDATE t SET a = 2")[0], digest("commit")[0]]
        );
        assert!(digest(" ; -- nothing").is_empty());
    }

    #[test]
    fn the_normalised_text_has_no_literal_left() {
        for (text, wanted) in [
            ("SELECT  a FROM t WHERE b='secret' AND c = 12.5", "SELECT a FROM t WHERE b=? AND c = ?"),
            ("/* x */ SELECT $1::int; -- y", "SELECT ?::int"),
            ("SELECT x WHERE a IN (1, 2, 3) AND b", "SELECT x WHERE a IN (?, …) AND b"),
            ("INSERT INTO t VALUES (1, 'a'), (2, 'b')", "INSERT INTO t VALUES (?, ?), …"),
            ("SELECT ARRAY[1, 2, 3]::int[]", "SELECT ARRAY[?, …]::int[]"),
        ] {
            assert_eq!(shown(text), wanted);
        }
    }

    #[test]
    fn a_digest_is_written_and_read_as_16_digits() {
        let digest = Digest(0x9f3a);
        assert_eq!(digest.to_string(), "0000000000009f3a");
        assert_eq!(Digest::read(&digest.to_string()), Some(digest));
        for wrong in ["", "9f3a", "+000000000009f3a", "00000000000000000", "000000000000xf3a"] {
            assert_eq!(Digest::read(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_and_its_digest_has_its_text(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "SELECT ", "a", " ", "'x'", "''", "\"", "$$", "$1", "--", "\n", "/*", "*/", ";", "(", ")", ",", "1", "1.5e-3",
                    "IN (", "VALUES (", "), (", "ARRAY[", "]", "[", ".", "-", "0x", "E'", "U&'", "NULL", "é", "savepoint ",
                ]),
                0..20,
            ),
            standard_conforming_strings: bool,
        ) {
            let text = parts.concat();
            let context = Context { standard_conforming_strings, ..Context::default() };
            for digest in digests(text.as_bytes(), context) {
                let shown = normalized(text.as_bytes(), context, digest);
                prop_assert!(shown.is_some());
            }
        }
    }
}
