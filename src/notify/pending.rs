//! NOTIFYs, LISTENs and UNLISTENs of a transaction, until it commits. Pure: no I/O, no locks.
//!
//! As in `async.c`: a notification that the transaction holds already is folded into the first one, and a ROLLBACK TO
//! takes back everything after its savepoint. Folding at once gives the same result as folding at the commit: the
//! earlier of the two stays as long as the later would have.

use std::collections::HashSet;

use bytes::Bytes;

use super::notification::Notification;
use crate::state::tentative::Tentative;

/// A transaction with more bytes in hand than this is full: Postgres spills to its disk, we do not.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of an item besides its text, about.
const ITEM_OVERHEAD: usize = 200;

/// A change of the channels that a client listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// LISTEN.
    Listen(Bytes),
    /// UNLISTEN of one channel.
    Unlisten(Bytes),
    /// UNLISTEN *, DISCARD ALL.
    UnlistenAll,
}

/// Notifications and changes of one client that are not committed.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    items: Tentative<Item>,
    /// The notifications among them.
    held: HashSet<Notification>,
    bytes: usize,
    /// Changes so far, those rolled back included.
    changes: usize,
    folded: u32,
}

#[derive(Debug)]
enum Item {
    Notify(Notification),
    Change(Change),
}

/// Changes and notifications that a transaction has committed. The changes come first: it hears its own notifications.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Committed {
    pub changes: Vec<Change>,
    /// In the order of their first occurrence.
    pub notifications: Vec<Notification>,
    /// How many were the same as one before.
    pub folded: u32,
}

impl Pending {
    /// NOTIFY.
    pub(crate) fn notify(&mut self, notification: Notification) {
        if !self.held.insert(notification.clone()) {
            self.folded += 1;
            return;
        }
        self.bytes += notification.len();
        self.items.push(Item::Notify(notification));
    }

    /// LISTEN or UNLISTEN.
    pub(crate) fn change(&mut self, change: Change) {
        self.changes += 1;
        self.items.push(Item::Change(change));
    }

    /// SAVEPOINT.
    pub(crate) fn savepoint(&mut self, name: &Bytes) {
        self.items.savepoint(name);
    }

    /// RELEASE.
    pub(crate) fn release(&mut self, name: &[u8]) {
        self.items.release(name);
    }

    /// ROLLBACK TO.
    pub(crate) fn roll_back_to(&mut self, name: &[u8]) {
        for item in self.items.roll_back_to(name) {
            if let Item::Notify(notification) = item {
                self.bytes -= notification.len();
                self.held.remove(&notification);
            }
        }
    }

    /// The transaction is void.
    pub(crate) fn roll_back(&mut self) {
        *self = Self::default();
    }

    /// The transaction is final.
    pub(crate) fn commit(&mut self) -> Committed {
        let mut committed = Committed { folded: self.folded, ..Committed::default() };
        for item in self.items.take() {
            match item {
                Item::Notify(notification) => committed.notifications.push(notification),
                Item::Change(change) => committed.changes.push(change),
            }
        }
        *self = Self::default();
        committed
    }

    /// Number of notifications.
    pub(crate) fn notifications(&self) -> usize {
        self.held.len()
    }

    /// Number of changes, those rolled back included.
    pub(crate) fn changes(&self) -> usize {
        self.changes
    }

    /// Bytes of memory that all of them take, about.
    pub(crate) fn memory(&self) -> usize {
        self.bytes + (self.held.len() + self.changes) * ITEM_OVERHEAD
    }

    /// Neither notifications nor changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// It holds as much as it may: more is for Postgres to keep.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn notification(channel: &'static str, payload: &'static str) -> Notification {
        Notification::new(channel, payload).expect("short")
    }

    fn name(n: u8) -> Bytes {
        Bytes::from(format!("s{n}"))
    }

    #[test]
    fn the_first_of_several_equal_ones_stays() {
        let mut pending = Pending::default();
        for payload in ["1", "2", "1", "3", "2"] {
            pending.notify(notification("a", payload));
        }
        let committed = pending.commit();
        assert_eq!(committed.notifications, ["1", "2", "3"].map(|payload| notification("a", payload)));
        assert_eq!(committed.folded, 2);
        assert!(pending.is_empty());
    }

    #[test]
    fn what_was_rolled_back_may_come_again() {
        let mut pending = Pending::default();
        pending.savepoint(&name(1));
        pending.notify(notification("a", "1"));
        pending.roll_back_to(&name(1));
        pending.notify(notification("b", "2"));
        pending.notify(notification("a", "1"));
        assert_eq!(pending.commit().notifications, [notification("b", "2"), notification("a", "1")]);
    }

    #[test]
    fn changes_of_a_savepoint_go_with_it_and_others_stay() {
        let (a, b) = (Change::Listen("a".into()), Change::Listen("b".into()));
        let mut pending = Pending::default();
        pending.change(a.clone());
        pending.savepoint(&name(1));
        pending.change(b);
        pending.savepoint(&name(2));
        pending.release(&name(2));
        pending.change(Change::UnlistenAll);
        pending.roll_back_to(&name(1));
        assert_eq!(pending.commit(), Committed { changes: vec![a], ..Committed::default() });
    }

    #[test]
    fn a_large_transaction_is_full_until_it_ends() {
        let mut pending = Pending::default();
        let mut n = 0u32;
        while !pending.is_full() {
            pending.notify(Notification::new("a", [&n.to_be_bytes()[..], &[b'x'; 7000]].concat()).expect("short"));
            n += 1;
        }
        assert_eq!(n as usize, BYTES_MAX.div_ceil(7005));
        pending.roll_back();
        assert!(!pending.is_full());
    }

    #[derive(Debug, Clone)]
    enum Operation {
        Notify(u8),
        Listen(u8),
        Savepoint(u8),
        Release(u8),
        RollBackTo(u8),
        RollBack,
        Commit,
    }

    /// As `async.c` does it: a level for each savepoint, and folding when levels become one.
    #[derive(Default)]
    struct Model(Vec<(u8, Vec<Notification>, Vec<Change>)>);

    impl Model {
        fn top(&mut self) -> &mut (u8, Vec<Notification>, Vec<Change>) {
            if self.0.is_empty() {
                self.0.push((u8::MAX, Vec::new(), Vec::new()));
            }
            self.0.last_mut().expect("there is one")
        }

        /// The level of this savepoint; one that nobody has set is an error in Postgres, and changes nothing.
        fn level(&self, name: u8) -> Option<usize> {
            self.0.iter().rposition(|(known, ..)| *known == name)
        }

        fn merge(&mut self, down_to: usize) {
            while self.0.len() > down_to {
                let (_, notifications, changes) = self.0.pop().expect("there are more");
                let below = self.top();
                for notification in notifications {
                    if !below.1.contains(&notification) {
                        below.1.push(notification);
                    }
                }
                below.2.extend(changes);
            }
        }
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            6 => (0..6u8).prop_map(Operation::Notify),
            3 => (0..4u8).prop_map(Operation::Listen),
            4 => (0..3u8).prop_map(Operation::Savepoint),
            2 => (0..3u8).prop_map(Operation::Release),
            3 => (0..3u8).prop_map(Operation::RollBackTo),
            1 => Just(Operation::RollBack),
            1 => Just(Operation::Commit),
        ]
    }

    proptest! {
        #[test]
        fn any_transaction_commits_what_postgres_would(operations in prop::collection::vec(operation(), 0..60)) {
            let mut pending = Pending::default();
            let mut model = Model::default();
            for operation in operations.into_iter().chain([Operation::Commit]) {
                match operation {
                    Operation::Notify(n) => {
                        let notification = Notification::new("c", vec![n]).expect("short");
                        pending.notify(notification.clone());
                        let level = &mut model.top().1;
                        if !level.contains(&notification) {
                            level.push(notification);
                        }
                    }
                    Operation::Listen(n) => {
                        let change = if n == 0 { Change::UnlistenAll } else { Change::Listen(name(n)) };
                        pending.change(change.clone());
                        model.top().2.push(change);
                    }
                    Operation::Savepoint(n) => {
                        pending.savepoint(&name(n));
                        model.top();
                        model.0.push((n, Vec::new(), Vec::new()));
                    }
                    Operation::Release(n) => {
                        if let Some(level) = model.level(n) {
                            pending.release(&name(n));
                            model.merge(level);
                        }
                    }
                    Operation::RollBackTo(n) => {
                        if let Some(level) = model.level(n) {
                            pending.roll_back_to(&name(n));
                            model.0.truncate(level);
                            model.0.push((n, Vec::new(), Vec::new()));
                        }
                    }
                    Operation::RollBack => {
                        pending.roll_back();
                        model = Model::default();
                    }
                    Operation::Commit => {
                        model.merge(1);
                        let (_, notifications, changes) = std::mem::take(model.top());
                        let committed = pending.commit();
                        prop_assert_eq!(committed.notifications, notifications);
                        prop_assert_eq!(committed.changes, changes);
                        prop_assert!(pending.is_empty());
                        model = Model::default();
                    }
                }
                let is_empty =
                    model.0.iter().all(|(_, notifications, changes)| notifications.is_empty() && changes.is_empty());
                prop_assert_eq!(pending.is_empty(), is_empty);
                let bytes: usize = pending.held.iter().map(Notification::len).sum();
                prop_assert_eq!(pending.bytes, bytes);
            }
        }
    }
}
