//! Instances that come and go at random, with a server that may be away: their parts never add up to more than the
//! limit and one for each newcomer, and soon after the last change to the limit.

use super::*;
use proptest::prelude::*;

/// The step of the clock; every instance looks once in [`EVERY`], each at an offset of its own.
const STEP: Duration = Duration::from_millis(100);

/// In steps, the time in which everybody has settled whatever came before.
const CALM: usize = 40;

#[derive(Debug, Clone)]
enum Operation {
    Join,
    /// One ends, with its connection.
    Leave(usize),
    /// The server does not answer anybody for so many steps. Nobody comes or goes then: who would not be let in.
    Away(u8),
    /// Time passes.
    Steps(u8),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        2 => Just(Operation::Join),
        2 => (0..8_usize).prop_map(Operation::Leave),
        // One that hides a look of everybody.
        1 => (10..80_u8).prop_map(Operation::Away),
        6 => (1..30_u8).prop_map(Operation::Steps),
    ]
}

struct Model {
    now: Instant,
    step: u32,
    instances: Vec<(FleetCount, u32)>,
    next: InstanceId,
    database: Arc<str>,
    limit: u32,
}

impl Model {
    fn join(&mut self) {
        if self.instances.len() < 8 {
            // Ids come in no order.
            let me = self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.next += 1;
            self.instances.push((FleetCount::new(me), self.step));
        }
    }

    fn pass(&mut self, is_away: bool) {
        self.now += STEP;
        self.step += 1;
        let there: BTreeSet<_> = self.instances.iter().map(|(count, _)| count.me).collect();
        let every = u32::try_from(EVERY.as_millis() / STEP.as_millis()).unwrap();
        for (count, offset) in &mut self.instances {
            if !is_away && (self.step - *offset).is_multiple_of(every) {
                count.saw(&self.database, &there, self.now);
            }
        }
        // The one transaction of a newcomer that the others have not seen yet comes on top.
        let newcomers = self.shares().into_iter().filter(|share| *share == FleetShare::Smallest).count();
        let most = self.limit + u32::try_from(newcomers).unwrap();
        assert!(self.sum() <= most, "{} of {}: {:?}", self.sum(), self.limit, self.shares());
        assert!(self.shares().iter().all(|share| share.of(self.limit) >= 1), "somebody starves");
    }

    fn shares(&self) -> Vec<FleetShare> {
        self.instances.iter().map(|(count, _)| count.share()).collect()
    }

    fn sum(&self) -> u32 {
        self.shares().iter().map(|share| share.of(self.limit)).sum()
    }
}

proptest! {
    #[test]
    fn parts_never_add_up_to_more_than_the_limit_and_none_is_lost(
        limit in 8..60_u32,
        operations in proptest::collection::vec(operation(), 1..60),
    ) {
        let now = Instant::now();
        let mut model = Model { now, step: 0, instances: Vec::new(), next: 1, database: "app".into(), limit };
        model.join();
        for operation in operations {
            match operation {
                Operation::Join => model.join(),
                Operation::Leave(which) if model.instances.len() > 1 => {
                    let which = which % model.instances.len();
                    model.instances.swap_remove(which);
                }
                Operation::Leave(_) => {}
                Operation::Away(steps) => (0..steps).for_each(|_| model.pass(true)),
                Operation::Steps(steps) => (0..steps).for_each(|_| model.pass(false)),
            }
        }
        (0..CALM).for_each(|_| model.pass(false));
        prop_assert_eq!(model.sum(), limit);
    }
}

fn seen(members: &[InstanceId]) -> BTreeSet<InstanceId> {
    members.iter().copied().collect()
}

// The other has not looked since the newcomer was there.
#[test]
fn a_time_without_looks_settles_nobody() {
    let (mut count, app, now) = (FleetCount::new(2), Arc::from("app"), Instant::now());
    count.saw(&app, &seen(&[1, 2]), now);
    count.saw(&app, &seen(&[1, 2]), now + EVERY * 8);
    assert_eq!(count.share(), FleetShare::Smallest);
    count.saw(&app, &seen(&[1, 2]), now + EVERY * 9);
    count.saw(&app, &seen(&[1, 2]), now + EVERY * 10);
    assert_eq!(count.share(), FleetShare::Part { rank: 1, of: 2 });
}

#[test]
fn a_connection_that_comes_back_at_once_was_never_gone() {
    let (mut count, app, now) = (FleetCount::new(1), Arc::from("app"), Instant::now());
    let at = |step: u32| now + EVERY * step;
    (0..3).for_each(|step| count.saw(&app, &seen(&[1, 2]), at(step)));
    assert_eq!(count.share(), FleetShare::Part { rank: 0, of: 2 });
    count.saw(&app, &seen(&[1]), at(3));
    assert_eq!(count.share(), FleetShare::Part { rank: 0, of: 2 });
    count.saw(&app, &seen(&[1, 2]), at(4));
    count.saw(&app, &seen(&[1]), at(5));
    count.saw(&app, &seen(&[1]), at(6));
    assert_eq!(count.share(), FleetShare::Part { rank: 0, of: 2 });
    count.saw(&app, &seen(&[1]), at(7));
    assert_eq!(count.share(), FleetShare::Part { rank: 0, of: 1 });
}

#[test]
fn who_is_seen_at_any_server_counts_until_that_is_watched_no_more() {
    let (mut count, now) = (FleetCount::new(2), Instant::now());
    let (app, reports) = (Arc::from("app"), Arc::from("reports"));
    for step in 0..3 {
        count.saw(&app, &seen(&[2]), now + EVERY * step);
        count.saw(&reports, &seen(&[1, 2]), now + EVERY * step);
    }
    assert_eq!(count.share(), FleetShare::Part { rank: 1, of: 2 });
    count.forget("reports");
    assert_eq!(count.share(), FleetShare::Part { rank: 0, of: 1 });
}

#[test]
fn who_is_not_counted_itself_keeps_to_what_it_knew() {
    let (mut count, app, now) = (FleetCount::new(1), Arc::from("app"), Instant::now());
    assert_eq!(count.share(), FleetShare::Smallest);
    (0..3).for_each(|step| count.saw(&app, &seen(&[1, 2]), now + EVERY * step));
    // Its own connection is not seen: somebody ended it, and another will be there in a moment.
    count.saw(&app, &seen(&[2]), now + EVERY * 3);
    assert_eq!(count.share(), FleetShare::Part { rank: 0, of: 2 });
}
