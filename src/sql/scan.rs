//! Tokens to statements: where each begins and ends, how it begins, and the few words and calls in it that matter.
//!
//! A text that Postgres's grammar refuses executes nothing, whatever it looks like to us; so only texts it accepts have
//! to be cut right. In those a semicolon ends a statement except in the parentheses of `CREATE RULE … DO (a; b)` and in
//! the `BEGIN ATOMIC … END` of a routine. Such a body ends with an `END` where a statement would begin, which no
//! `CASE … END` or column label can be.

use std::ops::Range;

use super::effect::Context;
use super::keyword::*;
use super::lex::{Lexer, Token, TokenKind};
use super::quote;
use super::set_config::SetConfig;
use super::state_flags::StateFlags;

/// The statements of `text` that are not empty, as spans from first to last token; one that does not end is given to
/// the end.
pub(crate) fn split(text: &[u8], context: Context) -> impl Iterator<Item = Range<usize>> {
    let mut scanner = Scanner::new(text, context);
    std::iter::from_fn(move || scanner.statement().map(|statement| statement.span))
}

/// One statement and what was seen in it.
#[derive(Debug)]
pub(super) struct ScannedStatement {
    pub(super) span: Range<usize>,
    /// Its first word as [`keyword`] folds it; zero if it begins otherwise.
    pub(super) head: u128,
    /// State it may create, as far as single words tell.
    pub(super) may_begin: StateFlags,
    /// State it may end, as far as single words tell.
    pub(super) may_end: StateFlags,
    /// There is a call of `set_config`.
    pub(super) calls_set_config: bool,
    /// The word EXECUTE is in it.
    pub(super) says_execute: bool,
    /// There is a call of `nextval` or `setval`, or an INSERT or MERGE inside.
    pub(super) moves_sequence: bool,
    /// There is a call of `lastval` or `currval`.
    pub(super) reads_sequence: bool,
    /// The name `pg_settings` is in it.
    pub(super) names_settings: bool,
    /// There is a call of `pg_notify` or `pg_listening_channels`.
    pub(super) names_channels: bool,
}

/// Whether the statement being walked creates a routine, whose body may hold statements.
#[derive(Clone, Copy, PartialEq)]
enum Routine {
    No,
    /// So far `CREATE [OR REPLACE]`.
    Perhaps,
    Yes,
}

/// Whether a word can be one that [`Scanner::word`] cares about: by length and first letter, which drops nearly all of
/// them.
#[inline]
fn matters(word: &[u8]) -> bool {
    match (word.len(), word[0] | 0x20) {
        (3 | 7, b'e') | (4, b'h' | b't') | (5, b'm') | (6, b'a' | b'i') | (9, b't') => true,
        (7.., b'p') => starts_with(word, b"pg_temp") || word.eq_ignore_ascii_case(b"pg_settings"),
        _ => false,
    }
}

/// Cuts a text into statements.
pub(super) struct Scanner<'a> {
    text: &'a [u8],
    lexer: Lexer<'a>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a [u8], context: Context) -> Self {
        Self { text, lexer: Lexer::new(text, context.standard_conforming_strings) }
    }

    /// The next statement that is not empty.
    pub(super) fn statement(&mut self) -> Option<ScannedStatement> {
        let mut token = self.lexer.token();
        while token.kind == TokenKind::Semicolon {
            token = self.lexer.token();
        }
        if token.kind == TokenKind::End {
            return None;
        }
        let mut statement = ScannedStatement {
            span: token.start..token.end,
            head: if token.kind == TokenKind::Word { keyword(token.of(self.text)) } else { 0 },
            may_begin: StateFlags::NONE,
            may_end: StateFlags::NONE,
            calls_set_config: false,
            says_execute: false,
            moves_sequence: false,
            reads_sequence: false,
            names_settings: false,
            names_channels: false,
        };
        let mut parentheses = 0usize;
        let mut bodies = 0usize;
        let mut routine = if statement.head == CREATE { Routine::Perhaps } else { Routine::No };
        // The two tokens before this one; at the start, this one.
        let (mut before, mut previous) = (token, token);
        let mut fresh = true;
        loop {
            let mut begins_body = false;
            match token.kind {
                TokenKind::Word => {
                    if routine == Routine::Perhaps {
                        routine = self.routine(token, fresh);
                    }
                    if matters(token.of(self.text)) {
                        match keyword(token.of(self.text)) {
                            ATOMIC if routine == Routine::Yes && parentheses == 0 && self.is(previous, BEGIN) => {
                                bodies += 1;
                                begins_body = true;
                            }
                            END if fresh && bodies > 0 && parentheses == 0 => bodies -= 1,
                            word => self.word(word, token, before, previous, &mut statement),
                        }
                    }
                }
                TokenKind::Quoted if starts_with(&self.text[token.start + 1..token.end], b"pg_temp") => {
                    statement.may_begin |= StateFlags::TEMP;
                }
                TokenKind::Quoted if token.of(self.text) == b"\"pg_settings\"" => statement.names_settings = true,
                TokenKind::UnicodeQuoted if matches!(statement.head, SET | RESET) => {}
                TokenKind::UnicodeQuoted => statement.may_begin |= StateFlags::HIDDEN,
                TokenKind::Open => {
                    parentheses += 1;
                    self.call(previous, &mut statement);
                }
                TokenKind::Close => parentheses = parentheses.saturating_sub(1),
                TokenKind::Semicolon if parentheses == 0 && bodies == 0 => return Some(statement),
                TokenKind::End => return Some(statement),
                TokenKind::Unterminated => {
                    statement.may_begin |= StateFlags::UNCERTAIN;
                    statement.span.end = token.end;
                    return Some(statement);
                }
                _ => {}
            }
            if begins_body || (token.kind == TokenKind::Semicolon && bodies > 0) {
                fresh = true;
                routine = Routine::Perhaps;
            } else {
                fresh = false;
            }
            statement.span.end = token.end;
            (before, previous) = (previous, token);
            token = self.lexer.token();
        }
    }

    fn is(&self, token: Token, word: u128) -> bool {
        token.kind == TokenKind::Word && keyword(token.of(self.text)) == word
    }

    fn routine(&self, token: Token, first: bool) -> Routine {
        match (keyword(token.of(self.text)), first) {
            (CREATE, true) | (OR | REPLACE, false) => Routine::Perhaps,
            (FUNCTION | PROCEDURE, false) => Routine::Yes,
            _ => Routine::No,
        }
    }

    /// A word that is not a call, with the two tokens before it.
    fn word(&self, word: u128, token: Token, before: Token, previous: Token, statement: &mut ScannedStatement) {
        match word {
            TEMP | TEMPORARY if previous.kind == TokenKind::Word => {
                statement.may_begin |= match keyword(previous.of(self.text)) {
                    CREATE | REPLACE | LOCAL | GLOBAL => StateFlags::TEMP,
                    INTO if !self.is(before, INSERT) && !self.is(before, MERGE) => StateFlags::TEMP,
                    _ => StateFlags::NONE,
                };
            }
            HOLD if statement.head == DECLARE && self.is(previous, WITH) => statement.may_begin |= StateFlags::HOLD,
            // Elsewhere it is a name.
            INSERT | MERGE => {
                statement.moves_sequence |= !matches!(statement.head, SELECT | VALUES | UPDATE | DELETE);
            }
            EXECUTE => statement.says_execute = true,
            _ if starts_with(token.of(self.text), b"pg_temp") => statement.may_begin |= StateFlags::TEMP,
            _ if starts_with(token.of(self.text), b"pg_") => statement.names_settings = true,
            _ => {}
        }
    }

    /// A parenthesis behind `callee`, which may be anything.
    #[inline]
    fn call(&mut self, callee: Token, statement: &mut ScannedStatement) {
        let decoded;
        let name = match callee.kind {
            TokenKind::Word => callee.of(self.text),
            TokenKind::Quoted => &self.text[callee.start + 1..callee.end - 1],
            TokenKind::UnicodeQuoted => {
                decoded = quote::unicode(callee.of(self.text), b'\\').unwrap_or_default();
                &decoded
            }
            _ => return,
        };
        if starts_with(name, b"pg_") {
            if starts_with(name, b"pg_advisory_lock") || starts_with(name, b"pg_try_advisory_lock") {
                statement.may_begin |= StateFlags::ADVISORY;
            } else if starts_with(name, b"pg_advisory_unlock") {
                statement.may_end |= StateFlags::ADVISORY;
            } else if name.eq_ignore_ascii_case(b"pg_notify") || name.eq_ignore_ascii_case(b"pg_listening_channels") {
                statement.names_channels = true;
            } else {
                let (begins, ends) = administers(name);
                statement.may_begin |= begins;
                statement.may_end |= ends;
            }
            return;
        }
        // By length, which spares most names a comparison.
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            10 => statement.calls_set_config |= SetConfig::is_name(name),
            6 if is(b"setval") => statement.moves_sequence = true,
            7 if is(b"nextval") => statement.moves_sequence = true,
            7 if is(b"lastval") || is(b"currval") => statement.reads_sequence = true,
            7 if is(b"setseed") => statement.may_begin |= StateFlags::SEED,
            14 if is(b"dblink_connect") => statement.may_begin |= StateFlags::DBLINK,
            16 if is(b"dblink_connect_u") => statement.may_begin |= StateFlags::DBLINK,
            _ => {}
        }
    }
}

/// The state that a function for backups and replication may begin, and that it may end.
fn administers(name: &[u8]) -> (StateFlags, StateFlags) {
    use StateFlags as S;
    match &name.to_ascii_lowercase()[..] {
        b"pg_backup_start" | b"pg_start_backup" => (S::BACKUP, S::NONE),
        b"pg_backup_stop" | b"pg_stop_backup" => (S::NONE, S::BACKUP),
        b"pg_create_physical_replication_slot"
        | b"pg_create_logical_replication_slot"
        | b"pg_copy_physical_replication_slot"
        | b"pg_copy_logical_replication_slot" => (S::REPLICATION_SLOT, S::NONE),
        b"pg_drop_replication_slot" => (S::NONE, S::REPLICATION_SLOT),
        b"pg_replication_origin_session_setup" => (S::REPLICATION_ORIGIN, S::NONE),
        b"pg_replication_origin_session_reset" => (S::NONE, S::REPLICATION_ORIGIN),
        _ => (S::NONE, S::NONE),
    }
}

fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn statements(text: &str) -> Vec<&str> {
        split(text.as_bytes(), Context::default()).map(|span| &text[span]).collect()
    }

    #[test]
    fn empty_statements_do_not_count() {
        assert_eq!(statements(""), [""; 0]);
        assert_eq!(statements(";; /* ; */ -- ;\n;"), [""; 0]);
        assert_eq!(statements(" SELECT 1 ;; SELECT 2; "), ["SELECT 1", "SELECT 2"]);
    }

    #[test]
    fn literals_and_comments_end_no_statement() {
        assert_eq!(statements("SELECT 1 --;"), ["SELECT 1"]);
        assert_eq!(statements("SELECT ';', \";\", $$;$$ /* ; */; SELECT a$b").len(), 2);
    }

    #[test]
    fn a_rule_holds_statements_in_parentheses() {
        let text = "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO u VALUES (1); DELETE FROM v); SELECT 2";
        assert_eq!(statements(text).len(), 2);
    }

    #[test]
    fn a_routine_body_holds_statements_to_its_end() {
        for (text, count) in [
            ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END; SELECT 2", 2),
            ("CREATE OR REPLACE PROCEDURE p() begin /* ; */ atomic SELECT 1 end; SELECT 2 AS end; END; SELECT 3", 2),
            ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC ; END; SELECT 3", 2),
            ("CREATE PROCEDURE p() BEGIN ATOMIC SELECT begin atomic FROM t; END; SELECT 2", 2),
            (
                "CREATE PROCEDURE p() BEGIN ATOMIC CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; SELECT 2; END; SELECT 3",
                2,
            ),
        ] {
            assert_eq!(statements(text).len(), count, "{text}");
        }
    }

    #[test]
    fn begin_atomic_elsewhere_is_a_column_with_a_label() {
        assert_eq!(statements("SELECT begin atomic; SELECT 2").len(), 2);
        assert_eq!(statements("CREATE VIEW v AS SELECT begin atomic FROM t; SELECT 2").len(), 2);
        assert_eq!(statements("CREATE FUNCTION f(begin atomic) RETURNS int LANGUAGE sql AS ''; SELECT 2").len(), 2);
    }

    fn valid() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(vec![
            "SELECT $$;$$",
            "SELECT a$b FROM t",
            r"SELECT E'\';'",
            "SELECT /* /* ; */ ; */ 1",
            "SET a.b = ';'",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END",
            "CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2)",
            "NOTIFY a, 'x'\n'y'",
        ])
    }

    proptest! {
        #[test]
        fn counts_of_joined_statements_add_up(parts in proptest::collection::vec(valid(), 0..8)) {
            let text = parts.join(";\n");
            prop_assert_eq!(statements(&text), parts);
        }

        #[test]
        fn spans_of_any_bytes_are_in_order_and_inside(text: Vec<u8>, standard_conforming_strings: bool) {
            let mut end = 0;
            for span in split(&text, Context { standard_conforming_strings, ..Context::default() }) {
                prop_assert!(end <= span.start && span.start < span.end && span.end <= text.len());
                end = span.end;
            }
        }
    }
}
