//! Drill 12: a deploy brings a statement that scans a table, under the role that serves the web.

use std::time::Duration;

use tokio::time::{Instant, interval, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::chart::{Line, Panel, Scale, draw};
use crate::machine::load_average;
use crate::open_loop::{Beats, OpenLoop};
use crate::postgres::Postgres;
use crate::report::{Report, Table};
use crate::route::{Pgweir, Route};
use crate::session::Session;
use crate::stats::{percentile, spell};
use crate::supervisor::Scratch;
use crate::{Choice, seconds};

/// Web clients.
const CLIENTS: usize = 500;

/// Backends of the role.
const POOL: u32 = 16;

/// Counted from when the web begins.
const RELEASED_AT: Duration = Duration::from_secs(10);
const CONTAINED_AT: Duration = Duration::from_secs(25);
const LASTS: Duration = Duration::from_secs(40);

/// The order has so long to show.
const WORKS_WITHIN: Duration = Duration::from_secs(1);

/// Time between two looks at the console.
const LOOK: Duration = Duration::from_millis(100);

const WEB: &str = "SELECT balance FROM accounts WHERE id = 4711";

/// A scan of the whole table, for want of an index.
const SCAN: &str = "SELECT count(*) FROM accounts WHERE note LIKE '%overdue%'";

const STORY: &str = "
500 web clients read one row each, together 200 times a second. After 10 s a release adds a page whose statement scans the table: 20 a second of it, under the same role
and through the same pool. At 25 s the operator gives an order about just that statement, `LIMIT STATEMENT … 1 FOR '10m'`; PgBouncer knows no such order. Latency counts
from the planned time.

- *named after*: from the first scan until `SHOW STATEMENTS ORDER BY running LIMIT 1` names it, asked ten times a second.
- *quiet* are the 8 s before the release, *runaway* the 10 s before the order, *contained* the time from 1 s after the order to the end.
";

struct Outcome {
    label: String,
    began: Instant,
    released: Instant,
    ordered: Option<Instant>,
    named: Option<Instant>,
    web: Beats,
    scans: Beats,
    load: String,
}

/// Runs it through PgBouncer, and through pgweir without and with the order.
pub(crate) async fn run(choice: &Choice) -> Report {
    let files = Scratch::in_memory();
    let postgres = Postgres::start_in(&files.path, 200, None).await;
    let admin = postgres.admin().await;
    for sql in [
        "CREATE TABLE accounts AS SELECT id, 100 AS balance, repeat('paid ', 20) || id AS note FROM generate_series(1, 400000) id",
        "ALTER TABLE accounts ADD PRIMARY KEY (id)",
        "GRANT SELECT ON accounts TO web",
        "VACUUM ANALYZE accounts",
    ] {
        admin.run(sql).await.expect("the superuser may");
    }
    let pgweir = Pgweir::pool(POOL);
    let ordered = Pgweir { label: format!("{}, LIMIT STATEMENT", pgweir.label), ..pgweir.clone() };
    let mut routes =
        vec![(Route::PgBouncer(POOL), false), (Route::Pgweir(pgweir), false), (Route::Pgweir(ordered), true)];
    routes.retain(|(route, _)| choice.wants(route.word()));
    let mut outcomes = Vec::new();
    for (route, is_ordered) in &routes {
        println!("runaway, {}", route.name());
        outcomes.push(runaway(&postgres, &files, route, *is_ordered).await);
    }
    let title = "A statement runs away at 10 s; at 25 s it is limited";
    Report {
        name: "runaway",
        title: "Runaway: one statement, and everybody behind it",
        story: STORY,
        tables: vec![table(&outcomes)],
        pictures: vec![("runaway".into(), title.into(), picture(title, &outcomes))],
    }
}

async fn runaway(postgres: &Postgres, files: &Scratch, route: &Route, is_ordered: bool) -> Outcome {
    let open = route.open(postgres, &files.path).await;
    let web = OpenLoop { port: open.port, role: "web", sessions: CLIENTS, rate: 200, sql: WEB }.start().await;
    let began = Instant::now();
    sleep_until(began + RELEASED_AT).await;
    let is_pgweir = matches!(route, Route::Pgweir(_));
    let scans = OpenLoop { port: open.port, role: "web", sessions: 40, rate: 20, sql: SCAN }.start();
    let released = Instant::now();
    let named = is_pgweir.then(|| AbortOnDropHandle::new(tokio::spawn(name(open.port))));
    let scans = scans.await;
    sleep_until(began + CONTAINED_AT).await;
    let named = match named {
        Some(named) if named.is_finished() => Some(named.await.expect("the operator does not panic")),
        _ => None,
    };
    let mut ordered = None;
    if is_ordered {
        let (digest, _) = named.as_ref().expect("fifteen seconds are enough to name it");
        let console = Session::console(open.port).await.expect("the operator may");
        console.run(&format!("LIMIT STATEMENT {digest} 1 FOR '10m'")).await.expect("the operator may");
        ordered = Some(Instant::now());
    }
    sleep_until(began + LASTS).await;
    let (web, scans, load) = (web.stop(), scans.stop(), load_average());
    Outcome { label: route.name(), began, released, ordered, named: named.map(|(_, at)| at), web, scans, load }
}

/// The digest of the statement that most clients run, as soon as that is the scan.
async fn name(port: u16) -> (String, Instant) {
    let console = Session::console(port).await.expect("the operator may");
    let mut looks = interval(LOOK);
    loop {
        looks.tick().await;
        let top = console.table("SHOW STATEMENTS ORDER BY running LIMIT 1").await.expect("the operator may");
        if let Some(row) = top.into_iter().next()
            && row["statement"].contains("LIKE")
        {
            return (row["digest"].clone(), Instant::now());
        }
    }
}

fn table(outcomes: &[Outcome]) -> Table {
    let row = |outcome: &Outcome| {
        let Outcome { label, began, released, ordered, named, web, scans, load } = outcome;
        let p99 = |from: Instant, to: Instant| percentile(&web.latencies(from, to), 99);
        let contained = ordered.map_or(*began + CONTAINED_AT, |ordered| ordered) + WORKS_WITHIN;
        let second = Duration::from_secs(1);
        let answered = |from: Instant, to: Instant| {
            let in_time =
                scans.all.iter().map(|beat| beat.planned + beat.latency).filter(|end| (from..to).contains(end));
            format!("{:.1}", in_time.count() as f64 / (to - from).as_secs_f64())
        };
        vec![
            label.clone(),
            spell(named.map(|named| named - *released)),
            spell(p99(*released - second * 8, *released)),
            spell(p99(*began + CONTAINED_AT - second * 10, *began + CONTAINED_AT)),
            spell(p99(contained, *began + LASTS)),
            answered(*began + CONTAINED_AT - second * 10, *began + CONTAINED_AT),
            answered(contained, *began + LASTS),
            load.clone(),
        ]
    };
    Table {
        title: "500 web clients and one statement".into(),
        columns: &[
            "",
            "named after",
            "web p99 quiet",
            "web p99 runaway",
            "web p99 contained",
            "scans per second, runaway",
            "contained",
            "load",
        ],
        rows: outcomes.iter().map(row).collect(),
    }
}

fn picture(title: &str, outcomes: &[Outcome]) -> String {
    let line = |outcome: &Outcome| {
        let beats = outcome.web.all.iter().filter(|beat| beat.planned >= outcome.began);
        let points = beats.map(|beat| (seconds(beat.planned, outcome.began), beat.latency.as_secs_f64() * 1e3));
        Line { name: outcome.label.clone(), points: points.collect() }
    };
    let panel = Panel { y: "web, ms", scale: Scale::Log, lines: outcomes.iter().map(line).collect() };
    draw(title, "seconds", &[panel])
}
