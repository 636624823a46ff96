//! A Redis or Valkey as the bus: one capped stream for each database, which every pgweir writes to and reads from its
//! last place, and a PUBLISH of each notification for plain subscribers.
//!
//! There is one connection that publishes and one that reads, for all databases together. `stream` knows the meaning of
//! the entries.

mod reader;
mod sender;
mod server;
mod stream;

use std::sync::Arc;

use super::carrier::{Carrier, Carrying, NotifySettings, Way};
use crate::config::Secret;
use crate::notify::exchange::Exchange;
use reader::RedisReader;
use sender::RedisSender;

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
