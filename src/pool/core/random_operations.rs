//! Random operations against a model that knows where every backend is and checks every promise after each step.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use slotmap::SecondaryMap;
use tokio::time::Instant;

use super::endpoint::DIALS_MAX;
use super::idle::IdleStacks;
use super::lines::LineShare;
use super::queue_id::LineId;
use super::slot::SlotState;
use super::waiter::Turn;
use super::*;
use crate::admission::limiter::LeaseScope;
use crate::config::{AdmissionMode, Jitter, LoadBalance, Priority, RateWhen, RoleQueueSettings, RoleRate, Share};
use crate::pool::host_port::HostPort;

const WORKERS: usize = 2;
const DATABASES: usize = 2;
const POOLS: usize = 6;
const ROLE_QUEUES: usize = 2;
const LANES: usize = 2;
const READERS: u16 = 4;
const WINDOW: Duration = Duration::from_millis(250);

#[derive(Debug, Clone)]
enum Operation {
    Lease { pool: Index, worker: usize, lane: Option<Index> },
    Poll { ticket: Index },
    DropTicket { ticket: Index },
    Release { lease: Index, worker: usize },
    Discard { lease: Index },
    Closed { closing: Index },
    Opened { dial: Index, worker: usize },
    Failed { dial: Index, kind: FailureKind },
    Advance { by: Duration },
    RetirePool { pool: Index },
    RetireDatabase { database: Index },
    Pause { database: Index },
    Resume { database: Index },
    Unprove { database: Index },
    Prove { database: Index, epoch: ServerEpoch },
    SetReaders { database: Index, rules: ReaderRules, specs: Vec<ReaderSpec> },
    EndReaders { database: Index },
    ReachReader { database: Index, reader: u16 },
    SetTotal { max: Option<u32> },
    SetDatabase { database: Index, max: Option<u32> },
    SetPool { pool: Index, size: u32 },
    KeepWarm { pool: Index, backends: u32 },
    ReplacePool { pool: Index },
    PeekIdle { pool: Index, worker: usize },
    SetRoleQueue { role_queue: Index, settings: RoleQueueSettings },
    LimitRoleQueue { role_queue: Index, max: Option<u32>, over: Option<Duration> },
    RampLane { role_queue: Index, over: Duration },
    TightenLane { role_queue: Index },
    SetLane { lane: Index, settings: RoleQueueSettings, rules: LaneRules },
    ReplaceLane { lane: Index },
    Alarm,
}

fn role_queue_settings() -> impl Strategy<Value = RoleQueueSettings> {
    let jitter = prop_oneof![Just(Jitter::Soft), Just(Jitter::Spread), Just(Jitter::Off)];
    let rate = prop::option::of((1_u32..20, 1_u32..4));
    (prop::option::of(0_u32..6), 0_u32..3, 1_u32..4, any::<bool>(), jitter, rate, any::<bool>()).prop_map(
        |(max, min, initial, adaptive, jitter, rate, is_off)| RoleQueueSettings {
            mode: if is_off { AdmissionMode::Off } else { AdmissionMode::On },
            transactions_max: max,
            transactions_min: min,
            initial,
            adaptive,
            jitter,
            rate: rate.map(|(per_second, burst)| RoleRate {
                per_second: f64::from(per_second),
                burst,
                delay_max: Duration::from_millis(700),
                when: RateWhen::Always,
            }),
            ..open_role_queue()
        },
    )
}

/// A role queue that keeps nobody back.
fn open_role_queue() -> RoleQueueSettings {
    RoleQueueSettings {
        waiters_max: Some(20),
        jitter_window: WINDOW,
        spread_max: Duration::from_millis(500),
        notice_after: Duration::from_secs(1),
        ..RoleQueueSettings::default()
    }
}

fn reader_target(reader: u16) -> ServerTarget {
    ServerTarget { host: HostPort { host: "reader".to_owned(), port: reader }, address: None }
}

fn reader_rules() -> impl Strategy<Value = ReaderRules> {
    (prop::sample::select(LoadBalance::ALL.as_slice()), 0_u32..3)
        .prop_map(|(load_balance, fallback_max)| ReaderRules { load_balance, fallback_max })
}

fn reader_spec() -> impl Strategy<Value = ReaderSpec> {
    let duty =
        prop_oneof![4 => Just(ReaderDuty::Reads), 1 => Just(ReaderDuty::StandsIn), 1 => Just(ReaderDuty::Drains)];
    (0..READERS, duty, any::<bool>()).prop_map(|(reader, duty, is_preferred)| ReaderSpec {
        target: reader_target(reader),
        duty,
        is_preferred,
    })
}

fn lane_rules() -> impl Strategy<Value = LaneRules> {
    let priority = prop_oneof![Just(Priority::Interactive), Just(Priority::Batch)];
    (priority, 1_u32..4, any::<bool>(), any::<bool>()).prop_map(|(priority, weight, refuses, is_of_fleet)| LaneRules {
        share: LineShare { priority, weight },
        wait_timeout: None,
        refuses,
        is_of_fleet,
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    let index = || any::<Index>();
    let worker = || 0..WORKERS;
    let kind = prop_oneof![
        Just(FailureKind::Unreachable),
        Just(FailureKind::Refused),
        Just(FailureKind::Full),
        Just(FailureKind::Busy)
    ];
    let by = prop_oneof![5 => 1_u64..300, 1 => 300_u64..20_000].prop_map(Duration::from_millis);
    prop_oneof![
        24 => (index(), worker(), prop::option::of(index()))
            .prop_map(|(pool, worker, lane)| Operation::Lease { pool, worker, lane }),
        12 => index().prop_map(|ticket| Operation::Poll { ticket }),
        4 => index().prop_map(|ticket| Operation::DropTicket { ticket }),
        14 => (index(), worker()).prop_map(|(lease, worker)| Operation::Release { lease, worker }),
        2 => index().prop_map(|lease| Operation::Discard { lease }),
        8 => index().prop_map(|closing| Operation::Closed { closing }),
        12 => (index(), worker()).prop_map(|(dial, worker)| Operation::Opened { dial, worker }),
        3 => (index(), kind).prop_map(|(dial, kind)| Operation::Failed { dial, kind }),
        8 => by.prop_map(|by| Operation::Advance { by }),
        1 => index().prop_map(|pool| Operation::RetirePool { pool }),
        1 => index().prop_map(|database| Operation::RetireDatabase { database }),
        1 => index().prop_map(|database| Operation::Pause { database }),
        3 => index().prop_map(|database| Operation::Resume { database }),
        1 => index().prop_map(|database| Operation::Unprove { database }),
        3 => (index(), prop_oneof![Just(ServerEpoch::Same), Just(ServerEpoch::New)])
            .prop_map(|(database, epoch)| Operation::Prove { database, epoch }),
        3 => (index(), reader_rules(), prop::collection::vec(reader_spec(), 0..5))
            .prop_map(|(database, rules, specs)| Operation::SetReaders { database, rules, specs }),
        1 => index().prop_map(|database| Operation::EndReaders { database }),
        1 => (index(), 0..READERS).prop_map(|(database, reader)| Operation::ReachReader { database, reader }),
        1 => prop::option::of(0_u32..10).prop_map(|max| Operation::SetTotal { max }),
        1 => (index(), prop::option::of(0_u32..6))
            .prop_map(|(database, max)| Operation::SetDatabase { database, max }),
        1 => (index(), 0_u32..5).prop_map(|(pool, size)| Operation::SetPool { pool, size }),
        1 => (index(), 0_u32..5).prop_map(|(pool, backends)| Operation::KeepWarm { pool, backends }),
        1 => index().prop_map(|pool| Operation::ReplacePool { pool }),
        1 => (index(), worker()).prop_map(|(pool, worker)| Operation::PeekIdle { pool, worker }),
        1 => (index(), role_queue_settings())
            .prop_map(|(role_queue, settings)| Operation::SetRoleQueue { role_queue, settings }),
        1 => (index(), prop::option::of(0_u32..6), prop::option::of(1_u64..5))
            .prop_map(|(role_queue, max, over)| {
                Operation::LimitRoleQueue { role_queue, max, over: over.map(Duration::from_secs) }
            }),
        1 => (index(), 0_u64..5)
            .prop_map(|(role_queue, over)| Operation::RampLane { role_queue, over: Duration::from_secs(over) }),
        4 => index().prop_map(|role_queue| Operation::TightenLane { role_queue }),
        2 => (index(), role_queue_settings(), lane_rules())
            .prop_map(|(lane, settings, rules)| Operation::SetLane { lane, settings, rules }),
        1 => index().prop_map(|lane| Operation::ReplaceLane { lane }),
        4 => Just(Operation::Alarm),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Core,
    Client,
}

#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct ModelClient {
    ticket: Ticket,
    pool: PoolId,
    bell: Arc<Bell>,
    /// Its backend was taken back before it picked it up: others that came later may keep theirs.
    is_recalled: bool,
}

struct Model {
    core: Core<u64>,
    now: Instant,
    databases: Vec<DatabaseId>,
    pools: Vec<PoolId>,
    role_queues: Vec<RoleQueueId>,
    lanes: Vec<RoleQueueId>,
    clients: Vec<ModelClient>,
    leases: Vec<(SlotId, u64)>,
    dials: Vec<SlotId>,
    closings: Vec<SlotId>,
    backends: HashMap<u64, Holder>,
    backends_born: u64,
    /// Slots of epochs that are over.
    earlier: HashSet<SlotId>,
    out: Vec<Command<u64>>,
}

fn database_limits(backends_max: Option<u32>) -> DatabaseLimits {
    DatabaseLimits { backends_max, connect_timeout: Duration::from_secs(5) }
}

fn pool_limits(size: u32) -> PoolLimits {
    // Pools of different sizes have different parts, so that every rule about parts is at work.
    let priority = if size.is_multiple_of(2) { Priority::Batch } else { Priority::Interactive };
    PoolLimits {
        lease_scope: if size == 2 { LeaseScope::Session } else { LeaseScope::Transaction },
        share: Share { priority, weight: size + 1, reserved: size / 3 },
        wait_timeout: None,
        size,
        waiters_max: 12,
        idle_timeout: Some(Duration::from_secs(10)),
        lifetime: Some(Duration::from_secs(30)),
    }
}

/// Each role queue has a pool in each database, and each database a pool without a role queue.
fn role_queue_of(role_queues: &[RoleQueueId], pool: usize) -> Option<RoleQueueId> {
    role_queues.get(pool / DATABASES).copied()
}

/// The element of `from` that an index means; `None` when there is nothing to choose from.
fn pick<T>(index: &Index, from: &[T]) -> Option<usize> {
    (!from.is_empty()).then(|| index.index(from.len()))
}

impl Model {
    fn new() -> Self {
        let mut core = Core::new(WORKERS, Some(7), 1);
        let databases: Vec<_> = (0..DATABASES).map(|_| core.add_database(database_limits(Some(5)))).collect();
        let now = Instant::now();
        let role_queues: Vec<_> = (0..ROLE_QUEUES).map(|_| core.add_role_queue(open_role_queue(), now)).collect();
        let lanes = (0..LANES).map(|_| core.add_lane(open_role_queue(), LaneRules::default(), now)).collect();
        let pools = (0..POOLS)
            .map(|i| core.add_pool(databases[i % DATABASES], role_queue_of(&role_queues, i), pool_limits(3)))
            .collect::<Option<_>>()
            .expect("the databases are there");
        Self {
            core,
            now,
            databases,
            pools,
            role_queues,
            lanes,
            clients: Vec::new(),
            leases: Vec::new(),
            dials: Vec::new(),
            closings: Vec::new(),
            backends: HashMap::new(),
            backends_born: 0,
            earlier: HashSet::new(),
            out: Vec::new(),
        }
    }

    fn apply(&mut self, operation: &Operation) {
        let (now, mut out) = (self.now, std::mem::take(&mut self.out));
        match operation {
            Operation::Lease { pool, worker, lane } => {
                let lane = lane.as_ref().map(|lane| self.lanes[lane.index(LANES)]);
                let pool = self.pools[pool.index(self.pools.len())];
                let bell = Arc::new(Bell::default());
                let waker = Waker::from(bell.clone());
                let before = self.core.pool(pool).expect("it is there");
                let is_stopped = self.core.databases[before.database].stops.is_any();
                let due = self.core.ready(pool, now);
                match self.core.lease_in(lane, pool, *worker, now, &waker, &mut out) {
                    LeaseAnswer::Ready(slot, backend) => {
                        assert!(!is_stopped, "a lease was granted during a pause, or of an unproved server");
                        assert_eq!(due, 0, "a newcomer overtook a waiter");
                        self.lease(slot, backend);
                    }
                    LeaseAnswer::Wait(ticket) => {
                        let is_refused = matches!(self.core.waiters[ticket].turn, Turn::Refused(..));
                        assert!(is_refused || before.waiting < 12);
                        self.clients.push(ModelClient { ticket, pool, bell, is_recalled: false });
                    }
                    LeaseAnswer::Failed(error) => {
                        assert_eq!(error, WaitError::Refused);
                        assert!(before.is_refused);
                    }
                }
            }
            Operation::Poll { ticket } => {
                if let Some(i) = pick(ticket, &self.clients) {
                    self.poll(i);
                }
            }
            Operation::DropTicket { ticket } => {
                if let Some(i) = pick(ticket, &self.clients) {
                    let client = self.clients.swap_remove(i);
                    self.core.drop_ticket(client.ticket, now, &mut out);
                }
            }
            Operation::Release { lease, worker } => {
                if let Some(i) = pick(lease, &self.leases) {
                    let (slot, backend) = self.leases.swap_remove(i);
                    self.backends.insert(backend, Holder::Core);
                    self.core.release(slot, backend, *worker, now, &mut out);
                }
            }
            Operation::Discard { lease } => {
                if let Some(i) = pick(lease, &self.leases) {
                    let (slot, backend) = self.leases.swap_remove(i);
                    self.backends.remove(&backend);
                    self.core.discard(slot);
                    self.closings.push(slot);
                }
            }
            Operation::Closed { closing } => {
                if let Some(i) = pick(closing, &self.closings) {
                    let slot = self.closings.swap_remove(i);
                    self.core.closed(slot, now, &mut out);
                    assert!(!self.core.slots.contains_key(slot), "a closed slot is gone");
                    // A stale id finds nothing.
                    let before = self.core.total();
                    self.core.closed(slot, now, &mut Vec::new());
                    assert_eq!(self.core.total(), before);
                }
            }
            Operation::Opened { dial, worker } => {
                if let Some(i) = pick(dial, &self.dials) {
                    let slot = self.dials.swap_remove(i);
                    self.backends_born += 1;
                    self.backends.insert(self.backends_born, Holder::Core);
                    self.core.opened(slot, self.backends_born, *worker, now, &mut out);
                }
            }
            Operation::Failed { dial, kind } => {
                if let Some(i) = pick(dial, &self.dials) {
                    let slot = self.dials.swap_remove(i);
                    self.core.failed(slot, *kind, now, &mut out);
                }
            }
            Operation::Advance { by } => {
                self.now += *by;
                self.core.tick(self.now, &mut out);
            }
            Operation::RetirePool { pool } => {
                let pool = self.pools[pool.index(self.pools.len())];
                self.core.retire_pool(pool, now, &mut out);
            }
            Operation::RetireDatabase { database } => {
                self.core.retire_database(self.databases[database.index(DATABASES)], now, &mut out);
            }
            Operation::Pause { database } => {
                self.core.pause(self.databases[database.index(DATABASES)]);
            }
            Operation::Resume { database } => {
                self.core.resume(self.databases[database.index(DATABASES)], now, &mut out);
            }
            Operation::Unprove { database } => {
                self.core.unprove(self.databases[database.index(DATABASES)], now, &mut out);
            }
            Operation::Prove { database, epoch } => {
                let database = self.databases[database.index(DATABASES)];
                let slots = self.core.slots.iter();
                let slots = slots.filter(|(_, slot)| self.core.pools[slot.pool].database == database);
                let before: Vec<_> = slots.map(|(id, _)| id).collect();
                self.core.prove(database, *epoch, now, &mut out);
                if *epoch == ServerEpoch::New {
                    self.earlier.extend(before);
                }
            }
            Operation::SetReaders { database, rules, specs } => {
                let database = self.databases[database.index(DATABASES)];
                self.core.set_readers(database, *rules, specs.clone(), now, &mut out);
            }
            Operation::EndReaders { database } => {
                self.core.end_readers(self.databases[database.index(DATABASES)], now, &mut out);
            }
            Operation::ReachReader { database, reader } => {
                let database = self.databases[database.index(DATABASES)];
                self.core.reader_reached(database, &reader_target(*reader), now, &mut out);
            }
            Operation::SetTotal { max } => self.core.set_total_max(*max, now, &mut out),
            Operation::SetDatabase { database, max } => {
                let database = self.databases[database.index(DATABASES)];
                self.core.set_database(database, database_limits(*max), now, &mut out);
            }
            Operation::SetPool { pool, size } => {
                let pool = self.pools[pool.index(self.pools.len())];
                self.core.set_pool(pool, pool_limits(*size), now, &mut out);
            }
            Operation::KeepWarm { pool, backends } => {
                self.core.keep_warm(self.pools[pool.index(self.pools.len())], *backends);
            }
            Operation::ReplacePool { pool } => {
                let i = pool.index(self.pools.len());
                let database = self.core.pool(self.pools[i]).expect("it is there").database;
                self.core.remove_pool(self.pools[i], now, &mut out);
                self.pools[i] = self
                    .core
                    .add_pool(database, role_queue_of(&self.role_queues, i), pool_limits(3))
                    .expect("the database is there");
            }
            Operation::PeekIdle { pool, worker } => {
                let pool = self.pools[pool.index(self.pools.len())];
                self.core.peek_idle(pool, *worker, |backend| *backend % 2 == 0, &mut out);
            }
            Operation::SetRoleQueue { role_queue, settings } => {
                let role_queue = self.role_queues[role_queue.index(ROLE_QUEUES)];
                self.core.set_role_queue(role_queue, settings.clone(), now, &mut out);
            }
            Operation::TightenLane { role_queue } => {
                let role_queue = self.role_queues[role_queue.index(ROLE_QUEUES)];
                let before = self.core.role_queues[role_queue].limiter.view(now);
                let narrower = self.core.tighten_role_queue(role_queue, now);
                let limiter = &self.core.role_queues[role_queue].limiter;
                let after = limiter.view(now);
                assert_eq!(narrower, (after.effective != before.effective).then_some(after.effective));
                let floor = limiter.rules().transactions_min.max(1).min(before.effective);
                assert!((floor..=before.effective).contains(&after.effective), "{before:?} {after:?}");
                assert_eq!(
                    (after.active, after.limit),
                    (before.active, before.limit),
                    "it ends nobody and is no LIMIT"
                );
            }
            Operation::LimitRoleQueue { role_queue, max, over } => {
                let role_queue = self.role_queues[role_queue.index(ROLE_QUEUES)];
                self.core.limit_role_queue(role_queue, (*max, *over), now, now, &mut out);
            }
            Operation::RampLane { role_queue, over } => {
                let role_queue = self.role_queues[role_queue.index(ROLE_QUEUES)];
                self.core.ramp_role_queue(role_queue, *over, now, now, &mut out);
            }
            Operation::SetLane { lane, settings, rules } => {
                self.core.set_lane(self.lanes[lane.index(LANES)], settings.clone(), *rules, now, &mut out);
            }
            Operation::ReplaceLane { lane } => {
                let lane = lane.index(LANES);
                self.core.remove_lane(self.lanes[lane], now, &mut out);
                self.lanes[lane] = self.core.add_lane(open_role_queue(), LaneRules::default(), now);
            }
            Operation::Alarm => {
                if let Some(alarm) = self.core.alarm {
                    self.now = self.now.max(alarm);
                    self.core.alarm(self.now, &mut out);
                    // Back-offs may have ended meanwhile.
                    self.core.tick(self.now, &mut out);
                }
            }
        }
        self.out = out;
    }

    fn lease(&mut self, slot: SlotId, backend: u64) {
        let was = self.backends.insert(backend, Holder::Client);
        assert_eq!(was, Some(Holder::Core), "backend {backend} was not the core's to give");
        assert!(!self.earlier.contains(&slot), "a backend of an earlier epoch was lent");
        let lent = &self.core.slots[slot];
        let is_unused = lent.reader.is_some_and(|reader| self.core.is_unused_reader(lent.pool, reader));
        assert!(!is_unused, "a backend of a reader that gets nothing was lent");
        self.leases.push((slot, backend));
    }

    fn poll(&mut self, i: usize) {
        let ModelClient { ticket, bell, .. } = &self.clients[i];
        match self.core.poll_ticket(*ticket, &Waker::from(bell.clone())) {
            Progress::Pending | Progress::Waits { .. } => return,
            Progress::Ready(slot, backend) => {
                let database = self.core.pools[self.core.slots[slot].pool].database;
                assert!(!self.core.databases[database].stops.is_unproved, "a backend of an unproved server was lent");
                self.lease(slot, backend);
            }
            Progress::Failed(_) => {}
        }
        self.clients.swap_remove(i);
    }

    /// Does what the shell does after unlocking. Dials are checked at the moment they are decided.
    fn execute(&mut self) {
        for command in std::mem::take(&mut self.out) {
            match command {
                Command::Dial { pool, slot, .. } => {
                    self.check_room(pool);
                    self.check_dial(slot);
                    self.dials.push(slot);
                }
                Command::Close { slot, backend } => {
                    let was = self.backends.remove(&backend);
                    assert_eq!(was, Some(Holder::Core), "backend {backend} closed twice");
                    self.closings.push(slot);
                }
                Command::Wake(waker) => waker.wake(),
                Command::Alarm(then) => assert!(then > self.now, "an alarm that is due already"),
            }
        }
    }

    fn check_room(&self, pool: PoolId) {
        let pool = &self.core.pools[pool];
        let database = &self.core.databases[pool.database];
        assert!(pool.counts.open() <= pool.limits.size, "more than the pool's size");
        for bound in [&database.bound, &self.core.total] {
            assert!(bound.max.is_none_or(|max| bound.counts.open() <= max), "over a bound");
        }
        assert!(!database.stops.is_any(), "a dial during a pause, or to an unproved server");
    }

    fn check_dial(&self, slot: SlotId) {
        let slot = &self.core.slots[slot];
        let database = &self.core.databases[self.core.pools[slot.pool].database];
        let Some(readers) = &database.readers else {
            let dialing = database.bound.counts.opening;
            assert!(dialing <= DIALS_MAX, "too many dials at once");
            assert!(database.health.is_up() || dialing == 1, "more than one prober");
            return;
        };
        readers.check_dial(slot.reader.expect("a dial goes to one of the readers"));
    }

    /// A reader counts its own backends, and whatever is idle may be lent.
    fn check_readers(&self) {
        for (id, database) in &self.core.databases {
            let Some(readers) = &database.readers else { continue };
            let mut counts: SecondaryMap<ReaderId, SlotCounts> = SecondaryMap::new();
            for (slot_id, slot) in self.core.slots.iter().filter(|(_, it)| self.core.pools[it.pool].database == id) {
                let phase = slot.state.phase();
                let Some(reader) = slot.reader else {
                    let is_ending = slot.generation != self.core.pools[slot.pool].generation;
                    assert!(is_ending && phase != SlotPhase::Idle, "a backend of no reader");
                    continue;
                };
                counts.entry(reader).expect("alive").or_default().shift(None, Some(phase));
                if phase == SlotPhase::Idle {
                    assert!(!readers.is_unused(reader), "an idle backend that nobody may get");
                    let stacks =
                        &self.core.pools[slot.pool].readers.as_ref().expect("its pool has readers").idle[reader];
                    assert!(stacks.all().any(|other| other == slot_id), "not on the stack of its reader");
                }
                assert!(phase != SlotPhase::Handed || !readers.is_unused(reader), "a promise of an unused reader");
            }
            readers.check_counts(&counts);
        }
    }

    fn check(&self) {
        self.check_counts();
        self.check_permits();
        self.check_readers();
        self.check_backends();
        self.check_lines();
    }

    /// A tick makes up for what a permit or a reservation given back allows elsewhere.
    fn check_dials(&self) {
        for pool in self.core.pools.keys() {
            let has_claim = self.core.claim(pool, self.now) > 0;
            assert!(!has_claim || !self.core.fits(pool), "a dial that could be under way is not");
        }
    }

    fn check_counts(&self) {
        let core = &self.core;
        let mut pools: SecondaryMap<PoolId, SlotCounts> = SecondaryMap::new();
        let mut stale: SecondaryMap<PoolId, u32> = SecondaryMap::new();
        for slot in core.slots.values() {
            entry(&mut pools, slot.pool).shift(None, Some(slot.state.phase()));
            let is_stale = slot.generation != core.pools[slot.pool].generation;
            if is_stale && matches!(slot.state, SlotState::Opening { .. }) {
                *entry(&mut stale, slot.pool) += 1;
            }
        }
        for (id, pool) in &core.pools {
            assert_eq!(pool.counts, pools.get(id).copied().unwrap_or_default());
            assert_eq!(pool.openings_stale, stale.get(id).copied().unwrap_or_default());
            let on_stacks = pool.stacks().flat_map(IdleStacks::all).count();
            assert_eq!(on_stacks, pool.counts.idle as usize);
            let is_exceeded = pool.counts.live() > pool.limits.size;
            assert!(!is_exceeded || pool.counts.idle == 0);
            for slot in pool.stacks().flat_map(IdleStacks::all) {
                assert!(matches!(core.slots[slot].state, SlotState::Idle { .. }));
            }
        }
        for (id, database) in &core.databases {
            let own = |pool: &&PoolState| pool.database == id;
            check_bound(&database.bound, core.pools.values().filter(own));
        }
        check_bound(&core.total, core.pools.values());
    }

    /// A permit for every backend that is busy, and for no other.
    fn check_permits(&self) {
        for slot in self.core.slots.values() {
            match slot.state.phase() {
                SlotPhase::Opening | SlotPhase::Idle => {
                    assert!(slot.entered.is_none() && slot.lane.is_none(), "a permit for nobody");
                }
                SlotPhase::Handed | SlotPhase::Leased => assert!(slot.entered.is_some(), "busy without a permit"),
                SlotPhase::Closing | SlotPhase::Zombie => {}
            }
        }
        for (id, role_queue) in &self.core.role_queues {
            let is_of = |slot: &&Slot<u64>| slot.lane == Some(id) || self.core.pools[slot.pool].role_queue == Some(id);
            let of_role_queue = |slot: &&Slot<u64>| is_of(slot) && slot.entered.is_some();
            let held = self.core.slots.values().filter(of_role_queue).count();
            let view = role_queue.limiter.view(self.now);
            assert_eq!(view.active as usize, held);
            let line = role_queue.lane.is_some().then_some(id);
            let of_line = |pool: &PoolState| pool.queue.line(line).map_or(0, |queue| queue.waiting());
            let is_of = |id: &&PoolId| line.is_some() || role_queue.pools.contains(id);
            let waiting: u32 =
                self.core.pools.keys().filter(|id| is_of(&id)).map(|id| of_line(&self.core.pools[id])).sum();
            assert_eq!(view.waiting, waiting);
        }
    }

    /// No backend is lost, doubled, or in two places.
    fn check_backends(&self) {
        let mut held = 0;
        for slot in self.core.slots.values() {
            if let SlotState::Idle { backend, .. } | SlotState::Handed { backend } = &slot.state {
                assert_eq!(self.backends[backend], Holder::Core);
                held += 1;
            }
        }
        let of = |holder| self.backends.values().filter(|held| **held == holder).count();
        assert_eq!(of(Holder::Core), held, "a backend is lost");
        let total = self.core.total();
        assert_eq!(of(Holder::Client), total.leased as usize);
        assert_eq!(self.closings.len(), (total.closing + total.zombie) as usize);
        assert_eq!(self.dials.len(), total.opening as usize);
    }

    fn check_lines(&self) {
        let mut first_waiting: HashMap<(PoolId, LineId), (u64, Instant)> = HashMap::new();
        for client in &self.clients {
            let waiter = &self.core.waiters[client.ticket];
            let has_rung = client.bell.0.load(Ordering::Relaxed);
            match waiter.turn {
                Turn::Waiting(_) => {
                    if let Some(batch) = waiter.batch.filter(|_| !client.is_recalled) {
                        let joined = (batch, waiter.since);
                        let first = first_waiting.entry((client.pool, waiter.line)).or_insert(joined);
                        *first = joined.min(*first);
                    }
                }
                Turn::Handed(_) => assert!(has_rung, "a waiter was served and not told"),
                Turn::Refused(..) => {}
                Turn::Failed(_) => assert!(has_rung, "a waiter was failed and not told"),
            }
        }
        for client in &self.clients {
            let waiter = &self.core.waiters[client.ticket];
            let Some((first, since)) = first_waiting.get(&(client.pool, waiter.line)) else { continue };
            let is_handed = matches!(waiter.turn, Turn::Handed(_));
            let batch = waiter.batch.filter(|_| is_handed);
            // A lane that somebody comes to again numbers its batches anew.
            let is_in_order = batch.is_none_or(|batch| batch <= *first || waiter.since <= *since);
            assert!(is_in_order, "somebody was overtaken by a window");
        }
        for (id, pool) in &self.core.pools {
            let is_stopped = self.core.databases[pool.database].stops.is_any();
            let permits = pool.role_queue.map_or(u32::MAX, |role_queue| {
                self.core.role_queues[role_queue].limiter.permits(pool.limits.lease_scope, self.now)
            });
            let is_idle = self.core.ready(id, self.now) > 0 && pool.counts.idle > 0 && !is_stopped && permits > 0;
            assert!(
                !is_idle || self.core.alarm.is_some(),
                "a waiter of {id:?} beside an idle backend and an idle permit"
            );
            let is_held = pool.queue.waiting() > pool.queue.ready(|_| u32::MAX);
            assert!(!is_held || self.core.alarm.is_some(), "held back for ever");
        }
        let waiting = self.core.waiters.values().filter(|waiter| matches!(waiter.turn, Turn::Waiting(_)));
        assert_eq!(waiting.count(), self.core.total.waiting as usize);
        assert_eq!(self.core.waiters.len(), self.clients.len());
    }

    fn step(&mut self, operation: &Operation) {
        let active = |model: &Self, role_queue| model.core.role_queues[role_queue].limiter.view(model.now).active;
        let limited: Vec<_> = self.role_queues.iter().chain(&self.lanes).copied().collect();
        let before: Vec<_> = limited.iter().map(|role_queue| active(self, *role_queue)).collect();
        let handed = self.handed();
        self.apply(operation);
        for client in &mut self.clients {
            let waits = matches!(self.core.waiters[client.ticket].turn, Turn::Waiting(_));
            client.is_recalled |= waits && handed.contains(&client.ticket);
        }
        for (role_queue, before) in
            limited.iter().zip(before).filter(|(id, _)| self.core.role_queues.contains_key(**id))
        {
            let allowed = self.core.role_queues[*role_queue].limiter.allowed(self.now);
            assert!(active(self, *role_queue) <= before.max(allowed), "more than the limit were let in");
        }
        self.execute();
        self.check();
        if matches!(operation, Operation::Advance { .. }) {
            self.check_dials();
        }
    }

    fn handed(&self) -> HashSet<Ticket> {
        let handed = self.core.waiters.iter().filter(|(_, waiter)| matches!(waiter.turn, Turn::Handed(_)));
        handed.map(|(ticket, _)| ticket).collect()
    }

    /// Endpoints are well, holders give back, time passes: everybody must be served.
    fn everybody_is_served(&mut self) {
        let (now, mut out) = (self.now, std::mem::take(&mut self.out));
        self.core.set_total_max(Some(2), now, &mut out);
        for role_queue in &self.role_queues {
            self.core.set_role_queue(*role_queue, open_role_queue(), now, &mut out);
            self.core.unlimit_role_queue(*role_queue, now, &mut out);
        }
        for lane in &self.lanes {
            self.core.set_lane(*lane, open_role_queue(), LaneRules::default(), now, &mut out);
        }
        for database in &self.databases {
            self.core.set_database(*database, database_limits(Some(2)), now, &mut out);
            self.core.prove(*database, ServerEpoch::Same, now, &mut out);
            self.core.resume(*database, now, &mut out);
            if self.core.databases[*database].readers.is_some() {
                let rules = ReaderRules { load_balance: LoadBalance::Least, fallback_max: 0 };
                let well =
                    |reader| ReaderSpec { target: reader_target(reader), duty: ReaderDuty::Reads, is_preferred: false };
                self.core.set_readers(*database, rules, (0..READERS).map(well).collect(), now, &mut out);
            }
        }
        for pool in &self.pools {
            self.core.set_pool(*pool, pool_limits(2), now, &mut out);
        }
        self.out = out;
        self.execute();
        self.check();
        for _ in 0..600 {
            if self.clients.is_empty() && self.leases.is_empty() {
                break;
            }
            self.pass_time(Duration::from_millis(100));
        }
        assert!(self.clients.is_empty(), "{} waiters starve", self.clients.len());
        self.pools.iter().for_each(|pool| self.core.keep_warm(*pool, 0));
        // Readers that were down are probed when there is room, two at a time, each for a lifetime.
        for _ in 0..60 {
            self.pass_time(Duration::from_secs(5));
        }
        assert_eq!(self.core.total().open(), 0, "old age closes all that nobody uses");
        assert_eq!(self.core.pools.len(), POOLS, "removed pools are gone");
        assert_eq!(self.core.role_queues.len(), ROLE_QUEUES + LANES, "removed lanes are gone");
    }

    fn pass_time(&mut self, by: Duration) {
        let (now, mut out) = (self.now + by, std::mem::take(&mut self.out));
        self.now = now;
        self.core.tick(now, &mut out);
        for slot in std::mem::take(&mut self.dials) {
            self.backends_born += 1;
            self.backends.insert(self.backends_born, Holder::Core);
            self.core.opened(slot, self.backends_born, 0, now, &mut out);
        }
        for slot in std::mem::take(&mut self.closings) {
            self.core.closed(slot, now, &mut out);
        }
        for (slot, backend) in std::mem::take(&mut self.leases) {
            self.backends.insert(backend, Holder::Core);
            self.core.release(slot, backend, 1, now, &mut out);
        }
        self.out = out;
        self.execute();
        for i in (0..self.clients.len()).rev() {
            self.poll(i);
        }
        self.check();
    }
}

/// A removed pool's ticket may outlive it, but never its queue: every id here is alive.
fn entry<V: Default>(map: &mut SecondaryMap<PoolId, V>, pool: PoolId) -> &mut V {
    map.entry(pool).expect("no newer pool has this place").or_default()
}

fn check_bound<'a>(bound: &Bound, pools: impl Iterator<Item = &'a PoolState>) {
    let (mut counts, mut waiting, mut hungry, mut weights) = (SlotCounts::default(), 0, 0, [0; 2]);
    for pool in pools {
        counts.opening += pool.counts.opening;
        counts.idle += pool.counts.idle;
        counts.handed += pool.counts.handed;
        counts.leased += pool.counts.leased;
        counts.closing += pool.counts.closing;
        counts.zombie += pool.counts.zombie;
        waiting += pool.queue.waiting();
        hungry += usize::from(pool.queue.waiting() > 0);
        let share = pool.limits.share;
        weights[usize::from(share.priority == Priority::Batch)] +=
            u64::from(share.weight) * u64::from(pool.is_active());
    }
    assert_eq!(bound.counts, counts);
    assert_eq!(bound.waiting, waiting);
    assert_eq!(bound.hungry.len(), hungry);
    assert_eq!([bound.interactive, bound.batch], weights);
    assert!(!bound.is_exceeded() || counts.idle == 0, "idle backends over a lowered bound");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn every_promise_holds_after_every_operation(
        operations in prop::collection::vec(operation(), 1..300)
    ) {
        let mut model = Model::new();
        for operation in &operations {
            model.step(operation);
        }
        model.everybody_is_served();
    }
}
