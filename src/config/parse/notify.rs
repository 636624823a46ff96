//! `[notify]`: how NOTIFY and LISTEN travel.

use redis::{ConnectionAddr, IntoConnectionInfo};

use super::secret;
use crate::config::raw::Section;
use crate::config::value::{count, size, word};
use crate::config::{Bus, Notify};

/// At up to 8,000 bytes each (async.c: NOTIFY_PAYLOAD_MAX_LENGTH), more than these fill any memory.
const NOTIFICATIONS_MAX: u32 = 10_000_000;

/// Two of the longest notifications fit, so that no listener is disconnected for one.
const LISTENER_BYTES_MIN: usize = 16 * 1024;

/// More than this, waiting for each of many listeners, fills any memory.
const LISTENER_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// The section.
pub(super) fn read(root: &mut Section<'_>) -> Notify {
    let default = Notify::default();
    let mut section = root.section_or_empty("notify");
    let redis_url = secret::read(&mut section, "redis_url");
    let notify = Notify {
        mode: section.take("mode", word).unwrap_or(default.mode),
        bus: section.take("bus", word).unwrap_or(default.bus),
        redis_url,
        stream_max: section.take("stream_max", count(1..=NOTIFICATIONS_MAX)).unwrap_or(default.stream_max),
        listener_queue: section
            .take("listener_queue", size(LISTENER_BYTES_MIN..=LISTENER_BYTES_MAX))
            .unwrap_or(default.listener_queue),
        bus_queue: section.take("bus_queue", count(1..=NOTIFICATIONS_MAX)).unwrap_or(default.bus_queue),
        when_down: section.take("when_down", word).unwrap_or(default.when_down),
        on_gap: section.take("on_gap", word).unwrap_or(default.on_gap),
    };
    if notify.bus == Bus::Redis && !section.has("redis_url") {
        section.blame("redis_url", "is missing; bus \"redis\" needs it");
    }
    if let Some(url) = &notify.redis_url
        && let Err(text) = redis_url_is_sound(url.expose())
    {
        section.blame("redis_url", text);
    }
    section.finish();
    notify
}

/// What the client of the bus takes. The URL may hold a password, so no part of it is repeated.
fn redis_url_is_sound(url: &str) -> Result<(), &'static str> {
    let connection = url.into_connection_info().map_err(|_| {
        "is not the URL of a Redis; write for example \"redis://127.0.0.1:6379/0\", \
         \"rediss://user:password@host:6379\" with TLS, or \"unix:///run/redis/redis.sock\""
    })?;
    match connection.addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => {
            Err("ends in #insecure, which checks no certificate; add the Redis's to the system's")
        }
        _ => Ok(()),
    }
}
