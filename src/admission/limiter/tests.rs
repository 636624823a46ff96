//! The promises of a limiter.

use super::*;
use crate::config::RoleRate as RateRules;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn rules() -> RoleQueueSettings {
    RoleQueueSettings { transactions_max: Some(100), ..RoleQueueSettings::default() }
}

struct TestQueue {
    limiter: RoleLimiter,
    now: Instant,
}

impl TestQueue {
    fn new(rules: RoleQueueSettings) -> Self {
        let now = Instant::now();
        Self { limiter: RoleLimiter::new(rules, now), now }
    }

    fn view(&self) -> LimiterView {
        self.limiter.view(self.now)
    }

    /// Starts as many transactions as may start.
    fn fill(&mut self) {
        while self.limiter.permits(LeaseScope::Transaction, self.now) > 0 {
            self.limiter.started(true, self.now);
        }
    }

    fn complete(&mut self, count: u32, served: u64) {
        (0..count).for_each(|_| self.limiter.completed(self.now - ms(served), self.now));
    }

    /// Transactions of 10 ms in a role queue that always has more to do.
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
    let mut role_queue = TestQueue::new(rules());
    let mut effective = vec![role_queue.view().effective];
    for _ in 0..6 {
        role_queue.fill();
        role_queue.now += ms(10);
        // Each transaction that ends makes room for another at once, as at work.
        for _ in 0..role_queue.view().active {
            role_queue.complete(1, 10);
            role_queue.fill();
        }
        effective.push(role_queue.view().effective);
    }
    assert_eq!(effective, [8, 16, 32, 64, 100, 100, 100]);
}

#[test]
fn a_quiet_second_makes_it_start_slowly_again_and_a_short_break_does_not() {
    let mut role_queue = TestQueue::new(RoleQueueSettings { slow_start_idle: ms(1000), ..rules() });
    role_queue.work(30);
    let grown = role_queue.view().effective;
    assert!(grown > 20, "{grown}");
    role_queue.now += ms(900);
    role_queue.fill();
    assert_eq!(role_queue.view().active, grown);
    role_queue.complete(grown, 10);
    role_queue.now += ms(1000);
    role_queue.fill();
    assert_eq!(role_queue.view().active, 8);
}

#[test]
fn light_load_never_notices_it() {
    let mut role_queue = TestQueue::new(rules());
    for _ in 0..1000 {
        role_queue.now += ms(5);
        role_queue.limiter.arrived(role_queue.now);
        assert!(role_queue.limiter.permits(LeaseScope::Transaction, role_queue.now) >= 6);
        role_queue.limiter.started(false, role_queue.now);
        role_queue.limiter.started(false, role_queue.now);
        role_queue.complete(2, 5);
    }
    assert_eq!((role_queue.view().state, role_queue.view().counters.immediate), (LimiterState::Calm, 2000));
}

#[test]
fn full_with_waiters_and_nothing_ending_is_stuck_and_it_starts_slowly_afterwards() {
    let mut role_queue = TestQueue::new(rules());
    role_queue.work(30);
    role_queue.fill();
    role_queue.limiter.queued(0, 1);
    role_queue.limiter.deepened(Duration::ZERO, role_queue.now);
    role_queue.now += ms(1000);
    assert_eq!(role_queue.view().state, LimiterState::Calm);
    role_queue.now += ms(1);
    assert_eq!(role_queue.view().state, LimiterState::Stuck);
    role_queue.complete(1, 1001);
    assert_eq!((role_queue.view().counters.stuck, role_queue.view().effective), (1, 8));
}

#[test]
fn long_transactions_do_not_keep_all_others_out() {
    let mut role_queue = TestQueue::new(RoleQueueSettings { transactions_max: None, ..rules() });
    role_queue.limiter.queued(0, 200);
    let mut active = Vec::new();
    for tick in 0..=130 {
        role_queue.fill();
        if tick % 10 == 0 {
            active.push(role_queue.view().active);
        }
        role_queue.now += ms(100);
        role_queue.limiter.tick(role_queue.now);
    }
    assert_eq!(
        active,
        [8, 9, 19, 29, 39, 49, 59, 69, 79, 89, 99, 100, 100, 100],
        "one more with each tick after a second"
    );
}

#[test]
fn sessions_know_the_limit_and_no_slow_start() {
    let role_queue = TestQueue::new(rules());
    assert_eq!(role_queue.limiter.permits(LeaseScope::Session, role_queue.now), 100);
    assert_eq!(role_queue.limiter.permits(LeaseScope::Transaction, role_queue.now), 8);
}

#[test]
fn a_role_with_a_few_long_transactions_is_not_stuck() {
    let mut role_queue = TestQueue::new(rules());
    (0..7).for_each(|_| role_queue.limiter.started(false, role_queue.now));
    role_queue.limiter.queued(0, 5);
    role_queue.now += ms(60_000);
    assert_eq!(role_queue.view().state, LimiterState::Calm);
}

#[test]
fn the_limit_ramps_up_after_a_start_and_when_asked() {
    let mut role_queue =
        TestQueue::new(RoleQueueSettings { mode: AdmissionMode::Off, ramp: Some(ms(10_000)), ..rules() });
    let effective = |role_queue: &TestQueue| role_queue.view().effective;
    assert_eq!(effective(&role_queue), 8);
    role_queue.now += ms(5000);
    assert_eq!(effective(&role_queue), 54);
    role_queue.now += ms(5000);
    assert_eq!((effective(&role_queue), role_queue.view().moves_until), (100, None));
    role_queue.limiter.ramp_over(ms(1000), role_queue.now);
    assert_eq!(effective(&role_queue), 8);
    role_queue.now += ms(500);
    assert_eq!(effective(&role_queue), 54);
}

#[test]
fn there_is_nothing_to_ramp_to_without_a_limit() {
    let mut role_queue = TestQueue::new(RoleQueueSettings { transactions_max: None, ..rules() });
    role_queue.limiter.ramp_over(ms(1000), role_queue.now);
    assert_eq!((role_queue.view().limit, role_queue.view().moves_until), (None, None));
}

#[test]
fn a_closed_gate_stays_closed_over_a_restart() {
    let mut role_queue =
        TestQueue::new(RoleQueueSettings { transactions_max: Some(0), ramp: Some(ms(1000)), ..rules() });
    role_queue.limiter.restart(role_queue.now);
    role_queue.now += ms(5000);
    assert_eq!((role_queue.view().effective, role_queue.view().state), (0, LimiterState::Closed));
}

#[test]
fn a_rate_for_bursts_holds_in_bursts_only() {
    let rate = RateRules { per_second: 1.0, burst: 1, delay_max: ms(2000), when: RateWhen::Burst };
    let mut role_queue = TestQueue::new(RoleQueueSettings { rate: Some(rate), ..rules() });
    (0..20).for_each(|_| assert_eq!(role_queue.limiter.pace(Duration::ZERO, role_queue.now), Pace::Now));
    (0..50).for_each(|_| role_queue.limiter.arrived(role_queue.now));
    assert_eq!(role_queue.view().state, LimiterState::Burst);
    assert_eq!(
        role_queue.limiter.pace(Duration::ZERO, role_queue.now),
        Pace::Now,
        "the one that a burst may start with"
    );
    assert!(matches!(role_queue.limiter.pace(Duration::ZERO, role_queue.now), Pace::NotBefore(_)));
}

#[test]
fn nothing_makes_it_narrower_than_what_is_reserved() {
    let mut role_queue = TestQueue::new(RoleQueueSettings { transactions_min: 30, initial: 8, ..rules() });
    role_queue.work(60);
    for _ in 0..20 {
        role_queue.fill();
        role_queue.now += ms(300);
        role_queue.complete(role_queue.view().active, 900);
    }
    assert!(role_queue.view().effective >= 30, "{:?}", role_queue.view());
}

#[test]
fn in_a_convoy_it_is_halved_again_and_again_down_to_one_or_what_is_reserved() {
    for (reserved, floor) in [(0, 1), (3, 3)] {
        let mut role_queue = TestQueue::new(RoleQueueSettings { transactions_min: reserved, ..rules() });
        role_queue.work(60);
        (0..40).for_each(|_| role_queue.limiter.started(true, role_queue.now));
        let mut effective = Vec::new();
        for _ in 0..8 {
            role_queue.now += ms(250);
            effective.extend(role_queue.limiter.tighten(role_queue.now));
            assert_eq!(
                role_queue.limiter.tighten(role_queue.now + ms(100)),
                None,
                "another watch sees the same convoy"
            );
            role_queue.limiter.tick(role_queue.now);
        }
        assert_eq!(effective[..4], [20, 10, 5, 2.max(floor)]);
        assert_eq!(role_queue.view().effective, floor);
        assert_eq!(role_queue.view().counters.cuts, effective.len() as u64);
        assert_eq!(
            (role_queue.view().limit, role_queue.view().active),
            (Some(100), 40),
            "it is no LIMIT and ends nobody"
        );
    }
}

#[test]
fn after_a_convoy_it_grows_by_completions_only() {
    let mut role_queue = TestQueue::new(rules());
    role_queue.work(60);
    role_queue.fill();
    role_queue.limiter.queued(0, 50);
    for _ in 0..10 {
        role_queue.now += ms(250);
        role_queue.limiter.tighten(role_queue.now);
        role_queue.limiter.tick(role_queue.now);
        assert!(role_queue.view().effective < 100);
    }
    assert_eq!(role_queue.view().effective, 1);
    // A transaction that waited was slow: it makes the limit no wider.
    role_queue.complete(role_queue.view().active, 2500);
    assert_eq!(role_queue.view().effective, 1);
    role_queue.work(1);
    assert_eq!(role_queue.view().effective, 2);
    role_queue.work(100);
    assert_eq!(role_queue.view().effective, 100);
}

#[test]
fn a_role_queue_without_a_limit_has_one_while_it_is_tightened() {
    for adaptive in [false, true] {
        let mut role_queue = TestQueue::new(RoleQueueSettings { transactions_max: None, adaptive, ..rules() });
        (0..300).for_each(|_| role_queue.limiter.started(false, role_queue.now));
        role_queue.limiter.tighten(role_queue.now + ms(250));
        assert_eq!((role_queue.view().effective, role_queue.view().limit), (4, None));
        assert_eq!(role_queue.limiter.permits(LeaseScope::Transaction, role_queue.now), 0);
    }
    let mut off = TestQueue::new(RoleQueueSettings { mode: AdmissionMode::Off, ..rules() });
    off.fill();
    assert_eq!(off.limiter.tighten(off.now), None, "off is off");
}

#[test]
fn who_comes_first_after_a_quiet_time_is_drawn_and_steady_load_keeps_its_order() {
    let mut role_queue = TestQueue::new(rules());
    role_queue.now += ms(5000);
    role_queue.fill();
    assert!(role_queue.limiter.is_drawing(role_queue.now + ms(250)));
    assert!(!role_queue.limiter.is_drawing(role_queue.now + ms(251)));
    // The role queue never rests.
    role_queue.work(1000);
    role_queue.fill();
    assert!(!role_queue.limiter.is_drawing(role_queue.now));
    role_queue.complete(role_queue.view().active, 10);
    role_queue.now += ms(1000);
    role_queue.fill();
    assert!(role_queue.limiter.is_drawing(role_queue.now));
}

#[test]
fn what_makes_the_limit_as_low_as_it_is_is_named() {
    let mut role_queue = TestQueue::new(rules());
    assert_eq!(role_queue.view().limited_by, LimitedBy::SlowStart);
    role_queue.work(300);
    assert_eq!((role_queue.view().effective, role_queue.view().limited_by), (100, LimitedBy::Limit));
    role_queue.limiter.tighten(role_queue.now);
    assert_eq!(role_queue.view().limited_by, LimitedBy::Watch);
    role_queue.now += TIGHT_FOR;
    assert_eq!(role_queue.view().limited_by, LimitedBy::SlowStart);
    role_queue.work(300);
    role_queue.limiter.set_limit(Some(10), Some(ms(10_000)), role_queue.now);
    role_queue.now += ms(1000);
    assert_eq!(role_queue.view().limited_by, LimitedBy::Ramp);
    role_queue.now += ms(10_000);
    assert_eq!((role_queue.view().effective, role_queue.view().limited_by), (10, LimitedBy::Limit));
    role_queue.limiter.set_share(FleetShare::Part { rank: 0, of: 2 }, None, role_queue.now);
    assert_eq!(role_queue.view().limited_by, LimitedBy::Fleet);
    role_queue.limiter.set_limit(None, None, role_queue.now);
    let off = RoleQueueSettings { mode: AdmissionMode::Off, transactions_max: None, ..rules() };
    assert_eq!(TestQueue::new(off).view().limited_by, LimitedBy::Pool);
}
