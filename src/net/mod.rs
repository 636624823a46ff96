//! Sockets: accepting, one stream type for TCP, Unix sockets and TLS, and TLS settings.

pub(crate) mod certificate;
pub(crate) mod listen;
pub(crate) mod stream;
pub(crate) mod tls;
