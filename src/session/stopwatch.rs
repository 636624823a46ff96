//! Times queries and transactions, as their client sees them while it holds a backend.

use std::time::Duration;

use tokio::time::Instant;

use crate::wire::expected::TransactionStatus;

/// Start of the cycle and of the transaction under way.
#[derive(Debug, Default)]
pub struct Stopwatch {
    cycle: Option<Instant>,
    transaction: Option<Instant>,
    /// Start of what [`Stopwatch::split`] tells next.
    split: Option<Instant>,
}

/// Times of the cycle that ended, and of the transaction that ended with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Lap {
    /// Duration of the cycle.
    pub cycle: Duration,
    /// Duration of the transaction, if it ended.
    pub transaction: Option<Duration>,
}

/// What one lease is measured by.
#[derive(Debug)]
pub(crate) struct LeaseTimes {
    /// Start of the lease.
    pub since: Instant,
    /// Times of the queries and transactions.
    pub stopwatch: Stopwatch,
    /// Time in the queue that no statement has been given yet.
    pub waited: Duration,
    /// All of its time in the queue.
    pub queued: Duration,
    /// Bytes that came from the backend and that no statement has been given yet.
    pub received: u64,
}

impl LeaseTimes {
    /// Of a lease that begins after so long in the queue. The client has sent a message before, so the stopwatch runs.
    #[inline]
    pub(crate) fn begin(now: Instant, waited: Duration) -> Self {
        let mut stopwatch = Stopwatch::default();
        stopwatch.begin(now);
        Self { since: now, stopwatch, waited, queued: waited, received: 0 }
    }
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self::begin(Instant::now(), Duration::ZERO)
    }
}

impl Stopwatch {
    /// A cycle begins, and with it a transaction if none is open.
    #[inline]
    pub fn begin(&mut self, now: Instant) {
        self.cycle = Some(now);
        self.transaction.get_or_insert(now);
        self.split.get_or_insert(now);
    }

    /// Time since the last call, without that in which no cycle was under way. `goes_on`: one is now.
    #[inline]
    pub fn split(&mut self, now: Instant, goes_on: bool) -> Duration {
        let since = self.split.take().unwrap_or(now);
        if goes_on {
            self.split = Some(now);
        }
        now - since
    }

    /// True if nothing that is measured is under way.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.cycle.is_none()
    }

    /// A cycle ended. If `has_more` waits behind it, the next one counts from here: the cycles of a pipeline take their
    /// time one after the other.
    #[inline]
    pub fn end(&mut self, now: Instant, status: TransactionStatus, has_more: bool) -> Lap {
        let since = |then: Option<Instant>| now - then.unwrap_or(now);
        let began = self.cycle.take();
        let cycle = since(began);
        let transaction = (status == TransactionStatus::Idle).then(|| match self.transaction.take() {
            // Most transactions are one query; a comparison is cheaper than a subtraction.
            then if then == began => cycle,
            then => since(then),
        });
        if has_more {
            self.begin(now);
        }
        Lap { cycle, transaction }
    }
}

#[cfg(test)]
mod tests {
    use TransactionStatus::{Idle, InTransaction};

    use super::*;

    #[test]
    fn a_transaction_lasts_over_its_cycles_and_what_its_client_does_between_them() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let lap = |cycle, transaction: Option<u64>| Lap {
            cycle: Duration::from_millis(cycle),
            transaction: transaction.map(Duration::from_millis),
        };
        let mut watch = Stopwatch::default();
        watch.begin(at(0));
        assert_eq!(watch.end(at(3), InTransaction, false), lap(3, None));
        assert!(watch.is_stopped());
        watch.begin(at(50));
        assert_eq!(watch.end(at(54), Idle, false), lap(4, Some(54)));
        watch.begin(at(100));
        assert_eq!(watch.end(at(101), Idle, false), lap(1, Some(1)));
    }

    #[test]
    fn what_is_pipelined_counts_from_the_end_of_what_is_before_it() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut watch = Stopwatch::default();
        watch.begin(at(0));
        watch.end(at(10), Idle, true);
        let lap = watch.end(at(14), Idle, false);
        assert_eq!(lap, Lap { cycle: Duration::from_millis(4), transaction: Some(Duration::from_millis(4)) });
    }
}
