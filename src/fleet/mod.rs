//! This instance among the others of its fleet.
//!
//! [`cancels`] hands a CancelRequest that came here to the instance whose client it is meant for. Whatever runs here
//! runs beside the clients: no query waits for another instance.

pub(crate) mod cancels;
mod owners;
mod sibling;

pub(crate) use cancels::{Cancels, Forwarded};
pub(crate) use sibling::{Sibling, is_ours};
