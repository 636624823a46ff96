//! A model of the server: how much longer a transaction takes the more run at once.
//!
//! It is fitted to the recording: each transaction is compared with the usual time of its statement at low concurrency.
//! Beyond what was recorded, the time grows with the number of transactions, as on a server that is full.

use std::collections::HashMap;

use crate::recorder::{RecordedOutcome, RecordedTransaction};

/// Classes of concurrency: 1, 2–3, 4–7 and so on.
const CLASSES: usize = 16;

/// Samples of a statement that make it usual, and samples of a class that are looked at.
const USUAL_MAX: usize = 64;
const RATIOS_MAX: usize = 20_000;

/// Fewer say nothing about a class.
const RATIOS_MIN: usize = 20;

#[derive(Debug)]
pub(super) struct ServerModel {
    /// How many ran beside each transaction of the recording, itself included.
    concurrency: Vec<u32>,
    /// By class: how many times longer than usual.
    slower: [f64; CLASSES],
    /// The highest concurrency that was recorded.
    most: u32,
}

impl ServerModel {
    /// The model of transactions in order of arrival.
    pub(super) fn fit(transactions: &[RecordedTransaction]) -> Self {
        let (concurrency, most) = concurrency(transactions);
        let served = || {
            let all = transactions.iter().zip(&concurrency);
            all.filter(|(of, _)| of.outcome == RecordedOutcome::Served && of.served > 0)
        };
        let mut samples: HashMap<(u16, u32), (u32, Vec<u32>)> = HashMap::new();
        for (of, at) in served() {
            let (least, samples) = samples.entry((of.pool, of.digest)).or_insert((u32::MAX, Vec::new()));
            let class = class(*at) as u32;
            if class < *least {
                *least = class;
                samples.clear();
            }
            if class == *least && samples.len() < USUAL_MAX {
                samples.push(of.served);
            }
        }
        let usual: HashMap<_, _> = samples.into_iter().map(|(key, (_, mut of))| (key, median(&mut of))).collect();
        let mut ratios: [Vec<f64>; CLASSES] = Default::default();
        for (of, at) in served() {
            let ratios = &mut ratios[class(*at)];
            if ratios.len() < RATIOS_MAX {
                ratios.push(f64::from(of.served) / f64::from(usual[&(of.pool, of.digest)].max(1)));
            }
        }
        let mut slower = [1.0; CLASSES];
        let mut last: f64 = 1.0;
        for (slower, ratios) in slower.iter_mut().zip(&mut ratios) {
            if ratios.len() >= RATIOS_MIN {
                ratios.sort_by(f64::total_cmp);
                // More at once never makes one faster; what looks so is chance.
                last = last.max(ratios[ratios.len() / 2]);
            }
            *slower = last;
        }
        Self { concurrency, slower, most }
    }

    /// How many times longer than usual a transaction takes as one of so many.
    pub(super) fn slower(&self, at: u32) -> f64 {
        let at = at.max(1);
        let within = at.min(self.most);
        let (low, high) = (self.slower[class(within)], self.slower[(class(within) + 1).min(class(self.most))]);
        let part = f64::from(within) / f64::from(1u32 << class(within)) - 1.0;
        let beyond = f64::from(at) / f64::from(within);
        (low + (high - low) * part) * beyond
    }

    /// Microseconds that this transaction takes alone.
    pub(super) fn work(&self, index: usize, of: &RecordedTransaction) -> f64 {
        f64::from(of.served) / self.slower(self.concurrency[index])
    }

    /// The highest concurrency that it knows.
    pub(super) fn most(&self) -> u32 {
        self.most
    }
}

fn class(at: u32) -> usize {
    (at.max(1).ilog2() as usize).min(CLASSES - 1)
}

fn median(of: &mut [u32]) -> u32 {
    let middle = of.len() / 2;
    *of.select_nth_unstable(middle).1
}

/// How many ran while each had its backend, on average and itself included, and the most at any moment.
fn concurrency(transactions: &[RecordedTransaction]) -> (Vec<u32>, u32) {
    let served = |of: &&RecordedTransaction| of.outcome == RecordedOutcome::Served;
    let begin = |of: &RecordedTransaction| of.arrival + u64::from(of.wait);
    let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * transactions.len());
    for (index, of) in transactions.iter().enumerate().filter(|(_, of)| served(of)) {
        moments.push((begin(of), true, index));
        moments.push((begin(of) + u64::from(of.served).max(1), false, index));
    }
    moments.sort_unstable();
    let mut all = vec![1; transactions.len()];
    // The sum over time of how many run, in microseconds; of each, that at its beginning.
    let (mut sum, mut sums) = (0u64, vec![0u64; transactions.len()]);
    let (mut running, mut most, mut last) = (0u32, 1, 0);
    for (at, begins, index) in moments {
        sum += (at - last) * u64::from(running);
        last = at;
        if begins {
            running += 1;
            most = most.max(running);
            sums[index] = sum;
        } else {
            let took = u64::from(transactions[index].served).max(1);
            all[index] = (((sum - sums[index]) + took / 2) / took).max(1) as u32;
            running = running.saturating_sub(1);
        }
    }
    (all, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(arrival: u64, served: u32) -> RecordedTransaction {
        let outcome = RecordedOutcome::Served;
        RecordedTransaction { arrival, wait: 0, served, pool: 0, lane: 0, outcome, digest: 1 }
    }

    #[test]
    fn what_takes_twice_as_long_in_a_crowd_does_so_in_the_model() {
        let alone = (0..100).map(|n| transaction(n * 10_000, 1_000));
        let crowd = (0..100).flat_map(|n| (0..8).map(move |_| transaction(2_000_000 + n * 10_000, 2_000)));
        let model = ServerModel::fit(&alone.chain(crowd).collect::<Vec<_>>());
        assert_eq!(model.most(), 8);
        assert!((model.slower(1) - 1.0).abs() < 0.01 && (model.slower(8) - 2.0).abs() < 0.01);
        assert!((model.slower(16) - 4.0).abs() < 0.01, "as on a server that is full: {}", model.slower(16));
        assert!((model.work(0, &transaction(0, 1_000)) - 1_000.0).abs() < 1.0);
        assert!((model.work(100, &transaction(0, 2_000)) - 1_000.0).abs() < 1.0, "it had to share");
    }
}
