//! Ends leases: the ordinary release, and the backend of a client that went away in the middle of something.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::answers;
use super::cycle::CycleState;
use super::leased::{END_KEPT, Leased, RESET};
use super::notifications::{Notifications, Party};
use super::reply_action::{ReplyAction, Runs};
use super::session::Session;
use super::transaction::{TransactionFollower, TransactionLog};
use crate::config::PoolMode;
use crate::metrics::{CancelCause, PoolCounter, ProcessCounter};
use crate::pool::backend::{Backend, BackendHandle};
use crate::pool::in_use::InUse;
use crate::pool::lease::Lease;
use crate::pool::link::Link;
use crate::pool::pool::Pool;
use crate::session::context::Worker;
use crate::sql::StateFlags;
use crate::wire::build;
use crate::wire::expected::{Expect, ExpectedReply, TransactionStatus};
use crate::wire::frame::{HEADER_LEN, Piece};
use crate::wire::tag::backend;

/// Time for a vanished client's query to finish by itself: it may have been sent together with the Terminate.
const GRACE: Duration = Duration::from_millis(100);

/// Time for a server process to end before it is looked for again.
const TERMINATE_PAUSE: Duration = Duration::from_millis(5);

/// Longest time between two cancels of a query that ignores them: each cancel costs the server a process.
const GRACE_MAX: Duration = Duration::from_secs(1);

/// Releases a backend that has nothing outstanding; if a cancel is still on its way to it, only once that has arrived.
#[inline]
pub(crate) fn release(worker: &Rc<Worker>, lease: Lease, cycle: Box<CycleState>, now: Instant) {
    if cycle.replies().is_doubtful() {
        // One more ReadyForQuery may come: the lease is dropped, which closes its backend.
        return;
    }
    worker.keep_cycle(cycle);
    if !lease.target.is_aimed_at() {
        lease.release(now);
        return;
    }
    let target = lease.target.clone();
    let limit = worker.proxy.cancel_timeout();
    tokio::task::spawn_local(async move {
        // A cancel that hangs may hit the next client of this backend: then the lease is dropped, and the backend
        // closed.
        if timeout(limit, target.settle()).await.is_ok() {
            lease.release(Instant::now());
        }
    });
}

/// The client is gone. Cleans its backend in a task of its own, or closes it.
pub(crate) fn begin(worker: &Rc<Worker>, leased: Leased, session: &mut Session, is_mid_frame: bool) {
    let can_release = leased.cycle.can_release();
    let is_owned = session.mode == PoolMode::Session || session.is_pinned() || !session.pins.is_settled();
    // Half a message cannot be taken back, a library cannot be unloaded, nor its like be ended.
    let is_lost = is_mid_frame
        || !leased.cycle.backend.buffer.is_empty()
        || session.pins.may_hold(StateFlags::KEPT)
        || leased.cycle.replies().is_doubtful()
        || session.pool.is_dedicated();
    if can_release && is_lost {
        return;
    }
    if can_release && !is_owned && !leased.lease.is_dirty {
        release(worker, leased.lease, leased.cycle, Instant::now());
        return;
    }
    if !can_release {
        session.pool.stats.worker(worker.id).add(PoolCounter::Zombies);
    }
    if leased.cycle.has_units_behind() {
        abandon(worker, leased, session.pool.clone());
    } else if is_lost {
        let limit = session.pool.settings().pool.cancel_timeout;
        let worker = Rc::clone(worker);
        let departed = DepartedClient::of(session, &leased.cycle);
        tokio::task::spawn_local(async move {
            // Past the limit the lease is dropped, and the backend closed; its slot counts until the server has ended
            // it.
            let _ = timeout(limit, end(&worker, leased, departed)).await;
        });
    } else {
        take_back(worker, leased, session);
    }
}

/// Gives a backend up that does not answer: its slot is a zombie from now on. The cancels go on for a while, because a
/// query may hear them late.
pub(crate) fn give_up(worker: &Rc<Worker>, leased: Leased, session: &Session) {
    session.pool.stats.worker(worker.id).add(PoolCounter::Zombies);
    if leased.cycle.has_units_behind() {
        return abandon(worker, leased, session.pool.clone());
    }
    let target = leased.lease.target.clone();
    let limit = session.pool.settings().pool.cancel_timeout;
    drop(leased);
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let cancels = async {
            let mut grace = GRACE;
            loop {
                cancel(&worker, &target).await;
                sleep(grace).await;
                grace = (grace * 2).min(GRACE_MAX);
            }
        };
        let _ = timeout(limit, cancels).await;
    });
}

/// Gives a backend up at which more statements wait behind the one that runs. The server has them already, and cancels
/// would come between two of them at best; so the connection is reset, behind which no statement begins, and the server
/// process is ended from another one.
fn abandon(worker: &Rc<Worker>, mut leased: Leased, pool: InUse<Pool>) {
    let socket = leased.lease.stream.socket();
    let port = socket.local_addr().map_or(-1, |addr| i32::from(addr.port()));
    leased.lease.stream.reset();
    let limit = pool.settings().pool.cancel_timeout;
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let ends = async {
            if terminate(&worker, &leased, pool, port).await.is_none() {
                // There is no other connection to be had. The end of the process cannot be seen.
                let mut grace = GRACE;
                loop {
                    cancel(&worker, &leased.lease.target).await;
                    sleep(grace).await;
                    grace = (grace * 2).min(GRACE_MAX);
                }
            }
        };
        let _ = timeout(limit, ends).await;
    });
}

/// Ends the server process behind a reset connection, and waits until it has ended. `None`: this cannot be done.
async fn terminate(worker: &Rc<Worker>, leased: &Leased, pool: InUse<Pool>, port: i32) -> Option<()> {
    let pid = leased.lease.target.pid()?;
    let mut link = Link::open(worker.proxy.pools.opener(), pool, "pgweir cleanup").await.ok()?;
    // The process id may be another proxy's invention, and then that of somebody else here: the port must match, too.
    let sql = format!(
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
         WHERE pid OPERATOR(pg_catalog.=) {pid} AND client_port OPERATOR(pg_catalog.=) ({port})"
    );
    let mut pause = TERMINATE_PAUSE;
    while link.ask(sql.as_bytes(), drop).await.ok()?.ok()?.is_some() {
        sleep(pause).await;
        pause = (pause * 2).min(GRACE_MAX);
    }
    Some(())
}

/// Cleans a backend in any state; past the limit it is closed.
pub(crate) fn take_back(worker: &Rc<Worker>, leased: Leased, session: &mut Session) {
    let limit = session.pool.settings().pool.cancel_timeout;
    let worker = Rc::clone(worker);
    let departed = DepartedClient::of(session, &leased.cycle);
    tokio::task::spawn_local(async move {
        if let Ok(Some(leased)) = timeout(limit, restore(&worker, leased, departed)).await {
            release(&worker, leased.lease, leased.cycle, Instant::now());
        }
    });
}

/// Ends the work of a backend that cannot be used again, and waits until the server has ended it, too.
async fn end(worker: &Rc<Worker>, mut leased: Leased, mut departed: DepartedClient) {
    leased.lease.stream.hang_up(b"").await;
    // A server at work does not notice the end of its connection, and a cancel ends only one query of a pipeline.
    let mut grace = GRACE;
    while timeout(grace, see_out(&mut leased, &mut departed)).await.is_err() {
        cancel(worker, &leased.lease.target).await;
        grace = (grace * 2).min(GRACE_MAX);
    }
}

/// Waits until the server has ended a connection.
async fn see_out(leased: &mut Leased, departed: &mut DepartedClient) {
    drain(leased, departed).await;
    leased.lease.stream.closed().await;
}

/// Ends the work under way, rolls back and resets.
async fn restore(worker: &Rc<Worker>, mut leased: Leased, mut departed: DepartedClient) -> Option<Leased> {
    end_unit(&mut leased).await?;
    // A cancel ends one query of a pipeline, so there may have to be several.
    let (mut grace, mut outstanding) = (GRACE, None);
    loop {
        match timeout(grace, drain(&mut leased, &mut departed)).await {
            Ok(drained) => break drained?,
            Err(_) if leased.cycle.replies().is_copying_in() => end_unit(&mut leased).await?,
            Err(_) => {
                let before = outstanding.replace(leased.cycle.replies().len());
                grace = if before == outstanding { (grace * 2).min(GRACE_MAX) } else { GRACE };
                cancel(worker, &leased.lease.target).await;
            }
        }
    }
    if leased.cycle.replies().status() != TransactionStatus::Idle {
        ask(&mut leased, &mut departed, b"ROLLBACK").await?;
    }
    // The effects of its last statements on the session are unknown: nobody followed them.
    ask(&mut leased, &mut departed, RESET).await?;
    if departed.pool.resets_always.load(Ordering::Relaxed) {
        ask(&mut leased, &mut departed, END_KEPT).await?;
    }
    let backend: &mut Backend = &mut leased.lease;
    backend.forget_session(worker.proxy.settings.none());
    Some(leased)
}

async fn cancel(worker: &Rc<Worker>, target: &Arc<BackendHandle>) {
    worker.proxy.process.add(ProcessCounter::Cancels(CancelCause::Zombie));
    let aim = target.aim();
    let _ = worker.proxy.pools.opener().cancel(aim.target()).await;
}

/// Completes the client's open unit so that it fails: a Sync alone would commit the part that was executed before it.
async fn end_unit(leased: &mut Leased) -> Option<()> {
    let cycle = &mut *leased.cycle;
    let mut bytes = Vec::new();
    if cycle.replies().is_copying_in() {
        build::copy_fail(&mut bytes, b"client gone");
        cycle.expect_own(Expect::CopyEnd, None);
    } else if cycle.replies().is_unsynced() && !cycle.replies().is_skipping() {
        build::parse(&mut bytes, b"", b"client gone\0\0\0");
        cycle.expect_own(Expect::Parse, None);
    }
    if cycle.replies().is_unsynced() || cycle.replies().is_skipping() {
        bytes.extend_from_slice(build::SYNC);
        cycle.expect_own(Expect::Sync, None);
    }
    send(leased, &bytes).await
}

async fn ask(leased: &mut Leased, departed: &mut DepartedClient, sql: &[u8]) -> Option<()> {
    let mut bytes = Vec::new();
    leased.cycle.take_refusal();
    leased.cycle.query(&mut bytes, sql, ReplyAction::Resets);
    send(leased, &bytes).await?;
    drain(leased, departed).await?;
    leased.cycle.take_refusal().is_none().then_some(())
}

async fn send(leased: &mut Leased, bytes: &[u8]) -> Option<()> {
    leased.cycle.backend.buffer.bytes().extend_from_slice(bytes);
    poll_fn(|cx| match leased.flush(cx) {
        Err(_) => Poll::Ready(None),
        Ok(()) if leased.cycle.backend.buffer.is_empty() => Poll::Ready(Some(())),
        Ok(()) => Poll::Pending,
    })
    .await
}

/// Reads and drops answers until nothing is outstanding. `None`: the backend is gone or broke the protocol.
async fn drain(leased: &mut Leased, departed: &mut DepartedClient) -> Option<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        while leased.cycle.pop_synthetic().is_some() {}
        if leased.cycle.replies().is_quiet() && leased.cycle.backend.is_at_boundary() {
            return Some(());
        }
        let n = poll_fn(|cx| leased.lease.stream.poll_read_once(cx, &mut buffer)).await.ok().filter(|n| *n > 0)?;
        let mut input = &buffer[..n];
        let cycle = &mut *leased.cycle;
        let mut walker = cycle.backend.take_walker();
        while let Some(piece) = walker.next(&mut input, answers::want).ok()? {
            let Piece::Head { tag, bytes, .. } = piece else { continue };
            let answer = cycle.answer(tag, bytes).ok()?;
            departed.follow(tag, &bytes[HEADER_LEN..], answer.completed, cycle);
            while cycle.pop_synthetic().is_some() {}
        }
        cycle.backend.put_walker(walker);
        let dropped = cycle.take_dropped();
        cycle.put_dropped(dropped);
    }
}

/// A client that has gone from its backend: only the notifications of its session are left, and a transaction that
/// commits after all sends them.
struct DepartedClient {
    notifications: Notifications,
    pid: i32,
    pool: InUse<Pool>,
    log: TransactionLog,
}

impl DepartedClient {
    fn of(session: &mut Session, cycle: &CycleState) -> Self {
        Self {
            notifications: session.notifications.part(),
            pid: session.entry.pid,
            pool: session.pool.clone(),
            log: cycle.log(),
        }
    }

    /// Handles one answer, to the client or to us: the end of the client's last unit is a message of ours.
    fn follow(
        &mut self,
        tag: u8,
        body: &[u8],
        mut completed: Option<ExpectedReply<ReplyAction>>,
        cycle: &mut CycleState,
    ) {
        let mut log = self.log;
        match tag {
            backend::COMMAND_COMPLETE | backend::PORTAL_SUSPENDED => {
                let text = body.strip_suffix(b"\0").filter(|_| tag == backend::COMMAND_COMPLETE).unwrap_or_default();
                let status = cycle.replies().status();
                let entry = completed.as_mut().or_else(|| cycle.head_mut());
                let runs = entry.and_then(|entry| match &mut entry.action {
                    Some(ReplyAction::Runs(runs)) => Some(&mut **runs),
                    _ => None,
                });
                log.statement(runs, text, status, self);
            }
            backend::NOTICE_RESPONSE => drop(self.notifications.hear(body)),
            backend::ERROR_RESPONSE => {
                log.error();
                cycle.refused(Box::default());
            }
            backend::READY_FOR_QUERY => log.ready(cycle.replies().status(), self),
            _ => {}
        }
        self.log = log;
    }
}

impl TransactionFollower for DepartedClient {
    fn completed(&mut self, runs: &mut Runs, tag: &[u8]) {
        self.notifications.completed(runs, tag);
    }

    fn tagged(&mut self, tag: &[u8], is_partial: bool) {
        let party = Party { pid: self.pid, pool: &self.pool, entry: None };
        self.notifications.tagged(tag, is_partial, party);
    }

    fn ended(&mut self, has_failed: bool) {
        let party = Party { pid: self.pid, pool: &self.pool, entry: None };
        self.notifications.ended(has_failed, party);
    }
}
