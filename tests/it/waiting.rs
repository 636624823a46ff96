//! The line for a backend: first come, first served, bounded in length and time, and nobody else's business.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::support::frontend::{bind, cancel_request, execute, extended, parse, query, sync, terminate};
use crate::support::{Endpoint, Postgres, Proxy, Sessions, Wire, errors, eventually, proxy, tags};

/// A client that has the only backend.
async fn holder(proxy: &Proxy) -> Wire {
    let mut wire = proxy.wire("app").await;
    wire.query("CREATE TABLE IF NOT EXISTS t (n serial, a int)").await;
    wire.query("BEGIN").await;
    wire
}

/// With one worker: what was sent before is in line now. A Sync needs no backend, and is read after what came before
/// it.
async fn settled(bystander: &mut Wire) {
    bystander.send(sync()).await;
    bystander.expect("Z").await;
}

// First come, first served keeps the tail short: in a queue without order the slowest wait hundreds of medians.
#[tokio::test]
async fn clients_are_served_in_the_order_in_which_they_came() {
    let proxy = proxy().pool_size(1).toml("[listen]\nworkers = 1\n[admission]\njitter = \"off\"").start().await;
    let mut holder = holder(&proxy).await;
    let mut bystander = proxy.wire("app").await;
    let mut waiters = join_all((0..30).map(|_| proxy.wire("app"))).await;
    for (n, wire) in waiters.iter_mut().enumerate() {
        wire.send(query(&format!("INSERT INTO t (a) VALUES ({n})"))).await;
        settled(&mut bystander).await;
    }
    holder.query("COMMIT").await;
    for wire in &mut waiters {
        wire.expect("C Z").await;
    }
    let frames = holder.query("SELECT a FROM t ORDER BY n").await;
    let order: Vec<_> = frames.iter().filter(|frame| frame.tag == 'D').map(|row| row.columns().remove(0)).collect();
    let expected: Vec<_> = (0..30).map(|n| Some(n.to_string())).collect();
    assert_eq!(order, expected);
}

#[tokio::test]
async fn a_newcomer_does_not_overtake_a_waiter() {
    let proxy = proxy().pool_size(1).toml("[listen]\nworkers = 1").start().await;
    let mut holder = holder(&proxy).await;
    let (mut waiter, mut bystander) = (proxy.wire("app").await, proxy.wire("app").await);
    waiter.send(query("INSERT INTO t (a) VALUES (1)")).await;
    settled(&mut bystander).await;
    // In one write, so that the holder asks again at the very moment it gives the backend back.
    holder.send([query("COMMIT"), query("BEGIN"), query("SELECT 1 FROM t"), query("COMMIT")].concat()).await;
    let frames = holder.expect("C Z").await;
    assert_eq!(frames[1].text(), "I");
    waiter.expect("C Z").await;
}

#[tokio::test]
async fn a_client_leaves_the_line_after_wait_timeout_and_its_session_goes_on() {
    let proxy = proxy().pool_size(1).wait_timeout("3s").start().await;
    let mut holder = holder(&proxy).await;
    let mut wire = proxy.wire("app").await;
    let before = Instant::now();
    let frames = wire.query("INSERT INTO t (a) VALUES (1)").await;
    assert!(before.elapsed() >= Duration::from_millis(360));
    assert_eq!((errors(&frames), tags(&frames).as_str()), (vec!["53300".to_owned()], "E Z"));
    let fields = frames[0].fields();
    assert_eq!((fields[&'S'].as_str(), frames[1].text().as_str()), ("ERROR", "I"));
    assert!(fields[&'H'].contains("pool.size") && fields[&'H'].contains("pool.wait_timeout"), "{}", fields[&'H']);

    // One error, nothing up to Sync, then one ReadyForQuery.
    let named =
        [parse("s", "INSERT INTO t (a) VALUES ($1)", &[]), bind("", "s", &[Some(b"2")]), execute("", 0)].concat();
    wire.send([&named[..], &query("SELECT 'skipped'"), &sync(), &query("SELECT 'late'")].concat()).await;
    let frames = wire.expect("E Z E Z").await;
    assert_eq!(errors(&frames), ["53300"; 2]);
    // The statement was never parsed, so its name is free.
    holder.query("COMMIT").await;
    wire.send([named, sync()].concat()).await;
    wire.expect("1 2 C Z").await;
    assert_eq!(wire.query("SELECT a FROM t").await[1].columns(), [Some("2".to_owned())]);
}

/// A transaction in one go, in every protocol; its last unit has no Sync yet.
fn pipelined() -> Vec<u8> {
    let insert = || extended("INSERT INTO t (a) VALUES (1)", &[]);
    [query("BEGIN"), insert(), sync(), query("INSERT INTO t (a) VALUES (2)"), query("COMMIT"), sync(), insert()]
        .concat()
}

/// The pipelined transaction was refused as a whole, with this SQLSTATE, and the session goes on.
async fn is_refused_whole(wire: &mut Wire, sqlstate: &str) {
    let frames = wire.expect("E Z E Z E Z E Z Z E").await;
    assert_eq!(errors(&frames), [sqlstate; 5]);
    assert!(frames.iter().all(|frame| frame.tag == 'E' || frame.text() == "I"), "{frames:?}");
    wire.send(sync()).await;
    wire.expect("Z").await;
}

// Npgsql sends its BEGIN along with the first command: if that is refused alone, the rest commits by itself.
#[tokio::test]
async fn a_transaction_sent_in_one_go_is_refused_as_a_whole() {
    let proxy = proxy().pool_size(1).wait_timeout("3s").start().await;
    let mut holder = holder(&proxy).await;
    let mut wire = proxy.wire("app").await;
    wire.send(pipelined()).await;
    is_refused_whole(&mut wire, "53300").await;
    holder.query("COMMIT").await;
    assert_eq!(wire.query("SELECT count(*) FROM t").await[1].columns(), [Some("0".to_owned())]);
    wire.send([pipelined(), sync()].concat()).await;
    wire.expect("C Z 1 2 n C Z C Z C Z Z 1 2 n C Z").await;
}

#[tokio::test]
async fn a_cancel_in_line_refuses_everything_in_hand() {
    let proxy = proxy().pool_size(1).start().await;
    let mut holder = holder(&proxy).await;
    let mut wire = proxy.wire("app").await;
    wire.send(pipelined()).await;
    eventually(async || proxy.console("SHOW CLIENTS").await.iter().any(|row| row["state"] == "waiting")).await;
    let (process, secret) = wire.key.clone().expect("BackendKeyData");
    let mut request = Wire::open(proxy.addr).await;
    request.send(cancel_request(process, &secret)).await;
    request.rest().await;
    is_refused_whole(&mut wire, "57014").await;
    holder.query("COMMIT").await;
    assert_eq!(wire.query("SELECT count(*) FROM t").await[1].columns(), [Some("0".to_owned())]);
}

// More than is kept of a waiting client is still in its socket, and the end may be on its way.
#[tokio::test]
async fn a_long_transaction_is_refused_to_its_last_byte() {
    let proxy = proxy().pool_size(1).wait_timeout("3s").start().await;
    let mut holder = holder(&proxy).await;
    let mut wire = proxy.wire("app").await;
    let insert = query(&format!("INSERT INTO t (a) VALUES (1) -- {}", "x".repeat(100_000)));
    wire.send([query("BEGIN"), insert.repeat(100), query("COMMIT")].concat()).await;
    let frames = wire.expect(&["E Z"; 102].join(" ")).await;
    assert!(errors(&frames).iter().all(|error| error == "53300"));
    holder.query("COMMIT").await;
    assert_eq!(wire.query("SELECT count(*) FROM t").await[1].columns(), [Some("0".to_owned())]);
}

// A client that stops within a message gets its errors; the message counts as sent before, the next does not.
#[tokio::test]
async fn a_message_that_has_begun_is_refused_with_those_before_it() {
    let proxy = proxy().pool_size(1).wait_timeout("3s").start().await;
    let mut holder = holder(&proxy).await;
    for long in [0, 3_000_000] {
        let mut wire = proxy.wire("app").await;
        let insert = query(&format!("INSERT INTO t (a) VALUES (1) -- {}", "x".repeat(long)));
        let half = insert.len() / 2 + long / 4;
        wire.send([&query("BEGIN"), &insert[..half]].concat()).await;
        let begun = if long > 0 { "E Z E Z" } else { "E Z" };
        assert_eq!(errors(&wire.expect(begun).await)[0], "53300");
        holder.query("COMMIT").await;
        wire.send([&insert[half..], &query("SELECT count(*) FROM t")].concat()).await;
        let frames = wire.expect(if long > 0 { "T D C Z" } else { "E Z T D C Z" }).await;
        assert_eq!(frames[frames.len() - 3].columns(), [Some("0".to_owned())]);
        holder.query("BEGIN").await;
    }
}

#[tokio::test]
async fn a_message_longer_than_what_is_held_is_refused_whole() {
    let proxy = proxy().pool_size(1).wait_timeout("3s").start().await;
    let mut holder = holder(&proxy).await;
    let mut wire = proxy.wire("app").await;
    let long = format!("SELECT 1 -- {}", "x".repeat(3_000_000));
    wire.send([query(&long), query("SELECT 2")].concat()).await;
    assert_eq!(errors(&wire.expect("E Z E Z").await), ["53300"; 2]);
    holder.query("COMMIT").await;
    wire.send([query(&long), query("SELECT 2")].concat()).await;
    wire.expect("T D C Z T D C Z").await;
}

#[tokio::test]
async fn a_line_that_is_full_refuses_the_next() {
    let settings = "[listen]\nworkers = 1\n[pool]\nwaiters_max = 2\n[admission]\nnotice_after = \"0s\"";
    let proxy = proxy().pool_size(1).toml(settings).start().await;
    let mut holder = holder(&proxy).await;
    let mut waiters = join_all((0..2).map(|_| proxy.wire("app"))).await;
    let mut refused = proxy.wire("app").await;
    for wire in &mut waiters {
        wire.send(query("SELECT 'waited'")).await;
    }
    settled(&mut refused).await;
    for _ in 0..3 {
        let frames = refused.query("SELECT 1").await;
        assert_eq!((errors(&frames), tags(&frames).as_str()), (vec!["53300".to_owned()], "E Z"));
        assert!(frames[0].fields()[&'H'].contains("pool.waiters_max"));
        refused.send([extended("SELECT 1", &[]), sync()].concat()).await;
        assert_eq!(errors(&refused.expect("E Z").await), ["53300"]);
    }
    // One leaves, and its place is free.
    let mut gone = waiters.remove(0);
    gone.send(terminate()).await;
    gone.half_close().await;
    gone.rest().await;
    refused.send(query("SELECT 'in line'")).await;
    settled(&mut proxy.wire("app").await).await;
    holder.query("COMMIT").await;
    refused.expect("T D C Z").await;
    waiters[0].expect("T D C Z").await;
}

#[tokio::test]
async fn a_pool_is_never_larger_than_its_size_whatever_happens() {
    for mode in ["simple", "prepared"] {
        let proxy = proxy().pool_size(3).start().await;
        let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
        let pgbench = async |arguments: &str| {
            let mut pgbench = Command::new("pgbench");
            pgbench.args(arguments.split(' '));
            proxy.run("app", pgbench).await
        };
        pgbench("-i -q").await;
        let is_over = AtomicBool::new(false);
        let load = async {
            pgbench(&format!("-n -S -c 40 -j 2 -t 200 -M {mode}")).await;
            // Connecting anew for every transaction, too.
            pgbench(&format!("-n -S -C -c 20 -j 2 -t 10 -M {mode}")).await;
            is_over.store(true, Ordering::Relaxed);
        };
        let watch = async {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(sessions.open().await);
            }
            most
        };
        // Backends that are replaced, lost or abandoned must not be counted short.
        let trouble = async {
            while !is_over.load(Ordering::Relaxed) {
                let mut wire = proxy.wire("app").await;
                wire.send(query("SELECT pg_sleep(1)")).await;
                drop(wire);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let ((), most, ()) = tokio::join!(load, watch, trouble);
        assert_eq!(most, 3, "{mode}");
    }
}

#[tokio::test]
async fn two_roles_share_the_backends_of_their_database() {
    let config = "[pool]\nsize = 10\n[databases.app]\nbackends_max = 4";
    let proxy = proxy().role("first", "").role("second", "").toml(config).start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    let is_over = AtomicBool::new(false);
    let served = async |role: &'static str| {
        let mut wires = join_all((0..10).map(|_| proxy.wire(role))).await;
        let counts = join_all(wires.iter_mut().map(async |wire| {
            let mut served = 0;
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(tags(&wire.query("SELECT pg_sleep(0.005)").await), "T D C Z");
                served += 1;
            }
            served
        }));
        counts.await.into_iter().sum::<u32>()
    };
    let watch = async {
        let (mut most, mut seen) = (0, BTreeMap::new());
        eventually(async || sessions.open().await == 4).await;
        for _ in 0..300 {
            most = most.max(sessions.open().await);
            for role in ["first", "second"] {
                *seen.entry(role).or_insert(0) += sessions.count(&format!("usename = '{role}'")).await;
            }
        }
        is_over.store(true, Ordering::Relaxed);
        (most, seen)
    };
    let (first, second, (most, seen)) = tokio::join!(served("first"), served("second"), watch);
    assert_eq!(most, 4);
    // Half for each; a wide margin, since backends are closed and dialled in between.
    assert!(first < 3 * second && second < 3 * first, "{first} {second} {seen:?}");
}

// Roles that outnumber the backends take turns.
#[tokio::test]
async fn more_roles_than_backends_are_all_served() {
    let mut proxy = proxy().toml("[databases.app]\nbackends_max = 2");
    for role in ["turn_a", "turn_b", "turn_c", "turn_d"] {
        proxy = proxy.role(role, "");
    }
    let proxy = proxy.start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    let work = async |at: &Endpoint, role: &str| {
        let mut wires = join_all((0..3).map(|_| at.wire(role))).await;
        join_all(wires.iter_mut().map(async |wire| {
            for _ in 0..5 {
                assert_eq!(tags(&wire.query("SELECT pg_sleep(0.005)").await), "T D C Z");
            }
        }))
        .await;
    };
    join_all(["turn_a", "turn_b", "turn_c", "turn_d"].map(|role| work(&proxy, role))).await;
    assert!(sessions.open().await <= 2);
}

#[tokio::test]
async fn pool_is_warm_while_it_has_clients() {
    let proxy = proxy().pool_size(5).toml("[pool]\nidle_min = 3\nidle_timeout = \"1s\"").start().await;
    let of_app = async |column: &str| {
        let pools = proxy.console("SHOW POOLS").await;
        pools.into_iter().find(|pool| pool["user"] == "app").map(|mut pool| pool.remove(column).expect("a column"))
    };
    let client = proxy.connect("app").await;
    eventually(async || of_app("sv_idle").await.as_deref() == Some("3")).await;
    assert_eq!(proxy.console("SHOW DATABASES").await[0]["min_pool_size"], "3");
    // The pool has what it keeps for longer than others may idle; so they are its own.
    let opened = || proxy.metric("pgweir_backend_open_seconds_count", &["role=\"app\""]);
    let before = opened();
    client.batch_execute("SELECT pg_sleep(1.5)").await.expect("a query");
    assert_eq!((of_app("sv_idle").await.as_deref(), opened()), (Some("3"), before), "none was closed and replaced");
    drop(client);
    eventually(async || of_app("sv_idle").await.as_deref() == Some("0")).await;
}
