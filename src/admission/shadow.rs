//! A limit that only observes: what it would do to transactions that all go on at once.
//!
//! The limiter and the queue are the real ones, and so are the arrivals and the time that each transaction takes. What
//! is not real is its beginning: it begins here when the limit would have let it, and ends here after the time that it
//! really took. That time is known when it is needed, because nothing begins here before it has really begun.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::fleet_share::FleetShare;
use super::limiter::{LeaseScope, LimiterView, Pace, RoleLimiter};
use super::wait_queue::WaitQueue;
use crate::config::RoleQueueSettings;

/// Transactions that wait here at most, where `waiters_max` says nothing; as the shipped `pool.waiters_max`.
const WAITERS_MAX: u32 = 20_000;

/// What the limit would have done since it observes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObservedCounts {
    /// Transactions seen.
    pub seen: u64,
    /// They would have waited.
    pub waits: u64,
    /// Of these, for longer than they may.
    pub timed_out: u64,
    /// They would have been refused at once.
    pub refused: u64,
}

/// Shadows of transactions. `K` names a place that has one transaction at a time.
#[derive(Debug)]
pub(crate) struct Shadow<K> {
    limiter: RoleLimiter,
    /// What would wait is refused.
    refuses: bool,
    queue: WaitQueue<ShadowId>,
    shadows: HashMap<ShadowId, ShadowState>,
    /// Those whose transactions are under way.
    under_way: HashMap<K, (ShadowId, Instant)>,
    events: BinaryHeap<Reverse<(Instant, ShadowId, ShadowEvent)>>,
    next: u64,
    counts: ObservedCounts,
    rng: Rng,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct ShadowId(u64);

#[derive(Debug)]
enum ShadowState {
    /// `served`: how long its transaction took, once that has ended.
    Waits {
        since: Instant,
        batch: Option<u64>,
        wait_timeout: Option<Duration>,
        served: Option<Duration>,
    },
    Runs {
        since: Instant,
    },
}

impl ShadowState {
    fn waits(&self) -> bool {
        matches!(self, Self::Waits { .. })
    }
}

/// Something due at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ShadowEvent {
    /// It ends.
    End,
    /// It is held back no longer.
    Join,
    /// The rate lets one more start.
    Look,
}

impl<K: Copy + Eq + Hash> Shadow<K> {
    pub(crate) fn new(rules: RoleQueueSettings, refuses: bool, now: Instant) -> Self {
        Self {
            limiter: RoleLimiter::new(rules, now),
            refuses,
            queue: WaitQueue::default(),
            shadows: HashMap::new(),
            under_way: HashMap::new(),
            events: BinaryHeap::new(),
            next: 0,
            counts: ObservedCounts::default(),
            rng: Rng::with_seed(7),
        }
    }

    /// Observes with other rules.
    pub(crate) fn set(&mut self, rules: RoleQueueSettings, refuses: bool, now: Instant) {
        self.catch_up(now);
        self.refuses = refuses;
        self.limiter.set(rules, now);
        self.serve(now);
    }

    pub(crate) fn set_share(&mut self, share: FleetShare, lapses: Option<Instant>, now: Instant) {
        self.limiter.set_share(share, lapses, now);
    }

    /// A transaction begins at `place`; its client would wait for as long as `wait_timeout`.
    pub(crate) fn begins(&mut self, place: K, wait_timeout: Option<Duration>, now: Instant) {
        self.catch_up(now);
        let id = ShadowId(self.next);
        self.next += 1;
        self.counts.seen += 1;
        self.limiter.arrived(now);
        if self.limiter.admits(LeaseScope::Transaction, now) {
            self.limiter.started(false, now);
            self.shadows.insert(id, ShadowState::Runs { since: now });
        } else if self.is_refused(wait_timeout, now) {
            self.counts.refused += 1;
            return;
        } else {
            self.wait(id, wait_timeout, now);
        }
        self.under_way.insert(place, (id, now));
    }

    fn is_refused(&self, wait_timeout: Option<Duration>, now: Instant) -> bool {
        let most = self.limiter.rules().waiters_max.unwrap_or(WAITERS_MAX);
        let is_shed = wait_timeout.is_some_and(|wait_timeout| self.limiter.shed(wait_timeout, now).is_some());
        self.refuses || self.limiter.waiting() >= most || is_shed
    }

    fn wait(&mut self, id: ShadowId, wait_timeout: Option<Duration>, now: Instant) {
        self.counts.waits += 1;
        let oldest = self.queue.first_since().map_or(Duration::ZERO, |since| now - since);
        let roll = self.rng.f64();
        let batch = match self.limiter.hold(roll, now) {
            Some(until) => {
                self.queue.hold(id, until);
                self.events.push(Reverse((until, id, ShadowEvent::Join)));
                None
            }
            None => {
                let (window, is_drawing) = (self.limiter.rules().jitter_window, self.limiter.is_drawing(now));
                Some(self.queue.join(id, now, window, is_drawing))
            }
        };
        self.shadows.insert(id, ShadowState::Waits { since: now, batch, wait_timeout, served: None });
        self.limiter.queued(0, 1);
        self.limiter.deepened(oldest, now);
        self.serve(now);
    }

    /// The transaction at `place` has ended, if it was one of ours.
    pub(crate) fn ends(&mut self, place: K, now: Instant) {
        self.catch_up(now);
        let Some((id, began)) = self.under_way.remove(&place) else { return };
        let took = now - began;
        match self.shadows.get_mut(&id) {
            Some(ShadowState::Runs { since }) => {
                let end = *since + took;
                self.events.push(Reverse((end, id, ShadowEvent::End)));
                self.catch_up(now);
            }
            Some(ShadowState::Waits { served, .. }) => *served = Some(took),
            // It waited for longer than it may.
            None => {}
        }
    }

    /// Everything that is due by now happens, each at its moment.
    fn catch_up(&mut self, now: Instant) {
        while let Some(Reverse((at, id, event))) = self.events.peek().copied()
            && at <= now
        {
            self.events.pop();
            match event {
                ShadowEvent::End => {
                    if let Some(ShadowState::Runs { since }) = self.shadows.remove(&id) {
                        self.limiter.completed(since, at);
                    }
                }
                ShadowEvent::Join => self.join(at),
                ShadowEvent::Look => {}
            }
            self.serve(at);
        }
    }

    fn join(&mut self, at: Instant) {
        let window = self.limiter.rules().jitter_window;
        let shadows = &self.shadows;
        let is_alive = |id: ShadowId| shadows.get(&id).is_some_and(ShadowState::waits);
        let mut joined = Vec::new();
        while let Some(id) = self.queue.pop_held(at, is_alive) {
            joined.push((id, self.queue.join(id, at, window, false)));
        }
        for (id, number) in joined {
            if let Some(ShadowState::Waits { batch, .. }) = self.shadows.get_mut(&id) {
                *batch = Some(number);
            }
        }
    }

    /// Lets in as many as the limit would.
    fn serve(&mut self, at: Instant) {
        while self.queue.ready() > 0 && self.limiter.permits(LeaseScope::Transaction, at) > 0 {
            let waited = self.queue.first_since().map_or(Duration::ZERO, |since| at.saturating_duration_since(since));
            if let Pace::NotBefore(then) = self.limiter.pace(waited, at) {
                self.events.push(Reverse((then, ShadowId(u64::MAX), ShadowEvent::Look)));
                return;
            }
            let shadows = &self.shadows;
            let is_alive = |id: ShadowId| shadows.get(&id).is_some_and(ShadowState::waits);
            let Some(id) = self.queue.pop(&mut self.rng, is_alive, |_| true) else { return };
            self.limiter.queued(1, 0);
            self.limiter.started(true, at);
            let before = self.shadows.insert(id, ShadowState::Runs { since: at });
            if let Some(ShadowState::Waits { served: Some(served), .. }) = before {
                self.events.push(Reverse((at + served, id, ShadowEvent::End)));
            }
        }
    }

    /// Time passes: a growing limit would let more in, and some would have waited for too long.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.catch_up(now);
        let shadows = &self.shadows;
        let is_due = |id: ShadowId| match shadows.get(&id) {
            Some(ShadowState::Waits { since, wait_timeout: Some(wait_timeout), .. }) => now >= *since + *wait_timeout,
            _ => false,
        };
        let due = self.queue.take_due(|_| true, is_due);
        self.limiter.queued(due.len() as u32, 0);
        self.counts.timed_out += due.len() as u64;
        for id in &due {
            self.shadows.remove(id);
        }
        self.limiter.tick(now);
        self.serve(now);
    }

    pub(crate) fn counts(&self) -> ObservedCounts {
        self.counts
    }

    pub(crate) fn view(&self, now: Instant) -> LimiterView {
        self.limiter.view(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limited(max: u32) -> RoleQueueSettings {
        RoleQueueSettings { transactions_max: Some(max), ..RoleQueueSettings::open() }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// How many of these transactions, which arrive in order and take so long, wait for one of `servers`.
    fn waits(transactions: &[(Instant, Duration)], servers: u32) -> u64 {
        let start = transactions.first().map_or_else(Instant::now, |(at, _)| *at);
        let mut free: BinaryHeap<Reverse<Instant>> = (0..servers).map(|_| Reverse(start)).collect();
        let mut waits = 0;
        for (at, took) in transactions {
            let Reverse(earliest) = free.pop().expect("one for each server");
            waits += u64::from(earliest > *at);
            free.push(Reverse(earliest.max(*at) + *took));
        }
        waits
    }

    /// The counts of a shadow that sees them, all of them at once.
    fn observed(transactions: &[(Instant, Duration)], max: u32) -> ObservedCounts {
        let mut moments: Vec<(Instant, bool, usize)> = Vec::new();
        for (place, (at, took)) in transactions.iter().enumerate() {
            moments.push((*at + *took, false, place));
            moments.push((*at, true, place));
        }
        moments.sort();
        let Some((first, ..)) = moments.first().copied() else { return ObservedCounts::default() };
        let mut shadow = Shadow::new(limited(max), false, first);
        for (at, begins, place) in moments {
            match begins {
                true => shadow.begins(place, None, at),
                false => shadow.ends(place, at),
            }
        }
        shadow.counts()
    }

    #[test]
    fn those_beyond_the_limit_would_wait_one_after_the_other() {
        let now = Instant::now();
        let transactions: Vec<_> = (0..10).map(|_| (now, ms(100))).collect();
        assert_eq!(observed(&transactions, 4).waits, 6);
        // They all have ended at once, and yet the limit would still hold some.
        let late = [transactions, vec![(now + ms(150), ms(100))]].concat();
        assert_eq!(observed(&late, 4).waits, 7);
        let later = [late, vec![(now + ms(500), ms(100))]].concat();
        assert_eq!(observed(&later, 4).waits, 7);
    }

    #[test]
    fn those_who_would_wait_for_too_long_are_counted_and_forgotten() {
        let now = Instant::now();
        let mut shadow = Shadow::new(limited(1), false, now);
        for place in 0..3 {
            shadow.begins(place, Some(ms(500)), now);
        }
        shadow.tick(now + ms(600));
        assert_eq!(shadow.counts(), ObservedCounts { seen: 3, waits: 2, timed_out: 2, refused: 0 });
        (0..3).for_each(|place| shadow.ends(place, now + ms(700)));
        assert_eq!(shadow.view(now + ms(700)).active, 0);
        assert!(shadow.shadows.is_empty() && shadow.under_way.is_empty());
    }

    #[test]
    fn where_nobody_waits_they_are_refused() {
        let now = Instant::now();
        let mut shadow = Shadow::new(limited(1), true, now);
        (0..3).for_each(|place| shadow.begins(place, None, now));
        assert_eq!(shadow.counts(), ObservedCounts { seen: 3, refused: 2, ..ObservedCounts::default() });
    }

    proptest! {
        /// Whatever comes and however long it takes: the limit would have held back as many as it really does.
        #[test]
        fn it_counts_what_the_limit_does(
            transactions in prop::collection::vec((0u64..50, 1u64..200), 0..200), max in 1u32..6
        ) {
            let mut at = Instant::now();
            let transactions: Vec<_> = transactions
                .into_iter()
                .map(|(after, took)| {
                    at += ms(after);
                    (at, ms(took))
                })
                .collect();
            prop_assert_eq!(observed(&transactions, max).waits, waits(&transactions, max));
        }
    }
}
