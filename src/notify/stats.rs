//! Counters of the notifications of one database.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::metrics::Distribution;
use crate::words::words;

words! {
    /// Why listeners may have missed something.
    pub enum Gap {
        /// The connection that listens on the server was lost.
        Bridge = "bridge",
        /// The bus was lost, and did not keep everything.
        Bus = "bus",
        /// The bus left something out: its numbers have a hole.
        Hole = "hole",
        /// Another bus took over.
        Switched = "switched",
    }
}

words! {
    /// Why a notification did not reach every listener.
    pub enum Dropped {
        /// A listener did not read.
        Listener = "listener",
        /// The bus took nothing for too long.
        Bus = "bus",
        /// The backend was lost while its COMMIT was under way: nobody knows whether it took effect.
        Commit = "commit",
    }
}

/// Counters of one database.
#[derive(Debug, Default)]
pub struct Stats {
    intercepted: AtomicU64,
    published: AtomicU64,
    delivered: AtomicU64,
    folded: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
    gaps: [AtomicU64; Gap::ALL.len()],
    bus: Mutex<Distribution>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NotifyCounts {
    /// Notifications kept from the server, committed or not.
    pub intercepted: u64,
    /// Of those, handed to listeners and bus.
    pub published: u64,
    /// Sent to clients.
    pub delivered: u64,
    /// The same as one before in their transaction.
    pub folded: u64,
}

fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

impl Stats {
    /// Notifications were kept from the server.
    pub fn intercepted(&self, n: usize) {
        add(&self.intercepted, n);
    }

    /// Intercepted notifications were committed.
    pub fn published(&self, n: usize) {
        add(&self.published, n);
    }

    /// Frames went to a client.
    pub fn delivered(&self, n: usize) {
        add(&self.delivered, n);
    }

    /// A transaction repeated notifications, which were folded.
    pub fn folded(&self, n: usize) {
        add(&self.folded, n);
    }

    /// Notifications were lost.
    pub fn dropped(&self, why: Dropped, n: usize) {
        add(&self.dropped[why as usize], n);
    }

    /// Notifications may have been lost.
    pub fn gap(&self, why: Gap) {
        add(&self.gaps[why as usize], 1);
    }

    /// The bus took a notification, this long after it was published.
    pub fn accepted(&self, after: Duration) {
        self.bus.lock().expect("no panic while held").record(after);
    }

    /// The counters so far.
    pub fn counts(&self) -> NotifyCounts {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NotifyCounts {
            intercepted: value(&self.intercepted),
            published: value(&self.published),
            delivered: value(&self.delivered),
            folded: value(&self.folded),
        }
    }

    /// Lost notifications, by cause.
    pub fn drops(&self) -> [(&'static str, u64); Dropped::ALL.len()] {
        Dropped::ALL.map(|why| (why.word(), self.dropped[why as usize].load(Ordering::Relaxed)))
    }

    /// Gaps, by cause.
    pub fn gaps(&self) -> [(&'static str, u64); Gap::ALL.len()] {
        Gap::ALL.map(|why| (why.word(), self.gaps[why as usize].load(Ordering::Relaxed)))
    }

    /// Times from being published to being accepted by the bus.
    pub fn bus(&self) -> Distribution {
        self.bus.lock().expect("no panic while held").clone()
    }
}
