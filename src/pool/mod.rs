//! Who gets which backend: the pure core, the backends themselves, and how they are opened and looked after.
//!
//! Pools never know sessions: a waiter is a ticket, not a client.

pub mod address;
pub mod backend;
pub mod backoff;
pub mod clock;
pub mod core;
pub mod directory;
pub mod in_use;
pub mod keep;
pub mod lease;
pub mod link;
pub mod links;
pub(crate) mod names;
pub mod open;
#[expect(clippy::module_inception, reason = "a pool is what this module is about")]
pub mod pool;
pub mod roster;
pub mod standing;
