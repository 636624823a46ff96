//! The values in a Bind.
//!
//! Manual: "Bind". Text has the same bytes in the text and in the binary format, so the formats are skipped.

use super::build::split_cstring;

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

    proptest! {
        #[test]
        fn any_bytes_are_taken(body: Vec<u8>, number: u16) {
            value(&body, number);
        }
    }
}
