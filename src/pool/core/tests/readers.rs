//! Databases that are read from several servers.

use super::*;
use crate::config::LoadBalance;
use crate::pool::host_port::{HostPort, ServerTarget};

fn target(n: u16) -> ServerTarget {
    ServerTarget { host: HostPort { host: "reader".to_owned(), port: n }, address: None }
}

fn spec(n: u16, duty: ReaderDuty) -> ReaderSpec {
    ReaderSpec { target: target(n), duty, is_preferred: false }
}

fn reads(servers: &[u16]) -> Vec<ReaderSpec> {
    servers.iter().map(|n| spec(*n, ReaderDuty::Reads)).collect()
}

const LEAST: ReaderRules = ReaderRules { load_balance: LoadBalance::Least, fallback_max: 0 };

impl Shell {
    fn set_readers(&mut self, database: DatabaseId, rules: ReaderRules, specs: Vec<ReaderSpec>) {
        self.run(|core, now, out| core.set_readers(database, rules, specs, now, out));
    }

    fn reader(&self, database: DatabaseId, n: u16) -> ReaderView {
        let readers = self.core.readers(database, self.now).into_iter();
        readers.into_iter().find(|view| *view.target == target(n)).expect("a reader")
    }

    fn at(&self, held: &Held) -> u16 {
        let slot = &self.core.slots[held.0];
        let database = self.core.pools[slot.pool].database;
        let readers = self.core.databases[database].readers.as_ref().expect("readers");
        readers.target(slot.reader.expect("a reader")).expect("known").host.port
    }

    fn live(&self, database: DatabaseId, servers: &[u16]) -> Vec<u32> {
        servers.iter().map(|n| self.reader(database, *n).counts.live()).collect()
    }

    fn open_in_order(&mut self) {
        while !self.dials.is_empty() {
            let (_, slot) = self.dials.remove(0);
            let backend = self.dialled * 100 + self.dials.len() as u32;
            self.run(|core, now, out| core.opened(slot, backend, OWN, now, out));
        }
    }

    fn hold_in_order(&mut self, pool: PoolId, count: usize) -> Vec<Held> {
        let tickets: Vec<_> = (0..count).map(|_| self.wait(pool)).collect();
        self.open_in_order();
        tickets.into_iter().map(|ticket| self.served(ticket)).collect()
    }

    /// Time passes in ticks, and servers answer and close as they do.
    fn live_through(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / 100 {
            self.pass(ms(100));
            self.open_in_order();
            self.finish_closes();
        }
    }

    fn fail_dials_of(&mut self, database: DatabaseId, n: u16) {
        for (pool, slot) in std::mem::take(&mut self.dials) {
            let is_it = self.at(&(slot, 0)) == n;
            assert_eq!(self.core.pools[pool].database, database);
            if is_it {
                self.run(|core, now, out| core.failed(slot, FailureKind::Unreachable, now, out));
            } else {
                self.dials.push((pool, slot));
            }
        }
    }
}

fn with_readers(size: u32, rules: ReaderRules, servers: &[u16]) -> (Shell, DatabaseId, PoolId) {
    let (mut shell, database, pool) = Shell::with_pool(size);
    shell.set_readers(database, rules, reads(servers));
    shell.pass(ms(5000));
    (shell, database, pool)
}

#[test]
fn backends_are_opened_and_lent_where_the_fewest_are_active() {
    let (mut shell, database, pool) = with_readers(6, LEAST, &[1, 2, 3]);
    let held = shell.hold_in_order(pool, 6);
    assert_eq!(shell.live(database, &[1, 2, 3]), [2, 2, 2]);
    // Both of the first are free, and one of the second: the first has fewest at work.
    for held in held.into_iter().filter(|held| shell.at(held) != 3).collect::<Vec<_>>() {
        shell.release(held);
    }
    let again = [(); 4].map(|()| shell.ready(pool));
    let mut at = again.iter().map(|held| shell.at(held)).collect::<Vec<_>>();
    at[..2].sort_unstable();
    assert_eq!(at[..2], [1, 2], "never two in a row of one while another has fewer");
    assert_eq!(shell.reader(database, 1).counts.leased, 2);
}

#[test]
fn without_load_readers_take_turns() {
    for load_balance in [LoadBalance::Least, LoadBalance::RoundRobin] {
        let (mut shell, _, pool) = with_readers(3, ReaderRules { load_balance, fallback_max: 0 }, &[1, 2, 3]);
        for held in shell.hold_in_order(pool, 3) {
            shell.release(held);
        }
        let mut lent = Vec::new();
        for _ in 0..6 {
            let held = shell.ready(pool);
            lent.push(shell.at(&held));
            shell.release(held);
        }
        assert_eq!(lent[..3], lent[3..]);
        lent.truncate(3);
        lent.sort_unstable();
        assert_eq!(lent, [1, 2, 3]);
    }
}

#[test]
fn in_order_the_first_has_everything_until_it_is_down() {
    let rules = ReaderRules { load_balance: LoadBalance::Order, fallback_max: 0 };
    let (mut shell, database, pool) = with_readers(4, rules, &[2, 1]);
    let mut held = shell.hold_in_order(pool, 2);
    assert_eq!(shell.live(database, &[2, 1]), [2, 0]);
    let _third = shell.wait(pool);
    shell.fail_dials_of(database, 2);
    assert_eq!(shell.reader(database, 2).state, ReaderState::Down);
    shell.open_in_order();
    assert_eq!(shell.live(database, &[1]), [1]);
    // What the first has comes back and is closed: the second is there.
    shell.release(held.pop().expect("held"));
    assert_eq!(shell.closes.len(), 1);
}

#[test]
fn a_new_reader_enters_little_by_little_and_has_its_part_within_five_seconds() {
    let (mut shell, database, pool) = with_readers(24, LEAST, &[1, 2]);
    let mut held = shell.hold_in_order(pool, 24);
    assert_eq!(shell.live(database, &[1, 2]), [12, 12]);
    shell.set_readers(database, LEAST, reads(&[1, 2, 3]));
    let mut most = 0;
    for step in 0..50 {
        let before = shell.reader(database, 3).counts.live();
        // A client ends its transaction, and another begins.
        shell.release(held.remove(0));
        shell.live_through(ms(100));
        match shell.lease(pool) {
            LeaseAnswer::Ready(slot, backend) => held.push((slot, backend)),
            LeaseAnswer::Wait(ticket) => {
                shell.live_through(ms(100));
                held.push(shell.served(ticket));
            }
            LeaseAnswer::Failed(error) => panic!("{error}"),
        }
        most = most.max(shell.reader(database, 3).counts.live().saturating_sub(before));
        if step == 3 {
            assert_eq!(shell.reader(database, 3).state, ReaderState::Entering);
        }
    }
    assert!(most <= 2, "it was flooded: {most} at once");
    assert_eq!(shell.live(database, &[1, 2, 3]), [8, 8, 8]);
    assert_eq!(shell.reader(database, 3).state, ReaderState::Used);
}

#[test]
fn a_reader_that_drains_gets_nothing_and_ends_with_what_it_has() {
    let (mut shell, database, pool) = with_readers(4, LEAST, &[1, 2]);
    let held = shell.hold_in_order(pool, 4);
    let (drained, others): (Vec<_>, Vec<_>) = held.into_iter().partition(|held| shell.at(held) == 1);
    let [leased, idle] = drained[..] else { panic!("two each") };
    shell.release(idle);
    shell.set_readers(database, LEAST, vec![spec(1, ReaderDuty::Drains), spec(2, ReaderDuty::Reads)]);
    assert_eq!(shell.closes.len(), 1, "the idle one");
    shell.release(leased);
    assert_eq!(shell.closes.len(), 2, "the leased one as it came back");
    shell.finish_closes();
    let again = [shell.wait(pool), shell.wait(pool)];
    shell.open_in_order();
    for ticket in again {
        let held = shell.served(ticket);
        assert_eq!(shell.at(&held), 2);
    }
    // It is not named any more, and forgotten.
    shell.set_readers(database, LEAST, reads(&[2]));
    assert_eq!(shell.core.readers(database, shell.now).len(), 1);
    drop(others);
}

#[test]
fn a_backend_promised_as_its_reader_drains_is_not_lent() {
    let (mut shell, database, pool) = with_readers(1, LEAST, &[1]);
    let held = shell.hold_in_order(pool, 1).remove(0);
    let waiter = shell.wait(pool);
    shell.release(held);
    shell.set_readers(database, LEAST, vec![spec(1, ReaderDuty::Drains), spec(2, ReaderDuty::Reads)]);
    shell.pending(waiter);
    shell.finish_closes();
    shell.open_in_order();
    let held = shell.served(waiter);
    assert_eq!(shell.at(&held), 2);
}

#[test]
fn busy_is_never_dead_and_one_prober_sees_whether_a_reader_is_back() {
    let (mut shell, database, pool) = with_readers(8, LEAST, &[1, 2]);
    let tickets = [shell.wait(pool), shell.wait(pool)];
    for (_, slot) in std::mem::take(&mut shell.dials) {
        let kind = if shell.at(&(slot, 0)) == 1 { FailureKind::Busy } else { FailureKind::Unreachable };
        shell.run(|core, now, out| core.failed(slot, kind, now, out));
    }
    assert_eq!(shell.reader(database, 1).state, ReaderState::Used);
    assert_eq!(shell.reader(database, 2).state, ReaderState::Down);
    for _ in 0..20 {
        shell.pass(ms(100));
        let probes = shell.dials.iter().filter(|(_, slot)| shell.at(&(*slot, 0)) == 2).count();
        assert!(probes <= 1, "{probes}");
    }
    shell.open_in_order();
    assert_ne!(shell.reader(database, 2).state, ReaderState::Down);
    for ticket in tickets {
        shell.served(ticket);
    }
}

#[test]
fn without_a_reader_the_primary_stands_in_after_a_second_and_no_further_than_allowed() {
    let rules = ReaderRules { fallback_max: 2, ..LEAST };
    let (mut shell, database, pool) = with_readers(8, rules, &[1]);
    let stands_in = |duty| vec![spec(1, duty), spec(9, ReaderDuty::StandsIn)];
    shell.set_readers(database, rules, stands_in(ReaderDuty::Drains));
    let tickets = [(); 4].map(|()| shell.wait(pool));
    shell.pass(ms(900));
    assert!(shell.dials.is_empty(), "too early");
    shell.live_through(ms(1000));
    assert_eq!(shell.live(database, &[9]), [2]);
    let held = [shell.served(tickets[0]), shell.served(tickets[1])];
    shell.pending(tickets[2]);
    // A reader is back: the primary has nothing more to do.
    shell.set_readers(database, rules, stands_in(ReaderDuty::Reads));
    for held in held {
        shell.release(held);
    }
    shell.live_through(ms(500));
    assert_eq!(shell.live(database, &[9]), [0]);
    let held = shell.served(tickets[2]);
    assert_eq!(shell.at(&held), 1);
}

#[test]
fn waiters_without_a_reader_fail_after_connect_timeout_and_say_so() {
    let (mut shell, database, pool) = with_readers(2, LEAST, &[1]);
    shell.set_readers(database, LEAST, vec![spec(1, ReaderDuty::Drains)]);
    let waiter = shell.wait(pool);
    shell.pass(ms(4900));
    shell.pending(waiter);
    shell.pass(ms(200));
    shell.failed(waiter, WaitError::NoReader);
    assert!(matches!(shell.core.database(database).expect("there").endpoint, EndpointView::Down(_)));
}

#[test]
fn a_preferred_reader_is_used_before_others_and_they_while_it_is_down() {
    let near = |n| ReaderSpec { is_preferred: true, ..spec(n, ReaderDuty::Reads) };
    let (mut shell, database, pool) = Shell::with_pool(4);
    shell.set_readers(database, LEAST, vec![spec(1, ReaderDuty::Reads), near(2), near(3)]);
    shell.pass(ms(5000));
    let held = shell.hold_in_order(pool, 4);
    assert_eq!(shell.live(database, &[1, 2, 3]), [0, 2, 2]);
    assert_eq!(shell.reader(database, 1).state, ReaderState::Spare);
    shell.set_readers(
        database,
        LEAST,
        vec![spec(1, ReaderDuty::Reads), spec(2, ReaderDuty::Drains), spec(3, ReaderDuty::Drains)],
    );
    for held in held {
        shell.release(held);
    }
    shell.live_through(ms(500));
    shell.hold_in_order(pool, 4);
    assert_eq!(shell.live(database, &[1, 2, 3]), [4, 0, 0]);
}

#[test]
fn a_database_that_is_read_from_one_place_again_forgets_its_readers() {
    let (mut shell, database, pool) = with_readers(2, LEAST, &[1, 2]);
    let held = shell.hold_in_order(pool, 2);
    shell.run(|core, now, out| core.end_readers(database, now, out));
    for held in held {
        shell.release(held);
    }
    shell.finish_closes();
    let waiter = shell.wait(pool);
    shell.open_in_order();
    let (slot, _) = shell.served(waiter);
    assert_eq!(shell.core.slots[slot].reader, None);
    assert!(shell.core.readers(database, shell.now).is_empty());
}
