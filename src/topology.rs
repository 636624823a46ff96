//! Which server of a cluster has which role: sources observe it, a pure core decides, and the pools of a database lend
//! only backends of the server that has proved its role.
//!
//! Everything here runs beside the pools, on connections of its own: a pool that is full does not delay a look at its
//! server, and a server that is down is looked at until it is back, clients or none. [`supervisor`] starts a
//! [`monitor`] for each database that has a topology; the [`source`] that its configuration asks for reports to it.

mod aurora;
mod dns;
mod observe;
mod patroni;
mod probe;
mod prober;
mod reader_hosts;
mod rest;
mod source;

pub(crate) mod core;
pub(crate) mod monitor;
pub(crate) mod supervisor;
