//! The most that was wanted in the last half second. Pure.
//!
//! A share is not given up in the moment between two transactions; but where demand has moved to another instance, that
//! one waits for as long.

use std::time::Duration;

use tokio::time::Instant;

/// Half of what is remembered.
const SPAN: Duration = Duration::from_millis(250);

/// The most in this span and in the one before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peaks {
    began: Instant,
    now: u32,
    before: u32,
}

impl Peaks {
    /// Nothing has been wanted so far.
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, now: 0, before: 0 }
    }

    /// So much is wanted at this moment.
    pub(crate) fn note(&mut self, wanted: u32, now: Instant) {
        let spans = now.saturating_duration_since(self.began).as_millis() / SPAN.as_millis();
        if spans > 0 {
            self.before = if spans == 1 { self.now } else { 0 };
            (self.began, self.now) = (now, 0);
        }
        self.now = self.now.max(wanted);
    }

    /// The most in the last quarter to half of a second.
    pub(crate) fn most(&self) -> u32 {
        self.now.max(self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wanted_counts_for_a_quarter_to_half_of_a_second() {
        let start = Instant::now();
        let mut peaks = Peaks::new(start);
        let mut most_at = |millis, wanted| {
            peaks.note(wanted, start + Duration::from_millis(millis));
            peaks.most()
        };
        assert_eq!((most_at(0, 3), most_at(50, 9), most_at(200, 1)), (3, 9, 9));
        assert_eq!((most_at(300, 2), most_at(500, 2)), (9, 9));
        assert_eq!((most_at(600, 2), most_at(4500, 0)), (2, 0));
    }
}
