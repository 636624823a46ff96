//! Limits by demand: every instance says what it wants, a Redis keeps the book of who has how much.
//!
//! [`engine`] brings a [`LeaseRequest`] to the script beside this file, which keeps the book; [`book`] has its rules,
//! and is what the tests compare it with. [`holder`] decides what an instance may use of its grants, also when it has
//! stood still or cannot reach the Redis. [`leases`] is what the process has of all this.

pub(crate) mod book;
pub(crate) mod engine;
pub(crate) mod facts;
pub(crate) mod holder;
pub(crate) mod leases;
pub(crate) mod order;
mod peaks;

use std::collections::BTreeMap;
use std::time::Duration;

/// A grant ends so long after the request for it, by the book's time.
pub(crate) const TTL: Duration = Duration::from_secs(5);

/// The holder of a grant stops using it so much earlier: clocks do not go equally fast, and the book's may jump by as
/// much.
pub(crate) const MARGIN: Duration = Duration::from_secs(1);

/// What an instance says of one limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeaseWant {
    /// The limit as this instance knows it.
    pub limit: u32,
    /// Active and waiting, at the most in the last half second.
    pub want: u32,
    /// The most that it lets itself use at this moment.
    pub cap: u32,
    /// In use; more than `cap` while what runs ends.
    pub used: u32,
}

/// A request for all limits at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Grows with every request of an instance.
    pub seq: u64,
    /// Weight of the instance where more is wanted than there is.
    pub weight: u32,
    /// Members by which the instance divides the limits when the book is lost; 0: it does not know.
    pub knows: u32,
    /// By the name of the limit.
    pub wants: BTreeMap<String, LeaseWant>,
}

/// A part of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// So much may be used.
    pub most: u32,
    /// The lowest limit that any instance has.
    pub limit: u32,
}

/// The answer to a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BookAnswer {
    /// The book is new, or nobody wrote in it for a while: for now everybody keeps what it has.
    pub learns: bool,
    /// Members by which the limits are to be divided when the book is lost; 0: as before.
    pub knows: u32,
    /// By the name of the limit.
    pub grants: BTreeMap<String, Grant>,
}
