//! The connection that publishes, for every database.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, pipe};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::BACKOFF_MAX;
use super::stream;
use crate::config::Secret;
use crate::net::redis::{RedisServer, is_refusal};
use crate::notify::bus::carrier::NotifySettings;
use crate::notify::exchange::Exchange;
use crate::notify::outbox::OutboxEntry;
use crate::pool::backoff::Backoff;

/// Notifications in one batch, up to 8 KB each: the Redis does nothing else while it takes one.
const BATCH_MAX: usize = 100;

/// Publishes the notifications that the exchanges of this process have for others.
#[derive(Debug)]
pub(super) struct RedisSender {
    server: RedisServer,
    settings: NotifySettings,
    door: Mutex<Door>,
}

/// The one connection of all batches. A batch that finds none opens it; the lock lets one do so at a time.
#[derive(Debug)]
struct Door {
    connection: Option<MultiplexedConnection>,
    /// The number of this connection: a batch that failed closes only the one it used.
    generation: u64,
    backoff: Backoff,
    not_before: Instant,
}

/// Why a batch has to be published again.
enum Failure {
    /// There is no connection, or it broke: the next one is opened when it is time.
    Connection,
    /// The Redis will not have it.
    Refused(RedisError),
}

impl RedisSender {
    /// Has no connection yet.
    pub(super) fn new(url: &Secret, settings: NotifySettings) -> Self {
        let door =
            Door { connection: None, generation: 0, backoff: Backoff::up_to(BACKOFF_MAX), not_before: Instant::now() };
        Self { server: super::server(url, "publish notifications", Duration::ZERO), settings, door: Mutex::new(door) }
    }

    /// Publishes every entry that is in the outbox of this exchange or comes into it. Never ends; dropped at any time,
    /// it loses nothing.
    pub(super) async fn carry(&self, exchange: &Exchange) {
        let outbox = exchange.outbox();
        let mut backoff = Backoff::up_to(BACKOFF_MAX);
        loop {
            let batch = outbox.next_batch(BATCH_MAX).await;
            match self.publish(exchange, &batch).await {
                Ok(()) => {
                    outbox.accepted(batch.len());
                    backoff.succeeded();
                }
                Err(Failure::Connection) => {}
                Err(Failure::Refused(error)) => {
                    let wait = backoff.failed(fastrand::f64());
                    let (database, queued) = (&*exchange.database, outbox.depth());
                    tracing::warn!(database, %error, queued, ?wait, "the Redis refuses notifications");
                    sleep(wait).await;
                }
            }
        }
    }

    /// Publishes all of the batch or, as far as is known, nothing. After an error it is to be published again; readers
    /// that have it already recognise it by its numbers.
    async fn publish(&self, exchange: &Exchange, batch: &[OutboxEntry]) -> Result<(), Failure> {
        let (generation, mut connection) = self.connection().await?;
        let stream_max = self.settings.borrow().stream_max;
        let mut commands = pipe();
        commands.atomic();
        for entry in batch {
            let notification = &entry.notification;
            commands.cmd("XADD").arg(stream::key(&exchange.database)).arg("MAXLEN").arg("~").arg(stream_max).arg("*");
            for (name, value) in stream::fields(exchange.origin, entry) {
                commands.arg(name).arg(&*value);
            }
            commands.ignore();
            commands.cmd("PUBLISH").arg(stream::topic(&exchange.database, &notification.channel));
            commands.arg(&*notification.payload).ignore();
        }
        let outcome = commands.exec_async(&mut connection).await;
        let mut door = self.door.lock().await;
        let Err(error) = outcome else {
            door.backoff.succeeded();
            return Ok(());
        };
        let is_refusal = is_refusal(&error);
        if door.generation == generation {
            // Refused, too: it may be a server that has become a replica, and its name leads to another by now.
            door.connection = None;
            if !is_refusal {
                self.server.lost(&error);
                door.not_before = Instant::now() + door.backoff.failed(fastrand::f64());
            }
        }
        Err(if is_refusal { Failure::Refused(error) } else { Failure::Connection })
    }

    /// The connection, opened if there is none.
    async fn connection(&self) -> Result<(u64, MultiplexedConnection), Failure> {
        let mut door = self.door.lock().await;
        if let Some(connection) = &door.connection {
            return Ok((door.generation, connection.clone()));
        }
        sleep_until(door.not_before).await;
        match self.server.connect().await {
            Ok(connection) => {
                self.server.found();
                door.generation += 1;
                door.connection = Some(connection.clone());
                Ok((door.generation, connection))
            }
            Err(error) => {
                self.server.lost(&error);
                door.not_before = Instant::now() + door.backoff.failed(fastrand::f64());
                Err(Failure::Connection)
            }
        }
    }
}
