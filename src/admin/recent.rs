//! The last minutes as they were, so that a page opened during an incident shows how it began. Pure: the caller says
//! which second it is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::group::GroupName;
use crate::admission::limiter::{LimiterCounters, LimiterState};
use crate::metrics::{Distribution, PoolCounter, PoolHistogram, Totals};

/// How far back roles are drawn.
pub(super) const SECONDS: usize = 600;

/// Roles that are drawn; those beyond show only how they are now.
const ROLES_MAX: usize = 64;

/// Least age, in seconds, of the counters that "the last minute" is counted from, once the process is that old.
const MINUTE: u64 = 60;

/// Seconds between two snapshots of the counters.
const KEEP: u64 = 5;

/// A role at one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    /// Backends with its clients.
    pub(super) active: u32,
    /// Its clients that wait.
    pub(super) waiting: u32,
    /// Its limit, or the one that a ramp leads to.
    pub(super) limit: Option<u32>,
    /// The limit in force at that moment.
    pub(super) effective: Option<u32>,
    pub(super) state: LimiterState,
}

/// The counters of a pool that the page shows for the last minute. Snapshots hold these and not all of [`Totals`],
/// which would be kept many times over.
#[derive(Debug, Clone, Default)]
pub(super) struct Served {
    /// Leases ended.
    pub(super) leases: u64,
    /// Transactions ended.
    pub(super) transactions: u64,
    /// Waits of clients that had to wait.
    pub(super) wait: Distribution,
}

impl Served {
    pub(super) fn of(totals: &Totals) -> Self {
        Self {
            leases: totals.count(PoolCounter::Leases),
            transactions: totals.durations(PoolHistogram::Transaction).count(),
            wait: totals.durations(PoolHistogram::Wait).clone(),
        }
    }

    /// The part that came after `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            leases: self.leases.saturating_sub(before.leases),
            transactions: self.transactions.saturating_sub(before.transactions),
            wait: self.wait.since(&before.wait),
        }
    }
}

/// Everything counted since the start.
#[derive(Debug, Clone, Default)]
pub(super) struct CounterSnapshot {
    /// Of each database and role.
    pub(super) pools: BTreeMap<GroupName, Served>,
    pub(super) roles: BTreeMap<Arc<str>, LimiterCounters>,
    /// By SQLSTATE.
    pub(super) errors: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
pub(super) struct Recent {
    second: u64,
    /// Each ends at `second`; `None` where the role did not exist.
    lines: BTreeMap<Arc<str>, VecDeque<Option<Point>>>,
    counted: VecDeque<(u64, CounterSnapshot)>,
}

impl Recent {
    /// Takes the state of all roles at this second. A second that passed unseen is a gap.
    pub(super) fn draw(&mut self, second: u64, roles: &BTreeMap<Arc<str>, Point>) {
        if second <= self.second && !self.lines.is_empty() {
            return;
        }
        let passed = usize::try_from(second.saturating_sub(self.second)).unwrap_or(usize::MAX);
        let gap = passed.clamp(1, SECONDS) - 1;
        self.second = second;
        for role in roles.keys() {
            if self.lines.len() < ROLES_MAX && !self.lines.contains_key(role) {
                self.lines.insert(Arc::clone(role), VecDeque::new());
            }
        }
        self.lines.retain(|role, line| {
            if !line.is_empty() {
                line.extend(std::iter::repeat_n(None, gap));
            }
            line.push_back(roles.get(role).copied());
            let over = line.len().saturating_sub(SECONDS);
            line.drain(..over);
            line.iter().any(Option::is_some)
        });
    }

    /// Takes a snapshot of the counters at this second, if one is due.
    pub(super) fn count(&mut self, second: u64, counted: impl FnOnce() -> CounterSnapshot) {
        if self.counted.back().is_some_and(|(last, _)| second < last + KEEP) {
            return;
        }
        self.counted.push_back((second, counted()));
        while self.counted.get(1).is_some_and(|(next, _)| next + MINUTE <= second) {
            self.counted.pop_front();
        }
    }

    /// The counters of a minute ago, and how many seconds ago that was.
    pub(super) fn minute_ago(&self, second: u64) -> (&CounterSnapshot, u64) {
        static NOTHING: CounterSnapshot =
            CounterSnapshot { pools: BTreeMap::new(), roles: BTreeMap::new(), errors: BTreeMap::new() };
        match self.counted.front() {
            Some((at, counted)) => (counted, second.saturating_sub(*at).max(1)),
            None => (&NOTHING, second.max(1)),
        }
    }

    /// All roles over the last minutes: a list for each curve, whose last entry is of `second`.
    pub(super) fn lines(&self) -> Value {
        let states: Vec<_> = LimiterState::ALL.iter().map(|state| state.word()).collect();
        let line = |line: &VecDeque<Option<Point>>| {
            let list = |of: fn(&Point) -> Option<u32>| -> Vec<Option<u32>> {
                line.iter().map(|point| point.as_ref().and_then(of)).collect()
            };
            json!({
                "active": list(|point| Some(point.active)),
                "waiting": list(|point| Some(point.waiting)),
                "limit": list(|point| point.limit),
                "effective": list(|point| point.effective),
                "state": list(|point| Some(point.state as u32)),
            })
        };
        let roles: Map<String, Value> = self.lines.iter().map(|(role, of)| (role.to_string(), line(of))).collect();
        json!({ "seconds": SECONDS, "second": self.second, "states": states, "roles": roles })
    }
}

/// The wait at quantile `share` of all clients that were served, those that were served at once with a wait of zero.
/// `None`: no client was served.
pub(super) fn wait_quantile(wait: &Distribution, leases: u64, share: f64) -> Option<Duration> {
    let waited = wait.count();
    let served = leases.max(waited);
    if served == 0 {
        return None;
    }
    let rank = (share * served as f64).ceil().max(1.0) as u64;
    // Clients below this rank did not wait.
    let Some(mut rank) = rank.checked_sub(served - waited).filter(|rank| *rank > 0) else {
        return Some(Duration::ZERO);
    };
    let last = wait.buckets.len() - 1;
    for (bucket, count) in wait.buckets.iter().enumerate() {
        if rank <= *count {
            // Bucket n ends at 2^n µs and is taken to be filled evenly; the last one has no end.
            let (begin, end) = (if bucket == 0 { 0 } else { 1_u64 << (bucket - 1) }, 1_u64 << bucket);
            let within = if bucket == last { 0.0 } else { rank as f64 / *count as f64 };
            return Some(Duration::from_micros(begin + ((end - begin) as f64 * within) as u64));
        }
        rank -= count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINT: Point =
        Point { active: 3, waiting: 1, limit: Some(5), effective: Some(4), state: LimiterState::Burst };

    fn roles(names: &[&str]) -> BTreeMap<Arc<str>, Point> {
        names.iter().map(|name| (Arc::from(*name), POINT)).collect()
    }

    fn active(recent: &Recent, role: &str) -> Vec<Option<u64>> {
        let lines = recent.lines();
        let list = lines["roles"][role]["active"].as_array();
        list.into_iter().flatten().map(Value::as_u64).collect()
    }

    #[test]
    fn a_curve_ends_at_this_second_and_has_gaps_where_nothing_was_seen() {
        let mut recent = Recent::default();
        recent.draw(7, &roles(&["web"]));
        recent.draw(8, &roles(&["web", "late"]));
        recent.draw(8, &roles(&["web"]));
        recent.draw(11, &roles(&["web"]));
        assert_eq!(active(&recent, "web"), [Some(3), Some(3), None, None, Some(3)]);
        assert_eq!(active(&recent, "late"), [Some(3), None, None, None]);
        let web = &recent.lines()["roles"]["web"];
        assert_eq!((&web["waiting"][0], &web["limit"][0], &web["effective"][0]), (&json!(1), &json!(5), &json!(4)));
        assert_eq!(recent.lines()["states"][web["state"][0].as_u64().expect("an index") as usize], "burst");
    }

    #[test]
    fn nothing_is_kept_for_longer_than_it_is_drawn() {
        let mut recent = Recent::default();
        for second in 1..SECONDS as u64 + 50 {
            recent.draw(second, &roles(if second < 40 { &["web", "gone"] } else { &["web"] }));
        }
        assert_eq!(active(&recent, "web").len(), SECONDS);
        assert!(recent.lines()["roles"].get("gone").is_none());
        recent.draw(1_000_000, &roles(&["web"]));
        assert_eq!(active(&recent, "web").len(), SECONDS);
        assert_eq!(active(&recent, "web").iter().flatten().count(), 1);
    }

    #[test]
    fn only_so_many_roles_are_drawn() {
        let names: Vec<String> = (0..100).map(|n| format!("role {n:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut recent = Recent::default();
        recent.draw(1, &roles(&names));
        assert_eq!(recent.lines.len(), ROLES_MAX);
        for second in 2..SECONDS as u64 + 3 {
            recent.draw(second, &roles(&names[90..]));
        }
        assert_eq!(recent.lines.len(), 10, "those that are gone make room");
    }

    #[test]
    fn the_last_minute_is_counted_from_a_minute_ago() {
        let mut recent = Recent::default();
        let errors = |n: u64| CounterSnapshot {
            errors: BTreeMap::from([("57P03".to_owned(), n)]),
            ..CounterSnapshot::default()
        };
        let ago = |recent: &Recent, second| {
            let (counted, seconds) = recent.minute_ago(second);
            (counted.errors.get("57P03").copied(), seconds)
        };
        assert_eq!(ago(&recent, 3), (None, 3), "everything is of the last minute");
        for second in 3..=200 {
            recent.count(second, || errors(second));
            let (counted, seconds) = ago(&recent, second);
            let from = counted.expect("counted");
            assert_eq!(seconds, (second - from).max(1));
            assert!(from == 3 && second < 68 || (60..65).contains(&seconds), "{second}: {seconds}");
            assert!(recent.counted.len() <= 14);
        }
    }

    #[test]
    fn a_client_that_did_not_have_to_wait_counts_as_no_wait() {
        let mut wait = Distribution::default();
        assert_eq!(wait_quantile(&wait, 0, 0.5), None);
        assert_eq!(wait_quantile(&wait, 10, 0.99), Some(Duration::ZERO));
        for _ in 0..10 {
            wait.record(Duration::from_millis(100));
        }
        assert_eq!(wait_quantile(&wait, 100, 0.5), Some(Duration::ZERO));
        let p99 = wait_quantile(&wait, 100, 0.99).expect("somebody was served");
        assert!((65..=131).contains(&p99.as_millis()), "{p99:?}");
        let p50 = wait_quantile(&wait, 0, 0.5).expect("those who still hold their backend were served");
        assert!((65..=131).contains(&p50.as_millis()), "{p50:?}");
        wait.record(Duration::from_secs(600));
        assert_eq!(wait_quantile(&wait, 0, 1.0), Some(Duration::from_micros(1 << 26)), "or longer");
    }
}
