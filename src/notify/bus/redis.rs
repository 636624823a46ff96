//! A Redis or Valkey as the bus: one capped stream for each database, which every pgweir writes to and reads from its last place, and a
//! PUBLISH of each notification for plain subscribers.
//!
//! There is one connection that publishes and one that reads, whatever the number of databases. `stream` knows what the entries mean.

mod reader;
mod sender;
mod server;
mod stream;

use std::sync::{Arc, Mutex, Weak};

use tokio::sync::watch;

use crate::config::{Notify, Secret};
use crate::notify::exchange::Exchange;
use reader::Reader;
use sender::Sender;

/// `[notify]` as it is in force.
type Settings = watch::Receiver<Arc<Notify>>;

/// The bus of all databases.
#[derive(Debug)]
pub struct Redis {
    url: Secret,
    sender: Sender,
    reader: Reader,
}

impl Redis {
    /// Connects when there is something to publish or to hear. Within a runtime.
    pub fn new(settings: &Settings) -> Self {
        let url = settings.borrow().redis_url.clone().expect("the configuration has one where this is the bus");
        let sender = Sender::new(&url, settings.clone());
        let reader = Reader::start(&url, settings.clone());
        Self { url, sender, reader }
    }

    /// Carries what this exchange publishes, and brings it what others do. Never ends; dropped at any time, it loses nothing of the outbox.
    pub async fn carry(&self, exchange: &Arc<Exchange>) {
        exchange.set_bus_ready(false);
        tokio::join!(self.sender.carry(exchange), self.reader.carry(exchange));
    }
}

/// The Redis in use, as long as somebody uses it.
#[derive(Debug, Default)]
pub struct Shared(Mutex<Weak<Redis>>);

impl Shared {
    /// The one that is configured: that in use, unless it is another.
    pub fn redis(&self, settings: &Settings) -> Arc<Redis> {
        let mut shared = self.0.lock().expect("no panic while held");
        let known = shared.upgrade().filter(|known| settings.borrow().redis_url.as_ref() == Some(&known.url));
        known.unwrap_or_else(|| {
            let redis = Arc::new(Redis::new(settings));
            *shared = Arc::downgrade(&redis);
            redis
        })
    }
}
