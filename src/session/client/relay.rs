//! Moves bytes between a client and its backend, message by message, in both directions.
//!
//! Neither direction waits for the other: a client may pipeline without reading, a server may answer before the request
//! is whole. [`frontend`] and [`answers`] decide how each message is handled.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::again::Verdict;
use super::{Client, End, Fed, Phase, Step, counted, lease::begin_cycle};
use crate::error::sqlstate;
use crate::error::{Fault, Holding};
use crate::metrics::{PoolCounter, ReplayReason};
use crate::pool::server_role;
use crate::session::answers::{self, Answers, Event};
use crate::session::context::{Buffers, Worker};
use crate::session::frontend::{self, Frontend, Rest};
use crate::session::leased::Leased;
use crate::session::local_reply;
use crate::session::reply_action::ReplyAction;
use crate::session::session::Session;
use crate::session::statements::Unnamed;
use crate::sql::{self, Effect};
use crate::wire::build;
use crate::wire::expected::TransactionStatus;
use crate::wire::frame::{HEADER_LEN, Header, Piece};
use crate::wire::message::{Message, Named, Request, is_cycle};
use crate::wire::splice::Splice;
use crate::wire::tag::frontend as tag;

/// Bytes of a waiting client that are kept; beyond that its socket is no longer read.
const HELD_MAX: usize = 64 * 1024;

/// Bytes owed to a client beyond which no more of its messages are read.
const OWED_MAX: usize = 1024 * 1024;

/// Messages without an answer beyond which no more of the client's are read: those that pgweir answers itself do not
/// fill the backend's socket. The answers that a server keeps back until its buffer of 8 KiB is full are fewer.
const OUTSTANDING_MAX: usize = 8 * 1024;

impl Client {
    pub(super) fn read_client(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Result<Fed, End> {
        if self.broken.is_some() {
            return self.drop_rest(cx, buffers);
        }
        let awaits = self.withheld.is_some() || self.session.notifications.awaits_server();
        if self.side.buffer.len() > OWED_MAX || awaits {
            return Ok(Fed::Blocked);
        }
        // A backend that does not read stops its client.
        if matches!(&self.phase, Phase::Leased(leased) if !leased.cycle.backend.buffer.is_empty()) {
            return Ok(Fed::Blocked);
        }
        if self.is_throttled(cx)? || self.again.is_some() && self.is_pausing(cx) {
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
        match self.stream.poll_input(cx, &mut buffers.read, &mut self.input) {
            Poll::Pending => Ok(Fed::Dry),
            Poll::Ready(Ok(0)) => Err(End::Gone),
            Poll::Ready(Err(error)) => Err(error.into()),
            Poll::Ready(Ok(n)) => {
                self.session.pool.stats.worker(self.worker.id).add_many(PoolCounter::Received, n);
                if is_holding {
                    self.held.extend_from_slice(&buffers.read[..n]);
                } else {
                    self.take_in(&buffers.read[..n], &mut buffers.copy, cx)?;
                }
                self.input = self.stream.await_input(cx, n, buffers.read.len());
                Ok(Fed::Moved)
            }
        }
    }

    /// Reads what comes behind bytes that are no protocol, to see the client go.
    fn drop_rest(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Result<Fed, End> {
        match self.stream.poll_input(cx, &mut buffers.read, &mut self.input) {
            Poll::Pending => Ok(Fed::Dry),
            Poll::Ready(Ok(0)) => Err(End::Gone),
            Poll::Ready(Err(error)) => Err(error.into()),
            Poll::Ready(Ok(_)) => Ok(Fed::Moved),
        }
    }

    /// Postgres answers the messages in front of bytes that are no protocol before it says so.
    fn break_off(&mut self, end: End, cx: &mut Context<'_>) -> Result<(), End> {
        let is_broken = |fault: &Fault| matches!(fault, Fault::Frame(_) | Fault::MessageType(_) | Fault::Malformed(_));
        match end {
            End::Fatal(fault) if is_broken(&fault) && !self.phase.is_answered() => self.broken = Some(fault),
            end => return Err(end),
        }
        if let Phase::Leased(leased) = &mut self.phase
            && leased.cycle.replies().is_unsynced()
            && leased.send(cx, build::FLUSH).is_err()
        {
            self.lose(cx)?;
        }
        Ok(())
    }

    /// True if so many messages wait for their answers that no more are read. A server that keeps answers back until
    /// the Sync is told to send them.
    #[inline]
    fn is_throttled(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let Phase::Leased(leased) = &mut self.phase else { return Ok(false) };
        // The server may wait for the rest of a message of which a part went out.
        let is_throttled = leased.cycle.replies().len() > OUTSTANDING_MAX && !self.side.is_mid_forward();
        let begins = is_throttled && !leased.cycle.is_throttled;
        leased.cycle.is_throttled = is_throttled;
        if begins && leased.cycle.replies().is_unsynced() && leased.send(cx, build::FLUSH).is_err() {
            self.lose(cx)?;
        }
        Ok(is_throttled)
    }

    /// True if new bytes of the client are kept, because something before them waits.
    fn is_holding(&self) -> bool {
        match &self.phase {
            Phase::Waiting(_) => true,
            Phase::Leased(leased) => leased.cycle.holds_client(),
            Phase::Idle | Phase::Orphaned(_) => false,
        }
    }

    /// Handles bytes of the client, message by message.
    pub(super) fn take_in(&mut self, bytes: &[u8], copy: &mut Vec<u8>, cx: &mut Context<'_>) -> Result<(), End> {
        let mut input = bytes;
        let mut out = Splice::new(bytes, copy);
        let mut walker = self.side.take_walker();
        let result = loop {
            match walker.next(&mut input, frontend::want) {
                Err(error) => break Err(error.into()),
                Ok(None) => break Ok(()),
                Ok(Some(Piece::Kept { fresh })) => out.skip(fresh),
                Ok(Some(Piece::More { bytes })) => {
                    self.again.iter_mut().for_each(|again| again.log.more(bytes));
                    match self.side.is_forwarding() {
                        true => out.keep(bytes.len()),
                        false => out.skip(bytes.len()),
                    }
                }
                Ok(Some(Piece::Head { tag, body, bytes, fresh })) => {
                    let message = Message { tag, body, bytes, fresh };
                    match self.message(message, input, &mut out, cx) {
                        Ok(Step::Done) => {}
                        Ok(step @ (Step::Hold | Step::HoldSkipped)) => {
                            self.held.splice(0..0, [bytes, input].concat());
                            if matches!(step, Step::Hold) {
                                out.skip(fresh);
                            }
                            walker.rewind();
                            break Ok(());
                        }
                        Err(end) => break Err(end),
                    }
                }
            }
        };
        self.side.put_walker(walker);
        let bytes = out.finish();
        if let Phase::Leased(leased) = &mut self.phase
            && !bytes.is_empty()
        {
            match leased.send(cx, bytes) {
                Ok(()) => self.again.iter_mut().for_each(|again| again.log.sent()),
                Err(_) if self.is_unsent() => self.send_again(ReplayReason::Unsent)?,
                Err(_) => self.lose(cx)?,
            }
        }
        if !self.side.buffer.is_empty() {
            self.flush(cx)?;
        }
        let result = result.or_else(|end| self.break_off(end, cx));
        // Messages that were all refused or answered here leave nothing that would end the lease.
        if result.is_ok() && matches!(&self.phase, Phase::Leased(leased) if leased.cycle.can_release()) {
            self.finish_cycle(cx, None)?;
        }
        result
    }

    /// Handles a message. `behind`: what the client sent behind it, as far as it is here.
    pub(super) fn message(
        &mut self,
        message: Message<'_>,
        behind: &[u8],
        out: &mut Splice<'_>,
        cx: &mut Context<'_>,
    ) -> Result<Step, End> {
        self.side.set_forwarding(false);
        if message.tag == tag::TERMINATE {
            out.skip(message.fresh);
            return Err(End::Gone);
        }
        if self.is_discarding {
            out.skip(message.fresh);
            if message.tag == tag::SYNC {
                self.is_discarding = false;
                let status = self.status();
                build::ready_for_query(self.side.buffer.bytes(), status);
            }
            return Ok(Step::Done);
        }
        if let Phase::Waiting(_) = self.phase {
            return Ok(Step::Hold);
        }
        let request = message.request()?;
        if self.refusal.is_some() && self.is_refused(message.tag) || self.copy_rest.is_some() && self.is_rest(request) {
            out.skip(message.fresh);
            return Ok(Step::Done);
        }
        self.note_signal(request);
        self.leave_database(request);
        match &mut self.phase {
            Phase::Leased(_) => {}
            Phase::Idle => {
                let answer = self.side.buffer.bytes().len();
                if self.needs_no_backend(request, message.is_whole()) {
                    out.skip(message.fresh);
                    self.answered(answer);
                    self.was_served();
                    return Ok(Step::Done);
                }
                let asked = match self.worker.proxy.lanes.is_any() {
                    true => self.ask_in_lane(request, cx),
                    false => self.ask(cx),
                };
                match asked {
                    Ok(true) => {}
                    Ok(false) if message.is_whole() && self.prepare_without_backend(request, behind) => {
                        out.skip(message.fresh);
                        return Ok(Step::Done);
                    }
                    Ok(false) => return Ok(Step::Hold),
                    Err(fault @ Fault::LoginRefused(_)) => return Err(fault.into()),
                    Err(fault) => {
                        self.count_refusal(request, Duration::ZERO, &sqlstate::report(&fault).code);
                        out.skip(message.fresh);
                        self.begin_refusal(message.tag, &fault);
                        return Ok(Step::Done);
                    }
                }
            }
            Phase::Waiting(_) => return Ok(Step::Hold),
            Phase::Orphaned(_) => return self.orphaned(message, request, out, cx),
        }
        let Phase::Leased(leased) = &mut self.phase else { return Ok(Step::Hold) };
        let (written, mut begins) = (message, false);
        if leased.cycle.replies().is_empty() {
            let is_fresh = leased.cycle.replies().can_release();
            leased.lease.target.clock.begin(self.worker.proxy.clock.ticks(), is_fresh);
            begins = is_fresh;
            if is_fresh && begin_cycle(leased, &mut self.session, &self.worker.proxy.settings, out) {
                return Ok(Step::Hold);
            }
        }
        let redirected = self.redirect(message, request);
        let (message, request) = match &redirected {
            None => (message, request),
            Some(bytes) => {
                out.skip(message.fresh);
                let message = Message { tag: message.tag, body: bytes.len() - HEADER_LEN, bytes, fresh: 0 };
                (message, message.request()?)
            }
        };
        let Phase::Leased(leased) = &mut self.phase else { return Ok(Step::Hold) };
        let (statements, registry) = (&self.worker.proxy.statements, &self.worker.proxy.settings);
        let mut frontend =
            Frontend { session: &mut self.session, leased, statements, registry, worker: &self.worker, out };
        let rest = frontend.message(message, request);
        if rest == Rest::Hold {
            return Ok(if redirected.is_some() { Step::HoldSkipped } else { Step::Hold });
        }
        if let Some(again) = &mut self.again {
            again.log.add(begins, written.tag, written.bytes, HEADER_LEN + written.body);
        }
        self.side.set_forwarding(rest == Rest::Forward);
        if leased.cycle.times.stopwatch.is_stopped() && !leased.cycle.replies().is_empty() {
            leased.cycle.times.stopwatch.begin(Instant::now());
        }
        if leased.cycle.replies().has_synthetic_due() {
            self.send_own_answers();
        }
        Ok(Step::Done)
    }

    /// Makes room for a statement that Postgres carries out only while nobody else is connected to its database.
    #[inline]
    fn leave_database(&self, request: Request<'_>) {
        let (Request::Query { text: Some(text) } | Request::Parse { text: Some(text), .. }) = request else { return };
        if let Some(name) = sql::wants_alone(text, self.session.lexer) {
            let name = String::from_utf8_lossy(&name);
            self.worker.proxy.directory.leave_database(self.worker.id, &self.session.pool, &name);
        }
    }

    /// Answers (or ignores) a message of an idle client, if it needs no backend. True if it did.
    fn needs_no_backend(&mut self, request: Request<'_>, is_whole: bool) -> bool {
        match request {
            // Rest of a COPY that failed; Postgres ignores these, too.
            Request::CopyData | Request::CopyEnd | Request::Flush => {}
            Request::Sync => self.ready_idle(),
            Request::Query { text } => match local_reply::query(&self.session, text) {
                Some(effect) => self.run_alone(&effect),
                None => return false,
            },
            Request::Close(Named::Statement(name)) if is_whole => {
                if name.is_empty() {
                    self.session.statements.unnamed = Unnamed::None;
                } else {
                    self.session.statements.remove(name);
                }
                self.answer_alone(build::CLOSE_COMPLETE);
            }
            Request::Parse { .. }
            | Request::Bind { .. }
            | Request::Describe(_)
            | Request::Execute { .. }
            | Request::Close(_)
            | Request::FunctionCall { .. } => return false,
        }
        true
    }

    /// Answers a message of the extended protocol; its Sync is still to come.
    pub(super) fn answer_alone(&mut self, frame: &[u8]) {
        self.is_unsynced = true;
        self.side.buffer.bytes().extend_from_slice(frame);
    }

    /// Answers a NOTIFY, LISTEN or UNLISTEN that needs no backend.
    fn run_alone(&mut self, effect: &Effect) {
        self.session.statements.unnamed = Unnamed::None;
        if let Effect::Notify { .. } = effect
            && self.session.notifications.exchange().refuses()
        {
            return self.fail(tag::QUERY, &Fault::TooManyNotifications);
        }
        if let Effect::Listen(_) = effect
            && self.session.notifications.has_too_many_channels()
        {
            return self.fail(tag::QUERY, &Fault::HoldsTooMuch(Holding::Channels));
        }
        let (notifications, party) = self.session.notifications();
        notifications.run_alone(effect, party);
        let tag: &[u8] = match effect {
            Effect::Notify { .. } => b"NOTIFY",
            Effect::Listen(_) => b"LISTEN",
            _ => b"UNLISTEN",
        };
        build::command_complete(self.side.buffer.bytes(), tag);
        self.ready_idle();
    }

    /// Sends ReadyForQuery to a client without a backend, behind the notifications that wait for it.
    fn ready_idle(&mut self) {
        self.is_unsynced = false;
        // An error is ignored here: the client's task finds the reason to close it by itself.
        let _ = self.session.take_mail(self.side.buffer.bytes(), usize::MAX);
        build::ready_for_query(self.side.buffer.bytes(), TransactionStatus::Idle);
    }

    fn send_own_answers(&mut self) {
        let Phase::Leased(leased) = &mut self.phase else { return };
        while let Some(entry) = leased.cycle.pop_synthetic() {
            if let Some(ReplyAction::Answers { frames, .. }) = entry.action {
                self.side.buffer.bytes().extend_from_slice(&frames);
            }
        }
    }

    pub(super) fn status(&self) -> TransactionStatus {
        match &self.phase {
            Phase::Leased(leased) => leased.cycle.replies().status(),
            Phase::Orphaned(_) => TransactionStatus::Failed,
            Phase::Idle | Phase::Waiting(_) => TransactionStatus::Idle,
        }
    }

    /// Answers a message with an error of ours, as Postgres would: up to Sync in the extended protocol.
    pub(super) fn fail(&mut self, tag: u8, fault: &Fault) {
        let mut error = Vec::new();
        build::error_response(&mut error, &sqlstate::report(fault));
        self.fail_with(tag, &error);
    }

    /// Answers a message with the frame of an error.
    pub(super) fn fail_with(&mut self, tag: u8, error: &[u8]) {
        let status = self.status();
        let out = self.side.buffer.bytes();
        out.extend_from_slice(error);
        if is_cycle(tag) {
            build::ready_for_query(out, status);
        } else {
            self.is_discarding = true;
        }
    }

    pub(super) fn read_backend(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Result<bool, End> {
        // A client that does not read stops its backend; everything else goes on.
        if !self.side.buffer.is_empty() {
            return Ok(false);
        }
        let Phase::Leased(leased) = &mut self.phase else { return Ok(false) };
        match leased.lease.poll_input(cx, &mut buffers.read) {
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

    /// Handles bytes of the backend, message by message.
    fn take_out(&mut self, n: usize, buffers: &mut Buffers, cx: &mut Context<'_>) -> Result<(), End> {
        let Buffers { read, copy, .. } = buffers;
        let mut out = Splice::new(&read[..n], copy);
        let Phase::Leased(leased) = &mut self.phase else { return Ok(()) };
        leased.cycle.times.received += n as u64;
        let mut taken = Taken { event: Event::None, now: None };
        let result = take_answers(&self.worker, &mut self.session, leased, &read[..n], &mut out, &mut taken);
        let bytes = out.finish();
        if self.again.is_some() && !bytes.is_empty() {
            match result.as_ref().map_or(Verdict::Tell, |()| self.weigh(taken.event, bytes)) {
                Verdict::Tell => self.tell_withheld(),
                Verdict::Withhold => return Ok(()),
                Verdict::SendAgain => return self.send_again(ReplayReason::ReadOnly),
            }
        }
        if !bytes.is_empty() {
            self.session.pool.stats.worker(self.worker.id).add_many(PoolCounter::Sent, bytes.len());
            self.send(cx, bytes)?;
        }
        let worker = &self.worker;
        match result {
            Ok(()) => {}
            Err(fault) => {
                self.abandon();
                return Err(fault.into());
            }
        }
        match taken.event {
            Event::None => {}
            Event::Cycle(_) => self.signals_answered(),
            Event::ReadOnly => server_role::recheck(&worker.proxy.pools, &self.session.pool, worker.id),
            Event::Stopped => worker.proxy.directory.retire(worker.id, self.session.pool.database),
            Event::SettingsRefused => self.settings_refused(cx)?,
            Event::Ended => self.lose(cx)?,
        }
        self.finish_cycle(cx, taken.now)
    }
}

/// Outcome of a read from a backend.
struct Taken {
    /// The last event that the caller has to act upon.
    event: Event,
    /// The time, if a cycle ended and the clock was read for it.
    now: Option<Instant>,
}

/// Handles the messages of a backend and writes the client's share of them.
fn take_answers(
    worker: &Worker,
    session: &mut Session,
    leased: &mut Leased,
    mut input: &[u8],
    out: &mut Splice<'_>,
    taken: &mut Taken,
) -> Result<(), Fault> {
    let mut walker = leased.cycle.backend.take_walker();
    let tick = worker.proxy.clock.ticks();
    let result = loop {
        match walker.next(&mut input, answers::want) {
            Err(error) => break Err(Fault::BackendFrame(error)),
            Ok(None) => break Ok(()),
            Ok(Some(Piece::Kept { fresh })) => out.skip(fresh),
            Ok(Some(Piece::More { bytes })) if leased.cycle.backend.is_forwarding() => out.keep(bytes.len()),
            Ok(Some(Piece::More { bytes })) => {
                leased.cycle.continue_row(bytes);
                out.skip(bytes.len());
            }
            Ok(Some(Piece::Head { tag, bytes, fresh, .. })) if leased.cycle.replies().is_row(tag) => {
                leased.cycle.backend.set_forwarding(true);
                out.pass(bytes, fresh);
            }
            Ok(Some(Piece::Head { tag, body, bytes, fresh })) => {
                if let Err(error) = answers::check(Header { tag, body }) {
                    break Err(Fault::BackendFrame(error));
                }
                let registry = &worker.proxy.settings;
                let mut answers =
                    Answers { session: &mut *session, leased: &mut *leased, registry, worker, tick, out: &mut *out };
                match answers.message(tag, bytes, fresh) {
                    Ok(Event::None) => {}
                    Ok(Event::Cycle(status)) => {
                        let now = *taken.now.get_or_insert_with(Instant::now);
                        let lap = leased.cycle.times.stopwatch.end(now, status, !leased.cycle.replies().is_empty());
                        session.pool.stats.worker(worker.id).cycle(lap.cycle, lap.transaction);
                    }
                    Ok(event) => taken.event = event,
                    Err(fault) => break Err(fault),
                }
            }
        }
    };
    leased.cycle.backend.put_walker(walker);
    if leased.cycle.running().has_ended() {
        counted::count_ended(worker, session, leased, *taken.now.get_or_insert_with(Instant::now));
    }
    result
}
