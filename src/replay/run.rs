//! The run: recorded arrivals, the real core, and transactions that take as long as the model says.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::report::Accounts;
use super::server::ServerModel;
use crate::config::{Config, pool_settings, role_queue_settings};
use crate::pool::core::{Command, Core, LeaseAnswer, PoolId, Progress, RoleQueueId, SlotId, Ticket};
use crate::pool::directory::{database_limits, pool_limits};
use crate::recorder::Recording;

/// Between two ticks of the core, in microseconds.
const TICK: u64 = 100_000;

/// Microseconds until a dialled backend is there.
const DIAL: u64 = 5_000;

/// A run whose last clients still wait then is over.
const PATIENCE: u64 = 600 * 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RunEvent {
    Opened(SlotId),
    Alarm,
}

/// A transaction with a backend ends when it has done its work, in picoseconds of a server that it has for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RunEnd {
    done: u64,
    slot: SlotId,
    backend: u32,
    index: usize,
}

/// Units of work in a microsecond.
const WORK: f64 = 1e6;

/// Reports which transaction's ticket has an answer.
struct TicketBell(usize, Arc<Mutex<Vec<usize>>>);

impl Wake for TicketBell {
    fn wake(self: Arc<Self>) {
        self.1.lock().expect("one thread").push(self.0);
    }
}

struct ReplayRun<'a> {
    recording: &'a Recording,
    model: &'a ServerModel,
    core: Core<u32>,
    start: Instant,
    now: u64,
    events: BinaryHeap<Reverse<(u64, RunEvent)>>,
    /// Work that each transaction which is there all the time could have done so far.
    done: u64,
    ends: BinaryHeap<Reverse<RunEnd>>,
    tickets: HashMap<usize, Ticket>,
    rung: Arc<Mutex<Vec<usize>>>,
    active: u32,
    backends: u32,
    accounts: Accounts,
}

/// What happens to the recorded transactions with this configuration.
pub(super) fn run(recording: &Recording, config: &Config, model: &ServerModel) -> Accounts {
    let now = Instant::now();
    let mut core = Core::new(1, config.backends_total_max, 7);
    let pools = pools(recording, config, &mut core, now);
    let mut lanes: HashMap<&str, RoleQueueId> = HashMap::new();
    for lane in &config.lanes {
        lanes.insert(&lane.name, core.add_lane(lane.queue(config), crate::lanes::rules(lane), now));
    }
    let lanes: Vec<_> = recording.names.lanes.iter().map(|name| lanes.get(name.as_str()).copied()).collect();
    let mut run = ReplayRun {
        recording,
        model,
        core,
        start: now,
        now: 0,
        events: BinaryHeap::new(),
        done: 0,
        ends: BinaryHeap::new(),
        tickets: HashMap::new(),
        rung: Arc::default(),
        active: 0,
        backends: 0,
        accounts: Accounts::default(),
    };
    run.all(&pools, &lanes);
    run.accounts
}

/// The pools of the recording, by number; `None`: the configuration does not serve it.
fn pools(recording: &Recording, config: &Config, core: &mut Core<u32>, now: Instant) -> Vec<Option<PoolId>> {
    let (mut databases, mut roles) = (HashMap::new(), HashMap::new());
    let mut pool = |(database, role): &(String, String)| {
        let settings = pool_settings(config, database, role)?;
        let database =
            *databases.entry(database.clone()).or_insert_with(|| core.add_database(database_limits(&settings)));
        let queue = match roles.get(role) {
            Some(queue) => *queue,
            None => {
                let queue = core.add_role_queue(role_queue_settings(config, role)?, now);
                *roles.entry(role.clone()).or_insert(queue)
            }
        };
        core.add_pool(database, Some(queue), pool_limits(&settings))
    };
    recording.names.pools.iter().map(&mut pool).collect()
}

impl ReplayRun<'_> {
    fn all(&mut self, pools: &[Option<PoolId>], lanes: &[Option<RoleQueueId>]) {
        let transactions = &self.recording.transactions;
        let first = transactions[0].arrival;
        let (mut next, mut tick) = (0, TICK);
        loop {
            let arrival = transactions.get(next).map(|of| of.arrival - first);
            let event = self.events.peek().map(|Reverse((at, _))| *at);
            let end = self.next_end();
            let is_idle = self.active == 0 && self.tickets.is_empty();
            if is_idle && event.is_none() {
                let Some(arrival) = arrival else { return };
                // Nobody is there whom a tick could serve.
                tick = tick.max(arrival.saturating_sub(TICK));
            }
            let soonest = [arrival, event, end, Some(tick)].into_iter().flatten().min().unwrap_or(tick);
            self.pass(soonest);
            if end == Some(soonest) {
                self.ends();
            } else if event == Some(soonest) {
                self.happens();
            } else if tick == soonest {
                tick += TICK;
                self.decide(|core, now, out| core.tick(now, out));
            } else {
                let of = &transactions[next];
                let lane = usize::from(of.lane).checked_sub(1).and_then(|lane| lanes.get(lane).copied().flatten());
                match pools.get(usize::from(of.pool)).copied().flatten() {
                    Some(pool) => self.arrives(next, pool, lane),
                    None => self.accounts.of(self.recording, next).left += 1,
                }
                next += 1;
            }
            self.answer();
            let is_over = next == transactions.len() && (is_idle || self.now > self.last() + PATIENCE);
            if is_over && self.active == 0 {
                return;
            }
        }
    }

    fn last(&self) -> u64 {
        let transactions = &self.recording.transactions;
        transactions[transactions.len() - 1].arrival - transactions[0].arrival
    }

    fn arrives(&mut self, index: usize, pool: PoolId, lane: Option<RoleQueueId>) {
        let answer = self.decide(|core, now, out| core.lease_in(lane, pool, 0, now, Waker::noop(), out));
        match answer {
            LeaseAnswer::Ready(slot, backend) => self.begins(index, slot, backend),
            LeaseAnswer::Wait(ticket) => {
                self.tickets.insert(index, ticket);
                self.rung.lock().expect("one thread").push(index);
            }
            LeaseAnswer::Failed(_) => self.accounts.of(self.recording, index).refused += 1,
        }
    }

    fn begins(&mut self, index: usize, slot: SlotId, backend: u32) {
        self.active += 1;
        let of = &self.recording.transactions[index];
        let first = self.recording.transactions[0].arrival;
        let waited = self.now - (of.arrival - first);
        let done = self.done + (self.model.work(index, of) * WORK) as u64;
        self.ends.push(Reverse(RunEnd { done, slot, backend, index }));
        self.accounts.of(self.recording, index).began(waited);
        self.accounts.peak(self.active);
    }

    /// Time goes on; all that have a backend do their work at the speed of a server with so many.
    fn pass(&mut self, now: u64) {
        let passed = now.saturating_sub(self.now) as f64;
        self.done += (passed * WORK / self.model.slower(self.active)) as u64;
        self.now = now.max(self.now);
    }

    /// When the next transaction ends if no other begins.
    fn next_end(&self) -> Option<u64> {
        let Reverse(next) = self.ends.peek()?;
        let left = next.done.saturating_sub(self.done) as f64 / WORK * self.model.slower(self.active);
        Some(self.now + left.ceil() as u64)
    }

    fn ends(&mut self) {
        let Some(Reverse(RunEnd { done, slot, backend, index })) = self.ends.pop() else { return };
        // Rounded up to a microsecond: nobody is late for that.
        self.done = self.done.max(done);
        self.active -= 1;
        self.accounts.of(self.recording, index).ended();
        self.decide(|core, now, out| core.release(slot, backend, 0, now, out));
    }

    fn happens(&mut self) {
        let Some(Reverse((_, event))) = self.events.pop() else { return };
        match event {
            RunEvent::Opened(slot) => {
                self.backends += 1;
                let backend = self.backends;
                self.decide(|core, now, out| core.opened(slot, backend, 0, now, out));
            }
            RunEvent::Alarm => self.decide(|core, now, out| core.alarm(now, out)),
        }
    }

    /// Those whose turn has come begin, and those who waited in vain go.
    fn answer(&mut self) {
        loop {
            let rung = std::mem::take(&mut *self.rung.lock().expect("one thread"));
            if rung.is_empty() {
                return;
            }
            for index in rung {
                let Some(ticket) = self.tickets.get(&index).copied() else { continue };
                let waker = Waker::from(Arc::new(TicketBell(index, Arc::clone(&self.rung))));
                match self.core.poll_ticket(ticket, &waker) {
                    Progress::Pending | Progress::Waits { .. } => continue,
                    Progress::Ready(slot, backend) => self.begins(index, slot, backend),
                    Progress::Failed(error) => self.accounts.of(self.recording, index).failed(error),
                }
                self.tickets.remove(&index);
            }
        }
    }

    fn decide<R>(&mut self, decision: impl FnOnce(&mut Core<u32>, Instant, &mut Vec<Command<u32>>) -> R) -> R {
        let now = self.start + Duration::from_micros(self.now);
        let mut out = Vec::new();
        let result = decision(&mut self.core, now, &mut out);
        while let Some(command) = out.pop() {
            match command {
                Command::Dial { slot, .. } => self.events.push(Reverse((self.now + DIAL, RunEvent::Opened(slot)))),
                Command::Close { slot, .. } => self.core.closed(slot, now, &mut out),
                Command::Wake(waker) => waker.wake(),
                Command::Alarm(then) => {
                    let at = then.saturating_duration_since(self.start).as_micros() as u64;
                    self.events.push(Reverse((at.max(self.now + 1), RunEvent::Alarm)));
                }
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::parse;
    use crate::recorder::{RecordedNames, RecordedOutcome, RecordedTransaction};

    fn recording(arrivals: &[(u64, u32, u16, u8)]) -> Recording {
        let mut at = 0;
        let transactions = arrivals.iter().map(|(after, served, pool, lane)| {
            at += after;
            let outcome = RecordedOutcome::Served;
            RecordedTransaction { arrival: at, wait: 0, served: *served, pool: *pool, lane: *lane, outcome, digest: 1 }
        });
        let names = RecordedNames {
            pools: vec![("app".into(), "web".into()), ("app".into(), "jobs".into()), ("gone".into(), "web".into())],
            lanes: vec!["report".into()],
        };
        Recording { names, transactions: transactions.collect(), torn: 0 }
    }

    fn replayed(recording: &Recording, limit: u32, lane: u32) -> Accounts {
        let text = format!(
            "[databases.app]\nhost = \"h\"\nwait_timeout = \"2s\"\n[roles.web]\npassword = \"p\"\ntransactions_max = {limit}\n\
             [roles.jobs]\npassword = \"p\"\n[[lanes]]\nname = \"report\"\nmatch = {{ role = \"jobs\" }}\ntransactions_max = {lane}\n"
        );
        let config = parse(&text, Path::new("proxy.toml"), &|_| None).expect("valid");
        run(recording, &config, &ServerModel::fit(&recording.transactions))
    }

    #[test]
    fn a_limit_of_one_serves_one_after_the_other() {
        let recording = recording(&[(0, 10_000, 0, 0); 50]);
        let wide = replayed(&recording, 100, 1);
        let narrow = replayed(&recording, 1, 1);
        let of = |accounts: &Accounts| accounts.by_kind[&(0, 0)].clone();
        assert_eq!((of(&wide).answered, of(&narrow).answered), (50, 50));
        assert!(of(&wide).most > 10 && of(&narrow).most == 1, "{:?} {:?}", of(&wide), of(&narrow));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        /// Every transaction ends in one way, nothing exceeds a limit, and what the configuration does not serve is
        /// left out.
        #[test]
        fn every_transaction_is_accounted_for(
            arrivals in prop::collection::vec((0u64..50_000, 0u32..200_000, 0u16..3, 0u8..2), 1..200),
            limit in 1u32..8, lane in 1u32..4,
        ) {
            let of = |(after, served, pool, lane)| (after, served, pool, if pool == 1 { lane } else { 0 });
            let arrivals: Vec<_> = arrivals.into_iter().map(of).collect();
            let totals = replayed(&recording(&arrivals), limit, lane).by_kind;
            for (key, total) in &totals {
                let came = arrivals.iter().filter(|(.., pool, lane)| (*pool, *lane) == *key).count() as u64;
                prop_assert_eq!(total.answered + total.refused + total.timed_out + total.left, came);
                let most = match key {
                    (0, _) => limit,
                    (1, 1) => lane.min(20),
                    (2, _) => 0,
                    _ => 20,
                };
                prop_assert!(total.most <= most, "{key:?} {total:?}");
            }
        }
    }
}
