//! Sends a statement again that provably did not run: not a byte of it was written, or a server that may not write
//! refused it before its first row. Where a topology looks for the primary, the next backend is another's.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use super::{Client, End, Phase};
use crate::config::PoolMode;
use crate::metrics::{PoolCounter, ReplayReason};
use crate::session::answers::Event;
use crate::session::leased::Leased;
use crate::session::replay::{self, FirstAnswer, ReplayLog};

/// A session with it on writes nowhere.
const READ_ONLY: &str = "default_transaction_read_only";

/// A client whose statements may be sent again.
#[derive(Debug, Default)]
pub(super) struct Again {
    pub(super) log: ReplayLog,
    /// The pause before one is.
    pause: Option<Pin<Box<Sleep>>>,
    /// An error that the client has not got, until the cycle has ended.
    withheld: Vec<u8>,
}

/// The way of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The client gets it.
    Tell,
    /// The client may get it later.
    Withhold,
    /// The client never sees it.
    SendAgain,
}

impl Client {
    /// True while the client's statement waits to be sent again.
    pub(super) fn is_pausing(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(again) = &mut self.again else { return false };
        let Some(pause) = &mut again.pause else { return false };
        let is_over = pause.as_mut().poll(cx).is_ready();
        if is_over {
            again.pause = None;
        }
        !is_over
    }

    /// Judges an answer of which the client has got nothing: it may show that its statement did not run, and another
    /// server may run it. One that the session itself made read only may not.
    pub(super) fn weigh(&mut self, event: Event, answer: &[u8]) -> Verdict {
        let may_change_server = self.may_change_server();
        let (Some(again), Phase::Leased(leased)) = (&mut self.again, &self.phase) else { return Verdict::Tell };
        let is_refused = event == Event::ReadOnly || !again.withheld.is_empty();
        let may_write = !self.session.settings.values().contains_key(READ_ONLY)
            && leased.lease.parameters.value(READ_ONLY) != Some("on");
        if !is_refused || !again.log.is_refused_whole() || !may_change_server || !may_write {
            return Verdict::Tell;
        }
        let whole = [&again.withheld, answer].concat();
        match replay::first_answer(&whole) {
            FirstAnswer::Error if leased.cycle.can_release() => Verdict::SendAgain,
            FirstAnswer::ErrorOnly => {
                again.withheld = whole;
                Verdict::Withhold
            }
            FirstAnswer::Error | FirstAnswer::Other => Verdict::Tell,
        }
    }

    /// The client gets something, and what was withheld before it.
    pub(super) fn tell_withheld(&mut self) {
        if let Some(again) = &mut self.again {
            again.log.told();
            self.side.buffer.bytes().append(&mut again.withheld);
        }
    }

    /// Whether the statement could not be written at all.
    pub(super) fn is_unsent(&self) -> bool {
        self.again.as_ref().is_some_and(|again| again.log.is_unsent()) && self.may_change_server()
    }

    fn may_change_server(&self) -> bool {
        self.session.mode != PoolMode::Session && !self.session.may_be_pinned() && self.held.is_empty()
    }

    /// Gives up the backend and handles the statement anew.
    ///
    /// ## Leased => Idle
    pub(super) fn send_again(&mut self, reason: ReplayReason) -> Result<(), End> {
        let Phase::Leased(leased) = std::mem::replace(&mut self.phase, Phase::Idle) else { return Ok(()) };
        let Some(again) = &mut self.again else { return Ok(()) };
        again.withheld.clear();
        self.held = again.log.take();
        let pause = match reason {
            ReplayReason::Unsent => Duration::ZERO,
            ReplayReason::ReadOnly => again.log.next_pause(),
        };
        again.pause = (!pause.is_zero()).then(|| Box::pin(sleep(pause)));
        let Leased { lease, cycle, .. } = leased;
        // It is closed: nobody else should get a backend of that server.
        drop(lease);
        self.handle.set_idle();
        self.signals_answered();
        self.session.notifications.lost(false);
        self.tell_lost_values();
        for name in replay::names(&self.held) {
            self.session.statements.remove(name);
        }
        self.session.pins.clear();
        self.session.statements.leave_backend();
        let stats = self.session.pool.stats.worker(self.worker.id);
        stats.leased(cycle.times.since.elapsed());
        stats.add(PoolCounter::Replays(reason));
        self.doubt_server();
        Ok(())
    }
}
