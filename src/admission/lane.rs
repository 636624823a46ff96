//! A lane: transactions of one kind, whatever their pool, that pass a limiter of their own before they ask for a
//! backend.
//!
//! The limiter and the queue are those of roles. No I/O, no clock: the shell around it is [`super::lane_gate`].

use std::collections::HashMap;
use std::task::Waker;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::limiter::{LeaseScope, LimiterView, RoleLimiter};
use super::wait_queue::WaitQueue;
use crate::config::RoleQueueSettings;

/// Names a place in the queue of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LanePlace(u64);

/// The answer to [`LaneQueue::enter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneAnswer {
    /// It may start.
    Starts,
    /// It waits; the waker is called when [`LaneQueue::poll`] has an answer.
    Waits(LanePlace),
    /// The queue is as long as it may get.
    Full,
}

/// The answer to [`LaneQueue::poll`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneProgress {
    Pending,
    /// It may start; the place is used up.
    Starts,
    /// It has waited for as long as it may; the place is used up.
    TimedOut,
}

/// A lane's limiter and queue.
#[derive(Debug)]
pub(crate) struct LaneQueue {
    limiter: RoleLimiter,
    queue: WaitQueue<LanePlace>,
    waiters: HashMap<LanePlace, LaneWaiter>,
    wait_timeout: Option<Duration>,
    next: u64,
    rng: Rng,
}

#[derive(Debug)]
struct LaneWaiter {
    since: Instant,
    batch: u64,
    turn: LaneTurn,
}

#[derive(Debug)]
enum LaneTurn {
    Waits(Waker),
    Starts,
    TimedOut,
}

impl LaneWaiter {
    fn waits(&self) -> bool {
        matches!(self.turn, LaneTurn::Waits(_))
    }
}

impl LaneQueue {
    pub(crate) fn new(rules: RoleQueueSettings, wait_timeout: Option<Duration>, seed: u64, now: Instant) -> Self {
        Self {
            limiter: RoleLimiter::new(rules, now),
            queue: WaitQueue::default(),
            waiters: HashMap::new(),
            wait_timeout,
            next: 0,
            rng: Rng::with_seed(seed),
        }
    }

    /// A transaction of the lane wants to start.
    pub(crate) fn enter(&mut self, waker: &Waker, now: Instant) -> LaneAnswer {
        self.limiter.arrived(now);
        if self.limiter.admits(LeaseScope::Transaction, now) {
            self.limiter.started(false, now);
            return LaneAnswer::Starts;
        }
        if self.limiter.rules().waiters_max.is_some_and(|most| self.limiter.waiting() >= most) {
            self.limiter.counters().refused_full += 1;
            return LaneAnswer::Full;
        }
        let place = LanePlace(self.next);
        self.next += 1;
        let oldest = self.queue.first_since().map_or(Duration::ZERO, |since| now - since);
        let (window, is_drawing) = (self.limiter.rules().jitter_window, self.limiter.is_drawing(now));
        let batch = self.queue.join(place, now, window, is_drawing);
        self.waiters.insert(place, LaneWaiter { since: now, batch, turn: LaneTurn::Waits(waker.clone()) });
        self.limiter.queued(0, 1);
        self.limiter.deepened(oldest, now);
        LaneAnswer::Waits(place)
    }

    /// Whether the turn of this place has come.
    pub(crate) fn poll(&mut self, place: LanePlace, waker: &Waker) -> LaneProgress {
        let Some(waiter) = self.waiters.get_mut(&place) else { return LaneProgress::TimedOut };
        let progress = match &mut waiter.turn {
            LaneTurn::Waits(current) => {
                current.clone_from(waker);
                return LaneProgress::Pending;
            }
            LaneTurn::Starts => LaneProgress::Starts,
            LaneTurn::TimedOut => LaneProgress::TimedOut,
        };
        self.waiters.remove(&place);
        progress
    }

    /// The waiter of this place goes away, whatever its turn.
    pub(crate) fn leave_queue(&mut self, place: LanePlace, now: Instant, out: &mut Vec<Waker>) {
        let Some(waiter) = self.waiters.remove(&place) else { return };
        match waiter.turn {
            LaneTurn::Waits(_) => {
                let waiters = &self.waiters;
                self.queue.left(Some(waiter.batch), |other| waiters.get(&other).is_some_and(LaneWaiter::waits));
                self.limiter.queued(1, 0);
            }
            LaneTurn::Starts => {
                self.limiter.ended(now);
                self.serve(now, out);
            }
            LaneTurn::TimedOut => {}
        }
    }

    /// A transaction that started then has ended.
    pub(crate) fn ended(&mut self, started: Instant, now: Instant, out: &mut Vec<Waker>) {
        self.limiter.completed(started, now);
        self.serve(now, out);
    }

    /// Lets in as many as may start.
    fn serve(&mut self, now: Instant, out: &mut Vec<Waker>) {
        while self.queue.ready() > 0 && self.limiter.permits(LeaseScope::Transaction, now) > 0 {
            let waiters = &self.waiters;
            let is_alive = |place| waiters.get(&place).is_some_and(LaneWaiter::waits);
            let Some(place) = self.queue.pop(&mut self.rng, is_alive, |_| true) else { return };
            self.limiter.queued(1, 0);
            self.limiter.started(true, now);
            self.tell(place, LaneTurn::Starts, out);
        }
    }

    fn tell(&mut self, place: LanePlace, turn: LaneTurn, out: &mut Vec<Waker>) {
        if let Some(waiter) = self.waiters.get_mut(&place)
            && let LaneTurn::Waits(waker) = std::mem::replace(&mut waiter.turn, turn)
        {
            out.push(waker);
        }
    }

    /// Time passes: a growing limit lets more in, and some have waited for too long.
    pub(crate) fn tick(&mut self, now: Instant, out: &mut Vec<Waker>) {
        if let Some(wait_timeout) = self.wait_timeout {
            let waiters = &self.waiters;
            let due = self.queue.take_due(
                |opened| now >= opened + wait_timeout,
                |place| waiters.get(&place).is_some_and(|waiter| waiter.waits() && now >= waiter.since + wait_timeout),
            );
            self.limiter.queued(due.len() as u32, 0);
            self.limiter.counters().timed_out += due.len() as u64;
            due.into_iter().for_each(|place| self.tell(place, LaneTurn::TimedOut, out));
        }
        self.limiter.tick(now);
        self.serve(now, out);
    }

    /// The lane is no more: everybody may start.
    pub(crate) fn open(&mut self, now: Instant, out: &mut Vec<Waker>) {
        self.limiter.set_limit(None, None, now);
        self.serve(now, out);
    }

    pub(crate) fn view(&self, now: Instant) -> LimiterView {
        self.limiter.view(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Config, lane_settings};

    fn lane(limit: u32, now: Instant) -> LaneQueue {
        let rules = lane_settings(&Config::default(), Some(limit), Some(20));
        LaneQueue::new(rules, Some(Duration::from_secs(5)), 1, now)
    }

    fn waits(answer: LaneAnswer) -> LanePlace {
        match answer {
            LaneAnswer::Waits(place) => place,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn those_beyond_the_limit_wait_in_order() {
        let now = Instant::now();
        let mut lane = lane(1, now);
        assert_eq!(lane.enter(Waker::noop(), now), LaneAnswer::Starts);
        let [first, second] = [(), ()].map(|()| waits(lane.enter(Waker::noop(), now)));
        let mut out = Vec::new();
        lane.ended(now, now, &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(lane.poll(second, Waker::noop()), LaneProgress::Pending);
        assert_eq!(lane.poll(first, Waker::noop()), LaneProgress::Starts);
    }

    #[test]
    fn nobody_waits_for_longer_than_allowed_and_an_open_lane_lets_all_in() {
        let now = Instant::now();
        let mut lane = lane(0, now);
        let early = waits(lane.enter(Waker::noop(), now));
        let late = waits(lane.enter(Waker::noop(), now + Duration::from_secs(4)));
        let then = now + Duration::from_secs(6);
        lane.tick(then, &mut Vec::new());
        assert_eq!(lane.poll(early, Waker::noop()), LaneProgress::TimedOut);
        assert_eq!(lane.poll(late, Waker::noop()), LaneProgress::Pending);
        lane.open(then, &mut Vec::new());
        assert_eq!(lane.poll(late, Waker::noop()), LaneProgress::Starts);
    }

    proptest! {
        /// However clients come, wait, go and end: never more than the limit, and nobody waits while there is room.
        #[test]
        fn the_limit_holds_and_no_room_is_left(operations in prop::collection::vec((0u8..5, 0usize..8), 0..120)) {
            let mut now = Instant::now();
            let mut lane = lane(3, now);
            let (mut active, mut waiting, mut out) = (0u32, Vec::new(), Vec::new());
            for (operation, choice) in operations {
                now += Duration::from_millis(70);
                match operation {
                    0 | 1 => match lane.enter(Waker::noop(), now) {
                        LaneAnswer::Starts => active += 1,
                        LaneAnswer::Waits(place) => waiting.push(place),
                        LaneAnswer::Full => prop_assert!(waiting.len() >= 20),
                    },
                    2 if active > 0 => {
                        active -= 1;
                        lane.ended(now, now, &mut out);
                    }
                    3 if !waiting.is_empty() => {
                        let place = waiting.swap_remove(choice % waiting.len());
                        lane.leave_queue(place, now, &mut out);
                    }
                    _ => lane.tick(now, &mut out),
                }
                waiting.retain(|place| match lane.poll(*place, Waker::noop()) {
                    LaneProgress::Pending => true,
                    LaneProgress::Starts => {
                        active += 1;
                        false
                    }
                    LaneProgress::TimedOut => false,
                });
                let view = lane.view(now);
                prop_assert!(active <= 3 && view.active == active, "{view:?}");
                prop_assert_eq!(view.waiting as usize, waiting.len());
                prop_assert!(waiting.is_empty() || active == 3);
            }
        }
    }
}
