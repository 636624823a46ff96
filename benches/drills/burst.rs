//! Drill 1: thousands of clients run one small write transaction each at one instant; an unrelated writer goes on
//! beside them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::chart::{Line, Panel, Scale, draw};
use crate::machine::{Spent, Usage};
use crate::open_loop::{Beats, OpenLoop};
use crate::postgres::Postgres;
use crate::report::{Report, Table};
use crate::route::{Pgweir, Route};
use crate::sampler::{Sample, Sampler};
use crate::session::{Failure, Session};
use crate::slow_disk::{Delays, SlowDisk};
use crate::stats::{megabytes, percentile, spell};
use crate::supervisor::Scratch;
use crate::{Choice, seconds};

/// A run that is not done by then is cut off.
const CUT_OFF: Duration = Duration::from_secs(40);

/// How long the writer is watched before the burst.
const QUIET: Duration = Duration::from_secs(3);

const STORY: &str = "
Clients that are logged in and idle each run one small write transaction, all at one instant: bots woken by a schedule, web workers after a stall.
An unrelated writer, in a role of its own, updates one row of its own table 50 times a second before and during the burst; its latency counts from the
planned time. The server's files are in memory, with 2 ms added to each fsync as on a cloud volume.

- *hot row*: `BEGIN`, `SELECT … FOR UPDATE` of one row, `INSERT`, `COMMIT`. *update*: a one-row `UPDATE`, the same row for all. *notify*: `INSERT` and
  `pg_notify`, whose commits Postgres runs one by one. *index*: each updates its own row under a GIN index, on a volume over its IOPS: one write that
  makes the index longer takes 3 s, each other 1 ms.
- *direct* is Postgres itself with `max_connections = 4200`; a run is cut off after 40 s.
- *waiting* is the most backends of the burst in the queue of a lock, *busy* the most with a transaction, both by the server's own word, five times a
  second. *server CPU* is what Postgres' processes used, *system* the kernel's share of all CPU time used, *log* what lock waits wrote to the server's log.
";

/// What each client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    HotRow,
    Update,
    Notify,
    Index,
}

impl Kind {
    const ALL: [Self; 4] = [Self::HotRow, Self::Update, Self::Notify, Self::Index];

    fn name(self) -> &'static str {
        match self {
            Self::HotRow => "hot-row",
            Self::Update => "update",
            Self::Notify => "notify",
            Self::Index => "index",
        }
    }

    /// Statements of one transaction, each a round trip.
    pub(crate) fn steps(self, client: usize) -> Vec<String> {
        let insert = format!("INSERT INTO event (client) VALUES ({client})");
        match self {
            Self::HotRow => {
                vec!["BEGIN".into(), "SELECT n FROM counter WHERE id = 1 FOR UPDATE".into(), insert, "COMMIT".into()]
            }
            Self::Update => vec!["UPDATE counter SET n = n + 1 WHERE id = 1".into()],
            Self::Notify => {
                vec!["BEGIN".into(), format!("{insert}; SELECT pg_notify('events', '{client}')"), "COMMIT".into()]
            }
            Self::Index => vec![format!(
                "UPDATE bot SET status = 'joining', meta = (SELECT jsonb_object_agg('f' || g, md5((g + {client})::text))
                 FROM generate_series(1, 60) g) WHERE id = {client}"
            )],
        }
    }

    /// How many of them the server has committed.
    pub(crate) fn committed(self) -> &'static str {
        match self {
            Self::HotRow | Self::Notify => "SELECT count(*) FROM event",
            Self::Update => "SELECT n FROM counter",
            Self::Index => "SELECT count(*) FROM bot WHERE status = 'joining'",
        }
    }
}

const TABLES: &str = "
DROP TABLE IF EXISTS counter, event, bot, steady;
CREATE TABLE counter (id int PRIMARY KEY, n bigint);
INSERT INTO counter VALUES (1, 0);
CREATE TABLE event (id bigserial PRIMARY KEY, client int);
CREATE TABLE bot (id int PRIMARY KEY, status text, meta jsonb);
INSERT INTO bot SELECT g, 'ready', jsonb_build_object('k', g) FROM generate_series(0, 4999) g;
CREATE INDEX ON bot USING gin (meta);
CREATE TABLE steady (id int PRIMARY KEY, n int) WITH (fillfactor = 20);
INSERT INTO steady SELECT g, 0 FROM generate_series(1, 1000) g;
GRANT ALL ON ALL TABLES IN SCHEMA public TO burst, web;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO burst, web;
VACUUM ANALYZE counter, event, bot, steady;
CHECKPOINT";

/// Makes the tables anew.
pub(crate) async fn fill(postgres: &Postgres) {
    let admin = postgres.admin().await;
    for statement in TABLES.split(';') {
        admin.run(statement).await.unwrap_or_else(|failure| panic!("{statement}: {failure}"));
    }
}

/// The unrelated writer.
pub(crate) fn writer(port: u16) -> OpenLoop {
    let sql = "UPDATE steady SET n = n + 1 WHERE id = 1 + (random() * 900)::int";
    OpenLoop { port, role: "web", sessions: 16, rate: 50, sql }
}

/// What came of one run.
struct Outcome {
    route: Route,
    /// Of the burst.
    began: Instant,
    /// Each answer's time after that, in order.
    answers: Vec<Duration>,
    failures: BTreeMap<Failure, u32>,
    committed: u64,
    writer: Beats,
    samples: Vec<Sample>,
    spent: Spent,
    log: u64,
    /// When all were answered, or the run was cut off.
    took: Duration,
}

impl Outcome {
    /// Latencies of the unrelated writer, before the burst and during it.
    fn bystander(&self) -> (Vec<Duration>, Vec<Duration>) {
        let latencies = |from, to| self.writer.latencies(from, to);
        (latencies(self.began - QUIET, self.began), latencies(self.began, self.began + self.took))
    }

    fn busy(&self) -> u64 {
        self.samples.iter().map(|sample| sample.busy).max().unwrap_or_default()
    }
}

/// Runs what was chosen.
pub(crate) async fn run(choice: &Choice) -> Report {
    let (files, programs) = (Scratch::in_memory(), Scratch::on_disk());
    let disk = SlowDisk::build(&programs.path);
    let stalls = disk.is_some();
    if !stalls {
        println!("no C compiler: the disk is as fast as it is, and there is no stall to drill");
    }
    let mut postgres = Postgres::start_in(&files.path, 4_200, disk).await;
    let mut report = Report {
        name: "burst",
        title: "Burst: everybody at one instant",
        story: STORY,
        tables: Vec::new(),
        pictures: Vec::new(),
    };
    let mut targets = Table { title: "Targets".into(), columns: TARGETS, rows: Vec::new() };
    for (kind, clients, routes) in plan(choice.full) {
        if kind == Kind::Index && !stalls || !choice.wants(kind.name()) || !choice.wants(&clients.to_string()) {
            continue;
        }
        let mut outcomes = Vec::new();
        for route in routes.iter().filter(|route| choice.wants(route.word())) {
            println!("{}, {clients} clients, {}", kind.name(), route.name());
            outcomes.push(burst(&mut postgres, &files, kind, clients, route).await);
        }
        report.tables.push(table(kind, clients, &outcomes));
        targets.rows.extend(held_to(kind, clients, &outcomes));
        let file = match (kind, clients) {
            // By every route, and so what other pages show.
            (Kind::HotRow, 2_000) => "burst".to_owned(),
            _ => format!("burst-{}-{clients}", kind.name()),
        };
        let shows = format!("{clients} clients at one instant, {}", kind.name());
        let svg = picture(&shows, &outcomes);
        report.pictures.push((file, shows, svg));
    }
    report.tables.insert(0, targets);
    report
}

/// Which runs, each bounded in time.
fn plan(full: bool) -> Vec<(Kind, usize, Vec<Route>)> {
    let pgweir = |transactions_max| Route::Pgweir(Pgweir::capped(transactions_max));
    let off = |transactions_max| {
        let capped = Pgweir::capped(transactions_max);
        let label = format!("{}, admission off", capped.label);
        Route::Pgweir(Pgweir { admission: "[admission]\nmode = \"off\"".into(), label, ..capped })
    };
    let capped = || vec![Route::PgBouncer(20), pgweir(40), pgweir(600)];
    let few = || [vec![Route::Direct], capped()].concat();
    let all = || [few(), vec![Route::PgBouncer(40), off(40), off(600)]].concat();
    if full {
        let sizes = [1_000, 2_000, 4_000];
        return Kind::ALL.into_iter().flat_map(|kind| sizes.map(|clients| (kind, clients, all()))).collect();
    }
    vec![
        (Kind::HotRow, 1_000, few()),
        (Kind::HotRow, 2_000, all()),
        (Kind::Update, 1_000, few()),
        // Direct is cut off with half as many already.
        (Kind::Update, 2_000, capped()),
        (Kind::Notify, 1_000, few()),
        (Kind::Notify, 2_000, capped()),
        (Kind::Index, 1_000, few()),
        (Kind::Index, 2_000, few()),
        (Kind::Index, 4_000, few()),
    ]
}

async fn burst(postgres: &mut Postgres, files: &Scratch, kind: Kind, clients: usize, route: &Route) -> Outcome {
    fill(postgres).await;
    let open = route.open(postgres, &files.path).await;
    let crowd = Session::crowd(open.port, "burst", clients).await;
    let sampler = Sampler::start(postgres.port, "burst").await;
    let writer = writer(open.port).start().await;
    sleep(QUIET).await;

    let (log_before, usage_before) = (postgres.log_size(), Usage::now(postgres.pid()));
    if let (Kind::Index, Some(disk)) = (kind, postgres.disk()) {
        disk.set(Delays::STALLED);
    }
    let began = Instant::now() + Duration::from_millis(100);
    let mut transactions = JoinSet::new();
    for (client, session) in crowd.into_iter().enumerate() {
        transactions.spawn(async move {
            sleep_until(began).await;
            for step in kind.steps(client) {
                session.run(&step).await?;
            }
            Ok((began.elapsed(), session))
        });
    }
    let (mut answers, mut failures, mut idle) = (Vec::new(), BTreeMap::new(), Vec::new());
    while let Ok(Some(ended)) = timeout_at(began + CUT_OFF, transactions.join_next()).await {
        match ended.expect("a client does not panic") {
            Ok((after, session)) => {
                answers.push(after);
                idle.push(session);
            }
            Err(failure) => *failures.entry(failure).or_default() += 1,
        }
    }
    let took = began.elapsed().min(CUT_OFF);
    let writer = writer.stop();
    let spent = Usage::now(postgres.pid()).since(usage_before);
    let log = postgres.log_size() - log_before;
    let samples = sampler.stop();
    let unanswered = u32::try_from(transactions.len()).expect("thousands");
    if let Some(disk) = postgres.disk() {
        disk.set(Delays::VOLUME);
    }
    drop((transactions, idle, open));
    if unanswered > 0 {
        failures.insert(Failure::Unanswered, unanswered);
        postgres.crash();
        postgres.start().await;
    }
    let committed = postgres.admin().await.number(kind.committed()).await.expect("the server is well again");
    assert!(committed >= answers.len() as u64, "{} answered, {committed} committed: some are lost", answers.len());
    answers.sort_unstable();
    Outcome { route: route.clone(), began, answers, failures, committed, writer, samples, spent, log, took }
}

const COLUMNS: &[&str] = &[
    "",
    "answered",
    "last answer",
    "p50",
    "p99",
    "waiting",
    "busy",
    "server CPU",
    "system",
    "log",
    "writer quiet p99",
    "writer p50",
    "writer p99",
    "writer max",
];

fn table(kind: Kind, clients: usize, outcomes: &[Outcome]) -> Table {
    let rows = outcomes.iter().map(|outcome| {
        let Outcome { answers, failures, took, samples, spent, .. } = outcome;
        let (quiet, beside) = outcome.bystander();
        let failed = failures.iter().map(|(failure, count)| format!(", {count} {failure}")).collect::<String>();
        let last =
            if answers.len() == clients { spell(answers.last().copied()) } else { format!("> {}", spell(Some(*took))) };
        let waiting = samples.iter().map(|sample| sample.waiting).max();
        let beyond = outcome.committed - answers.len() as u64;
        let beyond = if beyond > 0 { format!(" (+{beyond} committed)") } else { String::new() };
        vec![
            outcome.route.name(),
            format!("{}{beyond}{failed}", answers.len()),
            last,
            spell(percentile(answers, 50)),
            spell(percentile(answers, 99)),
            waiting.unwrap_or_default().to_string(),
            outcome.busy().to_string(),
            format!("{:.1} s", spent.server.as_secs_f64()),
            format!("{} %", spent.system_share),
            megabytes(outcome.log),
            spell(percentile(&quiet, 99)),
            spell(percentile(&beside, 50)),
            spell(percentile(&beside, 99)),
            spell(beside.iter().max().copied()),
        ]
    });
    Table { title: format!("{}, {clients} clients", kind.name()), columns: COLUMNS, rows: rows.collect() }
}

const TARGETS: &[&str] = &[
    "",
    "writer p99 ÷ quiet p99 (3)",
    "last answer ÷ best PgBouncer's (1.1)",
    "busy (transactions_max)",
    "not answered (0)",
];

/// What pgweir promises, in brackets above, and what it did.
fn held_to(kind: Kind, clients: usize, outcomes: &[Outcome]) -> Vec<Vec<String>> {
    let pools = outcomes.iter().filter(|outcome| matches!(outcome.route, Route::PgBouncer(_)));
    let best = pools.map(|outcome| outcome.took).min();
    let ratio = |one: Option<Duration>, other: Option<Duration>| match (one, other) {
        (Some(one), Some(other)) => format!("{:.2}", one.div_duration_f64(other)),
        _ => "–".to_owned(),
    };
    let row = |outcome: &Outcome| {
        let Route::Pgweir(pgweir) = &outcome.route else { return None };
        let (quiet, beside) = outcome.bystander();
        Some(vec![
            format!("{}, {clients} clients, {}", kind.name(), pgweir.label),
            ratio(percentile(&beside, 99), percentile(&quiet, 99)),
            ratio(Some(outcome.took), best),
            format!("{} ({})", outcome.busy(), pgweir.size),
            outcome.failures.values().sum::<u32>().to_string(),
        ])
    };
    outcomes.iter().filter_map(row).collect()
}

fn picture(title: &str, outcomes: &[Outcome]) -> String {
    let answered = outcomes.iter().map(|outcome| {
        let counted = outcome.answers.iter().zip(1..).map(|(after, count)| (after.as_secs_f64(), f64::from(count)));
        let until_cut_off = (outcome.took.as_secs_f64(), outcome.answers.len() as f64);
        Line {
            name: outcome.route.name(),
            points: [(0.0, 0.0)].into_iter().chain(counted).chain([until_cut_off]).collect(),
        }
    });
    let latency = outcomes.iter().map(|outcome| {
        let during = outcome.writer.all.iter().filter(|beat| beat.planned >= outcome.began);
        let points = during.map(|beat| (seconds(beat.planned, outcome.began), beat.latency.as_secs_f64() * 1e3));
        Line { name: outcome.route.name(), points: points.collect() }
    });
    let panels = [
        Panel { y: "clients answered", scale: Scale::Linear, lines: answered.collect() },
        Panel { y: "latency of an unrelated writer, ms", scale: Scale::Log, lines: latency.collect() },
    ];
    draw(title, "seconds after the burst", &panels)
}
