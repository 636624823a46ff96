//! A first hash that spares most statements the digest.
//!
//! Texts with the same fingerprint have the same digest: they are the same but for the numbers and plain literals in
//! them. So a digest found once is found again at about three instructions a byte, where the lexer takes twenty.
//! Texts with comments, dollar quotes or backslashes have none, since only the lexer knows where their literals end.

use memchr::memchr;

use super::effect::Context;
use super::encoding::EncodingFamily;
use super::lex::CONTINUES;

/// Odd, with bits set all over: the multiplier of the fold.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Stand for a number, a literal and the end, beside a length: as bytes of a text they would have zeros, which no text
/// has.
const NUMBER: u64 = 1;
const LITERAL: u64 = 2;
const END: u64 = 3;

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The fingerprint of `text`; `None`: it has none. `seed` is of the process, so that nobody can find texts that clash.
#[inline]
pub(crate) fn fingerprint(text: &[u8], context: Context, seed: u64) -> Option<u64> {
    let reads_plainly = context.standard_conforming_strings && context.encoding == EncodingFamily::AsciiSafe;
    if !reads_plainly || has_rarities(text) {
        return None;
    }
    let mut hash = mix(seed, text.is_empty().into());
    let mut at = 0;
    while let Some(chunk) = text[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        match special(word) {
            0 => {
                hash = mix(hash, word);
                at += 8;
            }
            found => (hash, at) = beyond(text, at, (found.trailing_zeros() / 8) as usize, hash)?,
        }
    }
    while at < text.len() {
        let rest = &text[at..];
        let mut last = [0; 8];
        last[..rest.len().min(8)].copy_from_slice(&rest[..rest.len().min(8)]);
        let word = u64::from_le_bytes(last);
        match special(word) {
            0 if rest.len() < 8 => return Some(mix(mix(hash, word), (rest.len() as u64) << 8 | END)),
            0 => {
                hash = mix(hash, word);
                at += 8;
            }
            found => (hash, at) = beyond(text, at, (found.trailing_zeros() / 8) as usize, hash)?,
        }
    }
    Some(hash)
}

/// The high bits of the bytes that are digits or quotes; the first of them is exact.
#[inline]
fn special(word: u64) -> u64 {
    let is_zero = |word: u64| word.wrapping_sub(LOW) & !word & HIGH;
    let digits = {
        // 0 to 9 once the digits' high half is taken off.
        let value = word ^ (LOW * 0x30);
        !((value & !HIGH).wrapping_add(LOW * (0x80 - 10)) | value) & HIGH
    };
    digits | is_zero(word ^ (LOW * u64::from(b'\''))) | is_zero(word ^ (LOW * u64::from(b'"')))
}

/// Goes on behind the number, literal or name that the byte at `at + found` begins or is in.
#[inline]
fn beyond(text: &[u8], at: usize, found: usize, hash: u64) -> Option<(u64, usize)> {
    let here = at + found;
    let is_in_word = here > 0 && CONTINUES[text[here - 1] as usize];
    let (raw_end, next, mark) = match text[here] {
        b'\'' if is_in_word => return None,
        b'\'' => (here, literal_end(text, here + 1)?, LITERAL),
        b'"' => {
            let end = here + 2 + memchr(b'"', &text[here + 1..])?;
            (end, end, 0)
        }
        _ if is_in_word => {
            let end = run(text, here, |byte| CONTINUES[byte as usize]);
            (end, end, 0)
        }
        _ => (here, run(text, here, |byte| byte.is_ascii_digit()), NUMBER),
    };
    let mut hash = hash;
    let mut raw = &text[at..raw_end];
    while let Some((chunk, rest)) = raw.split_first_chunk::<8>() {
        hash = mix(hash, u64::from_le_bytes(*chunk));
        raw = rest;
    }
    let tail = raw.iter().fold(0u64, |tail, byte| tail << 8 | u64::from(*byte));
    // Its length tells it from what goes on behind it.
    Some((mix(mix(hash, tail), (raw.len() as u64) << 8 | mark), next))
}

/// Behind the literal whose content begins at `at`.
#[inline]
fn literal_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr(b'\'', text.get(at..)?)? + 1;
        if text.get(at) != Some(&b'\'') {
            return Some(at);
        }
        at += 1;
    }
}

#[inline]
fn run(text: &[u8], at: usize, wanted: impl Fn(u8) -> bool) -> usize {
    text[at..].iter().position(|byte| !wanted(*byte)).map_or(text.len(), |length| at + length)
}

#[inline]
fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * u128::from(MIX);
    // A product of zero would forget all that was before.
    ((product as u64) ^ (product >> 64) as u64).wrapping_add(MIX)
}

/// Bytes looked at together.
const CHUNK: usize = 32;

/// True for `--`, `/*`, a backslash, or a dollar sign that no digit follows, anywhere. Written so that the compiler
/// turns it into vector instructions.
#[inline]
fn has_rarities(mut text: &[u8]) -> bool {
    while let Some(window) = text.first_chunk::<{ CHUNK + 1 }>() {
        if is_rare(window) {
            return true;
        }
        text = &text[CHUNK..];
    }
    let mut last = [b' '; CHUNK + 1];
    last[..text.len()].copy_from_slice(text);
    is_rare(&last)
}

#[inline]
fn is_rare(window: &[u8; CHUNK + 1]) -> bool {
    let mut found = 0u8;
    for i in 0..CHUNK {
        let [x, y] = [window[i], window[i + 1]];
        let hit = ((x == b'-') & (y == b'-'))
            | ((x == b'/') & (y == b'*'))
            | (x == b'\\')
            | ((x == b'$') & (y.wrapping_sub(b'0') > 9));
        found |= u8::from(hit);
    }
    found != 0
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::classify::{classify_slowly, is_plain};
    use super::super::digest::digests;
    use super::*;

    const SEED: u64 = 42;

    fn print(text: &str) -> Option<u64> {
        fingerprint(text.as_bytes(), Context::default(), SEED)
    }

    #[test]
    fn texts_that_differ_in_numbers_and_literals_share_one() {
        for (one, other) in [
            (
                "SELECT abalance FROM pgbench_accounts WHERE aid = 42;",
                "SELECT abalance FROM pgbench_accounts WHERE aid = 1234567;",
            ),
            ("SELECT 'a', t1 FROM t", "SELECT 'it''s longer; by far', t1 FROM t"),
            ("SELECT 'a'", "SELECT ''"),
        ] {
            assert!(print(one).is_some());
            assert_eq!(print(one), print(other), "{one}");
        }
    }

    #[test]
    fn texts_that_differ_otherwise_do_not() {
        for (one, other) in [
            ("SELECT t1", "SELECT t2"),
            ("SELECT \"1\"", "SELECT \"2\""),
            ("SELECT $1", "SELECT $2"),
            ("SELECT a1b2c3d4e5f6", "SELECT a1b2c3d4e5f7"),
            ("", " "),
        ] {
            assert_ne!(print(one), print(other), "{one}");
        }
    }

    #[test]
    fn texts_whose_literals_only_the_lexer_finds_have_none() {
        for text in ["SELECT 1 -- a", "SELECT /* a */ 1", "SELECT $$a$$", "SELECT E'\\''", "SELECT n'a'", "SELECT 'a"] {
            assert_eq!(print(text), None, "{text}");
        }
        let context = Context { standard_conforming_strings: false, ..Context::default() };
        assert_eq!(fingerprint(b"SELECT 1", context, SEED), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]
        /// Where the fingerprints are equal, the digests are; and if one text is plain, both are ordinary.
        #[test]
        fn texts_with_one_fingerprint_have_one_digest(
            texts in prop::collection::vec(prop::collection::vec(
                prop::sample::select(vec![
                    "a", "b", " ", "'", "''", "\"", "$1", "$2", "-", "(", ")", ",", "1", "22", "3.5", "e5", ".", "é", "IN (", "VALUES (",
                    "select ", "SELECT ", "12345678", "abcdefgh", ";", "pg_", "set_config('a','b',false)",
                    "nextval('s')", "temp ", "FROM t",
                ]),
                0..7,
            ), 2..40),
        ) {
            let mut known = HashMap::new();
            for text in texts {
                let text = text.concat();
                let Some(print) = print(&text) else { continue };
                let digests = digests(text.as_bytes(), Context::default());
                let (before, other) = known.entry(print).or_insert_with(|| (digests.clone(), text.clone()));
                prop_assert_eq!(&*before, &digests, "{:?} {:?}", other, text);
                if is_plain(other.as_bytes(), Context::default()) {
                    let class = classify_slowly(text.as_bytes(), Context::default());
                    prop_assert!(class.is_ordinary() && class.statements == 1, "{:?} {:?}", other, text);
                }
            }
        }
    }
}
