//! How a client gets a backend and releases it: ask, wait, begin; finish_cycle, release, lose.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::counted::count_ended;
use super::in_lane::lane_fault;
use super::overdue::Reason;
use super::recorded::{record_served, record_unserved};
use super::{Client, End, Phase, Waiting};
use crate::config::PoolMode;
use crate::error::sqlstate;
use crate::error::{Fault, Lost, LostOutcome, Queue};
use crate::lanes::LaneOf;
use crate::metrics::{PoolCounter, PoolHistogram};
use crate::pool::backend::SequenceUser;
use crate::pool::lease::{Ask, Lease, LeaseError};
use crate::session::answers::passes_end;
use crate::session::cleanup;
use crate::session::context::Buffers;
use crate::session::cycle::CycleState;
use crate::session::frontend::{self, DISCARD_SEQUENCES};
use crate::session::leased::{InLane, Leased};
use crate::session::orphan::Orphan;
use crate::session::reply_action::ReplyAction;
use crate::session::running::StatementError;
use crate::session::session::Session;
use crate::session::stopwatch::LeaseTimes;
use crate::state::settings::{Replay, SettingsRegistry};
use crate::state::timeout::Timeout;
use crate::wire::build;
use crate::wire::expected::{Origin, TransactionStatus};
use crate::wire::frame::{Piece, Walker};
use crate::wire::message::Message;
use crate::wire::splice::Splice;

impl Client {
    /// ## Idle => (Leased | Waiting). True if there is a backend now.
    #[inline]
    pub(super) fn ask(&mut self, cx: &mut Context<'_>) -> Result<bool, Fault> {
        self.ask_in(None, cx)
    }

    /// The same for a transaction in this lane.
    #[inline]
    pub(super) fn ask_in(&mut self, lane: Option<LaneOf>, cx: &mut Context<'_>) -> Result<bool, Fault> {
        let now = Instant::now();
        let id = lane.as_ref().and_then(LaneOf::id);
        match self.worker.proxy.pools.lease(&self.session.pool, id, self.worker.id, now, cx) {
            Ok(Ask::Leased(lease)) => {
                self.begin_lease(lease, lane, now, Duration::ZERO);
                Ok(true)
            }
            Ok(Ask::Waits(waiter)) => {
                self.phase = Phase::Waiting(Box::new(Waiting { waiter, since: now, lane }));
                self.handle.set_waiting();
                Ok(false)
            }
            Err(error) => {
                let fault = self.lease_fault(error, lane.as_ref(), Duration::ZERO);
                if let Some(flight) = &self.worker.flight {
                    record_unserved(flight, &self.session, lane.as_ref(), now, &fault);
                }
                Err(fault)
            }
        }
    }

    fn lease_fault(&self, error: LeaseError, lane: Option<&LaneOf>, waited: Duration) -> Fault {
        if let Some(fault) = lane.and_then(|lane| lane_fault(lane, &error, waited)) {
            return fault;
        }
        match error {
            LeaseError::LaneFull { waiting } => Fault::PoolFull(Queue { waiting, ..self.queue() }),
            LeaseError::PoolFull { waiting } => Fault::PoolFull(Queue { waiting, ..self.queue() }),
            LeaseError::RoleFull { waiting } => Fault::RoleFull(Queue { waiting, ..self.queue() }),
            LeaseError::Shed { waiting, expected } => {
                Fault::Shed(Queue { waiting, expected: Some(expected), ..self.queue() })
            }
            LeaseError::TimedOut(bottleneck) => Fault::WaitTimeout { queue: self.queue(), waited, bottleneck },
            LeaseError::Down => Fault::Down,
            LeaseError::NoReader => Fault::NoReader,
            LeaseError::Refused => self.session.pool.refusal().map_or(Fault::Refused, Fault::LoginRefused),
            LeaseError::Removed => Fault::Removed,
        }
    }

    /// The queue of the client's role as it is now.
    fn queue(&self) -> Queue {
        let pool = &self.session.pool;
        let (waiting, expected) =
            self.worker.proxy.pools.core().depth(pool.id, None, Instant::now()).unwrap_or_default();
        Queue { role: Arc::clone(&pool.name.role), waiting, expected }
    }

    /// ## Waiting => (Leased | Idle)
    pub(super) fn wait(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Result<(), End> {
        let Phase::Waiting(waiting) = &mut self.phase else { return Ok(()) };
        let is_of_order = matches!(waiting.lane, Some(LaneOf::Order(_)));
        if !is_of_order
            && self.worker.proxy.lanes.orders.is_any_since(waiting.since)
            && self.obey_new_order(cx, &mut buffers.copy)?
        {
            return Ok(());
        }
        let Phase::Waiting(waiting) = &mut self.phase else { return Ok(()) };
        let Waiting { waiter, since, lane } = &mut **waiting;
        let since = *since;
        match waiter.poll(cx) {
            Poll::Ready(Ok(Ask::Leased(lease))) => {
                let now = Instant::now();
                self.session.pool.stats.worker(self.worker.id).record(PoolHistogram::Wait, now - since);
                let lane = lane.take();
                self.begin_lease(lease, lane, now, now - since);
                let held = std::mem::take(&mut self.held);
                self.take_in(&held, &mut buffers.copy, cx)
            }
            Poll::Ready(Ok(Ask::Waits(other))) => {
                *waiter = other;
                cx.waker().wake_by_ref();
                Ok(())
            }
            Poll::Ready(Err(error)) => {
                let lane = lane.take();
                let fault = self.lease_fault(error, lane.as_ref(), since.elapsed());
                self.fail_waiting(&fault, cx)
            }
            Poll::Pending => {
                if let Some(others) = waiter.take_notice() {
                    let pool = &self.session.pool;
                    let view = self.worker.proxy.pools.core().database(pool.database);
                    let is_unproved = view.is_some_and(|view| view.is_unproved);
                    let report = sqlstate::still_waiting(&pool.name.role, since.elapsed(), others, is_unproved);
                    build::notice_response(self.side.buffer.bytes(), &report);
                    self.flush(cx)?;
                }
                Ok(())
            }
        }
    }

    /// ## Waiting => Idle: the first message in hand is answered with an error, and everything behind it.
    pub(super) fn fail_waiting(&mut self, fault: &Fault, cx: &mut Context<'_>) -> Result<(), End> {
        let waited = match &self.phase {
            Phase::Waiting(waiting) => waiting.since.elapsed(),
            _ => Duration::ZERO,
        };
        if let (Some(flight), Phase::Waiting(waiting)) = (&self.worker.flight, &self.phase) {
            record_unserved(flight, &self.session, waiting.lane.as_ref(), waiting.since, fault);
        }
        self.phase = Phase::Idle;
        self.handle.set_idle();
        let ending = match fault {
            Fault::LoginRefused(refusal) => Some(Fault::LoginRefused(refusal.clone())),
            Fault::Removed => Some(Fault::Removed),
            _ => None,
        };
        if let Some(fault) = ending {
            self.worker.proxy.errors.count(sqlstate::report(&fault).code);
            return Err(fault.into());
        }
        let held = std::mem::take(&mut self.held);
        let mut input = &held[..];
        // The first message is whole or its rest is not needed; bytes of it that are still to come are discarded.
        let mut walker = Walker::default();
        let head = walker.next(&mut input, frontend::want)?;
        let Some(Piece::Head { tag, body, bytes, fresh }) = head else { return Ok(()) };
        if let Ok(request) = (Message { tag, body, bytes, fresh }).request() {
            self.count_refusal(request, waited, &sqlstate::report(fault).code);
        }
        self.side.set_forwarding(false);
        self.begin_refusal(tag, fault);
        self.side.put_walker(walker);
        self.held = input.to_vec();
        self.flush(cx)?;
        Ok(())
    }

    /// The backend did not take the client's settings: nothing of the client runs there, and it gets the server's
    /// error.
    pub(super) fn settings_refused(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let Phase::Leased(leased) = &mut self.phase else { return Ok(()) };
        leased.cycle.hold_client(false);
        let Some(error) = leased.cycle.take_refusal() else { return Ok(()) };
        let held = std::mem::take(&mut self.held);
        let mut input = &held[..];
        let mut walker = Walker::default();
        let head = walker.next(&mut input, frontend::want)?;
        let Some(Piece::Head { tag, .. }) = head else { return Ok(()) };
        self.side.set_forwarding(false);
        self.begin_refusal_with(tag, error);
        self.side.put_walker(walker);
        self.held = input.to_vec();
        self.flush(cx)
    }

    #[inline]
    pub(super) fn begin_lease(&mut self, mut lease: Lease, lane: Option<LaneOf>, now: Instant, waited: Duration) {
        if lease.is_moved {
            self.worker.load.count_backend();
        }
        self.session.begins_use(lease.begin_use(self.session.entry.pid));
        self.handle.set_active(lease.target.clone());
        self.is_unsynced = false;
        self.session.statements.leave_backend();
        if !self.session.reported.is_same(&lease.parameters) {
            self.tell_parameters(&lease);
        }
        let lane = lane.map(|lane| Box::new(InLane::begin(lane, &lease.target)));
        let cycle = self.worker.cycle(LeaseTimes::begin(now, waited));
        self.phase = Phase::Leased(Leased { lease, cycle, pin: None, lane });
    }

    /// Reports the parameters whose values differ between this backend and the last report to the client.
    fn tell_parameters(&mut self, lease: &Lease) {
        let before = std::mem::replace(&mut self.session.reported, lease.parameters.clone());
        for (name, value) in lease.parameters.iter() {
            let is_own = self.session.settings.values().contains_key(&name.to_ascii_lowercase());
            if before.value(name) != Some(value) && !is_own {
                build::parameter_status(self.side.buffer.bytes(), name, value);
            }
        }
        self.session.update_lexer();
    }

    /// Probes, cleans or releases the backend when nothing is outstanding. `now`: pass it if the clock was read
    /// already.
    #[inline]
    pub(super) fn finish_cycle(&mut self, cx: &mut Context<'_>, now: Option<Instant>) -> Result<(), End> {
        let Phase::Leased(leased) = &mut self.phase else { return Ok(()) };
        if !leased.cycle.can_release() || !self.held.is_empty() {
            return Ok(());
        }
        if self.session.mode == PoolMode::Session {
            self.was_served();
            return Ok(());
        }
        if self.side.is_mid_forward() || !leased.cycle.backend.buffer.is_empty() {
            return Ok(());
        }
        if !self.session.pins.is_settled() {
            leased.lease.is_dirty |= self.session.pins.is_uncertain();
            if let Some((asked, sql)) = self.session.pins.question() {
                if leased.question(cx, &mut self.session.statements, &sql, ReplyAction::Probes(asked)).is_err() {
                    return self.lose(cx);
                }
                return Ok(());
            }
        }
        if let Some(unknown) = self.session.unknown_settings.take() {
            let sql = unknown.question();
            if leased.question(cx, &mut self.session.statements, &sql, ReplyAction::AsksSettings(unknown)).is_err() {
                return self.lose(cx);
            }
            return Ok(());
        }
        if self.session.is_pinned() {
            return self.keep_pinned();
        }
        if leased.lease.is_dirty {
            // Messages that come meanwhile wait: they need the backend's settings and statements, which the reset
            // drops.
            leased.cycle.hold_client(true);
            if leased.reset(cx, self.session.pool.resets_always.load(Ordering::Relaxed)).is_err() {
                return self.lose(cx);
            }
            return Ok(());
        }
        self.release(now.unwrap_or_else(Instant::now));
        Ok(())
    }

    /// A cycle ended: the client is not idle, and a part of its worker's load.
    #[inline]
    pub(super) fn was_served(&self) {
        if self.handle.touch(self.worker.proxy.clock.second()) {
            self.worker.load.count_served();
        }
    }

    /// ## Leased => Idle
    #[inline]
    fn release(&mut self, now: Instant) {
        let Phase::Leased(leased) = std::mem::replace(&mut self.phase, Phase::Idle) else { return };
        if let Some(flight) = &self.worker.flight {
            record_served(flight, &self.session, &leased, now);
        }
        let Leased { lease, cycle, .. } = leased;
        self.handle.set_idle();
        self.was_served();
        self.session.pool.stats.worker(self.worker.id).leased(now - cycle.times.since);
        cleanup::release(&self.worker, lease, cycle, now);
        self.side.shrink();
        self.session.statements.shrink();
    }

    /// The backend broke the protocol: it is closed, and no other client gets it.
    pub(super) fn abandon(&mut self) {
        self.phase = Phase::Idle;
        self.handle.set_idle();
        self.session.notifications.lost(false);
    }

    /// ## Leased => (Idle | Orphaned): the backend is gone. The client gets an error for every cycle it waits for, and
    /// stays.
    pub(super) fn lose(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        self.doubt_server();
        self.tell_withheld();
        self.part(None, cx)
    }

    /// A topology looks at the server of this client's backend now.
    pub(super) fn doubt_server(&self) {
        if let Some(route) = self.session.pool.route() {
            route.doubt();
        }
    }

    /// ## Leased => (Idle | Orphaned): the transaction went on for too long, and the client loses its backend.
    pub(super) fn expire(&mut self, reason: Reason, cx: &mut Context<'_>) -> Result<(), End> {
        self.part(Some(reason), cx)
    }

    fn part(&mut self, expired: Option<Reason>, cx: &mut Context<'_>) -> Result<(), End> {
        let Phase::Leased(mut leased) = std::mem::replace(&mut self.phase, Phase::Idle) else { return Ok(()) };
        if let Some(flight) = &self.worker.flight {
            record_served(flight, &self.session, &leased, Instant::now());
        }
        let is_mid_frame = self.side.is_mid_forward();
        let result = self.tell_loss(&mut leased.cycle, expired);
        if leased.cycle.running().has_ended() {
            count_ended(&self.worker, &self.session, &mut leased, Instant::now());
        }
        match expired {
            None => drop(leased),
            Some(Reason::Silent(_)) => cleanup::give_up(&self.worker, leased, &self.session),
            Some(_) if leased.cycle.replies().is_empty() && result.is_ok() => {
                cleanup::take_back(&self.worker, leased, &mut self.session);
            }
            Some(_) => cleanup::begin(&self.worker, leased, &mut self.session, is_mid_frame),
        }
        result?;
        self.flush(cx)
    }

    /// Tells a client that its backend is gone or taken from it, and what that ends.
    fn tell_loss(&mut self, cycle: &mut CycleState, expired: Option<Reason>) -> Result<(), End> {
        self.handle.set_idle();
        self.signals_answered();
        // Nobody knows for how many ReadyForQuery a client waits behind a COPY that failed; Postgres closes it as well.
        let is_session_lost =
            self.session.mode == PoolMode::Session || self.session.may_be_pinned() || cycle.replies().is_doubtful();
        let lost = Lost { outcome: self.lost_outcome(cycle), final_error: cycle.take_final_error() };
        let is_taken_back = matches!(expired, Some(Reason::Timeout(_) | Reason::Holding));
        if !is_taken_back {
            self.session.notifications.lost(may_have_committed(&lost, cycle));
        }
        if cycle.backend.is_mid_forward() {
            // Half a message went out: no error can follow it.
            return Err(End::Gone);
        }
        if let Some(said) = &lost.final_error
            && !is_taken_back
            && passes_end(self.session.mode, said.code.as_bytes())
        {
            self.worker.proxy.errors.count(&said.code);
            return Err(End::Told);
        }
        // The rest of the message under way is dropped: it must not go to the next backend.
        self.side.set_forwarding(false);
        let fault = self.loss(lost, expired, is_session_lost, cycle);
        let code = sqlstate::report(&fault).code;
        let timeout = match expired {
            Some(Reason::Timeout(timeout) | Reason::Silent(timeout)) => Some(timeout),
            Some(Reason::Holding) | None => None,
        };
        cycle.running().lost(&StatementError::new(code.as_bytes(), timeout));
        self.worker.proxy.errors.count(code);
        if is_session_lost {
            return Err(fault.into());
        }
        let loses_transaction = cycle.loses_transaction();
        self.tell_lost_values();
        self.answer_outstanding(cycle, &fault, loses_transaction);
        self.session.pins.clear();
        self.session.statements.leave_backend();
        if loses_transaction {
            let is_unreported =
                !cycle.is_unit_open() && cycle.replies().iter().all(|entry| entry.origin == Origin::Own);
            self.phase = Phase::Orphaned(Box::new(Orphan::new(is_unreported.then_some(fault))));
        }
        Ok(())
    }

    /// The fate of what the client had under way with a backend that is gone.
    fn lost_outcome(&self, cycle: &CycleState) -> LostOutcome {
        let is_open = cycle.replies().status() != TransactionStatus::Idle;
        match cycle.pending_outcome() {
            _ if cycle.is_committing() => LostOutcome::InCommit,
            // A text that was not read whole may have held a COMMIT.
            None if is_open && !self.session.pins.is_uncertain() => LostOutcome::RolledBack,
            // With a ROLLBACK under way, a statement behind it may have run on its own.
            None | Some(_) => LostOutcome::Unknown,
        }
    }

    /// The fault for a client that loses its backend: because of `expired`, of a timeout of the server, or otherwise.
    fn loss(&self, lost: Lost, expired: Option<Reason>, is_session_lost: bool, cycle: &CycleState) -> Fault {
        let count = |timeout| {
            if !cycle.is_counted(timeout) {
                self.session.pool.stats.worker(self.worker.id).add(PoolCounter::Timeouts(timeout));
            }
        };
        let by_server = || lost.final_error.as_ref().and_then(|error| Timeout::of_sqlstate(error.code.as_bytes()));
        match expired.or_else(|| by_server().map(Reason::Timeout)) {
            Some(Reason::Holding) => self.session.held_up(),
            Some(Reason::Silent(timeout)) if may_have_committed(&lost, cycle) => {
                count(timeout);
                Fault::Unanswered { hint: self.session.hint(timeout), ends_session: is_session_lost }
            }
            Some(Reason::Timeout(timeout) | Reason::Silent(timeout))
                if lost.outcome != LostOutcome::InCommit || expired.is_some() && cycle.replies().is_empty() =>
            {
                count(timeout);
                self.session.expired(timeout)
            }
            _ if is_session_lost => Fault::SessionLost(lost),
            _ => Fault::Lost(lost),
        }
    }

    /// Answers every cycle that the client waits for: the first with this fault, the others as in a failed transaction,
    /// if the transaction is lost. A unit without its Sync gets its ReadyForQuery when the Sync comes, but a COPY that
    /// has swallowed its Sync at once.
    fn answer_outstanding(&mut self, cycle: &CycleState, fault: &Fault, loses_transaction: bool) {
        let after = if loses_transaction { TransactionStatus::Failed } else { TransactionStatus::Idle };
        let out = self.side.buffer.bytes();
        let mut report = sqlstate::report(fault);
        let mut is_reported = cycle.replies().is_skipping();
        for entry in cycle.replies().iter().filter(|entry| entry.origin == Origin::Client) {
            if !is_reported {
                build::error_response(out, &report);
                is_reported = true;
            }
            if entry.expect.is_cycle() {
                build::ready_for_query(out, after);
                is_reported = false;
                if loses_transaction {
                    report = sqlstate::report(&Fault::TransactionLost);
                }
            }
        }
        if !cycle.is_unit_open() {
            return;
        }
        if !is_reported {
            build::error_response(out, &report);
        }
        self.copy_rest = cycle.replies().copy_rest();
        match self.copy_rest {
            Some(_) => build::ready_for_query(out, after),
            None => self.is_discarding = true,
        }
    }
}

/// True if nobody knows whether a statement under way took effect: a single one outside a transaction commits itself.
fn may_have_committed(lost: &Lost, cycle: &CycleState) -> bool {
    lost.outcome == LostOutcome::InCommit || cycle.replies().status() == TransactionStatus::Idle
}

/// Sends the settings that the backend lacks ahead of a cycle. True if the client's messages must wait for the outcome.
#[inline]
pub(super) fn begin_cycle(
    leased: &mut Leased,
    session: &mut Session,
    registry: &SettingsRegistry,
    out: &mut Splice<'_>,
) -> bool {
    // At each transaction, not at the lease: a message that came while its backend was reset goes on in the same lease.
    leased.lease.is_dirty |= session.pool.resets_always.load(Ordering::Relaxed);
    let epoch = session.pool.epoch();
    if session.epoch != epoch {
        session.begin_epoch(registry);
    }
    let is_current = leased.lease.epoch.number() == epoch;
    if !is_current || !leased.lease.applied.is_same(&session.settings) {
        bring_settings(leased, session, registry, out);
    }
    if !session.knows_sequences() && session.pool.reads_sequences.load(Ordering::Relaxed) {
        begin_sequences(leased, session, out);
    }
    leased.cycle.holds_client()
}

/// Forgets what others got from sequences: what the client gets from here on is its own.
fn begin_sequences(leased: &mut Leased, session: &mut Session, out: &mut Splice<'_>) {
    session.knows_sequences = Some(true);
    leased.lease.sequences = SequenceUser::One(session.entry.pid);
    session.statements.leave_unnamed();
    leased.cycle.query(out.buffer(), DISCARD_SEQUENCES, ReplyAction::Assumes);
}

fn bring_settings(leased: &mut Leased, session: &mut Session, registry: &SettingsRegistry, out: &mut Splice<'_>) {
    leased.lease.target.clock.set_own(session.settings.timeouts());
    let wanted = leased.lease.wanted(&session.settings, &session.pool, registry);
    if leased.lease.applied.is_same(&wanted) {
        return;
    }
    let Replay { encoding, rest } = leased.lease.applied.replay(&wanted, &leased.lease.parameters);
    if rest.is_empty() && encoding.is_empty() {
        leased.lease.applied = wanted;
        return;
    }
    leased.cycle.hold_client(true);
    // Each of these destroys the unnamed statement.
    session.statements.leave_unnamed();
    if !encoding.is_empty() {
        leased.cycle.query(out.buffer(), &encoding, ReplyAction::Applies(None));
    }
    leased.cycle.query(out.buffer(), &rest, ReplyAction::Applies(Some(wanted)));
}
