//! Sockets: accepting, one stream type for TCP, Unix sockets and TLS, and TLS settings.

pub mod stream;
