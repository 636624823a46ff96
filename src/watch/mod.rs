//! What goes on at the server besides what pgweir itself has it do: lock convoys, and what keeps vacuum from its work.
//!
//! [`sql`] is what is asked. What comes back is judged by cores without I/O and without a clock: each takes what one look saw and says what
//! has begun and what has ended since. They change nothing and end nobody; they name who should be ended, and how.

pub mod activity;
pub mod blockers;
pub mod convoy;
pub mod core;
pub mod culprit;
pub mod detectors;
pub mod finding;
pub mod incidents;
pub mod lock_watch;
pub mod locks;
pub mod monitor;
pub mod own_backends;
pub mod question;
pub mod reaction;
pub mod row;
pub mod server;
pub mod settings;
pub mod sql;
pub mod stats;
pub mod watches;
pub mod xid_clock;
