//! One client from its login to its end: a single task that drives both its own socket and, while it holds a lease, the
//! backend's.
//!
//! Each poll moves bytes in both directions as far as possible, neither waiting for the other. An idle client is this
//! struct and nothing else: no buffer, no timer. `relay` moves the bytes, `lease` gets and releases backends, `lost`
//! serves the client that lost its own, `overdue` ends statements and transactions that take too long, `pinned` ends
//! clients that keep a backend for too long, `refusal` sends away what there is no capacity for, `deliver` brings
//! notifications, `again` sends what did not run to another server, `moving` takes the client to another worker,
//! `unread` sees one go of which nothing is read.

mod again;
mod counted;
mod deliver;
mod in_lane;
mod lease;
mod lost;
pub(crate) mod moving;
mod overdue;
mod pinned;
mod recorded;
mod refusal;
mod relay;
mod signal;
mod unprepared;
mod unread;

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, Sleep, timeout};

use self::recorded::{record_served, record_unserved};
use super::cleanup;
use super::leased::Leased;
use super::orphan::Orphan;
use super::session::Session;
use super::side::Side;
use crate::clients::{ClientHandle, Signal};
use crate::error::Fault;
use crate::error::sqlstate;
use crate::lanes::LaneOf;
use crate::metrics::ProcessCounter;
use crate::net::stream::{GOODBYE_MAX, Input, Stream};
use crate::pool::lease::Waiter;
use crate::session::context::{Buffers, Worker};
use crate::state::memory::MemoryShare;
use crate::wire::build;
use crate::wire::expected::CopyRest;
use crate::wire::frame::FrameError;
use crate::wire::message::MessageError;

/// Rounds of moving bytes before other tasks of the worker get their turn.
const ROUNDS: usize = 8;

/// Reason for the end of a client's task.
#[derive(Debug)]
pub(crate) enum End {
    /// Terminate, or its socket closed or broke.
    Gone,
    /// The server has told the client itself, with a FATAL error.
    Told,
    /// A fault that ends the session; the client gets it as an error.
    Fatal(Box<Fault>),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fatal(Box::new(fault))
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        Self::Fatal(Box::new(error.into()))
    }
}

impl From<MessageError> for End {
    fn from(error: MessageError) -> Self {
        let fault = match error {
            MessageError::Type(tag) => Fault::MessageType(tag),
            MessageError::Malformed(name) => Fault::Malformed(name),
        };
        Self::Fatal(Box::new(fault))
    }
}

impl From<std::io::Error> for End {
    /// An error of the client's socket; `Client::lose` handles one of a backend's.
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// How a client's time on one worker ends.
pub(crate) enum Departed {
    Ends(End),
    /// The client goes on at this worker.
    Moves(usize),
}

#[derive(Debug)]
pub(crate) struct Client {
    worker: Rc<Worker>,
    handle: ClientHandle,
    /// Its part of the memory of all clients.
    memory: MemoryShare,
    stream: Stream,
    input: Input,
    /// Its side of the relay.
    side: Side,
    /// Bytes that the client sent and that are not handled yet: there is no backend for it so far.
    held: Vec<u8>,
    /// After an error of ours: everything up to Sync is dropped.
    is_discarding: bool,
    /// Without a backend: a message was answered and no Sync has come so far.
    is_unsynced: bool,
    phase: Phase,
    session: Session,
    /// Reason to close the client at the next chance.
    leaving: Option<Signal>,
    /// Its bytes are no protocol from somewhere on: the fault to tell when everything in front of it is answered.
    broken: Option<Box<Fault>>,
    /// Its calls that act on other clients.
    signals: Option<Box<signal::Signals>>,
    /// The answer to its LISTEN, held back together with everything behind it.
    withheld: Option<Box<deliver::Withheld>>,
    /// Messages in hand are refused.
    refusal: Option<Box<refusal::CapacityRefusal>>,
    /// The rest of a COPY that was lost with its backend.
    copy_rest: Option<CopyRest>,
    /// What is sent again, where statements are.
    again: Option<Box<again::Again>>,
    /// The next look for its end, while nothing is read of it.
    look: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Phase {
    /// No backend.
    Idle,
    Waiting(Box<Waiting>),
    Leased(Leased),
    /// The transaction was lost with the backend, and the client has not acknowledged that.
    Orphaned(Box<Orphan>),
}

impl Phase {
    /// Nothing that was sent to a backend will be answered by itself; a COPY waits for its client.
    fn is_answered(&self) -> bool {
        let Self::Leased(leased) = self else { return true };
        leased.cycle.replies().is_empty() || leased.cycle.replies().is_copying_in()
    }
}

#[derive(Debug)]
struct Waiting {
    waiter: Waiter,
    since: Instant,
    /// The lane of its transaction.
    lane: Option<LaneOf>,
}

/// Outcome of a read from the client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fed {
    Moved,
    /// The client's socket has nothing to read, and will wake us.
    Dry,
    /// Something else has to move first; the client's socket was not read.
    Blocked,
}

/// Outcome of a message of the client.
enum Step {
    Done,
    /// This message and everything behind it must wait.
    Hold,
    /// The same, and the message is left out of the output already.
    HoldSkipped,
}

impl Client {
    /// A client that has just logged in.
    pub(crate) fn new(worker: Rc<Worker>, handle: ClientHandle, stream: Stream, session: Session) -> Self {
        let again = session.pool.settings().replays.then(Box::default);
        Self {
            memory: worker.proxy.memory.share(),
            worker,
            handle,
            stream,
            input: Input::Unknown,
            side: Side::default(),
            held: Vec::new(),
            is_discarding: false,
            is_unsynced: false,
            phase: Phase::Idle,
            session,
            leaving: None,
            broken: None,
            signals: None,
            withheld: None,
            refusal: None,
            copy_rest: None,
            again,
            look: None,
        }
    }

    /// Its signals wake this task from now on.
    pub(crate) fn meet(&self, waker: &Waker) {
        self.handle.set_waker(waker);
    }

    /// Says goodbye to a client whose task ends.
    pub(crate) async fn finish(mut self: Box<Self>, end: End) {
        let mut is_mid_answer = false;
        if let (Some(flight), Phase::Waiting(waiting)) = (&self.worker.flight, &self.phase) {
            record_unserved(flight, &self.session, waiting.lane.as_ref(), waiting.since, &Fault::Canceled);
        }
        if let Phase::Leased(leased) = std::mem::replace(&mut self.phase, Phase::Idle) {
            if let Some(flight) = &self.worker.flight {
                record_served(flight, &self.session, &leased, Instant::now());
            }
            is_mid_answer = leased.cycle.backend.is_mid_forward();
            let is_mid_frame = self.side.is_mid_forward();
            cleanup::begin(&self.worker, leased, &mut self.session, is_mid_frame);
        }
        self.handle.set_idle();
        self.session.notifications.leave();
        match &end {
            End::Told => tracing::debug!(client.addr = %self.handle.addr, "client closed by its server"),
            End::Gone => tracing::debug!(client.addr = %self.handle.addr, "client gone"),
            End::Fatal(fault) => {
                tracing::debug!(client.addr = %self.handle.addr, %fault, "client closed");
                // Behind half a message the error would be read as the rest of that message.
                if !is_mid_answer {
                    build::error_response(self.side.buffer.bytes(), &sqlstate::report(fault));
                }
            }
        }
        let goodbye = async {
            poll_fn(|cx| match self.side.buffer.flush(cx, &mut self.stream) {
                Ok(()) if !self.side.buffer.is_empty() => Poll::Pending,
                _ => Poll::Ready(()),
            })
            .await;
            let _ = self.stream.shutdown().await;
            if matches!(end, End::Told | End::Fatal(_)) {
                // Closing with bytes unread would reset the connection, and the client might never read the error.
                self.stream.closed().await;
            }
        };
        let _ = timeout(GOODBYE_MAX, goodbye).await;
    }

    /// Serves the client until it goes, or moves to another worker.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Departed> {
        let worker = Rc::clone(&self.worker);
        let mut buffers = worker.buffers();
        let turn = self.turn(cx, &mut buffers).and_then(|goes_on| self.count_memory().map(|()| goes_on));
        match turn {
            Ok(true) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Ok(false) if worker.load.has_departures() && self.is_at_rest() => match worker.load.depart() {
                Some(to) => Poll::Ready(Departed::Moves(to)),
                None => Poll::Pending,
            },
            Ok(false) => Poll::Pending,
            Err(end) => Poll::Ready(Departed::Ends(end)),
        }
    }

    /// Counts the memory that the client takes, and ends one that takes too much.
    #[inline]
    fn count_memory(&mut self) -> Result<(), End> {
        let cycle = match &self.phase {
            Phase::Leased(leased) => leased.cycle.memory(),
            _ => 0,
        };
        let again = self.again.as_ref().map_or(0, |again| again.log.memory());
        let bytes = self.held.capacity() + self.side.memory() + self.session.memory() + cycle + again;
        self.memory.set(bytes).map_err(|too_much| {
            self.worker.proxy.process.add(ProcessCounter::MemoryRefusals);
            Fault::Memory(too_much).into()
        })
    }

    /// Moves bytes in both directions; true if there may be more at once.
    fn turn(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Result<bool, End> {
        self.handle_signals(cx)?;
        let mut fed = Fed::Moved;
        for _ in 0..ROUNDS {
            self.flush(cx)?;
            if let Phase::Waiting(_) = self.phase {
                self.wait(cx, buffers)?;
            }
            let mut moved = false;
            if let Phase::Leased(leased) = &mut self.phase {
                moved = match leased.flush(cx) {
                    Ok(()) => self.read_backend(cx, buffers)?,
                    Err(_) => {
                        self.lose(cx)?;
                        true
                    }
                };
            }
            if fed != Fed::Dry || !self.held.is_empty() {
                fed = self.read_client(cx, buffers)?;
                moved |= fed == Fed::Moved;
            }
            if self.refusal.is_some() {
                moved |= self.drain(fed, cx)?;
            }
            self.go_if_broken()?;
            self.go_if_leaving()?;
            let has_delivered = self.deliver(cx)?;
            moved |= has_delivered;
            if !moved || self.is_waiting_for_input(fed) && !has_delivered {
                if fed == Fed::Blocked {
                    self.look_for_end(cx)?;
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// True if nothing can move before the reactor wakes the task.
    #[inline]
    fn is_waiting_for_input(&self, fed: Fed) -> bool {
        let is_backend_silent = match &self.phase {
            Phase::Idle => true,
            Phase::Leased(leased) => leased.lease.input == Input::Awaited && leased.cycle.backend.buffer.is_empty(),
            Phase::Waiting(_) | Phase::Orphaned(_) => false,
        };
        is_backend_silent
            && (fed == Fed::Dry || self.input == Input::Awaited)
            && self.held.is_empty()
            && self.side.buffer.is_empty()
            && self.refusal.is_none()
    }

    #[inline]
    fn handle_signals(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let signals = self.handle.take_signals();
        if signals == 0 {
            return Ok(());
        }
        let has = |signal: Signal| signals & signal as u8 != 0;
        if has(Signal::Kill) {
            let is_end = self.worker.proxy.is_draining();
            return Err(if is_end { Fault::Draining } else { Fault::Killed }.into());
        }
        if has(Signal::Cancel) && matches!(self.phase, Phase::Waiting(_)) {
            self.fail_waiting(&Fault::Canceled, cx)?;
        }
        if has(Signal::Overdue) {
            self.handle_clock(cx)?;
        }
        if has(Signal::Holding) {
            self.handle_waiters(cx)?;
        }
        if has(Signal::Pinned) {
            self.handle_pin()?;
        }
        for signal in [Signal::Drain, Signal::Evict] {
            if has(signal) {
                self.leaving = Some(signal);
            }
        }
        if has(Signal::Idle) && matches!(self.phase, Phase::Idle) {
            return Err(Fault::IdleTimeout.into());
        }
        Ok(())
    }

    #[inline]
    fn go_if_broken(&mut self) -> Result<(), End> {
        match self.broken.take_if(|_| self.phase.is_answered()) {
            None => Ok(()),
            Some(fault) => Err(End::Fatal(fault)),
        }
    }

    #[inline]
    fn go_if_leaving(&mut self) -> Result<(), End> {
        let Some(signal) = self.leaving else { return Ok(()) };
        let may_go = match &self.phase {
            Phase::Idle | Phase::Waiting(_) => true,
            Phase::Leased(leased) => leased.cycle.replies().can_release(),
            Phase::Orphaned(_) => false,
        };
        if !may_go {
            return Ok(());
        }
        Err(match signal {
            Signal::Evict => Fault::Removed.into(),
            _ => Fault::Draining.into(),
        })
    }
}
