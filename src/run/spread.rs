//! As many workers as the load needs: decides how many serve, and which clients move, from how busy each worker was.
//!
//! One worker spends less on a transaction than two, since nothing changes threads and each wait brings more to do. So
//! another one joins only when one is busy for most of its time, and leaves when fewer would be half idle. Pure.

/// Above this share of its time a worker needs help.
const BUSY: f64 = 0.7;

/// Above this one there may be much more work than it shows.
const SATURATED: f64 = 0.9;

/// While all are busy for less than this share of their time, no other one joins; and one leaves if those that stay
/// would be. The two are the same number, so that nobody joins to leave again.
const CALM: f64 = 0.5;

/// Looks in a row that have to be calm before a worker leaves.
const CALM_LOOKS: u32 = 5;

/// Workers whose shares of busy time differ by less have even loads.
const EVEN: f64 = 0.2;
/// And so much more for each look at which clients moved for that.
const EVEN_STEP: f64 = 0.02;
/// A load that differs by this part is another.
const OTHER_LOAD: f64 = 0.25;

/// One worker since the last look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct WorkerLook {
    /// Its share of the time in which it was busy, 0–1.
    pub busy: f64,
    /// Clients that it served.
    pub clients: u32,
}

/// Clients that are to move, as they come to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Departure {
    pub from: usize,
    pub to: usize,
    pub clients: u32,
}

/// The decision of one look to the next.
#[derive(Debug)]
pub(super) struct Spread {
    serving: usize,
    most: usize,
    calm: u32,
    /// Looks after which clients moved between workers that serve, since the load was another.
    evened: u32,
    /// The load of all workers at the first of them.
    load: f64,
}

impl Spread {
    /// One worker of `most` serves.
    pub(super) fn new(most: usize) -> Self {
        Self { serving: 1, most, calm: 0, evened: 0, load: 0.0 }
    }

    /// Workers `0..serving` serve; the others give all their clients away.
    pub(super) fn serving(&self) -> usize {
        self.serving
    }

    /// Decides for the time until the next look. `looks`: one for each worker.
    pub(super) fn look(&mut self, looks: &[WorkerLook]) -> Vec<Departure> {
        let before = self.serving;
        let serving = &looks[..self.serving];
        let needs_help = serving.iter().any(|look| look.busy > BUSY && look.clients > 1);
        let saturated = serving.iter().filter(|look| look.busy > SATURATED && look.clients > 1).count();
        let busy: f64 = looks.iter().map(|look| look.busy).sum();
        let is_calm = busy < CALM * (self.serving - 1) as f64;
        self.calm = if is_calm { self.calm + 1 } else { 0 };
        if needs_help && busy > CALM * self.serving as f64 {
            self.serving = (self.serving + saturated.max(1)).min(self.most);
        } else if self.calm >= CALM_LOOKS {
            self.serving -= 1;
            self.calm = 0;
        }
        if self.serving != before || (busy - self.load).abs() > OTHER_LOAD * self.load {
            (self.evened, self.load) = (0, busy);
        }
        let by_load = self.by_load(looks);
        let evening = self.evening(looks, &by_load);
        self.evened += u32::from(!evening.is_empty());
        // Who rests gives everything away, each to another worker.
        let resting = (self.serving..looks.len()).zip(by_load.iter().cycle());
        let resting = resting.map(|(from, to)| Departure { from, to: *to, clients: u32::MAX });
        resting.chain(evening).collect()
    }

    /// Workers that serve, the idlest first.
    fn by_load(&self, looks: &[WorkerLook]) -> Vec<usize> {
        let mut by_load: Vec<usize> = (0..self.serving).collect();
        by_load.sort_by(|a, b| looks[*a].busy.total_cmp(&looks[*b].busy));
        by_load
    }

    /// The busiest give to those that have least to do. The longer that goes on under one load, the more they have to
    /// differ: clients that cost unlike would move to and fro.
    fn evening(&self, looks: &[WorkerLook], by_load: &[usize]) -> Vec<Departure> {
        let differ = EVEN + EVEN_STEP * f64::from(self.evened);
        let pairs = by_load.iter().zip(by_load.iter().rev()).take(self.serving / 2);
        let departures = pairs.map(|(idle, busy)| Departure {
            from: *busy,
            to: *idle,
            clients: surplus(looks[*busy], looks[*idle], differ),
        });
        departures.filter(|departure| departure.clients > 0).collect()
    }
}

/// The clients that make half the difference, if all cost alike and the difference is no smaller than `differ`. Never
/// the last one: it would take all its load along.
fn surplus(busy: WorkerLook, idle: WorkerLook, differ: f64) -> u32 {
    let difference = busy.busy - idle.busy;
    if difference < differ || busy.clients < 2 {
        return 0;
    }
    (f64::from(busy.clients) * difference / 2.0 / busy.busy) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Clients, each with the share of one worker's time that it takes, and the worker it is at.
    struct LoadModel {
        clients: Vec<(f64, usize)>,
        workers: usize,
    }

    impl LoadModel {
        fn look(&self) -> Vec<WorkerLook> {
            let mut looks = vec![WorkerLook { busy: 0.0, clients: 0 }; self.workers];
            for (share, at) in &self.clients {
                looks[*at].busy += share;
                looks[*at].clients += 1;
            }
            // A worker cannot be busy for more than all of its time.
            looks.iter_mut().for_each(|look| look.busy = look.busy.min(1.0));
            looks
        }

        /// Moves the first that rest; returns how many moved.
        fn carry_out(&mut self, departures: &[Departure], turn: usize) -> u32 {
            let mut moved = 0;
            for departure in departures {
                let mut left = departure.clients;
                let count = self.clients.len();
                for i in 0..count {
                    let client = &mut self.clients[(i + turn) % count];
                    if client.1 == departure.from && left > 0 {
                        client.1 = departure.to;
                        (left, moved) = (left - 1, moved + 1);
                    }
                }
            }
            moved
        }
    }

    /// Looks so many times; returns how many clients moved in the second half of them.
    fn settle(spread: &mut Spread, load: &mut LoadModel, looks: usize) -> u32 {
        (0..looks)
            .map(|turn| {
                let departures = spread.look(&load.look());
                load.carry_out(&departures, turn * 7)
            })
            .skip(looks / 2)
            .sum()
    }

    #[test]
    fn one_serves_what_one_can_carry() {
        let mut spread = Spread::new(8);
        let mut load = LoadModel { clients: vec![(0.02, 0); 30], workers: 8 };
        assert_eq!(settle(&mut spread, &mut load, 100), 0);
        assert_eq!(spread.serving(), 1);
    }

    #[test]
    fn a_flood_has_all_workers_within_four_looks() {
        let mut spread = Spread::new(8);
        let mut load = LoadModel { clients: vec![(0.1, 0); 80], workers: 8 };
        settle(&mut spread, &mut load, 4);
        assert_eq!(spread.serving(), 8);
        settle(&mut spread, &mut load, 20);
        assert!(load.look().iter().all(|look| (8..=12).contains(&look.clients)), "{:?}", load.look());
    }

    #[test]
    fn one_client_alone_never_moves_however_busy_it_is() {
        let mut spread = Spread::new(4);
        let mut load = LoadModel { clients: vec![(1.0, 0)], workers: 4 };
        assert_eq!(settle(&mut spread, &mut load, 50), 0);
        assert_eq!(spread.serving(), 1);
    }

    #[test]
    fn a_moment_of_calm_moves_nobody_and_a_longer_one_gathers_all() {
        let mut spread = Spread::new(2);
        let mut load = LoadModel { clients: vec![(0.05, 0); 30], workers: 2 };
        settle(&mut spread, &mut load, 10);
        assert_eq!(spread.serving(), 2);
        let calm = vec![WorkerLook { busy: 0.1, clients: 10 }; 2];
        (0..CALM_LOOKS - 1).for_each(|_| assert_eq!(spread.look(&calm), []));
        settle(&mut spread, &mut load, 1);
        assert_eq!(spread.serving(), 2);
        load.clients.iter_mut().for_each(|client| client.0 = 0.001);
        settle(&mut spread, &mut load, 10);
        assert_eq!(spread.serving(), 1);
        assert!(load.clients.iter().all(|client| client.1 == 0));
    }

    proptest! {
        #[test]
        fn any_load_comes_to_rest_on_enough_workers(
            shares in prop::collection::vec(0.001_f64..0.4, 1..200),
            most in 1_usize..9,
            calmer in 0.0_f64..1.0,
        ) {
            let mut spread = Spread::new(most);
            let mut load = LoadModel { clients: shares.iter().map(|share| (*share, 0)).collect(), workers: most };
            for factor in [1.0, calmer] {
                load.clients.iter_mut().for_each(|client| client.0 *= factor);
                let moved = settle(&mut spread, &mut load, 400);
                prop_assert_eq!(moved, 0, "clients move for ever");
                let looks = load.look();
                let (serving, total) = (spread.serving(), load.clients.iter().map(|client| client.0).sum::<f64>());
                let is_overloaded = looks.iter().any(|look| look.busy > BUSY && look.clients > 1);
                let busy: f64 = looks.iter().map(|look| look.busy).sum();
                let is_full = serving == most || busy <= CALM * serving as f64;
                prop_assert!(!is_overloaded || is_full, "{:?}", looks);
                prop_assert!(looks[serving..].iter().all(|look| look.clients == 0));
                prop_assert!(serving == 1 || total >= CALM * (serving - 1) as f64);
            }
        }
    }
}
