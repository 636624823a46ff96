//! Notifications that one database has committed and its bus has not taken yet. Bounded: `notify.bus_queue`.
//!
//! Entries stay until the bus says that it has them, so nothing is lost with a task that was about to send. Each has
//! the next number; one that is dropped has a number, too, so that other processes see the hole.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::notification::Notification;
use super::stats::{Dropped, Stats};

/// Bytes that wait for the bus at most, however many `notify.bus_queue` allows: payloads may have 8 KB each.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// A notification on its way to the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// One more than that of the one published before it by this outbox.
    pub sequence: u64,
    /// Process id of the client that notified.
    pub pid: i32,
    pub notification: Notification,
    /// When it was committed.
    pub at: Instant,
}

/// A queue with one consumer.
#[derive(Debug)]
pub struct Outbox {
    stats: Arc<Stats>,
    queue: Mutex<EntryQueue>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct EntryQueue {
    entries: VecDeque<OutboxEntry>,
    /// Bytes of all entries.
    bytes: usize,
    /// The number given last.
    sequence: u64,
}

impl Outbox {
    pub(super) fn new(stats: Arc<Stats>) -> Self {
        Self { stats, queue: Mutex::default(), filled: Notify::new() }
    }

    /// The first entries, up to `most`; waits until there is one. They stay until [`Self::accepted`]. Cancel-safe.
    pub async fn next_batch(&self, most: usize) -> Vec<OutboxEntry> {
        loop {
            // A permit may be left over from entries that are gone: then it waits again.
            let filled = self.filled.notified();
            let batch = self.first(most);
            if !batch.is_empty() {
                return batch;
            }
            filled.await;
        }
    }

    /// The first entries, up to `most`.
    pub fn first(&self, most: usize) -> Vec<OutboxEntry> {
        self.queue().entries.iter().take(most).cloned().collect()
    }

    /// The bus has the first `count` entries.
    pub fn accepted(&self, count: usize) {
        let now = Instant::now();
        self.remove(count).for_each(|entry| self.stats.accepted(now.saturating_duration_since(entry.at)));
    }

    /// The first `count` entries will never be sent.
    pub fn give_up(&self, count: usize) {
        self.stats.dropped(Dropped::Bus, self.remove(count).count());
    }

    /// Takes the first `count` entries out, without account.
    pub fn remove(&self, count: usize) -> impl Iterator<Item = OutboxEntry> + use<> {
        let mut queue = self.queue();
        let count = count.min(queue.entries.len());
        let removed: Vec<_> = queue.entries.drain(..count).collect();
        queue.bytes -= removed.iter().map(|entry| entry.notification.len()).sum::<usize>();
        if queue.entries.is_empty() {
            queue.entries = VecDeque::new();
        }
        removed.into_iter()
    }

    /// No more are taken in.
    pub fn is_full(&self, most: usize) -> bool {
        let queue = self.queue();
        queue.entries.len() >= most || queue.bytes >= BYTES_MAX
    }

    pub fn depth(&self) -> usize {
        self.queue().entries.len()
    }

    /// One more; false if `most` are there already, and this one is not taken in.
    pub(super) fn put(&self, pid: i32, notification: &Notification, at: Instant, most: usize) -> bool {
        let mut queue = self.queue();
        if queue.entries.len() >= most || queue.bytes >= BYTES_MAX {
            return false;
        }
        queue.bytes += notification.len();
        queue.sequence += 1;
        let sequence = queue.sequence;
        queue.entries.push_back(OutboxEntry { sequence, pid, notification: notification.clone(), at });
        true
    }

    /// Leaves a number out, so that others see a hole.
    pub(super) fn skip(&self) {
        self.queue().sequence += 1;
    }

    /// There may be something to take.
    pub(super) fn announce(&self) {
        self.filled.notify_one();
    }

    fn queue(&self) -> MutexGuard<'_, EntryQueue> {
        self.queue.lock().expect("no panic while held")
    }
}
