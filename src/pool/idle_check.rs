//! Looks after backends that nobody uses: whether they are still there, and the messages they sent meanwhile.

use std::task::{Context, Poll};

use super::backend::Backend;
use super::pool::Pool;
use crate::wire::build::split_cstring;
use crate::wire::frame::{HEADER_LEN, header};

/// Longer than anything an idle backend has reason to send at once.
const SAID_MAX: usize = 4096;

/// Reads the messages of an idle backend. Only ParameterStatus, a notice or a notification leave it usable; anything
/// else, such as the FATAL of an administrator, an end or half a message, does not (a client must not get it as the
/// answer to its query).
pub(crate) fn is_fit(backend: &mut Backend, pool: &Pool, cx: &mut Context<'_>) -> bool {
    let mut said = [0; SAID_MAX];
    let n = match backend.stream.poll_read_once(cx, &mut said) {
        Poll::Pending => return true,
        Poll::Ready(Ok(n)) if n > 0 && n < SAID_MAX => n,
        Poll::Ready(_) => return false,
    };
    let mut rest = &said[..n];
    let mut changes = Vec::new();
    while !rest.is_empty() {
        let Ok(Some(frame)) = header(rest) else { return false };
        let Some(body) = rest.get(HEADER_LEN..HEADER_LEN + frame.body) else { return false };
        match frame.tag {
            b'A' | b'N' => {}
            b'S' => {
                let Some(change) = parameter(body) else { return false };
                changes.push(change);
            }
            _ => return false,
        }
        rest = &rest[HEADER_LEN + frame.body..];
    }
    if !changes.is_empty() {
        backend.parameters = pool.parameters.share(backend.parameters.with(changes));
    }
    true
}

/// Name and value of a ParameterStatus body.
pub(crate) fn parameter(body: &[u8]) -> Option<(String, String)> {
    let (name, rest) = split_cstring(body)?;
    let (value, _) = split_cstring(rest)?;
    Some((String::from_utf8(name.to_vec()).ok()?, String::from_utf8_lossy(value).into_owned()))
}
