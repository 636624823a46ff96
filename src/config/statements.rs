//! `[statements]`: what is counted and logged of each statement.

use std::time::Duration;

use super::form::{count, duration_above_zero, or_off, size, truth, word};
use super::keys::section;
use crate::words::words;

/// Room for a few dozen records, and more than anybody needs.
const MEMORY_MIN: usize = 256 * 1024;
const MEMORY_MAX: usize = 1 << 30;

/// One of so many slow statements is enough for anybody.
const SAMPLE_MAX: u32 = 1_000_000;

section! {
    /// `[statements]`; `Default` is the shipped file.
    pub struct StatementKeys {
        /// StatementKeys are counted by their digest.
        pub track: bool = true => at_start(truth());
        /// Memory of all records.
        pub memory: usize = 8 * 1024 * 1024 => at_start(size(MEMORY_MIN..=MEMORY_MAX));
        /// Statements are compared with what they usually are this often; `None`: they are not.
        pub early_warning: Option<Duration> = Some(Duration::from_secs(10)) => key(or_off(duration_above_zero()));
        /// A statement that took this long, with its time in the queue, is logged.
        pub log_slow: Option<Duration> = None => key(or_off(duration_above_zero()));
        /// One of so many slow statements is logged.
        pub log_slow_sample: u32 = 1 => key(count(1..=SAMPLE_MAX));
        /// Slow statements are logged with their literals.
        pub log_literals: bool = false => key(truth());
        /// The comments of a Parse.
        pub comments: Comments = Comments::Keep => key(word());
    }
}

words! {
    /// `statements.comments`.
    pub enum Comments {
        /// They reach the server as they are.
        Keep = "keep",
        /// Tags of tracing are taken out of prepared texts, which are the same then and can be shared.
        StripTrace = "strip_trace",
    }
}
