//! A lane as sessions see it: enter, wait, and give the permit back by dropping it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::lane::{LaneAnswer, LanePlace, LaneProgress, LaneQueue};
use super::limiter::LimiterView;
use crate::config::RoleQueueSettings;

#[derive(Debug)]
pub(crate) struct LaneGate {
    queue: Mutex<LaneQueue>,
}

/// The right of one transaction of a lane to be under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct LanePermit {
    gate: Arc<LaneGate>,
    since: Instant,
}

/// A place in the queue of a lane; dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct LaneTicket {
    gate: Arc<LaneGate>,
    place: Option<LanePlace>,
}

/// The outcome of a wish to start.
#[derive(Debug)]
pub(crate) enum LaneEntry {
    Starts(LanePermit),
    Waits(LaneTicket),
    Full,
}

impl LaneGate {
    pub(crate) fn new(rules: RoleQueueSettings, wait_timeout: Option<Duration>) -> Arc<Self> {
        let queue = LaneQueue::new(rules, wait_timeout, fastrand::u64(..), Instant::now());
        Arc::new(Self { queue: Mutex::new(queue) })
    }

    /// A transaction of the lane wants to start.
    pub(crate) fn enter(self: &Arc<Self>, now: Instant, cx: &Context<'_>) -> LaneEntry {
        let answer = self.queue().enter(cx.waker(), now);
        match answer {
            LaneAnswer::Starts => LaneEntry::Starts(LanePermit { gate: Arc::clone(self), since: now }),
            LaneAnswer::Waits(place) => LaneEntry::Waits(LaneTicket { gate: Arc::clone(self), place: Some(place) }),
            LaneAnswer::Full => LaneEntry::Full,
        }
    }

    /// The regular work.
    pub(crate) fn tick(&self, now: Instant) {
        self.decide(|queue, out| queue.tick(now, out));
    }

    /// The lane is no more: everybody may start.
    pub(crate) fn open(&self, now: Instant) {
        self.decide(|queue, out| queue.open(now, out));
    }

    pub(crate) fn view(&self, now: Instant) -> LimiterView {
        self.queue().view(now)
    }

    fn decide(&self, decision: impl FnOnce(&mut LaneQueue, &mut Vec<Waker>)) {
        let mut wakers = Vec::new();
        decision(&mut self.queue(), &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn queue(&self) -> MutexGuard<'_, LaneQueue> {
        self.queue.lock().expect("the queue does not panic")
    }
}

impl LaneTicket {
    /// Whether its turn has come; `None`: it has waited for as long as it may.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Option<LanePermit>> {
        let Some(place) = self.place else { return Poll::Ready(None) };
        let progress = self.gate.queue().poll(place, cx.waker());
        if progress == LaneProgress::Pending {
            return Poll::Pending;
        }
        self.place = None;
        let permit = || LanePermit { gate: Arc::clone(&self.gate), since: Instant::now() };
        Poll::Ready((progress == LaneProgress::Starts).then(permit))
    }
}

impl Drop for LaneTicket {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.gate.decide(|queue, out| queue.leave_queue(place, Instant::now(), out));
        }
    }
}

impl Drop for LanePermit {
    fn drop(&mut self) {
        self.gate.decide(|queue, out| queue.ended(self.since, Instant::now(), out));
    }
}
