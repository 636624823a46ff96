//! The statements that kept the servers busiest in the last ten minutes, in pieces of five seconds.
//!
//! Pure: the time is an argument, and the counts are told to it. Of each piece only the busiest statements are kept, so
//! the memory does not grow with the statements of the process.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};

use super::baseline::StatementSums;
use crate::sql::Digest;

/// Seconds of a piece.
pub(super) const PIECE: u32 = 5;

/// Ten minutes.
const PIECES: usize = 120;

/// Statements of a piece that are kept. What did less in it counts as nothing.
const BUSIEST: usize = 24;

/// Pieces of the last minute.
const MINUTE: usize = 12;

/// One statement over the last ten minutes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StatementTrend {
    pub digest: Digest,
    /// Backends that it kept busy on average, in each piece of five seconds; the newest is last.
    pub busy: Vec<f32>,
    /// What it did in the last minute.
    pub lately: StatementSums,
}

#[derive(Debug, Default)]
pub(super) struct StatementTrends {
    /// Sums at the last look.
    last: HashMap<Digest, StatementSums>,
    /// Of the last look, or of the start.
    second: u32,
    pieces: VecDeque<TrendPiece>,
}

#[derive(Debug, Default)]
struct TrendPiece {
    seconds: u32,
    busiest: Vec<(Digest, StatementSums)>,
}

impl StatementTrends {
    /// Whether a piece has passed.
    pub(super) fn is_due(&self, second: u32) -> bool {
        second >= self.second + PIECE
    }

    /// Looks at all statements, as they stand now.
    pub(super) fn look(&mut self, sums: impl IntoIterator<Item = (Digest, StatementSums)>, second: u32) {
        let mut before = std::mem::take(&mut self.last);
        let mut busiest = Vec::new();
        for (digest, now) in sums {
            let then = before.remove(&digest).unwrap_or_default();
            self.last.insert(digest, now);
            let passed = now.since(&then);
            if passed.calls > 0 {
                busiest.push((digest, passed));
            }
        }
        busiest.sort_unstable_by_key(|(digest, sums)| (Reverse(sums.server_micros), *digest));
        busiest.truncate(BUSIEST);
        let seconds = second.saturating_sub(self.second).max(1);
        self.second = second;
        // Looks that were missed: what came in them is in this one.
        for _ in 1..(seconds / PIECE).min(PIECES as u32) {
            self.push(TrendPiece::default());
        }
        self.push(TrendPiece { seconds, busiest });
    }

    fn push(&mut self, piece: TrendPiece) {
        if self.pieces.len() == PIECES {
            self.pieces.pop_front();
        }
        self.pieces.push_back(piece);
    }

    /// The busiest: first those of the last minute, then those of the minutes before.
    pub(super) fn busiest(&self, most: usize) -> Vec<StatementTrend> {
        let mut trends: HashMap<Digest, (StatementTrend, u64)> = HashMap::new();
        let minute = self.pieces.len().saturating_sub(MINUTE);
        for (at, piece) in self.pieces.iter().enumerate() {
            for (digest, sums) in &piece.busiest {
                let (trend, micros) = trends.entry(*digest).or_insert_with(|| {
                    let busy = vec![0.0; self.pieces.len()];
                    (StatementTrend { digest: *digest, busy, lately: StatementSums::default() }, 0)
                });
                trend.busy[at] = (sums.server_micros as f64 / 1e6 / f64::from(piece.seconds)) as f32;
                *micros += sums.server_micros;
                if at >= minute {
                    trend.lately.add(sums);
                }
            }
        }
        let mut trends: Vec<_> = trends.into_values().collect();
        trends.sort_unstable_by_key(|(trend, micros)| {
            (Reverse(trend.lately.server_micros), Reverse(*micros), trend.digest)
        });
        trends.into_iter().take(most).map(|(trend, _)| trend).collect()
    }

    /// Forgets everything: all sums begin again.
    pub(super) fn reset(&mut self) {
        *self = Self { second: self.second, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sums(calls: u64, server_micros: u64) -> StatementSums {
        StatementSums { calls, server_micros, ..StatementSums::default() }
    }

    #[test]
    fn the_busiest_of_the_last_minute_is_first_whatever_others_did_before() {
        let mut trends = StatementTrends::default();
        for piece in 1..=60 {
            trends.look([(Digest(1), sums(piece, piece * 2_500_000))], piece as u32 * PIECE);
        }
        let old = trends.busiest(5);
        assert_eq!((old.len(), old[0].digest, old[0].lately), (1, Digest(1), sums(12, 30_000_000)));
        assert!(old[0].busy.iter().all(|busy| (*busy - 0.5).abs() < 1e-6), "half a backend: {:?}", old[0].busy);
        let now = [(Digest(1), sums(61, 152_500_000)), (Digest(2), sums(3, 40_000_000))];
        trends.look(now, 61 * PIECE);
        let order: Vec<_> = trends.busiest(5).iter().map(|trend| trend.digest).collect();
        assert_eq!(order, [Digest(2), Digest(1)]);
        assert_eq!(trends.busiest(1)[0].busy.last(), Some(&8.0));
    }

    #[test]
    fn looks_that_were_missed_leave_a_gap_and_not_a_peak() {
        let mut trends = StatementTrends::default();
        trends.look([(Digest(1), sums(2, 30_000_000))], 6 * PIECE);
        let busy = &trends.busiest(1)[0].busy;
        assert_eq!(busy, &[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    }

    proptest! {
        #[test]
        fn its_memory_has_bounds_and_its_sums_are_right(
            looks in prop::collection::vec(
                (1u32..40, prop::collection::vec((0u64..60, 1u64..5, 0u64..1_000_000), 0..40)),
                1..150,
            )
        ) {
            let mut trends = StatementTrends::default();
            let mut totals: HashMap<Digest, StatementSums> = HashMap::new();
            let mut second = 0;
            for (passed, calls) in looks {
                second += passed;
                let mut here: HashMap<Digest, StatementSums> = HashMap::new();
                for (digest, calls, micros) in calls {
                    let more = sums(calls, micros);
                    totals.entry(Digest(digest)).or_default().add(&more);
                    here.entry(Digest(digest)).or_default().add(&more);
                }
                trends.look(totals.iter().map(|(digest, sums)| (*digest, *sums)), second);
                let newest = trends.pieces.back().expect("one was pushed");
                prop_assert!(newest.busiest.len() <= BUSIEST && trends.pieces.len() <= PIECES);
                prop_assert_eq!(newest.seconds, passed);
                for (digest, sums) in &newest.busiest {
                    prop_assert_eq!(Some(sums), here.get(digest));
                }
                for trend in trends.busiest(30) {
                    prop_assert_eq!(trend.busy.len(), trends.pieces.len());
                    prop_assert!(trend.lately.server_micros <= totals[&trend.digest].server_micros);
                }
            }
        }
    }
}
