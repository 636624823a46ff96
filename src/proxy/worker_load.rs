//! How busy a worker is, as its own thread counts it, and what it is to give away, as the spread of the load asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// One worker's load, read by all threads.
#[derive(Debug, Default)]
pub(crate) struct WorkerLoad {
    connections: AtomicUsize,
    /// CPU time of its thread, in nanoseconds.
    busy: AtomicU64,
    /// Clients that had an answer, counted once a second each.
    served: AtomicU32,
    /// The worker they go to in the upper half, their number in the lower half; zero: none.
    departures: AtomicU64,
    /// Clients that left it for another worker.
    moved_away: AtomicU64,
    /// Backends that came from other workers.
    backends_come: AtomicU64,
}

impl WorkerLoad {
    /// Connections that it serves.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Its thread has used so much CPU time since its start.
    pub(crate) fn set_busy(&self, busy: Duration) {
        self.busy.store(u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// CPU time of its thread since its start.
    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy.load(Ordering::Relaxed))
    }

    /// A client had its first answer of this second.
    pub(crate) fn count_served(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    /// Clients that had answers, each counted once a second, over all seconds.
    pub(crate) fn served(&self) -> u32 {
        self.served.load(Ordering::Relaxed)
    }

    /// Has so many of the clients that rest next go to another worker; replaces what was asked before.
    pub(crate) fn send_away(&self, clients: u32, to: usize) {
        let to = to as u64;
        let departures = if clients == 0 { 0 } else { to << 32 | u64::from(clients) };
        self.departures.store(departures, Ordering::Relaxed);
    }

    /// A client may be asked to go to another worker.
    #[inline]
    pub(crate) fn has_departures(&self) -> bool {
        self.departures.load(Ordering::Relaxed) != 0
    }

    /// The worker to which the client that asks is to go.
    pub(crate) fn depart(&self) -> Option<usize> {
        let one_less = |departures: u64| match departures & u64::from(u32::MAX) {
            0 => None,
            1 => Some(0),
            _ => Some(departures - 1),
        };
        let asked = self.departures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).ok()?;
        self.moved_away.fetch_add(1, Ordering::Relaxed);
        usize::try_from(asked >> 32).ok()
    }

    /// Clients that have left it for another worker.
    pub(crate) fn moved_away(&self) -> u64 {
        self.moved_away.load(Ordering::Relaxed)
    }

    /// A backend was lent here that another worker had before.
    pub(crate) fn count_backend(&self) {
        self.backends_come.fetch_add(1, Ordering::Relaxed);
    }

    /// Backends that were lent here after another worker had them.
    pub(crate) fn backends_come(&self) -> u64 {
        self.backends_come.load(Ordering::Relaxed)
    }
}

/// One connection in the count of its worker, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Arc<WorkerLoad>);

impl Counted {
    /// One more.
    pub(crate) fn new(load: Arc<WorkerLoad>) -> Self {
        load.connections.fetch_add(1, Ordering::Relaxed);
        Self(load)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_depart_as_were_asked_and_the_last_order_counts() {
        let load = WorkerLoad::default();
        assert!(!load.has_departures());
        assert_eq!(load.depart(), None);
        load.send_away(2, 7);
        load.send_away(2, 3);
        assert_eq!([load.depart(), load.depart(), load.depart()], [Some(3), Some(3), None]);
        load.send_away(u32::MAX, 0);
        assert_eq!(load.depart(), Some(0));
        load.send_away(0, 0);
        assert!(!load.has_departures());
    }
}
