//! One rule a test. A shell without sockets executes the commands when the test says so.

mod lanes;
mod readers;
mod role_queues;

use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::endpoint::DIALS_MAX;
use super::lines::LineShare;
use super::*;
use crate::admission::limiter::LeaseScope;
use crate::config::Share;

const OWN: usize = 0;
const OTHER: usize = 1;

struct Shell {
    core: Core<u32>,
    now: Instant,
    dials: Vec<(PoolId, SlotId)>,
    closes: Vec<(SlotId, u32)>,
    alarms: Vec<Instant>,
    dialled: u32,
}

type Held = (SlotId, u32);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn limits(size: u32) -> PoolLimits {
    PoolLimits {
        size,
        waiters_max: 1000,
        wait_timeout: None,
        idle_timeout: None,
        lifetime: None,
        lease_scope: LeaseScope::Transaction,
        share: Share::default(),
    }
}

impl Shell {
    fn new(total_max: Option<u32>) -> Self {
        Self {
            core: Core::new(2, total_max, 7),
            now: Instant::now(),
            dials: Vec::new(),
            closes: Vec::new(),
            alarms: Vec::new(),
            dialled: 0,
        }
    }

    /// A database with one pool per size.
    fn database(&mut self, backends_max: Option<u32>, sizes: &[u32]) -> (DatabaseId, Vec<PoolId>) {
        let database = self.core.add_database(DatabaseLimits { backends_max, connect_timeout: ms(5000) });
        let pools =
            sizes.iter().map(|size| self.core.add_pool(database, None, limits(*size)).expect("just added")).collect();
        (database, pools)
    }

    /// A shell with one unbounded database and one pool.
    fn with_pool(size: u32) -> (Self, DatabaseId, PoolId) {
        let mut shell = Self::new(None);
        let (database, pools) = shell.database(None, &[size]);
        (shell, database, pools[0])
    }

    fn run<R>(&mut self, act: impl FnOnce(&mut Core<u32>, Instant, &mut Vec<Command<u32>>) -> R) -> R {
        let mut out = Vec::new();
        let result = act(&mut self.core, self.now, &mut out);
        for command in out {
            match command {
                Command::Dial { pool, slot, .. } => {
                    self.dialled += 1;
                    self.dials.push((pool, slot));
                }
                Command::Close { slot, backend } => self.closes.push((slot, backend)),
                Command::Wake(waker) => waker.wake(),
                Command::Alarm(then) => self.alarms.push(then),
            }
        }
        result
    }

    fn lease(&mut self, pool: PoolId) -> LeaseAnswer<u32> {
        self.run(|core, now, out| core.lease(pool, OWN, now, Waker::noop(), out))
    }

    #[track_caller]
    fn ready(&mut self, pool: PoolId) -> Held {
        match self.lease(pool) {
            LeaseAnswer::Ready(slot, backend) => (slot, backend),
            other => panic!("no idle backend: {other:?}"),
        }
    }

    #[track_caller]
    fn wait(&mut self, pool: PoolId) -> Ticket {
        match self.lease(pool) {
            LeaseAnswer::Wait(ticket) => ticket,
            other => panic!("not waiting: {other:?}"),
        }
    }

    fn poll(&mut self, ticket: Ticket) -> Progress<u32> {
        self.core.poll_ticket(ticket, Waker::noop())
    }

    #[track_caller]
    fn served(&mut self, ticket: Ticket) -> Held {
        match self.poll(ticket) {
            Progress::Ready(slot, backend) => (slot, backend),
            other => panic!("not served: {other:?}"),
        }
    }

    #[track_caller]
    fn pending(&mut self, ticket: Ticket) {
        assert!(matches!(self.poll(ticket), Progress::Pending));
    }

    #[track_caller]
    fn failed(&mut self, ticket: Ticket, expected: WaitError) {
        assert!(matches!(self.poll(ticket), Progress::Failed(error) if error == expected));
    }

    fn release(&mut self, held: Held) {
        self.release_on(OWN, held);
    }

    fn release_on(&mut self, worker: usize, (slot, backend): Held) {
        self.run(|core, now, out| core.release(slot, backend, worker, now, out));
    }

    fn open_dials(&mut self) {
        while let Some((_, slot)) = self.dials.pop() {
            let backend = self.dialled * 100 + self.dials.len() as u32;
            self.run(|core, now, out| core.opened(slot, backend, OWN, now, out));
        }
    }

    fn fail_dials(&mut self, kind: FailureKind) {
        for (_, slot) in std::mem::take(&mut self.dials) {
            self.run(|core, now, out| core.failed(slot, kind, now, out));
        }
    }

    fn finish_closes(&mut self) {
        for (slot, _) in std::mem::take(&mut self.closes) {
            self.run(|core, now, out| core.closed(slot, now, out));
        }
    }

    fn pass(&mut self, by: Duration) {
        self.now += by;
        self.run(|core, now, out| core.tick(now, out));
    }

    /// Opens `count` backends of a pool and holds them.
    fn hold(&mut self, pool: PoolId, count: usize) -> Vec<Held> {
        let tickets: Vec<_> = (0..count).map(|_| self.wait(pool)).collect();
        self.open_dials();
        tickets.into_iter().map(|ticket| self.served(ticket)).collect()
    }

    fn counts(&self, pool: PoolId) -> SlotCounts {
        self.core.pool(pool).expect("it is there").counts
    }
}

// Leasing

#[test]
fn last_used_backend_of_the_own_worker_is_leased_first() {
    let (mut shell, _, pool) = Shell::with_pool(3);
    let held = shell.hold(pool, 3);
    shell.release_on(OWN, held[0]);
    shell.release_on(OWN, held[1]);
    shell.release_on(OTHER, held[2]);
    assert_eq!(shell.ready(pool), held[1]);
    assert_eq!(shell.ready(pool), held[0]);
    assert_eq!(shell.ready(pool), held[2], "then another worker's");
}

#[test]
fn waiter_is_served_before_newcomer() {
    let (mut shell, _, pool) = Shell::with_pool(1);
    let held = shell.hold(pool, 1);
    let first = shell.wait(pool);
    shell.release(held[0]);
    let newcomer = shell.wait(pool);
    assert_eq!(shell.served(first), held[0]);
    shell.pending(newcomer);
}

#[test]
fn backend_handed_to_a_waiter_as_the_epoch_ends_is_not_lent() {
    let (mut shell, database, pool) = Shell::with_pool(1);
    let first = shell.wait(pool);
    shell.open_dials();
    let held = shell.served(first);
    let (second, third) = (shell.wait(pool), shell.wait(pool));
    shell.release(held);
    // Handed to the second, which has not picked it up.
    shell.run(|core, now, out| core.unprove(database, now, out));
    shell.pending(second);
    assert_eq!(shell.core.pool(pool).expect("there").waiting, 2);
    shell.run(|core, now, out| core.prove(database, ServerEpoch::Same, now, out));
    // Handed again; this time another server takes over without a gap.
    shell.run(|core, now, out| core.prove(database, ServerEpoch::New, now, out));
    assert_eq!(shell.closes.len(), 1, "the backend of the former primary");
    shell.pending(second);
    shell.finish_closes();
    shell.open_dials();
    let held = shell.served(second);
    shell.pending(third);
    shell.release(held);
    shell.served(third);
}

#[test]
fn backend_handed_to_a_client_that_left_goes_to_the_next_in_line() {
    let (mut shell, _, pool) = Shell::with_pool(1);
    let held = shell.hold(pool, 1);
    let (first, second) = (shell.wait(pool), shell.wait(pool));
    shell.release(held[0]);
    shell.run(|core, now, out| core.drop_ticket(first, now, out));
    assert_eq!(shell.served(second), held[0]);
}

#[test]
fn order_survives_hundreds_who_leave_from_the_middle() {
    let (mut shell, _, pool) = Shell::with_pool(1);
    let held = shell.hold(pool, 1);
    let tickets: Vec<_> = (0..900).map(|_| shell.wait(pool)).collect();
    for (i, ticket) in tickets.iter().enumerate() {
        if i % 10 != 3 {
            shell.run(|core, now, out| core.drop_ticket(*ticket, now, out));
        }
    }
    assert_eq!(shell.core.pool(pool).expect("it is there").waiting, 90);
    for ticket in tickets.into_iter().skip(3).step_by(10) {
        shell.release(held[0]);
        assert_eq!(shell.served(ticket), held[0]);
    }
}

#[test]
fn line_has_an_end() {
    let (mut shell, _, pool) = Shell::with_pool(1);
    let short = PoolLimits { waiters_max: 2, ..limits(1) };
    shell.run(|core, now, out| core.set_pool(pool, short, now, out));
    shell.wait(pool);
    shell.wait(pool);
    let third = shell.wait(pool);
    shell.pass(ms(400));
    shell.pending(third);
    shell.pass(ms(700));
    shell.failed(third, WaitError::PoolFull { waiting: 2 });
}

#[test]
fn what_is_given_back_under_a_stale_id_is_closed() {
    let (mut shell, _, pool) = Shell::with_pool(1);
    let (slot, backend) = shell.hold(pool, 1)[0];
    shell.run(|core, now, out| core.closed(slot, now, out));
    shell.release((slot, backend));
    assert_eq!(shell.closes, [(slot, backend)]);
    shell.finish_closes();
    assert_eq!(shell.core.total(), SlotCounts::default());
}

// Dialling

#[test]
fn no_more_is_dialled_than_waiters_need_and_pace_allows() {
    let (mut shell, _, pool) = Shell::with_pool(20);
    shell.wait(pool);
    assert_eq!(shell.dials.len(), 1);
    for _ in 0..9 {
        shell.wait(pool);
    }
    assert_eq!(shell.dials.len(), DIALS_MAX as usize);
    shell.open_dials();
    assert_eq!(shell.dialled, 10);
}

#[test]
fn slot_is_free_only_when_the_socket_is_really_closed() {
    let (mut shell, _, pool) = Shell::with_pool(1);
    let (slot, _) = shell.hold(pool, 1)[0];
    let ticket = shell.wait(pool);
    shell.core.discard(slot);
    shell.pass(ms(100));
    assert_eq!(shell.dials.len(), 0);
    shell.run(|core, now, out| core.closed(slot, now, out));
    shell.open_dials();
    shell.served(ticket);
}

#[test]
fn slot_given_up_at_work_counts_but_is_not_one_that_is_soon_free() {
    let mut shell = Shell::new(None);
    let (_, pools) = shell.database(Some(2), &[2, 2]);
    let held = shell.hold(pools[0], 2);
    shell.core.discard(held[0].0);
    let counts = shell.counts(pools[0]);
    assert_eq!((counts.zombie, counts.open(), counts.live()), (1, 2, 1));
    shell.release(held[1]);
    shell.pass(ms(2000));
    // The waiter for a slot gets the idle one's, and does not wait for the other.
    let ticket = shell.wait(pools[1]);
    assert_eq!(shell.closes, [held[1]]);
    assert_eq!(shell.dials.len(), 0);
    shell.finish_closes();
    shell.open_dials();
    shell.served(ticket);
}

#[test]
fn blip_is_not_noticed() {
    let (mut shell, _, pool) = Shell::with_pool(1);
    let ticket = shell.wait(pool);
    shell.fail_dials(FailureKind::Unreachable);
    shell.pass(ms(100));
    shell.pending(ticket);
    shell.open_dials();
    shell.served(ticket);
}

#[test]
fn waiters_of_a_down_endpoint_fail_after_connect_timeout_in_line() {
    let (mut shell, database, pool) = Shell::with_pool(1);
    let early = shell.wait(pool);
    shell.fail_dials(FailureKind::Unreachable);
    shell.pass(ms(3000));
    shell.fail_dials(FailureKind::Unreachable);
    let late = shell.wait(pool);
    shell.pass(ms(1999));
    shell.pending(early);
    shell.pass(ms(1));
    shell.failed(early, WaitError::EndpointDown);
    shell.pending(late);
    shell.pass(ms(3000));
    shell.failed(late, WaitError::EndpointDown);
    let view = shell.core.database(database).expect("it is there");
    assert!(matches!(view.endpoint, EndpointView::Down(_)));
}

#[test]
fn busy_server_fails_nobody() {
    let (mut shell, _, pool) = Shell::with_pool(1);
    let ticket = shell.wait(pool);
    for _ in 0..20 {
        shell.fail_dials(FailureKind::Busy);
        shell.pass(ms(5000));
    }
    shell.pending(ticket);
    shell.open_dials();
    shell.served(ticket);
}

#[test]
fn refused_login_fails_its_own_pool_at_once_and_no_other() {
    let mut shell = Shell::new(None);
    let (_, pools) = shell.database(None, &[1, 1]);
    let refused = shell.wait(pools[0]);
    shell.fail_dials(FailureKind::Refused);
    shell.failed(refused, WaitError::Refused);
    assert!(matches!(shell.lease(pools[0]), LeaseAnswer::Failed(WaitError::Refused)));
    shell.hold(pools[1], 1);

    shell.pass(ms(100));
    let retried = shell.wait(pools[0]);
    shell.open_dials();
    shell.served(retried);
    assert!(!shell.core.pool(pools[0]).expect("it is there").is_refused);
}

#[test]
fn refused_login_fails_nobody_while_another_backend_is_at_work() {
    let (mut shell, _, pool) = Shell::with_pool(2);
    let held = shell.hold(pool, 1);
    let ticket = shell.wait(pool);
    shell.fail_dials(FailureKind::Refused);
    shell.pending(ticket);
    shell.release(held[0]);
    assert_eq!(shell.served(ticket), held[0]);
}

// Limits

#[test]
fn raised_size_is_dialled_at_once_and_lowered_size_drains() {
    let (mut shell, _, pool) = Shell::with_pool(1);
    let held = shell.hold(pool, 1);
    let tickets = [shell.wait(pool), shell.wait(pool)];
    shell.run(|core, now, out| core.set_pool(pool, limits(3), now, out));
    shell.open_dials();
    let more = tickets.map(|ticket| shell.served(ticket));
    shell.release(held[0]);
    shell.run(|core, now, out| core.set_pool(pool, limits(1), now, out));
    assert_eq!(shell.closes, [held[0]], "idle ones close now");
    shell.release(more[0]);
    assert_eq!(shell.closes, [held[0], more[0]], "leased ones as they come back");
    shell.release(more[1]);
    assert_eq!(shell.counts(pool).idle, 1);
}

#[test]
fn removed_pool_fails_its_waiters_and_ends_with_its_last_backend() {
    let (mut shell, database, pool) = Shell::with_pool(1);
    let held = shell.hold(pool, 1);
    let ticket = shell.wait(pool);
    shell.run(|core, now, out| core.remove_database(database, now, out));
    shell.failed(ticket, WaitError::Removed);
    assert!(matches!(shell.lease(pool), LeaseAnswer::Failed(WaitError::Removed)));
    shell.release(held[0]);
    shell.finish_closes();
    assert_eq!(shell.core.pool(pool), None);
    assert_eq!(shell.core.database(database), None);
}

#[test]
fn least_recently_used_backend_makes_room_for_another_pool() {
    let mut shell = Shell::new(None);
    let (_, pools) = shell.database(Some(2), &[2, 2, 2]);
    let (older, newer) = (shell.hold(pools[0], 1)[0], shell.hold(pools[1], 1)[0]);
    shell.release(older);
    shell.now += ms(1);
    shell.release(newer);
    let ticket = shell.wait(pools[2]);
    assert_eq!(shell.closes, [older]);
    shell.finish_closes();
    shell.open_dials();
    shell.served(ticket);
}

#[test]
fn backend_its_own_pool_has_no_use_for_makes_room_as_it_comes_back() {
    let mut shell = Shell::new(None);
    let (_, pools) = shell.database(Some(1), &[1, 1]);
    let held = shell.hold(pools[0], 1)[0];
    shell.wait(pools[1]);
    assert!(shell.closes.is_empty());
    shell.release(held);
    assert_eq!(shell.closes, [held]);
}

#[test]
fn bound_over_all_evicts_across_databases() {
    let mut shell = Shell::new(Some(1));
    let (_, here) = shell.database(None, &[1]);
    let (_, there) = shell.database(None, &[1]);
    let held = shell.hold(here[0], 1)[0];
    shell.release(held);
    shell.wait(there[0]);
    assert_eq!(shell.closes, [held]);
}

#[test]
fn lowered_shared_bound_closes_what_comes_back_though_somebody_waits() {
    for over_all in [true, false] {
        let mut shell = Shell::new(None);
        let (database, pools) = shell.database(None, &[3, 3]);
        let (first, second) = (shell.hold(pools[0], 2), shell.hold(pools[1], 1));
        let ticket = shell.wait(pools[0]);
        shell.fail_dials(FailureKind::Busy);
        shell.run(|core, now, out| {
            if over_all {
                core.set_total_max(Some(1), now, out);
            } else {
                let backends_max = Some(1);
                core.set_database(database, DatabaseLimits { backends_max, connect_timeout: ms(5000) }, now, out);
            }
        });
        shell.release(first[0]);
        shell.release(second[0]);
        assert_eq!(shell.closes, [first[0], second[0]]);
        shell.release(first[1]);
        assert_eq!(shell.served(ticket), first[1]);
    }
}

// Generations and pause

#[test]
fn retired_generation_is_never_leased_again() {
    let (mut shell, database, pool) = Shell::with_pool(3);
    let held = shell.hold(pool, 2);
    shell.release(held[0]);
    let second = shell.ready(pool);
    let opening = shell.wait(pool);
    shell.release(second);
    assert_eq!(shell.served(opening), second);
    shell.release(second);
    assert_eq!(shell.dials.len(), 1);
    assert!(!shell.core.has_retired(database));

    shell.run(|core, now, out| core.retire_database(database, now, out));
    assert!(shell.core.is_retired(held[1].0) && shell.core.has_retired(database));
    assert_eq!(shell.closes, [second], "idle: now");
    shell.release(held[1]);
    assert_eq!(shell.closes.len(), 2, "leased: at release");
    shell.open_dials();
    assert_eq!(shell.closes.len(), 3, "opening: on arrival");
    let ticket = shell.wait(pool);
    shell.finish_closes();
    assert!(!shell.core.has_retired(database));
    shell.open_dials();
    shell.served(ticket);
}

#[test]
fn opening_of_a_retired_generation_is_replaced_before_it_arrives() {
    let (mut shell, _, pool) = Shell::with_pool(2);
    shell.wait(pool);
    shell.run(|core, now, out| core.retire_pool(pool, now, out));
    assert_eq!(shell.dials.len(), 2);
}

#[test]
fn pause_lets_leases_end_and_resume_serves_the_line() {
    let (mut shell, database, pool) = Shell::with_pool(2);
    let held = shell.hold(pool, 2);
    shell.core.pause(database);
    shell.release(held[0]);
    let ticket = shell.wait(pool);
    assert!(!shell.core.database(database).expect("it is there").is_drained);
    shell.release(held[1]);
    assert!(shell.core.database(database).expect("it is there").is_drained);
    shell.pass(ms(60_000));
    shell.pending(ticket);
    shell.run(|core, now, out| core.resume(database, now, out));
    shell.served(ticket);
}

#[test]
fn waiters_outlive_a_failover_during_a_pause() {
    let (mut shell, database, pool) = Shell::with_pool(1);
    let ticket = shell.wait(pool);
    shell.fail_dials(FailureKind::Unreachable);
    shell.core.pause(database);
    shell.pass(ms(60_000));
    shell.run(|core, now, out| core.resume(database, now, out));
    shell.pass(ms(100));
    shell.open_dials();
    shell.served(ticket);
}

// Age

#[test]
fn backends_born_together_do_not_die_together() {
    let (mut shell, _, pool) = Shell::with_pool(40);
    let short = PoolLimits { lifetime: Some(ms(100_000)), ..limits(40) };
    shell.run(|core, now, out| core.set_pool(pool, short, now, out));
    for held in shell.hold(pool, 40) {
        shell.release(held);
    }
    shell.pass(ms(79_000));
    assert_eq!(shell.closes.len(), 0);
    let mut most_per_second = 0;
    for _ in 0..42 {
        let before = shell.closes.len();
        (0..10).for_each(|_| shell.pass(ms(100)));
        most_per_second = most_per_second.max(shell.closes.len() - before);
    }
    assert_eq!(shell.closes.len(), 40);
    assert!(most_per_second <= 6, "{most_per_second} closed within a second");
}

#[test]
fn lowered_idle_timeout_closes_a_few_at_a_time() {
    let (mut shell, _, pool) = Shell::with_pool(40);
    for held in shell.hold(pool, 40) {
        shell.release(held);
    }
    shell.pass(ms(60_000));
    let short = PoolLimits { idle_timeout: Some(ms(1000)), ..limits(40) };
    shell.run(|core, now, out| core.set_pool(pool, short, now, out));
    for tick in 1..=10 {
        shell.pass(ms(100));
        assert_eq!(shell.closes.len(), 4 * tick);
    }
}

#[test]
fn warm_pool_has_its_backends_before_anybody_asks_and_keeps_them() {
    let (mut shell, _, pool) = Shell::with_pool(5);
    let short = PoolLimits { idle_timeout: Some(ms(1000)), ..limits(5) };
    shell.run(|core, now, out| core.set_pool(pool, short, now, out));
    shell.core.keep_warm(pool, 2);
    for opened in [1, 2, 2] {
        shell.pass(ms(100));
        shell.open_dials();
        assert_eq!(shell.counts(pool).idle, opened, "one a tick");
    }
    let mut held = vec![shell.ready(pool), shell.ready(pool)];
    held.extend(shell.hold(pool, 2));
    held.into_iter().for_each(|held| shell.release(held));
    for _ in 0..20 {
        shell.pass(ms(1000));
    }
    assert_eq!((shell.counts(pool).idle, shell.closes.len()), (2, 2), "those beyond are closed");
    shell.core.keep_warm(pool, 0);
    shell.pass(ms(100));
    assert_eq!(shell.counts(pool).idle, 0);
}

#[test]
fn backend_at_work_counts_among_those_kept_warm() {
    let (mut shell, _, pool) = Shell::with_pool(5);
    let _held = shell.hold(pool, 1);
    shell.core.keep_warm(pool, 2);
    shell.pass(ms(100));
    shell.open_dials();
    shell.pass(ms(100));
    assert_eq!((shell.dialled, shell.counts(pool).idle), (2, 1));
}

#[test]
fn nothing_is_kept_warm_at_the_cost_of_others_or_of_a_server_in_trouble() {
    let mut shell = Shell::new(Some(2));
    let (database, pools) = shell.database(None, &[1, 5]);
    let held = shell.hold(pools[0], 1);
    shell.core.keep_warm(pools[0], 5);
    shell.core.keep_warm(pools[1], 5);
    for _ in 0..5 {
        shell.pass(ms(100));
        shell.open_dials();
    }
    assert_eq!((shell.counts(pools[0]).live(), shell.counts(pools[1]).live()), (1, 1), "the bounds hold");
    held.into_iter().for_each(|held| shell.release(held));
    shell.run(|core, now, out| core.retire_database(database, now, out));
    shell.finish_closes();
    shell.core.pause(database);
    shell.pass(ms(100));
    assert!(shell.dials.is_empty(), "a pause");
    shell.run(|core, now, out| core.resume(database, now, out));
    shell.pass(ms(100));
    shell.fail_dials(FailureKind::Refused);
    shell.pass(ms(10_000));
    assert!(shell.dials.is_empty(), "a refused login is not tried for nobody");
}

#[test]
fn backend_past_its_lifetime_is_closed_rather_than_leased() {
    let (mut shell, _, pool) = Shell::with_pool(1);
    let short = PoolLimits { lifetime: Some(ms(1000)), ..limits(1) };
    shell.run(|core, now, out| core.set_pool(pool, short, now, out));
    let held = shell.hold(pool, 1)[0];
    shell.release(held);
    shell.now += ms(1200);
    shell.wait(pool);
    assert_eq!(shell.closes, [held]);
}

#[test]
fn unfit_idle_backends_are_taken_out() {
    let (mut shell, _, pool) = Shell::with_pool(2);
    let held = shell.hold(pool, 2);
    shell.release_on(OWN, held[0]);
    shell.release_on(OTHER, held[1]);
    shell.run(|core, _, out| core.peek_idle(pool, OTHER, |_| false, out));
    assert_eq!(shell.closes, [held[1]]);
    assert_eq!(shell.ready(pool), held[0]);
}

// Fair shares

/// Clients of several pools whose leases each last 10 ms.
struct Crowd {
    pools: Vec<PoolId>,
    queues: Vec<Vec<Ticket>>,
    held: Vec<Held>,
    served: Vec<u32>,
}

impl Crowd {
    fn of(pools: &[PoolId]) -> Self {
        Self {
            pools: pools.to_vec(),
            queues: vec![Vec::new(); pools.len()],
            held: Vec::new(),
            served: vec![0; pools.len()],
        }
    }

    fn ask(&mut self, shell: &mut Shell, i: usize) {
        match shell.lease(self.pools[i]) {
            LeaseAnswer::Ready(slot, backend) => {
                self.held.push((slot, backend));
                self.served[i] += 1;
            }
            LeaseAnswer::Wait(ticket) => self.queues[i].push(ticket),
            other => panic!("{other:?}"),
        }
    }

    /// Keeps `depths[i]` clients waiting at pool `i` for 100 ms.
    fn stand(&mut self, shell: &mut Shell, depths: &[usize]) {
        for _ in 0..10 {
            shell.now += ms(10);
            for lease in std::mem::take(&mut self.held) {
                shell.release(lease);
            }
            shell.finish_closes();
            shell.open_dials();
            for (i, depth) in depths.iter().enumerate() {
                for ticket in std::mem::take(&mut self.queues[i]) {
                    match shell.poll(ticket) {
                        Progress::Ready(slot, backend) => {
                            self.held.push((slot, backend));
                            self.served[i] += 1;
                        }
                        Progress::Pending | Progress::Waits { .. } => self.queues[i].push(ticket),
                        Progress::Failed(error) => panic!("{error}"),
                    }
                }
                while self.queues[i].len() < *depth {
                    self.ask(shell, i);
                }
            }
        }
        shell.pass(ms(0));
    }

    /// `stand` for so many seconds; returns the dials this took.
    fn stand_for(&mut self, shell: &mut Shell, seconds: u32, depths: &[usize]) -> u32 {
        let before = shell.dialled;
        (0..seconds * 10).for_each(|_| self.stand(shell, depths));
        shell.dialled - before
    }
}

#[test]
fn saturated_pools_settle_at_their_shares_and_stop_swapping() {
    for (backends_max, total_max) in [(Some(10), None), (None, Some(10))] {
        let mut shell = Shell::new(total_max);
        let (_, pools) = shell.database(backends_max, &[10, 10, 10]);
        let mut crowd = Crowd::of(&pools);
        crowd.stand_for(&mut shell, 1, &[20, 0, 0]);
        assert_eq!(shell.counts(pools[0]).live(), 10);
        crowd.stand_for(&mut shell, 1, &[20, 20, 20]);
        let lives = [0, 1, 2].map(|i| shell.counts(pools[i]).live());
        assert_eq!(lives, [4, 3, 3]);
        assert_eq!(crowd.stand_for(&mut shell, 5, &[20, 20, 20]), 0, "no swapping once settled");
    }
}

#[test]
fn one_waiter_below_its_share_costs_the_others_one_backend() {
    let mut shell = Shell::new(None);
    let (_, pools) = shell.database(Some(8), &[8, 8]);
    let held = shell.hold(pools[0], 8);
    let tickets: Vec<_> = (0..8).map(|_| shell.wait(pools[0])).collect();
    let other = shell.wait(pools[1]);
    held.iter().for_each(|held| shell.release(*held));
    assert_eq!(shell.closes, held[..1]);
    shell.finish_closes();
    shell.open_dials();
    shell.served(other);
    for (ticket, held) in tickets.into_iter().zip(&held[1..]) {
        assert_eq!(shell.served(ticket), *held);
    }
}

#[test]
fn pool_that_needs_less_than_its_share_leaves_the_rest() {
    let mut shell = Shell::new(None);
    let (_, pools) = shell.database(Some(10), &[10, 1]);
    let mut crowd = Crowd::of(&pools);
    crowd.stand_for(&mut shell, 2, &[20, 3]);
    assert_eq!(shell.counts(pools[0]).live(), 9);
    assert_eq!(crowd.stand_for(&mut shell, 5, &[20, 3]), 0);
}

#[test]
fn pools_that_outnumber_the_slots_take_turns() {
    let mut shell = Shell::new(None);
    let (_, pools) = shell.database(Some(2), &[5; 6]);
    let mut crowd = Crowd::of(&pools);
    let dialled = crowd.stand_for(&mut shell, 60, &[3; 6]);
    let (least, most) = (crowd.served.iter().min(), crowd.served.iter().max());
    assert!(least > Some(&600), "{:?}", crowd.served);
    assert!(most < Some(&6000), "{:?}", crowd.served);
    assert!(dialled < 60 * 6, "{dialled} dials in a minute");
}

#[test]
fn query_now_and_then_and_a_busy_pool_do_not_swap_a_slot() {
    let mut shell = Shell::new(None);
    let (_, pools) = shell.database(Some(4), &[4, 4]);
    let mut crowd = Crowd::of(&pools);
    let mut dialled_by_then = 0;
    for fifth in 0..50 {
        crowd.ask(&mut shell, 1);
        (0..2).for_each(|_| crowd.stand(&mut shell, &[10, 0]));
        if fifth == 5 {
            dialled_by_then = shell.dialled;
        }
    }
    assert_eq!(crowd.served[1], 50);
    assert_eq!(shell.dialled, dialled_by_then, "settled within a second");
}

#[test]
fn a_waiter_past_its_time_leaves_the_line_and_the_others_stay() {
    let (mut shell, _, pool) = Shell::with_pool(1);
    let limited = PoolLimits { wait_timeout: Some(ms(500)), ..limits(1) };
    shell.run(|core, now, out| core.set_pool(pool, limited, now, out));
    let _held = shell.hold(pool, 1);
    let first = shell.wait(pool);
    shell.pass(ms(300));
    let second = shell.wait(pool);
    shell.pass(ms(250));
    shell.failed(first, WaitError::TimedOut(Bottleneck::Pool));
    shell.pending(second);
}

// Found by an audit: a balancer sends nobody to a pgweir that is not ready, and it stayed so until somebody came.
#[test]
fn an_endpoint_that_is_down_is_probed_until_it_answers_though_nobody_waits() {
    let (mut shell, database, pool) = Shell::with_pool(2);
    let ticket = shell.wait(pool);
    shell.fail_dials(FailureKind::Unreachable);
    shell.run(|core, now, out| core.drop_ticket(ticket, now, out));
    for _ in 0..3 {
        shell.pass(ms(5_000));
        assert_eq!(shell.dials.len(), 1, "one prober");
        shell.pass(ms(5_000));
        assert_eq!(shell.dials.len(), 1, "at a time");
        shell.fail_dials(FailureKind::Unreachable);
    }
    shell.run(|core, _, _| core.pause(database));
    shell.pass(ms(5_000));
    assert_eq!(shell.dials.len(), 0, "a pause is for the server's sake");
    shell.run(|core, now, out| core.resume(database, now, out));
    shell.pass(ms(5_000));
    shell.open_dials();
    assert!(matches!(shell.core.database(database).expect("it is there").endpoint, EndpointView::Up));
    shell.pass(ms(5_000));
    assert_eq!(shell.dials.len(), 0, "nobody asked for more");
}
