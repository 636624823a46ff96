//! Instances, each with a clock of its own, around one book that may be away, forget everything, or be told a time that
//! jumps: what they let in together is never above the limit, no part of it is lost, and nobody starves.

use super::super::book::LeaseBook;
use super::super::{LeaseRequest, LeaseWant};
use super::*;
use proptest::prelude::*;

const STEP: Duration = Duration::from_millis(50);

/// An instance asks this often, in steps: at most so long under load, and again after a failure.
const EVERY: u32 = 5;

/// In steps, the time in which everybody has what is due to it, whatever came before.
const CALM: u32 = 240;

/// In steps: shorter than a lease, so that whoever is cut off alone falls back to no part that others have.
const CUT_MAX: u32 = 60;

/// In steps, the time in which everybody gives up what the book has found to be too much: two requests.
const SETTLED: u32 = 3 * EVERY;

#[derive(Debug, Clone)]
enum Operation {
    Join,
    /// One is killed: what it had ends with it.
    Kill(usize),
    /// One leaves, and says so.
    Leave(usize),
    /// One stands still for so many steps, with what it had under way.
    Pause(usize, u32),
    /// One does not reach the book for so many steps.
    CutOff(usize, u32),
    /// An answer to one is lost, so many times.
    Deaf(usize, u32),
    /// The book is away for everybody.
    Away(u32),
    /// The book forgets everything.
    Flush,
    /// The clock of the book jumps by so many milliseconds.
    Jump(i64),
    /// One wants so much.
    Want(usize, u32),
    /// Time passes.
    Steps(u32),
}

fn operation() -> impl Strategy<Value = Operation> {
    let which = || 0..6_usize;
    prop_oneof![
        3 => Just(Operation::Join),
        1 => which().prop_map(Operation::Kill),
        1 => which().prop_map(Operation::Leave),
        2 => (which(), 1..300_u32).prop_map(|(which, steps)| Operation::Pause(which, steps)),
        2 => (which(), 1..CUT_MAX).prop_map(|(which, steps)| Operation::CutOff(which, steps)),
        1 => (which(), 1..5_u32).prop_map(|(which, times)| Operation::Deaf(which, times)),
        2 => (1..400_u32).prop_map(Operation::Away),
        1 => Just(Operation::Flush),
        1 => (-10_000..10_000_i64).prop_map(Operation::Jump),
        8 => (which(), 0..60_u32).prop_map(|(which, want)| Operation::Want(which, want)),
        8 => (1..60_u32).prop_map(Operation::Steps),
    ]
}

struct Instance {
    id: String,
    holder: LeaseHolder,
    /// Its clock, in thousandths of the real one.
    pace: u64,
    offset: u32,
    want: u32,
    /// Transactions that it has let in, each with the steps until its end.
    running: Vec<u32>,
    /// What ran when it stood still.
    leftover: u32,
    paused: u32,
    cut: u32,
    deaf: u32,
    lapses: Option<Instant>,
    /// Until this step one transaction of it may be above the limit: it came while the book was new or away.
    newcomer_until: u32,
}

struct Model {
    start: Instant,
    steps: u32,
    wall: Duration,
    away: u32,
    book: LeaseBook,
    instances: Vec<Instance>,
    next: u64,
    limit: u32,
}

impl Model {
    fn new(limit: u32) -> Self {
        let mut model = Self {
            start: Instant::now(),
            steps: 0,
            wall: Duration::from_secs(1_000_000),
            away: 0,
            book: LeaseBook::default(),
            instances: Vec::new(),
            next: 1,
            limit,
        };
        model.join();
        model
    }

    fn join(&mut self) {
        if self.instances.len() < 6 {
            let id = format!("{:016x}", self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            self.instances.push(Instance {
                id,
                holder: LeaseHolder::default(),
                pace: 980 + self.next % 5 * 10,
                offset: (self.next % u64::from(EVERY)) as u32,
                want: 0,
                running: Vec::new(),
                leftover: 0,
                paused: 0,
                cut: 0,
                deaf: 0,
                lapses: None,
                newcomer_until: 0,
            });
            self.next += 1;
        }
    }

    fn pass(&mut self) {
        self.steps += 1;
        self.wall += STEP;
        self.away = self.away.saturating_sub(1);
        for i in 0..self.instances.len() {
            self.step(i);
        }
        let newcomers = self.instances.iter().filter(|one| self.steps < one.newcomer_until).count() as u32;
        let active: u32 = self.instances.iter().map(|one| one.running.len() as u32).sum();
        assert!(active <= self.limit + newcomers, "{active} of {} with {newcomers} newcomers", self.limit);
    }

    fn step(&mut self, i: usize) {
        let elapsed = STEP * self.steps;
        let one = &mut self.instances[i];
        if one.paused > 0 {
            one.paused -= 1;
            return;
        }
        let now = self.start + Duration::from_micros(elapsed.as_micros() as u64 * one.pace / 1000);
        one.running.retain_mut(|left| {
            *left -= 1;
            *left > 0
        });
        one.leftover = one.leftover.saturating_sub(1);
        // Its queries go on at once after a pause; whoever keeps the share comes a moment later.
        one.let_in(self.limit, now);
        one.lapses = Some(one.holder.apply(now).1);
        one.cut = one.cut.saturating_sub(1);
        if (self.steps + one.offset).is_multiple_of(EVERY) {
            self.ask(i, now);
        }
        self.instances[i].let_in(self.limit, now);
    }

    fn ask(&mut self, i: usize, now: Instant) {
        let limit = self.limit;
        let one = &mut self.instances[i];
        if self.away > 0 || one.cut > 0 {
            return one.fail(now);
        }
        let used = one.running.len() as u32 + one.leftover;
        let (cap, want) = (one.cap(limit, now), one.want.max(used));
        let wants = [("limit".to_owned(), LeaseWant { limit, want, cap, used })].into();
        let request = LeaseRequest { seq: one.holder.next_seq(), weight: 1, knows: one.holder.knows(), wants };
        let answer = self.book.refresh(&one.id, &request, self.wall).expect("the latest");
        if one.deaf > 0 {
            one.deaf -= 1;
            return one.fail(now);
        }
        if answer.learns && cap == 0 {
            one.newcomer_until = u32::MAX;
        } else if !answer.learns && one.newcomer_until == u32::MAX {
            one.newcomer_until = self.steps + SETTLED;
        }
        one.holder.answered(&answer, now);
        one.lapses = Some(one.holder.apply(now).1);
    }

    fn is_well(&self) -> bool {
        self.away == 0 && self.instances.iter().all(Instance::is_well)
    }

    fn caps(&self) -> Vec<u32> {
        let real = STEP * self.steps;
        let now = |one: &Instance| self.start + Duration::from_micros(real.as_micros() as u64 * one.pace / 1000);
        self.instances.iter().map(|one| one.cap(self.limit, now(one))).collect()
    }
}

impl Instance {
    fn cap(&self, limit: u32, now: Instant) -> u32 {
        if self.lapses.is_none_or(|then| now >= then) {
            return 0;
        }
        self.holder.share("limit", limit, now).of(limit)
    }

    fn is_well(&self) -> bool {
        self.paused == 0 && self.cut == 0 && self.deaf == 0 && self.holder.lost_since().is_none()
    }

    fn fail(&mut self, now: Instant) {
        self.holder.failed(now);
        if self.holder.knows() == 0 {
            self.newcomer_until = u32::MAX;
        }
    }

    fn let_in(&mut self, limit: u32, now: Instant) {
        let most = self.cap(limit, now).min(self.want);
        while (self.running.len() as u32 + self.leftover) < most {
            self.running.push(1 + self.running.len() as u32 % 7);
        }
    }
}

fn run(model: &mut Model, operation: Operation) {
    let count = model.instances.len();
    let of = |which: usize| which % count;
    match operation {
        Operation::Join => model.join(),
        Operation::Kill(which) if count > 1 => drop(model.instances.swap_remove(of(which))),
        Operation::Leave(which) if count > 1 => {
            let gone = model.instances.swap_remove(of(which));
            if model.away == 0 && gone.cut == 0 && gone.paused == 0 {
                model.book.leave(&gone.id, model.wall);
            }
        }
        Operation::Kill(_) | Operation::Leave(_) => {}
        // One trouble after the other: several may make one look to the book as if it were gone while it is not.
        Operation::Pause(which, _) | Operation::CutOff(which, _) | Operation::Deaf(which, _)
            if !model.instances[of(which)].is_well() => {}
        Operation::Away(_) if !model.is_well() => {}
        Operation::Pause(which, steps) => {
            let paused = &mut model.instances[of(which)];
            paused.paused = steps;
            paused.leftover += paused.running.len() as u32;
            paused.running.clear();
        }
        Operation::CutOff(which, steps) => model.instances[of(which)].cut = steps,
        Operation::Deaf(which, times) => model.instances[of(which)].deaf = times,
        Operation::Away(steps) => model.away = steps,
        Operation::Flush => model.book = LeaseBook::default(),
        // The book sees it: a jump back beside a time without members would hide that time.
        Operation::Jump(millis) if model.is_well() => {
            model.wall = Duration::from_millis(model.wall.as_millis().saturating_add_signed(millis.into()) as u64);
            (0..EVERY).for_each(|_| model.pass());
        }
        Operation::Jump(_) => {}
        Operation::Want(which, want) => model.instances[of(which)].want = want,
        Operation::Steps(steps) => (0..steps).for_each(|_| model.pass()),
    }
}

proptest! {
    #[test]
    fn transactions_are_never_more_than_the_limit_and_no_share_is_lost(
        limit in 6..60_u32,
        operations in proptest::collection::vec(operation(), 1..60),
    ) {
        let mut model = Model::new(limit);
        for operation in operations {
            run(&mut model, operation);
            model.pass();
        }
        model.away = 0;
        for one in &mut model.instances {
            (one.paused, one.cut, one.deaf, one.want) = (0, 0, 0, limit + 1);
        }
        (0..CALM).for_each(|_| model.pass());
        let (caps, count) = (model.caps(), model.instances.len() as u32);
        prop_assert_eq!(caps.iter().sum::<u32>(), limit, "{:?}", &caps);
        prop_assert!(caps.iter().max().unwrap() - caps.iter().min().unwrap() <= 1, "{:?}", &caps);
        // One is busy, the others are not: all but one each is its own within a second.
        model.instances.iter_mut().skip(1).for_each(|one| one.want = 0);
        (0..20).for_each(|_| model.pass());
        prop_assert_eq!(model.caps()[0], limit - (count - 1));
    }
}

#[test]
fn everybody_has_a_turn_where_there_are_fewer_places_than_instances() {
    let mut model = Model::new(2);
    (0..4).for_each(|_| model.join());
    model.instances.iter_mut().for_each(|one| one.want = 3);
    (0..CALM).for_each(|_| model.pass());
    let mut had = [false; 5];
    for _ in 0..20 * 6 {
        model.pass();
        model.caps().iter().zip(&mut had).for_each(|(cap, had)| *had |= *cap > 0);
    }
    assert_eq!(had, [true; 5]);
}

#[test]
fn grant_is_not_used_after_a_pause_however_long_the_book_keeps_it() {
    let (start, mut holder) = (Instant::now(), LeaseHolder::default());
    let grants = [("limit".to_owned(), super::super::Grant { most: 7, limit: 9 })].into();
    holder.answered(&BookAnswer { learns: false, knows: 3, grants }, start);
    assert_eq!(holder.apply(start), (LeaseState::Granted, start + USE));
    assert_eq!(holder.share("limit", 9, start + USE / 2).of(9), 7);
    let woken = start + Duration::from_secs(10);
    assert_eq!(holder.apply(woken).0, LeaseState::Lapsed);
    assert_eq!(holder.share("limit", 9, woken).of(9), 0);
    // The book is away, as others know for longer than we.
    holder.failed(woken);
    assert_eq!(holder.apply(woken).0, LeaseState::Lapsed);
    assert_eq!(holder.share("limit", 9, woken + TTL).of(9), 1);
}

#[test]
fn book_that_is_lost_leaves_an_even_part_once_nobody_has_more() {
    let (start, mut holder) = (Instant::now(), LeaseHolder::default());
    holder.failed(start);
    assert_eq!((holder.state(start), holder.share("limit", 9, start).of(9)), (LeaseState::Smallest, 1));
    let grants = [("limit".to_owned(), super::super::Grant { most: 8, limit: 9 })].into();
    holder.answered(&BookAnswer { learns: false, knows: 3, grants }, start);
    let lost = start + Duration::from_millis(500);
    holder.failed(lost);
    let of_nine = |after: Duration| holder.share("limit", 9, start + after).of(9);
    let millis = Duration::from_millis;
    assert_eq!([600, 3999, 4000, 5499, 5500, 60_000].map(|after| of_nine(millis(after))), [8, 8, 3, 3, 3, 3]);
    let state = |after| holder.state(start + millis(after));
    assert_eq!([3999, 4000, 5500].map(state), [LeaseState::Granted, LeaseState::Shrunk, LeaseState::Even]);
}
