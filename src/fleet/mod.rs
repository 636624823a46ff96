//! This instance among the others of its fleet.
//!
//! [`count`] divides the limits by the number of instances, seen at the servers. [`cancels`] hands a CancelRequest that
//! came here to the instance whose client it is meant for. All of it runs beside the clients: no query waits for
//! another instance.

pub(crate) mod cancels;
pub(crate) mod count;
pub(crate) mod lease;
mod owners;
mod sibling;

pub(crate) use cancels::{Cancels, Forwarded};
pub(crate) use sibling::{Sibling, is_ours};
