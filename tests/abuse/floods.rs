//! Much of the same: pipelines, portals, channels, statements, settings, cancels, connections.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::case::{Case, Stage, Target, answer, at, run, token};
use crate::support::frontend::{
    bind, cancel_request, close_statement, copy_data, describe_statement, execute, extended, flush, frame, parse,
    query, sync,
};
use crate::support::{Wire, errors};

const MANY: usize = 10_000;

/// Of what pgweir keeps for each client: few enough for a build without optimisations.
const SOME: usize = 1000;

/// `MANY` of what `message` makes, in one string of bytes.
fn many(message: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    (0..MANY).flat_map(message).collect()
}

/// Sends as much of this as is taken in two seconds, reads nothing, and resets.
async fn pour(target: &Target<'_>, stage: Stage, bytes: Vec<u8>) -> String {
    let mut wire = at(target, stage).await;
    let _ = timeout(Duration::from_secs(2), wire.try_send(&bytes)).await;
    wire.reset();
    String::new()
}

/// Sends all of this while what comes back is read, up to so many ReadyForQuery or the end; the SQLSTATEs that came,
/// and how it ended.
async fn through(target: &Target<'_>, stage: Stage, bytes: Vec<u8>, cycles: usize) -> String {
    let (reading, mut writing) = at(target, stage).await.into_inner().into_split();
    let mut reading = Wire::over(tokio::io::join(reading, tokio::io::sink()));
    let write = async {
        let _ = writing.write_all(&bytes).await;
        writing
    };
    let read = async {
        let (mut frames, mut ready) = (Vec::new(), 0);
        while ready < cycles {
            let Some(frame) = reading.next().await else { return (frames, "end") };
            ready += usize::from(frame.tag == 'Z');
            if frame.tag == 'E' {
                frames.push(frame);
            }
        }
        (frames, "Z")
    };
    let both = timeout(Duration::from_secs(60), futures_util::future::join(write, read)).await;
    let Ok((_writing, (frames, end))) = both else { return "silence".to_owned() };
    let mut codes = errors(&frames);
    codes.sort();
    codes.dedup();
    codes.push(end.to_owned());
    codes.join(" ")
}

/// A flood that is poured and not read.
fn poured(name: &str, stage: Stage, bytes: impl Fn() -> Vec<u8> + 'static) -> Case {
    run(name, "", move |target| {
        let bytes = bytes();
        Box::pin(pour(target, stage, bytes))
    })
}

/// A flood of so many cycles, read to its end.
fn read(name: &str, answer: &'static str, stage: Stage, cycles: usize, bytes: impl Fn() -> Vec<u8> + 'static) -> Case {
    run(name, answer, move |target| {
        let bytes = bytes();
        Box::pin(through(target, stage, bytes, cycles))
    })
}

pub(crate) fn cases() -> Vec<Case> {
    [pipelines(), objects(), connections()].into_iter().flatten().collect()
}

fn pipelines() -> Vec<Case> {
    use Stage::{Copying, Ready, Transaction};
    vec![
        poured("10,000 Queries, and gone", Ready, || many(|_| query("SELECT 1"))),
        poured("10,000 pipelines, and gone", Ready, || many(|_| [extended("SELECT 1", &[]), sync()].concat())),
        poured("10,000 writes, and gone", Ready, || many(|_| query("INSERT INTO abused VALUES (1)"))),
        poured("10,000 writes in a transaction, and gone", Transaction, || {
            many(|_| query("INSERT INTO abused VALUES (1)"))
        }),
        poured("10,000 Executes without Sync, and gone", Ready, || many(|_| extended("SELECT 1", &[]))),
        poured("10,000 CopyData, and gone", Copying, || many(|_| copy_data(b"1\n"))),
        poured("10,000 slow queries, and gone", Ready, || many(|_| query("SELECT pg_sleep(1)"))),
        poured("rows without end, and nobody reads", Ready, || {
            query("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")
        }),
        poured("COPY TO STDOUT, and nobody reads", Ready, || {
            query("COPY (SELECT generate_series(1, 1000000)) TO STDOUT")
        }),
        poured("10,000 Closes behind a slow query", Ready, || {
            [query("SELECT pg_sleep(1)"), many(|_| close_statement("s"))].concat()
        }),
        read("10,000 Syncs", "Z", Ready, MANY, || many(|_| sync())),
        read("10,000 Flushes", "Z", Ready, 1, || [many(|_| flush()), sync()].concat()),
        read("10,000 Closes", "Z", Ready, 1, || [many(|n| close_statement(&format!("s{n}"))), sync()].concat()),
        read("10,000 Describes of nothing", "26000 Z", Ready, MANY, || {
            many(|_| [describe_statement("no"), sync()].concat())
        }),
        read("10,000 faults", "42601 Z", Ready, MANY, || many(|_| query("SELEC"))),
        read("10,000 empty Queries", "Z", Ready, MANY, || many(|_| query(""))),
        read("10,000 messages of an unknown type", "08P01 end", Ready, 1, || many(|_| frame(b'z', b""))),
    ]
}

fn objects() -> Vec<Case> {
    use Stage::{Ready, Transaction};
    let statement = |n: usize| parse(&format!("s{n}"), "SELECT 1", &[]);
    vec![
        read("10,000 statements", "Z", Ready, 1, move || [many(statement), sync()].concat()),
        read("40 statements of 1 MB", "53400 Z", Ready, 40, || {
            let text = format!("SELECT '{}'", "x".repeat(1 << 20));
            (0..40).flat_map(|n| [parse(&format!("s{n}"), &text, &[]), sync()].concat()).collect()
        }),
        read("10,000 portals", "Z", Transaction, 1, || {
            [parse("s", "SELECT 1", &[]), many(|n| bind(&format!("p{n}"), "s", &[])), sync()].concat()
        }),
        read("10,000 cursors", "Z", Transaction, MANY, || {
            many(|n| query(&format!("DECLARE c{n} CURSOR FOR SELECT 1")))
        }),
        read("10,000 savepoints", "Z", Transaction, MANY, || many(|n| query(&format!("SAVEPOINT s{n}")))),
        read("1,000 channels", "Z", Ready, SOME, || (0..SOME).flat_map(|n| query(&format!("LISTEN c{n}"))).collect()),
        read("1,000 channels in one text", "Z", Ready, 1, || {
            query(&(0..SOME).map(|n| format!("LISTEN d{n};")).collect::<String>())
        }),
        read("10,000 notifications in a transaction", "Z", Transaction, MANY + 1, || {
            [many(|n| query(&format!("NOTIFY c, '{n}'"))), query("ROLLBACK")].concat()
        }),
        read("1,000 settings", "Z", Ready, SOME, || {
            (0..SOME).flat_map(|n| query(&format!("SET my.s{n} = '{n}'"))).collect()
        }),
        read("10,000 values of one setting", "Z", Ready, MANY, || many(|n| query(&format!("SET my.setting = '{n}'")))),
        read("1,000 temporary tables", "Z", Ready, 1000, || {
            (0..1000).flat_map(|n| query(&format!("CREATE TEMP TABLE t{n} (n int)"))).collect()
        }),
        read("5,000 advisory locks", "Z", Ready, 1, || {
            query("SELECT count(pg_advisory_lock(n)) FROM generate_series(1, 5000) n")
        }),
        read("10,000 parameters", "Z", Ready, 1, || {
            let text = (1..=MANY).map(|n| format!("${n}")).collect::<Vec<_>>().join(",");
            let values = vec![Some(b"1".as_slice()); MANY];
            [
                parse("", &format!("SELECT * FROM (VALUES (1)) t(n) WHERE n::text IN ({text})"), &[]),
                bind("", "", &values),
                execute("", 0),
                sync(),
            ]
            .concat()
        }),
    ]
}

fn connections() -> Vec<Case> {
    vec![
        run("2,000 cancels with wrong keys", "", |target| {
            Box::pin(async move {
                for chunk in 0..40_u32 {
                    let one = async |n: u32| {
                        let mut wire = Wire::open(target.endpoint.addr).await;
                        let _ = wire.try_send(&cancel_request(n, &n.to_be_bytes())).await;
                        wire.next().await;
                    };
                    join_all((0..50).map(|n| one(chunk * 50 + n))).await;
                }
                String::new()
            })
        }),
        run("a client that cancels itself again and again", "Z", |target| {
            Box::pin(async move {
                let mut wire = at(target, Stage::Ready).await;
                let (process, secret) = wire.key.clone().unwrap();
                for _ in 0..100 {
                    let mut cancel = Wire::open(target.endpoint.addr).await;
                    cancel.send(cancel_request(process, &secret)).await;
                    cancel.next().await;
                }
                wire.send(query("SELECT 1")).await;
                wire.cycle().await.last().map(|last| last.tag.to_string()).unwrap_or_default()
            })
        }),
        run("300 logins at once that go away at the proof", "", |target| {
            Box::pin(async move {
                join_all((0..300).map(|_| at(target, Stage::SaslProof))).await;
                String::new()
            })
        }),
        run("1,500 silent connections", "T", |target| {
            Box::pin(async move {
                let mut silent = Vec::new();
                for _ in 0..1500 {
                    silent.push(Wire::open(target.endpoint.addr).await);
                }
                let mut wire = at(target, Stage::Ready).await;
                wire.query("SELECT 1").await.first().map(token).unwrap_or_default()
            })
        }),
        run("500 connections that are reset at once", "", |target| {
            Box::pin(async move {
                for _ in 0..500 {
                    Wire::open(target.endpoint.addr).await.reset();
                }
                String::new()
            })
        }),
        run("a client that reads one byte at a time", "T D C ZI", |target| {
            Box::pin(async move {
                let mut wire = at(target, Stage::Ready).await;
                for byte in query("SELECT 1") {
                    wire.send([byte]).await;
                    tokio::task::yield_now().await;
                }
                answer(&mut wire, false, 4).await
            })
        }),
    ]
}
