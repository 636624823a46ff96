//! Drill 9: several instances have one limit between them, whatever becomes of them and of the Redis.

mod evaluate;
mod members;

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use self::evaluate::{Phase, incidents, modes, picture};
use self::members::{LIMIT, Members};
use crate::Choice;
use crate::looks::Looks;
use crate::postgres::Postgres;
use crate::redis_server::RedisServer;
use crate::report::Report;
use crate::sampler::oid;
use crate::supervisor::Scratch;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(10);

/// Of one demand, where nothing else happens.
const DEMAND: Duration = Duration::from_secs(6);

/// Longer than a lease.
const INCIDENT: Duration = Duration::from_secs(10);

const STORY: &str = "
Three pgweirs have `transactions_max = 40` for one role, each with 60 clients that run one transaction of 50 ms after the other while they are told to (`BEGIN; SELECT pg_sleep(0.05)`, then
`COMMIT`). Somebody counts a hundred times a second at the server how many transactions are open, by instance (the `application_name` of its clients).

- *most* is the most at any look; *of it paused* how many of these are of an instance that stands still, which it had under way.
- *used* is the median of all looks, *least of one* the median of the instance that had the least, both of the second half.
- *full after* is how long it took until 36 transactions, 90 % of the limit, were open at those that have clients.
";

/// How instances share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Off,
    Count,
    Redis,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Off, Self::Count, Self::Redis];

    fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Count => "count",
            Self::Redis => "redis",
        }
    }

    fn section(self, redis: &RedisServer) -> String {
        match self {
            Self::Off => String::new(),
            Self::Count => "[fleet]\nmode = \"count\"\nsiblings = false\n[watch]\nrole = \"pgweir_watch\"".to_owned(),
            Self::Redis => format!("[fleet]\nmode = \"redis\"\nsiblings = false\nurl = \"{}\"", redis.url()),
        }
    }
}

/// Runs demand in each mode, and incidents with leases.
pub(crate) async fn run(choice: &Choice) -> Report {
    let files = Scratch::in_memory();
    let postgres = Postgres::start_in(&files.path, 400, None).await;
    let mut redis = RedisServer::start_in(&files.path).await;
    let mut of_modes = Vec::new();
    for mode in Mode::ALL.into_iter().filter(|mode| choice.wants(mode.name())) {
        println!("fleet, {}", mode.name());
        let mut members = Members::start(3, &mode.section(&redis), &postgres, &files).await;
        let looks = Looks::start(postgres.port, members::counts(oid(postgres.port, "burst").await), PERIOD).await;
        let mut phases = demand(&members).await;
        if mode == Mode::Redis {
            phases.extend(happen(&mut members, &mut redis).await);
        }
        of_modes.push((mode.name(), phases, looks.stop()));
    }
    let mut tables = vec![modes(&of_modes)];
    let mut pictures = Vec::new();
    if let Some((_, phases, looks)) = of_modes.iter().find(|(name, ..)| *name == "redis") {
        tables.push(incidents(phases, looks));
        let title = format!("Three and four instances with one limit of {LIMIT}");
        pictures.push(("fleet".to_owned(), title.clone(), picture(&title, phases, looks)));
    }
    Report { name: "fleet", title: "Fleet: several instances, one limit", story: STORY, tables, pictures }
}

/// Demand moves from one instance to another, and to all.
async fn demand(members: &Members) -> Vec<Phase> {
    let mut phases = Vec::new();
    for (name, demand) in [("one busy", [60, 0, 0]), ("another busy", [0, 60, 0]), ("all busy", [60, 60, 60])] {
        phases.push(Phase::begin(name, &[0, 1, 2].map(|one| demand[one] > 0)));
        members.demand(&demand);
        sleep(DEMAND).await;
    }
    phases
}

/// Instances and the Redis are lost and come back, while all are busy.
async fn happen(members: &mut Members, redis: &mut RedisServer) -> Vec<Phase> {
    let mut phases = Vec::new();
    let mut begin = |name, are_there: &[bool]| phases.push(Phase::begin(name, are_there));
    begin("one killed", &[true, true, false]);
    members.signal(2, Signal::KILL);
    sleep(INCIDENT).await;
    begin("it is back", &[true; 3]);
    members.restart(2).await;
    sleep(DEMAND).await;

    begin("one stands still for 10 s", &[false, true, true]);
    members.signal(0, Signal::STOP);
    sleep(INCIDENT).await;
    begin("it goes on", &[true; 3]);
    members.signal(0, Signal::CONT);
    sleep(DEMAND).await;

    begin("the Redis stopped", &[true; 3]);
    redis.stop();
    sleep(INCIDENT).await;
    begin("it is back, empty", &[true; 3]);
    redis.start().await;
    sleep(INCIDENT).await;
    begin("the Redis emptied", &[true; 3]);
    redis.forget().await;
    sleep(INCIDENT).await;

    begin("a fourth comes", &[true; 4]);
    members.join().await;
    members.demand(&[60; 4]);
    sleep(DEMAND).await;
    begin("and leaves", &[true; 3]);
    members.signal(3, Signal::TERM);
    sleep(DEMAND).await;
    phases
}
