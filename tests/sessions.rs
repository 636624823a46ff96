//! The fuzz target of sessions over random inputs: the same in every run. `SESSIONS_SECONDS=600` asks for others, that
//! long; `SESSIONS_SEED` repeats one that failed.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "../fuzz/src/session/mod.rs"]
mod session;

use std::time::Duration;

use tokio::time::Instant;

/// Inputs of a run without a time.
const INPUTS: u64 = 1500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn input(seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let length = random.usize(20..400);
    (0..length).map(|_| random.u8(..)).collect()
}

fn run(seed: u64) {
    let outcome = std::panic::catch_unwind(|| session::check(&input(seed)));
    assert!(outcome.is_ok(), "SESSIONS_SEED={seed}");
}

#[test]
fn every_client_hears_what_it_deserves_and_leaves_nothing_behind() {
    if let Some(seed) = number("SESSIONS_SEED") {
        return run(seed);
    }
    let Some(seconds) = number("SESSIONS_SECONDS") else { return (0..INPUTS).for_each(run) };
    let (since, mut seed) = (Instant::now(), fastrand::u64(INPUTS..));
    while since.elapsed() < Duration::from_secs(seconds) {
        run(seed);
        seed += 1;
    }
}
