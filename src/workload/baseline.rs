//! The early warning: a statement whose timeouts or time at the server leave what they usually are.
//!
//! Each statement is compared with itself. Pure: the time is an argument, and the counts are told to it.

use std::collections::HashMap;
use std::time::Duration;

use crate::sql::Digest;

/// Looks with calls before a statement has a baseline: a minute, where they are ten seconds apart.
const LOOKS_MIN: u32 = 6;

/// Part of the baseline that a look replaces: it follows within some five minutes then.
const WEIGHT: f64 = 1.0 / 30.0;

/// A statement this many times slower than usual, and slower than this, is worth a warning.
const SLOWER: f64 = 3.0;
const SLOW_MIN: Duration = Duration::from_millis(50);

/// So few calls in one look say nothing about their time.
const CALLS_MIN: u64 = 3;

/// So few timeouts in one look are everyday life.
const TIMEOUTS_MIN: u64 = 3;

/// Looks without trouble that end a warning.
const CALM: u32 = 3;

/// Looks after which the new times are the usual ones: an hour then.
const LONGEST: u32 = 360;

/// Sums of one statement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StatementSums {
    pub calls: u64,
    pub server_micros: u64,
    pub timeouts: u64,
    pub wait_micros: u64,
}

impl StatementSums {
    /// The part that came after `then`.
    pub(super) fn since(&self, then: &Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(then.calls),
            server_micros: self.server_micros.saturating_sub(then.server_micros),
            timeouts: self.timeouts.saturating_sub(then.timeouts),
            wait_micros: self.wait_micros.saturating_sub(then.wait_micros),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.server_micros += other.server_micros;
        self.timeouts += other.timeouts;
        self.wait_micros += other.wait_micros;
    }
}

/// The trouble with a statement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum StatementTrouble {
    /// So many timeouts since the last look, and how many it usually has in that time.
    Timeouts { now: u64, usual: f64 },
    /// Time of one run.
    Slow { now: Duration, usual: Duration },
}

/// A warning that is open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StatementWarning {
    pub digest: Digest,
    /// Second of the process in which it opened.
    pub since: u32,
    pub trouble: StatementTrouble,
}

#[derive(Debug, Default)]
struct StatementBaseline {
    last: StatementSums,
    looks: u32,
    /// Of one run, in microseconds.
    usual_micros: f64,
    /// In one look.
    usual_timeouts: f64,
    open: Option<StatementWarning>,
    calm: u32,
    age: u32,
}

/// The baselines of all statements that have a record.
#[derive(Debug, Default)]
pub(crate) struct StatementBaselines {
    by_digest: HashMap<Digest, StatementBaseline>,
}

impl StatementBaselines {
    /// Looks at all statements, as they stand now. Returns the warnings that opened.
    pub(crate) fn look(
        &mut self,
        sums: impl IntoIterator<Item = (Digest, StatementSums)>,
        second: u32,
    ) -> Vec<StatementWarning> {
        let mut before = std::mem::take(&mut self.by_digest);
        let mut opened = Vec::new();
        for (digest, now) in sums {
            let known = before.remove(&digest);
            // The first look at a statement begins to count; what it did before may be of years.
            let mut baseline = known.unwrap_or_else(|| StatementBaseline { last: now, ..StatementBaseline::default() });
            opened.extend(baseline.look(digest, now, second));
            self.by_digest.insert(digest, baseline);
        }
        opened
    }

    /// Those that are open.
    pub(crate) fn open(&self) -> Vec<StatementWarning> {
        let mut open: Vec<_> = self.by_digest.values().filter_map(|baseline| baseline.open).collect();
        open.sort_by_key(|warning| warning.since);
        open
    }
}

impl StatementBaseline {
    fn look(&mut self, digest: Digest, now: StatementSums, second: u32) -> Option<StatementWarning> {
        let StatementSums { calls, server_micros, timeouts, .. } = now.since(&self.last);
        self.last = now;
        let each = server_micros as f64 / calls.max(1) as f64;
        let trouble = self.trouble(calls, each, timeouts);
        if let Some(trouble) = trouble {
            self.calm = 0;
            let is_new = self.open.is_none();
            let since = self.open.map_or(second, |open| open.since);
            self.open = Some(StatementWarning { digest, since, trouble });
            self.age += 1;
            if self.age < LONGEST {
                return self.open.filter(|_| is_new);
            }
            // It is the usual by now.
            *self = Self { last: now, ..Self::default() };
            return None;
        }
        self.calm += 1;
        if self.calm >= CALM {
            (self.open, self.age) = (None, 0);
        }
        if calls > 0 {
            let weight = if self.looks < LOOKS_MIN { 1.0 / f64::from(self.looks + 1) } else { WEIGHT };
            self.usual_micros += (each - self.usual_micros) * weight;
            self.usual_timeouts += (timeouts as f64 - self.usual_timeouts) * weight;
            self.looks = self.looks.saturating_add(1);
        }
        None
    }

    fn trouble(&self, calls: u64, each: f64, timeouts: u64) -> Option<StatementTrouble> {
        if self.looks < LOOKS_MIN {
            return None;
        }
        if timeouts >= TIMEOUTS_MIN && timeouts as f64 > SLOWER * self.usual_timeouts {
            return Some(StatementTrouble::Timeouts { now: timeouts, usual: self.usual_timeouts });
        }
        let is_slow = calls >= CALLS_MIN && each > SLOWER * self.usual_micros && each > SLOW_MIN.as_micros() as f64;
        let micros = |micros: f64| Duration::from_micros(micros as u64);
        is_slow.then(|| StatementTrouble::Slow { now: micros(each), usual: micros(self.usual_micros) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: Digest = Digest(7);
    const LOOK_EVERY: u32 = 10;

    struct Load {
        baselines: StatementBaselines,
        sums: StatementSums,
        second: u32,
    }

    impl Load {
        fn new() -> Self {
            Self { baselines: StatementBaselines::default(), sums: StatementSums::default(), second: 0 }
        }

        /// One look after so many calls of this time and timeouts.
        fn look(&mut self, calls: u64, each: u64, timeouts: u64) -> Vec<StatementWarning> {
            self.second += LOOK_EVERY;
            self.sums.calls += calls;
            self.sums.server_micros += calls * each;
            self.sums.timeouts += timeouts;
            self.baselines.look([(DIGEST, self.sums)], self.second)
        }

        fn calm(&mut self) {
            for _ in 0..10 {
                assert_eq!(self.look(100, 20_000, 0), []);
            }
        }
    }

    #[test]
    fn a_statement_that_becomes_slow_warns_once_until_it_is_as_usual_again() {
        let mut load = Load::new();
        load.calm();
        let opened = load.look(50, 400_000, 0);
        let trouble = StatementTrouble::Slow { now: Duration::from_millis(400), usual: Duration::from_millis(20) };
        assert_eq!(opened, [StatementWarning { digest: DIGEST, since: 110, trouble }]);
        assert_eq!(load.look(50, 500_000, 0), []);
        assert_eq!(load.baselines.open().len(), 1);
        for _ in 0..CALM {
            load.look(50, 20_000, 0);
        }
        assert_eq!(load.baselines.open(), []);
    }

    #[test]
    fn timeouts_warn_although_the_statement_is_no_slower() {
        let mut load = Load::new();
        load.calm();
        let opened = load.look(100, 20_000, 5);
        assert!(matches!(opened[0].trouble, StatementTrouble::Timeouts { now: 5, .. }), "{opened:?}");
    }

    #[test]
    fn what_is_always_slow_or_hardly_called_warns_nobody() {
        let mut load = Load::new();
        for _ in 0..20 {
            assert_eq!(load.look(10, 900_000, 4), []);
        }
        let mut load = Load::new();
        load.calm();
        assert_eq!(load.look(1, 900_000, 0), []);
        assert_eq!(load.look(100, 49_000, 0), [], "nobody minds milliseconds");
    }

    #[test]
    fn a_statement_without_a_record_is_forgotten() {
        let mut load = Load::new();
        load.calm();
        load.look(50, 400_000, 0);
        load.baselines.look([], 1_000);
        assert_eq!(load.baselines.open(), []);
    }
}
