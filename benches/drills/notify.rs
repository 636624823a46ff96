//! Drill 6: transactions that notify, which Postgres commits one by one; those who listen; and a crowd of listeners.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::Choice;
use crate::chart::{Line, Panel, Scale, draw};
use crate::listeners::{Listeners, Stream, Verdict, crowd, payload};
use crate::postgres::Postgres;
use crate::process::{output_of, root};
use crate::redis_server::RedisServer;
use crate::report::{Report, Table};
use crate::route::{Pgweir, Route};
use crate::session::DBNAME;
use crate::slow_disk::SlowDisk;
use crate::stats::{percentile, spell};
use crate::supervisor::Scratch;
use crate::wire::Wire;

/// How many write at once.
const WRITERS: [usize; 4] = [1, 10, 50, 100];

/// As many backends as the most writers, through whatever they go.
const POOL: u32 = 100;

const LISTENERS: usize = 20;
/// Rates are measured while so many listen: handing out what one says to many costs CPU that writers lack.
const AUDIENCES: [usize; 2] = [0, LISTENERS];
const CHANNEL: &str = "drill";

/// Between two reads of a listener while rates are measured.
const REST: Duration = Duration::from_millis(10);

/// Each kind of transaction for so long, one after the other, so many times.
const SLICE: Duration = Duration::from_millis(200);
/// In the first round, which does not count.
const WARM_UP: Duration = Duration::from_millis(80);
const ROUNDS: usize = 4;
const ROUNDS_IN_FULL: usize = 20;

/// Every tenth transaction rolls back.
const ROLLBACK_EVERY: u32 = 10;

/// Between two looks at the lock.
const LOOK: Duration = Duration::from_millis(50);

/// Deliveries are timed at this rate, for so many.
const RATE: u32 = 1_000;
const DELIVERIES: u32 = 5_000;
const DELIVERY_WRITERS: usize = 50;

const CROWD: usize = 5_000;
const CHANNELS: usize = 200;

const STORY: &str = "
A transaction that has called `NOTIFY` takes a lock over all databases before its commit record is flushed and holds it until after: its server commits one of them per
flush. Writers run `BEGIN`, `INSERT`, `COMMIT`, three round trips, and notify in the second: by a statement (`INSERT …; NOTIFY …`), by a call
(`INSERT …; SELECT pg_notify(…)`), in a trigger that calls `pg_notify`, or in one whose function `pgweir notify-sql` has adopted. Every tenth rolls back. Each kind runs for
a fifth of a second in turn with all others, so that whatever else the machine does meets them all. The server's files are in memory, with 2 ms added to each
fsync as on a cloud volume; pools have 100 backends; writers, listeners, proxies and the server share the machine's cores.

- *÷* is the rate as a part of the rate of the same transaction that does not notify, on the same way in the same run: of `INSERT` alone, and for triggers of an
  `INSERT` with a trigger that does nothing. *waiting* is the most backends in the queue of the lock (`pg_locks`, database 0), looked at 20 times a second.
- Rates are measured while nobody listens and while 20 clients do, behind pgweir in its runs, else at Postgres. Where the cores are busy, which here they are from
  50 writers on, the second also shows what it costs to hand each notification out 20 times, and to read it 20 times: 80 µs of CPU beside the 400 µs of the transaction.
- An adopted trigger costs the server 75 µs more than an empty one, which shows once the cores are busy: 40 for a message that Postgres sends to the client
  at once, 20 for the function's `search_path`. A function that calls `pgweir.notify` by its name saves the latter.
- *verified* is how many notifications were committed in all; every listener must get each of them once, none that was rolled back, and those of a writer in
  their order.
- *delivery* is from the sending of COMMIT until a listener has it, at 1,000 transactions a second of 50 writers; Postgres itself does not reach that rate.
- *crowd*: 5,000 clients of pgweir listen to 200 channels, to each of which comes one notification. *held* are the backends pgweir keeps for `LISTEN` and
  `NOTIFY`, *pooled* those that logins opened and anybody may use. PgBouncer has no `LISTEN` in transaction mode, and Postgres would need 5,000 backends.
";

/// What a transaction does besides its INSERT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Plain,
    Statement,
    Call,
    EmptyTrigger,
    Trigger,
    Adopted,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Plain, Self::Statement, Self::Call, Self::EmptyTrigger, Self::Trigger, Self::Adopted];
    const NOTIFYING: [Self; 4] = [Self::Statement, Self::Call, Self::Trigger, Self::Adopted];

    fn title(self) -> &'static str {
        match self {
            Self::Plain => "INSERT",
            Self::Statement => "INSERT and NOTIFY",
            Self::Call => "INSERT and SELECT pg_notify()",
            Self::EmptyTrigger => "INSERT with a trigger that does nothing",
            Self::Trigger => "INSERT with a trigger that calls pg_notify()",
            Self::Adopted => "INSERT with a trigger whose function is adopted",
        }
    }

    fn control(self) -> Self {
        match self {
            Self::Plain | Self::Statement | Self::Call => Self::Plain,
            Self::EmptyTrigger | Self::Trigger | Self::Adopted => Self::EmptyTrigger,
        }
    }

    /// What its notifications say first.
    fn way(self) -> u8 {
        self as u8
    }

    /// The second of three Query messages.
    fn middle(self, writer: u16, number: u32) -> String {
        let text = payload((self.way(), writer), number);
        let insert = |table: &str| format!("INSERT INTO {table} (text) VALUES ('{text}')");
        match self {
            Self::Plain => insert("plain"),
            Self::Statement => format!("{}; NOTIFY {CHANNEL}, '{text}'", insert("plain")),
            Self::Call => format!("{}; SELECT pg_notify('{CHANNEL}', '{text}')", insert("plain")),
            Self::EmptyTrigger => insert("empty_trigger"),
            Self::Trigger => insert("told"),
            Self::Adopted => insert("adopted"),
        }
    }
}

const TABLES: &str = "
CREATE TABLE plain (id bigserial PRIMARY KEY, text text);
CREATE TABLE empty_trigger (LIKE plain INCLUDING ALL);
CREATE TABLE told (LIKE plain INCLUDING ALL);
CREATE TABLE adopted (LIKE plain INCLUDING ALL);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION adopted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_notify(''drill'', new.text); RETURN NULL; END';
CREATE TRIGGER t AFTER INSERT ON empty_trigger FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE TRIGGER t AFTER INSERT ON adopted FOR EACH ROW EXECUTE FUNCTION adopted();
";

/// Made after the adoption, which leaves none out.
const NOT_ADOPTED: &str = "
CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_notify(''drill'', new.text); RETURN NULL; END';
CREATE TRIGGER t AFTER INSERT ON told FOR EACH ROW EXECUTE FUNCTION told();
GRANT ALL ON ALL TABLES IN SCHEMA public TO burst;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO burst;
";

const WAITING: &str = "SELECT count(*) FROM pg_locks
WHERE NOT granted AND locktype = 'object' AND database = 0 AND classid = 1262 AND objid = 0";

/// pgweir gives its own connections names.
const HELD: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('pgweir listen', 'pgweir notify')";
const POOLED: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE usename IN ('web', 'burst') AND application_name = ''";

/// Transactions of a kind in one run.
#[derive(Clone, Copy, Default)]
struct LimiterCounters {
    committed: u32,
    took: Duration,
    /// The most backends in the lock's queue.
    waiting: u64,
}

impl LimiterCounters {
    fn rate(&self) -> f64 {
        f64::from(self.committed) / self.took.as_secs_f64().max(1e-9)
    }
}

/// So many writers on one way.
struct Commits {
    writers: usize,
    listeners: usize,
    tallies: BTreeMap<Kind, LimiterCounters>,
    verdict: Verdict,
}

impl Commits {
    fn ratio(&self, kind: Kind) -> f64 {
        self.tallies[&kind].rate() / self.tallies[&kind.control()].rate().max(1e-9)
    }
}

struct Delivery {
    latencies: Vec<Duration>,
    took: Duration,
    verdict: Verdict,
}

struct Crowd {
    listening_after: Duration,
    /// Backends that are there for LISTEN and NOTIFY.
    held: u64,
    /// Others: pools opened them for the logins.
    pooled: u64,
    heard: usize,
    heard_after: Duration,
}

/// All runs on one way.
struct Outcome {
    route: Route,
    commits: Vec<Commits>,
    delivery: Option<Delivery>,
    crowd: Option<Crowd>,
}

/// Runs what was chosen.
pub(crate) async fn run(choice: &Choice) -> Report {
    let (files, programs) = (Scratch::in_memory(), Scratch::on_disk());
    let disk = SlowDisk::build(&programs.path);
    if disk.is_none() {
        println!("no C compiler: the disk is as fast as it is");
    }
    let postgres = Postgres::start_in(&files.path, 400, disk).await;
    fill(&postgres, &programs.path).await;
    let server = RedisServer::start_in(&programs.path).await;
    let bus = |bus: &str, more: &str| {
        let label = format!("pgweir, bus = {bus}");
        Route::Pgweir(Pgweir { notify: format!("[notify]\nbus = \"{bus}\"\n{more}"), label, ..Pgweir::pool(POOL) })
    };
    let redis = bus("redis", &format!("redis_url = \"{}\"", server.url()));
    let routes = [Route::Direct, Route::PgBouncer(POOL), bus("memory", ""), bus("postgres", ""), redis];
    let rounds = if choice.full { ROUNDS_IN_FULL } else { ROUNDS };
    let mut outcomes = Vec::new();
    for route in routes.into_iter().filter(|route| choice.wants(route.word())) {
        let mut outcome = Outcome { route, commits: Vec::new(), delivery: None, crowd: None };
        let route = &outcome.route;
        for writers in WRITERS.into_iter().filter(|writers| choice.wants(&writers.to_string())) {
            for listeners in AUDIENCES {
                println!("notify, {writers} writers, {listeners} listeners, {}", route.name());
                outcome.commits.push(commits(&postgres, &files.path, route, (writers, listeners), rounds).await);
            }
        }
        if choice.wants("delivery") && !matches!(route, Route::PgBouncer(_)) {
            println!("notify, {RATE} deliveries a second, {}", route.name());
            outcome.delivery = Some(delivery(&postgres, &files.path, route).await);
        }
        if choice.wants("crowd") && matches!(route, Route::Pgweir(_)) {
            println!("notify, {CROWD} listeners, {}", route.name());
            outcome.crowd = Some(listening(&postgres, &files.path, route).await);
        }
        outcomes.push(outcome);
    }
    let mut tables = vec![targets(&outcomes)];
    tables.extend(Kind::NOTIFYING.map(|kind| rates(kind, &outcomes)));
    tables.extend([verified(&outcomes), deliveries(&outcomes), crowds(&outcomes)]);
    tables.retain(|table| !table.rows.is_empty());
    let title = "Transactions that notify";
    Report {
        name: "notify",
        title: "Notify: transactions that notify, and who listens",
        story: STORY,
        tables,
        pictures: vec![("notify".into(), title.into(), picture(title, &outcomes))],
    }
}

/// Makes the tables, and adopts one function.
async fn fill(postgres: &Postgres, dir: &Path) {
    let run =
        async |sql: &str| postgres.admin().await.run(sql).await.unwrap_or_else(|failure| panic!("{sql}: {failure}"));
    run(TABLES).await;
    for flags in [&[][..], &["--adopt"]] {
        let mut pgweir = Command::new(root().join("target/release/pgweir"));
        pgweir.arg("notify-sql").args(flags);
        let file = dir.join("notify.sql");
        fs::write(&file, output_of(pgweir)).expect("our own directory");
        let mut psql = Command::new("psql");
        psql.args(["-Xqd", &format!("host=127.0.0.1 port={} user=postgres dbname={DBNAME}", postgres.port)]);
        output_of({
            psql.arg("-f").arg(file);
            psql
        });
    }
    run(NOT_ADOPTED).await;
}

/// One that writes, and what it has committed.
struct Writer {
    wire: Wire,
    number: u16,
    transactions: u32,
    committed: BTreeMap<Stream, Vec<u32>>,
}

impl Writer {
    async fn crowd(port: u16, count: usize) -> Vec<Self> {
        let login = |number: usize| async move {
            let wire = Wire::login(port, "burst").await.unwrap_or_else(|error| panic!("a writer: {error}"));
            let number = u16::try_from(number).expect("a hundred");
            Self { wire, number, transactions: 0, committed: BTreeMap::new() }
        };
        join_all((0..count).map(login)).await
    }

    /// One transaction after the other until then; returns how many it committed.
    async fn write_until(&mut self, kind: Kind, end: Instant) -> u32 {
        let mut committed = 0;
        while Instant::now() < end {
            committed += u32::from(self.write(kind).await.is_some());
        }
        committed
    }

    /// One transaction; returns when COMMIT was sent, unless it rolls back.
    async fn write(&mut self, kind: Kind) -> Option<Instant> {
        let number = self.transactions;
        self.transactions += 1;
        let commits = !(number + 1).is_multiple_of(ROLLBACK_EVERY);
        let middle = kind.middle(self.number, number);
        let sent = Cell::new(Instant::now());
        let transaction = async {
            self.wire.run("BEGIN").await?;
            self.wire.run(&middle).await?;
            sent.set(Instant::now());
            self.wire.run(if commits { "COMMIT" } else { "ROLLBACK" }).await
        };
        transaction.await.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        if !commits {
            return None;
        }
        if Kind::NOTIFYING.contains(&kind) {
            self.committed.entry((kind.way(), self.number)).or_default().push(number);
        }
        Some(sent.get())
    }
}

fn all_committed(writers: &[Writer]) -> BTreeMap<Stream, Vec<u32>> {
    writers.iter().flat_map(|writer| writer.committed.clone()).collect()
}

/// Where those who listen log in.
fn listens_at(route: &Route, postgres: &Postgres, port: u16) -> u16 {
    if matches!(route, Route::PgBouncer(_)) { postgres.port } else { port }
}

async fn commits(
    postgres: &Postgres,
    dir: &Path,
    route: &Route,
    (writers, listeners): (usize, usize),
    rounds: usize,
) -> Commits {
    let open = route.open(postgres, dir).await;
    let audience = Listeners::start(listens_at(route, postgres, open.port), listeners, CHANNEL, REST).await;
    let mut crowd = Writer::crowd(open.port, writers).await;
    let admin = postgres.admin().await;
    let (now, waiting) = (Cell::new(Kind::Plain), RefCell::new(BTreeMap::<Kind, u64>::new()));
    let looking = async {
        loop {
            sleep(LOOK).await;
            let kind = now.get();
            let count = admin.number(WAITING).await.expect("the superuser may look");
            // Otherwise it may have seen the next kind already.
            if now.get() == kind {
                let mut waiting = waiting.borrow_mut();
                let most = waiting.entry(kind).or_default();
                *most = count.max(*most);
            }
        }
    };
    let writing = async {
        let mut tallies = BTreeMap::<Kind, LimiterCounters>::new();
        // In the first round caches fill, pools dial and a slow start ends.
        for round in 0..=rounds {
            let mut kinds = Kind::ALL;
            if round % 2 == 1 {
                kinds.reverse();
            }
            for kind in kinds {
                now.set(kind);
                let began = Instant::now();
                let end = began + if round == 0 { WARM_UP } else { SLICE };
                let committed = join_all(crowd.iter_mut().map(|writer| writer.write_until(kind, end))).await;
                if round > 0 {
                    let counters = tallies.entry(kind).or_default();
                    counters.committed += committed.iter().sum::<u32>();
                    counters.took += began.elapsed();
                }
            }
        }
        tallies
    };
    let mut tallies = tokio::select! {
        never = looking => { let never: Infallible = never; match never {} }
        tallies = writing => tallies,
    };
    for (kind, counters) in &mut tallies {
        counters.waiting = waiting.borrow().get(kind).copied().unwrap_or_default();
    }
    let committed = all_committed(&crowd);
    let heard = audience.stop_after(committed.values().map(Vec::len).sum()).await;
    Commits { writers, listeners, tallies, verdict: Verdict::new(&committed, &heard) }
}

async fn delivery(postgres: &Postgres, dir: &Path, route: &Route) -> Delivery {
    let open = route.open(postgres, dir).await;
    let listeners = Listeners::start(open.port, LISTENERS, CHANNEL, Duration::ZERO).await;
    let mut writers = Writer::crowd(open.port, DELIVERY_WRITERS).await;
    for writer in &mut writers {
        // Opens what a pool needs.
        writer.write_until(Kind::Plain, Instant::now() + Duration::from_millis(5)).await;
    }
    let began = Instant::now();
    let (first, next) = (began + Duration::from_millis(10), Cell::new(0));
    let sent = RefCell::new(BTreeMap::new());
    let write = async |writer: &mut Writer| {
        loop {
            let turn = next.replace(next.get() + 1);
            if turn >= DELIVERIES {
                return;
            }
            sleep_until(first + Duration::from_secs(1) / RATE * turn).await;
            let number = writer.transactions;
            if let Some(at) = writer.write(Kind::Statement).await {
                sent.borrow_mut().insert((writer.number, number), at);
            }
        }
    };
    join_all(writers.iter_mut().map(write)).await;
    let took = began.elapsed();
    let committed = all_committed(&writers);
    let heard = listeners.stop_after(committed.values().map(Vec::len).sum()).await;
    let sent = sent.take();
    let latency = |heard: &crate::listeners::Heard| {
        Some(heard.at.saturating_duration_since(*sent.get(&(heard.stream.1, heard.number))?))
    };
    let latencies = heard.iter().flatten().filter_map(latency).collect();
    Delivery { latencies, took, verdict: Verdict::new(&committed, &heard) }
}

async fn listening(postgres: &Postgres, dir: &Path, route: &Route) -> Crowd {
    let open = route.open(postgres, dir).await;
    let began = Instant::now();
    let mut listeners = crowd(open.port, (0..CROWD).map(|number| format!("c{}", number % CHANNELS))).await;
    let listening_after = began.elapsed();
    let began = Instant::now();
    let mut writer = Wire::login(open.port, "burst").await.expect("a login at rest");
    for channel in 0..CHANNELS {
        writer.run(&format!("BEGIN; NOTIFY c{channel}, '{channel}'; COMMIT")).await.expect("a notification");
    }
    let is_own =
        |texts: Option<(&str, &str)>| texts.is_some_and(|(channel, text)| channel.strip_prefix('c') == Some(text));
    let hear = async |listener: &mut Wire| {
        let heard = timeout(Duration::from_secs(20), listener.notifications()).await;
        heard.is_ok_and(|heard| heard.is_ok_and(|heard| heard.len() == 1 && is_own(heard[0].texts())))
    };
    let heard = join_all(listeners.iter_mut().map(hear)).await;
    let heard_after = began.elapsed();
    let admin = postgres.admin().await;
    let held = admin.number(HELD).await.expect("the superuser may look");
    let pooled = admin.number(POOLED).await.expect("the superuser may look");
    Crowd { listening_after, held, pooled, heard: heard.into_iter().filter(|heard| *heard).count(), heard_after }
}

const RATES: &[&str] = &[
    "",
    "1 writer",
    "÷",
    "waiting",
    "10 writers",
    "÷",
    "waiting",
    "50 writers",
    "÷",
    "waiting",
    "100 writers",
    "÷",
    "waiting",
];

fn rates(kind: Kind, outcomes: &[Outcome]) -> Table {
    let cells = |commits: Option<&Commits>| match commits {
        None => ["–", "–", "–"].map(str::to_owned),
        Some(commits) => {
            let counters = commits.tallies[&kind];
            [format!("{:.0}", counters.rate()), format!("{:.2}", commits.ratio(kind)), counters.waiting.to_string()]
        }
    };
    let row = |(outcome, listeners): (&Outcome, usize)| {
        let name = format!("{}, {listeners} listen", outcome.route.name());
        let cells = WRITERS.into_iter().flat_map(|writers| cells(of(outcome, writers, listeners)));
        [name].into_iter().chain(cells).collect()
    };
    let measured = outcomes.iter().filter(|outcome| !outcome.commits.is_empty());
    let rows = measured.flat_map(|outcome| AUDIENCES.map(|listeners| (outcome, listeners))).map(row).collect();
    Table { title: format!("{}, transactions a second", kind.title()), columns: RATES, rows }
}

fn of(outcome: &Outcome, writers: usize, listeners: usize) -> Option<&Commits> {
    outcome.commits.iter().find(|commits| commits.writers == writers && commits.listeners == listeners)
}

const VERIFIED: &[&str] = &["", "1 writer", "10 writers", "50 writers", "100 writers"];

fn verified(outcomes: &[Outcome]) -> Table {
    let row = |outcome: &Outcome| {
        let cell = |writers| {
            of(outcome, writers, LISTENERS).map_or_else(|| "–".to_owned(), |commits| commits.verdict.to_string())
        };
        [outcome.route.name()].into_iter().chain(WRITERS.map(cell)).collect()
    };
    let measured = outcomes.iter().filter(|outcome| !outcome.commits.is_empty());
    Table { title: "Verified by each of 20 listeners".into(), columns: VERIFIED, rows: measured.map(row).collect() }
}

const DELIVERIES_COLUMNS: &[&str] = &["", "a second", "p50", "p99", "max", "verified"];

fn deliveries(outcomes: &[Outcome]) -> Table {
    let row = |outcome: &Outcome| {
        let Delivery { latencies, took, verdict } = outcome.delivery.as_ref()?;
        Some(vec![
            outcome.route.name(),
            format!("{:.0}", f64::from(DELIVERIES) / took.as_secs_f64()),
            spell(percentile(latencies, 50)),
            spell(percentile(latencies, 99)),
            spell(latencies.iter().max().copied()),
            verdict.to_string(),
        ])
    };
    let rows = outcomes.iter().filter_map(row).collect();
    Table { title: format!("Delivery to {LISTENERS} listeners"), columns: DELIVERIES_COLUMNS, rows }
}

const CROWDS: &[&str] = &["", "all listen after", "held", "pooled", "heard", "all heard after"];

fn crowds(outcomes: &[Outcome]) -> Table {
    let row = |outcome: &Outcome| {
        let crowd = outcome.crowd.as_ref()?;
        Some(vec![
            outcome.route.name(),
            spell(Some(crowd.listening_after)),
            crowd.held.to_string(),
            crowd.pooled.to_string(),
            crowd.heard.to_string(),
            spell(Some(crowd.heard_after)),
        ])
    };
    let title = format!("Crowd: {CROWD} listeners on {CHANNELS} channels");
    Table { title, columns: CROWDS, rows: outcomes.iter().filter_map(row).collect() }
}

const TARGETS: &[&str] = &[
    "",
    "NOTIFY ÷ (0.95; postgres 0.90)",
    "pg_notify() ÷",
    "adopted ÷ (0.85)",
    "NOTIFY ÷, 20 listen",
    "waiting (0)",
    "delivery p99 (20 ms)",
    "not as committed (0)",
    "held for the crowd (2)",
];

/// What pgweir promises, in brackets above, and what it did.
fn targets(outcomes: &[Outcome]) -> Table {
    let row = |outcome: &Outcome| {
        let Outcome { commits, delivery, crowd, .. } = outcome;
        let least = |kind, listeners| {
            let those = commits.iter().filter(|commits| commits.listeners == listeners);
            let least = those.map(|commits| commits.ratio(kind)).reduce(f64::min);
            least.map_or_else(|| "–".to_owned(), |least| format!("{least:.2}"))
        };
        let taken_off = [Kind::Statement, Kind::Call, Kind::Adopted];
        let waiting = commits.iter().flat_map(|commits| taken_off.map(|kind| commits.tallies[&kind].waiting)).max();
        let verdicts = commits.iter().map(|commits| commits.verdict).chain(delivery.as_ref().map(|one| one.verdict));
        vec![
            outcome.route.name(),
            least(Kind::Statement, 0),
            least(Kind::Call, 0),
            least(Kind::Adopted, 0),
            least(Kind::Statement, LISTENERS),
            waiting.map_or_else(|| "–".to_owned(), |waiting| waiting.to_string()),
            spell(delivery.as_ref().and_then(|delivery| percentile(&delivery.latencies, 99))),
            verdicts.fold(Verdict::default(), Verdict::and).wrong().to_string(),
            crowd.as_ref().map_or_else(|| "–".to_owned(), |crowd| crowd.held.to_string()),
        ]
    };
    let ours = outcomes.iter().filter(|outcome| matches!(outcome.route, Route::Pgweir(_)));
    Table {
        title: "Targets: the least of all numbers of writers".into(),
        columns: TARGETS,
        rows: ours.map(row).collect(),
    }
}

fn picture(title: &str, outcomes: &[Outcome]) -> String {
    let lines = |kind: Kind, listeners: usize| {
        let line = |outcome: &Outcome| {
            let those = outcome.commits.iter().filter(|commits| commits.listeners == listeners);
            let points = those.map(|commits| (commits.writers as f64, 100.0 * commits.ratio(kind)));
            Line { name: outcome.route.name(), points: points.collect() }
        };
        outcomes.iter().map(line).collect()
    };
    let panel = |y, kind, listeners| Panel { y, scale: Scale::Linear, lines: lines(kind, listeners) };
    let panels = [
        panel("NOTIFY, % of the rate without", Kind::Statement, 0),
        panel("the same while 20 listen", Kind::Statement, LISTENERS),
        panel("adopted trigger, % of an empty one", Kind::Adopted, 0),
    ];
    draw(title, "writers", &panels)
}
