//! Bytes of the Postgres frontend/backend protocol: frames, the few messages we build, and what is still owed.
//!
//! Nothing here does I/O, knows a config or a pool. Manual: "Frontend/Backend Protocol", chapters "Message Formats" and
//! "Message Flow".

pub(crate) mod bind;
pub(crate) mod build;
pub(crate) mod cancel_key;
pub(crate) mod expected;
pub(crate) mod frame;
pub(crate) mod message;
pub(crate) mod peer;
pub(crate) mod proxy_header;
pub(crate) mod splice;
pub(crate) mod startup;
pub(crate) mod tag;
