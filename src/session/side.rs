//! One side of a relay: how far what it sends has come, and what its socket did not take yet.
//!
//! A client has one, and so has its backend while it holds one; the two are driven alike.

use std::io;
use std::task::Context;

use crate::net::stream::Stream;
use crate::wire::frame::Walker;

/// One side of a relay.
#[derive(Debug, Default)]
pub(super) struct Side {
    /// Position in what it sends.
    walker: Walker,
    /// The message of it under way goes to the other side.
    is_forwarding: bool,
    /// Bytes for it that its socket did not take yet.
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

    /// The message under way goes to the other side, or does not.
    #[inline]
    pub(super) fn set_forwarding(&mut self, is_forwarding: bool) {
        self.is_forwarding = is_forwarding;
    }

    /// The message under way goes to the other side.
    #[inline]
    pub(super) fn is_forwarding(&self) -> bool {
        self.is_forwarding
    }

    /// The other side has got a part of a message and waits for the rest.
    #[inline]
    pub(super) fn is_mid_forward(&self) -> bool {
        self.walker.is_inside() && self.is_forwarding
    }

    #[inline]
    pub(super) fn is_at_boundary(&self) -> bool {
        self.walker.is_at_boundary()
    }

    /// Gives idle memory back.
    #[inline]
    pub(super) fn shrink(&mut self) {
        self.walker.shrink();
    }
}

/// An outgoing queue. While it holds anything, whoever feeds it stops reading, so it stays about as long as one read.
#[derive(Debug, Default)]
pub(super) struct WriteBuffer {
    bytes: Vec<u8>,
    sent: usize,
}

/// A larger buffer is given back as soon as it is empty.
const CAPACITY_KEPT: usize = 4096;

impl WriteBuffer {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes not taken yet.
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

    /// Sends `bytes` behind what waits already.
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
