//! Modes that are one word in the file, and that word.

use super::{BackendTlsMode, PoolMode, Standing};

/// A mode written as one word.
pub trait Word: Copy + PartialEq + 'static {
    /// Every word with its mode, in the order the reference names them.
    const WORDS: &'static [(&'static str, Self)];

    /// The word of this mode.
    fn word(self) -> &'static str {
        let (word, _) = Self::WORDS.iter().find(|(_, mode)| *mode == self).expect("every mode has its word");
        word
    }
}

impl Word for PoolMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("transaction", Self::Transaction), ("session", Self::Session), ("statement", Self::Statement)];
}

impl Word for Standing {
    const WORDS: &'static [(&'static str, Self)] =
        &[("primary", Self::Primary), ("standby", Self::Standby), ("any", Self::Any)];
}

impl Word for BackendTlsMode {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("disable", Self::Disable),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];
}
