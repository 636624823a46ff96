//! Clients that hold a backend and do not go on, and servers that do not: each ends by the clock of the role.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::frontend::{bind, copy_data, copy_done, execute, extended, flush, parse, query, sync};
use crate::support::{Frame, Postgres, Proxy, Sessions, eventually, proxy, proxy_before, tags};

const SLEEP: &str = "SELECT pg_sleep(600)";

/// A proxy with one backend and these lines in the section of the role `app`.
async fn with(lines: &str) -> Proxy {
    proxy().pool_size(1).toml(&format!("[roles.app]\n{lines}")).start().await
}

/// SQLSTATE of the only error in `frames`.
#[track_caller]
fn error(frames: &[Frame]) -> String {
    let errors: Vec<_> = frames.iter().filter(|frame| frame.tag == 'E').collect();
    let [error] = errors[..] else { panic!("one error expected: {frames:?}") };
    error.sqlstate()
}

/// The only backend serves somebody else.
async fn is_free(proxy: &Proxy) {
    assert_eq!(tags(&proxy.wire("app").await.query("SELECT 1").await), "T D C Z");
}

#[tokio::test]
async fn half_a_bind_holds_no_backend_past_the_statement_timeout() {
    let proxy = with("statement_timeout = \"300ms\"").await;
    let mut wire = proxy.wire("app").await;
    let message = bind("", "", &[Some(b"1")]);
    let (half, rest) = message.split_at(8);
    wire.send([&parse("", "SELECT $1", &[]), half].concat()).await;
    assert_eq!(error(&wire.expect("E").await), "57014");
    is_free(&proxy).await;
    // The rest is of the unit that failed.
    wire.send([rest, &execute("", 0), &sync()].concat()).await;
    assert_eq!(wire.expect("Z").await[0].text(), "I");
    assert_eq!(wire.value("SELECT 2").await, "2");
}

#[tokio::test]
async fn half_a_query_holds_no_backend_past_the_statement_timeout() {
    let proxy = with("statement_timeout = \"300ms\"").await;
    let mut wire = proxy.wire("app").await;
    let message = query(&format!("SELECT 1 /*{}*/", "x".repeat(3_000_000)));
    let (half, rest) = message.split_at(2_000_000);
    wire.send(half).await;
    assert_eq!((error(&wire.cycle().await)), "57014");
    is_free(&proxy).await;
    wire.send(rest).await;
    assert_eq!(wire.value("SELECT 2").await, "2");
}

#[tokio::test]
async fn a_unit_without_its_sync_holds_no_backend_past_the_statement_timeout() {
    let proxy = with("statement_timeout = \"300ms\"").await;
    for unit in [parse("", "SELECT 1", &[]), [extended("SELECT 1", &[]), flush()].concat()] {
        let mut wire = proxy.wire("app").await;
        wire.send(unit).await;
        while wire.frame().await.tag != 'E' {}
        is_free(&proxy).await;
        wire.send(sync()).await;
        assert_eq!(wire.expect("Z").await[0].text(), "I");
        assert_eq!(wire.value("SELECT 2").await, "2");
    }
}

#[tokio::test]
async fn a_copy_of_which_no_more_comes_fails_when_its_time_is_over() {
    let proxy = with("statement_timeout = \"300ms\"").await;
    let mut wire = proxy.wire("app").await;
    wire.query("CREATE TABLE t (a int)").await;
    wire.send([query("COPY t FROM STDIN"), copy_data(b"1\n")].concat()).await;
    wire.expect("G").await;
    let frames = wire.cycle().await;
    assert_eq!((tags(&frames).as_str(), error(&frames).as_str()), ("E Z", "57014"));
    is_free(&proxy).await;
    // It goes on without having read the error.
    wire.send([copy_data(b"2\n"), copy_done()].concat()).await;
    assert_eq!(wire.value("SELECT count(*) FROM t").await, "0");
    // In the extended protocol the unit is over as well, Sync or not.
    wire.send([extended("COPY t FROM STDIN", &[]), flush()].concat()).await;
    wire.expect("1 2 n G").await;
    assert_eq!(error(&wire.expect("E").await), "57014");
    is_free(&proxy).await;
    wire.send([copy_data(b"3\n"), copy_done(), sync()].concat()).await;
    assert_eq!(wire.expect("Z").await[0].text(), "I");
    assert_eq!(wire.value("SELECT count(*) FROM t").await, "0");
    // Half a CopyData cannot be followed by anything.
    wire.send([&query("COPY t FROM STDIN")[..], &copy_data(b"4444\n")[..7]].concat()).await;
    wire.expect("G").await;
    assert_eq!(error(&wire.cycle().await), "57014");
    is_free(&proxy).await;
}

// kill -STOP: the sockets stay open, and the kernel takes a cancel that nobody reads.
#[tokio::test]
async fn a_server_that_hangs_is_given_up_when_the_limit_is_over_and_its_slot_is_a_zombie() {
    let postgres = Postgres::private(&[]);
    let proxy = proxy_before(&postgres).pool_size(2).toml("[roles.app]\nstatement_timeout = \"1s\"").start().await;
    let sessions = Sessions::of(&postgres, &proxy.dbname).await;
    let (mut alone, mut inside) = (proxy.wire("app").await, proxy.wire("app").await);
    inside.query("BEGIN").await;
    for wire in [&mut alone, &mut inside] {
        wire.send(query(SLEEP)).await;
    }
    sessions.until_running(SLEEP, 2).await;
    let (frozen, since) = (postgres.freeze(), Instant::now());
    // A single statement may have taken effect; a transaction without its COMMIT has not.
    let frames = alone.cycle().await;
    assert_eq!((error(&frames).as_str(), frames.last().map(Frame::text).as_deref()), ("08007", Some("I")));
    let frames = inside.cycle().await;
    assert_eq!((error(&frames).as_str(), frames.last().map(Frame::text).as_deref()), ("57014", Some("E")));
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    let zombies = ["database=\"app\"", "state=\"zombie\""];
    assert_eq!(proxy.metric("pgweir_backends", &zombies), 2.0);
    assert_eq!(inside.query("ROLLBACK").await[1].text(), "I");
    drop(frozen);
    eventually(async || proxy.metric("pgweir_backends", &zombies) == 0.0).await;
    assert_eq!(alone.value("SELECT 1").await, "1");
}
