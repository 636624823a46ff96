//! What a lease costs when nobody waits, and what a hand-over costs when somebody does.

use std::task::Waker;
use std::time::Duration;

use divan::{Bencher, black_box};
use pgweir::config::{Jitter, RoleQueueSettings, Share};
use pgweir::testing::admission::limiter::LeaseScope;
use pgweir::testing::pool::core::{Command, Core, DatabaseLimits, LeaseAnswer, PoolId, PoolLimits, Progress, SlotId};
use tokio::time::Instant;

const WORKERS: usize = 4;

fn main() {
    divan::main();
}

type Held = (SlotId, Box<u64>);

/// A pool with so many backends open, all leased.
fn full_pool(size: u32, is_limited: bool, now: Instant) -> (Core<Box<u64>>, PoolId, Vec<Held>) {
    let mut core = Core::new(WORKERS, Some(10_000), 1);
    let database =
        core.add_database(DatabaseLimits { backends_max: Some(size), connect_timeout: Duration::from_secs(5) });
    let limits = PoolLimits {
        wait_timeout: None,
        size,
        waiters_max: 20_000,
        idle_timeout: Some(Duration::from_secs(600)),
        lifetime: Some(Duration::from_secs(3600)),
        lease_scope: LeaseScope::Transaction,
        share: Share::default(),
    };
    let role_queue = is_limited.then(|| core.add_role_queue(role_queue_settings(), now));
    let pool = core.add_pool(database, role_queue, limits).expect("the database is there");
    let (mut out, mut held) = (Vec::new(), Vec::new());
    while held.len() < size as usize {
        let LeaseAnswer::Wait(ticket) = core.lease(pool, 0, now, Waker::noop(), &mut out) else {
            panic!("nothing is idle")
        };
        while let Some(command) = out.pop() {
            if let Command::Dial { slot, .. } = command {
                core.opened(slot, Box::new(0), 0, now, &mut out);
            }
        }
        if let Progress::Ready(slot, backend) = core.poll_ticket(ticket, Waker::noop()) {
            held.push((slot, backend));
        }
    }
    (core, pool, held)
}

/// What the shipped file gives a role, with a limit, in order of arrival so that the bench knows who is next.
fn role_queue_settings() -> RoleQueueSettings {
    RoleQueueSettings { transactions_max: Some(40), initial: 20, jitter: Jitter::Off, ..RoleQueueSettings::default() }
}

/// The difference between the two is what admission costs under light load.
#[divan::bench(args = [false, true])]
fn lease_and_release_an_idle_backend(bencher: Bencher<'_, '_>, is_limited: bool) {
    let now = Instant::now();
    let (mut core, pool, held) = full_pool(20, is_limited, now);
    let mut out = Vec::new();
    for (slot, backend) in held {
        core.release(slot, backend, 0, now, &mut out);
    }
    bencher.bench_local(|| {
        let LeaseAnswer::Ready(slot, backend) = core.lease(pool, 0, black_box(now), Waker::noop(), &mut out) else {
            panic!("something is idle")
        };
        core.release(slot, backend, 0, now, &mut out);
    });
    assert!(out.is_empty());
}

#[divan::bench(args = [(1, false), (10_000, false), (1, true), (10_000, true)])]
fn wait_and_be_served(bencher: Bencher<'_, '_>, (depth, is_limited): (usize, bool)) {
    let now = Instant::now();
    let (mut core, pool, mut held) = full_pool(20, is_limited, now);
    let mut out = Vec::new();
    let join = |core: &mut Core<Box<u64>>| match core.lease(pool, 0, now, Waker::noop(), &mut Vec::new()) {
        LeaseAnswer::Wait(ticket) => ticket,
        _ => panic!("nothing is idle"),
    };
    let mut tickets: std::collections::VecDeque<_> = (1..depth).map(|_| join(&mut core)).collect();
    bencher.bench_local(|| {
        tickets.push_back(join(&mut core));
        let (slot, backend) = held.pop().expect("as many are served as released");
        core.release(slot, backend, 0, black_box(now), &mut out);
        out.clear();
        let first = tickets.pop_front().expect("somebody waits");
        let Progress::Ready(slot, backend) = core.poll_ticket(first, Waker::noop()) else {
            panic!("the first waiter is served")
        };
        held.push((slot, backend));
    });
}
