//! The watch: looks at each server for harm that comes from outside pgweir too, as lock convoys and old snapshots.
//!
//! The core asks questions by way of a monitor, which has the connection. Detectors judge the answers without I/O and
//! without a clock: each takes one answer and reports the findings that have opened and closed since. A finding names
//! its culprit and the SQL that would end it; nothing here runs that SQL.

pub(crate) mod activity;
pub(crate) mod asking;
pub(crate) mod blockers;
pub(crate) mod census;
pub(crate) mod convoy;
pub(crate) mod core;
pub(crate) mod culprit;
pub(crate) mod detectors;
pub(crate) mod finding;
pub(crate) mod incidents;
pub(crate) mod lock_watch;
pub(crate) mod locks;
pub(crate) mod monitor;
pub(crate) mod own_backends;
pub(crate) mod question;
pub(crate) mod reaction;
pub(crate) mod row;
pub(crate) mod server;
pub(crate) mod servers;
pub(crate) mod settings;
pub mod sql;
pub(crate) mod stats;
pub(crate) mod watches;
pub(crate) mod xid_clock;
