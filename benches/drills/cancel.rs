//! Drill 10: cancels through a balancer, which knows nothing of whose they are.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::Choice;
use crate::balancer::{Balanced, addresses, peers};
use crate::postgres::Postgres;
use crate::report::{Report, Table};
use crate::route::{Pgweir, Route};
use crate::stats::{percentile, spell};
use crate::supervisor::Scratch;
use crate::wire::{Wire, cancel};

const INSTANCES: u8 = 3;

const CANCELS: usize = 1_000;

/// Clients that cancel, each its own query again and again.
const CLIENTS: usize = 10;

/// Clients whose query nobody cancels.
const BYSTANDERS: usize = 30;

/// Keys with the process id of a bystander, which may be told to anybody, and a secret that is made up.
const MADE_UP: usize = 100_000;

/// Under way at once.
const AT_ONCE: usize = 64;

/// It says when it runs: a server that has not begun yet hears no cancel.
const QUERY: &str = "DO $$ BEGIN RAISE NOTICE 'running'; PERFORM pg_sleep(2); END $$";

/// A cancel that has not ended its query by then has been lost.
const PATIENCE: Duration = Duration::from_millis(500);

const STORY: &str = "
Three poolers listen on addresses of their own; haproxy hands every new connection to the next of them. Ten clients run a query of 2 s one after the other through it, and cancel
each, up to 50 ms after it has begun, over a connection of its own, as drivers do: 1,000 in all. 30 others run a query that nobody cancels.

- *ended* is how many of the 1,000 queries ended with 57014 within half a second of their cancel; *others ended* how many queries ended that nobody had cancelled.
- *p50*, *p99*, *max* are from the first byte of the cancel to the error at the query.
- *made-up keys* are CancelRequests with the process id of one of the 30 and a random secret; none may end a query.
";

struct Outcome {
    route: String,
    ended: Vec<Duration>,
    others: usize,
    made_up: usize,
}

/// Runs it with and without `fleet.peers`.
pub(crate) async fn run(choice: &Choice) -> Report {
    let files = Scratch::in_memory();
    let postgres = Postgres::start_in(&files.path, 500, None).await;
    let at = addresses(INSTANCES);
    let pgweir = |label: &str, fleet: String| {
        Route::Pgweir(Pgweir {
            fleet,
            // All clients have the address of haproxy.
            admission: "[admission]\ncancel_rate_per_address = \"off\"".to_owned(),
            label: label.to_owned(),
            ..Pgweir::pool(60)
        })
    };
    let alone = "[fleet]\nsiblings = false".to_owned();
    let knows = format!("{alone}\npeers = {}", peers(&at));
    let mut routes =
        vec![Route::PgBouncer(60), pgweir("pgweir, alone", alone), pgweir("pgweir, fleet.peers", knows.clone())];
    routes.retain(|route| choice.wants(route.word()));
    let mut outcomes = Vec::new();
    for route in &routes {
        println!("cancel, {}", route.name());
        let balanced = Balanced::start(route, &at, postgres.port, &files.path).await;
        let made_up = if matches!(route, Route::Pgweir(pgweir) if pgweir.fleet == knows) { MADE_UP } else { 0 };
        outcomes.push(cancels(balanced.port, route.name(), made_up).await);
    }
    let title = "Cancels through haproxy over three poolers";
    Report {
        name: "cancel",
        title: "Cancel: the balancer does not know whose it is",
        story: STORY,
        tables: vec![table(title, &outcomes)],
        pictures: Vec::new(),
    }
}

async fn cancels(port: u16, route: String, made_up: usize) -> Outcome {
    let mut bystanders = JoinSet::new();
    let mut keys = Vec::new();
    for _ in 0..BYSTANDERS {
        let mut wire = Wire::login(port, "web").await.expect("a login at rest");
        keys.push(wire.key);
        bystanders.spawn(async move { wire.run("SELECT pg_sleep(3600)").await });
    }
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(cancel_own(port, CANCELS / CLIENTS));
    }
    let ended: Vec<_> = clients.join_all().await.concat();
    let mut strangers = JoinSet::new();
    for stranger in 0..AT_ONCE {
        let keys = keys.clone();
        let numbers = (stranger..made_up).step_by(AT_ONCE);
        strangers.spawn(async move {
            for number in numbers {
                let mut key = keys[number % keys.len()];
                fastrand::fill(&mut key[4..]);
                cancel(port, &key).await.expect("it is read");
            }
        });
    }
    strangers.join_all().await;
    let mut others = 0;
    while bystanders.try_join_next().is_some() {
        others += 1;
    }
    Outcome { route, ended, others, made_up }
}

/// Latencies of those cancels that ended the query.
async fn cancel_own(port: u16, count: usize) -> Vec<Duration> {
    let mut wire = Wire::login(port, "burst").await.expect("a login at rest");
    let mut ended = Vec::new();
    for _ in 0..count {
        wire.send(QUERY).await.expect("it is there");
        wire.notice().await.expect("it runs");
        // Not in step with the others, whose connections take turns with these.
        sleep(Duration::from_millis(fastrand::u64(0..50))).await;
        let (began, key) = (Instant::now(), wire.key);
        let request = tokio::spawn(async move { cancel(port, &key).await });
        match timeout(PATIENCE, wire.cycle()).await {
            Ok(Err(error)) if error.to_string().contains("57014") => ended.push(began.elapsed()),
            // A driver gives such a connection up.
            _ => wire = Wire::login(port, "burst").await.expect("another"),
        }
        request.await.expect("it does not panic").expect("it is read");
    }
    ended
}

fn table(title: &str, outcomes: &[Outcome]) -> Table {
    let rows = outcomes.iter().map(|outcome| {
        let Outcome { route, ended, others, made_up } = outcome;
        let made_up = if *made_up == 0 { "–".to_owned() } else { made_up.to_string() };
        let percentiles = [50, 99, 100].map(|percent| spell(percentile(ended, percent)));
        [&[route.clone(), format!("{} of {CANCELS}", ended.len())], &percentiles[..], &[made_up, others.to_string()]]
            .concat()
    });
    Table {
        title: title.to_owned(),
        columns: &["", "ended", "p50", "p99", "max", "made-up keys", "others ended"],
        rows: rows.collect(),
    }
}
