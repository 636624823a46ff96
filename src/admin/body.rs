//! Reads the bodies of messages from a client. Any bytes give a value or a fault, never a panic.

use bytes::{Buf, Bytes};

use crate::error::ConsoleFault;

/// The rest of a message's body.
pub(super) struct Body {
    tag: u8,
    rest: Bytes,
}

impl Body {
    /// Of a message with this tag.
    pub(super) fn new(tag: u8, rest: Bytes) -> Self {
        Self { tag, rest }
    }

    pub(super) fn name(&mut self) -> Result<Bytes, ConsoleFault> {
        let end = memchr::memchr(0, &self.rest).ok_or_else(|| self.malformed())?;
        let name = self.rest.split_to(end);
        self.rest.advance(1);
        Ok(name)
    }

    /// A string as text.
    pub(super) fn text(&mut self) -> Result<String, ConsoleFault> {
        Ok(lossy(&self.name()?))
    }

    pub(super) fn byte(&mut self) -> Result<u8, ConsoleFault> {
        self.rest.try_get_u8().map_err(|_| self.malformed())
    }

    pub(super) fn number(&mut self) -> Result<i16, ConsoleFault> {
        self.rest.try_get_i16().map_err(|_| self.malformed())
    }

    /// A count, and as many numbers.
    pub(super) fn numbers(&mut self) -> Result<Vec<i16>, ConsoleFault> {
        (0..self.number()?).map(|_| self.number()).collect()
    }

    /// A limit; what is negative means none, as in Postgres.
    pub(super) fn long(&mut self) -> Result<usize, ConsoleFault> {
        let number = self.rest.try_get_i32().map_err(|_| self.malformed())?;
        Ok(usize::try_from(number).unwrap_or(0))
    }

    fn malformed(&self) -> ConsoleFault {
        ConsoleFault::Message(self.tag.into())
    }
}

/// Bytes as text; they may be anything.
pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
