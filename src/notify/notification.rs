//! One notification, and the one frame of it that all its listeners share.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::sql::{CHANNEL_MAX, PAYLOAD_MAX};
use crate::wire::build::split_cstring;
use crate::wire::frame::HEADER_LEN;

/// A channel and a payload, in the encoding of the server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Notification {
    /// Channel it was sent on.
    pub channel: Bytes,
    /// Text sent with it; may be empty.
    pub payload: Bytes,
}

/// Reasons why Postgres refuses a notification, in the words of `Async_Notify`; all are SQLSTATE 22023.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RefusedNotification {
    /// The channel is empty: nobody could listen to it.
    #[error("channel name cannot be empty")]
    NoChannel,
    /// The channel is longer than a name may be.
    #[error("channel name too long")]
    ChannelTooLong,
    /// The payload is longer than an entry of the server's queue may be.
    #[error("payload string too long")]
    PayloadTooLong,
}

/// Reasons why a notification that a Bind gave to `pg_notify` cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Unnotifiable {
    /// Postgres would refuse it, too.
    #[error(transparent)]
    Refused(#[from] RefusedNotification),
    /// Its statement was prepared while client and server had one encoding, and they no longer have.
    #[error("a notification that is not ASCII cannot be converted from client_encoding to that of the server")]
    Untranslatable,
}

impl Notification {
    /// Checks the limits of Postgres, in the order in which it checks them.
    pub fn new(channel: impl Into<Bytes>, payload: impl Into<Bytes>) -> Result<Self, RefusedNotification> {
        let (channel, payload) = (channel.into(), payload.into());
        match () {
            () if channel.is_empty() => Err(RefusedNotification::NoChannel),
            () if channel.len() > CHANNEL_MAX => Err(RefusedNotification::ChannelTooLong),
            () if payload.len() > PAYLOAD_MAX => Err(RefusedNotification::PayloadTooLong),
            () => Ok(Self { channel, payload }),
        }
    }

    /// It reads the same in every encoding.
    pub fn is_ascii(&self) -> bool {
        self.channel.is_ascii() && self.payload.is_ascii()
    }

    /// Bytes of both texts.
    pub fn len(&self) -> usize {
        self.channel.len() + self.payload.len()
    }

    /// Never: it has a channel.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// A whole NotificationResponse: built once, shared by all its listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    bytes: Bytes,
    is_ascii: bool,
}

impl Frame {
    /// Of a notification by the client, or the server's own backend, with this process id.
    pub(crate) fn new(pid: i32, notification: &Notification) -> Self {
        let Notification { channel, payload } = notification;
        let length = HEADER_LEN - 1 + size_of_val(&pid) + channel.len() + 1 + payload.len() + 1;
        let mut bytes = BytesMut::with_capacity(1 + length);
        bytes.extend_from_slice(b"A");
        bytes.extend_from_slice(&u32::try_from(length).expect("channel and payload are short").to_be_bytes());
        bytes.extend_from_slice(&pid.to_be_bytes());
        for text in [channel, payload] {
            bytes.extend_from_slice(text);
            bytes.extend_from_slice(b"\0");
        }
        Self { bytes: bytes.freeze(), is_ascii: notification.is_ascii() }
    }

    /// The message as it goes to clients.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The channel it is of.
    pub(crate) fn channel(&self) -> &[u8] {
        let texts = &self.bytes[HEADER_LEN + size_of::<i32>()..];
        split_cstring(texts).map_or(&[], |(channel, _)| channel)
    }

    /// It reads the same in every encoding.
    pub(crate) fn is_ascii(&self) -> bool {
        self.is_ascii
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_postgres() {
        let new = |channel: usize, payload: usize| Notification::new(vec![b'c'; channel], vec![b'p'; payload]).err();
        assert_eq!(new(1, 0), None);
        assert_eq!(new(63, 7999), None);
        assert_eq!(new(0, 8000), Some(RefusedNotification::NoChannel));
        assert_eq!(new(64, 8000), Some(RefusedNotification::ChannelTooLong));
        assert_eq!(new(63, 8000), Some(RefusedNotification::PayloadTooLong));
    }

    #[test]
    fn a_frame_is_what_postgres_would_send() {
        let frame = Frame::new(0x0102_0304, &Notification::new("jobs", "42").expect("short"));
        assert_eq!(frame.bytes(), b"A\0\0\0\x10\x01\x02\x03\x04jobs\x0042\0");
        assert_eq!(frame.channel(), b"jobs");
        assert!(frame.is_ascii());
        assert!(!Frame::new(1, &Notification::new("jobs", "é").expect("short")).is_ascii());
    }
}
