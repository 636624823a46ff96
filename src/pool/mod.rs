//! Pools: the pure core that decides which client gets which backend, the backends themselves, and how they are opened
//! and looked after.
//!
//! Pools never know sessions: a waiter is a ticket, not a client.

pub(crate) mod address;
pub(crate) mod backend;
pub(crate) mod backend_registry;
pub(crate) mod backoff;
pub(crate) mod clock;
pub(crate) mod confirmed;
pub(crate) mod control_connections;
pub(crate) mod core;
pub(crate) mod directory;
pub(crate) mod host_port;
pub(crate) mod idle_check;
pub(crate) mod in_use;
pub(crate) mod lease;
pub(crate) mod link;
pub(crate) mod names;
pub(crate) mod open;
pub(crate) mod passwords;
#[expect(clippy::module_inception, reason = "a pool is what this module is about")]
pub(crate) mod pool;
pub(crate) mod proof;
pub(crate) mod route;
pub(crate) mod server_role;
