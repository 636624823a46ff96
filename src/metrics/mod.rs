//! What is counted, and under which names it is shown.
//!
//! Counters of the hot path are per worker (`cell`), so that no two threads write the same line, and summed when somebody looks.
//! `table` is the one list of names, units, labels and help; `text` writes them for Prometheus, and `docs/METRICS.md` is printed
//! from it.

mod cause;
mod cell;
mod distribution;
mod errors;
mod history;
mod label;
mod process;
mod table;
mod text;
mod totals;

#[cfg(test)]
mod document;

pub use cause::{CancelCause, LoginRefusal, OpenFailure, ReloadOutcome};
pub use cell::{Cell, PoolStats};
pub use distribution::Distribution;
pub use errors::ErrorCounts;
pub use history::{History, PERIOD};
pub use label::{Label, Values};
pub use process::ProcessStats;
pub use table::{Kind, Metric};
pub use text::Page;
pub use totals::Totals;
