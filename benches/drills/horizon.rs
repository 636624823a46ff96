//! Drill 8: one idle transaction, and a queue table whose dead rows nobody may remove.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::chart::{Line, Panel, Scale, draw};
use crate::machine::load_average;
use crate::open_loop::{Beats, OpenLoop};
use crate::postgres::Postgres;
use crate::records::{Reader, WatchRecord};
use crate::report::{Report, Table};
use crate::route::{Pgweir, Route};
use crate::session::Session;
use crate::stats::{percentile, spell};
use crate::supervisor::Scratch;
use crate::{Choice, seconds};

/// Counted from when workers begin.
const FORGOTTEN_AT: Duration = Duration::from_secs(10);
const LASTS: Duration = Duration::from_secs(60);

/// At both ends of a run, what is compared.
const SPAN: Duration = Duration::from_secs(10);

/// Between two looks at the table.
const LOOK: Duration = Duration::from_millis(500);

/// Vacuum looks every second at what ten in a hundred rows have died of, and takes no rests: it does all it can.
const VACUUM: [&str; 4] = [
    "autovacuum_naptime = '1s'",
    "autovacuum_vacuum_cost_delay = 0",
    "autovacuum_vacuum_threshold = 50",
    "autovacuum_vacuum_scale_factor = 0.1",
];

const STORY: &str = "
A queue of 500 jobs in a table: workers take the oldest (`DELETE … WHERE id = (SELECT … ORDER BY run_at, id FOR UPDATE SKIP LOCKED LIMIT 1)`) and add a new one, 50 times
a second; twice a second 2,500 jobs more are queued and dropped again. After ten seconds one transaction reads the table once (`REPEATABLE READ`) and is forgotten:
a debugger at a break point, a worker that waits for an API. From then on vacuum, which comes every second, may remove nothing that
dies. All go through pgweir, which watches the server; latency counts from the planned time.

- *reported after* is when pgweir's log had the record of the idle transaction and of the horizon, counted from when it became idle, with `watch.idle_in_transaction = \"20s\"`
  (the default) and `watch.horizon_age = \"10s\"` (the default is `\"5m\"`); the records stand below.
- *before* are the ten seconds before that, *after* the last ten of 60 s.
";

struct Outcome {
    label: String,
    began: Instant,
    forgotten: Option<Instant>,
    /// Of one job.
    worker: Beats,
    looks: Vec<Look>,
    records: Vec<WatchRecord>,
    load: String,
}

/// One look at the table.
struct Look {
    at: Instant,
    dead: u64,
    bytes: u64,
}

/// Runs it without the idle transaction, with it, and with a limit for it.
pub(crate) async fn run(_choice: &Choice) -> Report {
    let files = Scratch::in_memory();
    let postgres = Postgres::start_in(&files.path, 200, None).await;
    let admin = postgres.admin().await;
    for setting in VACUUM {
        admin.run(&format!("ALTER SYSTEM SET {setting}")).await.expect("the superuser may");
    }
    admin.run("SELECT pg_reload_conf()").await.expect("the superuser may");
    let watched =
        Pgweir { watch: "[watch]\nrole = \"pgweir_watch\"\nhorizon_age = \"10s\"".into(), ..Pgweir::pool(20) };
    let limited = Pgweir { report: "idle_in_transaction_timeout = \"10s\"".into(), ..watched.clone() };
    let runs = [
        ("nobody idles", &watched, false),
        ("one idles", &watched, true),
        ("one idles, idle_in_transaction_timeout = 10 s", &limited, true),
    ];
    let mut outcomes = Vec::new();
    for (label, pgweir, is_forgotten) in runs {
        println!("horizon, {label}");
        outcomes.push(horizon(&postgres, &files, label, pgweir, is_forgotten).await);
    }
    let title = "A queue of 500 jobs, and one idle transaction from 10 s on";
    Report {
        name: "horizon",
        title: "Horizon: one idle transaction, and vacuum has nothing to do",
        story: STORY,
        tables: vec![table(&outcomes), records(&outcomes)],
        pictures: vec![("horizon".into(), title.into(), picture(title, &outcomes))],
    }
}

async fn horizon(postgres: &Postgres, files: &Scratch, label: &str, pgweir: &Pgweir, is_forgotten: bool) -> Outcome {
    let admin = postgres.admin().await;
    for sql in [
        "DROP TABLE IF EXISTS jobs",
        "CREATE TABLE jobs (id bigserial PRIMARY KEY, run_at timestamptz DEFAULT now(), payload text DEFAULT repeat('x', 100))",
        "INSERT INTO jobs SELECT FROM generate_series(1, 500)",
        "GRANT ALL ON jobs TO web, burst, report; GRANT ALL ON jobs_id_seq TO web, burst",
        "VACUUM ANALYZE jobs",
    ] {
        admin.run(sql).await.expect("the superuser may");
    }
    let open = Route::Pgweir(pgweir.clone()).open(postgres, &files.path).await;
    let reader = Reader::start(open.log.as_ref().expect("pgweir has one"));
    let forgetful = Session::login(open.port, "report").await.expect("a login at rest");
    let churn = Session::login(open.port, "burst").await.expect("a login at rest");
    let job =
        "BEGIN; DELETE FROM jobs WHERE id = (SELECT id FROM jobs ORDER BY run_at, id LIMIT 1 FOR UPDATE SKIP LOCKED);
               INSERT INTO jobs DEFAULT VALUES; COMMIT";
    let worker = OpenLoop { port: open.port, role: "web", sessions: 4, rate: 50, sql: job }.start().await;
    let began = Instant::now();
    let _churn = AbortOnDropHandle::new(tokio::spawn(async move {
        for half in 0.. {
            sleep_until(began + LOOK * half).await;
            for sql in [
                "INSERT INTO jobs (run_at) SELECT 'infinity' FROM generate_series(1, 2500)",
                "DELETE FROM jobs WHERE run_at = 'infinity'",
            ] {
                churn.run(sql).await.expect("nobody ends it");
            }
        }
    }));
    let mut looks = Vec::new();
    looking(&admin, began, began + FORGOTTEN_AT, &mut looks).await;
    let mut forgotten = None;
    if is_forgotten {
        forgetful.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM jobs").await.expect("a snapshot");
        forgotten = Some(Instant::now());
    }
    looking(&admin, began, began + LASTS, &mut looks).await;
    let (worker, records, load) = (worker.stop(), reader.stop(), load_average());
    Outcome { label: label.to_owned(), began, forgotten, worker, looks, records, load }
}

/// Looks at the table until then.
async fn looking(admin: &Session, began: Instant, until: Instant, looks: &mut Vec<Look>) {
    let sql = "SELECT pg_stat_get_dead_tuples('jobs'::regclass), pg_total_relation_size('jobs')";
    loop {
        let at = began + LOOK * u32::try_from(looks.len()).expect("two a second");
        if at >= until {
            return sleep_until(until).await;
        }
        sleep_until(at).await;
        if let Ok(row) = timeout_at(until, admin.row(sql)).await {
            let row = row.expect("the superuser may");
            let number = |column: usize| row[column].parse().expect("a number");
            looks.push(Look { at: Instant::now(), dead: number(0), bytes: number(1) });
        }
    }
}

const COLUMNS: &[&str] = &[
    "",
    "dead rows before",
    "dead rows after",
    "most",
    "table after",
    "job p50 before",
    "job p50 after",
    "job p99 after",
    "idle reported after",
    "horizon reported after",
    "load",
];

fn table(outcomes: &[Outcome]) -> Table {
    let rows = outcomes.iter().map(|outcome| {
        let Outcome { label, began, worker, looks, load, .. } = outcome;
        let before = worker.latencies(*began + FORGOTTEN_AT - SPAN, *began + FORGOTTEN_AT);
        let after = worker.latencies(*began + LASTS - SPAN, *began + LASTS);
        let dead = |from: Duration, to: Duration| {
            let within = looks.iter().filter(|look| (*began + from..*began + to).contains(&look.at));
            let mut dead: Vec<_> = within.map(|look| look.dead).collect();
            dead.sort_unstable();
            dead.get(dead.len() / 2).copied().unwrap_or_default().to_string()
        };
        vec![
            label.clone(),
            dead(FORGOTTEN_AT - SPAN, FORGOTTEN_AT),
            dead(LASTS - SPAN, LASTS),
            looks.iter().map(|look| look.dead).max().unwrap_or_default().to_string(),
            crate::stats::megabytes(looks.last().map_or(0, |look| look.bytes)),
            spell(percentile(&before, 50)),
            spell(percentile(&after, 50)),
            spell(percentile(&after, 99)),
            spell(outcome.reported_after("idle_in_transaction")),
            spell(outcome.reported_after("horizon")),
            load.clone(),
        ]
    });
    Table { title: "500 jobs in the queue, always".into(), columns: COLUMNS, rows: rows.collect() }
}

impl Outcome {
    fn reported_after(&self, kind: &str) -> Option<Duration> {
        let found = self.records.iter().find(|record| record.kind == kind && record.is_open)?;
        Some(found.at - self.forgotten?)
    }
}

fn records(outcomes: &[Outcome]) -> Table {
    let of = |outcome: &Outcome| {
        let row = |record: &WatchRecord| {
            let after = spell(outcome.forgotten.map(|forgotten| record.at.saturating_duration_since(forgotten)));
            vec![outcome.label.clone(), after, format!("{}: {}", record.kind, record.words)]
        };
        outcome.records.iter().map(row).collect::<Vec<_>>()
    };
    let rows = outcomes.iter().flat_map(of).collect();
    Table { title: "What pgweir's log said".into(), columns: &["", "after", "record"], rows }
}

fn picture(title: &str, outcomes: &[Outcome]) -> String {
    let dead = outcomes.iter().map(|outcome| {
        let points = outcome.looks.iter().map(|look| (seconds(look.at, outcome.began), look.dead as f64));
        Line { name: outcome.label.clone(), points: points.collect() }
    });
    let latency = outcomes.iter().map(|outcome| {
        let beats = outcome.worker.all.iter().filter(|beat| beat.planned >= outcome.began);
        let points = beats.map(|beat| (seconds(beat.planned, outcome.began), beat.latency.as_secs_f64() * 1e3));
        Line { name: outcome.label.clone(), points: points.collect() }
    });
    let panels = [
        Panel { y: "dead rows", scale: Scale::Linear, lines: dead.collect() },
        Panel { y: "one job, ms", scale: Scale::Log, lines: latency.collect() },
    ];
    draw(title, "seconds", &panels)
}
