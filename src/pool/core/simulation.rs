//! Bursts of transactions, replayed on the real core with a simulated Postgres behind it.
//!
//! 10,000 clients of one role each run one write transaction within 50 ms of one instant; beside them another role
//! sends small transactions at 300 a second that touch nothing of theirs. The server has 16 cores that serve in order,
//! one lock held by one transaction at a time in order of arrival, and deadlock checks that freeze everything: k³ ×
//! 0.23 ns for the k-th waiter that has waited a second. The expected figures were measured with the same model in
//! front of several policies.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::*;
use crate::admission::limiter::LeaseScope;
use crate::config::{RateWhen, RoleQueueSettings, RoleRate, Share};

const CLIENTS: usize = 10_000;
const BURST_AT: f64 = 3.0;
const SKEW: f64 = 0.05;
const BYSTANDERS_PER_SECOND: f64 = 300.0;
const CORES: usize = 16;
const CPU: f64 = 0.0006;
/// Active backends at which everything takes twice as long.
const CROWD: f64 = 800.0;
const COMMIT: f64 = 0.002;
const DEADLOCK_TIMEOUT: f64 = 1.0;
const CHECK_STEP: f64 = 2.3e-10;
const TICK: f64 = 0.1;
/// A run in which clients still wait then, counted from the start, is cut off.
const CUT_OFF: f64 = 120.0;

/// The seed of runs that come out alike whatever the seed, and those of runs that do not.
const SEED: u64 = 7;
const SEEDS: std::ops::RangeInclusive<u64> = 1..=11;

/// The faults of the server, or of the transactions.
#[derive(Debug, Clone, Copy)]
struct Scenario {
    /// Seconds the lock is held.
    hold: f64,
    /// The first holder 2 s into the burst holds it for this much longer.
    stall: f64,
    /// Requests a volume serves per second; a transaction of the burst needs 6, one beside it 1.
    iops: Option<f64>,
    /// A part of the transactions takes half a second more.
    slow_part: f64,
    /// From 1 s to 9 s every transaction of the burst takes this much longer, whatever the concurrency.
    noise: f64,
}

const LOCK: Scenario = Scenario { hold: 0.0005, stall: 0.0, iops: None, slow_part: 0.0, noise: 0.0 };
const STALL: Scenario = Scenario { stall: 3.0, ..LOCK };
const IOPS: Scenario = Scenario { hold: 0.0002, iops: Some(3000.0), ..LOCK };
const MIX: Scenario = Scenario { slow_part: 0.05, ..LOCK };
const NOISE: Scenario = Scenario { noise: 0.05, ..LOCK };

/// The result of a run.
#[derive(Debug)]
struct Outcome {
    /// Seconds from the instant to the last client served; infinite in a run that was cut off.
    done: f64,
    /// 99th percentile of the bystanders' latency during the burst, in ms; infinite likewise.
    bystanders_p99: f64,
    /// Most transactions of the burst inside the server at once.
    most: usize,
}

#[derive(Debug, Clone, Copy)]
enum SimulatedEvent {
    Arrive(usize),
    CpuDone(usize),
    ReachLock(usize),
    Check(usize),
    Unlock(usize),
    Finish(usize),
    Tick,
    Alarm,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum SimulatedRole {
    Burst,
    Bystander,
}

#[derive(Debug)]
struct Transaction {
    role: SimulatedRole,
    first: f64,
    slot: Option<(SlotId, u32)>,
    ticket: Option<Ticket>,
    /// Its place among all that ever queued for the lock.
    lock_place: u64,
}

/// Reports to the simulation which ticket has an answer.
struct ClientBell(usize, Arc<Mutex<Vec<usize>>>);

impl Wake for ClientBell {
    fn wake(self: Arc<Self>) {
        self.1.lock().expect("one thread").push(self.0);
    }
}

struct Simulation {
    scenario: Scenario,
    core: Core<u32>,
    pools: [PoolId; 2],
    epoch: Instant,
    now: f64,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    queue: Vec<SimulatedEvent>,
    rng: Rng,
    transactions: Vec<Transaction>,
    rung: Arc<Mutex<Vec<usize>>>,
    cpu_busy: usize,
    cpu_line: VecDeque<usize>,
    active: [usize; 2],
    most: usize,
    holder: Option<usize>,
    lock_line: VecDeque<usize>,
    lock_head: u64,
    lock_tail: u64,
    frozen_until: f64,
    stall_left: f64,
    io_free: f64,
    served: usize,
    last_served: f64,
    bystanders: Vec<(f64, f64)>,
}

impl Simulation {
    fn new(scenario: Scenario, burst: RoleQueueSettings, seed: u64) -> Self {
        let epoch = Instant::now();
        let mut core = Core::new(1, None, 11);
        let limits = DatabaseLimits { backends_max: None, connect_timeout: Duration::from_secs(5) };
        let database = core.add_database(limits);
        let bystanders = RoleQueueSettings { transactions_max: Some(20), ..role_queue() };
        let pools = [burst, bystanders].map(|settings| {
            let role_queue = core.add_role_queue(settings, epoch);
            let limits = PoolLimits {
                size: 2000,
                waiters_max: u32::MAX,
                wait_timeout: None,
                idle_timeout: None,
                lifetime: None,
                lease_scope: LeaseScope::Transaction,
                share: Share::default(),
            };
            core.add_pool(database, Some(role_queue), limits).expect("the database is there")
        });
        Self {
            scenario,
            core,
            pools,
            epoch,
            now: 0.0,
            events: BinaryHeap::new(),
            queue: Vec::new(),
            rng: Rng::with_seed(seed),
            transactions: Vec::new(),
            rung: Arc::default(),
            cpu_busy: 0,
            cpu_line: VecDeque::new(),
            active: [0; 2],
            most: 0,
            holder: None,
            lock_line: VecDeque::new(),
            lock_head: 0,
            lock_tail: 0,
            frozen_until: 0.0,
            stall_left: scenario.stall,
            io_free: -1e9,
            served: 0,
            last_served: 0.0,
            bystanders: Vec::new(),
        }
    }

    fn run(mut self) -> Outcome {
        for _ in 0..CLIENTS {
            let at = BURST_AT + self.rng.f64() * SKEW;
            self.begin(SimulatedRole::Burst, at);
        }
        self.begin(SimulatedRole::Bystander, 0.0);
        self.at(TICK, SimulatedEvent::Tick);
        while let Some(Reverse((at, event))) = self.events.pop() {
            self.now = at as f64 / 1e9;
            self.happen(self.queue[event as usize]);
            if self.served == CLIENTS && self.now > self.last_served + 1.0 {
                break;
            }
            if self.now >= CUT_OFF {
                return Outcome { done: f64::INFINITY, bystanders_p99: f64::INFINITY, most: self.most };
            }
        }
        let during = self.bystanders.iter().filter(|(at, _)| (BURST_AT..=self.last_served).contains(at));
        let mut latencies: Vec<_> = during.map(|(_, latency)| *latency * 1000.0).collect();
        latencies.sort_by(f64::total_cmp);
        Outcome {
            done: self.last_served - BURST_AT,
            bystanders_p99: latencies[latencies.len() * 99 / 100],
            most: self.most,
        }
    }

    fn at(&mut self, at: f64, event: SimulatedEvent) {
        // A nanosecond later, so that an event that waits for a moment finds that it has come.
        self.events.push(Reverse(((at * 1e9).ceil() as u64 + 1, self.queue.len() as u64)));
        self.queue.push(event);
    }

    fn after(&mut self, seconds: f64, event: SimulatedEvent) {
        self.at(self.now + seconds, event);
    }

    fn begin(&mut self, role: SimulatedRole, at: f64) {
        let id = self.transactions.len();
        self.transactions.push(Transaction { role, first: at, slot: None, ticket: None, lock_place: 0 });
        self.at(at, SimulatedEvent::Arrive(id));
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.rng.f64()).ln()
    }

    fn happen(&mut self, event: SimulatedEvent) {
        match event {
            SimulatedEvent::Arrive(id) => self.arrive(id),
            SimulatedEvent::CpuDone(id) => self.leave_cpu(id),
            SimulatedEvent::ReachLock(id) => self.reach_lock(id),
            SimulatedEvent::Check(id) => self.check(id),
            SimulatedEvent::Unlock(id) => self.unlock(id),
            SimulatedEvent::Finish(id) => self.finish(id),
            SimulatedEvent::Tick => {
                self.decide(|core, now, out| core.tick(now, out));
                self.after(TICK, SimulatedEvent::Tick);
            }
            SimulatedEvent::Alarm => self.decide(|core, now, out| core.alarm(now, out)),
        }
    }

    // ---- the proxy ------------------------------------------------------------------------------

    fn decide<R>(&mut self, decision: impl FnOnce(&mut Core<u32>, Instant, &mut Vec<Command<u32>>) -> R) -> R {
        let now = self.epoch + Duration::from_secs_f64(self.now);
        let mut out = Vec::new();
        let result = decision(&mut self.core, now, &mut out);
        while let Some(command) = out.pop() {
            match command {
                Command::Dial { slot, .. } => self.core.opened(slot, 0, 0, now, &mut out),
                Command::Close { slot, .. } => self.core.closed(slot, now, &mut out),
                Command::Wake(waker) => waker.wake(),
                Command::Alarm(then) => self.at((then - self.epoch).as_secs_f64(), SimulatedEvent::Alarm),
            }
        }
        let rung = std::mem::take(&mut *self.rung.lock().expect("one thread"));
        for id in rung {
            self.look(id);
        }
        result
    }

    fn arrive(&mut self, id: usize) {
        let role = self.transactions[id].role;
        if role == SimulatedRole::Bystander {
            let next = self.now + self.exponential(1.0 / BYSTANDERS_PER_SECOND);
            self.begin(SimulatedRole::Bystander, next);
        }
        let pool = self.pools[role as usize];
        let waker = Waker::from(Arc::new(ClientBell(id, Arc::clone(&self.rung))));
        match self.decide(|core, now, out| core.lease(pool, 0, now, &waker, out)) {
            LeaseAnswer::Ready(slot, backend) => self.start(id, slot, backend),
            LeaseAnswer::Wait(ticket) => {
                self.transactions[id].ticket = Some(ticket);
                self.look(id);
            }
            LeaseAnswer::Failed(error) => panic!("{error}"),
        }
    }

    fn look(&mut self, id: usize) {
        let Some(ticket) = self.transactions[id].ticket else { return };
        match self.core.poll_ticket(ticket, Waker::noop()) {
            // The waker it gave is the one to be called.
            Progress::Pending | Progress::Waits { .. } => {
                let waker = Waker::from(Arc::new(ClientBell(id, Arc::clone(&self.rung))));
                let _ = self.core.poll_ticket(ticket, &waker);
            }
            Progress::Ready(slot, backend) => {
                self.transactions[id].ticket = None;
                self.start(id, slot, backend);
            }
            Progress::Failed(error) => panic!("{error}"),
        }
    }

    // ---- the server -----------------------------------------------------------------------------

    fn start(&mut self, id: usize, slot: SlotId, backend: u32) {
        let role = self.transactions[id].role;
        self.transactions[id].slot = Some((slot, backend));
        self.active[role as usize] += 1;
        self.most = self.most.max(self.active[SimulatedRole::Burst as usize]);
        if self.cpu_busy < CORES {
            self.run_on_cpu(id);
        } else {
            self.cpu_line.push_back(id);
        }
    }

    fn run_on_cpu(&mut self, id: usize) {
        self.cpu_busy += 1;
        let crowd = 1.0 + (self.active[0] + self.active[1]) as f64 / CROWD;
        let demand = self.exponential(CPU) * crowd;
        self.after(demand, SimulatedEvent::CpuDone(id));
    }

    fn leave_cpu(&mut self, id: usize) {
        self.cpu_busy -= 1;
        if let Some(next) = self.cpu_line.pop_front() {
            self.run_on_cpu(next);
        }
        if self.transactions[id].role == SimulatedRole::Bystander {
            return self.commit(id);
        }
        let Scenario { noise, slow_part, .. } = self.scenario;
        let in_burst = self.now - BURST_AT;
        if noise > 0.0 && in_burst > 1.0 && in_burst < 9.0 {
            self.after(noise, SimulatedEvent::ReachLock(id));
        } else if self.rng.f64() < slow_part {
            self.after(0.5, SimulatedEvent::ReachLock(id));
        } else {
            self.reach_lock(id);
        }
    }

    fn reach_lock(&mut self, id: usize) {
        if self.holder.is_none() {
            return self.grant(id);
        }
        self.transactions[id].lock_place = self.lock_tail;
        self.lock_tail += 1;
        self.lock_line.push_back(id);
        self.after(DEADLOCK_TIMEOUT, SimulatedEvent::Check(id));
    }

    fn check(&mut self, id: usize) {
        let place = self.transactions[id].lock_place;
        if place < self.lock_head || self.holder.is_none() {
            return;
        }
        let k = (place - self.lock_head + 1) as f64;
        self.frozen_until = self.frozen_until.max(self.now) + CHECK_STEP * k.powi(3);
    }

    fn grant(&mut self, id: usize) {
        self.holder = Some(id);
        let mut hold = self.exponential(self.scenario.hold);
        if self.stall_left > 0.0 && self.now >= BURST_AT + 2.0 {
            hold += std::mem::take(&mut self.stall_left);
        }
        self.after(hold, SimulatedEvent::Unlock(id));
    }

    fn unlock(&mut self, id: usize) {
        if self.now < self.frozen_until {
            return self.at(self.frozen_until, SimulatedEvent::Unlock(id));
        }
        self.holder = None;
        if let Some(next) = self.lock_line.pop_front() {
            self.lock_head = self.transactions[next].lock_place + 1;
            self.grant(next);
        }
        self.commit(id);
    }

    fn commit(&mut self, id: usize) {
        let mut io = 0.0;
        if let Some(iops) = self.scenario.iops {
            let requests = if self.transactions[id].role == SimulatedRole::Burst { 6.0 } else { 1.0 };
            self.io_free = self.io_free.max(self.now - 300.0 / iops) + requests / iops;
            io = (self.io_free - self.now).max(0.0);
        }
        self.after(COMMIT + io, SimulatedEvent::Finish(id));
    }

    fn finish(&mut self, id: usize) {
        if self.now < self.frozen_until {
            return self.at(self.frozen_until, SimulatedEvent::Finish(id));
        }
        let Transaction { role, first, .. } = self.transactions[id];
        self.active[role as usize] -= 1;
        match role {
            SimulatedRole::Burst => {
                self.served += 1;
                self.last_served = self.now;
            }
            SimulatedRole::Bystander => self.bystanders.push((first, self.now - first)),
        }
        let (slot, backend) = self.transactions[id].slot.take().expect("it was started");
        self.decide(|core, now, out| core.release(slot, backend, 0, now, out));
    }
}

fn role_queue() -> RoleQueueSettings {
    RoleQueueSettings { transactions_max: Some(100), notice_after: Duration::ZERO, ..RoleQueueSettings::default() }
}

/// Runs the scenario and compares it with the measured figures: completion within 5 %, the bystanders' 99th percentile
/// within 20 %, or below it, and never more than the limit inside.
#[track_caller]
fn hold(scenario: Scenario, settings: RoleQueueSettings, done: f64, bystanders_p99: f64) {
    hold_with(SEED, scenario, settings, done, bystanders_p99);
}

#[track_caller]
fn hold_with(seed: u64, scenario: Scenario, settings: RoleQueueSettings, done: f64, bystanders_p99: f64) {
    let most = settings.transactions_max.expect("limited") as usize;
    let outcome = Simulation::new(scenario, settings, seed).run();
    println!("{outcome:?}");
    assert!((outcome.done - done).abs() <= 0.05 * done, "{outcome:?}, expected {done} s");
    assert!(outcome.bystanders_p99 <= 1.2 * bystanders_p99, "{outcome:?}, expected {bystanders_p99} ms");
    assert!(outcome.most <= most, "{outcome:?}, allowed {most}");
}

#[test]
fn one_lock() {
    hold(LOCK, role_queue(), 4.98, 5.2);
}

#[test]
fn one_lock_whose_holder_stalls() {
    for seed in SEEDS {
        hold_with(seed, STALL, role_queue(), 8.01, 5.2);
    }
}

#[test]
fn a_volume_with_provisioned_io_needs_more_than_a_limit() {
    hold(IOPS, role_queue(), 20.6, 13_750.0);
}

#[test]
fn a_few_slow_transactions_among_many() {
    hold(MIX, role_queue(), 5.53, 5.2);
}

#[test]
fn slow_for_a_reason_that_admission_cannot_mend() {
    hold(NOISE, role_queue(), 5.49, 5.1);
}

fn far_too_high() -> RoleQueueSettings {
    RoleQueueSettings { transactions_max: Some(1500), ..role_queue() }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn a_limit_fifteen_times_too_high_does_no_harm_while_nothing_stalls() {
    hold(LOCK, far_too_high(), 5.10, 8.7);
    hold(MIX, far_too_high(), 5.09, 8.8);
}

/// Slow start cuts what is slow, and takes what stays slow for the usual, so the effective limit goes up and down. In
/// 55 runs the stall met between 130 and 1,500 active. With up to 400, in 36 of them, bystanders wait for 1.4 s at
/// most (p99); with 1,500, in two, deadlock checks freeze the server for 290 s.
#[test]
fn a_limit_fifteen_times_too_high_survives_the_stall_more_often_than_not() {
    let outcomes: Vec<_> = SEEDS.map(|seed| Simulation::new(STALL, far_too_high(), seed).run()).collect();
    let done = median(outcomes.iter().map(|outcome| outcome.done).collect());
    let bystanders_p99 = median(outcomes.iter().map(|outcome| outcome.bystanders_p99).collect());
    assert!((done - 8.07).abs() <= 0.05 * 8.07, "{outcomes:?}");
    assert!(bystanders_p99 <= 1.2 * 768.0, "{outcomes:?}");
}

#[test]
fn a_rate_spares_the_volume() {
    let at = |delay_max| RoleRate {
        per_second: 400.0,
        burst: 20,
        delay_max: Duration::from_secs(delay_max),
        when: RateWhen::Burst,
    };
    let strict = RoleQueueSettings { rate: Some(at(30)), ..role_queue() };
    hold(IOPS, strict.clone(), 25.0, 4.8);
    hold(LOCK, strict, 25.0, 4.8);
    let bounded = RoleQueueSettings { rate: Some(at(2)), ..role_queue() };
    hold(LOCK, bounded.clone(), 6.62, 5.1);
    hold(MIX, bounded, 7.15, 5.1);
}

#[test]
fn the_adaptive_limit_finds_what_the_server_takes() {
    let adaptive = || RoleQueueSettings { adaptive: true, ..role_queue() };
    hold(LOCK, adaptive(), 5.07, 5.0);
    hold(STALL, adaptive(), 8.11, 5.0);
    hold(IOPS, adaptive(), 22.1, 80.6);
    hold(MIX, adaptive(), 6.32, 5.0);
    hold(NOISE, adaptive(), 8.48, 5.2);
}
