//! One client from its login to its goodbye: a single task that drives both its own socket and, while it holds a lease,
//! the backend's.
//!
//! Each poll moves what can be moved in both directions, neither waiting for the other. An idle client is this struct
//! and nothing else: no buffer, no timer.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, Sleep, timeout};

use super::answers::{self, Answers, Event};
use super::cleanup;
use super::frontend::{self, Frontend, Message, Rest};
use super::leased::Leased;
use super::note::Note;
use super::orphan::{Orphan, Outcome};
use super::registry::{Place, Signal};
use super::session::Session;
use super::spill::Spill;
use crate::config::PoolMode;
use crate::error::{Fault, Lost};
use crate::net::stream::Stream;
use crate::pool::lease::{Ask, Lease, LeaseError, Waiter};
use crate::pool::standing;
use crate::sqlstate;
use crate::state::settings::Replay;
use crate::wire::build;
use crate::wire::frame::{FrameError, Header, Piece, Walker};
use crate::wire::ring::{Expect, Origin, TransactionStatus};
use crate::wire::splice::Splice;
use crate::worker::{Buffers, Worker};

/// Rounds of moving bytes before other tasks of the worker get their turn.
const ROUNDS: usize = 8;

/// Bytes of a waiting client that are kept; then its socket is no longer read.
const HELD_MAX: usize = 256 * 1024;

/// Bytes owed to a client beyond which no more of its messages are read.
const OWED_MAX: usize = 1024 * 1024;

/// Longest time a client gets to read its last message.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why a client's task ends.
#[derive(Debug)]
pub enum End {
    /// Terminate, or its socket closed or broke.
    Gone,
    /// It is told why.
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

impl From<std::io::Error> for End {
    /// The client's socket; a backend's is [`Client::lose`]'s business.
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// A logged-in client.
#[derive(Debug)]
pub struct Client {
    worker: Rc<Worker>,
    place: Place,
    stream: Stream,
    /// Position in what the client sends.
    walker: Walker,
    /// The client's frame under way goes to the backend.
    is_forwarding: bool,
    /// What the client's socket did not take yet.
    spill: Spill,
    /// What the client sent and nobody looked at yet: there is no backend for it so far.
    held: Vec<u8>,
    /// After an error of ours: everything up to Sync is dropped.
    is_discarding: bool,
    phase: Phase,
    session: Session,
    /// Why it has to go at the next chance.
    leaving: Option<Signal>,
}

#[derive(Debug)]
enum Phase {
    /// No backend.
    Idle,
    /// In line.
    Waiting(Box<Waiting>),
    /// With a backend.
    Leased(Leased),
    /// Its transaction was lost with the backend, and the client has not acknowledged that.
    Orphaned(Box<Orphan>),
}

#[derive(Debug)]
struct Waiting {
    waiter: Waiter,
    since: Instant,
    deadline: Pin<Box<Sleep>>,
}

/// What reading from the client came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fed {
    /// There was something.
    Moved,
    /// Its socket has nothing, and will wake us.
    Dry,
    /// Something else has to move first; its socket was not asked.
    Blocked,
}

/// What became of a message of the client.
enum Step {
    Done,
    /// It and everything behind it must wait for a backend.
    Hold,
}

impl Client {
    /// A client that has just logged in.
    pub fn new(worker: Rc<Worker>, place: Place, stream: Stream, session: Session) -> Self {
        Self {
            worker,
            place,
            stream,
            walker: Walker::default(),
            is_forwarding: false,
            spill: Spill::default(),
            held: Vec::new(),
            is_discarding: false,
            phase: Phase::Idle,
            session,
            leaving: None,
        }
    }

    /// Bytes that came behind the login, to be looked at first.
    pub fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Serves the client to its end. Boxed parts keep the task as small as a pointer while the client idles.
    pub async fn run(mut self: Box<Self>) {
        let mut is_known = false;
        let end = poll_fn(|cx| {
            if !std::mem::replace(&mut is_known, true) {
                self.place.set_waker(cx.waker());
            }
            self.poll(cx)
        })
        .await;
        let goodbye: Pin<Box<dyn Future<Output = ()>>> = Box::pin(self.finish(end));
        goodbye.await;
    }

    async fn finish(mut self: Box<Self>, end: End) {
        if let Phase::Leased(leased) = std::mem::replace(&mut self.phase, Phase::Idle) {
            let is_mid_frame = self.walker.is_inside() && self.is_forwarding;
            cleanup::begin(&self.worker, leased, &self.session, is_mid_frame);
        }
        self.place.set_idle();
        match &end {
            End::Gone => tracing::debug!(client.addr = %self.place.addr, "client gone"),
            End::Fatal(fault) => {
                tracing::debug!(client.addr = %self.place.addr, %fault, "client closed");
                build::error_response(self.spill.buffer(), &sqlstate::report(fault));
            }
        }
        let goodbye = async {
            poll_fn(|cx| match self.spill.flush(cx, &mut self.stream) {
                Ok(()) if !self.spill.is_empty() => Poll::Pending,
                _ => Poll::Ready(()),
            })
            .await;
            let _ = self.stream.shutdown().await;
            if matches!(end, End::Fatal(_)) {
                // Closing with bytes unread would reset the connection, and the client might never read the error.
                self.stream.closed().await;
            }
        };
        let _ = timeout(GOODBYE, goodbye).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let worker = Rc::clone(&self.worker);
        let mut buffers = worker.buffers();
        match self.turn(cx, &mut buffers) {
            Ok(true) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Ok(false) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    /// Moves what can be moved; true if there may be more at once.
    fn turn(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Result<bool, End> {
        self.heed_signals(cx)?;
        let mut fed = Fed::Moved;
        for _ in 0..ROUNDS {
            self.spill.flush(cx, &mut self.stream)?;
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
            self.go_if_leaving()?;
            let rests = fed == Fed::Dry && matches!(self.phase, Phase::Idle) && self.spill.is_empty();
            if !moved || rests {
                return Ok(false);
            }
        }
        Ok(true)
    }

    // ---- signals -------------------------------------------------------------------------------------------------

    #[inline]
    fn heed_signals(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let signals = self.place.take_signals();
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
    fn go_if_leaving(&mut self) -> Result<(), End> {
        let Some(signal) = self.leaving else { return Ok(()) };
        let may_go = match &self.phase {
            Phase::Idle | Phase::Waiting(_) => true,
            Phase::Leased(leased) => leased.books.ring.is_at_rest(),
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

    // ---- from the client -----------------------------------------------------------------------------------------

    fn read_client(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Result<Fed, End> {
        if self.spill.len() > OWED_MAX {
            return Ok(Fed::Blocked);
        }
        // A backend that does not read stops its client.
        if matches!(&self.phase, Phase::Leased(leased) if !leased.books.spill.is_empty()) {
            return Ok(Fed::Blocked);
        }
        let is_holding = self.is_holding();
        if is_holding && self.held.len() >= HELD_MAX {
            return Ok(Fed::Blocked);
        }
        if !self.held.is_empty() && !is_holding {
            let held = std::mem::take(&mut self.held);
            self.take_in(&held, &mut buffers.copy, cx)?;
            return Ok(Fed::Moved);
        }
        match self.stream.poll_read_once(cx, &mut buffers.read) {
            Poll::Pending => Ok(Fed::Dry),
            Poll::Ready(Ok(0)) => Err(End::Gone),
            Poll::Ready(Err(error)) => Err(error.into()),
            Poll::Ready(Ok(n)) => {
                self.session.pool.stats.cell(self.worker.id).received(n);
                if is_holding {
                    self.held.extend_from_slice(&buffers.read[..n]);
                } else {
                    self.take_in(&buffers.read[..n], &mut buffers.copy, cx)?;
                }
                Ok(Fed::Moved)
            }
        }
    }

    /// What comes now is kept, because something before it waits.
    fn is_holding(&self) -> bool {
        match &self.phase {
            Phase::Waiting(_) => true,
            Phase::Leased(leased) => leased.books.is_checking,
            Phase::Idle | Phase::Orphaned(_) => false,
        }
    }

    /// Goes through bytes of the client, message by message.
    fn take_in(&mut self, bytes: &[u8], copy: &mut Vec<u8>, cx: &mut Context<'_>) -> Result<(), End> {
        let mut input = bytes;
        let mut out = Splice::new(bytes, copy);
        let mut walker = std::mem::take(&mut self.walker);
        let result = loop {
            match walker.next(&mut input, frontend::want) {
                Err(error) => break Err(error.into()),
                Ok(None) => break Ok(()),
                Ok(Some(Piece::Kept { fresh })) => out.skip(fresh),
                Ok(Some(Piece::More { bytes })) if self.is_forwarding => out.keep(bytes.len()),
                Ok(Some(Piece::More { bytes })) => out.skip(bytes.len()),
                Ok(Some(Piece::Head { tag, body, bytes, fresh })) => {
                    let message = Message { tag, body, bytes, fresh };
                    match self.message(message, &mut out, cx) {
                        Ok(Step::Done) => {}
                        Ok(Step::Hold) => {
                            self.held.splice(0..0, [bytes, input].concat());
                            out.skip(fresh);
                            walker.rewind();
                            break Ok(());
                        }
                        Err(end) => break Err(end),
                    }
                }
            }
        };
        self.walker = walker;
        let bytes = out.finish();
        if let Phase::Leased(leased) = &mut self.phase
            && !bytes.is_empty()
            && leased.send(cx, bytes).is_err()
        {
            self.lose(cx)?;
        }
        if !self.spill.is_empty() {
            self.spill.flush(cx, &mut self.stream)?;
        }
        result
    }

    fn message(&mut self, message: Message<'_>, out: &mut Splice<'_>, cx: &mut Context<'_>) -> Result<Step, End> {
        self.is_forwarding = false;
        if message.tag == b'X' {
            out.skip(message.fresh);
            return Err(End::Gone);
        }
        if self.is_discarding {
            out.skip(message.fresh);
            if message.tag == b'S' {
                self.is_discarding = false;
                let status = self.status();
                build::ready_for_query(self.spill.buffer(), status);
            }
            return Ok(Step::Done);
        }
        match &mut self.phase {
            Phase::Leased(_) => {}
            Phase::Idle => {
                if self.needs_no_backend(message, out)? {
                    return Ok(Step::Done);
                }
                match self.ask(cx) {
                    Ok(true) => {}
                    Ok(false) => return Ok(Step::Hold),
                    Err(fault) => {
                        out.skip(message.fresh);
                        self.fail(message.tag, &fault);
                        return Ok(Step::Done);
                    }
                }
            }
            Phase::Waiting(_) => return Ok(Step::Hold),
            Phase::Orphaned(orphan) => {
                let outcome = orphan.message(message, &self.session, self.spill.buffer())?;
                self.is_discarding = matches!(outcome, Outcome::Refused | Outcome::Failed);
                if matches!(outcome, Outcome::Over | Outcome::Failed | Outcome::Passed) {
                    self.phase = Phase::Idle;
                }
                if outcome == Outcome::Passed {
                    return self.message(message, out, cx);
                }
                out.skip(message.fresh);
                return Ok(Step::Done);
            }
        }
        let Phase::Leased(leased) = &mut self.phase else { return Ok(Step::Hold) };
        if leased.books.ring.is_at_rest() && begin_cycle(leased, &self.session, out) {
            return Ok(Step::Hold);
        }
        let statements = &self.worker.proxy.statements;
        let mut frontend = Frontend { session: &mut self.session, leased, statements, out };
        let rest = frontend.message(message)?;
        self.is_forwarding = rest == Rest::Forward;
        if leased.books.ring.has_synthetic_due() {
            self.send_own_answers();
        }
        Ok(Step::Done)
    }

    /// Messages that an idle client gets answered (or ignored) without a backend.
    fn needs_no_backend(&mut self, message: Message<'_>, out: &mut Splice<'_>) -> Result<bool, End> {
        match message.tag {
            // Left over from a COPY that failed; Postgres ignores them too.
            b'd' | b'c' | b'f' | b'H' => {}
            b'S' => build::ready_for_query(self.spill.buffer(), TransactionStatus::Idle),
            b'C' if message.bytes.get(5) == Some(&b'S') && message.bytes.len() == message.body + 5 => {
                let name = message.bytes[6..].strip_suffix(b"\0").ok_or(Fault::Malformed("Close"))?;
                if name.is_empty() {
                    self.session.statements.unnamed = super::statements::Unnamed::None;
                } else {
                    self.session.statements.remove(name);
                }
                self.spill.buffer().extend_from_slice(build::CLOSE_COMPLETE);
            }
            b'P' if frontend::parse_without_backend(&mut self.session, &self.worker.proxy.statements, message) => {
                self.spill.buffer().extend_from_slice(build::PARSE_COMPLETE);
            }
            b'Q' | b'P' | b'B' | b'D' | b'C' | b'E' | b'F' => return Ok(false),
            other => return Err(Fault::MessageType(other).into()),
        }
        out.skip(message.fresh);
        Ok(true)
    }

    fn send_own_answers(&mut self) {
        let Phase::Leased(leased) = &mut self.phase else { return };
        while let Some(entry) = leased.books.ring.pop_synthetic() {
            if let Some(Note::Answers { frames, .. }) = entry.note {
                self.spill.buffer().extend_from_slice(frames);
            }
        }
    }

    fn status(&self) -> TransactionStatus {
        match &self.phase {
            Phase::Leased(leased) => leased.books.ring.status(),
            Phase::Orphaned(_) => TransactionStatus::Failed,
            Phase::Idle | Phase::Waiting(_) => TransactionStatus::Idle,
        }
    }

    /// Answers a message with an error of ours, as Postgres would: up to Sync in the extended protocol.
    fn fail(&mut self, tag: u8, fault: &Fault) {
        let status = self.status();
        let out = self.spill.buffer();
        build::error_response(out, &sqlstate::report(fault));
        if matches!(tag, b'Q' | b'F') {
            build::ready_for_query(out, status);
        } else {
            self.is_discarding = true;
        }
    }

    // ---- lease ---------------------------------------------------------------------------------------------------

    /// ## Idle => (Leased | Waiting). True if there is a backend now.
    #[inline]
    fn ask(&mut self, cx: &mut Context<'_>) -> Result<bool, Fault> {
        let now = Instant::now();
        match self.worker.proxy.pools.lease(&self.session.pool, self.worker.id, now, cx) {
            Ok(Ask::Leased(lease)) => {
                self.begin_lease(lease, now);
                Ok(true)
            }
            Ok(Ask::Waits(waiter)) => {
                let deadline = Box::pin(tokio::time::sleep(self.session.pool.settings().pool.wait_timeout));
                self.phase = Phase::Waiting(Box::new(Waiting { waiter, since: now, deadline }));
                self.place.set_waiting();
                Ok(false)
            }
            Err(error) => Err(self.lease_fault(error)),
        }
    }

    fn lease_fault(&self, error: LeaseError) -> Fault {
        match (error, self.session.pool.refusal()) {
            (LeaseError::Refused, Some(refusal)) => Fault::LoginRefused(refusal),
            (error, _) => error.into(),
        }
    }

    /// ## Waiting => (Leased | Idle)
    fn wait(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Result<(), End> {
        let Phase::Waiting(waiting) = &mut self.phase else { return Ok(()) };
        let since = waiting.since;
        match waiting.waiter.poll(cx) {
            Poll::Ready(Ok(Ask::Leased(lease))) => {
                let now = Instant::now();
                self.session.pool.stats.cell(self.worker.id).waited(now - since);
                self.begin_lease(lease, now);
                let held = std::mem::take(&mut self.held);
                self.take_in(&held, &mut buffers.copy, cx)
            }
            Poll::Ready(Ok(Ask::Waits(waiter))) => {
                waiting.waiter = waiter;
                cx.waker().wake_by_ref();
                Ok(())
            }
            Poll::Ready(Err(error)) => {
                let fault = self.lease_fault(error);
                self.fail_waiting(&fault, cx)
            }
            Poll::Pending => match waiting.deadline.as_mut().poll(cx) {
                Poll::Pending => Ok(()),
                Poll::Ready(()) => self.fail_waiting(&Fault::WaitTimeout { waited: since.elapsed() }, cx),
            },
        }
    }

    /// ## Waiting => Idle: the first message in hand is answered with an error.
    fn fail_waiting(&mut self, fault: &Fault, cx: &mut Context<'_>) -> Result<(), End> {
        self.phase = Phase::Idle;
        self.place.set_idle();
        self.worker.proxy.errors.count(sqlstate::report(fault).code);
        if matches!(fault, Fault::Lease(LeaseError::Removed) | Fault::LoginRefused(_)) {
            return Err(match fault {
                Fault::LoginRefused(refusal) => Fault::LoginRefused(refusal.clone()),
                _ => Fault::Removed,
            }
            .into());
        }
        let held = std::mem::take(&mut self.held);
        let mut input = &held[..];
        // The first message is whole or wanted no more; what is not all there is discarded as it comes.
        let mut walker = Walker::default();
        let head = walker.next(&mut input, frontend::want)?;
        let Some(Piece::Head { tag, .. }) = head else { return Ok(()) };
        self.is_forwarding = false;
        self.fail(tag, fault);
        self.walker = walker;
        self.held = input.to_vec();
        self.spill.flush(cx, &mut self.stream)?;
        Ok(())
    }

    #[inline]
    fn begin_lease(&mut self, lease: Lease, now: Instant) {
        self.place.set_active(lease.target.clone());
        self.session.statements.leave_backend();
        if !self.session.told.is_same(&lease.parameters) {
            self.tell_parameters(&lease);
        }
        self.phase = Phase::Leased(Leased { lease, books: self.worker.books(), since: now });
    }

    /// This backend reports other values than the client was told.
    fn tell_parameters(&mut self, lease: &Lease) {
        let before = std::mem::replace(&mut self.session.told, lease.parameters.clone());
        for (name, value) in lease.parameters.iter() {
            let is_own = self.session.settings.values().contains_key(&name.to_ascii_lowercase());
            if before.value(name) != Some(value) && !is_own {
                build::parameter_status(self.spill.buffer(), name, value);
            }
        }
        self.session.update_lexer();
    }

    // ---- from the backend ----------------------------------------------------------------------------------------

    fn read_backend(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Result<bool, End> {
        // A client that does not read stops its backend; everything else goes on.
        if !self.spill.is_empty() {
            return Ok(false);
        }
        let Phase::Leased(leased) = &mut self.phase else { return Ok(false) };
        match leased.lease.stream.poll_read_once(cx, &mut buffers.read) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(n)) if n > 0 => {
                self.take_out(n, buffers, cx)?;
                Ok(true)
            }
            Poll::Ready(_) => {
                self.lose(cx)?;
                Ok(true)
            }
        }
    }

    /// Goes through bytes of the backend, message by message.
    fn take_out(&mut self, n: usize, buffers: &mut Buffers, cx: &mut Context<'_>) -> Result<(), End> {
        let Buffers { read, copy, .. } = buffers;
        let mut input = &read[..n];
        let mut out = Splice::new(input, copy);
        let Phase::Leased(leased) = &mut self.phase else { return Ok(()) };
        let mut walker = std::mem::take(&mut leased.books.walker);
        let worker = &self.worker;
        let mut last = Event::None;
        let mut cycles = 0;
        let mut transactions = 0;
        let result: Result<(), Fault> = loop {
            match walker.next(&mut input, answers::want) {
                Err(error) => break Err(Fault::BackendFrame(error)),
                Ok(None) => break Ok(()),
                Ok(Some(Piece::Kept { fresh })) => out.skip(fresh),
                Ok(Some(Piece::More { bytes })) if leased.books.is_forwarding => out.keep(bytes.len()),
                Ok(Some(Piece::More { bytes })) => {
                    leased.books.go_on_with_row(bytes);
                    out.skip(bytes.len());
                }
                Ok(Some(Piece::Head { tag, bytes, fresh, .. })) if leased.books.ring.is_row(tag) => {
                    leased.books.is_forwarding = true;
                    out.pass(bytes, fresh);
                }
                Ok(Some(Piece::Head { tag, body, bytes, fresh })) => {
                    if let Err(error) = answers::check(Header { tag, body }) {
                        break Err(Fault::BackendFrame(error));
                    }
                    let mut answers = Answers {
                        session: &mut self.session,
                        leased: &mut *leased,
                        registry: &worker.proxy.settings,
                        out: &mut out,
                        on_error: &mut |code| worker.proxy.errors.count_bytes(code),
                    };
                    match answers.message(tag, bytes, fresh) {
                        Ok(Event::None) => {}
                        Ok(Event::Cycle(status)) => {
                            cycles += 1;
                            transactions += u64::from(status == TransactionStatus::Idle);
                        }
                        Ok(event) => last = event,
                        Err(fault) => break Err(fault),
                    }
                }
            }
        };
        leased.books.walker = walker;
        if cycles > 0 {
            self.session.pool.stats.cell(worker.id).cycles(cycles, transactions);
        }
        let bytes = out.finish();
        if !bytes.is_empty() {
            self.session.pool.stats.cell(worker.id).sent(bytes.len());
            self.spill.send(cx, &mut self.stream, bytes)?;
        }
        match result {
            Ok(()) => {}
            // The backend is well; it is cleaned when the client goes.
            Err(fault @ Fault::SettingsRefused(_)) => return Err(fault.into()),
            Err(fault) => {
                self.abandon();
                return Err(fault.into());
            }
        }
        match last {
            Event::None | Event::Cycle(_) => {}
            Event::ReadOnly => standing::doubt(&worker.proxy.pools, &self.session.pool, worker.id),
            Event::Stopped => worker.proxy.retire(worker.id, self.session.pool.database),
            Event::Ended => self.abandon(),
        }
        self.settle(cx)
    }

    /// Asks, cleans or gives the backend back when nothing is outstanding.
    #[inline]
    fn settle(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let Phase::Leased(leased) = &mut self.phase else { return Ok(()) };
        let books = &mut *leased.books;
        if !books.ring.is_at_rest() || !books.walker.is_at_boundary() || !self.held.is_empty() {
            return Ok(());
        }
        if self.session.mode == PoolMode::Session
            || (self.walker.is_inside() && self.is_forwarding)
            || !books.spill.is_empty()
        {
            return Ok(());
        }
        if !self.session.pins.is_settled() {
            leased.lease.is_soiled |= self.session.pins.is_uncertain();
            if let Some((asked, sql)) = self.session.pins.question() {
                if leased.ask(cx, &sql, Note::Probes(asked)).is_err() {
                    return self.lose(cx);
                }
                return Ok(());
            }
        }
        if self.session.is_pinned() {
            self.place.set_pins(self.session.pin_bits());
            return Ok(());
        }
        if leased.lease.is_soiled {
            if leased.ask(cx, cleanup::RESET, Note::Resets).is_err() {
                return self.lose(cx);
            }
            return Ok(());
        }
        self.release();
        Ok(())
    }

    /// ## Leased => Idle
    #[inline]
    fn release(&mut self) {
        let Phase::Leased(leased) = std::mem::replace(&mut self.phase, Phase::Idle) else { return };
        let Leased { lease, books, since } = leased;
        let now = Instant::now();
        self.place.set_idle();
        self.place.touch(self.worker.proxy.second());
        self.session.pool.stats.cell(self.worker.id).leased(now - since);
        cleanup::release(&self.worker, lease, books, now);
        self.walker.shrink();
    }

    /// The backend broke the protocol: it is closed, and nobody else sees it.
    fn abandon(&mut self) {
        self.phase = Phase::Idle;
        self.place.set_idle();
    }

    /// ## Leased => (Idle | Orphaned): the backend is gone. The client is told for every cycle it waits for, and stays.
    fn lose(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let Phase::Leased(mut leased) = std::mem::replace(&mut self.phase, Phase::Idle) else { return Ok(()) };
        self.place.set_idle();
        let books = &mut leased.books;
        let is_session_lost = self.session.mode == PoolMode::Session || self.session.is_pinned();
        let lost = Lost { in_commit: books.is_committing, last_words: books.last_words.take() };
        if books.walker.is_inside() && books.is_forwarding {
            // Half a message went out: no error can follow it.
            return Err(End::Gone);
        }
        // The rest of a message that was on its way has nowhere to go, least of all to the next backend.
        self.is_forwarding = false;
        let fault = if is_session_lost { Fault::SessionLost(lost.clone()) } else { Fault::Lost(lost.clone()) };
        self.worker.proxy.errors.count(sqlstate::report(&fault).code);
        if is_session_lost {
            return Err(fault.into());
        }
        let status = books.ring.status();
        let was_skipping = books.ring.is_skipping();
        let is_open = books.ring.is_unsynced() || was_skipping;
        let has_more =
            books.ring.iter().filter(|e| e.origin == Origin::Client && e.expect.is_cycle()).count() > 1 || is_open;
        let in_transaction = match books.heading {
            // A client that waits for the answer to its BEGIN is told that there is no transaction; one that has sent
            // more already would have that run on its own.
            Some(TransactionStatus::InTransaction) => has_more || status != TransactionStatus::Idle,
            Some(_) => false,
            None => status != TransactionStatus::Idle,
        };
        let after = if in_transaction { TransactionStatus::Failed } else { TransactionStatus::Idle };
        let mut report = sqlstate::report(&fault);
        let mut is_told = was_skipping;
        let client_entries = |e: &&crate::wire::ring::Entry<Note>| e.origin == Origin::Client;
        for entry in books.ring.iter().filter(client_entries) {
            if !is_told {
                build::error_response(self.spill.buffer(), &report);
                is_told = true;
            }
            if matches!(entry.expect, Expect::Query | Expect::FunctionCall | Expect::Sync) {
                build::ready_for_query(self.spill.buffer(), after);
                is_told = false;
                if in_transaction {
                    report = sqlstate::report(&Fault::TransactionLost);
                }
            }
        }
        if is_open {
            if !is_told {
                build::error_response(self.spill.buffer(), &report);
            }
            self.is_discarding = true;
        }
        self.session.follow = None;
        self.session.pins.clear();
        self.session.statements.leave_backend();
        if in_transaction {
            let is_untold = !is_open && books.ring.iter().all(|entry| entry.origin == Origin::Own);
            self.phase = Phase::Orphaned(Box::new(Orphan::new(is_untold.then_some(lost))));
        }
        self.spill.flush(cx, &mut self.stream)?;
        Ok(())
    }
}

/// Puts in front of a cycle what the backend lacks. True if the client's messages must wait for the outcome.
#[inline]
fn begin_cycle(leased: &mut Leased, session: &Session, out: &mut Splice<'_>) -> bool {
    if !leased.lease.applied.is_same(&session.settings) {
        let wanted = session.settings.clone();
        let Replay { encoding, rest } = leased.lease.applied.replay(&wanted, &leased.lease.parameters);
        if rest.is_empty() && encoding.is_empty() {
            leased.lease.applied = wanted;
        } else {
            leased.books.is_checking = !wanted.is_accepted();
            if !encoding.is_empty() {
                leased.books.query(out.buffer(), &encoding, Note::Applies(None));
            }
            leased.books.query(out.buffer(), &rest, Note::Applies(Some(wanted)));
        }
    }
    leased.books.is_checking
}
