//! Ends leases: the ordinary release, and the backend of a client that went away in the middle of something.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::answers;
use super::leased::{Books, Leased};
use super::note::Note;
use super::notifications::{Notifications, Party};
use super::session::Session;
use crate::config::PoolMode;
use crate::metrics::{CancelCause, PoolCounter, ProcessCounter};
use crate::pool::backend::Backend;
use crate::pool::in_use::InUse;
use crate::pool::lease::Lease;
use crate::pool::pool::Pool;
use crate::session::context::Worker;
use crate::sql::Suspects;
use crate::wire::build;
use crate::wire::frame::{HEADER_LEN, Piece};
use crate::wire::ring::{Entry, Expect, Origin, Ring, TransactionStatus};
use crate::wire::tag::{backend, frontend};

/// Takes a session back to what it was after login.
pub const RESET: &[u8] = b"DISCARD ALL";

/// A vanished client's query may finish by itself this long: it may have been sent together with the goodbye.
const GRACE: Duration = Duration::from_millis(100);

/// Longest time between two cancels of a query that pays them no heed: each costs the server a process.
const GRACE_MAX: Duration = Duration::from_secs(1);

/// Gives a backend back that is at rest; if a cancel is still under way to it, once that has arrived.
#[inline]
pub fn release(worker: &Rc<Worker>, lease: Lease, books: Box<Books>, now: Instant) {
    if books.ring.is_doubtful() {
        // One more ReadyForQuery may come: dropped, the lease closes its backend.
        return;
    }
    worker.keep_books(books);
    if !lease.target.is_aimed_at() {
        lease.release(now);
        return;
    }
    let target = lease.target.clone();
    let limit = worker.proxy.cancel_timeout();
    tokio::task::spawn_local(async move {
        // A cancel that hangs may hit whoever comes next: then the lease is dropped, and the backend closed.
        if timeout(limit, target.settle()).await.is_ok() {
            lease.release(Instant::now());
        }
    });
}

/// The client is gone. Brings its backend back to rest in a task of its own, or closes it.
pub fn begin(worker: &Rc<Worker>, leased: Leased, session: &mut Session, is_mid_frame: bool) {
    let is_at_rest = leased.books.ring.is_at_rest() && leased.books.walker.is_at_boundary();
    let is_owned = session.mode == PoolMode::Session || session.is_pinned() || !session.pins.is_settled();
    // Half a message cannot be taken back, a library cannot be unloaded.
    let is_lost = is_mid_frame
        || !leased.books.spill.is_empty()
        || session.pins.may_hold(Suspects::LOAD)
        || leased.books.ring.is_doubtful()
        || session.pool.is_dedicated();
    if is_at_rest && is_lost {
        return;
    }
    if is_at_rest && !is_owned && !leased.lease.is_soiled {
        release(worker, leased.lease, leased.books, Instant::now());
        return;
    }
    if !is_at_rest {
        session.pool.stats.worker(worker.id).add(PoolCounter::Zombies);
    }
    if is_lost {
        let limit = session.pool.settings().pool.cancel_timeout;
        let worker = Rc::clone(worker);
        let legacy = Legacy::of(session, &leased.books);
        tokio::task::spawn_local(async move {
            // Past the limit the lease is dropped, and the backend closed; its slot counts until the server has ended it.
            let _ = timeout(limit, end(&worker, leased, legacy)).await;
        });
    } else {
        take_back(worker, leased, session);
    }
}

/// Brings a backend back to rest, whatever is open there; past the limit it is closed.
pub fn take_back(worker: &Rc<Worker>, leased: Leased, session: &mut Session) {
    let limit = session.pool.settings().pool.cancel_timeout;
    let worker = Rc::clone(worker);
    let legacy = Legacy::of(session, &leased.books);
    tokio::task::spawn_local(async move {
        if let Ok(Some(leased)) = timeout(limit, restore(&worker, leased, legacy)).await {
            release(&worker, leased.lease, leased.books, Instant::now());
        }
    });
}

/// Ends what is under way at a backend that cannot be used again, and waits until the server has ended it, too.
async fn end(worker: &Rc<Worker>, mut leased: Leased, mut legacy: Legacy) {
    leased.lease.stream.hang_up(b"").await;
    // A server at work does not look for the end of its connection, and a cancel ends one query of a pipeline.
    let mut grace = GRACE;
    while timeout(grace, see_out(&mut leased, &mut legacy)).await.is_err() {
        cancel(worker, &leased).await;
        grace = (grace * 2).min(GRACE_MAX);
    }
}

/// Waits until the server has ended a connection.
async fn see_out(leased: &mut Leased, legacy: &mut Legacy) {
    drain(leased, legacy).await;
    leased.lease.stream.closed().await;
}

/// Ends what is under way, rolls back and resets.
async fn restore(worker: &Rc<Worker>, mut leased: Leased, mut legacy: Legacy) -> Option<Leased> {
    end_unit(&mut leased).await?;
    // A cancel ends one query of a pipeline, so there may have to be several.
    let (mut grace, mut outstanding) = (GRACE, None);
    loop {
        match timeout(grace, drain(&mut leased, &mut legacy)).await {
            Ok(drained) => break drained?,
            Err(_) if leased.books.ring.is_copying_in() => end_unit(&mut leased).await?,
            Err(_) => {
                let before = outstanding.replace(leased.books.ring.len());
                grace = if before == outstanding { (grace * 2).min(GRACE_MAX) } else { GRACE };
                cancel(worker, &leased).await;
            }
        }
    }
    if leased.books.ring.status() != TransactionStatus::Idle {
        ask(&mut leased, &mut legacy, b"ROLLBACK").await?;
    }
    // What its last statements did to the session nobody followed.
    ask(&mut leased, &mut legacy, RESET).await?;
    let backend: &mut Backend = &mut leased.lease;
    backend.forget_session(worker.proxy.settings.none());
    Some(leased)
}

async fn cancel(worker: &Rc<Worker>, leased: &Leased) {
    worker.proxy.process.add(ProcessCounter::Cancels(CancelCause::Zombie));
    let aim = leased.lease.target.aim();
    let _ = worker.proxy.pools.opener().cancel(aim.target()).await;
}

/// Completes what the client left open so that it fails: a Sync alone would commit what was executed before it.
async fn end_unit(leased: &mut Leased) -> Option<()> {
    let ring = &mut leased.books.ring;
    let mut bytes = Vec::new();
    if ring.is_copying_in() {
        build::frame(&mut bytes, frontend::COPY_FAIL, |out| build::cstring(out, b"client gone"));
        ring.push(Expect::CopyEnd, Origin::Own, None);
    } else if ring.is_unsynced() && !ring.is_skipping() {
        build::parse(&mut bytes, b"", b"client gone\0\0\0");
        ring.push(Expect::Parse, Origin::Own, None);
    }
    if ring.is_unsynced() || ring.is_skipping() {
        bytes.extend_from_slice(build::SYNC);
        ring.push(Expect::Sync, Origin::Own, None);
    }
    send(leased, &bytes).await
}

async fn ask(leased: &mut Leased, legacy: &mut Legacy, sql: &[u8]) -> Option<()> {
    let mut bytes = Vec::new();
    leased.books.refusal = None;
    leased.books.query(&mut bytes, sql, Note::Resets);
    send(leased, &bytes).await?;
    drain(leased, legacy).await?;
    leased.books.refusal.is_none().then_some(())
}

async fn send(leased: &mut Leased, bytes: &[u8]) -> Option<()> {
    leased.books.spill.buffer().extend_from_slice(bytes);
    poll_fn(|cx| match leased.flush(cx) {
        Err(_) => Poll::Ready(None),
        Ok(()) if leased.books.spill.is_empty() => Poll::Ready(Some(())),
        Ok(()) => Poll::Pending,
    })
    .await
}

/// Reads and drops answers until nothing is outstanding. `None`: the backend is gone or makes no sense.
async fn drain(leased: &mut Leased, legacy: &mut Legacy) -> Option<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        while leased.books.ring.pop_synthetic().is_some() {}
        if leased.books.ring.is_quiet() && leased.books.walker.is_at_boundary() {
            return Some(());
        }
        let n = poll_fn(|cx| leased.lease.stream.poll_read_once(cx, &mut buffer)).await.ok().filter(|n| *n > 0)?;
        let mut input = &buffer[..n];
        let Books { walker, ring, dropped, refusal, .. } = &mut *leased.books;
        while let Some(piece) = walker.next(&mut input, answers::want).ok()? {
            let Piece::Head { tag, bytes, .. } = piece else { continue };
            let status = bytes
                .get(HEADER_LEN)
                .copied()
                .and_then(TransactionStatus::from_byte)
                .filter(|_| tag == backend::READY_FOR_QUERY);
            let answer = ring.answer(tag, status, dropped).ok()?;
            legacy.follow(tag, &bytes[HEADER_LEN..], answer.completed, ring);
            while ring.pop_synthetic().is_some() {}
            if tag == backend::ERROR_RESPONSE {
                *refusal = Some(build::ServerError { code: String::new(), message: String::new() });
            }
        }
        dropped.clear();
    }
}

/// What is left of a client at its backend: a transaction that commits after all has notified of what it said.
struct Legacy {
    notifications: Notifications,
    pid: i32,
    pool: InUse<Pool>,
    has_failed: bool,
}

impl Legacy {
    fn of(session: &mut Session, books: &Books) -> Self {
        Self {
            notifications: session.notifications.part(),
            pid: session.entry.pid,
            pool: session.pool.clone(),
            has_failed: books.is_failed,
        }
    }

    /// Takes account of one answer, whoever asked: what ends the client's last unit is ours.
    fn follow(&mut self, tag: u8, body: &[u8], completed: Option<Entry<Note>>, ring: &mut Ring<Note>) {
        let party = Party { pid: self.pid, pool: &self.pool, entry: None };
        match tag {
            backend::COMMAND_COMPLETE | backend::PORTAL_SUSPENDED => {
                let tag = body.strip_suffix(b"\0").filter(|_| tag == backend::COMMAND_COMPLETE).unwrap_or_default();
                let mut completed = completed;
                let entry = completed.as_mut().or_else(|| ring.head_mut());
                let mut is_partial = false;
                if let Some(Note::Runs(runs)) = entry.and_then(|entry| entry.note.as_mut()) {
                    runs.advance();
                    self.notifications.completed(runs, tag);
                    is_partial = runs.is_partial();
                }
                self.notifications.tagged(tag, is_partial, party);
            }
            backend::NOTICE_RESPONSE => drop(self.notifications.hear(body)),
            backend::ERROR_RESPONSE => self.has_failed = true,
            backend::READY_FOR_QUERY => {
                let has_failed = std::mem::take(&mut self.has_failed);
                if ring.status() == TransactionStatus::Idle {
                    self.notifications.ended(has_failed, party);
                }
            }
            _ => {}
        }
    }
}
