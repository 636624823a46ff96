//! Counters, and the names under which they are shown.
//!
//! `table` is the one list of all metrics: names, units, labels, help. A line of it is all that a new counter of a pool
//! or of the process needs besides the call that counts: `define` makes arrays and their indices of it, and merging,
//! differences and the scrape loop over them. Counters of the hot path are per worker (`cell`), so that no two threads
//! write the same cache line.

#[macro_use]
mod define;

mod cause;
mod cell;
mod distribution;
mod errors;
mod history;
mod label;
mod process;
mod table;
mod totals;

pub(crate) use cause::{
    CancelCause, CloseReason, FleetCancel, LoginRefusal, OpenFailure, PasswordOutcome, PinEnd, ReloadOutcome,
    ReplayReason,
};
pub use cell::PoolStats;
pub(crate) use distribution::{BUCKETS, Distribution, bound, bucket};
pub(crate) use errors::ErrorCounts;
pub(crate) use history::History;
pub use label::Label;
pub(crate) use process::ProcessStats;
pub use table::{Metric, MetricKind, PoolCounter};
pub(crate) use table::{PoolHistogram, ProcessCounter, ProcessHistogram};
pub(crate) use totals::Totals;
