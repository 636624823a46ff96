//! Incidents on purpose: what a burst, a dead database, a migration, a held lock, a forgotten transaction, vanishing
//! clients, a leaked setting, a runaway statement and several poolers do to a real Postgres, straight, through
//! PgBouncer and through pgweir. `make drills` runs them; docs/drills has what came of it.

mod balancer;
mod brownout;
mod burst;
mod cancel;
mod chart;
mod convoy;
mod fleet;
mod greedy;
mod horizon;
mod leak;
mod listeners;
mod lock_queue;
mod looks;
mod machine;
mod notify;
mod observe;
mod open_loop;
mod postgres;
#[path = "../../tests/it/support/process.rs"]
#[allow(dead_code, reason = "made for tests; a drill binds its servers to itself in another way")]
mod process;
mod records;
mod redis_server;
mod report;
mod route;
mod runaway;
mod sampler;
mod session;
mod slow_disk;
mod stats;
mod supervisor;
mod valve;
mod wire;
mod zombie;

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

const USAGE: &str =
    "Say which drill: burst, valve, lock-queue, zombie, leak, notify, convoy, horizon, fleet, cancel, brownout, runaway, observe, greedy, or all. FULL=1 makes bursts of every size.
Its figures go to docs/drills. More words choose among its runs (burst hot-row 1000 pgweir); those go to target/drills.";

const DRILLS: [&str; 14] = [
    "burst",
    "valve",
    "lock-queue",
    "zombie",
    "leak",
    "notify",
    "convoy",
    "horizon",
    "fleet",
    "cancel",
    "brownout",
    "runaway",
    "observe",
    "greedy",
];

/// What the command line asks for.
pub(crate) struct Choice {
    /// Every run, however long that takes.
    pub(crate) full: bool,
    words: Vec<String>,
}

impl Choice {
    /// Of the runs that differ in this respect, those with this name: all, unless some word is one of their names.
    pub(crate) fn wants(&self, name: &str) -> bool {
        const ROUTES: [&str; 3] = ["direct", "pgbouncer", "pgweir"];
        let respect = |word: &str| (word.parse::<u32>().is_ok(), ROUTES.contains(&word));
        let mut rivals = self.words.iter().filter(|word| respect(word) == respect(name)).peekable();
        rivals.peek().is_none() || rivals.any(|word| word == name)
    }
}

fn main() {
    // cargo bench adds --bench; who runs all benches does not mean twenty minutes of these.
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if words.is_empty() {
        println!("{USAGE}");
        return;
    }
    let named = words.remove(0);
    let choice = Choice { full: std::env::var("FULL").is_ok_and(|full| full == "1"), words };
    let drills: Vec<_> = DRILLS.into_iter().filter(|drill| named == "all" || named == *drill).collect();
    if drills.is_empty() {
        eprintln!("{USAGE}");
        std::process::exit(2);
    }
    let dir = if choice.words.is_empty() { "docs/drills" } else { "target/drills" };
    runtime().block_on(async {
        for drill in drills {
            let report = match drill {
                "burst" => burst::run(&choice).await,
                "valve" => valve::run(&choice).await,
                "lock-queue" => lock_queue::run(&choice).await,
                "zombie" => zombie::run(&choice).await,
                "leak" => leak::run(&choice).await,
                "notify" => notify::run(&choice).await,
                "convoy" => convoy::run(&choice).await,
                "horizon" => horizon::run(&choice).await,
                "fleet" => fleet::run(&choice).await,
                "cancel" => cancel::run(&choice).await,
                "brownout" => brownout::run(&choice).await,
                "runaway" => runaway::run(&choice).await,
                "observe" => observe::run(&choice).await,
                _ => greedy::run(&choice).await,
            };
            report.write(dir);
        }
    });
}

/// For one thread's tasks.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("the kernel gives what it needs")
}

/// From one instant to a later one.
fn seconds(later: Instant, earlier: Instant) -> f64 {
    later.saturating_duration_since(earlier).as_secs_f64()
}

/// A port nobody listens on, below the range from which the kernel takes ports for outgoing connections.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let run = u16::try_from(std::process::id() % 100).expect("below 100");
    loop {
        let port = 12_000 + run * 50 + NEXT.fetch_add(1, Ordering::Relaxed) % 5_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
