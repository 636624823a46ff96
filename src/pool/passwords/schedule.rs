//! When a command is run that prints a password: one run at a time, the next before the password is too old.
//!
//! Pure: the time and the random numbers come in as arguments.

use std::time::Duration;

use tokio::time::Instant;

use crate::pool::backoff::Backoff;

/// Shortest time from the start of one run to that of the next, however many dials ask.
pub(super) const SPACING: Duration = Duration::from_secs(1);

/// Longest wait after a failure: the last password is good for some minutes more.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A new password is fetched at about this part of the life of the last.
const PART: f64 = 2.0 / 3.0;

/// By which part of it earlier or later, so that instances do not ask all at once.
const JITTER: f64 = 0.1;

/// The runs of one command.
#[derive(Debug)]
pub(super) struct RefreshSchedule {
    refresh: Duration,
    backoff: Backoff,
    started: Option<Instant>,
    state: RunState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunState {
    Due(Instant),
    Running,
}

impl RefreshSchedule {
    /// Of a command whose passwords are good for so long. The first run is due at once.
    pub(super) fn new(refresh: Duration, now: Instant) -> Self {
        let backoff = Backoff::up_to(RETRY_MAX.min(refresh / 3));
        Self { refresh, backoff, started: None, state: RunState::Due(now) }
    }

    /// When it is to be run; `None`: it runs.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            RunState::Due(at) => Some(at),
            RunState::Running => None,
        }
    }

    // ## Due => Running
    pub(super) fn begin(&mut self, now: Instant) {
        (self.started, self.state) = (Some(now), RunState::Running);
    }

    // ## Running => Due
    pub(super) fn succeeded(&mut self, now: Instant, uniform: f64) {
        self.backoff.succeeded();
        let part = PART * (1.0 - JITTER + 2.0 * JITTER * uniform);
        self.state = RunState::Due(self.soonest(self.started.unwrap_or(now) + self.refresh.mul_f64(part)));
    }

    // ## Running => Due, sooner
    pub(super) fn failed(&mut self, now: Instant, uniform: f64) {
        let wait = self.backoff.failed(uniform);
        self.state = RunState::Due(self.soonest(now + wait));
    }

    /// Somebody has no password, or one that a server refused.
    pub(super) fn ask(&mut self, now: Instant) {
        if let RunState::Due(at) = self.state {
            self.state = RunState::Due(at.min(self.soonest(now)));
        }
    }

    fn soonest(&self, wanted: Instant) -> Instant {
        self.started.map_or(wanted, |started| wanted.max(started + SPACING))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REFRESH: Duration = Duration::from_secs(600);

    #[test]
    fn next_run_is_at_two_thirds_of_the_life_give_or_take_a_tenth() {
        let start = Instant::now();
        for (uniform, seconds) in [(0.0, 360.0), (0.5, 400.0), (1.0, 440.0)] {
            let mut schedule = RefreshSchedule::new(REFRESH, start);
            assert_eq!(schedule.due(), Some(start));
            schedule.begin(start);
            schedule.succeeded(start + Duration::from_secs(2), uniform);
            let wait = schedule.due().expect("it does not run") - start;
            assert!((wait.as_secs_f64() - seconds).abs() < 0.001, "{wait:?}");
        }
    }

    #[derive(Debug, Clone)]
    enum Operation {
        Pass(u64),
        Ask,
        /// A run that is due begins, and one that runs ends like this.
        Turn {
            succeeds: bool,
            uniform: f64,
        },
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            (0..200_000_u64).prop_map(Operation::Pass),
            (0..1500_u64).prop_map(Operation::Pass),
            Just(Operation::Ask),
            (any::<bool>(), 0.0..1.0).prop_map(|(succeeds, uniform)| Operation::Turn { succeeds, uniform }),
        ]
    }

    proptest! {
        #[test]
        fn runs_keep_their_distance_and_none_is_forgotten(operations in prop::collection::vec(operation(), 1..200)) {
            let mut now = Instant::now();
            let mut schedule = RefreshSchedule::new(REFRESH, now);
            let mut started = None;
            for operation in operations {
                match operation {
                    Operation::Pass(millis) => now += Duration::from_millis(millis),
                    Operation::Ask => {
                        schedule.ask(now);
                        let soonest = started.map_or(now, |started: Instant| now.max(started + SPACING));
                        prop_assert!(schedule.due().is_none_or(|due| due <= soonest));
                    }
                    Operation::Turn { succeeds, uniform } => match schedule.due() {
                        Some(due) if due <= now => {
                            prop_assert!(started.is_none_or(|started| now >= started + SPACING));
                            schedule.begin(now);
                            started = Some(now);
                        }
                        Some(_) => {}
                        None => {
                            let longest = if succeeds {
                                schedule.succeeded(now, uniform);
                                started.expect("it ran") + REFRESH.mul_f64(0.74)
                            } else {
                                schedule.failed(now, uniform);
                                now + RETRY_MAX
                            };
                            prop_assert!(schedule.due().is_some_and(|due| due <= longest));
                        }
                    },
                }
                prop_assert_eq!(schedule.due().is_none(), schedule.state == RunState::Running);
            }
        }
    }
}
