//! Random operations on a stream, and a reader of it: every entry of others comes once and in order, or a loss was
//! reported.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const OWN: u64 = 1;
const PUBLISHERS: u64 = 3;
const STREAM_MAX: u32 = 20;
const COUNT: usize = 5;

#[derive(Debug, Clone)]
enum Operation {
    /// By any of the publishers, 1 being our own process.
    Publish { publisher: u64, count: usize },
    /// The answer to the last ones was lost.
    PublishAgain { publisher: u64, count: u64 },
    /// One entry is published, and the ones after it are dropped.
    PublishAndDrop { publisher: u64, dropped: u64 },
    /// Read once, as over a connection that has not broken.
    Read,
    /// All that is there.
    ReadAll,
    /// The connection broke, and another one is there.
    Reconnect,
    /// The Redis came back as it once was.
    GoBack { to: Index },
    /// The Redis came back empty.
    Forget,
}

fn operation() -> impl Strategy<Value = Operation> {
    let publisher = 1..=PUBLISHERS;
    prop_oneof![
        6 => (publisher.clone(), 1..8usize).prop_map(|(publisher, count)| Operation::Publish { publisher, count }),
        2 => (publisher.clone(), 1..4u64).prop_map(|(publisher, count)| Operation::PublishAgain { publisher, count }),
        1 => (publisher, 1..3u64).prop_map(|(publisher, dropped)| Operation::PublishAndDrop { publisher, dropped }),
        6 => Just(Operation::Read),
        2 => Just(Operation::ReadAll),
        2 => Just(Operation::Reconnect),
        1 => any::<Index>().prop_map(|to| Operation::GoBack { to }),
        1 => Just(Operation::Forget),
    ]
}

#[derive(Debug, Clone, Default)]
struct ModelRedis {
    exists: bool,
    entries: Vec<(Id, u64, u64)>,
    last: u64,
}

impl ModelRedis {
    fn state(&self) -> Option<StreamState> {
        let first = self.entries.first().map(|(id, ..)| *id);
        let state = StreamState { length: self.entries.len() as u64, first, last: Id(self.last, 0) };
        self.exists.then_some(state)
    }
}

struct Model {
    redis: ModelRedis,
    /// Earlier states of it.
    snapshots: Vec<ModelRedis>,
    /// Never goes back, as the clock that IDs are made of.
    clock: u64,
    numbers: HashMap<u64, u64>,
    follower: Follower,
    /// Entries of others that listeners know nothing of: neither delivered nor reported as missing.
    outstanding: Vec<(u64, u64)>,
    delivered: HashMap<u64, u64>,
    /// Publishers heard since the Redis last lost something.
    heard: HashSet<u64>,
}

impl Model {
    fn new() -> Self {
        let redis = ModelRedis { exists: true, ..ModelRedis::default() };
        let follower = Follower::new(OWN, redis.state().expect("it exists"));
        Self {
            redis,
            snapshots: Vec::new(),
            clock: 0,
            numbers: HashMap::new(),
            follower,
            outstanding: Vec::new(),
            delivered: HashMap::new(),
            heard: HashSet::new(),
        }
    }

    fn add(&mut self, publisher: u64, sequence: u64) {
        self.snapshots.push(self.redis.clone());
        self.clock += 1;
        self.redis.exists = true;
        self.redis.last = self.clock;
        self.redis.entries.push((Id(self.clock, 0), publisher, sequence));
        let surplus = self.redis.entries.len().saturating_sub(STREAM_MAX as usize);
        self.redis.entries.drain(..surplus);
    }

    fn number(&mut self, publisher: u64) -> u64 {
        let number = self.numbers.entry(publisher).or_default();
        *number += 1;
        if publisher != OWN {
            self.outstanding.push((publisher, *number));
        }
        *number
    }

    fn publish(&mut self, publisher: u64) {
        let number = self.number(publisher);
        self.add(publisher, number);
    }

    /// Returns how many came.
    fn read(&mut self) -> usize {
        let before = self.follower.at();
        let news: Vec<_> = self.redis.entries.iter().filter(|(id, ..)| *id > before).take(COUNT).copied().collect();
        if news.len() == COUNT && !self.follower.is_whole(self.redis.state(), STREAM_MAX) {
            self.tell();
            self.heard.clear();
        }
        for &(id, publisher, sequence) in &news {
            let notification = Notification::new("c", "").expect("short");
            let entry = Published { pid: 0, notification, publisher, sequence };
            match self.follower.follow(id, Some(&entry)).expect("it is pgweir's") {
                Meaning::News => self.deliver(publisher, sequence),
                Meaning::Hole => {
                    self.tell();
                    self.deliver(publisher, sequence);
                }
                Meaning::Repetition => assert!(self.delivered[&publisher] >= sequence),
                Meaning::Echo => assert_eq!(publisher, OWN),
            }
        }
        news.len()
    }

    fn deliver(&mut self, publisher: u64, sequence: u64) {
        self.heard.insert(publisher);
        let before = self.delivered.insert(publisher, sequence).unwrap_or(0);
        assert!(before < sequence, "{publisher}: {sequence} after {before}");
        let passed_over = self.outstanding.iter().find(|(other, number)| *other == publisher && *number < sequence);
        assert_eq!(passed_over, None, "{publisher}: came {sequence}");
        self.outstanding.retain(|outstanding| *outstanding != (publisher, sequence));
    }

    /// Reports to listeners that something may be missing, up to now.
    fn tell(&mut self) {
        self.outstanding.clear();
    }

    fn reconnect(&mut self) {
        let state = self.redis.state();
        if !self.follower.is_whole(state, STREAM_MAX) {
            self.tell();
            self.heard.clear();
        }
        self.redis.exists = true;
    }

    fn run(&mut self, operation: Operation) {
        match operation {
            Operation::Publish { publisher, count } => (0..count).for_each(|_| self.publish(publisher)),
            Operation::PublishAgain { publisher, count } => {
                let last = self.numbers.get(&publisher).copied().unwrap_or(0);
                (last.saturating_sub(count) + 1..=last).for_each(|number| self.add(publisher, number));
            }
            Operation::PublishAndDrop { publisher, dropped } => {
                self.publish(publisher);
                for _ in 0..dropped {
                    self.number(publisher);
                }
            }
            Operation::Read => drop(self.read()),
            Operation::ReadAll => while self.read() > 0 {},
            Operation::Reconnect => self.reconnect(),
            Operation::GoBack { to } => {
                if !self.snapshots.is_empty() {
                    self.redis = to.get(&self.snapshots).clone();
                    self.reconnect();
                    // Numbers show missing entries, but not those of a publisher not heard since the last loss.
                    self.outstanding.retain(|(publisher, _)| self.heard.contains(publisher));
                }
            }
            Operation::Forget => {
                self.redis = ModelRedis::default();
                self.reconnect();
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_others_publish_comes_once_and_in_order_or_a_loss_is_told(
        operations in prop::collection::vec(operation(), 1..80),
    ) {
        let mut model = Model::new();
        for operation in operations {
            model.run(operation);
        }
        // Entries dropped last are noticed with the next one.
        (OWN + 1..=PUBLISHERS).for_each(|publisher| model.publish(publisher));
        while model.read() > 0 {}
        prop_assert_eq!(&model.outstanding, &[]);
    }
}
