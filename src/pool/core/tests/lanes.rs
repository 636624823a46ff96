//! Lanes: transactions of one kind that have a limiter beside that of their role.

use super::*;
use crate::admission::limiter::LimiterView;
use crate::config::{Priority, RoleQueueSettings};

/// Nothing but a limit.
fn limited(max: u32) -> RoleQueueSettings {
    RoleQueueSettings { transactions_max: Some(max), ..RoleQueueSettings::open() }
}

/// A pool of so many open backends, and a lane with this limit.
fn shell(size: u32, max: u32, rules: LaneRules) -> (Shell, PoolId, RoleQueueId) {
    let (mut shell, _, pool) = Shell::with_pool(size);
    shell.core.set_pool(
        pool,
        PoolLimits { wait_timeout: Some(ms(10_000)), ..limits(size) },
        shell.now,
        &mut Vec::new(),
    );
    let lane = shell.core.add_lane(limited(max), rules, shell.now);
    let tickets: Vec<_> = (0..size).map(|_| shell.wait(pool)).collect();
    shell.open_dials();
    let held: Vec<_> = tickets.into_iter().map(|ticket| shell.served(ticket)).collect();
    held.into_iter().for_each(|held| shell.release(held));
    (shell, pool, lane)
}

impl Shell {
    fn lease_in(&mut self, pool: PoolId, lane: RoleQueueId) -> LeaseAnswer<u32> {
        self.run(|core, now, out| core.lease_in(Some(lane), pool, OWN, now, Waker::noop(), out))
    }

    #[track_caller]
    fn ready_in(&mut self, pool: PoolId, lane: RoleQueueId) -> Held {
        match self.lease_in(pool, lane) {
            LeaseAnswer::Ready(slot, backend) => (slot, backend),
            other => panic!("no idle backend: {other:?}"),
        }
    }

    #[track_caller]
    fn wait_in(&mut self, pool: PoolId, lane: RoleQueueId) -> Ticket {
        match self.lease_in(pool, lane) {
            LeaseAnswer::Wait(ticket) => ticket,
            other => panic!("not waiting: {other:?}"),
        }
    }

    fn lane(&self, lane: RoleQueueId) -> LimiterView {
        self.core.role_queue(lane, self.now).expect("it is there").limiter
    }
}

#[test]
fn a_full_lane_holds_up_nobody_but_itself() {
    let (mut shell, pool, lane) = shell(4, 1, LaneRules::default());
    let first = shell.ready_in(pool, lane);
    let second = shell.wait_in(pool, lane);
    // Somebody waits in the pool, but it cannot be his turn.
    shell.ready(pool);
    shell.pending(second);
    assert_eq!((shell.lane(lane).active, shell.lane(lane).waiting), (1, 1));
    shell.release(first);
    shell.served(second);
}

#[test]
fn a_wait_for_the_lane_and_for_a_backend_is_one_wait_with_one_deadline() {
    let (mut shell, pool, lane) = shell(1, 1, LaneRules::default());
    let first = shell.ready_in(pool, lane);
    let waits = shell.wait_in(pool, lane);
    shell.pass(ms(8_000));
    // The lane has room again, the pool has not.
    shell.run(|core, now, out| core.set_lane(lane, limited(5), LaneRules::default(), now, out));
    shell.pending(waits);
    shell.pass(ms(3_100));
    shell.failed(waits, WaitError::TimedOut(Bottleneck::Pool));
    shell.release(first);
}

#[test]
fn a_lane_has_a_wait_timeout_of_its_own() {
    let (mut shell, pool, lane) = shell(2, 1, LaneRules { wait_timeout: Some(ms(1_000)), ..LaneRules::default() });
    let _first = shell.ready_in(pool, lane);
    let waits = shell.wait_in(pool, lane);
    shell.pass(ms(1_200));
    shell.failed(waits, WaitError::TimedOut(Bottleneck::Lane));
    assert_eq!(shell.lane(lane).counters.timed_out, 1);
}

#[test]
fn the_end_of_a_transaction_serves_its_lane_in_other_pools() {
    let mut shell = Shell::new(None);
    let (_, pools) = shell.database(None, &[2, 2]);
    let lane = shell.core.add_lane(limited(1), LaneRules::default(), shell.now);
    let first = shell.wait_in(pools[0], lane);
    shell.open_dials();
    let first = shell.served(first);
    let second = shell.wait_in(pools[1], lane);
    assert!(shell.dials.is_empty(), "nothing is dialled for one who may not start");
    shell.release(first);
    shell.open_dials();
    shell.served(second);
}

#[test]
fn a_lane_that_refuses_lets_nobody_wait_for_it() {
    let (mut shell, pool, lane) = shell(2, 1, LaneRules { refuses: true, ..LaneRules::default() });
    let first = shell.ready_in(pool, lane);
    let refused = shell.wait_in(pool, lane);
    shell.pass(ms(2_000));
    shell.failed(refused, WaitError::LaneFull { waiting: 0 });
    shell.release(first);
    shell.ready_in(pool, lane);
}

#[test]
fn a_lane_that_ends_lets_its_waiters_go() {
    let (mut shell, pool, lane) = shell(2, 0, LaneRules::default());
    let waits = shell.wait_in(pool, lane);
    shell.run(|core, now, out| core.remove_lane(lane, now, out));
    shell.served(waits);
    assert_eq!(shell.core.role_queue(lane, shell.now), None);
}

#[test]
fn a_batch_lane_lets_others_go_first() {
    let share = LineShare { priority: Priority::Batch, weight: 1 };
    let (mut shell, pool, lane) = shell(1, 5, LaneRules { share, ..LaneRules::default() });
    let holder = shell.ready(pool);
    let batch = shell.wait_in(pool, lane);
    let other = shell.wait(pool);
    shell.release(holder);
    let held = shell.served(other);
    shell.pending(batch);
    shell.release(held);
    shell.served(batch);
}
