//! Drill 3: ALTER TABLE waits behind a long SELECT, and everybody who only wants to read waits behind ALTER TABLE.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::chart::{Line, Panel, Scale, draw};
use crate::open_loop::{Beats, OpenLoop};
use crate::postgres::Postgres;
use crate::report::{Report, Table};
use crate::route::{Pgweir, Route};
use crate::session::{Failure, Session};
use crate::stats::{percentile, spell};
use crate::supervisor::Scratch;
use crate::{Choice, seconds};

/// The migration tries again this long after it was refused.
const PAUSE: Duration = Duration::from_secs(1);

/// Readers are looked at for so long.
const WATCHED: Duration = Duration::from_secs(8);

/// The migration has succeeded by then.
const CUT_OFF: Duration = Duration::from_secs(30);

const STORY: &str = "
A report reads table `users` for 6 s. Half a second after it began, a migration wants `ALTER TABLE users ADD COLUMN`, which waits for the report; whoever reads
`users` from then on waits for the migration. 200 readers in a role of their own read one row each, half of them of `users`, half of `products`, together 200
times a second; latency counts from the planned time. With `lock_timeout` under `[roles.deploy]`, the role that migrates, Postgres gives
the migration up after 300 ms (55P03) and the readers go on; it tries again a second later, as migration tools do.

- *late* is the share of reads that took more than 100 ms, in the 8 s after the report began.
- A pool makes it worse for bystanders: readers of `users` hold all its backends, so readers of `products`, whom no lock concerns, wait as well.
";

struct Outcome {
    route: String,
    began: Instant,
    users: Beats,
    products: Beats,
    /// After it was first asked for.
    migrated: Option<Duration>,
    refused: u32,
}

/// Runs it without and with a lock timeout.
pub(crate) async fn run(choice: &Choice) -> Report {
    let files = Scratch::in_memory();
    let postgres = Postgres::start_in(&files.path, 300, None).await;
    let plain = Pgweir::pool(20);
    let timed = Pgweir {
        deploy: "lock_timeout = \"300ms\"".into(),
        label: format!("{}, lock_timeout = 300 ms", plain.label),
        ..plain.clone()
    };
    let mut routes = vec![Route::Direct, Route::PgBouncer(20), Route::Pgweir(plain), Route::Pgweir(timed)];
    routes.retain(|route| choice.wants(route.word()));
    let mut outcomes = Vec::new();
    for route in &routes {
        println!("lock queue, {}", route.name());
        outcomes.push(lock_queue(&postgres, &files, route).await);
    }
    let title = "ALTER TABLE behind a 6 s SELECT, in front of 200 readers";
    Report {
        name: "lock-queue",
        title: "Lock queue: a migration in front of everybody",
        story: STORY,
        tables: vec![table(&outcomes)],
        pictures: vec![("lock-queue".into(), title.into(), picture(title, &outcomes))],
    }
}

async fn lock_queue(postgres: &Postgres, files: &Scratch, route: &Route) -> Outcome {
    let admin = postgres.admin().await;
    for table in ["users", "products"] {
        let fill = "AS SELECT id, 'v' || id AS name FROM generate_series(1, 10000) id";
        let sql = format!(
            "DROP TABLE IF EXISTS {table}; CREATE TABLE {table} {fill}; ALTER TABLE {table} ADD PRIMARY KEY (id);
             ALTER TABLE {table} OWNER TO deploy; GRANT SELECT ON {table} TO web, report"
        );
        admin.run(&sql).await.expect("the superuser may");
    }
    admin.run("VACUUM ANALYZE").await.expect("the superuser may");
    let open = route.open(postgres, &files.path).await;
    let readers = |sql| OpenLoop { port: open.port, role: "web", sessions: 100, rate: 100, sql };
    let users = readers("SELECT name FROM users WHERE id = 7").start().await;
    let products = readers("SELECT name FROM products WHERE id = 7").start().await;
    let report = Session::login(open.port, "report").await.expect("a login at rest");
    let deploy = Session::login(open.port, "deploy").await.expect("a login at rest");

    let began = Instant::now();
    let report = tokio::spawn(async move {
        report.run("BEGIN; SELECT count(*) FROM users; SELECT pg_sleep(6); COMMIT").await.expect("a report");
    });
    let asked = began + Duration::from_millis(500);
    sleep_until(asked).await;
    let mut refused = 0;
    let migrating = async {
        loop {
            match deploy.run("ALTER TABLE users ADD COLUMN address text").await {
                Ok(()) => break,
                Err(Failure::Sqlstate(code)) if code == "55P03" => refused += 1,
                Err(other) => panic!("the migration: {other}"),
            }
            sleep(PAUSE).await;
        }
    };
    let migrated = timeout_at(began + CUT_OFF, migrating).await.is_ok().then(|| asked.elapsed());
    report.await.expect("the report does not panic");
    sleep_until(began + WATCHED).await;
    Outcome { route: route.name(), began, users: users.stop(), products: products.stop(), migrated, refused }
}

const COLUMNS: &[&str] = &[
    "",
    "users p50",
    "users p99",
    "users max",
    "users late",
    "products p50",
    "products p99",
    "products max",
    "products late",
    "migrated after",
    "tries refused",
    "reader errors",
];

fn table(outcomes: &[Outcome]) -> Table {
    let rows = outcomes.iter().map(|outcome| {
        let mut row = vec![outcome.route.clone()];
        for beats in [&outcome.users, &outcome.products] {
            let reads = beats.latencies(outcome.began, outcome.began + WATCHED);
            let late = reads.iter().filter(|read| **read > Duration::from_millis(100)).count();
            row.extend([
                spell(percentile(&reads, 50)),
                spell(percentile(&reads, 99)),
                spell(reads.iter().max().copied()),
                format!("{} %", 100 * late / reads.len().max(1)),
            ]);
        }
        let errors: u32 = outcome.users.failures.values().chain(outcome.products.failures.values()).sum();
        row.extend([spell(outcome.migrated), outcome.refused.to_string(), errors.to_string()]);
        row
    });
    Table { title: "200 readers".into(), columns: COLUMNS, rows: rows.collect() }
}

fn picture(title: &str, outcomes: &[Outcome]) -> String {
    let lines = |beats: &dyn Fn(&Outcome) -> &Beats| {
        let line = |outcome: &Outcome| {
            let after = beats(outcome).all.iter().filter(|beat| beat.planned >= outcome.began);
            let points = after.map(|beat| (seconds(beat.planned, outcome.began), beat.latency.as_secs_f64() * 1e3));
            Line { name: outcome.route.clone(), points: points.collect() }
        };
        outcomes.iter().map(line).collect()
    };
    let panels = [
        Panel { y: "readers of users, ms", scale: Scale::Log, lines: lines(&|outcome| &outcome.users) },
        Panel { y: "readers of products, ms", scale: Scale::Log, lines: lines(&|outcome| &outcome.products) },
    ];
    draw(title, "seconds after the report began", &panels)
}
