//! What a transaction has notified of and listened to, until it commits. Pure: no I/O, no locks.
//!
//! As in `async.c`: a notification that the transaction holds already is folded into the first one, and a ROLLBACK TO takes back what
//! came after its savepoint. What is folded at once would have been folded at the commit: the earlier of the two stays as long as the
//! later would have.

use std::collections::HashSet;

use bytes::Bytes;

use super::notification::Notification;
use crate::state::tentative::Tentative;

/// A transaction with more bytes in hand than this is full: Postgres spills to its disk, we do not.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// A change of what a client listens to.
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
pub struct Pending {
    items: Tentative<Item>,
    /// The notifications among them.
    held: HashSet<Notification>,
    bytes: usize,
    folded: u32,
}

#[derive(Debug)]
enum Item {
    Notify(Notification),
    Change(Change),
}

/// What a transaction has committed. The changes come first: it hears its own notifications.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// In their order.
    pub changes: Vec<Change>,
    /// In the order of their first occurrence.
    pub notifications: Vec<Notification>,
    /// How many were the same as one before.
    pub folded: u32,
}

impl Pending {
    /// NOTIFY.
    pub fn notify(&mut self, notification: Notification) {
        if !self.held.insert(notification.clone()) {
            self.folded += 1;
            return;
        }
        self.bytes += notification.len();
        self.items.push(Item::Notify(notification));
    }

    /// LISTEN or UNLISTEN.
    pub fn change(&mut self, change: Change) {
        self.items.push(Item::Change(change));
    }

    /// SAVEPOINT.
    pub fn savepoint(&mut self, name: &Bytes) {
        self.items.savepoint(name);
    }

    /// RELEASE.
    pub fn release(&mut self, name: &[u8]) {
        self.items.release(name);
    }

    /// ROLLBACK TO.
    pub fn roll_back_to(&mut self, name: &[u8]) {
        for item in self.items.roll_back_to(name) {
            if let Item::Notify(notification) = item {
                self.bytes -= notification.len();
                self.held.remove(&notification);
            }
        }
    }

    /// The transaction is void.
    pub fn roll_back(&mut self) {
        *self = Self::default();
    }

    /// The transaction is final.
    pub fn commit(&mut self) -> Committed {
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

    /// Neither notifications nor changes.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// It holds as much as it may: more is for Postgres to keep.
    pub fn is_full(&self) -> bool {
        self.bytes >= BYTES_MAX
    }
}
