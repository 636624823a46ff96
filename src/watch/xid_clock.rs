//! When transaction ids were given out: turns an age in transactions into one in time.
//!
//! A slot or a standby has no date, and a session's transaction may be hours old with a snapshot of a second ago. The
//! age that counts is for how long transactions have begun that the holder does not let go of.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Marks kept before old ones are thinned out; with one every 15 s the last two hours are known to 15 s.
const MARKS_MAX: usize = 512;

/// Among old marks a gap of this part of their age is allowed: some 200 of them reach back a month.
const GAP_PART: u32 = 16;

/// An age as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// To the interval between two looks; the age is that much more at most.
    Known(Duration),
    /// It began before the first look.
    AtLeast(Duration),
}

/// Moments, and how far the counter of transaction ids had come at each.
#[derive(Debug, Default)]
pub(crate) struct XidClock(VecDeque<(u32, Instant)>);

impl XidClock {
    /// The next transaction id to be given out is this one now.
    pub(crate) fn mark(&mut self, next: u32, now: Instant) {
        match self.0.back() {
            Some((last, _)) if next == *last => return,
            // Another server, or one restored from a backup: the marks so far are of no use.
            Some((last, _)) if distance(*last, next) < 0 => self.0.clear(),
            _ => {}
        }
        if self.0.len() == MARKS_MAX {
            self.thin_out(now);
        }
        self.0.push_back((next, now));
    }

    /// The first and the last stay, so that nothing is forgotten.
    fn thin_out(&mut self, now: Instant) {
        let marks = std::mem::take(&mut self.0);
        for (i, (next, at)) in marks.iter().enumerate() {
            let gap = self.0.back().zip(marks.get(i + 1)).map(|((_, before), (_, after))| *after - *before);
            if gap.is_none_or(|gap| gap > now.saturating_duration_since(*at) / GAP_PART) {
                self.0.push_back((*next, *at));
            }
        }
    }

    /// For how long transactions have begun that come after `xid`, itself included.
    pub(crate) fn age(&self, xid: u32, now: Instant) -> Age {
        let later = self.0.partition_point(|(next, _)| distance(*next, xid) >= 0);
        let age = |(_, at): &(u32, Instant)| now.saturating_duration_since(*at);
        match (later, self.0.get(later)) {
            (0, first) => Age::AtLeast(first.map_or(Duration::ZERO, age)),
            (_, Some(mark)) => Age::Known(age(mark)),
            (_, None) => Age::Known(Duration::ZERO),
        }
    }
}

/// From one transaction id to another; ids run in a circle (transam.c: `TransactionIdPrecedes`).
fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A thousand transactions every ten seconds from `first` on.
    fn steady(first: u32, marks: u32) -> (XidClock, Instant) {
        let (mut clock, start) = (XidClock::default(), Instant::now());
        for mark in 0..marks {
            clock.mark(first.wrapping_add(mark * 1000), start + s(u64::from(mark) * 10));
        }
        (clock, start + s(u64::from(marks - 1) * 10))
    }

    #[test]
    fn an_age_is_counted_from_the_first_look_that_saw_later_transactions() {
        let (clock, now) = steady(5000, 7);
        assert_eq!(clock.age(5000, now), Age::Known(s(50)));
        assert_eq!(clock.age(5999, now), Age::Known(s(50)));
        assert_eq!(clock.age(6000, now), Age::Known(s(40)));
        assert_eq!(clock.age(4999, now), Age::AtLeast(s(60)));
    }

    #[test]
    fn nothing_is_held_back_where_no_transaction_began_since() {
        let (clock, now) = steady(5000, 7);
        assert_eq!(clock.age(11_000, now + s(3600)), Age::Known(s(0)));
    }

    #[test]
    fn ids_that_begin_anew_are_no_younger() {
        let (clock, now) = steady(u32::MAX - 2500, 7);
        assert_eq!(clock.age(u32::MAX - 1000, now), Age::Known(s(40)));
        assert_eq!(clock.age(1499, now), Age::Known(s(10)));
    }

    #[test]
    fn a_counter_that_went_back_is_another_server() {
        let (mut clock, now) = steady(5000, 7);
        clock.mark(100, now);
        assert_eq!(clock.age(50, now + s(5)), Age::AtLeast(s(5)));
    }

    #[test]
    fn what_is_long_ago_is_known_less_exactly_and_never_forgotten() {
        let (clock, now) = steady(5000, 5000);
        assert!(clock.0.len() <= MARKS_MAX);
        assert_eq!(clock.age(5000 - 1, now), Age::AtLeast(s(49_990)));
        let Age::Known(age) = clock.age(5000 + 1_000_500, now) else { panic!("it began since the first look") };
        assert!((s(39_980) * 15 / 16..=s(39_980)).contains(&age), "{age:?}");
        assert_eq!(clock.age(5000 + 4_998_500, now), Age::Known(s(0)));
    }

    #[test]
    fn a_clock_without_marks_knows_nothing() {
        assert_eq!(XidClock::default().age(7, Instant::now()), Age::AtLeast(s(0)));
    }
}
