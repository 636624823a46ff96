//! The grammar of SCRAM messages: `name=value` separated by commas.

use super::{NONCE_MAX, ScramError};

/// A message, read from the front.
pub(super) struct Attributes<'a> {
    /// The rest of the message; `None` when the last value was taken.
    rest: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(message: &'a str) -> Self {
        Self { rest: Some(message) }
    }

    /// The next attribute, whatever its name.
    pub(super) fn any(&mut self) -> Result<(char, &'a str), ScramError> {
        let rest = self.rest.ok_or(ScramError::Malformed("it ends too early"))?;
        let (attribute, rest) = match rest.split_once(',') {
            Some((attribute, rest)) => (attribute, Some(rest)),
            None => (rest, None),
        };
        self.rest = rest;
        let mut chars = attribute.chars();
        match (chars.next(), chars.next()) {
            (Some('m'), Some('=')) => Err(ScramError::Extension),
            (Some(name), Some('=')) if name.is_ascii_alphabetic() => Ok((name, chars.as_str())),
            _ => Err(ScramError::Malformed("attribute expected")),
        }
    }

    /// The next attribute, which must have this name.
    pub(super) fn take(&mut self, name: char) -> Result<&'a str, ScramError> {
        match self.any()? {
            (found, value) if found == name => Ok(value),
            _ => Err(ScramError::Malformed("another attribute expected")),
        }
    }

    /// The next attribute, which must be the nonce: printable ASCII.
    pub(super) fn nonce(&mut self) -> Result<&'a str, ScramError> {
        let nonce = self.take('r')?;
        let is_printable = nonce.bytes().all(|b| b.is_ascii_graphic());
        if !is_printable || !(1..=NONCE_MAX).contains(&nonce.len()) {
            return Err(ScramError::Malformed("nonce"));
        }
        Ok(nonce)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_none()
    }

    pub(super) fn end(&self) -> Result<(), ScramError> {
        if self.is_at_end() { Ok(()) } else { Err(ScramError::Malformed("something follows its end")) }
    }
}

/// SCRAM messages are UTF-8 without NUL.
pub(super) fn utf8(message: &[u8]) -> Result<&str, ScramError> {
    std::str::from_utf8(message).ok().filter(|text| !text.contains('\0')).ok_or(ScramError::Malformed("not text"))
}
