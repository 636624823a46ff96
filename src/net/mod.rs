//! Sockets: accepting, one stream type for TCP, Unix sockets and TLS, and TLS settings; the way to a Redis.

pub(crate) mod certificate;
pub(crate) mod listen;
pub(crate) mod redis;
pub(crate) mod stream;
pub(crate) mod tls;
