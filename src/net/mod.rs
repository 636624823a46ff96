//! Sockets: accepting, one stream type for TCP, Unix sockets and TLS, and TLS settings.

pub mod certificate;
pub mod listen;
pub mod stream;
pub mod tls;
