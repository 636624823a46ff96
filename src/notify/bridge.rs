//! Hears the server's notifications that pgweir did not intercept: those of triggers, functions, other programs, other
//! processes of pgweir.
//!
//! One connection for each database that somebody listens in. It listens to each channel once, however many clients
//! want it, and hands its notifications to the listeners here. If it is lost, a gap is reported to them:
//! notifications made meanwhile are gone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};

use super::exchange::Exchange;
use super::notification::Notification;
use super::senders::Senders;
use crate::config;
use crate::pool::backoff::Backoff;
use crate::pool::link::{BACKOFF_MAX, Heard, Link, LinkError, Said};
use crate::pool::open::Opener;
use crate::sql::quote_identifier;
use crate::wire::build::ServerError;

/// How often the server is asked whether it is still there: nothing else shows that a silent one is dead.
const CHECK_EVERY: Duration = Duration::from_secs(15);

/// Kept so long after the last listener left.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// LISTENs in one Query: as many as a message of moderate length holds.
const AT_ONCE: usize = 1000;

/// Bridges `exchange` to its server, whenever somebody listens. Never ends.
pub(crate) async fn run(
    exchange: &Exchange,
    opener: &Opener,
    senders: &Senders,
    mut reloads: watch::Receiver<Arc<config::Notify>>,
) {
    let mut backoff = Backoff::up_to(BACKOFF_MAX);
    let database = &*exchange.database;
    loop {
        while !exchange.has_listeners() {
            exchange.wants().await;
        }
        let mut bridge = match open(exchange, opener, senders).await {
            Ok(bridge) => bridge,
            Err(error) => {
                let wait = backoff.failed(fastrand::f64());
                tracing::warn!(database, %error, ?wait, "the server cannot be listened to");
                sleep(wait).await;
                continue;
            }
        };
        tracing::debug!(database, pid = bridge.link.pid(), "listening on the server");
        if let Err(error) = bridge.serve(&mut backoff, &mut reloads).await {
            tracing::warn!(database, %error, "the server is not listened to any more");
            let is_gap = bridge.in_place > 0;
            drop(bridge);
            if is_gap {
                exchange.lost();
            }
            sleep(backoff.failed(fastrand::f64())).await;
        }
    }
}

async fn open<'a>(exchange: &'a Exchange, opener: &Opener, senders: &'a Senders) -> Result<Bridge<'a>, LinkError> {
    let pool = exchange.login().ok_or(LinkError::NoLogin)?;
    let link = Link::open(opener, pool, "pgweir listen").await?;
    Ok(Bridge { exchange, senders, link, refused: HashSet::new(), in_place: 0 })
}

struct Bridge<'a> {
    exchange: &'a Exchange,
    senders: &'a Senders,
    link: Link,
    /// Channels that the server refused to listen to. A client that wants one waits in vain, which is reported to it.
    refused: HashSet<Bytes>,
    /// Channels it listens to.
    in_place: usize,
}

impl Bridge<'_> {
    /// Serves until nobody has listened for a while, or the connection is of no use.
    async fn serve(
        &mut self,
        backoff: &mut Backoff,
        reloads: &mut watch::Receiver<Arc<config::Notify>>,
    ) -> Result<(), LinkError> {
        let mut check = interval_at(Instant::now() + CHECK_EVERY, CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle_since = Instant::now();
        self.listen().await?;
        backoff.succeeded();
        let leave = self.link.leave();
        loop {
            if self.in_place > 0 {
                idle_since = Instant::now();
            }
            tokio::select! {
                said = self.link.said() => if let Said::Heard(heard) = said? {
                    hear(self.exchange, self.senders, heard);
                },
                () = self.exchange.wants() => self.listen().await?,
                () = self.exchange.queued() => self.catch_up().await?,
                _ = check.tick() => {
                    let (exchange, senders) = (self.exchange, self.senders);
                    self.link.check(|heard| hear(exchange, senders, heard)).await?;
                }
                // The notification settings do not matter here, but the server may be another one after a reload.
                Ok(()) = reloads.changed() => if self.link.has_moved() {
                    return Err(LinkError::Moved);
                },
                // For listeners it stays, as their own sessions would.
                () = leave.notified(), if self.in_place == 0 => return Ok(()),
                () = sleep_until(idle_since + IDLE_MAX), if self.in_place == 0 => return Ok(()),
            }
        }
    }

    /// Hears everything that the server has sent by now, and lets the notifications follow that wait behind it.
    ///
    /// A backend signals the listening ones before the answer to its COMMIT goes out (`SignalBackends`, `async.c`), and
    /// a listening one sends what it has been signalled before it says that it is ready (`PostgresMain`). So a Sync is
    /// answered behind the notifications of every transaction that we know to have committed.
    async fn catch_up(&mut self) -> Result<(), LinkError> {
        let count = self.exchange.behind();
        let (exchange, senders) = (self.exchange, self.senders);
        self.link.sync(|heard| hear(exchange, senders, heard)).await?;
        self.exchange.release(count);
        Ok(())
    }

    /// Makes the server listen to the wanted channels, and to no others.
    async fn listen(&mut self) -> Result<(), LinkError> {
        let (listen, unlisten) = self.exchange.difference();
        let (refused, listen): (Vec<_>, Vec<_>) =
            listen.into_iter().partition(|channel| self.refused.contains(channel));
        self.refused = refused.into_iter().collect();
        for channels in unlisten.chunks(AT_ONCE) {
            self.ask(&statements("UNLISTEN", channels)).await?.map_err(LinkError::Server)?;
            self.in_place = self.in_place.saturating_sub(channels.len());
        }
        for channels in listen.chunks(AT_ONCE) {
            match self.ask(&statements("LISTEN", channels)).await? {
                Ok(()) => self.now_in_place(channels),
                // One name that the server refuses must not keep the others away.
                Err(_) => self.listen_to_each(channels).await?,
            }
        }
        Ok(())
    }

    async fn listen_to_each(&mut self, channels: &[Bytes]) -> Result<(), LinkError> {
        for channel in channels.chunks(1) {
            match self.ask(&statements("LISTEN", channel)).await? {
                Ok(()) => self.now_in_place(channel),
                // 22: not of the server's encoding. Anything else says something about the connection.
                Err(error) if error.code.starts_with("22") => {
                    tracing::warn!(
                        database = &*self.exchange.database,
                        code = error.code,
                        "a channel cannot be listened to"
                    );
                    self.refused.extend(channel.iter().cloned());
                }
                Err(error) => return Err(LinkError::Server(error)),
            }
        }
        Ok(())
    }

    fn now_in_place(&mut self, channels: &[Bytes]) {
        self.in_place += channels.len();
        self.exchange.set_in_place(channels, true);
    }

    async fn ask(&mut self, sql: &[u8]) -> Result<Result<(), ServerError>, LinkError> {
        let (exchange, senders) = (self.exchange, self.senders);
        let answer = self.link.ask(sql, |heard| hear(exchange, senders, heard)).await?;
        Ok(answer.map(drop))
    }
}

/// Delivers a notification, unless our own sender sent it: those were delivered when they were published.
fn hear(exchange: &Exchange, senders: &Senders, heard: Heard) {
    let Heard { pid, channel, payload } = heard;
    if !senders.has(pid, Instant::now()) {
        exchange.deliver(pid, &Notification { channel, payload });
    }
}

/// The same command for each channel.
fn statements(command: &str, channels: &[Bytes]) -> Vec<u8> {
    let mut sql = Vec::new();
    for channel in channels {
        sql.extend_from_slice(command.as_bytes());
        sql.push(b' ');
        sql.extend_from_slice(&quote_identifier(channel));
        sql.push(b';');
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_quoted_whatever_is_in_their_names() {
        let channels = ["jobs", "Mixed Case", "a\"; DROP TABLE t; --"].map(Bytes::from);
        let sql = String::from_utf8(statements("LISTEN", &channels)).unwrap();
        assert_eq!(sql, r#"LISTEN "jobs";LISTEN "Mixed Case";LISTEN "a""; DROP TABLE t; --";"#);
    }
}
