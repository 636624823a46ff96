//! Drill 11: a row is locked, and clients behind a balancer cancel and try again.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::balancer::{Balanced, addresses, peers};
use crate::chart::{Line, Panel, Scale, draw};
use crate::open_loop::{Beats, OpenLoop};
use crate::postgres::Postgres;
use crate::redis_server::RedisServer;
use crate::report::{Report, Table};
use crate::route::{Pgweir, Route};
use crate::sampler::{Sample, Sampler};
use crate::session::{Failure, Session};
use crate::stats::{percentile, spell};
use crate::supervisor::Scratch;
use crate::wire::{Wire, cancel};
use crate::{Choice, seconds};

const INSTANCES: u8 = 3;

/// Of the role, at the server.
const LIMIT: u32 = 40;

const CLIENTS: usize = 300;

/// Connections that the server lets in.
const CONNECTIONS_MAX: u32 = 200;

/// A client cancels after the one, and gives its connection up after the other.
const DEADLINE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_millis(500);

/// Before a client tries again to log in.
const PAUSE: Duration = Duration::from_millis(100);

/// Before the row is locked, and how long it is.
const QUIET: Duration = Duration::from_secs(5);
const LOCKED: Duration = Duration::from_secs(60);

/// Between two logins of somebody who needs no pooler.
const LOGIN_PERIOD: Duration = Duration::from_millis(500);

const STORY: &str = "
A transaction holds the lock of a row for 60 s. 300 clients want to update this row, through haproxy and three poolers; each cancels after 1 s, over a connection of its own,
and tries again. If the cancel has not ended its query half a second later, it gives the connection up and makes another. Together the poolers may have 40 backends for them: PgBouncer
13 each, pgweir `transactions_max = 40` with leases. An unrelated role reads 50 times a second through the same balancer; its latency counts from the planned time. Postgres has
`max_connections = 200`, and somebody who needs no pooler logs in twice a second.

- *cancelled* is how many of the queries that were cancelled ended with 57014 in time.
- *backends* is the most that the server had for the 300 clients at any look, five times a second, *at the end* those just before the lock was released.
- *logins refused* are those past the poolers that the server refused.
";

struct Outcome {
    route: String,
    began: Instant,
    cancelled: usize,
    given_up: usize,
    samples: Vec<Sample>,
    reader: Beats,
    logins: usize,
    refused: usize,
}

/// What happened to one client.
#[derive(Default)]
struct Tally {
    cancelled: usize,
    given_up: usize,
}

/// Runs it through both.
pub(crate) async fn run(choice: &Choice) -> Report {
    let files = Scratch::in_memory();
    let redis = RedisServer::start_in(&files.path).await;
    let at = addresses(INSTANCES);
    let fleet =
        format!("[fleet]\nmode = \"redis\"\nurl = \"{}\"\nsiblings = false\npeers = {}", redis.url(), peers(&at));
    let pgweir = Pgweir {
        fleet,
        // All clients have the address of haproxy.
        admission: "[admission]\ncancel_rate_per_address = \"off\"".to_owned(),
        label: format!("3 × pgweir, transactions_max = {LIMIT}"),
        ..Pgweir::capped(LIMIT)
    };
    let mut routes = vec![Route::PgBouncer(LIMIT / u32::from(INSTANCES)), Route::Pgweir(pgweir)];
    routes.retain(|route| choice.wants(route.word()));
    let mut outcomes = Vec::new();
    for route in &routes {
        println!("brownout, {}", route.name());
        // A server of its own: what one run leaves behind is not the other's.
        let files = Scratch::in_memory();
        let postgres = Postgres::start_in(&files.path, CONNECTIONS_MAX, None).await;
        let balanced = Balanced::start(route, &at, postgres.port, &files.path).await;
        let name = match route {
            Route::PgBouncer(_) => format!("3 × {}", route.name()),
            _ => route.name(),
        };
        outcomes.push(brownout(&postgres, balanced.port, name).await);
    }
    let title = format!("{CLIENTS} clients cancel and try again while a row is locked");
    let svg = picture(&title, &outcomes);
    Report {
        name: "brownout",
        title: "Brownout: cancel and try again, behind a balancer",
        story: STORY,
        tables: vec![table(&title, &outcomes)],
        pictures: vec![("brownout".into(), title, svg)],
    }
}

async fn brownout(postgres: &Postgres, port: u16, route: String) -> Outcome {
    let admin = postgres.admin().await;
    for sql in [
        "CREATE TABLE hot (id int PRIMARY KEY, n bigint); INSERT INTO hot VALUES (1, 0)",
        "CREATE TABLE steady AS SELECT g AS id FROM generate_series(1, 1000) g",
        "GRANT ALL ON hot, steady TO burst, web",
    ] {
        admin.run(sql).await.expect("the superuser may");
    }
    let sampler = Sampler::start(postgres.port, "burst").await;
    let sql = "SELECT count(*) FROM steady";
    let reader = OpenLoop { port, role: "web", sessions: 16, rate: 50, sql }.start().await;
    sleep(QUIET).await;

    admin.run("BEGIN; UPDATE hot SET n = n + 1 WHERE id = 1").await.expect("nobody else has it");
    let began = Instant::now();
    let end = began + LOCKED;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(port, end));
    }
    let (mut logins, mut refused) = (0, 0);
    while Instant::now() < end {
        logins += 1;
        refused += usize::from(matches!(Session::login(postgres.port, "report").await, Err(Failure::Sqlstate(_))));
        sleep(LOGIN_PERIOD).await;
    }
    let (samples, reader) = (sampler.stop(), reader.stop());
    admin.run("COMMIT").await.expect("its session is idle");
    let tally = clients.join_all().await;
    Outcome {
        route,
        began,
        cancelled: tally.iter().map(|one| one.cancelled).sum(),
        given_up: tally.iter().map(|one| one.given_up).sum(),
        samples,
        reader,
        logins,
        refused,
    }
}

/// Asks for the row again and again.
async fn client(port: u16, end: Instant) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    while Instant::now() < end {
        let mut wire = match connection.take() {
            Some(wire) => wire,
            None => match timeout(DEADLINE, Wire::login(port, "burst")).await {
                Ok(Ok(wire)) => wire,
                _ => {
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let asked = async {
            wire.send("UPDATE hot SET n = n + 1 WHERE id = 1").await?;
            wire.cycle().await
        };
        // The end of the whole run is no cancel.
        match timeout(DEADLINE, asked).await {
            Ok(Ok(())) => connection = Some(wire),
            Ok(Err(_)) => sleep(PAUSE).await,
            Err(_) if Instant::now() >= end => return tally,
            Err(_) => {
                let key = wire.key;
                let request = tokio::spawn(async move { timeout(PATIENCE, cancel(port, &key)).await });
                match timeout(PATIENCE, wire.cycle()).await {
                    Ok(Err(error)) if error.to_string().contains("57014") => {
                        tally.cancelled += 1;
                        connection = Some(wire);
                    }
                    _ => tally.given_up += 1,
                }
                // Whether it arrived shows above.
                let _ = request.await;
            }
        }
    }
    tally
}

fn table(title: &str, outcomes: &[Outcome]) -> Table {
    let rows = outcomes.iter().map(|outcome| {
        let Outcome { route, began, cancelled, given_up, samples, reader, logins, refused } = outcome;
        let during: Vec<_> = samples.iter().filter(|sample| sample.at >= *began).collect();
        let quiet = reader.latencies(*began - QUIET, *began - Duration::from_millis(100));
        let late = reader.latencies(*began, *began + LOCKED);
        vec![
            route.clone(),
            format!("{cancelled} of {}", cancelled + given_up),
            during.iter().map(|sample| sample.busy).max().unwrap_or_default().to_string(),
            during.last().map_or(0, |sample| sample.busy).to_string(),
            format!("{refused} of {logins}"),
            spell(percentile(&quiet, 99)),
            spell(percentile(&late, 99)),
            spell(late.iter().max().copied()),
        ]
    });
    Table {
        title: title.to_owned(),
        columns: &[
            "",
            "cancelled",
            "backends",
            "at the end",
            "logins refused",
            "reader quiet p99",
            "reader p99",
            "reader max",
        ],
        rows: rows.collect(),
    }
}

fn picture(title: &str, outcomes: &[Outcome]) -> String {
    let lines = |points: &dyn Fn(&Outcome) -> Vec<(f64, f64)>| {
        outcomes.iter().map(|outcome| Line { name: outcome.route.clone(), points: points(outcome) }).collect()
    };
    let busy = lines(&|outcome| {
        let during = outcome.samples.iter().filter(|sample| sample.at >= outcome.began);
        during.map(|sample| (seconds(sample.at, outcome.began), sample.busy as f64)).collect()
    });
    let latency = lines(&|outcome| {
        let during = outcome.reader.all.iter().filter(|beat| beat.planned >= outcome.began);
        during.map(|beat| (seconds(beat.planned, outcome.began), beat.latency.as_secs_f64() * 1e3)).collect()
    });
    let panels = [
        Panel { y: "backends of the clients", scale: Scale::Linear, lines: busy },
        Panel { y: "latency of an unrelated reader, ms", scale: Scale::Log, lines: latency },
    ];
    draw(title, "seconds since the row was locked", &panels)
}
