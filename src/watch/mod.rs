//! The watch: looks at each server for harm that comes from outside pgweir too, as lock convoys and old snapshots.
//!
//! The core asks questions by way of a monitor, which has the connection. Detectors judge the answers without I/O and
//! without a clock: each takes one answer and reports the findings that have opened and closed since. A finding names
//! its culprit and the SQL that would end it; nothing here runs that SQL.

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
