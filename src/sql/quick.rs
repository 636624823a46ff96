//! A first look that spares most statements the lexer.
//!
//! A SELECT, INSERT, UPDATE, DELETE or VALUES without a `;` inside is one statement wherever its literals end, and it
//! can only do something to its session by a few names. If none of their beginnings occurs anywhere, not even in a
//! literal, there is nothing to read. Written so that the compiler turns it into vector instructions: about one
//! instruction a byte, where the lexer takes twenty.

/// First words of statements that can be judged by their names alone.
const INSERT: u64 = head(b"insert");
const OTHERS: [u64; 4] = [head(b"select"), head(b"update"), head(b"delete"), head(b"values")];

/// The first word of an ordinary statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    Insert,
    Other,
}

const fn head(word: &[u8; 6]) -> u64 {
    u64::from_le_bytes([word[0], word[1], word[2], word[3], word[4], word[5], 0, 0])
}

/// Folds letters, eight at once; the last two bytes are left out.
const FOLD: u64 = head(b"      ");

/// Folds one letter.
const FOLD_ONE: u8 = b' ';

/// The head of `text`, if that is one statement that leaves its session as it was and asks for no value of a sequence.
/// `None` means only that the lexer has to look.
#[inline]
pub(super) fn ordinary(text: &[u8]) -> Option<Head> {
    let text = text.trim_ascii_start();
    let end = text.iter().rposition(|byte| !byte.is_ascii_whitespace()).map_or(0, |last| last + 1);
    let text = text[..end].strip_suffix(b";").unwrap_or(&text[..end]);
    let first = text.first_chunk::<8>()?;
    let word = (u64::from_le_bytes(*first) & (u64::MAX >> 16)) | FOLD;
    let head = match word {
        INSERT => Head::Insert,
        _ if OTHERS.contains(&word) => Head::Other,
        _ => return None,
    };
    (!is_word(first[6]) && !mentions_anything(&text[6..])).then_some(head)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// Bytes looked at together.
const CHUNK: usize = 32;

/// Whether `text` does something by name, see [`has_name`]. Most texts hold none of the rarest pairs of the names.
fn mentions_anything(text: &[u8]) -> bool {
    any_window(text, has_pair) && any_window(text, has_name)
}

/// Whether a chunk of `text` passes `test`, which also sees the beginning of the next chunk. Blanks follow the text.
#[inline]
fn any_window<const WINDOW: usize>(mut text: &[u8], test: impl Fn(&[u8; WINDOW]) -> bool) -> bool {
    while let Some(window) = text.first_chunk::<WINDOW>() {
        if test(window) {
            return true;
        }
        text = &text[CHUNK..];
    }
    let mut last = [b' '; WINDOW];
    last[..text.len()].copy_from_slice(text);
    test(&last)
}

/// Of each name two neighbours, or a `;`.
#[inline]
fn has_pair(window: &[u8; CHUNK + 1]) -> bool {
    let mut found = 0u8;
    for i in 0..CHUNK {
        let [x, y] = [window[i], window[i + 1]];
        let [a, b] = [x | FOLD_ONE, y | FOLD_ONE];
        let hit = (x == b';')
            | (x == b'&')
            | ((y == b'_') & ((a == b'g') | (a == b't')))
            | ((b == b'v') & ((a == b't') | (a == b'r')))
            | ((a == b'm') & (b == b'p'))
            | ((a == b'e') & (b == b'e'))
            | ((a == b'd') & (b == b'b'));
        found |= u8::from(hit);
    }
    found != 0
}

/// A `;`, or in any case: `pg_` (`pg_temp`, `pg_advisory_…`), `temp`, `set_` (`set_config`), `u&` (names in disguise),
/// `tva` (`nextval`, `setval`, `lastval`), `rrv` (`currval`), `tsee` (`setseed`), `dbl` (`dblink_connect`).
fn has_name(window: &[u8; CHUNK + 3]) -> bool {
    let mut found = 0u8;
    for i in 0..CHUNK {
        let [w, x, y, z] = [window[i], window[i + 1], window[i + 2], window[i + 3]];
        let [a, b, c, d] = [w | FOLD_ONE, x | FOLD_ONE, y | FOLD_ONE, z | FOLD_ONE];
        let hit = (w == b';')
            | ((a == b'u') & (x == b'&'))
            | ((a == b'p') & (b == b'g') & (y == b'_'))
            | ((a == b't') & (((b == b'v') & (c == b'a')) | ((b == b's') & (c == b'e') & (d == b'e'))))
            | ((a == b'r') & (b == b'r') & (c == b'v'))
            | ((a == b'd') & (b == b'b') & (c == b'l'))
            | ((b == b'e') & (((a == b't') & (c == b'm') & (d == b'p')) | ((a == b's') & (c == b't') & (z == b'_'))));
        found |= u8::from(hit);
    }
    // The last bytes begin no name, but may end the statement.
    found |= window[CHUNK..].iter().fold(0, |found, byte| found | u8::from(*byte == b';'));
    found != 0
}

#[cfg(test)]
mod tests {
    use super::super::classify::classify_slowly;
    use super::super::effect::{Context, StatementEffects};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn everyday_statements_are_ordinary_at_first_look() {
        for text in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = 42;",
            "select 'it''s', $$x$$ from t -- done",
            "  UPDATE t SET a = a + $1 WHERE b = E'\\n'  ;  ",
            "INSERT INTO t VALUES ($1, $2) RETURNING id",
            "delete from t",
        ] {
            assert!(ordinary(text.as_bytes()).is_some(), "{text}");
        }
    }

    #[test]
    fn whatever_could_touch_a_session_is_left_to_the_lexer() {
        for text in [
            "SELECT 1; SET a = 1",
            "SELECT PG_ADVISORY_LOCK(1)",
            "SELECT * INTO TEMP t FROM x",
            "SELECT * INTO TeMpOrArY t FROM x",
            "SELECT Set_Config('a', 'b', false)",
            "SELECT U&\"\\0070g_advisory_lock\"(1)",
            "SELECT \"pg_try_advisory_lock\"(1)",
            "SELECT NextVal('s')",
            "SELECT currval('s')",
            "INSERT INTO t VALUES (lastval())",
            "SELECT setseed(1)",
            "SELECT dblink_connect('')",
            "selects",
            "SET x = 1",
            "WITH x AS (SELECT 1) SELECT * FROM x",
        ] {
            assert_eq!(ordinary(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_name_across_a_chunk_border_is_seen() {
        for pad in 0..100 {
            let text = format!("SELECT {}pg_advisory_lock(1)", " ".repeat(pad));
            assert_eq!(ordinary(text.as_bytes()), None, "{pad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        /// A text that the first look lets through is ordinary to the lexer, too, whatever the settings.
        #[test]
        fn the_lexer_agrees(
            head in prop::sample::select(vec!["SELECT ", "insert into ", "UPDATE ", "delete from ", "values ", "SELECT"]),
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "a", " ", "'", "''", "\\", "\"", "$$", "$a$", "--", "\n", "/*", "*/", ";", "(", ")", ",", "1", "E'", "U&'", "u&\"",
                    "pg_", "advisory_lock(", "pg_try_advisory_lock(1)", "set_config('a','b',false)", "temp", "TEMP", "INTO ", "pg_temp.",
                    "from t", "BEGIN ATOMIC", "END", "CASE", "lo_import", "nextval(", "LastVal(", "currval(", "setval(", "setseed(", "\"setseed\"(", "dblink_connect(", "insert", "set_", "pg_settings", "é", "$1", "::", "temporary table x",
                ]),
                0..14,
            ),
            standard_conforming_strings: bool,
        ) {
            let text = head.to_owned() + &parts.concat();
            let context = Context { standard_conforming_strings, ..Context::default() };
            if let Some(head) = ordinary(text.as_bytes()) {
                let class = classify_slowly(text.as_bytes(), context);
                // An unterminated literal is a syntax error for Postgres: nothing of it runs.
                let is_broken = class.may_begin == super::super::StateFlags::UNCERTAIN;
                prop_assert!(is_broken || class == StatementEffects { statements: 1, moves_sequence: head == Head::Insert, ..StatementEffects::default() }, "{:?} {:?}", text, class);
            }
        }
    }
}
