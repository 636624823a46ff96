//! Each statement's share of the load, by digest: calls, rows, errors, time in the queue and at the server.
//!
//! [`StatementStore`] keeps a bounded number of records; where memory ends, those that are called seldom are
//! folded into one record for all others. Each worker has a [`Recorder`], finds its records by itself and writes
//! counters of its own; a reader sums them up. Nothing here keeps a literal.

pub(crate) mod baseline;
mod caller;
mod record;
mod recorder;
mod run;
mod slow_log;
mod store;
mod trend;

pub(crate) use caller::StatementCaller;
#[cfg(test)]
pub(crate) use record::StatementTotals;
pub(crate) use record::StatementView;
pub(crate) use recorder::{Glance, Recorder};
pub(crate) use run::{StatementRun, StatementRunError, role_bit};
pub(crate) use store::StatementStore;
pub(crate) use trend::StatementTrend;
