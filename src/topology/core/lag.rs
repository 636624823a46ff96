//! How far a standby is behind, by positions in the write-ahead log.
//!
//! A standby cannot say that itself: the time since it replayed a transaction grows while the primary is idle, too. But
//! what the primary had written at a known time, and the standby has not replayed, is as old as that time at least.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Positions that are kept, closer together the younger they are.
const SAMPLES_MAX: usize = 512;

/// Positions of a primary, each with the time at which it was first seen to be there.
#[derive(Debug, Default)]
pub(super) struct PrimaryPositions(VecDeque<(Instant, u64)>);

/// Whether it is the lag, or there may be more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PositionLag {
    Known(Duration),
    /// The primary was beyond that position when it was first seen.
    AtLeast(Duration),
}

impl PrimaryPositions {
    /// Another server is the primary: its log may have taken another way.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The primary is here.
    pub(super) fn saw(&mut self, position: u64, now: Instant) {
        match self.0.back() {
            Some((_, last)) if position < *last => self.0.clear(),
            Some((_, last)) if position == *last => return,
            _ => {}
        }
        self.0.push_back((now, position));
        if self.0.len() > SAMPLES_MAX {
            // The one that is missed least: of which the gap would be the smallest part of the time since.
            let gap = |place: &usize| {
                let (before, after) = (self.0[place - 1].0, self.0[place + 1].0);
                (after - before).as_secs_f64() / (now - before).as_secs_f64().max(1e-3)
            };
            if let Some(least) = (1..self.0.len() - 1).min_by(|a, b| gap(a).total_cmp(&gap(b))) {
                self.0.remove(least);
            }
        }
    }

    /// How old the first thing is that a standby at this position has not replayed; `None`: no primary was seen.
    pub(super) fn lag(&self, replayed: u64, now: Instant) -> Option<PositionLag> {
        self.0.back()?;
        let beyond = self.0.partition_point(|(_, position)| *position <= replayed);
        let Some((since, _)) = self.0.get(beyond) else { return Some(PositionLag::Known(Duration::ZERO)) };
        let lag = now.saturating_duration_since(*since);
        Some(if beyond == 0 { PositionLag::AtLeast(lag) } else { PositionLag::Known(lag) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn lag_is_the_age_of_what_is_not_replayed_and_an_idle_primary_makes_none() {
        let (mut positions, begun) = (PrimaryPositions::default(), Instant::now());
        assert_eq!(positions.lag(1, begun), None);
        for (second, position) in [(0, 100), (1, 100), (2, 200), (3, 300)] {
            positions.saw(position, begun + s(second));
        }
        let lag = |replayed| positions.lag(replayed, begun + s(60)).expect("a primary was seen");
        assert_eq!(lag(300), PositionLag::Known(s(0)));
        assert_eq!(lag(301), PositionLag::Known(s(0)), "it is ahead of the last look");
        assert_eq!(lag(299), PositionLag::Known(s(57)));
        assert_eq!(lag(100), PositionLag::Known(s(58)));
        assert_eq!(lag(99), PositionLag::AtLeast(s(60)));
    }

    #[test]
    fn old_positions_are_thinned_and_still_tell_the_lag_about() {
        let (mut positions, begun) = (PrimaryPositions::default(), Instant::now());
        for second in 0..5000 {
            positions.saw(second, begun + s(second));
        }
        assert!(positions.0.len() <= SAMPLES_MAX);
        for replayed in (0..5000).step_by(37) {
            let Some(PositionLag::Known(lag)) = positions.lag(replayed, begun + s(5000)) else { panic!("{replayed}") };
            let (lag, exact) = (lag.as_secs_f64(), 5000.0 - replayed as f64);
            assert!(lag <= exact && lag >= exact * 0.9 - 2.0, "{replayed}: {lag} of {exact}");
        }
    }

    #[test]
    fn a_log_that_went_back_is_another() {
        let (mut positions, now) = (PrimaryPositions::default(), Instant::now());
        positions.saw(100, now);
        positions.saw(50, now + s(1));
        assert_eq!(positions.lag(50, now + s(2)), Some(PositionLag::Known(s(0))));
    }
}
