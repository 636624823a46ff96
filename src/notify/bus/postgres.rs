//! Postgres as the bus: one connection that sends for everybody, so that one backend takes the server's lock instead of
//! each.
//!
//! Waiting entries go out as one batch; while that is under way the next one collects. Entries that the server has not
//! confirmed are sent again over the next connection, so a connection lost in the middle may double notifications, and
//! never loses any.

use std::collections::VecDeque;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::batch;
use super::carrier::{Carrier, Carrying, Way};
use crate::notify::exchange::Exchange;
use crate::notify::outbox::{Outbox, OutboxEntry};
use crate::notify::senders::Senders;
use crate::pool::backoff::Backoff;
use crate::pool::link::{BACKOFF_MAX, Link, LinkError, Said};
use crate::pool::open::Opener;
use crate::wire::build::ServerError;

/// Most notifications in one batch: a batch must not wait for the lock longer than one writer's transaction should.
const BATCH_MAX: usize = 100;

/// Shortest time from the start of a batch to the start of the next, unless it was full: each batch costs the server a
/// transaction.
const PACE: Duration = Duration::from_millis(1);

/// A sender that has had nothing to send for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct PostgresBus;

impl Carrier for PostgresBus {
    fn carry<'a>(&'a self, way: Way<'a>) -> Carrying<'a> {
        Box::pin(send(way, way.exchange.outbox()))
    }
}

/// Sends every entry that is in `outbox` or comes into it, and removes those that the server has. Never ends; dropped
/// at any time, it loses nothing.
pub(super) async fn send(way: Way<'_>, outbox: &Outbox) {
    let Way { exchange, opener, senders } = way;
    let mut sender = PostgresSender { exchange, outbox, opener, senders, connection: None };
    let mut backoff = Backoff::up_to(BACKOFF_MAX);
    loop {
        let batch = sender.next_batch().await;
        let begun = Instant::now();
        match sender.send(&batch).await {
            Ok(()) => {
                backoff.succeeded();
                if batch.len() < BATCH_MAX {
                    sleep_until(begun + PACE).await;
                }
            }
            Err(error) => {
                sender.give_up(&error).await;
                let wait = backoff.failed(fastrand::f64());
                let database = &*exchange.database;
                tracing::warn!(database, %error, queued = outbox.depth(), ?wait, "notifications cannot be sent");
                sleep(wait).await;
            }
        }
    }
}

struct PostgresSender<'a> {
    exchange: &'a Exchange,
    outbox: &'a Outbox,
    opener: &'a Opener,
    senders: &'a Arc<Senders>,
    connection: Option<Connection>,
}

/// A connection that the bridge knows of as long as it lives, and a while longer.
struct Connection {
    link: Link,
    senders: Arc<Senders>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.senders.ended(self.link.pid(), Instant::now());
    }
}

impl PostgresSender<'_> {
    /// Waits for the next batch. Looks after the connection meanwhile.
    async fn next_batch(&mut self) -> Vec<OutboxEntry> {
        loop {
            let Some(Connection { link, .. }) = &mut self.connection else {
                return self.outbox.next_batch(BATCH_MAX).await;
            };
            let leave = link.leave();
            tokio::select! {
                batch = self.outbox.next_batch(BATCH_MAX) => return batch,
                // Nothing was asked, so only the end of the connection matters.
                said = link.said() => if said.is_err() {
                    self.connection = None;
                },
                () = leave.notified() => self.connection = None,
                () = sleep(IDLE_MAX) => self.connection = None,
            }
        }
    }

    /// Sends a batch, which is the front of the outbox, in order. Entries that the server has, or will never take, are
    /// out of the outbox then.
    async fn send(&mut self, batch: &[OutboxEntry]) -> Result<(), LinkError> {
        let outbox = self.outbox;
        let link = self.link().await?;
        let mut parts = VecDeque::new();
        let mut rest = batch;
        for length in batch::transactions(batch.iter().map(|entry| &entry.notification)) {
            let (part, later) = rest.split_at(length);
            parts.push_back(part);
            rest = later;
        }
        put(link, parts.iter().copied()).await?;
        let mut outcomes = VecDeque::new();
        for _ in 0..parts.len() {
            outcomes.push_back(outcome(link).await?);
            // The front leaves at once: later parts may break the connection, and everything left is sent again.
            while let Some(Ok(())) = outcomes.front() {
                outcomes.pop_front();
                outbox.accepted(parts.pop_front().map_or(0, <[_]>::len));
            }
        }
        for (part, outcome) in parts.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => outbox.accepted(part.len()),
                Err(error) if is_about_content(&error) => send_each(link, outbox, part).await?,
                Err(error) => return Err(LinkError::Server(error)),
            }
        }
        Ok(())
    }

    /// The connection is of no use any more.
    async fn give_up(&mut self, error: &LinkError) {
        if let (Some(connection), LinkError::Silent(_)) = (&self.connection, error) {
            // The query may be waiting for the lock: in any case, the next connection sends the same batch.
            connection.link.cancel(self.opener).await;
        }
        self.connection = None;
    }

    /// The connection, opened if there is none.
    async fn link(&mut self) -> Result<&mut Link, LinkError> {
        if self.connection.as_ref().is_some_and(|connection| connection.link.has_moved()) {
            self.connection = None;
        }
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(&mut self.connection.insert(connection).link)
    }

    async fn connect(&self) -> Result<Connection, LinkError> {
        let pool = self.exchange.login().ok_or(LinkError::NoLogin)?;
        let link = Link::open(self.opener, pool, "pgweir notify").await?;
        self.senders.began(link.pid());
        tracing::debug!(database = &*self.exchange.database, pid = link.pid(), "notifications can be sent");
        Ok(Connection { link, senders: Arc::clone(self.senders) })
    }
}

/// Sends parts of a batch, a transaction each.
async fn put(link: &mut Link, parts: impl Iterator<Item = &[OutboxEntry]>) -> Result<(), LinkError> {
    let mut out = Vec::new();
    for part in parts {
        let notifications: Vec<_> = part.iter().map(|entry| &entry.notification).collect();
        batch::transaction(&mut out, &notifications);
    }
    link.send(&out).await
}

/// How a transaction ended.
async fn outcome(link: &mut Link) -> Result<Result<(), ServerError>, LinkError> {
    let mut outcome = Ok(());
    loop {
        match link.answer().await? {
            Said::Refused(error) => outcome = Err(error),
            Said::Ready => return Ok(outcome),
            Said::Row(_) | Said::Heard(_) => {}
        }
    }
}

/// Sends the entries of a refused part one by one, and gives up those that the server does not take.
async fn send_each(link: &mut Link, outbox: &Outbox, part: &[OutboxEntry]) -> Result<(), LinkError> {
    for entry in part.chunks(1) {
        put(link, iter::once(entry)).await?;
        match outcome(link).await? {
            Ok(()) => outbox.accepted(1),
            Err(error) if is_about_content(&error) => {
                tracing::warn!(code = error.code, error = error.message, "the server does not take a notification");
                outbox.give_up(1);
            }
            Err(error) => return Err(LinkError::Server(error)),
        }
    }
    Ok(())
}

/// The same entry would be refused every time: data exceptions (22), and syntax (42). Rights of the sender's role
/// (42501) are not the entry's, and another role may have them.
fn is_about_content(error: &ServerError) -> bool {
    error.code.starts_with("22") || error.code.starts_with("42") && error.code != "42501"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_entry_is_dropped_for_the_rights_of_the_sender() {
        let error = |code: &str| ServerError { code: code.into(), message: String::new() };
        assert!(!is_about_content(&error("42501")));
        assert!(!is_about_content(&error("57014")));
        assert!(is_about_content(&error("22023")));
        assert!(is_about_content(&error("42601")));
    }
}
