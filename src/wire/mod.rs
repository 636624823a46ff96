//! Bytes of the Postgres frontend/backend protocol: frames, the few messages we build, and what is still owed.
//!
//! Nothing here does I/O, knows a config or a pool. Manual: "Frontend/Backend Protocol", chapters "Message Formats" and
//! "Message Flow".

pub mod bind;
pub mod build;
pub mod expected;
pub mod frame;
pub mod message;
pub mod splice;
pub mod startup;
pub mod tag;
