//! Values for settings in milliseconds, read as Postgres reads them: `parse_int` and `convert_to_base_unit` of `guc.c`,
//! with `strtol` and `strtod` below them.

use super::effect::Value;

/// The outcome of reading a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Milliseconds {
    /// This many milliseconds.
    Known(u32),
    /// Postgres refuses it.
    Refused,
    /// Postgres may take it, and we cannot tell for how much.
    Unread,
}

use Milliseconds::{Known, Refused, Unread};

/// Units from large to small, in milliseconds. Their case matters.
const UNITS: [(&[u8], f64); 6] =
    [(b"d", 86_400_000.0), (b"h", 3_600_000.0), (b"min", 60_000.0), (b"s", 1_000.0), (b"ms", 1.0), (b"us", 0.001)];

/// Reads the value of a setting such as `statement_timeout`.
pub fn milliseconds(value: &Value) -> Milliseconds {
    let raw = match value {
        Value::Default => return Unread,
        Value::Text(text) => return from_text(text),
        Value::Raw(raw) => &raw[..],
    };
    if raw.first().is_some_and(|first| first.is_ascii_digit() || b".+-".contains(first)) {
        return from_number(raw);
    }
    value.plain().map_or(Unread, |text| from_text(&text))
}

/// `NumericOnly` of the grammar. An integer is decimal here, whatever it begins with.
fn from_number(written: &[u8]) -> Milliseconds {
    let digits: Vec<u8> = written.iter().copied().filter(|byte| *byte != b'_').collect();
    let unsigned = digits.strip_prefix(b"+").unwrap_or(&digits);
    if unsigned.iter().all(u8::is_ascii_digit) {
        return integer(unsigned, 10).map_or(Refused, rounded);
    }
    let radix = match unsigned.get(..2).map(<[u8]>::to_ascii_lowercase).as_deref() {
        Some(b"0x") => 16,
        Some(b"0o") => 8,
        Some(b"0b") => 2,
        _ => return from_text(&digits),
    };
    integer(&unsigned[2..], radix).map_or(Refused, rounded)
}

/// A value as a string literal, StartupMessage or `set_config` carries it.
fn from_text(text: &[u8]) -> Milliseconds {
    let text = text.trim_ascii();
    let unsigned = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    let Some((number, unit)) = number(unsigned) else {
        // A fraction in hexadecimal is one for `strtod`.
        let is_hex = unsigned.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"0x"));
        return if is_hex { Unread } else { Refused };
    };
    let number = if text.first() == Some(&b'-') { -number } else { number };
    let unit = unit.trim_ascii_start();
    if unit.is_empty() {
        return rounded(number);
    }
    let Some(at) = UNITS.iter().position(|(name, _)| *name == unit) else { return Refused };
    let value = number * UNITS[at].1;
    // A fraction is rounded to a multiple of the next smaller unit.
    rounded(UNITS.get(at + 1).map_or(value, |(_, smaller)| (value / smaller).round_ties_even() * smaller))
}

/// The number that `text` begins with, and what follows. `None`: there is none, or we cannot read it.
fn number(text: &[u8]) -> Option<(f64, &[u8])> {
    let run = |from: usize, is: fn(&u8) -> bool| text[from..].iter().take_while(|byte| is(byte)).count() + from;
    if text.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"0x")) {
        let end = run(2, u8::is_ascii_hexdigit);
        let is_whole = !matches!(text.get(end), Some(b'.' | b'p' | b'P'));
        return if is_whole { Some((integer(&text[2..end], 16)?, &text[end..])) } else { None };
    }
    // `strtol` takes a number that begins with 0 for octal and stops at the first 8; `strtod` is used only if a
    // fraction or exponent follows.
    let is_octal = text.first() == Some(&b'0');
    let whole = run(0, if is_octal { |byte| (b'0'..=b'7').contains(byte) } else { u8::is_ascii_digit });
    if !matches!(text.get(whole), Some(b'.' | b'e' | b'E')) {
        let radix = if is_octal { 8 } else { 10 };
        return Some((integer(&text[..whole], radix)?, &text[whole..]));
    }
    let mut end = whole;
    if text.get(end) == Some(&b'.') {
        end = run(end + 1, u8::is_ascii_digit);
    }
    if matches!(text.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
        let digits = run(end + 1 + sign, u8::is_ascii_digit);
        if digits > end + 1 + sign {
            end = digits;
        }
    }
    let written = std::str::from_utf8(&text[..end]).ok()?;
    Some((written.parse().ok()?, &text[end..]))
}

fn integer(digits: &[u8], radix: u32) -> Option<f64> {
    let written = std::str::from_utf8(digits).ok().filter(|digits| !digits.is_empty())?;
    // A number that does not fit is far larger than any that Postgres takes.
    Some(u64::from_str_radix(written, radix).map_or(f64::INFINITY, |number| number as f64))
}

fn rounded(value: f64) -> Milliseconds {
    let value = value.round_ties_even();
    if (0.0..=f64::from(i32::MAX)).contains(&value) { Known(value as u32) } else { Refused }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn raw(text: &'static str) -> Milliseconds {
        milliseconds(&Value::Raw(Bytes::from_static(text.as_bytes())))
    }

    fn text(text: &'static str) -> Milliseconds {
        milliseconds(&Value::Text(Bytes::from_static(text.as_bytes())))
    }

    // Postgres itself is asked in `tests/it/timeouts.rs`.
    #[test]
    fn values_are_read_as_postgres_reads_them() {
        for (value, expected) in [
            ("5000", 5000),
            ("0", 0),
            ("5s", 5000),
            (" 5 s ", 5000),
            ("1.5s", 1500),
            ("1.01min", 61_000),
            ("1min", 60_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("400us", 0),
            ("1500us", 2),
            ("010", 8),
            ("0x10", 16),
            ("010.5", 10),
            ("1e3", 1000),
            (".5s", 500),
            ("+7", 7),
            ("-0.4", 0),
            ("2147483647", i32::MAX as u32),
        ] {
            assert_eq!(text(value), Known(expected), "{value:?}");
        }
        for value in ["", "abc", "5 parsecs", "5S", "-1", "09", "2147483648", "30d", "5e", "1_000", "s", "5s s"] {
            assert_eq!(text(value), Refused, "{value:?}");
        }
        assert_eq!(text("0x1.8"), Unread);
    }

    #[test]
    fn numbers_of_the_grammar_are_decimal() {
        for (value, expected) in [
            ("5000", 5000),
            ("010", 10),
            ("+7", 7),
            ("1.5", 2),
            ("1e3", 1000),
            ("'5s'", 5000),
            ("E'5\\x73'", 5000),
            ("$$5s$$", 5000),
            ("\"5s\"", 5000),
            ("60_000", 60_000),
            ("0b101", 5),
        ] {
            assert_eq!(raw(value), Known(expected), "{value}");
        }
        assert_eq!((raw("-1"), raw("on"), raw("U&'5s'")), (Refused, Refused, Unread));
    }
}
