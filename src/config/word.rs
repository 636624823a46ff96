//! Modes that are one word in the file, and that word.

use super::{
    AdmissionMode, BackendTlsMode, Bus, Jitter, NotifyMode, OnConvoy, OnGap, OnIdleHolder, Override, PoolMode,
    Priority, RateWhen, Standing, WhenDown,
};

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

impl Word for Override {
    const WORDS: &'static [(&'static str, Self)] = &[("any", Self::Any), ("lower", Self::Lower), ("none", Self::None)];
}

impl Word for AdmissionMode {
    const WORDS: &'static [(&'static str, Self)] = &[("on", Self::On), ("off", Self::Off)];
}

impl Word for Jitter {
    const WORDS: &'static [(&'static str, Self)] =
        &[("soft", Self::Soft), ("spread", Self::Spread), ("off", Self::Off)];
}

impl Word for Priority {
    const WORDS: &'static [(&'static str, Self)] = &[("interactive", Self::Interactive), ("batch", Self::Batch)];
}

impl Word for RateWhen {
    const WORDS: &'static [(&'static str, Self)] = &[("burst", Self::Burst), ("always", Self::Always)];
}

impl Word for NotifyMode {
    const WORDS: &'static [(&'static str, Self)] = &[("intercept", Self::Intercept), ("off", Self::Off)];
}

impl Word for Bus {
    const WORDS: &'static [(&'static str, Self)] =
        &[("memory", Self::Memory), ("postgres", Self::Postgres), ("redis", Self::Redis)];
}

impl Word for WhenDown {
    const WORDS: &'static [(&'static str, Self)] =
        &[("postgres", Self::Postgres), ("error", Self::Error), ("drop", Self::Drop)];
}

impl Word for OnGap {
    const WORDS: &'static [(&'static str, Self)] = &[("disconnect", Self::Disconnect), ("count", Self::Count)];
}

impl Word for OnConvoy {
    const WORDS: &'static [(&'static str, Self)] = &[("observe", Self::Observe), ("tighten", Self::Tighten)];
}

impl Word for OnIdleHolder {
    const WORDS: &'static [(&'static str, Self)] = &[("observe", Self::Observe), ("cancel", Self::Cancel)];
}
