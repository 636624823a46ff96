//! How many sessions wait for locks, for what, and for how long.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::row::{AnswerRow, Unreadable};
use crate::words::words;

words! {
    /// The kind of object a lock is on, as far as wait events tell.
    #[derive(PartialOrd, Ord)]
    pub enum LockKind {
        /// The end of a file that grows.
        Extension = "extension",
        /// A table, index or sequence as a whole.
        Relation = "relation",
        /// Rows.
        Row = "row",
        /// Something by number; NOTIFY's commit lock is one.
        Object = "object",
        /// An advisory lock, whose key applications choose.
        Advisory = "advisory",
        /// The rest.
        Other = "other",
    }
}

impl LockKind {
    /// Of a wait event (manual: "Wait Events of Type Lock").
    fn of(event: &str) -> Self {
        match event {
            "extend" => Self::Extension,
            "relation" => Self::Relation,
            "tuple" | "transactionid" => Self::Row,
            "object" => Self::Object,
            "advisory" | "userlock" => Self::Advisory,
            _ => Self::Other,
        }
    }
}

/// An answer to [`sql::ACTIVITY`](super::sql::ACTIVITY).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActivitySample {
    /// Sessions in wait for the lock manager itself: deadlock checks run.
    pub lock_manager: u32,
    /// Sessions that run something.
    pub active: u32,
    /// Sessions idle in a transaction.
    pub idle_in_transaction: u32,
    /// Client backends.
    pub backends: u32,
    /// Processes in wait for a lock.
    pub waiters: Vec<(i32, LockKind)>,
    /// Databases that these are connected to.
    pub homes: HashMap<i32, u32>,
}

impl ActivitySample {
    /// Reads its row.
    pub fn read(row: &AnswerRow) -> Result<Self, Unreadable> {
        let waiter = |waiter: &str| {
            let mut words = waiter.split(' ');
            let (pid, event, database) = (words.next()?.parse().ok()?, words.next()?, words.next()?.parse().ok()?);
            Some(((pid, LockKind::of(event)), (pid, database)))
        };
        let (waiters, homes) = match row.text_or_null(4)? {
            None => (Vec::new(), HashMap::new()),
            Some(text) => text.split(',').map(waiter).collect::<Option<_>>().ok_or_else(|| row.unreadable(4))?,
        };
        Ok(Self {
            lock_manager: row.value(0)?,
            active: row.value(1)?,
            idle_in_transaction: row.value(2)?,
            backends: row.value(3)?,
            waiters,
            homes,
        })
    }

    /// Databases in which somebody waits.
    pub fn databases(&self) -> BTreeSet<u32> {
        self.homes.values().copied().collect()
    }

    /// Sessions that do nothing.
    pub fn idle(&self) -> u32 {
        self.backends.saturating_sub(self.active + self.idle_in_transaction)
    }

    /// Sessions that wait for a lock of this kind.
    pub fn count(&self, kind: LockKind) -> usize {
        self.waiters.iter().filter(|(_, of)| *of == kind).count()
    }

    /// The kind that most wait for.
    pub fn main_kind(&self) -> Option<LockKind> {
        LockKind::ALL.into_iter().filter(|kind| self.count(*kind) > 0).max_by_key(|kind| self.count(*kind))
    }
}

/// The time since which each process has been seen waiting at every look. The wait is at least as long: only the lock
/// table has its beginning, which the beginning of the statement does not show.
#[derive(Debug, Default)]
pub(crate) struct Waits(HashMap<i32, Instant>);

impl Waits {
    /// Takes the processes that wait now; returns how long the first of them has waited.
    pub(crate) fn look(&mut self, sample: &ActivitySample, now: Instant) -> Duration {
        let before = std::mem::take(&mut self.0);
        self.0 = sample.waiters.iter().map(|(pid, _)| (*pid, before.get(pid).copied().unwrap_or(now))).collect();
        self.0.values().min().map_or(Duration::ZERO, |since| now.saturating_duration_since(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_are_read_with_what_they_wait_for() {
        let row = AnswerRow::of(&[
            Some("3"),
            Some("9"),
            Some("2"),
            Some("14"),
            Some("7 extend 5,8 tuple 5,9 transactionid 6,10 page 5"),
        ]);
        let sample = ActivitySample::read(&row).unwrap();
        assert_eq!((sample.lock_manager, sample.active, sample.idle_in_transaction, sample.backends), (3, 9, 2, 14));
        assert_eq!(sample.waiters[3], (10, LockKind::Other));
        assert_eq!(sample.main_kind(), Some(LockKind::Row));
        assert_eq!(sample.databases(), [5, 6].into());
    }

    #[test]
    fn nobody_waits_is_null() {
        let sample = ActivitySample::read(&AnswerRow::of(&[Some("0"), Some("0"), Some("0"), Some("1"), None])).unwrap();
        assert_eq!((sample.waiters.len(), sample.main_kind()), (0, None));
    }

    #[test]
    fn what_is_no_waiter_is_an_error() {
        let row = AnswerRow::of(&[Some("0"), Some("0"), Some("0"), Some("1"), Some("7 extend 5,x")]);
        assert_eq!(ActivitySample::read(&row), Err(Unreadable { column: 5, columns: 5 }));
    }

    #[test]
    fn a_wait_counts_from_the_first_look_of_those_without_a_gap() {
        let sample = |pids: &[i32]| ActivitySample {
            waiters: pids.iter().map(|pid| (*pid, LockKind::Row)).collect(),
            ..ActivitySample::default()
        };
        let (mut waits, start) = (Waits::default(), Instant::now());
        let s = Duration::from_secs;
        assert_eq!(waits.look(&sample(&[1, 2]), start), s(0));
        assert_eq!(waits.look(&sample(&[2, 3]), start + s(1)), s(1));
        assert_eq!(waits.look(&sample(&[1, 3]), start + s(2)), s(1), "1 waited before and was away");
        assert_eq!(waits.look(&sample(&[]), start + s(3)), s(0));
    }
}
