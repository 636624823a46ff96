//! The messages of a client, read as far as anything depends on them.
//!
//! [`Message::request`] is the one place that knows a message by its type byte: all code that serves a client, with a
//! backend or without, works on a [`Request`]. Manual: "Message Formats".

use thiserror::Error;

use super::build::split_cstring;
use super::frame::HEADER_LEN;
use super::tag::{self, frontend};

/// One message, or the head of a long one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    /// Message type byte.
    pub tag: u8,
    /// Length of the body.
    pub body: usize,
    /// Header and as much of the body as is here.
    pub bytes: &'a [u8],
    /// Number of bytes that belong to the current read.
    pub fresh: usize,
}

/// The request in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// Query.
    Query {
        /// `None`: too long to be read whole.
        text: Option<&'a [u8]>,
    },
    /// Parse.
    Parse {
        /// Empty for the unnamed statement.
        name: &'a [u8],
        /// The body behind the name: text and parameter types.
        rest: &'a [u8],
        /// `None`: too long to be read whole.
        text: Option<&'a [u8]>,
    },
    /// Bind.
    Bind {
        /// Empty for the unnamed portal.
        portal: &'a [u8],
        /// Empty for the unnamed statement.
        statement: &'a [u8],
    },
    /// Describe.
    Describe(Named<'a>),
    /// Execute.
    Execute {
        /// Empty for the unnamed portal.
        portal: &'a [u8],
    },
    /// Close.
    Close(Named<'a>),
    /// Sync.
    Sync,
    /// Flush.
    Flush,
    /// FunctionCall.
    FunctionCall {
        /// Object id of the function.
        function: u32,
    },
    /// CopyData.
    CopyData,
    /// CopyDone or CopyFail.
    CopyEnd,
}

/// The object that Describe and Close name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named<'a> {
    Statement(&'a [u8]),
    Portal(&'a [u8]),
}

/// A message that no client of the protocol sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum MessageError {
    /// Its type byte is unknown.
    #[error("invalid frontend message type {0}")]
    Type(u8),
    /// The body is not that of a message of this name.
    #[error("invalid {0} message")]
    Malformed(&'static str),
}

impl<'a> Message<'a> {
    /// The body, as much of it as is here.
    #[inline]
    pub(crate) fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_LEN..]
    }

    /// True if the whole body is here.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        self.bytes.len() == HEADER_LEN + self.body
    }

    /// Reads the request. Terminate, which asks for nothing, is an unknown type here.
    #[inline]
    pub(crate) fn request(&self) -> Result<Request<'a>, MessageError> {
        Ok(match self.tag {
            frontend::QUERY => Request::Query { text: self.payload().strip_suffix(b"\0").filter(|_| self.is_whole()) },
            frontend::PARSE => {
                let (name, rest) = split_cstring(self.payload()).ok_or(MessageError::Malformed("Parse"))?;
                let text = split_cstring(rest).map(|(text, _)| text).filter(|_| self.is_whole());
                Request::Parse { name, rest, text }
            }
            frontend::BIND => {
                let (portal, rest) = split_cstring(self.payload()).ok_or(MessageError::Malformed("Bind"))?;
                let (statement, _) = split_cstring(rest).ok_or(MessageError::Malformed("Bind"))?;
                Request::Bind { portal, statement }
            }
            frontend::DESCRIBE => Request::Describe(self.target().ok_or(MessageError::Malformed("Describe"))?),
            frontend::EXECUTE => {
                let (portal, _) = split_cstring(self.payload()).ok_or(MessageError::Malformed("Execute"))?;
                Request::Execute { portal }
            }
            frontend::CLOSE => Request::Close(self.target().ok_or(MessageError::Malformed("Close"))?),
            frontend::SYNC => Request::Sync,
            frontend::FLUSH => Request::Flush,
            frontend::FUNCTION_CALL => {
                let function = self.payload().first_chunk().ok_or(MessageError::Malformed("FunctionCall"))?;
                Request::FunctionCall { function: u32::from_be_bytes(*function) }
            }
            frontend::COPY_DATA => Request::CopyData,
            frontend::COPY_DONE | frontend::COPY_FAIL => Request::CopyEnd,
            other => return Err(MessageError::Type(other)),
        })
    }

    fn target(&self) -> Option<Named<'a>> {
        let (&kind, rest) = self.payload().split_first()?;
        let (name, _) = split_cstring(rest)?;
        match kind {
            tag::STATEMENT => Some(Named::Statement(name)),
            tag::PORTAL => Some(Named::Portal(name)),
            _ => None,
        }
    }
}

/// True if a message of this type is a cycle of its own: ReadyForQuery follows it even after an error, without a Sync.
pub(crate) fn is_cycle(tag: u8) -> bool {
    matches!(tag, frontend::QUERY | frontend::FUNCTION_CALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(bytes: &[u8], body: usize) -> Result<Request<'_>, MessageError> {
        Message { tag: bytes[0], body, bytes, fresh: bytes.len() }.request()
    }

    fn whole(bytes: &[u8]) -> Result<Request<'_>, MessageError> {
        request(bytes, bytes.len() - HEADER_LEN)
    }

    #[test]
    fn names_and_texts_are_found() {
        assert_eq!(whole(b"Q....SELECT 1\0"), Ok(Request::Query { text: Some(b"SELECT 1") }));
        let parse = Request::Parse { name: b"a", rest: b"SELECT 1\0\0\0", text: Some(b"SELECT 1") };
        assert_eq!(whole(b"P....a\0SELECT 1\0\0\0"), Ok(parse));
        assert_eq!(whole(b"B....p\0s\0\0\0\0\0\0\0"), Ok(Request::Bind { portal: b"p", statement: b"s" }));
        assert_eq!(whole(b"C....Sa\0"), Ok(Request::Close(Named::Statement(b"a"))));
        assert_eq!(whole(b"D....P\0"), Ok(Request::Describe(Named::Portal(b""))));
        assert_eq!(whole(b"F....\0\0\x01\x02"), Ok(Request::FunctionCall { function: 258 }));
    }

    #[test]
    fn the_head_of_a_long_message_has_no_text() {
        assert_eq!(request(b"Q....SELECT ", 100), Ok(Request::Query { text: None }));
        assert_eq!(request(b"P....\0SELECT ", 100), Ok(Request::Parse { name: b"", rest: b"SELECT ", text: None }));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (bytes, name) in
            [(&b"P....a"[..], "Parse"), (b"B....\0a", "Bind"), (b"D....Xa\0", "Describe"), (b"C....S", "Close")]
        {
            assert_eq!(whole(bytes), Err(MessageError::Malformed(name)));
        }
        assert_eq!(whole(b"!...."), Err(MessageError::Type(b'!')));
    }
}
