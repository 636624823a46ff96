//! Drill 7: hundreds wait for one lock, whose deadlock checks stop the server, and the watch looks on or does
//! something.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::burst::{self, Kind};
use crate::chart::{Line, Panel, Scale, draw};
use crate::machine::load_average;
use crate::open_loop::Beats;
use crate::postgres::Postgres;
use crate::records::{Reader, WatchRecord};
use crate::report::{Report, Table};
use crate::route::{Pgweir, Route};
use crate::sampler::{Sample, Sampler};
use crate::session::{Failure, Session};
use crate::slow_disk::{Delays, SlowDisk};
use crate::stats::{percentile, spell};
use crate::supervisor::Scratch;
use crate::{Choice, seconds};

const CLIENTS: usize = 800;

/// They come one after the other, so soon: all of them in four seconds.
const GAP: Duration = Duration::from_millis(5);

/// The lock is held for so long, unless somebody ends that.
const HELD: Duration = Duration::from_secs(10);

/// A run that is not done by then is cut off, counted from when the first client came.
const CUT_OFF: Duration = Duration::from_secs(40);

/// How long the writer is watched before.
const QUIET: Duration = Duration::from_secs(3);

const STORY: &str = "
One transaction takes a lock, by `SELECT … FOR UPDATE` of one row, and then does nothing for 10 s: a worker that waits for somebody else's HTTP answer. Meanwhile 800
clients of a role without `transactions_max` come to update that row, 200 a second. Each that waits for a second looks for a deadlock, holding up everybody who wants any lock,
and the k-th looks at the k before it over and over. In *extension* nobody is idle: a write that makes an index longer takes 10 s, on a
volume over its IOPS, and the clients, who update rows of their own, wait to make it longer, too. All go through pgweir, which watches the server from a connection
of its own. An unrelated writer, in a role of its own, updates one row of its own table 50 times a second; its latency counts from the planned time. The server's files are in
memory, with 2 ms added to each fsync as on a cloud volume.

- *reported after* is when pgweir's log had the record of the convoy, counted from when the first client came; what it said stands below.
- *waiting* is the most sessions of these clients in the queue of a lock, by the server's own word. That is asked five times a second, and not answered while the server stands still.
- *admission off* lets everybody in, as other poolers do. *slow start* is how pgweir comes: the role was busy a moment ago, so its effective limit is
  some 200; that of a quiet one begins at 8. `transactions_max = 40` is what keeps a convoy from forming at all.
- *tighten* (`on_convoy`) halves, four times a second, how many transactions of the role may be active, and so lets no more of them in; it cancels
  nobody. *cancel* (`on_idle_holder`) ends the idle transaction once others have waited for it for `watch.blocked`, 5 s; without it, nobody lets go before 10 s.
";

/// What is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    Row,
    Extension,
}

impl Lock {
    fn name(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Extension => "extension",
        }
    }

    /// Clients whose work needs it.
    fn work(self) -> Kind {
        match self {
            Self::Row => Kind::Update,
            Self::Extension => Kind::Index,
        }
    }
}

struct Outcome {
    route: Route,
    /// When nothing was wrong yet, for [`QUIET`].
    quiet_from: Instant,
    /// When the first client came.
    began: Instant,
    /// Each answer's time after that, in order.
    answers: Vec<Duration>,
    failures: BTreeMap<Failure, u32>,
    /// When the holder let go by itself, or found that it had to.
    released: Instant,
    writer: Beats,
    samples: Vec<Sample>,
    records: Vec<WatchRecord>,
    took: Duration,
    load: String,
}

impl Outcome {
    fn convoy(&self) -> Option<&WatchRecord> {
        self.records.iter().find(|record| record.kind == "convoy" && record.is_open)
    }

    /// When the lock was free: who is cancelled learns of it by their next statement.
    fn let_go(&self) -> Instant {
        let cancelled = self.records.iter().find(|record| record.words.starts_with("watch.on_idle_holder"));
        cancelled.map_or(self.released, |record| self.released.min(record.at))
    }
}

/// Runs it with the reactions that there are.
pub(crate) async fn run(choice: &Choice) -> Report {
    let (files, programs) = (Scratch::in_memory(), Scratch::on_disk());
    let disk = SlowDisk::build(&programs.path);
    let locks = if disk.is_some() { &[Lock::Row, Lock::Extension][..] } else { &[Lock::Row] };
    let mut postgres = Postgres::start_in(&files.path, 1_000, disk).await;
    let mut report = Report {
        name: "convoy",
        title: "Convoy: hundreds wait for one lock",
        story: STORY,
        tables: Vec::new(),
        pictures: Vec::new(),
    };
    let mut records =
        Table { title: "What pgweir's log said".into(), columns: &["", "after", "record"], rows: Vec::new() };
    for lock in locks.iter().copied().filter(|lock| choice.wants(lock.name())) {
        let mut outcomes = Vec::new();
        for route in routes(lock) {
            println!("convoy, {}, {}", lock.name(), route.name());
            outcomes.push(convoy(&mut postgres, &files, lock, &route).await);
        }
        report.tables.push(table(lock, &outcomes));
        records.rows.extend(outcomes.iter().flat_map(|outcome| said(lock, outcome)));
        let file = if lock == Lock::Row { "convoy".to_owned() } else { format!("convoy-{}", lock.name()) };
        let shows = format!("{CLIENTS} clients want what one transaction has, {}", lock.name());
        let svg = picture(&shows, &outcomes);
        report.pictures.push((file, shows, svg));
    }
    report.tables.push(records);
    report
}

fn routes(lock: Lock) -> Vec<Route> {
    let size = u32::try_from(CLIENTS).expect("hundreds");
    let pgweir = |label: &str, keys: &str| Pgweir {
        watch: format!("[watch]\nrole = \"pgweir_watch\"\n{keys}"),
        label: label.to_owned(),
        ..Pgweir::pool(size)
    };
    let (tighten, cancel) = ("on_convoy = \"tighten\"", "on_idle_holder = \"cancel\"");
    let open = |label, keys| Pgweir { admission: "[admission]\nmode = \"off\"".into(), ..pgweir(label, keys) };
    let mut all = vec![open("admission off", ""), pgweir("slow start", ""), pgweir("slow start, tighten", tighten)];
    if lock == Lock::Row {
        all.insert(1, open("admission off, cancel", cancel));
        all.push(pgweir("slow start, tighten and cancel", &format!("{tighten}\n{cancel}")));
        all.push(Pgweir { burst: "transactions_max = 40".into(), ..pgweir("transactions_max = 40", "") });
    }
    all.into_iter().map(Route::Pgweir).collect()
}

async fn convoy(postgres: &mut Postgres, files: &Scratch, lock: Lock, route: &Route) -> Outcome {
    burst::fill(postgres).await;
    postgres.admin().await.run("GRANT ALL ON counter TO deploy").await.expect("the superuser may");
    let open = route.open(postgres, &files.path).await;
    let crowd = Session::crowd(open.port, "burst", CLIENTS).await;
    let holder = Session::login(open.port, "deploy").await.expect("a login at rest");
    let sampler = Sampler::start(postgres.port, "burst").await;
    warm_up(&crowd, route).await;
    let writer = burst::writer(open.port).start().await;
    let quiet_from = Instant::now();
    sleep(QUIET).await;
    if has_role_queue(route) {
        // The effective limit is what the load needed less than a second ago.
        widen(&crowd).await;
    }
    let reader = Reader::start(open.log.as_ref().expect("pgweir has one"));
    match (lock, postgres.disk()) {
        (Lock::Row, _) | (Lock::Extension, None) => {
            holder.run("BEGIN; SELECT n FROM counter WHERE id = 1 FOR UPDATE").await.expect("it is free");
        }
        (Lock::Extension, Some(disk)) => disk.set(Delays { extend_once: HELD, ..Delays::STALLED }),
    }
    let began = Instant::now() + GAP;
    let mut clients = JoinSet::new();
    for (number, session) in crowd.into_iter().enumerate() {
        clients.spawn(async move {
            sleep_until(began + GAP * u32::try_from(number).expect("hundreds")).await;
            for step in lock.work().steps(number) {
                session.run(&step).await?;
            }
            Ok((began.elapsed(), session))
        });
    }
    let holding = async {
        match lock {
            Lock::Row => {
                // Who is cancelled learns of it by the next statement.
                let _ = timeout_at(began + HELD, holder.gone()).await;
                let released = Instant::now();
                let _ = holder.run("COMMIT").await;
                released
            }
            Lock::Extension => {
                sleep_until(began + HELD).await;
                Instant::now()
            }
        }
    };
    let (mut answers, mut failures, mut idle) = (Vec::new(), BTreeMap::new(), Vec::new());
    let working = async {
        while let Ok(Some(ended)) = timeout_at(began + CUT_OFF, clients.join_next()).await {
            match ended.expect("a client does not panic") {
                Ok((after, session)) => {
                    answers.push(after);
                    idle.push(session);
                }
                Err(failure) => *failures.entry(failure).or_default() += 1,
            }
        }
    };
    let (released, ()) = tokio::join!(holding, working);
    let took = began.elapsed().min(CUT_OFF);
    let (writer, samples, records, load) = (writer.stop(), sampler.stop(), reader.stop(), load_average());
    if let Some(disk) = postgres.disk() {
        disk.set(Delays::VOLUME);
    }
    let unanswered = u32::try_from(clients.len()).expect("hundreds");
    drop((clients, idle, open));
    if unanswered > 0 {
        failures.insert(Failure::Unanswered, unanswered);
        postgres.crash();
        postgres.start().await;
    }
    answers.sort_unstable();
    Outcome {
        route: route.clone(),
        quiet_from,
        began,
        answers,
        failures,
        released,
        writer,
        samples,
        records,
        took,
        load,
    }
}

fn has_role_queue(route: &Route) -> bool {
    matches!(route, Route::Pgweir(pgweir) if pgweir.admission.is_empty() && pgweir.burst.is_empty())
}

/// Opens the backends, one for each client where nothing else is in force: who opens 800 at once has another incident.
async fn warm_up(crowd: &[Session], route: &Route) {
    if has_role_queue(route) {
        return widen(crowd).await;
    }
    if matches!(route, Route::Pgweir(pgweir) if !pgweir.burst.is_empty()) {
        return;
    }
    for sql in ["BEGIN", "COMMIT"] {
        for outcome in join_all(crowd.iter().map(|session| session.run(sql))).await {
            outcome.expect("there is a backend for everybody");
        }
    }
}

/// Work that makes slow start raise the effective limit.
async fn widen(crowd: &[Session]) {
    for _ in 0..8 {
        for outcome in join_all(crowd.iter().map(|session| session.run("SELECT pg_sleep(0.2)"))).await {
            outcome.expect("nothing is wrong yet");
        }
    }
}

const COLUMNS: &[&str] = &[
    "",
    "reported after",
    "waiting",
    "let go after",
    "answered",
    "last answer",
    "writer quiet p99",
    "writer p50",
    "writer p99",
    "writer max",
    "load",
];

fn table(lock: Lock, outcomes: &[Outcome]) -> Table {
    let rows = outcomes.iter().map(|outcome| {
        let Outcome { route, quiet_from, began, answers, failures, samples, took, load, .. } = outcome;
        let quiet = outcome.writer.latencies(*quiet_from, *quiet_from + QUIET);
        let beside = outcome.writer.latencies(*began, *began + *took);
        let failed = failures.iter().map(|(failure, count)| format!(", {count} {failure}")).collect::<String>();
        let last =
            if answers.len() == CLIENTS { spell(answers.last().copied()) } else { format!("> {}", spell(Some(*took))) };
        vec![
            route.name(),
            spell(outcome.convoy().map(|record| record.at - *began)),
            samples.iter().map(|sample| sample.waiting).max().unwrap_or_default().to_string(),
            spell(Some(outcome.let_go() - *began)),
            format!("{}{failed}", answers.len()),
            last,
            spell(percentile(&quiet, 99)),
            spell(percentile(&beside, 50)),
            spell(percentile(&beside, 99)),
            spell(beside.iter().max().copied()),
            load.clone(),
        ]
    });
    Table { title: format!("{}, {CLIENTS} clients", lock.name()), columns: COLUMNS, rows: rows.collect() }
}

/// Every record of a run.
fn said(lock: Lock, outcome: &Outcome) -> impl Iterator<Item = Vec<String>> {
    let row = move |record: &WatchRecord| {
        let after = spell(Some(record.at.saturating_duration_since(outcome.began)));
        vec![format!("{}, {}", lock.name(), outcome.route.name()), after, format!("{}: {}", record.kind, record.words)]
    };
    outcome.records.iter().map(row)
}

fn picture(title: &str, outcomes: &[Outcome]) -> String {
    let waiting = outcomes.iter().map(|outcome| {
        let during = outcome.samples.iter().filter(|sample| sample.at >= outcome.began);
        let points = during.map(|sample| (seconds(sample.at, outcome.began), sample.waiting as f64));
        Line { name: outcome.route.name(), points: points.collect() }
    });
    let latency = outcomes.iter().map(|outcome| {
        let during = outcome.writer.all.iter().filter(|beat| beat.planned >= outcome.began);
        let points = during.map(|beat| (seconds(beat.planned, outcome.began), beat.latency.as_secs_f64() * 1e3));
        Line { name: outcome.route.name(), points: points.collect() }
    });
    let panels = [
        Panel { y: "sessions in wait for the lock", scale: Scale::Linear, lines: waiting.collect() },
        Panel { y: "latency of an unrelated writer, ms", scale: Scale::Log, lines: latency.collect() },
    ];
    draw(title, "seconds after the first client came", &panels)
}
