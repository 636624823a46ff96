//! One run of a statement, as it is counted.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::state::timeout::Timeout;

/// The error that a run ended in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StatementRunError<'a> {
    pub code: &'a [u8],
    /// The timeout behind it.
    pub timeout: Option<Timeout>,
}

/// One run of a statement.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StatementRun<'a> {
    pub rows: u64,
    pub bytes: u64,
    /// In the queue before it.
    pub waited: Duration,
    /// At the server.
    pub server: Duration,
    pub error: Option<StatementRunError<'a>>,
    /// One bit, of the role's name.
    pub role_bit: u64,
}

/// The bit of a role's name in a set of hashes.
pub(crate) fn role_bit(role: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    role.hash(&mut hasher);
    1 << (hasher.finish() & 63)
}
