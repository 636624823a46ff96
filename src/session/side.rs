//! One side of a relay: the position in its stream, and the bytes its socket did not take yet.
//!
//! A client has one, and so has its backend while it holds one; the two are driven alike.

use std::io;
use std::task::Context;

use crate::net::stream::Stream;
use crate::wire::frame::Walker;

/// One side of a relay.
#[derive(Debug, Default)]
pub(super) struct Side {
    /// Position in the stream from this side.
    walker: Walker,
    /// The message under way from this side goes to the other side.
    is_forwarding: bool,
    /// Bytes for this side that its socket did not take yet.
    pub(super) buffer: WriteBuffer,
}

impl Side {
    /// The walker, while a read is gone through; it has to be put back.
    #[inline]
    pub(super) fn take_walker(&mut self) -> Walker {
        std::mem::take(&mut self.walker)
    }

    /// Puts the walker back.
    #[inline]
    pub(super) fn put_walker(&mut self, walker: Walker) {
        self.walker = walker;
    }

    /// Sets whether the message under way goes to the other side.
    #[inline]
    pub(super) fn set_forwarding(&mut self, is_forwarding: bool) {
        self.is_forwarding = is_forwarding;
    }

    /// True if the message under way goes to the other side.
    #[inline]
    pub(super) fn is_forwarding(&self) -> bool {
        self.is_forwarding
    }

    /// True if the other side has got a part of a message and waits for the rest.
    #[inline]
    pub(super) fn is_mid_forward(&self) -> bool {
        self.walker.is_inside() && self.is_forwarding
    }

    /// True if a message was begun and passed on or left out, and its end has not come yet.
    pub(super) fn is_inside(&self) -> bool {
        self.walker.is_inside()
    }

    #[inline]
    pub(super) fn is_at_boundary(&self) -> bool {
        self.walker.is_at_boundary()
    }

    /// No message is under way from this side, and no byte waits for it.
    pub(super) fn is_at_rest(&self) -> bool {
        self.walker.is_at_boundary() && self.buffer.is_empty()
    }

    /// Bytes of memory that it takes.
    #[inline]
    pub(super) fn memory(&self) -> usize {
        self.walker.memory() + self.buffer.bytes.capacity()
    }

    /// Frees idle memory.
    #[inline]
    pub(super) fn shrink(&mut self) {
        self.walker.shrink();
    }
}

/// An outgoing queue. Its writer stops reading while it holds anything, so it stays about as long as one read.
#[derive(Debug, Default)]
pub(super) struct WriteBuffer {
    bytes: Vec<u8>,
    sent: usize,
}

/// A larger buffer is freed as soon as it is empty.
const CAPACITY_KEPT: usize = 4096;

impl WriteBuffer {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Number of bytes not taken yet.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// The buffer to append to.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Sends as much as the socket takes.
    #[inline]
    pub(super) fn flush(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> io::Result<()> {
        if self.bytes.is_empty() {
            return stream.flush_records(cx);
        }
        self.sent += stream.poll_write_some(cx, &self.bytes[self.sent..])?;
        if self.sent == self.bytes.len() {
            self.sent = 0;
            if self.bytes.capacity() > CAPACITY_KEPT {
                self.bytes = Vec::new();
            } else {
                self.bytes.clear();
            }
        }
        Ok(())
    }

    /// Sends `bytes` behind those that wait already.
    #[inline]
    pub(super) fn send(&mut self, cx: &mut Context<'_>, stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
        if !self.bytes.is_empty() {
            self.bytes.extend_from_slice(bytes);
            return self.flush(cx, stream);
        }
        let sent = stream.poll_write_some(cx, bytes)?;
        if sent < bytes.len() {
            self.bytes.extend_from_slice(&bytes[sent..]);
        }
        Ok(())
    }
}
