//! `[watch]`: which role watches the servers, and the thresholds of what it reports.

use std::time::Duration;

use super::PasswordSource;
use super::database::WatchLogin;
use super::form::{BACKENDS_MAX, count, duration_above_zero, text, word};
use super::keys::section;
use super::raw::SectionReader;
use super::raw::Shape;
use crate::words::words;

/// Fewer sessions that wait for locks are everyday life.
const CONVOY_WAITERS_MIN: u32 = 5;

/// Transaction ids come round after twice as many (manual: routine vacuuming).
const TRANSACTIONS_MAX: u32 = 1 << 30;

section! {
    /// `[watch]`; `Default` is the shipped file.
    pub struct Watch {
        /// Role that watches; `None`: only databases with a login of their own are watched.
        pub login: Option<WatchLogin> = None => shaped();
        /// Sessions waiting for locks that are a convoy.
        pub convoy_waiters: u32 = 50 => key(count(CONVOY_WAITERS_MIN..=BACKENDS_MAX));
        /// A session that keeps others waiting for this long is reported.
        pub blocked: Duration = Duration::from_secs(5) => key(duration_above_zero());
        /// A session idle in a transaction for this long is reported.
        pub idle_in_transaction: Duration = Duration::from_secs(20) => key(duration_above_zero());
        /// A statement that takes this long is reported.
        pub long_statement: Duration = Duration::from_secs(5 * 60) => key(duration_above_zero());
        /// A snapshot this old is reported.
        pub horizon_age: Duration = Duration::from_secs(5 * 60) => key(duration_above_zero());
        /// A snapshot so many transactions old is reported.
        pub horizon_transactions: u32 = 1_000_000 => key(count(1..=TRANSACTIONS_MAX));
        /// A table with so many dead rows is reported.
        pub dead_tuples: u32 = 10_000 => key(count(1..=u32::MAX));
        /// More connections that are not pgweir's are reported; `None`: any number is fine.
        pub outside_max: Option<u32> = None => maybe(count(0..=BACKENDS_MAX));
        /// The reaction to a convoy.
        pub on_convoy: OnConvoy = OnConvoy::Observe => key(word());
        /// The reaction to a client that idles in a transaction others wait for.
        pub on_idle_holder: OnIdleHolder = OnIdleHolder::Observe => key(word());
    }
}

section! {
    /// The keys of [`Watch::login`].
    pub(super) struct WatchLoginKeys {
        role: Option<String> = None => maybe(text());
        password: Option<PasswordSource> = None => password();
    } password_needs_role
}

fn password_needs_role(_: &WatchLoginKeys, section: &SectionReader<'_>) {
    if section.has("password") && !section.has("role") {
        section.blame("role", "is missing; password is its");
    }
}

impl Shape for Option<WatchLogin> {
    type Parts = WatchLoginKeys;

    fn parts(&self) -> WatchLoginKeys {
        let Some(WatchLogin { role, password }) = self.clone() else {
            return WatchLoginKeys::default();
        };
        WatchLoginKeys { role: Some(role), password }
    }

    fn whole(WatchLoginKeys { role, password }: WatchLoginKeys) -> Option<Self> {
        Some(role.map(|role| WatchLogin { role, password }))
    }
}

words! {
    /// `watch.on_convoy`.
    pub enum OnConvoy {
        /// It is reported.
        Observe = "observe",
        /// Also, roles whose clients are in it may start fewer transactions while it lasts.
        Tighten = "tighten",
    }
}

words! {
    /// `watch.on_idle_holder`.
    pub enum OnIdleHolder {
        /// It is reported.
        Observe = "observe",
        /// Also, its transaction is ended, if it is a client's of pgweir.
        Cancel = "cancel",
    }
}
