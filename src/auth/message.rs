//! The authentication messages of both directions: built, and read with every length checked.

use crate::wire::build::{self, split_cstring};
use crate::wire::tag::{backend, frontend};

/// Longest body of a message during a login, either way. Postgres takes 65,535 bytes; IAM tokens have 2 KiB and more.
pub(crate) const BODY_MAX: usize = 65_535;

/// AuthenticationOk, a whole frame.
pub const AUTHENTICATION_OK: [u8; 9] = [backend::AUTHENTICATION, 0, 0, 0, 8, 0, 0, 0, 0];

/// Codes of AuthenticationXxx.
pub(super) mod code {
    pub(in crate::auth) const OK: u32 = 0;
    pub(in crate::auth) const CLEAR_TEXT: u32 = 3;
    pub(in crate::auth) const MD5: u32 = 5;
    pub(in crate::auth) const SASL: u32 = 10;
    pub(in crate::auth) const SASL_CONTINUE: u32 = 11;
    pub(in crate::auth) const SASL_FINAL: u32 = 12;
}

/// AuthenticationXxx.
pub(super) fn authentication(code: u32, data: &[u8]) -> Vec<u8> {
    frame(backend::AUTHENTICATION, &[&code.to_be_bytes(), data])
}

/// AuthenticationSASL.
pub(super) fn authentication_sasl(mechanisms: &[&str]) -> Vec<u8> {
    let mut list = Vec::new();
    for mechanism in mechanisms.iter().chain(&[""]) {
        build::cstring(&mut list, mechanism.as_bytes());
    }
    authentication(code::SASL, &list)
}

/// PasswordMessage.
pub(super) fn password(text: &str) -> Vec<u8> {
    frame(frontend::PASSWORD, &[text.as_bytes(), &[0]])
}

/// SASLInitialResponse.
pub(super) fn sasl_initial(mechanism: &str, message: &str) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("SCRAM messages are short");
    frame(frontend::PASSWORD, &[mechanism.as_bytes(), &[0], &length.to_be_bytes(), message.as_bytes()])
}

/// SASLResponse.
pub(super) fn sasl_response(message: &str) -> Vec<u8> {
    frame(frontend::PASSWORD, &[message.as_bytes()])
}

fn frame(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut frame = Vec::new();
    build::frame(&mut frame, tag, |body| parts.iter().for_each(|part| body.extend_from_slice(part)));
    frame
}

/// Splits off a big-endian word.
pub(super) fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*word), rest))
}

/// The text of a PasswordMessage: one string and nothing behind it.
pub(super) fn read_password(body: &[u8]) -> Option<&[u8]> {
    split_cstring(body).filter(|(_, rest)| rest.is_empty()).map(|(text, _)| text)
}

/// Mechanism and data of a SASLInitialResponse.
pub(super) fn read_sasl_initial(body: &[u8]) -> Option<(&str, &[u8])> {
    let (mechanism, rest) = split_cstring(body)?;
    let (length, data) = word(rest)?;
    let is_whole = usize::try_from(length) == Ok(data.len());
    is_whole.then_some((std::str::from_utf8(mechanism).ok()?, data))
}
