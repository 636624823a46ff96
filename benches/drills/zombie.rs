//! Drill 4: clients give up and come back, while what they asked for goes on running.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::chart::{Line, Panel, Scale, draw};
use crate::postgres::Postgres;
use crate::report::{Report, Table};
use crate::route::{Pgweir, Route};
use crate::sampler::{Sample, Sampler};
use crate::session::Session;
use crate::stats::spell;
use crate::supervisor::Scratch;
use crate::{Choice, seconds};

const ROUNDS: usize = 6;
const POOL: u32 = 5;

/// What a client bears.
const PATIENCE: Duration = Duration::from_millis(800);

/// The last query is over by then, cancelled or not.
const CUT_OFF: Duration = Duration::from_secs(20);

/// For the picture: that nothing runs any more.
const SAMPLED_AFTER: Duration = Duration::from_secs(1);

const STORY: &str = "
Through a pool of 5 backends, 5 clients ask for something that takes 8 s, are killed after 0.8 s, and the next 5 come: six rounds, as users press reload. A pooler
that forgets such a query gives its backend's place to the next client while the server still works for the last one.

- *active* is how many backends ran a statement for these clients just before each round's clients gave up, by the server's own word; *most* the most at any look,
  five times a second.
- *free again* is how long the server went on working after the last client was gone.
";

struct Outcome {
    route: String,
    began: Instant,
    rounds: Vec<u64>,
    samples: Vec<Sample>,
    free_after: Option<Duration>,
}

/// Runs it through both poolers.
pub(crate) async fn run(choice: &Choice) -> Report {
    let files = Scratch::in_memory();
    let postgres = Postgres::start_in(&files.path, 200, None).await;
    let mut routes = vec![Route::PgBouncer(POOL), Route::Pgweir(Pgweir::pool(POOL))];
    routes.retain(|route| choice.wants(route.word()));
    let mut outcomes = Vec::new();
    for route in &routes {
        println!("zombie, {}", route.name());
        outcomes.push(zombie(&postgres, &files, route).await);
    }
    let title = "Six rounds of five clients that give up after 0.8 s";
    Report {
        name: "zombie",
        title: "Zombies: the client has gone, its query has not",
        story: STORY,
        tables: vec![table(&outcomes)],
        pictures: vec![("zombie".into(), title.into(), picture(title, &outcomes))],
    }
}

async fn zombie(postgres: &Postgres, files: &Scratch, route: &Route) -> Outcome {
    let open = route.open(postgres, &files.path).await;
    let admin = postgres.admin().await;
    let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'burst' AND state = 'active'";
    let active = || async { admin.number(count).await.expect("a count") };
    let sampler = Sampler::start(postgres.port, "burst").await;
    let (began, mut rounds) = (Instant::now(), Vec::new());
    for _ in 0..ROUNDS {
        let crowd = Session::crowd(open.port, "burst", POOL as usize).await;
        let asking: Vec<_> = crowd
            .into_iter()
            .map(|session| {
                tokio::spawn(async move {
                    // It is not there for the answer.
                    let _ = session.run("SELECT pg_sleep(8)").await;
                })
            })
            .collect();
        sleep(PATIENCE).await;
        rounds.push(active().await);
        asking.iter().for_each(tokio::task::JoinHandle::abort);
    }
    let gone = Instant::now();
    let mut free_after = None;
    while free_after.is_none() && gone.elapsed() < CUT_OFF {
        sleep(Duration::from_millis(20)).await;
        free_after = (active().await == 0).then(|| gone.elapsed());
    }
    sleep(SAMPLED_AFTER).await;
    Outcome { route: route.name(), began, rounds, samples: sampler.stop(), free_after }
}

fn table(outcomes: &[Outcome]) -> Table {
    let rows = outcomes.iter().map(|outcome| {
        let rounds: Vec<_> = outcome.rounds.iter().map(u64::to_string).collect();
        let most = outcome.samples.iter().map(|sample| sample.active).chain(outcome.rounds.iter().copied()).max();
        let free_after =
            outcome.free_after.map_or_else(|| format!("> {}", spell(Some(CUT_OFF))), |after| spell(Some(after)));
        vec![outcome.route.clone(), rounds.join(", "), most.unwrap_or_default().to_string(), free_after]
    });
    Table {
        title: "Six rounds of five clients".into(),
        columns: &["", "active", "most", "free again"],
        rows: rows.collect(),
    }
}

fn picture(title: &str, outcomes: &[Outcome]) -> String {
    let line = |outcome: &Outcome| {
        let points = outcome.samples.iter().map(|sample| (seconds(sample.at, outcome.began), sample.active as f64));
        Line { name: outcome.route.clone(), points: points.collect() }
    };
    let panel = Panel { y: "active backends", scale: Scale::Linear, lines: outcomes.iter().map(line).collect() };
    draw(title, "seconds", &[panel])
}
