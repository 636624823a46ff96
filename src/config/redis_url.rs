//! URLs of a Redis.

use redis::{ConnectionAddr, IntoConnectionInfo};

/// Asks the client that will use it. The URL may hold a password, so no part of it is repeated.
pub(super) fn redis_url_is_sound(url: &str) -> Result<(), &'static str> {
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
