//! No client notices pgweir: what random clients hear through it is compared, message by message, with what each hears
//! on a connection of its own to a database that is the same.
//!
//! `DIFFERENTIAL_SECONDS` says how long, `DIFFERENTIAL_SEED` where to begin, `PGWEIR_TEST_PG` before which server. A
//! difference is shrunk and printed as a test for `regressions.rs`. With `DIFFERENTIAL_GOES_ON=1` others are looked for
//! then, with `DIFFERENTIAL_KNOWN=COPY` known differences with that in their name, too.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod grammar;
mod lane;
mod model;
mod operation;
mod peer;
mod regressions;
mod run;
mod shrink;
#[path = "../it/support/mod.rs"]
mod support;
mod texts;

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use grammar::Grammar;
use lane::Lane;
use operation::Pool;
use run::{Divergence, run};

/// Steps of a run: enough for state to build up, few enough to shrink soon.
const STEPS: usize = 400;

/// Servers that are asked at once. Two keep two cores busy.
const LANES: usize = 2;

/// What the environment asks for.
struct Wishes {
    duration: Duration,
    seed: u64,
    /// Known faults with this in their name are looked for, too; "" is all.
    lets_known: Option<String>,
    /// The first difference ends nothing.
    goes_on: bool,
}

impl Wishes {
    fn new() -> Self {
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        Self {
            duration: Duration::from_secs(number("DIFFERENTIAL_SECONDS").unwrap_or(10)),
            seed: number("DIFFERENTIAL_SEED").unwrap_or(now * 1000),
            lets_known: env::var("DIFFERENTIAL_KNOWN").ok(),
            goes_on: number("DIFFERENTIAL_GOES_ON") == Some(1),
        }
    }
}

/// Common to all lanes.
struct Search {
    wishes: Wishes,
    next_seed: AtomicU64,
    generated: AtomicUsize,
    taken: AtomicUsize,
    messages: AtomicUsize,
    /// Every kind of difference once, as text.
    found: Mutex<BTreeSet<String>>,
    reports: Mutex<Vec<String>>,
}

#[test]
fn clients_hear_what_they_would_hear_without_pgweir() {
    let wishes = Wishes::new();
    println!("DIFFERENTIAL_SEED={} for {:?}", wishes.seed, wishes.duration);
    let search = Search {
        next_seed: AtomicU64::new(wishes.seed),
        wishes,
        generated: AtomicUsize::new(0),
        taken: AtomicUsize::new(0),
        messages: AtomicUsize::new(0),
        found: Mutex::default(),
        reports: Mutex::default(),
    };
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| search.search());
        }
    });
    let (taken, seconds) = (search.taken.into_inner(), started.elapsed().as_secs_f64());
    let (generated, messages) = (search.generated.into_inner(), search.messages.into_inner());
    println!(
        "{taken} of {generated} steps taken with {messages} messages, {:.0} steps a second",
        taken as f64 / seconds
    );
    let reports = search.reports.into_inner().unwrap();
    assert!(reports.is_empty(), "{} differences:\n{}", reports.len(), reports.join("\n"));
}

impl Search {
    /// One lane, until the time is up or something was found.
    fn search(&self) {
        // pgweir ends with the thread that starts it, and the runtime serves only its start.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut lane = runtime.block_on(Lane::start());
        let started = Instant::now();
        while started.elapsed() < self.wishes.duration && (self.wishes.goes_on || self.found.lock().unwrap().is_empty())
        {
            let seed = self.next_seed.fetch_add(1, Ordering::Relaxed);
            let pool = Pool::ALL[usize::try_from(seed % 4).unwrap()];
            let steps = Grammar::new(seed).run(STEPS);
            self.generated.fetch_add(steps.len(), Ordering::Relaxed);
            let outcome = run(&mut lane, pool, &steps, self.wishes.lets_known.as_deref());
            self.taken.fetch_add(outcome.taken, Ordering::Relaxed);
            self.messages.fetch_add(outcome.messages, Ordering::Relaxed);
            if let Some(divergence) = outcome.divergence {
                self.report(&mut lane, seed, pool, divergence);
            }
        }
    }

    fn report(&self, lane: &mut Lane, seed: u64, pool: Pool, found: Divergence) {
        let lets_known = self.wishes.lets_known.as_deref();
        let again = run(lane, pool, &found.steps, lets_known).divergence;
        let is_reproduced = again.is_some();
        let shortest = again.map_or(found, |again| shrink::shrink(lane, pool, again, lets_known));
        let class = class(&shortest);
        if !self.found.lock().unwrap().insert(class) {
            return;
        }
        let mut text = format!(
            "\nseed {seed}, {pool:?}{}: {}\n",
            if is_reproduced { "" } else { ", seen only once" },
            shortest.kind
        );
        text.push_str("    same(Pool::");
        let _ = writeln!(text, "{pool:?}, &[");
        for step in &shortest.steps {
            let _ = writeln!(text, "        {step},");
        }
        let _ = writeln!(text, "    ]);\n    direct {:?}\n    pgweir {:?}", shortest.direct, shortest.pgweir);
        println!("{text}");
        self.reports.lock().unwrap().push(text);
    }
}

/// Differences that are likely one: the first answers that differ are the same, but for numbers and quoted names.
fn class(found: &Divergence) -> String {
    let pairs = found.direct.iter().zip(&found.pgweir);
    let first = pairs.into_iter().find(|(direct, pgweir)| direct != pgweir);
    let text = format!("{} {first:?}", found.kind);
    let unquoted = text.split("\\\"").step_by(2).collect::<String>();
    unquoted.chars().filter(|c| !c.is_ascii_digit()).collect()
}
