//! `databases.*.readers` and the keys that go with it: reads are spread over several servers.

use std::time::Duration;

use ipnet::IpNet;

use super::form::{BACKENDS_MAX, count, duration_above_zero, list, network, truth, word};
use super::keys::section;
use super::raw::SectionReader;
use crate::words::words;

words! {
    /// Which reader a client gets.
    pub enum LoadBalance {
        /// The one with the fewest active backends.
        Least = "least",
        /// One after the other.
        RoundRobin = "round-robin",
        /// The first of the list that can be used.
        Order = "order",
    }
}

section! {
    /// The keys of `[databases.NAME]` for one that is read from several servers.
    pub struct ReaderKeys {
        /// Any of its servers will do, and all are used.
        pub readers: bool = false => key(truth());
        /// Which of them a client gets.
        pub load_balance: LoadBalance = LoadBalance::Least => key(word());
        /// A reader that is further behind is reported.
        pub lag_warn: Option<Duration> = None => maybe(duration_above_zero());
        /// A reader that is further behind gets nothing.
        pub lag_max: Option<Duration> = None => maybe(duration_above_zero());
        /// Backends at the primary while no reader can be used.
        pub fallback_max: u32 = 0 => key(count(0..=BACKENDS_MAX));
        /// Readers with these addresses are used before the others.
        pub prefer: Vec<IpNet> = Vec::new() => key(list(network()));
    }
}

/// Rules between these keys. `knows_lag`: the topology asks servers, and so knows the primary and how far others are
/// behind.
pub(super) fn reader_rules(keys: &ReaderKeys, knows_lag: bool, section: &SectionReader<'_>) {
    if !keys.readers {
        return;
    }
    let uses = [
        ("lag_warn", keys.lag_warn.is_some()),
        ("lag_max", keys.lag_max.is_some()),
        ("fallback_max", keys.fallback_max > 0),
    ];
    for (key, is_set) in uses {
        if is_set && !knows_lag {
            section.blame(key, "needs a topology that asks servers: \"probe\", \"patroni\" or \"aurora\"");
        }
    }
    if let (Some(warn), Some(max)) = (keys.lag_warn, keys.lag_max)
        && warn > max
    {
        section.blame("lag_warn", "is above lag_max: a reader that is as far behind gets nothing");
    }
}
