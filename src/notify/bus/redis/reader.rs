//! The connection that reads, for every database that somebody listens to.
//!
//! It reads from the last entry it has seen, so a new connection goes on where the old one ended. If it cannot, because
//! the Redis has lost or trimmed the entries that follow, the gap is reported to listeners.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Value, cmd, from_redis_value, pipe};
use tokio::sync::Notify as Alarm;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::BACKOFF_MAX;
use super::stream::{self, Follower, Id, Meaning, Published, StreamState};
use crate::config::Secret;
use crate::net::redis::{RedisServer, is_refusal};
use crate::notify::bus::carrier::NotifySettings;
use crate::notify::exchange::Exchange;
use crate::notify::stats::Gap;
use crate::pool::backoff::Backoff;

/// How long one command waits for entries. A connection that is silently gone shows when not even that is answered.
const BLOCK: Duration = Duration::from_secs(5);

/// Entries of one stream read at once, up to 8 KB each.
const COUNT_MAX: u32 = 500;

/// When streams that may not be read are tried again.
const REFUSED: Duration = Duration::from_secs(5);

/// A group that is made and removed again to have an empty stream: if that is gone one day, the Redis has forgotten
/// everything.
const GROUP: &str = "pgweir";

/// Entries of one stream, as they come.
type Entries = Vec<(Id, Vec<(Bytes, Bytes)>)>;

/// Reads the notifications that others publish, in a task of its own that ends when this is dropped.
#[derive(Debug)]
pub(super) struct RedisReader {
    arrivals: Arc<Arrivals>,
    _task: AbortOnDropHandle<()>,
}

/// Databases that are to be read, too.
#[derive(Debug, Default)]
struct Arrivals {
    waiting: Mutex<Vec<Weak<Exchange>>>,
    bell: Alarm,
}

impl RedisReader {
    /// Reads nothing yet.
    pub(super) fn start(url: &Secret, settings: NotifySettings) -> Self {
        let arrivals = Arc::<Arrivals>::default();
        let reading = StreamReading {
            server: super::server(url, "hear notifications", BLOCK),
            settings,
            arrivals: Arc::clone(&arrivals),
            streams: HashMap::new(),
        };
        Self { arrivals, _task: AbortOnDropHandle::new(tokio::spawn(reading.run())) }
    }

    /// Brings this exchange the notifications of others, from its first listener on. Never ends.
    pub(super) async fn carry(&self, exchange: &Arc<Exchange>) {
        exchange.listened().await;
        self.arrivals.waiting.lock().expect("no panic while held").push(Arc::downgrade(exchange));
        self.arrivals.bell.notify_one();
        pending().await
    }
}

impl Arrivals {
    fn take(&self) -> Vec<Weak<Exchange>> {
        std::mem::take(&mut *self.waiting.lock().expect("no panic while held"))
    }
}

struct StreamReading {
    server: RedisServer,
    settings: NotifySettings,
    arrivals: Arc<Arrivals>,
    streams: HashMap<String, DatabaseStream>,
}

struct DatabaseStream {
    exchange: Weak<Exchange>,
    /// `None`: nothing was read so far.
    follower: Option<Follower>,
    access: StreamAccess,
}

/// Whether the Redis lets a stream be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StreamAccess {
    Untried,
    Open,
    Refused,
}

impl StreamReading {
    async fn run(mut self) {
        let mut backoff = Backoff::up_to(BACKOFF_MAX);
        loop {
            self.admit();
            if self.streams.is_empty() {
                self.arrivals.bell.notified().await;
                continue;
            }
            let Err(error) = self.read(&mut backoff).await else { continue };
            for exchange in self.streams.values().filter_map(|stream| stream.exchange.upgrade()) {
                exchange.set_bus_ready(false);
            }
            self.server.lost(&error);
            sleep(backoff.failed(fastrand::f64())).await;
        }
    }

    /// Adds the exchanges that have arrived, and removes those that no longer exist.
    fn admit(&mut self) {
        self.streams.retain(|_, stream| stream.exchange.strong_count() > 0);
        for arrival in self.arrivals.take() {
            let Some(exchange) = arrival.upgrade() else { continue };
            let key = stream::key(&exchange.database);
            let is_known = self.streams.get(&key).is_some_and(|known| known.exchange.ptr_eq(&arrival));
            if !is_known {
                self.streams
                    .insert(key, DatabaseStream { exchange: arrival, follower: None, access: StreamAccess::Untried });
            }
        }
    }

    /// Reads over one connection until that breaks, or until a new one is needed to read other streams.
    async fn read(&mut self, backoff: &mut Backoff) -> RedisResult<()> {
        let mut connection = self.server.connect().await?;
        self.survey(&mut connection).await?;
        self.server.found();
        backoff.succeeded();
        let again = Instant::now() + REFUSED;
        while !self.streams.is_empty() {
            let open = self.streams.values().filter(|stream| stream.access == StreamAccess::Open).count();
            let stream_max = self.stream_max();
            let command = self.xread(stream_max);
            let reply: Vec<(String, Entries)> = tokio::select! {
                reply = command.query_async(&mut connection), if open > 0 => reply?,
                () = self.arrivals.bell.notified() => return Ok(()),
                () = sleep_until(again), if open < self.streams.len() => return Ok(()),
            };
            for (key, entries) in reply {
                let Some(stream) = self.streams.get_mut(&key) else { continue };
                let (exchange, follower) = (stream.exchange.upgrade(), stream.follower.as_mut());
                let (Some(exchange), Some(follower)) = (exchange, follower) else {
                    // The exchange is gone, and a stream that is not read on would return the same entries at once.
                    self.streams.remove(&key);
                    continue;
                };
                if entries.len() >= count_max(stream_max) {
                    // The stream may have had more entries than it keeps.
                    let state = xinfo(&key).query_async(&mut connection).await?;
                    if !follower.is_whole(Some(state), stream_max) {
                        exchange.gap(Gap::Bus);
                    }
                }
                deliver(&exchange, follower, entries);
            }
        }
        Ok(())
    }

    fn stream_max(&self) -> u32 {
        self.settings.borrow().stream_max
    }

    /// Finds out where every stream is, and whether it still has the entries that were not read.
    async fn survey(&mut self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let stream_max = self.stream_max();
        let mut commands = pipe();
        for key in self.streams.keys() {
            commands.cmd("EXISTS").arg(key).add_command(xinfo(key));
        }
        let facts: Vec<RedisResult<Value>> = commands.ignore_errors().query_async(connection).await?;
        for ((key, stream), facts) in self.streams.iter_mut().zip(facts.chunks(2)) {
            let Some(exchange) = stream.exchange.upgrade() else { continue };
            let found = match facts {
                [Ok(Value::Int(0)), Err(_)] => create(connection, key).await.map(|state| (None, state)),
                [_, Ok(state)] => {
                    let state = from_redis_value(state.clone())?;
                    Ok((Some(state), state))
                }
                [_, Err(error)] => Err(error.clone()),
                _ => continue,
            };
            match found {
                Ok((found, now)) => {
                    stream.go_on(&exchange, found, now, stream_max);
                    stream.access = StreamAccess::Open;
                }
                Err(error) if is_refusal(&error) => {
                    if stream.access != StreamAccess::Refused {
                        let database = &*exchange.database;
                        tracing::warn!(database, %error, "the Redis does not let notifications be read");
                    }
                    stream.access = StreamAccess::Refused;
                }
                Err(error) => return Err(error),
            }
            exchange.set_bus_ready(stream.access == StreamAccess::Open);
        }
        Ok(())
    }

    /// The command that reads the entries after the last ones read.
    fn xread(&self, stream_max: u32) -> Cmd {
        let mut command = cmd("XREAD");
        command.arg("COUNT").arg(count_max(stream_max)).arg("BLOCK").arg(BLOCK.as_millis() as u64).arg("STREAMS");
        let open = self.streams.iter().filter(|(_, stream)| stream.access == StreamAccess::Open);
        let (keys, places): (Vec<_>, Vec<_>) =
            open.filter_map(|(key, stream)| Some((key, stream.follower.as_ref()?.at().to_string()))).unzip();
        command.arg(keys).arg(places);
        command
    }
}

impl DatabaseStream {
    /// Reads on, or begins with entries published after `now`. `found` is the stream's state before it was created
    /// here, `None` if there was no stream.
    fn go_on(&mut self, exchange: &Exchange, found: Option<StreamState>, now: StreamState, stream_max: u32) {
        match &mut self.follower {
            None => self.follower = Some(Follower::new(exchange.origin, now)),
            Some(follower) => {
                if !follower.is_whole(found, stream_max) {
                    exchange.gap(Gap::Bus);
                }
            }
        }
    }
}

/// Delivers new entries to listeners.
fn deliver(exchange: &Exchange, follower: &mut Follower, entries: Entries) {
    for (id, fields) in entries {
        let published = Published::read(&fields);
        match (follower.follow(id, published.as_ref()), published) {
            (Some(Meaning::News), Some(Published { pid, notification, .. })) => exchange.deliver(pid, &notification),
            (Some(Meaning::Hole), Some(Published { pid, notification, .. })) => {
                exchange.gap(Gap::Hole);
                exchange.deliver(pid, &notification);
            }
            (Some(Meaning::Repetition | Meaning::Echo), _) => {}
            (None, _) | (_, None) => {
                tracing::debug!(database = &*exchange.database, %id, "an entry that is no pgweir's")
            }
        }
    }
}

/// Entries of one stream read at once: where there are so many, the stream may have lost some.
fn count_max(stream_max: u32) -> usize {
    COUNT_MAX.min(stream_max) as usize
}

fn xinfo(key: &str) -> Cmd {
    let mut command = cmd("XINFO");
    command.arg("STREAM").arg(key);
    command
}

/// Creates the stream, empty, unless somebody else has by now.
async fn create(connection: &mut MultiplexedConnection, key: &str) -> RedisResult<StreamState> {
    let mut commands = pipe();
    commands.atomic();
    commands.cmd("XGROUP").arg("CREATE").arg(key).arg(GROUP).arg("$").arg("MKSTREAM").ignore();
    commands.cmd("XGROUP").arg("DESTROY").arg(key).arg(GROUP).ignore();
    commands.add_command(xinfo(key));
    let (state,) = commands.query_async(connection).await?;
    Ok(state)
}
