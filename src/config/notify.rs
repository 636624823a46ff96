//! `[notify]`: how NOTIFY and LISTEN travel.

use super::Secret;
use super::form::{count, size, word};
use super::keys::section;
use super::raw::SectionReader;
use super::raw::Shape;
use super::redis_url::redis_url_is_sound;
use crate::words::words;

/// At up to 8,000 bytes each (async.c: NOTIFY_PAYLOAD_MAX_LENGTH), more than these fill any memory.
const NOTIFICATIONS_MAX: u32 = 10_000_000;

/// Two of the longest notifications fit, so that no listener is disconnected for one.
const LISTENER_BYTES_MIN: usize = 16 * 1024;

/// More than this, waiting for each of many listeners, fills any memory.
const LISTENER_BYTES_MAX: usize = 1024 * 1024 * 1024;

section! {
    /// `[notify]`; `Default` is the shipped file.
    pub struct Notify {
        /// Whether NOTIFY and LISTEN are taken out of the transactions.
        pub mode: NotifyMode = NotifyMode::Intercept => key(word());
        /// Carries notifications to listeners elsewhere.
        pub bus: BusSettings = BusSettings::Postgres => shaped();
        /// About how many notifications of each database the Redis keeps.
        pub stream_max: u32 = 10_000 => key(count(1..=NOTIFICATIONS_MAX));
        /// Bytes that may wait for one listener; more, and it is disconnected.
        pub listener_queue: usize = 1024 * 1024 => key(size(LISTENER_BYTES_MIN..=LISTENER_BYTES_MAX));
        /// Notifications of each database that may wait for the bus.
        pub bus_queue: u32 = 100_000 => key(count(1..=NOTIFICATIONS_MAX));
        /// The fate of notifications when `bus_queue` is full.
        pub when_down: WhenDown = WhenDown::Postgres => key(word());
        /// Treatment of listeners when notifications were lost on the way.
        pub on_gap: OnGap = OnGap::Disconnect => key(word());
    }
}

words! {
    /// `notify.mode`.
    pub enum NotifyMode {
        /// pgweir keeps them until the commit and delivers them itself.
        Intercept = "intercept",
        /// They are Postgres's own; a client that listens holds its backend.
        Off = "off",
    }
}

/// `notify.bus` and the keys that only one kind of bus has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusSettings {
    /// Nothing: notifications reach the clients of this process.
    Memory,
    /// Postgres itself, by one connection for each database.
    Postgres,
    /// A Redis or Valkey.
    Redis {
        /// Its address, password included.
        url: Secret,
    },
}

impl BusSettings {
    /// The kind of bus.
    pub fn kind(&self) -> Bus {
        match self {
            Self::Memory => Bus::Memory,
            Self::Postgres => Bus::Postgres,
            Self::Redis { .. } => Bus::Redis,
        }
    }
}

section! {
    /// [`BusSettings`] key by key.
    pub(super) struct BusKeys {
        bus: Bus = Bus::Postgres => key(word());
        redis_url: Option<Secret> = None => secret();
    } redis_rules
}

impl Shape for BusSettings {
    type Parts = BusKeys;

    fn parts(&self) -> BusKeys {
        let redis_url = match self {
            Self::Memory | Self::Postgres => None,
            Self::Redis { url } => Some(url.clone()),
        };
        BusKeys { bus: self.kind(), redis_url }
    }

    fn whole(BusKeys { bus, redis_url }: BusKeys) -> Option<Self> {
        Some(match bus {
            Bus::Memory => Self::Memory,
            Bus::Postgres => Self::Postgres,
            Bus::Redis => Self::Redis { url: redis_url? },
        })
    }
}

words! {
    /// `notify.bus`.
    pub enum Bus {
        /// Nothing: they reach the clients of this process.
        Memory = "memory",
        /// Postgres itself, by one connection for each database.
        Postgres = "postgres",
        /// A Redis or Valkey.
        Redis = "redis",
    }
}

words! {
    /// `notify.when_down`: the fate of notifications once `notify.bus_queue` is full.
    pub enum WhenDown {
        /// They go by way of Postgres; where that is the bus, as `Drop`.
        Postgres = "postgres",
        /// New NOTIFYs are refused; what is committed already is dropped.
        Error = "error",
        /// They are dropped.
        Drop = "drop",
    }
}

words! {
    /// `notify.on_gap`.
    pub enum OnGap {
        /// Every listener of the database is disconnected with 08006, as by a failover.
        Disconnect = "disconnect",
        /// The gap is counted; listeners do not learn of it.
        Count = "count",
    }
}

fn redis_rules(keys: &BusKeys, section: &SectionReader<'_>) {
    if keys.bus == Bus::Redis && !section.has("redis_url") {
        section.blame("redis_url", "is missing; bus \"redis\" needs it");
    }
    if let Some(url) = &keys.redis_url
        && let Err(text) = redis_url_is_sound(url.expose())
    {
        section.blame("redis_url", text);
    }
}
