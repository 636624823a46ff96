//! The events of the status page: a look at everything once a second, sent to all who watch.
//!
//! Each event is written once, however many read it. A reader that is too slow misses some.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::channel::Channel;
use hyper::body::Bytes;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::status::StatusMemory;
use crate::proxy::Proxy;

/// Streams at once.
pub(super) const STREAMS_MAX: usize = 16;

const EVERY: Duration = Duration::from_secs(1);

/// How long a browser waits before it asks again (HTML Standard: "Server-sent events").
const RETRY: &str = "retry: 1000\n";

/// The events, and the memory behind them.
#[derive(Debug)]
pub(super) struct EventStream {
    memory: StatusMemory,
    news: watch::Sender<Bytes>,
    places: Arc<Semaphore>,
}

impl EventStream {
    pub(super) fn new() -> Self {
        let places = Arc::new(Semaphore::new(STREAMS_MAX));
        Self { memory: StatusMemory::default(), news: watch::Sender::default(), places }
    }

    /// Looks at everything again and again, for ever.
    pub(super) async fn keep(&self, proxy: &Proxy) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tick.tick().await;
            let moment = self.memory.look(proxy);
            if self.news.receiver_count() > 0 {
                let status = self.memory.status(proxy, &moment);
                self.news.send_replace(Bytes::from(event("status", &status)));
            }
        }
    }

    /// The state of everything now.
    pub(super) fn status(&self, proxy: &Proxy) -> Value {
        let moment = self.memory.look(proxy);
        self.memory.status(proxy, &moment)
    }

    /// Events from now on; before them, the last minutes. `read` is called whenever one was taken. `None`: too many
    /// watch already.
    pub(super) fn stream(&self, proxy: &Proxy, read: impl Fn() + Send + 'static) -> Option<Channel<Bytes>> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut news = self.news.subscribe();
        let mut first = RETRY.to_owned();
        let status = self.status(proxy);
        first += &event("lines", &self.memory.lines());
        first += &event("status", &status);
        let (mut reader, body) = Channel::new(1);
        tokio::spawn(async move {
            let _place = place;
            let mut next = Bytes::from(first);
            while reader.send_data(next).await.is_ok() {
                read();
                if news.changed().await.is_err() {
                    return;
                }
                next = news.borrow_and_update().clone();
            }
        });
        Some(body)
    }
}

/// One event; JSON has no line ends of its own.
fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}
