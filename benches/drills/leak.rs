//! Drill 5: one client's SET ends the queries of others.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::chart::{Line, Panel, Scale, draw};
use crate::postgres::Postgres;
use crate::report::{Report, Table};
use crate::route::{Pgweir, Route};
use crate::session::{Failure, Session};
use crate::supervisor::Scratch;
use crate::{Choice, seconds};

const POOL: u32 = 5;
const QUERIES_EACH: usize = 40;

const STORY: &str = "
Through a transaction pool of 5 backends, one client runs `SET statement_timeout = '100ms'`. Then five others, who never set anything, run 40 queries each that
take 200 ms. In *stays*, the client who set it is still there, idle; in *killed*, it is killed before its `RESET`, as a web worker is in the middle of a request.

- *cancelled* is how many of the 200 innocent queries ended with 57014, \"canceling statement due to statement timeout\".
- *seen afterwards* is the `statement_timeout` that the five then found, all asking at once.
";

/// What becomes of the client that set something.
#[derive(Clone, Copy)]
enum Culprit {
    Stays,
    Killed,
}

struct Outcome {
    route: String,
    culprit: Culprit,
    began: Instant,
    cancelled: Vec<Instant>,
    other_failures: usize,
    seen: BTreeMap<String, u32>,
}

impl Outcome {
    fn name(&self) -> String {
        let culprit = match self.culprit {
            Culprit::Stays => "stays",
            Culprit::Killed => "killed",
        };
        format!("{}, {culprit}", self.route)
    }
}

/// Runs it through both poolers.
pub(crate) async fn run(choice: &Choice) -> Report {
    let files = Scratch::in_memory();
    let postgres = Postgres::start_in(&files.path, 200, None).await;
    let mut routes = vec![Route::PgBouncer(POOL), Route::Pgweir(Pgweir::pool(POOL))];
    routes.retain(|route| choice.wants(route.word()));
    let mut outcomes = Vec::new();
    for route in &routes {
        for culprit in [Culprit::Stays, Culprit::Killed] {
            outcomes.push(leak(&postgres, &files, route, culprit).await);
            println!("leak, {}", outcomes[outcomes.len() - 1].name());
        }
    }
    let title = "One client sets statement_timeout = '100ms'; others run queries of 200 ms";
    Report {
        name: "leak",
        title: "Leak: one client's setting, everybody's error",
        story: STORY,
        tables: vec![table(&outcomes)],
        pictures: vec![("leak".into(), title.into(), picture(title, &outcomes))],
    }
}

async fn leak(postgres: &Postgres, files: &Scratch, route: &Route, culprit: Culprit) -> Outcome {
    let open = route.open(postgres, &files.path).await;
    let innocents = Session::crowd(open.port, "web", POOL as usize).await;
    let culprit_session = Session::login(open.port, "web").await.expect("a login at rest");
    culprit_session.run("SET statement_timeout = '100ms'").await.expect("anybody may");
    let kept = match culprit {
        Culprit::Stays => Some(culprit_session),
        Culprit::Killed => None,
    };
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for session in innocents {
        clients.spawn(async move {
            let (mut cancelled, mut other_failures) = (Vec::new(), 0);
            for _ in 0..QUERIES_EACH {
                match session.run("SELECT pg_sleep(0.2)").await {
                    Ok(()) => {}
                    Err(Failure::Sqlstate(code)) if code == "57014" => cancelled.push(Instant::now()),
                    Err(_) => other_failures += 1,
                }
            }
            (cancelled, other_failures, session)
        });
    }
    let (mut cancelled, mut other_failures, mut seen) = (Vec::new(), 0, BTreeMap::new());
    let asked = clients.join_all().await.into_iter().map(|(his, others, session)| {
        cancelled.extend(his);
        other_failures += others;
        async move { session.row("SELECT current_setting('statement_timeout') FROM pg_sleep(0.05)").await }
    });
    for row in join_all(asked).await {
        *seen.entry(row.expect("anybody may").remove(0)).or_default() += 1;
    }
    drop(kept);
    cancelled.sort_unstable();
    Outcome { route: route.name(), culprit, began, cancelled, other_failures, seen }
}

fn table(outcomes: &[Outcome]) -> Table {
    let rows = outcomes.iter().map(|outcome| {
        let seen: Vec<_> = outcome.seen.iter().map(|(value, count)| format!("{count} × {value}")).collect();
        vec![outcome.name(), outcome.cancelled.len().to_string(), outcome.other_failures.to_string(), seen.join(", ")]
    });
    Table {
        title: "200 innocent queries".into(),
        columns: &["", "cancelled", "other errors", "seen afterwards"],
        rows: rows.collect(),
    }
}

fn picture(title: &str, outcomes: &[Outcome]) -> String {
    let line = |outcome: &Outcome| {
        let counted =
            outcome.cancelled.iter().zip(1..).map(|(at, count)| (seconds(*at, outcome.began), f64::from(count)));
        let end = (8.0, outcome.cancelled.len() as f64);
        Line { name: outcome.name(), points: [(0.0, 0.0)].into_iter().chain(counted).chain([end]).collect() }
    };
    let panel =
        Panel { y: "innocent queries cancelled", scale: Scale::Linear, lines: outcomes.iter().map(line).collect() };
    draw(title, "seconds", &[panel])
}
