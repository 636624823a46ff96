//! What a limiter promises.

use super::*;
use crate::config::RoleRate as RateRules;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn rules() -> LaneSettings {
    LaneSettings { transactions_max: Some(100), ..LaneSettings::default() }
}

struct Lane {
    limiter: RoleLimiter,
    now: Instant,
}

impl Lane {
    fn new(rules: LaneSettings) -> Self {
        let now = Instant::now();
        Self { limiter: RoleLimiter::new(rules, now), now }
    }

    fn view(&self) -> View {
        self.limiter.view(self.now)
    }

    /// Starts as many as may.
    fn fill(&mut self) {
        while self.limiter.permits(Tenure::Transaction, self.now) > 0 {
            self.limiter.started(true, self.now);
        }
    }

    fn complete(&mut self, count: u32, served: u64) {
        (0..count).for_each(|_| self.limiter.completed(self.now - ms(served), self.now));
    }

    /// Transactions of 10 ms in a lane that always has more to do.
    fn work(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.fill();
            self.now += ms(10);
            self.complete(self.view().active, 10);
        }
    }
}

#[test]
fn the_effective_limit_doubles_per_service_time_up_to_the_limit() {
    let mut lane = Lane::new(rules());
    let mut effective = vec![lane.view().effective];
    for _ in 0..6 {
        lane.fill();
        lane.now += ms(10);
        // Whoever ends makes room for another at once, as at work.
        for _ in 0..lane.view().active {
            lane.complete(1, 10);
            lane.fill();
        }
        effective.push(lane.view().effective);
    }
    assert_eq!(effective, [8, 16, 32, 64, 100, 100, 100]);
}

#[test]
fn a_quiet_second_makes_it_start_slowly_again_and_a_short_break_does_not() {
    let mut lane = Lane::new(LaneSettings { slow_start_idle: ms(1000), ..rules() });
    lane.work(30);
    let grown = lane.view().effective;
    assert!(grown > 20, "{grown}");
    lane.now += ms(900);
    lane.fill();
    assert_eq!(lane.view().active, grown);
    lane.complete(grown, 10);
    lane.now += ms(1000);
    lane.fill();
    assert_eq!(lane.view().active, 8);
}

#[test]
fn light_load_never_notices_it() {
    let mut lane = Lane::new(rules());
    for _ in 0..1000 {
        lane.now += ms(5);
        lane.limiter.arrived(lane.now);
        assert!(lane.limiter.permits(Tenure::Transaction, lane.now) >= 6);
        lane.limiter.started(false, lane.now);
        lane.limiter.started(false, lane.now);
        lane.complete(2, 5);
    }
    assert_eq!((lane.view().state, lane.view().tally.immediate), (State::Calm, 2000));
}

#[test]
fn full_with_waiters_and_nothing_ending_is_a_convoy_and_it_starts_slowly_after_one() {
    let mut lane = Lane::new(rules());
    lane.work(30);
    lane.fill();
    lane.limiter.queued(0, 1);
    lane.limiter.deepened(Duration::ZERO, lane.now);
    lane.now += ms(1000);
    assert_eq!(lane.view().state, State::Calm);
    lane.now += ms(1);
    assert_eq!(lane.view().state, State::Convoy);
    lane.complete(1, 1001);
    assert_eq!((lane.view().tally.convoys, lane.view().effective), (1, 8));
}

#[test]
fn long_transactions_do_not_keep_all_others_out() {
    let mut lane = Lane::new(LaneSettings { transactions_max: None, ..rules() });
    lane.limiter.queued(0, 200);
    let mut active = Vec::new();
    for tick in 0..=130 {
        lane.fill();
        if tick % 10 == 0 {
            active.push(lane.view().active);
        }
        lane.now += ms(100);
        lane.limiter.tick(lane.now);
    }
    assert_eq!(
        active,
        [8, 9, 19, 29, 39, 49, 59, 69, 79, 89, 99, 100, 100, 100],
        "one more with each tick after a second"
    );
}

#[test]
fn sessions_know_the_limit_and_no_slow_start() {
    let lane = Lane::new(rules());
    assert_eq!(lane.limiter.permits(Tenure::Session, lane.now), 100);
    assert_eq!(lane.limiter.permits(Tenure::Transaction, lane.now), 8);
}

#[test]
fn a_few_long_transactions_are_no_convoy() {
    let mut lane = Lane::new(rules());
    (0..7).for_each(|_| lane.limiter.started(false, lane.now));
    lane.limiter.queued(0, 5);
    lane.now += ms(60_000);
    assert_eq!(lane.view().state, State::Calm);
}

#[test]
fn the_limit_ramps_up_after_a_start_and_when_asked() {
    let mut lane = Lane::new(LaneSettings { mode: AdmissionMode::Off, ramp: Some(ms(10_000)), ..rules() });
    let effective = |lane: &Lane| lane.view().effective;
    assert_eq!(effective(&lane), 8);
    lane.now += ms(5000);
    assert_eq!(effective(&lane), 54);
    lane.now += ms(5000);
    assert_eq!((effective(&lane), lane.view().moves_until), (100, None));
    lane.limiter.ramp_over(ms(1000), lane.now);
    assert_eq!(effective(&lane), 8);
    lane.now += ms(500);
    assert_eq!(effective(&lane), 54);
}

#[test]
fn there_is_nothing_to_ramp_to_without_a_limit() {
    let mut lane = Lane::new(LaneSettings { transactions_max: None, ..rules() });
    lane.limiter.ramp_over(ms(1000), lane.now);
    assert_eq!((lane.view().limit, lane.view().moves_until), (None, None));
}

#[test]
fn a_closed_gate_stays_closed_over_a_restart() {
    let mut lane = Lane::new(LaneSettings { transactions_max: Some(0), ramp: Some(ms(1000)), ..rules() });
    lane.limiter.restart(lane.now);
    lane.now += ms(5000);
    assert_eq!((lane.view().effective, lane.view().state), (0, State::Closed));
}

#[test]
fn a_rate_for_bursts_holds_in_bursts_only() {
    let rate = RateRules { per_second: 1.0, burst: 1, delay_max: ms(2000), when: RateWhen::Burst };
    let mut lane = Lane::new(LaneSettings { rate: Some(rate), ..rules() });
    (0..20).for_each(|_| assert_eq!(lane.limiter.pace(Duration::ZERO, lane.now), Pace::Now));
    (0..50).for_each(|_| lane.limiter.arrived(lane.now));
    assert_eq!(lane.view().state, State::Burst);
    assert_eq!(lane.limiter.pace(Duration::ZERO, lane.now), Pace::Now, "the one that a burst may start with");
    assert!(matches!(lane.limiter.pace(Duration::ZERO, lane.now), Pace::NotBefore(_)));
}

#[test]
fn nothing_makes_it_narrower_than_what_is_reserved() {
    let mut lane = Lane::new(LaneSettings { transactions_min: 30, initial: 8, ..rules() });
    lane.work(60);
    for _ in 0..20 {
        lane.fill();
        lane.now += ms(300);
        lane.complete(lane.view().active, 900);
    }
    assert!(lane.view().effective >= 30, "{:?}", lane.view());
}

#[test]
fn in_a_convoy_it_is_halved_again_and_again_down_to_one_or_what_is_reserved() {
    for (reserved, floor) in [(0, 1), (3, 3)] {
        let mut lane = Lane::new(LaneSettings { transactions_min: reserved, ..rules() });
        lane.work(60);
        (0..40).for_each(|_| lane.limiter.started(true, lane.now));
        let mut effective = Vec::new();
        for _ in 0..8 {
            lane.now += ms(250);
            effective.extend(lane.limiter.tighten(lane.now));
            assert_eq!(lane.limiter.tighten(lane.now + ms(100)), None, "another watch sees the same convoy");
            lane.limiter.tick(lane.now);
        }
        assert_eq!(effective[..4], [20, 10, 5, 2.max(floor)]);
        assert_eq!(lane.view().effective, floor);
        assert_eq!(lane.view().tally.cuts, effective.len() as u64);
        assert_eq!((lane.view().limit, lane.view().active), (Some(100), 40), "it is no LIMIT and ends nobody");
    }
}

#[test]
fn after_a_convoy_it_grows_by_completions_only() {
    let mut lane = Lane::new(rules());
    lane.work(60);
    lane.fill();
    lane.limiter.queued(0, 50);
    for _ in 0..10 {
        lane.now += ms(250);
        lane.limiter.tighten(lane.now);
        lane.limiter.tick(lane.now);
        assert!(lane.view().effective < 100);
    }
    assert_eq!(lane.view().effective, 1);
    // Whoever waited was slow: that makes it no wider.
    lane.complete(lane.view().active, 2500);
    assert_eq!(lane.view().effective, 1);
    lane.work(1);
    assert_eq!(lane.view().effective, 2);
    lane.work(100);
    assert_eq!(lane.view().effective, 100);
}

#[test]
fn a_lane_without_a_limit_has_one_while_it_is_tightened() {
    for adaptive in [false, true] {
        let mut lane = Lane::new(LaneSettings { transactions_max: None, adaptive, ..rules() });
        (0..300).for_each(|_| lane.limiter.started(false, lane.now));
        lane.limiter.tighten(lane.now + ms(250));
        assert_eq!((lane.view().effective, lane.view().limit), (4, None));
        assert_eq!(lane.limiter.permits(Tenure::Transaction, lane.now), 0);
    }
    let mut off = Lane::new(LaneSettings { mode: AdmissionMode::Off, ..rules() });
    off.fill();
    assert_eq!(off.limiter.tighten(off.now), None, "off is off");
}

#[test]
fn who_comes_first_after_a_quiet_time_is_drawn_and_steady_load_keeps_its_order() {
    let mut lane = Lane::new(rules());
    lane.now += ms(5000);
    lane.fill();
    assert!(lane.limiter.is_drawing(lane.now + ms(250)));
    assert!(!lane.limiter.is_drawing(lane.now + ms(251)));
    // It never rests.
    lane.work(1000);
    lane.fill();
    assert!(!lane.limiter.is_drawing(lane.now));
    lane.complete(lane.view().active, 10);
    lane.now += ms(1000);
    lane.fill();
    assert!(lane.limiter.is_drawing(lane.now));
}
