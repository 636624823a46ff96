//! The stream of a database in the Redis: its entries, and whether any are missing. No I/O.
//!
//! `docs/NOTIFY.md` documents keys and fields: programs that are not pgweir read them. A publisher is one pgweir's
//! outbox of one database; it has a random number and counts its entries from 1, so that readers notice repetitions and
//! holes.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use redis::{FromRedisValue, ParsingError, Value};

use crate::notify::notification::Notification;
use crate::notify::outbox::OutboxEntry;

/// Publishers of one database whose place is remembered: every pgweir of a fleet is a new one after each restart.
const PUBLISHERS_MAX: usize = 4096;

/// The key of the stream, and the prefix of the channels of plain subscribers.
pub(super) fn key(database: &str) -> String {
    format!("pgweir:notify:{database}")
}

/// The channel of plain subscribers.
pub(super) fn topic(database: &str, channel: &[u8]) -> Vec<u8> {
    [key(database).as_bytes(), b":", channel].concat()
}

/// The fields of an entry in the order in which they are written.
pub(super) fn fields(publisher: u64, entry: &OutboxEntry) -> [(&'static str, Bytes); 5] {
    let text = |number: fmt::Arguments<'_>| Bytes::from(number.to_string());
    [
        ("channel", entry.notification.channel.clone()),
        ("payload", entry.notification.payload.clone()),
        ("pid", text(format_args!("{}", entry.pid))),
        ("from", text(format_args!("{publisher:016x}"))),
        ("seq", text(format_args!("{}", entry.sequence))),
    ]
}

/// The place of an entry in its stream: milliseconds, and a number among those of the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(u64, u64);

impl Id {
    /// Before the first entry.
    const START: Self = Self(0, 0);
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl FromStr for Id {
    type Err = ParsingError;

    fn from_str(text: &str) -> Result<Self, ParsingError> {
        let id = text.split_once('-').and_then(|(ms, number)| Some(Self(ms.parse().ok()?, number.parse().ok()?)));
        id.ok_or_else(|| format!("{text:?} is no ID of an entry").into())
    }
}

impl FromRedisValue for Id {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        String::from_redis_value(value)?.parse()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Published {
    /// Process id of the client that notified.
    pub(super) pid: i32,
    pub(super) notification: Notification,
    publisher: u64,
    sequence: u64,
}

impl Published {
    /// `None`: no pgweir wrote it.
    pub(super) fn read(fields: &[(Bytes, Bytes)]) -> Option<Self> {
        let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value);
        let number = |name| std::str::from_utf8(field(name)?).ok();
        let text = |name| field(name).filter(|text| !text.contains(&0)).cloned();
        Some(Self {
            pid: number("pid")?.parse().ok()?,
            notification: Notification::new(text("channel")?, text("payload")?).ok()?,
            publisher: u64::from_str_radix(number("from")?, 16).ok()?,
            sequence: number("seq")?.parse().ok()?,
        })
    }
}

/// The state of a stream as the Redis reports it (`XINFO STREAM`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamState {
    length: u64,
    /// The oldest entry that is still there.
    first: Option<Id>,
    /// The newest there ever was.
    last: Id,
}

impl FromRedisValue for StreamState {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let mut facts = HashMap::<String, Value>::from_redis_value(value)?;
        let mut fact = |name: &str| facts.remove(name).ok_or_else(|| ParsingError::from(format!("no {name}")));
        Ok(Self {
            length: u64::from_redis_value(fact("length")?)?,
            first: Option::<(Id, Value)>::from_redis_value(fact("first-entry")?)?.map(|(id, _)| id),
            last: Id::from_redis_value(fact("last-generated-id")?)?,
        })
    }
}

/// The meaning of an entry to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// To be delivered.
    News,
    /// To be delivered; the same publisher published something before it that never came.
    Hole,
    /// Published again, since the answer to the first time was lost.
    Repetition,
    /// Published by this process, and delivered to its listeners at that time.
    Echo,
}

/// How far one database's stream was read.
#[derive(Debug)]
pub(super) struct Follower {
    /// This process as a publisher.
    own: u64,
    at: Id,
    publishers: HashMap<u64, PublisherPlace>,
}

#[derive(Debug, Clone, Copy)]
struct PublisherPlace {
    /// The highest number seen.
    sequence: u64,
    /// No loss is known since then: the next entry must have the next number.
    is_sure: bool,
    seen: Id,
}

impl Follower {
    /// Follows the entries published after this state.
    pub(super) fn new(own: u64, state: StreamState) -> Self {
        Self { own, at: state.last, publishers: HashMap::new() }
    }

    /// The last entry that was read.
    pub(super) fn at(&self) -> Id {
        self.at
    }

    /// The next entry, in the order of the stream; `None` for one that is not pgweir's.
    pub(super) fn follow(&mut self, id: Id, entry: Option<&Published>) -> Option<Meaning> {
        self.at = id;
        let &Published { publisher, sequence, .. } = entry?;
        if publisher == self.own {
            return Some(Meaning::Echo);
        }
        let known = self.publishers.get(&publisher).copied();
        if known.is_some_and(|known| sequence <= known.sequence) {
            return Some(Meaning::Repetition);
        }
        if known.is_none() && self.publishers.len() >= PUBLISHERS_MAX {
            self.forget_one();
        }
        self.publishers.insert(publisher, PublisherPlace { sequence, is_sure: true, seen: id });
        // A publisher seen for the first time may have any number: its earlier entries came before this began.
        let follows = known.is_none_or(|known| !known.is_sure || sequence == known.sequence + 1);
        Some(if follows { Meaning::News } else { Meaning::Hole })
    }

    /// Whether everything published after [`at`](Self::at) is there: to be asked over a new connection (which may lead
    /// to another Redis, or to one that was restarted) and before many entries at once. After the answer no, numbers
    /// may jump: the caller has reported the loss by then.
    pub(super) fn is_whole(&mut self, state: Option<StreamState>, stream_max: u32) -> bool {
        let whole = match state {
            None => false,
            Some(StreamState { first: None, last, .. }) => last == self.at,
            // The stream was empty at the start: only its length shows whether entries were trimmed.
            Some(StreamState { length, .. }) if self.at == Id::START => length < u64::from(stream_max),
            Some(StreamState { first: Some(first), last, .. }) => first <= self.at && self.at <= last,
        };
        if !whole {
            self.at = self.at.min(state.map_or(Id::START, |state| state.last));
            self.publishers.values_mut().for_each(|place| place.is_sure = false);
        }
        whole
    }

    /// Makes room: the publisher seen least recently is most likely gone.
    fn forget_one(&mut self) {
        let oldest = self.publishers.iter().min_by_key(|(_, place)| place.seen).map(|(publisher, _)| *publisher);
        if let Some(oldest) = oldest {
            self.publishers.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod random_operations;

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const OWN: u64 = 1;
    const OTHER: u64 = 2;
    const MAX: u32 = 100;

    fn id(number: u64) -> Id {
        Id(number, 0)
    }

    fn published(publisher: u64, sequence: u64) -> Published {
        Published { pid: 7, notification: Notification::new("jobs", "42").expect("short"), publisher, sequence }
    }

    fn state(length: u64, first: Option<u64>, last: u64) -> StreamState {
        StreamState { length, first: first.map(id), last: id(last) }
    }

    /// One that has read this much of the stream, with the other publisher at number 1.
    fn follower(at: u64) -> Follower {
        let mut follower = Follower::new(OWN, state(9, Some(1), at - 1));
        assert_eq!(follower.follow(id(at), Some(&published(OTHER, 1))), Some(Meaning::News));
        follower
    }

    fn bytes(fields: &[(&'static str, &'static str)]) -> Vec<(Bytes, Bytes)> {
        fields.iter().map(|(name, value)| (Bytes::from(*name), Bytes::from(*value))).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let notification = Notification::new("jobs", "é\n").expect("short");
        let entry = OutboxEntry { sequence: 9, pid: -3, notification: notification.clone(), at: Instant::now() };
        let fields = fields(0xab, &entry).map(|(name, value)| (Bytes::from(name), value));
        let read = Published::read(&fields).expect("it is one of ours");
        assert_eq!(read, Published { pid: -3, notification, publisher: 0xab, sequence: 9 });
        assert_eq!(fields[3], (Bytes::from("from"), Bytes::from("00000000000000ab")));
    }

    #[test]
    fn fields_may_come_in_any_order_and_with_others() {
        let entry = bytes(&[("seq", "1"), ("x", "y"), ("from", "a"), ("pid", "5"), ("payload", ""), ("channel", "c")]);
        assert_eq!(Published::read(&entry).expect("whole").notification, Notification::new("c", "").expect("short"));
    }

    #[test]
    fn what_no_pgweir_wrote_is_nothing() {
        let whole = [("channel", "c"), ("payload", "p"), ("pid", "5"), ("from", "a"), ("seq", "1")];
        assert!(Published::read(&bytes(&whole)).is_some());
        for missing in 0..whole.len() {
            let mut fields = whole.to_vec();
            fields.remove(missing);
            assert_eq!(Published::read(&bytes(&fields)), None, "{fields:?}");
        }
        for (at, wrong) in [(0, ""), (0, "a\0b"), (1, "\0"), (2, "x"), (2, "99999999999"), (3, "xyz"), (4, "-1")] {
            let mut fields = whole;
            fields[at].1 = wrong;
            assert_eq!(Published::read(&bytes(&fields)), None, "{fields:?}");
        }
        let too_long = [(Bytes::from("channel"), Bytes::from(vec![b'c'; 64]))];
        assert_eq!(Published::read(&[&too_long[..], &bytes(&whole[1..])].concat()), None);
    }

    #[test]
    fn names_are_those_that_are_documented() {
        assert_eq!(key("app"), "pgweir:notify:app");
        assert_eq!(topic("app", b"jobs"), b"pgweir:notify:app:jobs");
    }

    #[test]
    fn ids_are_in_order_and_read_as_they_are_written() {
        let ids =
            ["0-0", "1526919030474-55", "1526919030474-56", "1526919030475-0"].map(|id| id.parse::<Id>().unwrap());
        assert!(ids.is_sorted());
        assert_eq!(ids[1].to_string(), "1526919030474-55");
        for wrong in ["", "5", "5-", "-5", "a-b", "99999999999999999999-0"] {
            assert!(wrong.parse::<Id>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_state_is_what_xinfo_says() {
        let text = |text: &str| Value::BulkString(text.into());
        let facts = |first| {
            let names = ["length", "radix-tree-keys", "last-generated-id", "first-entry"].map(text);
            let values = [Value::Int(2), Value::Int(1), text("7-1"), first];
            Value::Array(names.into_iter().zip(values).flat_map(|(name, value)| [name, value]).collect())
        };
        let entry = Value::Array(vec![text("3-0"), Value::Array(vec![text("a"), text("b")])]);
        let read = |value| StreamState::from_redis_value(value).expect("whole");
        assert_eq!(read(facts(entry)), StreamState { length: 2, first: Some(id(3)), last: Id(7, 1) });
        assert_eq!(read(facts(Value::Nil)).first, None);
        assert!(StreamState::from_redis_value(Value::Array(Vec::new())).is_err());
    }

    #[test]
    fn own_entries_are_echoes() {
        let mut follower = follower(10);
        assert_eq!(follower.follow(id(11), Some(&published(OWN, 5))), Some(Meaning::Echo));
        assert_eq!(follower.follow(id(12), Some(&published(OWN, 9))), Some(Meaning::Echo));
        assert_eq!(follower.at(), id(12));
    }

    #[test]
    fn repetitions_and_holes_show_in_the_numbers() {
        let mut follower = follower(10);
        let mut next = |number, sequence| follower.follow(id(number), Some(&published(OTHER, sequence)));
        assert_eq!(next(11, 1), Some(Meaning::Repetition));
        assert_eq!(next(12, 2), Some(Meaning::News));
        assert_eq!(next(13, 4), Some(Meaning::Hole));
        assert_eq!(next(14, 5), Some(Meaning::News));
        assert_eq!(next(15, 3), Some(Meaning::Repetition));
    }

    #[test]
    fn entry_of_nobody_is_passed_by() {
        let mut follower = follower(10);
        assert_eq!(follower.follow(id(11), None), None);
        assert_eq!(follower.at(), id(11));
    }

    #[test]
    fn stream_that_has_the_last_entry_is_whole() {
        let whole = |state| follower(10).is_whole(state, MAX);
        assert!(whole(Some(state(9, Some(2), 10))));
        assert!(whole(Some(state(9, Some(10), 30))));
        assert!(whole(Some(state(0, None, 10))), "nothing came since");
        assert!(!whole(Some(state(9, Some(11), 30))), "trimmed");
        assert!(!whole(Some(state(9, Some(2), 9))), "an older one came back");
        assert!(!whole(Some(state(0, None, 11))), "emptied");
        assert!(!whole(None), "gone");
    }

    #[test]
    fn stream_read_from_its_birth_is_whole_until_it_is_full() {
        let whole = |state| Follower::new(OWN, self::state(0, None, 0)).is_whole(state, MAX);
        assert!(whole(Some(state(0, None, 0))));
        assert!(whole(Some(state(99, Some(1), 99))));
        assert!(!whole(Some(state(100, Some(1), 100))));
        assert!(!whole(Some(state(0, None, 5))));
        assert!(!whole(None));
    }

    #[test]
    fn after_a_loss_it_reads_what_there_is_and_takes_any_next_number_once() {
        let mut follower = follower(10);
        assert!(!follower.is_whole(None, MAX));
        assert_eq!(follower.at(), Id::START);
        let mut next = |number, sequence| follower.follow(id(number), Some(&published(OTHER, sequence)));
        assert_eq!(next(2, 1), Some(Meaning::Repetition), "published again, for the Redis that forgot");
        assert_eq!(next(3, 8), Some(Meaning::News));
        assert_eq!(next(4, 10), Some(Meaning::Hole));
    }

    #[test]
    fn an_older_stream_is_read_from_its_end() {
        let mut follower = follower(10);
        assert!(!follower.is_whole(Some(state(3, Some(1), 4)), MAX));
        assert_eq!(follower.at(), id(4));
    }

    #[test]
    fn publishers_are_forgotten_when_there_are_too_many() {
        let mut follower = Follower::new(OWN, state(0, None, 0));
        for number in 0..2 * PUBLISHERS_MAX as u64 {
            let news = follower.follow(id(number), Some(&published(number + 2, 1)));
            assert_eq!(news, Some(Meaning::News));
        }
        assert_eq!(follower.publishers.len(), PUBLISHERS_MAX);
        let latest = 2 * PUBLISHERS_MAX as u64 + 1;
        assert_eq!(follower.follow(id(1 << 40), Some(&published(latest, 1))), Some(Meaning::Repetition));
    }
}
