//! `[metrics]`: what `/metrics` shows.

use super::form::word;
use super::keys::section;
use crate::words::words;

section! {
    /// `[metrics]`; `Default` is the shipped file.
    pub struct MetricsKeys {
        /// The names by which durations are told.
        pub per: MetricsPer = MetricsPer::Role => key(word());
    }
}

words! {
    /// `metrics.per`.
    pub enum MetricsPer {
        /// Database and role.
        Pool = "pool",
        /// The role, over all databases.
        Role = "role",
        /// The database, over all roles.
        Database = "database",
    }
}
