//! A Redis: opening connections to it, and logging when there is none. The bus and the fleet each have theirs.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, RedisError, ServerErrorKind};
use tokio::time::Instant;

use crate::config::Secret;

/// Where one of the connections leads.
pub(crate) struct RedisServer {
    client: Client,
    config: AsyncConnectionConfig,
    /// The key of the configuration that names it, for logs.
    key: &'static str,
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
    /// The Redis at this URL, which this key names. A connection is open, and a command answered, within these times.
    pub(crate) fn new(
        key: &'static str,
        url: &Secret,
        purpose: &'static str,
        connect_max: Duration,
        answer_max: Duration,
    ) -> Self {
        // Nagle's algorithm would hold the second of two batches back until the first is acknowledged.
        let settings = TcpSettings::default().set_nodelay(true);
        let info = url.expose().into_connection_info().map(|info| info.set_tcp_settings(settings));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connect_max))
            .set_response_timeout(Some(answer_max));
        Self {
            client: info.and_then(Client::open).expect("the configuration was checked"),
            config,
            key,
            purpose,
            outage: Mutex::default(),
        }
    }

    /// Opens a connection and logs in.
    pub(crate) async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        self.client.get_multiplexed_async_connection_with_config(&self.config).await
    }

    /// The connection is of use.
    pub(crate) fn found(&self) {
        let outage = self.outage.lock().expect("no panic while held").take();
        let (key, purpose) = (self.key, self.purpose);
        match outage {
            Some(Outage { began, .. }) => {
                tracing::info!(purpose, after = ?began.elapsed(), "the Redis of {key} is back");
            }
            None => tracing::debug!(purpose, "connected to the Redis of {key}"),
        }
    }

    /// The connection was lost, or there is none to be had.
    pub(crate) fn lost(&self, error: &RedisError) {
        let mut outage = self.outage.lock().expect("no panic while held");
        let error = error.to_string();
        let began = match &*outage {
            Some(known) if known.error == error => return,
            Some(known) => known.began,
            None => Instant::now(),
        };
        tracing::warn!(purpose = self.purpose, error, "the Redis of {} cannot be used", self.key);
        *outage = Some(Outage { began, error });
    }
}

/// The error is an answer of the Redis: nothing is wrong with the connection.
pub(crate) fn is_refusal(error: &RedisError) -> bool {
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
