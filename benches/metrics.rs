//! What counting costs a transaction of one query that finds an idle backend: all that is recorded on its way, with the
//! clock.

use std::time::Duration;

use divan::{Bencher, black_box};
use pgweir::testing::metrics::{PoolCounter, PoolStats};
use pgweir::testing::session::stopwatch::Stopwatch;
use pgweir::testing::wire::expected::TransactionStatus;
use tokio::time::Instant;

fn main() {
    divan::main();
}

#[divan::bench]
fn count_a_transaction(bencher: Bencher<'_, '_>) {
    let stats = PoolStats::new(4);
    bencher.bench_local(|| {
        let counters = black_box(&stats).worker(black_box(1));
        counters.add_many(PoolCounter::Received, black_box(30));
        let began = Instant::now();
        let mut stopwatch = Stopwatch::default();
        stopwatch.begin(began);
        let ended = Instant::now();
        let lap = stopwatch.end(ended, black_box(TransactionStatus::Idle), black_box(false));
        counters.cycle(lap.cycle, lap.transaction);
        counters.add_many(PoolCounter::Sent, black_box(80));
        counters.leased(black_box(ended - began));
    });
}

/// Of the above, the two looks at the clock.
#[divan::bench]
fn look_at_the_clock_twice(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| black_box((Instant::now(), Instant::now())));
}

/// What one scrape takes of a pool, on the thread that answers it.
#[divan::bench]
fn sum_a_pool_up(bencher: Bencher<'_, '_>) {
    let stats = PoolStats::new(4);
    stats.worker(0).leased(Duration::from_millis(3));
    bencher.bench_local(|| black_box(&stats).totals());
}
