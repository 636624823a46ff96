//! `[recorder]`: a recording of transactions, for `pgweir replay`.

use super::form::{or_off, size, text};
use super::keys::section;

/// Two blocks of names and a few of transactions.
const SIZE_MIN: usize = 1024 * 1024;
const SIZE_MAX: usize = 64 << 30;

section! {
    /// `[recorder]`; `Default` is the shipped file.
    pub struct RecorderKeys {
        /// The file; `None`: nothing is recorded.
        pub path: Option<String> = None => at_start(or_off(text()));
        /// Its size, which holds that much of the latest.
        pub size: usize = 64 * 1024 * 1024 => at_start(size(SIZE_MIN..=SIZE_MAX));
    }
}
