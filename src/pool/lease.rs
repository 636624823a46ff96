//! The pools as sessions see them: ask for a backend, wait for it, give it back.
//!
//! [`Pools`] is the shell around the pure [`Core`]: one mutex, held for the length of one decision, and the decision's
//! commands, carried out after unlocking. It runs on worker threads only, since dials and closes are local tasks there.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep_until, timeout};

use super::backend::Backend;
use super::backend_registry::{BackendFacts, BackendRegistry};
use super::core::{
    Bottleneck, Command, Core, EndpointView, FailureKind, LeaseAnswer, PoolId, Progress, RoleQueueId, SlotId, Ticket,
    WaitError,
};
use super::host_port::ServerTarget;
use super::idle_check;
use super::open::{OpenError, Opener};
use super::pool::Pool;
use crate::metrics::{CloseReason, PoolCounter};
use crate::net::stream::Input;
use crate::wire::build;

/// A backend is boxed once, at its login, and moves as a pointer.
pub(crate) type Boxed = Box<Backend>;

/// Commands of one decision; empty, and so without an allocation, on the way of a lease that finds a backend.
pub(crate) type Commands = Vec<Command<Boxed>>;

/// All pools of the process.
#[derive(Debug)]
pub(crate) struct Pools {
    core: Mutex<Core<Boxed>>,
    by_id: Mutex<HashMap<PoolId, Arc<Pool>>>,
    opener: Opener,
    backends: BackendRegistry,
    zombie_max_millis: AtomicU64,
}

/// Why there is no backend.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum LeaseError {
    /// `pool.waiters_max` clients are waiting for this pool.
    #[error("the queue for a backend is full")]
    PoolFull { waiting: u32 },
    /// `roles.*.waiters_max` clients of this role are waiting.
    #[error("the queue of the role is full")]
    RoleFull { waiting: u32 },
    /// The queue of the lane is full, or the lane is and lets nobody wait.
    #[error("the lane is full")]
    LaneFull { waiting: u32 },
    /// It would have waited for much longer than `wait_timeout`.
    #[error("the queue moves too slowly to wait in")]
    Shed {
        waiting: u32,
        /// The time they will take.
        expected: Duration,
    },
    /// It waited for `wait_timeout`, for this.
    #[error("{0}")]
    TimedOut(Bottleneck),
    /// The endpoint stayed unreachable.
    #[error("the database cannot be reached")]
    Down,
    /// There stayed no reader that could be used.
    #[error("no reader can be used")]
    NoReader,
    /// The server refuses the login, with its own words.
    #[error("the database refuses the login")]
    Refused,
    /// The database or role left the configuration.
    #[error("the pool is gone")]
    Removed,
}

impl From<WaitError> for LeaseError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::EndpointDown => Self::Down,
            WaitError::NoReader => Self::NoReader,
            WaitError::TimedOut(bottleneck) => Self::TimedOut(bottleneck),
            WaitError::PoolFull { waiting } => Self::PoolFull { waiting },
            WaitError::RoleFull { waiting } => Self::RoleFull { waiting },
            WaitError::LaneFull { waiting } => Self::LaneFull { waiting },
            WaitError::Shed { waiting, expected } => Self::Shed { waiting, expected },
            WaitError::Refused => Self::Refused,
            WaitError::Removed => Self::Removed,
        }
    }
}

/// The outcome of a request for a backend.
#[derive(Debug)]
pub(crate) enum Ask {
    /// A backend, at once.
    Leased(Lease),
    Waits(Waiter),
}

/// Longest time for a server to close a connection that was idle, before its slot is taken to be free.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A backend idle for longer is checked by the kernel before a lease: the reactor may not have seen its end yet.
const FRESH: Duration = Duration::from_millis(50);

impl Pools {
    /// No pools yet.
    pub(crate) fn new(core: Core<Boxed>, opener: Opener) -> Self {
        Self {
            core: Mutex::new(core),
            by_id: Mutex::default(),
            opener,
            backends: BackendRegistry::default(),
            zombie_max_millis: AtomicU64::new(0),
        }
    }

    /// Longest time for which the slot of a given-up backend counts, unless its server ends it before.
    pub(crate) fn set_zombie_max(&self, limit: Duration) {
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.zombie_max_millis.store(millis, Ordering::Relaxed);
    }

    fn zombie_max(&self) -> Duration {
        Duration::from_millis(self.zombie_max_millis.load(Ordering::Relaxed))
    }

    /// The core, for one decision.
    pub(crate) fn core(&self) -> MutexGuard<'_, Core<Boxed>> {
        self.core.lock().expect("the core does not panic")
    }

    /// How connections are opened.
    pub(crate) fn opener(&self) -> &Opener {
        &self.opener
    }

    /// Every open backend.
    pub(crate) fn backends(&self) -> &BackendRegistry {
        &self.backends
    }

    /// Makes a pool findable for dials.
    pub(crate) fn register(&self, pool: Arc<Pool>) {
        self.registry().insert(pool.id, pool);
    }

    /// The pool with this id.
    pub(crate) fn pool(&self, id: PoolId) -> Option<Arc<Pool>> {
        self.registry().get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Pool>> {
        self.registry().values().cloned().collect()
    }

    /// Forgets pools whose last slot is gone.
    pub(crate) fn sweep(&self) {
        let core = self.core();
        self.registry().retain(|id, _| core.pool(*id).is_some());
    }

    fn registry(&self) -> MutexGuard<'_, HashMap<PoolId, Arc<Pool>>> {
        self.by_id.lock().expect("no panic while held")
    }

    /// Lets the core decide something and carries out its commands.
    ///
    /// `worker` is the one whose thread this is: backends dialled now belong to its reactor.
    #[inline]
    pub(crate) fn decide<R>(
        self: &Arc<Self>,
        worker: usize,
        decision: impl FnOnce(&mut Core<Boxed>, &mut Commands) -> R,
    ) -> R {
        let mut commands = Commands::new();
        let result = decision(&mut self.core(), &mut commands);
        if !commands.is_empty() {
            self.execute(worker, commands);
        }
        result
    }

    /// Waits for a backend of `pool`.
    pub(crate) async fn wait(self: &Arc<Self>, pool: &Arc<Pool>, worker: usize) -> Result<Lease, LeaseError> {
        let mut waiter = None;
        poll_fn(|cx| {
            let asked = match &mut waiter {
                None => self.lease(pool, None, worker, Instant::now(), cx),
                Some(waiter) => ready!(Waiter::poll(waiter, cx)),
            };
            match asked {
                Ok(Ask::Leased(lease)) => Poll::Ready(Ok(lease)),
                Ok(Ask::Waits(next)) => {
                    waiter = Some(next);
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error)),
            }
        })
        .await
    }

    /// Asks for a backend of `pool` on behalf of a client of `worker`, for a transaction of this lane.
    #[inline]
    pub(crate) fn lease(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        lane: Option<RoleQueueId>,
        worker: usize,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Result<Ask, LeaseError> {
        loop {
            match self.decide(worker, |core, out| core.lease_in(lane, pool.id, worker, now, cx.waker(), out)) {
                LeaseAnswer::Ready(slot, backend) => {
                    let lease = Lease::new(slot, backend, Arc::clone(self));
                    if let Some(lease) = lease.ready(pool, worker, now, cx) {
                        return Ok(Ask::Leased(lease));
                    }
                }
                LeaseAnswer::Wait(ticket) => {
                    return Ok(Ask::Waits(Waiter {
                        ticket: Some(ticket),
                        notice: None,
                        lane,
                        worker,
                        pool: Arc::clone(pool),
                        pools: Arc::clone(self),
                    }));
                }
                LeaseAnswer::Failed(error) => return Err(error.into()),
            }
        }
    }

    fn execute(self: &Arc<Self>, worker: usize, commands: Commands) {
        for command in commands {
            match command {
                Command::Dial { pool, slot, to } => self.dial(worker, pool, slot, to),
                Command::Close { slot, backend } => self.close(worker, slot, backend, CloseReason::Retired),
                Command::Wake(waker) => Waker::wake(waker),
                Command::Alarm(then) => self.alarm(worker, then),
            }
        }
    }

    /// Looks again at `then` for waiters that a rate or a spread lets in.
    fn alarm(self: &Arc<Self>, worker: usize, then: Instant) {
        let pools = Arc::clone(self);
        tokio::task::spawn_local(async move {
            sleep_until(then).await;
            pools.decide(worker, |core, out| core.alarm(Instant::now(), out));
        });
    }

    fn dial(self: &Arc<Self>, worker: usize, id: PoolId, slot: SlotId, to: Option<Arc<ServerTarget>>) {
        let pools = Arc::clone(self);
        tokio::task::spawn_local(async move {
            let pool = pools.pool(id);
            let opened = match &pool {
                Some(pool) => pools.opener.open(pool, to.as_deref(), worker).await,
                None => Err(OpenError::Removed),
            };
            if let (Some(pool), Ok(backend)) = (&pool, &opened) {
                pools.backends.enter(slot, BackendFacts::new(Arc::clone(pool), backend));
            }
            let now = Instant::now();
            let endpoint = |core: &Core<Boxed>| Some(core.database(core.pool(id)?.database)?.endpoint);
            let (before, after) = pools.decide(worker, |core, out| {
                let before = endpoint(core);
                match opened {
                    Ok(backend) => core.opened(slot, Box::new(backend), worker, now, out),
                    Err(error) => {
                        let kind = FailureKind::from(&error);
                        let is_refused = kind == FailureKind::Refused;
                        // The server took the clients' password back.
                        let was_proved = is_refused && pool.as_ref().is_some_and(|pool| pool.forget_proof(None));
                        if was_proved && error.is_denial() {
                            core.revoke_pool(id, out);
                        }
                        core.failed(slot, kind, now, out);
                    }
                }
                (before, endpoint(core))
            });
            if let (Some(pool), Some(before), Some(after)) = (pool, before, after) {
                tell_of_endpoint(&pool.name.database, before, after);
            }
        });
    }

    /// Ends a connection politely; its slot is free when the server has closed it, too. A server that is gone closes
    /// nothing, so there is a time limit.
    fn close(self: &Arc<Self>, worker: usize, slot: SlotId, mut backend: Boxed, reason: CloseReason) {
        let limit = match reason {
            CloseReason::Retired => CLOSE_TIMEOUT,
            CloseReason::Unfit => self.zombie_max(),
        };
        let pools = Arc::clone(self);
        tokio::task::spawn_local(async move {
            let goodbye = async {
                if backend.stream.adopt().is_ok() {
                    backend.stream.hang_up(build::TERMINATE).await;
                    backend.stream.closed().await;
                }
            };
            let _ = timeout(limit, goodbye).await;
            drop(backend);
            if let Some(closed) = pools.backends.leave(slot) {
                closed.pool.stats.worker(worker).add(PoolCounter::BackendsClosed(reason));
            }
            let now = Instant::now();
            pools.decide(worker, |core, out| core.closed(slot, now, out));
        });
    }
}

/// Tells when a server goes and comes back, once each.
fn tell_of_endpoint(database: &str, before: EndpointView, after: EndpointView) {
    match (before, after) {
        (EndpointView::Up | EndpointView::Busy, EndpointView::Down(_)) => {
            tracing::warn!(database, "the server does not answer; it is tried again until it does");
        }
        (EndpointView::Down(since), EndpointView::Up | EndpointView::Busy) => {
            tracing::info!(database, down_for = ?since.elapsed(), "the server answers again");
        }
        _ => {}
    }
}

/// The right to use one backend. Dropped without [`Lease::release`], the backend is closed: a holder that lets go of it
/// in an unchecked state cannot harm the next.
#[derive(Debug)]
#[must_use = "a dropped lease closes its backend"]
pub(crate) struct Lease {
    slot: SlotId,
    backend: Option<Boxed>,
    pools: Arc<Pools>,
    /// Of its socket, as known to the task that asked for it.
    pub input: Input,
    /// It came from another worker.
    pub is_moved: bool,
}

impl Lease {
    fn new(slot: SlotId, backend: Boxed, pools: Arc<Pools>) -> Self {
        Self { slot, backend: Some(backend), pools, input: Input::Unknown, is_moved: false }
    }

    /// Checks a backend that was idle and brings it to this worker; a broken one is closed.
    fn ready(mut self, pool: &Arc<Pool>, worker: usize, now: Instant, cx: &mut Context<'_>) -> Option<Self> {
        let is_stale = now > self.fresh_until;
        let is_moved = self.worker != worker;
        self.is_moved = is_moved;
        if is_moved {
            self.adopt(worker).ok()?;
        }
        if self.stream.is_readable(cx) {
            return idle_check::is_fit(&mut self, pool, cx).then_some(self);
        }
        // This reactor cannot read input that it has not seen yet; such input is hardly ever anything but the end.
        let has_said_more = (is_moved || is_stale) && self.stream.has_input();
        self.input = Input::pending();
        (!has_said_more).then_some(self)
    }

    /// Reads once what the server has to say; 0 is the end.
    #[inline]
    pub(crate) fn poll_input(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let backend = self.backend.as_mut().expect("taken only when the lease ends");
        backend.stream.poll_input(cx, buffer, &mut self.input)
    }

    /// Registers the backend with the reactor of `worker`, whose thread this is.
    pub(crate) fn adopt(&mut self, worker: usize) -> io::Result<()> {
        self.stream.adopt()?;
        self.worker = worker;
        self.input = Input::Unknown;
        Ok(())
    }

    /// Gives the backend back, ready for anybody.
    #[inline]
    pub(crate) fn release(mut self, now: Instant) {
        if let Some(mut backend) = self.backend.take() {
            backend.fresh_until = now + FRESH;
            let worker = backend.worker;
            self.pools.decide(worker, |core, out| core.release(self.slot, backend, worker, now, out));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(backend) = self.backend.take() {
            self.pools.core().discard(self.slot);
            self.pools.close(backend.worker, self.slot, backend, CloseReason::Unfit);
        }
    }
}

impl Deref for Lease {
    type Target = Backend;

    #[inline]
    fn deref(&self) -> &Backend {
        self.backend.as_ref().expect("taken only when the lease ends")
    }
}

impl DerefMut for Lease {
    #[inline]
    fn deref_mut(&mut self) -> &mut Backend {
        self.backend.as_mut().expect("taken only when the lease ends")
    }
}

/// A place in the queue. Dropping it leaves the queue; a backend already handed to it goes on to the next.
#[derive(Debug)]
#[must_use = "a dropped waiter leaves the queue"]
pub(crate) struct Waiter {
    ticket: Option<Ticket>,
    notice: Option<u32>,
    lane: Option<RoleQueueId>,
    worker: usize,
    pool: Arc<Pool>,
    pools: Arc<Pools>,
}

impl Waiter {
    /// The number of clients of the role that are waiting; returned once, after `admission.notice_after`.
    pub(crate) fn take_notice(&mut self) -> Option<u32> {
        self.notice.take()
    }

    /// Whether its turn has come.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ask, LeaseError>> {
        let Some(ticket) = self.ticket else {
            return Poll::Ready(Err(LeaseError::Removed));
        };
        let progress = self.pools.core().poll_ticket(ticket, cx.waker());
        match progress {
            Progress::Pending => Poll::Pending,
            Progress::Waits { waiting } => {
                self.notice = Some(waiting);
                Poll::Pending
            }
            Progress::Failed(error) => {
                self.ticket = None;
                Poll::Ready(Err(error.into()))
            }
            Progress::Ready(slot, backend) => {
                self.ticket = None;
                let lease = Lease::new(slot, backend, Arc::clone(&self.pools));
                let now = Instant::now();
                Poll::Ready(match lease.ready(&self.pool, self.worker, now, cx) {
                    Some(lease) => Ok(Ask::Leased(lease)),
                    // It broke on the way: ask again. Rare enough that the place in the queue is not kept.
                    None => self.pools.lease(&self.pool, self.lane, self.worker, now, cx),
                })
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.pools.decide(self.worker, |core, out| core.drop_ticket(ticket, Instant::now(), out));
        }
    }
}
