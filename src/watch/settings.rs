//! The thresholds of a watch, as the configuration has them.

use std::time::Duration;

use crate::config::{self, OnConvoy, OnIdleHolder};

/// Ages at which a horizon is too old; either is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HorizonThresholds {
    /// In time.
    pub age: Duration,
    /// In transactions.
    pub transactions: u32,
}

/// Thresholds at which something counts as a finding, and what is done about two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchSettings {
    /// Sessions that wait for locks: so many are a convoy.
    pub convoy_waiters: usize,
    /// Others have waited for a session's locks for so long.
    pub blocked: Duration,
    /// A session has idled in its transaction for so long.
    pub idle_in_transaction: Duration,
    /// A statement has run for so long.
    pub long_statement: Duration,
    /// The age of the oldest snapshot.
    pub horizon: HorizonThresholds,
    /// Dead rows of one table.
    pub dead_tuples: u64,
    /// Connections that are not pgweir's; `None`: any number is fine.
    pub outside_max: Option<usize>,
    /// The reaction to a convoy.
    pub on_convoy: OnConvoy,
    /// The reaction to clients that idle while others wait for them.
    pub on_idle_holder: OnIdleHolder,
}

impl From<&config::Watch> for WatchSettings {
    fn from(watch: &config::Watch) -> Self {
        Self {
            convoy_waiters: watch.convoy_waiters as usize,
            blocked: watch.blocked,
            idle_in_transaction: watch.idle_in_transaction,
            long_statement: watch.long_statement,
            horizon: HorizonThresholds { age: watch.horizon_age, transactions: watch.horizon_transactions },
            dead_tuples: watch.dead_tuples.into(),
            outside_max: watch.outside_max.map(|max| max as usize),
            on_convoy: watch.on_convoy,
            on_idle_holder: watch.on_idle_holder,
        }
    }
}

#[cfg(test)]
impl WatchSettings {
    /// The thresholds of most tests. Nothing is done about a finding.
    pub(crate) const TYPICAL: Self = Self {
        convoy_waiters: 50,
        blocked: Duration::from_secs(5),
        idle_in_transaction: Duration::from_secs(20),
        long_statement: Duration::from_secs(300),
        horizon: HorizonThresholds { age: Duration::from_secs(300), transactions: 1_000_000 },
        dead_tuples: 10_000,
        outside_max: None,
        on_convoy: OnConvoy::Observe,
        on_idle_holder: OnIdleHolder::Observe,
    };
}
