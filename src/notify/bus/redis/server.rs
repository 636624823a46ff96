//! The Redis: opening connections to it, and logging when there is none.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, RedisError, ServerErrorKind};
use tokio::time::Instant;

use crate::config::Secret;

/// Longest time to open a connection, and to get the answer to a command that does not wait.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Longest wait before another try to connect. A LISTEN that waits for the connection has `connect_timeout`, by default
/// 5 s: there is more than one try in it.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Where one of the connections leads.
pub(super) struct RedisServer {
    client: Client,
    config: AsyncConnectionConfig,
    /// Purpose of the connection, for logs.
    purpose: &'static str,
    outage: Mutex<Option<Outage>>,
}

struct Outage {
    began: Instant,
    /// The error logged last: the same one is not logged again.
    error: String,
}

impl RedisServer {
    /// The Redis at this URL, for a connection whose commands may wait so long before they are answered.
    pub(super) fn new(url: &Secret, purpose: &'static str, wait: Duration) -> Self {
        // Nagle's algorithm would hold the second of two batches back until the first is acknowledged.
        let settings = TcpSettings::default().set_nodelay(true);
        let info = url.expose().into_connection_info().map(|info| info.set_tcp_settings(settings));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_MAX))
            .set_response_timeout(Some(wait + ANSWER_MAX));
        Self {
            client: info.and_then(Client::open).expect("the configuration was checked"),
            config,
            purpose,
            outage: Mutex::default(),
        }
    }

    /// Opens a connection and logs in.
    pub(super) async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        self.client.get_multiplexed_async_connection_with_config(&self.config).await
    }

    /// The connection is of use.
    pub(super) fn found(&self) {
        let outage = self.outage.lock().expect("no panic while held").take();
        let purpose = self.purpose;
        match outage {
            Some(Outage { began, .. }) => {
                tracing::info!(purpose, after = ?began.elapsed(), "the Redis of notify.redis_url is back");
            }
            None => tracing::debug!(purpose, "connected to the Redis of notify.redis_url"),
        }
    }

    /// The connection was lost, or there is none to be had.
    pub(super) fn lost(&self, error: &RedisError) {
        let mut outage = self.outage.lock().expect("no panic while held");
        let error = error.to_string();
        let began = match &*outage {
            Some(known) if known.error == error => return,
            Some(known) => known.began,
            None => Instant::now(),
        };
        tracing::warn!(purpose = self.purpose, error, "the Redis of notify.redis_url cannot be used");
        *outage = Some(Outage { began, error });
    }
}

/// The error is an answer of the Redis: nothing is wrong with the connection.
pub(super) fn is_refusal(error: &RedisError) -> bool {
    match error.kind() {
        // It starts, or waits for its primary, and will serve anybody soon.
        ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown) => false,
        kind => matches!(kind, ErrorKind::Server(_) | ErrorKind::Extension),
    }
}

impl fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisServer").field("purpose", &self.purpose).finish_non_exhaustive()
    }
}
