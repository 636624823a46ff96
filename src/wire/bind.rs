//! The values in a Bind.
//!
//! Manual: "Bind". Text has the same bytes in the text and in the binary format, so the formats are skipped.

use super::build::{self, split_cstring};
use super::tag::frontend;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BindValue<'a> {
    /// NULL.
    Null,
    Whole(&'a [u8]),
    /// The value is longer than the part of the message that is here.
    Cut,
}

/// The value of parameter `number`, counted from 1. `body` may be the head of a longer one. `None`: there is no such
/// value, or the body is malformed.
pub(crate) fn value(body: &[u8], number: u16) -> Option<BindValue<'_>> {
    let (_portal, rest) = split_cstring(body)?;
    let (_statement, rest) = split_cstring(rest)?;
    let (formats, rest) = count(rest)?;
    let (values, mut rest) = count(rest.get(2 * usize::from(formats)..)?)?;
    if number == 0 || number > values {
        return None;
    }
    for at in 1..=number {
        let Some((length, behind)) = rest.split_first_chunk() else { return Some(BindValue::Cut) };
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            rest = behind;
            if at == number {
                return Some(BindValue::Null);
            }
            continue;
        };
        let Some((value, behind)) = behind.split_at_checked(length) else { return Some(BindValue::Cut) };
        if at == number {
            return Some(BindValue::Whole(value));
        }
        rest = behind;
    }
    None
}

/// How many formats of parameters and how many values it has.
pub(crate) fn counts(body: &[u8]) -> Option<(u16, u16)> {
    let (_portal, rest) = split_cstring(body)?;
    let (_statement, rest) = split_cstring(rest)?;
    let (formats, rest) = count(rest)?;
    let (values, _) = count(rest.get(2 * usize::from(formats)..)?)?;
    Some((formats, values))
}

/// The integer that is the value of parameter `number`, as text or in four bytes.
pub(crate) fn integer(body: &[u8], number: u16) -> Option<i32> {
    let BindValue::Whole(value) = value(body, number)? else { return None };
    match is_binary(body, number)? {
        true => value.try_into().ok().map(i32::from_be_bytes),
        false => std::str::from_utf8(value).ok()?.trim().parse().ok(),
    }
}

/// A whole Bind with this integer as the value of parameter `number`, in the format that it has.
pub(crate) fn with_integer(body: &[u8], number: u16, integer: i32) -> Option<Vec<u8>> {
    let BindValue::Whole(old) = value(body, number)? else { return None };
    let new = match is_binary(body, number)? {
        true => integer.to_be_bytes().to_vec(),
        false => integer.to_string().into_bytes(),
    };
    let start = old.as_ptr().addr() - body.as_ptr().addr();
    let length = i32::try_from(new.len()).ok()?.to_be_bytes();
    let mut bind = Vec::with_capacity(body.len() + 16);
    build::frame(&mut bind, frontend::BIND, |out| {
        out.extend_from_slice(&body[..start - length.len()]);
        out.extend_from_slice(&length);
        out.extend_from_slice(&new);
        out.extend_from_slice(&body[start + old.len()..]);
    });
    Some(bind)
}

/// No format is text, one is that of all parameters.
fn is_binary(body: &[u8], number: u16) -> Option<bool> {
    let (_portal, rest) = split_cstring(body)?;
    let (_statement, rest) = split_cstring(rest)?;
    let (formats, rest) = count(rest)?;
    let at = match formats {
        0 => return Some(false),
        1 => 0,
        _ => usize::from(number.checked_sub(1)?),
    };
    let formats = rest.get(..2 * usize::from(formats))?;
    formats.get(2 * at..2 * at + 2).map(|format| format == [0, 1])
}

fn count(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (count, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*count), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Portal `p`, statement `s`, one format for all, and a result format behind the values.
    const BODY: &[u8] = b"p\0s\0\0\x01\0\x01\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0\0\x01\0\0";

    #[test]
    fn values_are_found_by_their_number() {
        assert_eq!(value(BODY, 1), Some(BindValue::Whole(b"ab")));
        assert_eq!(value(BODY, 2), Some(BindValue::Null));
        assert_eq!(value(BODY, 3), Some(BindValue::Whole(b"")));
        assert_eq!((value(BODY, 0), value(BODY, 4)), (None, None));
    }

    #[test]
    fn the_head_of_a_message_has_its_first_values() {
        assert_eq!(value(&BODY[..16], 1), Some(BindValue::Whole(b"ab")));
        assert_eq!(value(&BODY[..15], 1), Some(BindValue::Cut));
        assert_eq!(value(&BODY[..16], 2), Some(BindValue::Cut));
        assert_eq!(value(&BODY[..5], 1), None);
    }

    #[test]
    fn an_integer_is_read_and_replaced_in_its_format() {
        let text = b"\0s\0\0\0\0\x02\0\0\0\x017\0\0\0\x02ab\0\0";
        assert_eq!(integer(text, 1), Some(7));
        let replaced = with_integer(text, 1, 4711).unwrap();
        assert_eq!(&replaced[5..], b"\0s\0\0\0\0\x02\0\0\0\x044711\0\0\0\x02ab\0\0");
        assert_eq!(usize::from(replaced[4]), replaced.len() - 1);
        let binary = b"\0s\0\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x07\0\0";
        assert_eq!(integer(binary, 1), Some(7));
        let replaced = with_integer(binary, 1, 258).unwrap();
        assert_eq!(&replaced[5..], b"\0s\0\0\x01\0\x01\0\x01\0\0\0\x04\0\0\x01\x02\0\0");
        assert_eq!((integer(text, 2), integer(text, 3)), (None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(body: Vec<u8>, number: u16) {
            value(&body, number);
            integer(&body, number);
            with_integer(&body, number, 1);
        }
    }
}
