//! A Redis or Valkey as the bus: one capped stream for each database, which every pgweir writes to and reads from its
//! last place, and a PUBLISH of each notification for plain subscribers.
//!
//! There is one connection that publishes and one that reads, for all databases together. `stream` knows the meaning of
//! the entries.

mod reader;
mod sender;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use super::carrier::{Carrier, Carrying, NotifySettings, Way};
use crate::config::Secret;
use crate::net::redis::RedisServer;
use crate::notify::exchange::Exchange;
use reader::RedisReader;
use sender::RedisSender;

/// Longest time to open a connection, and to get the answer to a command that does not wait.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Longest wait before another try to connect. A LISTEN that waits for the connection has `connect_timeout`, by default
/// 5 s: there is more than one try in it.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The Redis of the bus, for a connection whose commands may wait so long before they are answered.
fn server(url: &Secret, purpose: &'static str, wait: Duration) -> RedisServer {
    RedisServer::new("notify.redis_url", url, purpose, ANSWER_MAX, wait + ANSWER_MAX)
}

/// The bus of all databases.
#[derive(Debug)]
pub struct RedisBus {
    sender: RedisSender,
    reader: RedisReader,
}

impl RedisBus {
    /// Connects when there is something to publish or to hear. Within a runtime.
    pub fn new(url: &Secret, settings: &NotifySettings) -> Self {
        let sender = RedisSender::new(url, settings.clone());
        let reader = RedisReader::start(url, settings.clone());
        Self { sender, reader }
    }

    /// Carries the notifications of this exchange to others, and brings it theirs. Never ends; dropped at any time, it
    /// loses nothing of the outbox.
    pub async fn carry(&self, exchange: &Arc<Exchange>) {
        exchange.set_bus_ready(false);
        tokio::join!(self.sender.carry(exchange), self.reader.carry(exchange));
    }
}

impl Carrier for RedisBus {
    fn carry<'a>(&'a self, way: Way<'a>) -> Carrying<'a> {
        Box::pin(Self::carry(self, way.exchange))
    }
}
