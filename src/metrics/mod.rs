//! Counters, and the names under which they are shown.
//!
//! `table` is the one list of all metrics: names, units, labels, help. A line of it is all that a new counter of a pool or of the process
//! needs besides the call that counts: `define` makes arrays and their indices of it, and merging, differences and the scrape loop over them.
//! Counters of the hot path are per worker (`cell`), so that no two threads write the same cache line.

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

pub use cause::{CancelCause, CloseReason, LoginRefusal, OpenFailure, ReloadOutcome};
pub use cell::PoolStats;
pub use distribution::{Distribution, bound};
pub use errors::ErrorCounts;
pub use history::{History, PERIOD};
pub use label::Label;
pub use process::ProcessStats;
pub use table::{Metric, MetricKind, PoolCounter, PoolHistogram, ProcessCounter, ProcessHistogram};
pub use totals::Totals;
