//! The effect of a role's limit on its waiters, and how roles share a database.

use super::*;
use crate::admission::fleet_share::FleetShare;
use crate::admission::limiter::LimiterState;
use crate::config::{AdmissionMode, Jitter, Priority, RateWhen, RoleQueueSettings, RoleRate};

fn settings(max: Option<u32>) -> RoleQueueSettings {
    RoleQueueSettings { transactions_max: max, jitter: Jitter::Off, ..RoleQueueSettings::default() }
}

impl Shell {
    /// A role with a pool in each of so many databases.
    fn role_queue(
        &mut self,
        settings: RoleQueueSettings,
        databases: usize,
        limits: &PoolLimits,
    ) -> (RoleQueueId, Vec<PoolId>) {
        let role_queue = self.core.add_role_queue(settings, self.now);
        let pools = (0..databases).map(|_| {
            let database = self.core.add_database(DatabaseLimits { backends_max: None, connect_timeout: ms(5000) });
            self.core.add_pool(database, Some(role_queue), limits.clone()).expect("just added")
        });
        (role_queue, pools.collect())
    }

    fn one_role_queue(max: Option<u32>) -> (Self, RoleQueueId, PoolId) {
        let mut shell = Self::new(None);
        let (role_queue, pools) = shell.role_queue(settings(max), 1, &limits(100));
        (shell, role_queue, pools[0])
    }

    fn limiter(&self, role_queue: RoleQueueId) -> crate::admission::limiter::LimiterView {
        self.core.role_queue(role_queue, self.now).expect("it is there").limiter
    }

    /// Everybody asks, dials succeed, and each client that is served holds its backend.
    fn crowd(&mut self, pool: PoolId, count: usize) -> (Vec<Held>, Vec<Ticket>) {
        let tickets = (0..count).map(|_| self.wait(pool)).collect();
        self.served_of(tickets)
    }

    /// Those who have been served by now, and those who still wait.
    fn served_of(&mut self, tickets: Vec<Ticket>) -> (Vec<Held>, Vec<Ticket>) {
        while !self.dials.is_empty() {
            self.open_dials();
        }
        let (mut held, mut waiting) = (Vec::new(), Vec::new());
        for ticket in tickets {
            match self.poll(ticket) {
                Progress::Ready(slot, backend) => held.push((slot, backend)),
                Progress::Pending | Progress::Waits { .. } => waiting.push(ticket),
                Progress::Failed(error) => panic!("{error}"),
            }
        }
        (held, waiting)
    }

    fn limit(&mut self, role_queue: RoleQueueId, max: Option<u32>, over: Option<Duration>) {
        self.run(|core, now, out| core.limit_role_queue(role_queue, (max, over), now, now, out));
    }
}

#[test]
fn one_limit_holds_over_all_databases_of_a_role() {
    let mut shell = Shell::new(None);
    let (role_queue, pools) = shell.role_queue(settings(Some(3)), 2, &limits(100));
    let (mut held, waiting_first) = shell.crowd(pools[0], 2);
    let (more, waiting) = shell.crowd(pools[1], 5);
    assert_eq!((held.len(), waiting_first.len(), more.len(), waiting.len()), (2, 0, 1, 4));
    assert_eq!(shell.limiter(role_queue).active, 3);
    // A transaction that ends in one database lets somebody start in the other.
    shell.release(held.remove(0));
    let (next, waiting) = shell.served_of(waiting);
    assert_eq!((next.len(), waiting.len(), shell.limiter(role_queue).active), (1, 3, 3));
}

#[test]
fn no_more_is_dialled_than_the_role_may_use() {
    let (mut shell, _, pool) = Shell::one_role_queue(Some(3));
    shell.crowd(pool, 50);
    assert_eq!(shell.dialled, 3);
}

#[test]
fn lowering_drains_and_raising_admits_at_once() {
    let (mut shell, role_queue, pool) = Shell::one_role_queue(Some(5));
    let (held, waiting) = shell.crowd(pool, 20);
    assert_eq!(held.len(), 5);
    shell.run(|core, now, out| core.set_role_queue(role_queue, settings(Some(2)), now, out));
    for lease in held {
        shell.release(lease);
    }
    let (held, waiting) = shell.served_of(waiting);
    assert_eq!((held.len(), shell.limiter(role_queue).active), (2, 2));
    shell.run(|core, now, out| core.set_role_queue(role_queue, settings(Some(7)), now, out));
    let (more, _) = shell.served_of(waiting);
    assert_eq!((more.len(), shell.limiter(role_queue).active), (5, 7));
}

#[test]
fn a_closed_gate_lets_nobody_start_and_says_so() {
    let (mut shell, role_queue, pool) = Shell::one_role_queue(Some(0));
    let (held, waiting) = shell.crowd(pool, 10);
    assert_eq!((held.len(), shell.dialled, shell.limiter(role_queue).state), (0, 0, LimiterState::Closed));
    shell.limit(role_queue, Some(3), None);
    let (held, _) = shell.served_of(waiting);
    assert_eq!((held.len(), shell.limiter(role_queue).state), (3, LimiterState::Calm));
}

#[test]
fn a_limit_over_time_lets_in_linearly_from_initial() {
    let (mut shell, role_queue, pool) = Shell::one_role_queue(Some(0));
    let off = RoleQueueSettings { mode: AdmissionMode::Off, ..settings(Some(0)) };
    shell.run(|core, now, out| core.set_role_queue(role_queue, off, now, out));
    let (_, mut waiting) = shell.crowd(pool, 100);
    shell.limit(role_queue, Some(68), Some(ms(60_000)));
    let mut active = Vec::new();
    for _ in 0..4 {
        let served = shell.served_of(waiting);
        waiting = served.1;
        active.push(shell.limiter(role_queue).active);
        shell.pass(ms(20_000));
    }
    assert_eq!(active, [8, 28, 48, 68]);
    assert_eq!(shell.limiter(role_queue).moves_until, None);
}

#[test]
fn a_limit_of_the_console_holds_until_the_configured_one_changes() {
    let (mut shell, role_queue, _) = Shell::one_role_queue(Some(40));
    shell.limit(role_queue, Some(5), None);
    let same = RoleQueueSettings { notice_after: ms(7), ..settings(Some(40)) };
    shell.run(|core, now, out| core.set_role_queue(role_queue, same, now, out));
    assert_eq!(shell.limiter(role_queue).limit, Some(5));
    shell.run(|core, now, out| core.set_role_queue(role_queue, settings(Some(30)), now, out));
    assert_eq!(shell.limiter(role_queue).limit, Some(30));
    shell.limit(role_queue, None, None);
    assert_eq!(shell.limiter(role_queue).limit, None);
    shell.run(|core, now, out| core.unlimit_role_queue(role_queue, now, out));
    assert_eq!(shell.limiter(role_queue).limit, Some(30));
}

#[test]
fn waiters_for_a_database_that_is_down_keep_no_permit_from_another() {
    let mut shell = Shell::new(None);
    let (role_queue, pools) = shell.role_queue(settings(Some(4)), 2, &limits(100));
    for _ in 0..20 {
        shell.wait(pools[0]);
    }
    shell.fail_dials(FailureKind::Unreachable);
    let (held, waiting) = shell.crowd(pools[1], 6);
    assert_eq!((held.len(), waiting.len(), shell.limiter(role_queue).active), (4, 2, 4));
}

#[test]
fn a_permit_is_free_only_when_the_backend_is() {
    let (mut shell, role_queue, pool) = Shell::one_role_queue(Some(1));
    let (held, waiting) = shell.crowd(pool, 2);
    let slot = held[0].0;
    shell.core.discard(slot);
    let (served, waiting) = shell.served_of(waiting);
    assert_eq!((served.len(), shell.limiter(role_queue).active), (0, 1), "its query may still run");
    shell.run(|core, now, out| core.closed(slot, now, out));
    let (served, _) = shell.served_of(waiting);
    assert_eq!((served.len(), shell.limiter(role_queue).active), (1, 1));
}

#[test]
fn the_permit_of_one_who_left_goes_to_the_next() {
    let (mut shell, role_queue, pool) = Shell::one_role_queue(Some(1));
    let (mut held, waiting) = shell.crowd(pool, 3);
    shell.release(held.remove(0));
    // The first has been handed a backend and leaves without it; the second leaves the queue.
    shell.run(|core, now, out| core.drop_ticket(waiting[0], now, out));
    let (served, _) = shell.served_of(vec![waiting[1]]);
    assert_eq!((served.len(), shell.limiter(role_queue).active, shell.limiter(role_queue).waiting), (1, 1, 0));
}

#[test]
fn who_is_too_many_in_the_roles_line_is_told_a_little_later() {
    let (mut shell, role_queue, pool) = Shell::one_role_queue(Some(1));
    let short = RoleQueueSettings { waiters_max: Some(2), ..settings(Some(1)) };
    shell.run(|core, now, out| core.set_role_queue(role_queue, short, now, out));
    shell.crowd(pool, 1);
    shell.crowd(pool, 2);
    let refused = shell.wait(pool);
    shell.pass(ms(400));
    shell.pending(refused);
    shell.pass(ms(700));
    shell.failed(refused, WaitError::RoleFull { waiting: 2 });
    assert_eq!(shell.limiter(role_queue).counters.refused_full, 1);
}

#[test]
fn a_line_that_would_take_too_long_is_not_joined() {
    let mut shell = Shell::new(None);
    let impatient = PoolLimits { wait_timeout: Some(ms(2000)), waiters_max: u32::MAX, ..limits(100) };
    let (role_queue, pools) = shell.role_queue(settings(Some(1)), 1, &impatient);
    let (mut held, mut waiting) = shell.crowd(pools[0], 1);
    // 50 transactions a second.
    for _ in 0..150 {
        waiting.push(shell.wait(pools[0]));
        shell.now += ms(20);
        shell.release(held.remove(0));
        (held, waiting) = shell.served_of(waiting);
    }
    for _ in 0..150 {
        shell.wait(pools[0]);
    }
    assert_eq!(shell.limiter(role_queue).waiting, 150, "expected to take 3 s, within 1.5 times what they wait");
    let refused = shell.wait(pools[0]);
    shell.pass(ms(300));
    let Progress::Failed(WaitError::Shed { waiting: 150, expected }) = shell.poll(refused) else {
        panic!("it joined the queue")
    };
    assert!((2900..3200).contains(&expected.as_millis()), "{expected:?}");
}

#[test]
fn who_waited_in_vain_is_told_for_what() {
    for (max, size, expected) in
        [(Some(0), 100, Bottleneck::Closed), (Some(1), 100, Bottleneck::Role), (None, 1, Bottleneck::Pool)]
    {
        let mut shell = Shell::new(None);
        let limits = PoolLimits { wait_timeout: Some(ms(1000)), ..limits(size) };
        let (role_queue, pools) = shell.role_queue(settings(max), 1, &limits);
        let (_held, _) = shell.crowd(pools[0], max.unwrap_or(1) as usize);
        let waiter = shell.wait(pools[0]);
        shell.pass(ms(899));
        shell.pending(waiter);
        shell.pass(ms(202));
        shell.failed(waiter, WaitError::TimedOut(expected));
        assert_eq!(shell.limiter(role_queue).counters.timed_out, 1);
    }
}

#[test]
fn who_came_together_does_not_leave_together() {
    let mut shell = Shell::new(None);
    let limits = PoolLimits { wait_timeout: Some(ms(1000)), ..limits(1) };
    let (role_queue, pools) = shell.role_queue(settings(None), 1, &limits);
    shell.crowd(pools[0], 101);
    shell.pass(ms(1000));
    let waiting = shell.limiter(role_queue).waiting;
    assert!((30..70).contains(&waiting), "{waiting} of 100 are left at the time-out");
    shell.pass(ms(101));
    assert_eq!(shell.limiter(role_queue).waiting, 0);
}

#[test]
fn who_waits_long_is_told_once() {
    let (mut shell, _, pool) = Shell::one_role_queue(Some(1));
    let (_held, waiting) = shell.crowd(pool, 3);
    shell.pass(ms(4900));
    shell.pending(waiting[0]);
    shell.pass(ms(100));
    assert!(matches!(shell.poll(waiting[0]), Progress::Waits { waiting: 2 }));
    shell.pass(ms(5000));
    shell.pending(waiting[0]);
}

#[test]
fn a_server_that_is_back_gets_the_role_slowly() {
    let mut shell = Shell::new(None);
    let ramped = RoleQueueSettings { ramp: Some(ms(10_000)), ..settings(Some(48)) };
    let (role_queue, pools) = shell.role_queue(ramped, 1, &limits(100));
    shell.pass(ms(10_000));
    assert_eq!(shell.limiter(role_queue).limit, Some(48));
    let (held, waiting) = shell.crowd(pools[0], 30);
    for lease in held {
        shell.release(lease);
    }
    let (held, waiting) = shell.served_of(waiting);
    assert!(shell.limiter(role_queue).effective > 8, "it has grown");
    // The server goes, and comes back.
    for (slot, _) in held {
        shell.core.discard(slot);
        shell.run(|core, now, out| core.closed(slot, now, out));
    }
    shell.fail_dials(FailureKind::Unreachable);
    shell.pass(ms(1000));
    let (held, _) = shell.served_of(waiting);
    assert_eq!((held.len(), shell.limiter(role_queue).effective), (8, 8));
    assert!(shell.limiter(role_queue).moves_until.is_some(), "its ramp has begun again");
}

#[test]
fn a_rate_lets_in_one_after_the_other_and_nobody_later_than_its_longest_delay() {
    let mut shell = Shell::new(None);
    let rate = RoleRate { per_second: 10.0, burst: 2, delay_max: ms(1000), when: RateWhen::Always };
    let paced = RoleQueueSettings { rate: Some(rate), ..settings(Some(50)) };
    let (role_queue, pools) = shell.role_queue(RoleQueueSettings { initial: 50, ..paced }, 1, &limits(100));
    let (first, mut waiting) = shell.crowd(pools[0], 40);
    assert_eq!(first.len(), 2);
    let (start, mut starts) = (shell.now, Vec::new());
    while !waiting.is_empty() {
        shell.now = shell.alarms.drain(..).min().expect("somebody is held up").max(shell.now);
        shell.run(|core, now, out| core.alarm(now, out));
        let (held, rest) = shell.served_of(waiting);
        waiting = rest;
        starts.extend(held.iter().map(|_| (shell.now - start).as_millis()));
    }
    assert_eq!(starts[..9], [100, 200, 300, 400, 500, 600, 700, 800, 900]);
    assert_eq!(starts.last(), Some(&1000));
    assert!(shell.limiter(role_queue).counters.overdue >= 28, "{:?}", shell.limiter(role_queue).counters);
}

#[test]
fn in_a_burst_spread_holds_everybody_back_for_a_moment_of_their_own() {
    let mut shell = Shell::new(None);
    let spread = RoleQueueSettings { jitter: Jitter::Spread, initial: 100, ..settings(None) };
    let (role_queue, pools) = shell.role_queue(spread, 1, &limits(100));
    let (held, mut waiting) = shell.crowd(pools[0], 90);
    assert_eq!(
        (held.len(), shell.limiter(role_queue).state),
        (49, LimiterState::Burst),
        "the fiftieth makes it a burst"
    );
    let mut by_then = Vec::new();
    for _ in 0..10 {
        shell.pass(ms(100));
        let (held, rest) = shell.served_of(waiting);
        waiting = rest;
        by_then.push(held.len());
    }
    assert!(waiting.is_empty() && by_then.iter().all(|served| *served < 15), "{by_then:?}");
}

#[test]
fn mode_off_keeps_the_limit_and_nothing_else() {
    let (mut shell, role_queue, pool) = Shell::one_role_queue(Some(60));
    let off = RoleQueueSettings { mode: AdmissionMode::Off, ..settings(Some(60)) };
    shell.run(|core, now, out| core.set_role_queue(role_queue, off, now, out));
    let (held, _) = shell.crowd(pool, 80);
    assert_eq!(held.len(), 60);
}

// Order of roles in a database

/// Roles that always have more to do than slots, in one database; returns how much each was served in some seconds.
fn contest(backends_max: u32, shares: &[Share]) -> Vec<u32> {
    let mut shell = Shell::new(None);
    let limits_of = |share: &Share| PoolLimits { share: *share, ..limits(100) };
    let (database, _) = shell.database(Some(backends_max), &[]);
    let pools: Vec<_> =
        shares.iter().map(|share| shell.core.add_pool(database, None, limits_of(share)).expect("just added")).collect();
    let mut tickets: Vec<(usize, Ticket)> = Vec::new();
    let (mut held, mut served): (Vec<(usize, Held)>, _) = (Vec::new(), vec![0; pools.len()]);
    for round in 0..400 {
        for (i, pool) in pools.iter().enumerate() {
            while tickets.iter().filter(|(of, _)| *of == i).count() < 30 {
                match shell.lease(*pool) {
                    LeaseAnswer::Ready(slot, backend) => held.push((i, (slot, backend))),
                    LeaseAnswer::Wait(ticket) => tickets.push((i, ticket)),
                    LeaseAnswer::Failed(error) => panic!("{error}"),
                }
            }
        }
        shell.pass(ms(20));
        shell.finish_closes();
        shell.open_dials();
        for (i, ticket) in std::mem::take(&mut tickets) {
            match shell.poll(ticket) {
                Progress::Ready(slot, backend) => held.push((i, (slot, backend))),
                _ => tickets.push((i, ticket)),
            }
        }
        for (i, lease) in std::mem::take(&mut held) {
            served[i] += u32::from(round >= 100);
            shell.release(lease);
        }
    }
    served
}

fn share(priority: Priority, weight: u32, reserved: u32) -> Share {
    Share { priority, weight, reserved }
}

fn parts(served: &[u32]) -> Vec<f64> {
    let all: u32 = served.iter().sum();
    served.iter().map(|n| f64::from(*n) / f64::from(all)).collect()
}

#[test]
fn roles_have_parts_by_weight() {
    let served = contest(16, &[share(Priority::Interactive, 3, 0), share(Priority::Interactive, 1, 0)]);
    let parts = parts(&served);
    assert!((parts[0] - 0.75).abs() < 0.075, "{parts:?}");
}

#[test]
fn batch_has_one_in_eight_while_interactive_wants_all() {
    let served = contest(16, &[share(Priority::Interactive, 1, 0), share(Priority::Batch, 100, 0)]);
    let parts = parts(&served);
    assert!((parts[1] - 0.125).abs() < 0.0125, "{parts:?}");
}

#[test]
fn batch_has_everything_that_nobody_else_wants() {
    let mut shell = Shell::new(None);
    let (_, pools) = shell.database(Some(8), &[100, 100]);
    let batch = PoolLimits { share: share(Priority::Batch, 1, 0), ..limits(100) };
    shell.run(|core, now, out| core.set_pool(pools[1], batch, now, out));
    let (held, _) = shell.crowd(pools[1], 20);
    assert_eq!(held.len(), 8);
}

#[test]
fn what_is_reserved_is_never_lent() {
    let mut shell = Shell::new(None);
    let (_, pools) = shell.database(Some(6), &[100, 100]);
    let reserving = PoolLimits { share: share(Priority::Interactive, 1, 2), ..limits(100) };
    shell.run(|core, now, out| core.set_pool(pools[0], reserving, now, out));
    let (held, _) = shell.crowd(pools[1], 20);
    assert_eq!(held.len(), 4);
    let (reserved, waiting) = shell.crowd(pools[0], 3);
    assert_eq!((reserved.len(), waiting.len()), (2, 1), "at once, though the other wants everything");
}

#[test]
fn a_ramp_cut_short_lets_in_whom_it_held_up() {
    let mut shell = Shell::new(None);
    let ramping =
        RoleQueueSettings { ramp: Some(ms(10_000)), initial: 1, mode: AdmissionMode::Off, ..settings(Some(4)) };
    let (role_queue, pools) = shell.role_queue(ramping, 1, &limits(100));
    let (held, waiting) = shell.crowd(pools[0], 4);
    assert_eq!((held.len(), waiting.len()), (1, 3));
    shell.run(|core, now, out| core.ramp_role_queue(role_queue, ms(0), now, now, out));
    assert_eq!(shell.served_of(waiting).0.len(), 3);
}

#[test]
fn a_role_that_nobody_uses_is_forgotten_unless_the_console_gave_it_a_limit() {
    let mut shell = Shell::new(None);
    let (role_queue, pools) = shell.role_queue(settings(Some(4)), 1, &limits(100));
    assert!(!shell.core.forget_role_queue(role_queue), "it has a pool");
    shell.run(|core, now, out| core.remove_pool(pools[0], now, out));
    shell.limit(role_queue, Some(2), None);
    assert!(!shell.core.forget_role_queue(role_queue), "the limit would be lost");
    shell.run(|core, now, out| core.unlimit_role_queue(role_queue, now, out));
    assert!(shell.core.forget_role_queue(role_queue));
}

#[test]
fn a_part_of_the_fleets_limits_holds_for_roles_databases_and_all() {
    let mut shell = Shell::new(Some(8));
    let (role_queue, pools) = shell.role_queue(settings(Some(5)), 1, &limits(100));
    shell.run(|core, now, out| core.set_parts(FleetParts::all(FleetShare::Part { rank: 1, of: 2 }), now, out));
    let (mut held, waiting) = shell.crowd(pools[0], 10);
    assert_eq!((held.len(), shell.limiter(role_queue).effective, shell.limiter(role_queue).limit), (2, 2, Some(5)));
    // LIMIT says the fleet's limit; the bound over all is in parts, too.
    shell.limit(role_queue, Some(100), None);
    let (more, waiting) = shell.served_of(waiting);
    held.extend(more);
    assert_eq!(held.len(), 4);
    // The other has gone.
    shell.run(|core, now, out| core.set_parts(FleetParts::all(FleetShare::Part { rank: 0, of: 1 }), now, out));
    assert_eq!(shell.served_of(waiting).0.len(), 4);
}
