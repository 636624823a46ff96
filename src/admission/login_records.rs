//! How many refused logins are recorded: people who guess passwords must not fill the log.
//!
//! No I/O and no clock: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Records of refused logins in [`PERIOD`]: enough to read, and for the addresses of most attackers.
const RECORDS_MAX: u32 = 20;

const PERIOD: Duration = Duration::from_secs(1);

/// The records of the present period.
#[derive(Debug)]
pub(crate) struct LoginRecords {
    since: Instant,
    recorded: u32,
    left_out: u64,
}

impl LoginRecords {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, recorded: 0, left_out: 0 }
    }

    /// Whether one more may be recorded now, and how many were left out before it. `None`: this one is left out, too.
    pub(crate) fn one_more(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= PERIOD {
            (self.since, self.recorded) = (now, 0);
        }
        if self.recorded == RECORDS_MAX {
            self.left_out += 1;
            return None;
        }
        self.recorded += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_left_out_are_counted_in_the_next_one() {
        let start = Instant::now();
        let mut records = LoginRecords::new(start);
        for _ in 0..RECORDS_MAX {
            assert_eq!(records.one_more(start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(records.one_more(start + PERIOD / 2), None);
        }
        assert_eq!(records.one_more(start + PERIOD), Some(7));
        assert_eq!(records.one_more(start + PERIOD), Some(0));
    }
}
