//! Waiters in order of arrival; those of one arrival batch may be drawn at random.
//!
//! Batches are served strictly in order; within a random one, the next is drawn. That costs no time, breaks the step of
//! clients that fire together, and nobody is overtaken by somebody who came a window later. With `jitter = "spread"` a
//! waiter may first be held back until a moment of its own.
//!
//! Within a batch, one that is near (a backend need not change threads for it) is served rather than one that is not:
//! in a random batch the best of a few draws, in one in order of arrival one of the first few, past whom no more than a
//! few go.
//!
//! A waiter that leaves from the middle stays behind as a dead entry, so leaving costs the same at any length; the
//! caller says whether an entry is alive. The first batch always has somebody alive.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

/// Dead entries are swept when they outnumber those alive by more than this.
const DEAD_MAX: usize = 64;

/// Draws from a random batch until one is near.
const DRAWS: usize = 4;

/// The first of a batch in order of arrival among which one that is near is looked for, and the most in a row that go
/// past the very first.
const PASSING: usize = 8;

#[derive(Debug)]
pub(crate) struct WaitQueue<T: Ord> {
    batches: VecDeque<Batch<T>>,
    /// The number of the next batch.
    next: u64,
    ready: u32,
    held: BinaryHeap<Reverse<(Instant, T)>>,
    held_alive: u32,
}

#[derive(Debug)]
struct Batch<T> {
    number: u64,
    opened: Instant,
    is_random: bool,
    entries: VecDeque<T>,
    alive: u32,
    /// How many went past the first entry.
    passed: usize,
}

impl<T: Copy> Batch<T> {
    /// Takes the next one that is alive.
    fn draw(&mut self, rng: &mut Rng, is_alive: impl Fn(T) -> bool, is_near: impl Fn(T) -> bool) -> Option<T> {
        if self.is_random {
            return self.draw_at_random(rng, is_alive, is_near);
        }
        while self.entries.front().is_some_and(|first| !is_alive(*first)) {
            self.entries.pop_front();
        }
        let mut first_few = self.entries.iter().take(PASSING);
        let near = match self.passed < PASSING {
            true => first_few.position(|entry| is_alive(*entry) && is_near(*entry)).unwrap_or(0),
            false => 0,
        };
        self.passed = if near == 0 { 0 } else { self.passed + 1 };
        self.entries.remove(near)
    }

    fn draw_at_random(
        &mut self,
        rng: &mut Rng,
        is_alive: impl Fn(T) -> bool,
        is_near: impl Fn(T) -> bool,
    ) -> Option<T> {
        let mut draws = 0;
        loop {
            let index = (rng.f64() * self.entries.len() as f64) as usize;
            let entry = *self.entries.get(index)?;
            let is_alive = is_alive(entry);
            draws += usize::from(is_alive);
            if !is_alive || is_near(entry) || draws == DRAWS {
                self.entries.swap_remove_back(index);
            }
            if is_alive && (is_near(entry) || draws == DRAWS) {
                return Some(entry);
            }
        }
    }
}

impl<T: Ord> Default for WaitQueue<T> {
    fn default() -> Self {
        Self { batches: VecDeque::new(), next: 0, ready: 0, held: BinaryHeap::new(), held_alive: 0 }
    }
}

impl<T: Ord + Copy> WaitQueue<T> {
    /// An empty one whose batches have numbers from this on.
    pub(crate) fn starting_at(next: u64) -> Self {
        Self { next, ..Self::default() }
    }

    /// The number of the next batch.
    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }

    /// Everybody waiting, those held back included.
    pub(crate) fn waiting(&self) -> u32 {
        self.ready + self.held_alive
    }

    /// Those who may be served.
    pub(crate) fn ready(&self) -> u32 {
        self.ready
    }

    /// When the first batch began.
    pub(crate) fn first_since(&self) -> Option<Instant> {
        self.batches.front().map(|batch| batch.opened)
    }

    /// When the next waiter that is held back joins.
    pub(crate) fn next_held(&self) -> Option<Instant> {
        self.held.peek().map(|Reverse((at, _))| *at)
    }

    /// Joins the batch of this moment, which others may join for `window`; returns its number.
    pub(crate) fn join(&mut self, entry: T, now: Instant, window: Duration, is_random: bool) -> u64 {
        self.ready += 1;
        let is_open = |batch: &&mut Batch<T>| batch.is_random == is_random && now < batch.opened + window;
        if let Some(batch) = self.batches.back_mut().filter(is_open) {
            batch.entries.push_back(entry);
            batch.alive += 1;
            return batch.number;
        }
        let number = self.next;
        self.next += 1;
        self.batches.push_back(Batch {
            number,
            opened: now,
            is_random,
            entries: VecDeque::from([entry]),
            alive: 1,
            passed: 0,
        });
        number
    }

    /// A waiter whose turn came to nothing goes back to the front of its batch, which began at `opened` at the latest.
    pub(crate) fn rejoin(&mut self, entry: T, number: u64, opened: Instant) {
        self.ready += 1;
        let index = self.batches.partition_point(|batch| batch.number < number);
        match self.batches.get_mut(index).filter(|batch| batch.number == number) {
            Some(batch) => {
                batch.entries.push_front(entry);
                batch.alive += 1;
            }
            None => {
                let entries = VecDeque::from([entry]);
                self.batches.insert(index, Batch { number, opened, is_random: false, entries, alive: 1, passed: 0 });
            }
        }
    }

    /// Holds a waiter back until then.
    pub(crate) fn hold(&mut self, entry: T, until: Instant) {
        self.held_alive += 1;
        self.held.push(Reverse((until, entry)));
    }

    /// Takes out a waiter whose time has come, for the caller to join; the caller sees whether it is alive.
    pub(crate) fn pop_held(&mut self, now: Instant, is_alive: impl Fn(T) -> bool) -> Option<T> {
        while self.next_held().is_some_and(|at| at <= now) {
            let Reverse((_, entry)) = self.held.pop()?;
            if is_alive(entry) {
                self.held_alive -= 1;
                return Some(entry);
            }
        }
        None
    }

    /// Takes the next out of the queue: the first of the first batch, or one at random if that is how it was joined;
    /// rather one that is near.
    pub(crate) fn pop(
        &mut self,
        rng: &mut Rng,
        is_alive: impl Fn(T) -> bool,
        is_near: impl Fn(T) -> bool,
    ) -> Option<T> {
        let batch = self.batches.front_mut()?;
        let drawn = batch.draw(rng, is_alive, is_near)?;
        batch.alive -= 1;
        if batch.alive == 0 {
            self.batches.pop_front();
        }
        self.ready -= 1;
        Some(drawn)
    }

    /// A waiter of this batch (`None`: held back) left, and is no longer alive.
    pub(crate) fn left(&mut self, batch: Option<u64>, is_alive: impl Fn(T) -> bool) {
        let Some(number) = batch else {
            self.held_alive -= 1;
            if self.held.len() > 2 * self.held_alive as usize + DEAD_MAX {
                self.held.retain(|Reverse((_, entry))| is_alive(*entry));
            }
            return;
        };
        let index = self.batches.partition_point(|batch| batch.number < number);
        let batch = &mut self.batches[index];
        batch.alive -= 1;
        self.ready -= 1;
        if batch.alive == 0 {
            self.batches.remove(index);
        } else if batch.entries.len() > 2 * batch.alive as usize + DEAD_MAX {
            batch.entries.retain(|entry| is_alive(*entry));
        }
    }

    /// Takes out all that are due, looking only into batches that began early enough to hold one.
    pub(crate) fn take_due(&mut self, may_hold: impl Fn(Instant) -> bool, is_due: impl Fn(T) -> bool) -> Vec<T> {
        let mut due = Vec::new();
        let mut take = |entry: &T| {
            let is_due = is_due(*entry);
            if is_due {
                due.push(*entry);
            }
            !is_due
        };
        let mut ready = 0;
        for batch in self.batches.iter_mut().take_while(|batch| may_hold(batch.opened)) {
            let before = batch.entries.len();
            batch.entries.retain(&mut take);
            let taken = (before - batch.entries.len()) as u32;
            batch.alive -= taken;
            ready += taken;
        }
        self.ready -= ready;
        self.batches.retain(|batch| batch.alive > 0);
        let before = self.held.len();
        self.held.retain(|Reverse((_, entry))| take(entry));
        self.held_alive -= (before - self.held.len()) as u32;
        due
    }

    /// Everybody who joined by `then`, the dead included.
    pub(crate) fn joined_by(&self, then: Instant) -> impl Iterator<Item = T> {
        let batches = self.batches.iter().take_while(move |batch| batch.opened <= then);
        batches.flat_map(|batch| batch.entries.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use fastrand::Rng;
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_millis(250);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn drawn(queue: &mut WaitQueue<u32>) -> Vec<u32> {
        let mut rng = Rng::with_seed(1);
        std::iter::from_fn(|| queue.pop(&mut rng, |_| true, |_| true)).collect()
    }

    #[test]
    fn a_waiter_whose_turn_came_to_nothing_is_the_next_again() {
        let now = Instant::now();
        let mut queue = WaitQueue::default();
        let batches = [0, 1, 2].map(|i| queue.join(i, now + ms(400) * i, WINDOW, false));
        let mut rng = Rng::with_seed(1);
        assert_eq!([0; 2].map(|_| queue.pop(&mut rng, |_| true, |_| true)), [Some(0), Some(1)]);
        queue.rejoin(1, batches[1], now + ms(400));
        queue.rejoin(0, batches[0], now);
        assert_eq!((queue.ready(), queue.first_since()), (3, Some(now)));
        assert_eq!(drawn(&mut queue), [0, 1, 2]);
    }

    #[test]
    fn without_jitter_first_come_is_first_served() {
        let now = Instant::now();
        let mut queue = WaitQueue::default();
        for i in 0..100 {
            queue.join(i, now + ms(u64::from(i) * 10), WINDOW, false);
        }
        assert_eq!(drawn(&mut queue), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_batch_is_drawn_in_random_order_and_wholly_before_the_next() {
        let now = Instant::now();
        let mut queue = WaitQueue::default();
        for i in 0..100 {
            queue.join(i, now + ms(if i < 50 { u64::from(i) } else { 200 + u64::from(i) }), WINDOW, true);
        }
        let drawn = drawn(&mut queue);
        assert!(drawn[..50].iter().all(|i| *i < 50) && drawn[50..].iter().all(|i| *i >= 50));
        assert!(!drawn.is_sorted());
    }

    #[test]
    fn draws_are_uniform() {
        let now = Instant::now();
        let mut firsts = [0; 10];
        let mut rng = Rng::with_seed(3);
        for _ in 0..10_000 {
            let mut queue = WaitQueue::default();
            for i in 0..10 {
                queue.join(i, now, WINDOW, true);
            }
            firsts[queue.pop(&mut rng, |_| true, |_| true).expect("ten are there") as usize] += 1;
        }
        assert!(firsts.iter().all(|n| (850..1150).contains(n)), "{firsts:?}");
    }

    #[test]
    fn one_that_is_near_goes_first_and_a_few_in_a_row_at_most() {
        let now = Instant::now();
        let mut queue = WaitQueue::default();
        queue.join(1, now, WINDOW, false);
        (0..20).for_each(|i| _ = queue.join(10 * i, now, WINDOW, false));
        let mut rng = Rng::with_seed(1);
        let mut next = || queue.pop(&mut rng, |_| true, |entry| entry % 10 == 0).expect("somebody waits");
        let before: Vec<u32> = std::iter::from_fn(|| Some(next())).take_while(|entry| *entry != 1).collect();
        assert_eq!(before, (0..PASSING as u32).map(|i| 10 * i).collect::<Vec<_>>());
    }

    #[test]
    fn a_random_batch_is_near_in_most_draws() {
        let now = Instant::now();
        let mut queue = WaitQueue::default();
        (0..1000).for_each(|i| _ = queue.join(i, now, WINDOW, true));
        let mut rng = Rng::with_seed(5);
        let near =
            (0..400).filter(|_| queue.pop(&mut rng, |_| true, |entry| entry % 2 == 0).is_some_and(|i| i % 2 == 0));
        let near = near.count();
        assert!((330..400).contains(&near), "{near} of 400");
    }

    #[test]
    fn held_back_until_its_own_moment() {
        let now = Instant::now();
        let mut queue = WaitQueue::default();
        queue.hold(1, now + ms(300));
        queue.hold(2, now + ms(100));
        assert_eq!((queue.waiting(), queue.ready(), queue.next_held()), (2, 0, Some(now + ms(100))));
        assert_eq!(queue.pop_held(now + ms(99), |_| true), None);
        assert_eq!(queue.pop_held(now + ms(300), |_| true), Some(2));
        assert_eq!(queue.pop_held(now + ms(300), |entry| entry != 1), None);
    }

    #[derive(Debug, Clone)]
    enum Operation {
        Join {
            after: u64,
            is_random: bool,
        },
        Hold {
            after: u64,
        },
        Leave(prop::sample::Index),
        /// For one on this side, odd or even.
        Draw {
            near: u32,
        },
        Pass(u64),
        TakeDue,
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            8 => (0_u64..80, any::<bool>()).prop_map(|(after, is_random)| Operation::Join { after, is_random }),
            2 => (1_u64..500).prop_map(|after| Operation::Hold { after }),
            4 => any::<prop::sample::Index>().prop_map(Operation::Leave),
            4 => (0_u32..2).prop_map(|near| Operation::Draw { near }),
            2 => (0_u64..400).prop_map(Operation::Pass),
            1 => Just(Operation::TakeDue),
        ]
    }

    proptest! {
        #[test]
        fn nobody_is_lost_doubled_or_overtaken_by_a_window(operations in prop::collection::vec(operation(), 1..400)) {
            let mut queue = WaitQueue::default();
            let (mut now, mut next, mut rng) = (Instant::now(), 0_u32, Rng::with_seed(7));
            // The time and batch in which each waiter joined; `None` while held back.
            let mut alive: HashMap<u32, Option<(Instant, u64)>> = HashMap::new();
            for operation in operations {
                match operation {
                    Operation::Join { after, is_random } => {
                        now += ms(after);
                        alive.insert(next, Some((now, queue.join(next, now, WINDOW, is_random))));
                        next += 1;
                    }
                    Operation::Hold { after } => {
                        queue.hold(next, now + ms(after));
                        alive.insert(next, None);
                        next += 1;
                    }
                    Operation::Leave(index) if !alive.is_empty() => {
                        let mut entries: Vec<_> = alive.keys().copied().collect();
                        entries.sort_unstable();
                        let entry = *index.get(&entries);
                        let joined = alive.remove(&entry).expect("it is there");
                        queue.left(joined.map(|(_, batch)| batch), |entry| alive.contains_key(&entry));
                    }
                    Operation::Leave(_) => {}
                    Operation::Draw { near } => {
                        let drawn = queue.pop(&mut rng, |entry| alive.contains_key(&entry), |entry| entry % 2 == near);
                        let joined = drawn.map(|entry| alive.remove(&entry).flatten().expect("alive and joined"));
                        let first = alive.values().flatten().min();
                        prop_assert!(joined.is_some() || first.is_none(), "somebody was not drawn");
                        if let (Some((joined, _)), Some((first, _))) = (joined, first) {
                            prop_assert!(joined < *first + WINDOW, "overtaken by more than a window");
                        }
                    }
                    Operation::Pass(by) => {
                        now += ms(by);
                        while let Some(entry) = queue.pop_held(now, |entry| alive.contains_key(&entry)) {
                            alive.insert(entry, Some((now, queue.join(entry, now, WINDOW, false))));
                        }
                    }
                    Operation::TakeDue => {
                        let limit = now - ms(300);
                        let is_due = |entry| {
                            alive.get(&entry).is_some_and(|joined| joined.is_some_and(|(at, _)| at <= limit))
                        };
                        let due = queue.take_due(|opened| opened <= limit, is_due);
                        for entry in &due {
                            alive.remove(entry).expect("alive");
                        }
                        prop_assert!(alive.values().flatten().all(|(at, _)| *at > limit));
                    }
                }
                prop_assert_eq!(queue.waiting() as usize, alive.len());
                prop_assert_eq!(queue.ready() as usize, alive.values().flatten().count());
            }
        }
    }
}
