//! Drill 2: a dead database comes back while 5,000 clients retry.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::burst::{self, Kind};
use crate::chart::{Line, Panel, Scale, draw};
use crate::open_loop::Beats;
use crate::postgres::Postgres;
use crate::report::{Report, Table};
use crate::route::{Pgweir, Route};
use crate::sampler::{Sample, Sampler};
use crate::session::{Failure, Session};
use crate::slow_disk::SlowDisk;
use crate::stats::{percentile, spell};
use crate::supervisor::Scratch;
use crate::{Choice, seconds};

const CLIENTS: usize = 5_000;

/// Counted from when the server lets the first one in.
const CUT_OFF: Duration = Duration::from_secs(40);

/// How long the writer is watched before the server dies, and how long that is dead.
const QUIET: Duration = Duration::from_secs(3);

/// A client gives up and tries again.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest back-off.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

const STORY: &str = "
Postgres is killed. 5,000 clients want to run one transaction each (`BEGIN`, `SELECT … FOR UPDATE` of one row, `INSERT`, `COMMIT`): connect, run, leave, and
on any error try again, half of them at every full second as a `sleep(1)` loop does, half with an exponential back-off of up to 5 s; each gives an attempt up
after 30 s. Three seconds later Postgres starts again. An unrelated writer, in a role of its own, goes on 50 times a second; its latency counts from the planned
time, for statements planned after the server was back. Postgres has `max_connections = 2000`. PgBouncer has its defaults, so that it
tries a server that was away again after 15 s (`server_login_retry`).

- *served* is how many of them got their transaction, *all served* when the last one did, counted from when Postgres was back; a run is cut off after 40 s.
- *busy* is the most backends with a transaction of these clients, by the server's own word; *busy, first 5 s* while its caches are cold.
";

struct Outcome {
    route: String,
    /// When the server was back.
    back: Instant,
    died: Instant,
    served: Vec<Duration>,
    failures: BTreeMap<Failure, u32>,
    writer: Beats,
    samples: Vec<Sample>,
    took: Duration,
}

/// Runs it without and with pgweir.
pub(crate) async fn run(choice: &Choice) -> Report {
    let (files, programs) = (Scratch::in_memory(), Scratch::on_disk());
    let mut postgres = Postgres::start_in(&files.path, 2_000, SlowDisk::build(&programs.path)).await;
    let capped = Pgweir::capped(40);
    let ramped = Pgweir {
        burst: format!("{}\nramp = {{ over = \"20s\" }}", capped.burst),
        label: format!("{}, ramp over 20 s", capped.label),
        ..capped.clone()
    };
    let mut routes = vec![Route::Direct, Route::PgBouncer(40), Route::Pgweir(capped), Route::Pgweir(ramped)];
    routes.retain(|route| choice.wants(route.word()));
    let mut outcomes = Vec::new();
    for route in &routes {
        println!("valve, {}", route.name());
        outcomes.push(valve(&mut postgres, &files, route).await);
    }
    let title = format!("A dead database comes back while {CLIENTS} clients retry");
    let svg = picture(&title, &outcomes);
    Report {
        name: "valve",
        title: "Valve: a dead database comes back",
        story: STORY,
        tables: vec![table(&outcomes)],
        pictures: vec![("valve".into(), title, svg)],
    }
}

async fn valve(postgres: &mut Postgres, files: &Scratch, route: &Route) -> Outcome {
    burst::fill(postgres).await;
    let open = route.open(postgres, &files.path).await;
    let sampler = Sampler::start(postgres.port, "burst").await;
    let writer = burst::writer(open.port).start().await;
    sleep(QUIET).await;

    postgres.crash();
    let died = Instant::now();
    let served: Rc<RefCell<Vec<Instant>>> = Rc::default();
    let failures: Rc<RefCell<BTreeMap<Failure, u32>>> = Rc::default();
    let clients = LocalSet::new();
    for number in 0..CLIENTS {
        let (served, failures, port) = (Rc::clone(&served), Rc::clone(&failures), open.port);
        clients.spawn_local(async move {
            for attempt in 0.. {
                match timeout(PATIENCE, transaction(port, number)).await.unwrap_or(Err(Failure::Unanswered)) {
                    Ok(()) => return served.borrow_mut().push(Instant::now()),
                    Err(failure) => *failures.borrow_mut().entry(failure).or_default() += 1,
                }
                sleep_until(next_attempt(number, attempt, died)).await;
            }
        });
    }
    let back = clients
        .run_until(async {
            sleep_until(died + QUIET).await;
            postgres.start().await;
            Instant::now()
        })
        .await;
    // Cut off or not.
    let _ = timeout_at(back + CUT_OFF, clients).await;
    let took = back.elapsed().min(CUT_OFF);
    let writer = writer.stop();
    let samples = sampler.stop();
    drop(open);
    let mut served: Vec<_> = served.take().into_iter().map(|at| at.saturating_duration_since(back)).collect();
    served.sort_unstable();
    if served.len() < CLIENTS {
        postgres.crash();
        postgres.start().await;
    }
    let committed = postgres.admin().await.number(Kind::HotRow.committed()).await.expect("the server is well again");
    assert!(committed >= served.len() as u64, "{} served, {committed} committed: some are lost", served.len());
    Outcome { route: route.name(), back, died, served, failures: failures.take(), writer, samples, took }
}

async fn transaction(port: u16, number: usize) -> Result<(), Failure> {
    let session = Session::login(port, "burst").await?;
    for step in Kind::HotRow.steps(number) {
        session.run(&step).await?;
    }
    session.close().await;
    Ok(())
}

/// Even clients: at the next full second. Odd ones: twice as long after each failure, each at a moment of its own.
fn next_attempt(number: usize, attempt: u32, died: Instant) -> Instant {
    let now = Instant::now();
    if number.is_multiple_of(2) {
        return died + Duration::from_secs((now - died).as_secs() + 1);
    }
    let longest = (Duration::from_millis(200) * 2_u32.pow(attempt.min(8))).min(BACK_OFF_MAX);
    // Fibonacci hashing: as even as chance, and the same in every run.
    let chance = (number + attempt as usize).wrapping_mul(11_400_714_819_323_198_485) >> 44;
    now + longest.mul_f64(0.5 + chance as f64 / f64::from(1 << 21))
}

const COLUMNS: &[&str] = &[
    "",
    "served",
    "half served",
    "all served",
    "busy",
    "busy, first 5 s",
    "writer quiet p99",
    "writer p50",
    "writer p99",
    "writer max",
    "errors seen by clients",
];

fn table(outcomes: &[Outcome]) -> Table {
    let rows = outcomes.iter().map(|outcome| {
        let Outcome { served, back, died, took, samples, .. } = outcome;
        let quiet = outcome.writer.latencies(*died - QUIET, *died - Duration::from_millis(100));
        let after = outcome.writer.latencies(*back, *back + *took);
        let all =
            if served.len() == CLIENTS { spell(served.last().copied()) } else { format!("> {}", spell(Some(*took))) };
        let busy = |within: Duration| {
            let then = samples.iter().filter(|sample| (*back..*back + within).contains(&sample.at));
            then.map(|sample| sample.busy).max().unwrap_or_default().to_string()
        };
        let failures =
            outcome.failures.iter().map(|(failure, count)| format!("{count} × {failure}")).collect::<Vec<_>>();
        vec![
            outcome.route.clone(),
            served.len().to_string(),
            if served.len() * 2 < CLIENTS { "–".into() } else { spell(served.get(CLIENTS / 2).copied()) },
            all,
            busy(CUT_OFF),
            busy(Duration::from_secs(5)),
            spell(percentile(&quiet, 99)),
            spell(percentile(&after, 50)),
            spell(percentile(&after, 99)),
            spell(after.iter().max().copied()),
            failures.join(", "),
        ]
    });
    Table { title: format!("{CLIENTS} clients"), columns: COLUMNS, rows: rows.collect() }
}

fn picture(title: &str, outcomes: &[Outcome]) -> String {
    let lines = |points: &dyn Fn(&Outcome) -> Vec<(f64, f64)>| {
        outcomes.iter().map(|outcome| Line { name: outcome.route.clone(), points: points(outcome) }).collect()
    };
    let served = lines(&|outcome| {
        let counted = outcome.served.iter().zip(1..).map(|(after, count)| (after.as_secs_f64(), f64::from(count)));
        let end = (outcome.took.as_secs_f64(), outcome.served.len() as f64);
        [(0.0, 0.0)].into_iter().chain(counted).chain([end]).collect()
    });
    let busy = lines(&|outcome| {
        let after = outcome.samples.iter().filter(|sample| sample.at >= outcome.back);
        after.map(|sample| (seconds(sample.at, outcome.back), sample.busy as f64)).collect()
    });
    let latency = lines(&|outcome| {
        let after = outcome.writer.all.iter().filter(|beat| beat.planned >= outcome.back);
        after.map(|beat| (seconds(beat.planned, outcome.back), beat.latency.as_secs_f64() * 1e3)).collect()
    });
    let panels = [
        Panel { y: "clients served", scale: Scale::Linear, lines: served },
        Panel { y: "busy backends", scale: Scale::Log, lines: busy },
        Panel { y: "latency of an unrelated writer, ms", scale: Scale::Log, lines: latency },
    ];
    draw(title, "seconds after Postgres was back", &panels)
}
