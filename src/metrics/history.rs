//! Totals as they were one to two periods ago: PgBouncer's averages are counted from there.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Totals;

/// Length of a period, as PgBouncer's `stats_period`.
pub(crate) const PERIOD: Duration = Duration::from_secs(60);

/// Two earlier moments, at least a period apart from each other.
#[derive(Debug)]
pub(crate) struct History {
    older: PastTotals,
    newer: PastTotals,
}

/// Totals by pool.
#[derive(Debug, Clone)]
struct PastTotals {
    at: Instant,
    totals: HashMap<u64, Totals>,
}

impl History {
    /// Nothing was counted before `now`.
    pub(crate) fn new(now: Instant) -> Self {
        let start = PastTotals { at: now, totals: HashMap::new() };
        Self { older: start.clone(), newer: start }
    }

    /// Begins another period if this one is over; `totals` tells where all pools stand.
    pub(crate) fn roll(&mut self, now: Instant, totals: impl FnOnce() -> HashMap<u64, Totals>) {
        if now.saturating_duration_since(self.newer.at) >= PERIOD {
            let newer = PastTotals { at: now, totals: totals() };
            self.older = std::mem::replace(&mut self.newer, newer);
        }
    }

    /// Totals of the pool since the older moment, and how long ago that was.
    pub(crate) fn since(&self, pool: u64, totals: &Totals, now: Instant) -> (Totals, Duration) {
        let none = Totals::default();
        let since = totals.since(self.older.totals.get(&pool).unwrap_or(&none));
        (since, now.saturating_duration_since(self.older.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::PoolCounter;

    #[test]
    fn averages_are_counted_over_one_to_two_periods() {
        let start = Instant::now();
        let mut history = History::new(start);
        let leases = |leases| {
            let mut totals = Totals::default();
            totals.counters[PoolCounter::Leases.slot()] = leases;
            totals
        };
        let at = |seconds| start + Duration::from_secs(seconds);
        let roll = |history: &mut History, seconds, n| history.roll(at(seconds), || HashMap::from([(1, leases(n))]));

        roll(&mut history, 59, 1);
        assert_eq!(history.since(1, &leases(5), at(59)), (leases(5), Duration::from_secs(59)));
        roll(&mut history, 60, 10);
        assert_eq!(history.since(1, &leases(15), at(90)), (leases(15), Duration::from_secs(90)));
        roll(&mut history, 120, 20);
        assert_eq!(history.since(1, &leases(25), at(130)), (leases(15), Duration::from_secs(70)));
        assert_eq!(history.since(2, &leases(7), at(130)).0, leases(7));
    }
}
