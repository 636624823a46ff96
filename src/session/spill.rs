//! Bytes that a socket did not take yet.

use std::io;
use std::task::Context;

use crate::net::stream::Stream;

/// An outgoing queue. While it holds anything, whoever feeds it stops reading, so it stays about as long as one read.
#[derive(Debug, Default)]
pub struct Spill {
    bytes: Vec<u8>,
    sent: usize,
}

/// A larger buffer is given back as soon as it is empty.
const CAPACITY_KEPT: usize = 4096;

impl Spill {
    /// Everything was taken.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes not taken yet.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// The buffer to append to.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Sends as much as the socket takes.
    #[inline]
    pub fn flush(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> io::Result<()> {
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
    pub fn send(&mut self, cx: &mut Context<'_>, stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
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

    /// Forgets everything and gives the memory back.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
