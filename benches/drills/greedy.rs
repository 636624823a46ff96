//! Drill 14: clients that take what they can get, beside others who ask for `SELECT 1`.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use crate::Choice;
use crate::open_loop::OpenLoop;
use crate::postgres::Postgres;
use crate::report::{Report, Table};
use crate::route::{Pgweir, Route};
use crate::stats::{percentile, spell};
use crate::supervisor::Scratch;
use crate::wire::{Wire, message};

/// Each of them goes on for so long.
const LASTS: Duration = Duration::from_secs(5);

/// Between two of them: what one left is cleared away.
const REST: Duration = Duration::from_secs(1);

/// Backends of a role.
const BACKENDS: u32 = 10;

/// Statements of the others in a second.
const RATE: u32 = 200;

/// Sockets that say nothing.
const SILENT: usize = 400;

/// Answers that nobody reads stop a client that sends; it does not wait for more than this.
const STUCK: Duration = Duration::from_millis(100);

const SYNC: &[u8] = b"S\0\0\0\x04";

const STORY: &str = "
Four clients of one role ask for `SELECT 1`, 200 times a second between them. Beside them a client of another role does, for five seconds, again and again what the row says.
When it gets an error or loses its connection it comes back at once. Its work, the poolers, the server and the four clients share two cores.

- *p50*, *p99* and *max* are the latencies of `SELECT 1`, counted from the planned time.
- *nobody* is the same without a greedy client.
";

/// What a greedy client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greed {
    Nobody,
    Channels,
    Portals,
    Settings,
    Savepoints,
    Statements,
    ManyInOne,
    LargeText,
    Unread,
    Pipeline,
    Closes,
    Notifications,
    Trickle,
    Silent,
    Garbage,
    Logins,
}

const ALL: [Greed; 16] = [
    Greed::Nobody,
    Greed::Channels,
    Greed::Portals,
    Greed::Settings,
    Greed::Savepoints,
    Greed::Statements,
    Greed::ManyInOne,
    Greed::LargeText,
    Greed::Unread,
    Greed::Pipeline,
    Greed::Closes,
    Greed::Notifications,
    Greed::Trickle,
    Greed::Silent,
    Greed::Garbage,
    Greed::Logins,
];

impl Greed {
    /// Its name in the table.
    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Channels => "listens to 16,000 channels",
            Self::Portals => "binds 20,000 portals",
            Self::Settings => "sets 5,000 settings",
            Self::Savepoints => "sets a setting under each of 2,000 savepoints",
            Self::Statements => "prepares 200 statements of 200 kB",
            Self::ManyInOne => "sends 10,000 statements in one text",
            Self::LargeText => "sends a text of 16 MB",
            Self::Unread => "does not read 100 MB that it asked for",
            Self::Pipeline => "sends queries and reads no answer",
            Self::Closes => "closes what is not there, behind a slow query",
            Self::Notifications => "notifies itself of 1,000 × 7 kB",
            Self::Trickle => "sends single bytes",
            Self::Silent => "opens 400 connections and is silent",
            Self::Garbage => "connects and sends noise",
            Self::Logins => "logs in and leaves",
        }
    }

    /// Does it once; an error is the end of its connection.
    async fn once(self, port: u16) -> io::Result<()> {
        match self {
            Self::Nobody => {
                sleep(LASTS).await;
                return Ok(());
            }
            Self::Silent => {
                let mut silent = Vec::new();
                for _ in 0..SILENT {
                    silent.push(TcpStream::connect(("127.0.0.1", port)).await?);
                }
                sleep(STUCK).await;
                return Ok(());
            }
            Self::Garbage => {
                let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(4_000).collect();
                return Wire::say(port, &noise).await;
            }
            _ => {}
        }
        let mut wire = Wire::login(port, "burst").await?;
        match self {
            Self::Channels => texts(&mut wire, 16_000, |n| format!("LISTEN channel_{n};")).await,
            Self::Settings => texts(&mut wire, 5_000, |n| format!("SET a.setting_{n} = 'x';")).await,
            Self::Savepoints => {
                wire.run("BEGIN").await?;
                texts(&mut wire, 2_000, |n| format!("SAVEPOINT s{n}; SET a.setting_{} = '{n}';", n % 100)).await
            }
            Self::Portals => {
                wire.run("BEGIN").await?;
                wire.bytes(&[&parse("s", "SELECT 1"), SYNC].concat()).await?;
                wire.cycle().await?;
                for part in 0..20 {
                    let binds = (0..1_000).flat_map(|n| bind(&format!("p{part}_{n}"), "s"));
                    wire.bytes(&[&binds.collect::<Vec<_>>(), SYNC].concat()).await?;
                    wire.cycle().await?;
                }
                Ok(())
            }
            Self::Statements => {
                let text = format!("SELECT '{}'", "x".repeat(200_000));
                for n in 0..200 {
                    wire.bytes(&[&parse(&format!("s{n}"), &text), SYNC].concat()).await?;
                    wire.cycle().await?;
                }
                Ok(())
            }
            Self::ManyInOne => wire.run(&"SELECT 1;".repeat(10_000)).await,
            Self::LargeText => wire.run(&format!("SELECT length('{}')", "x".repeat(16 << 20))).await,
            Self::Unread => {
                wire.send("SELECT repeat('x', 1000000) FROM generate_series(1, 100)").await?;
                sleep(STUCK).await;
                Ok(())
            }
            Self::Pipeline => wire.stuff(&message(b'Q', b"SELECT 1\0").repeat(1_000), STUCK).await,
            Self::Closes => {
                wire.send("SELECT pg_sleep(0.5)").await?;
                wire.stuff(&message(b'C', b"Sx\0").repeat(8_000), STUCK).await
            }
            Self::Notifications => {
                wire.run("LISTEN loud").await?;
                texts(&mut wire, 1_000, |n| format!("NOTIFY loud, '{n} {}';", "x".repeat(7_000))).await
            }
            Self::Trickle => {
                for byte in message(b'Q', b"SELECT 1\0").repeat(100) {
                    wire.bytes(&[byte]).await?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Runs all of them one after the other.
pub(crate) async fn run(choice: &Choice) -> Report {
    let files = Scratch::in_memory();
    let postgres = Postgres::start_in(&files.path, 100, None).await;
    let mut routes = vec![Route::PgBouncer(BACKENDS), Route::Pgweir(Pgweir::pool(BACKENDS))];
    routes.retain(|route| choice.wants(route.word()));
    let mut tables = Vec::new();
    for route in &routes {
        let open = route.open(&postgres, &files.path).await;
        let mut rows = Vec::new();
        for greed in ALL.into_iter().filter(|greed| choice.wants(&format!("{greed:?}").to_lowercase())) {
            println!("greedy, {}, {}", route.name(), greed.name());
            let latencies = beside(open.port, greed).await;
            let figures = [50, 99, 100].map(|percent| spell(percentile(&latencies, percent)));
            rows.push([&[greed.name().to_owned()], &figures[..]].concat());
            sleep(REST).await;
        }
        tables.push(Table { title: route.name(), columns: &["the greedy client", "p50", "p99", "max"], rows });
    }
    Report {
        name: "greedy",
        title: "Greedy: one client takes what it can get",
        story: STORY,
        tables,
        pictures: Vec::new(),
    }
}

/// Latencies of the others while it goes on.
async fn beside(port: u16, greed: Greed) -> Vec<Duration> {
    let others = OpenLoop { port, role: "web", sessions: 4, rate: RATE, sql: "SELECT 1" }.start().await;
    let began = Instant::now();
    let greedy = std::thread::spawn(move || {
        crate::runtime().block_on(async {
            while began.elapsed() < LASTS {
                // An error is what it is to get; then it comes again.
                let _ = timeout_at(began + LASTS, greed.once(port)).await;
            }
        });
    });
    sleep(LASTS).await;
    let beats = others.stop();
    greedy.join().expect("it does not panic");
    assert!(beats.failures.is_empty(), "{greed:?}: {:?}", beats.failures);
    beats.latencies(began, began + LASTS)
}

/// Runs `count` statements, a hundred in a text.
async fn texts(wire: &mut Wire, count: usize, statement: impl Fn(usize) -> String) -> io::Result<()> {
    for first in (0..count).step_by(100) {
        wire.run(&(first..first + 100).map(&statement).collect::<String>()).await?;
    }
    Ok(())
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{text}\0\0\0").as_bytes())
}

fn bind(portal: &str, statement: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes())
}
