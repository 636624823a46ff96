//! The end of pgweir: nobody new, those at work finish, nothing is left behind.

use rustix::process::Signal;

use crate::support::frontend::{PROTOCOL_3_0, extended, flush, query, startup, sync};
use crate::support::{Frame, Postgres, Proxy, Sessions, Wire, eventually, proxy, tags};

const SLEEP: &str = "SELECT pg_sleep(600)";

async fn started(config: &str) -> (Proxy, Sessions) {
    let proxy = proxy().pool_size(3).toml(config).start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    (proxy, sessions)
}

fn fatal(frames: &[Frame]) -> Option<String> {
    let last = frames.last().filter(|frame| frame.tag == 'E')?;
    assert_eq!(last.fields()[&'S'], "FATAL");
    Some(last.sqlstate())
}

#[tokio::test]
async fn idle_clients_go_at_once_and_a_transaction_is_finished_first() {
    for signal in [Signal::TERM, Signal::INT] {
        let (mut proxy, sessions) = started("").await;
        let (mut idle, mut busy) = (proxy.wire("app").await, proxy.wire("app").await);
        idle.query("CREATE TABLE t (a int)").await;
        busy.query("BEGIN").await;
        proxy.signal(signal);
        assert_eq!(fatal(&idle.rest().await).as_deref(), Some("57P01"));
        // In its transaction nothing has changed.
        assert_eq!(tags(&busy.query("INSERT INTO t VALUES (1)").await), "C Z");
        busy.send([extended("INSERT INTO t VALUES (2)", &[]), sync()].concat()).await;
        busy.expect("1 2 n C Z").await;
        // A newcomer is refused, in words if it is still let in at all.
        if let Ok(stream) = tokio::net::TcpStream::connect(proxy.addr).await {
            drop(stream);
            let mut late = Wire::open(proxy.addr).await;
            late.send(startup(PROTOCOL_3_0, &[("user", "app"), ("database", "app")])).await;
            assert_eq!(fatal(&late.rest().await).as_deref(), Some("57P01"));
        }
        busy.send(query("COMMIT")).await;
        let frames = busy.rest().await;
        assert_eq!(tags(&frames), "C Z E");
        assert_eq!((frames[1].text().as_str(), fatal(&frames).as_deref()), ("I", Some("57P01")));
        assert!(proxy.ended().await, "exit code 0");
        sessions.until("true", 0).await;
        let rows = Postgres::shared().admin(&proxy.dbname).await.query_one("SELECT count(*) FROM t", &[]).await;
        assert_eq!(rows.expect("a count").get::<_, i64>(0), 2);
    }
}

#[tokio::test]
async fn a_running_query_and_an_open_unit_are_finished_first() {
    let (mut proxy, sessions) = started("").await;
    let (mut running, mut open) = (proxy.wire("app").await, proxy.wire("app").await);
    open.send([extended("SELECT 1", &[]), flush()].concat()).await;
    open.expect("1 2 T D C").await;
    running.send(query("SELECT pg_sleep(0.3)")).await;
    sessions.until_running("SELECT pg_sleep(0.3)", 1).await;
    proxy.signal(Signal::TERM);
    assert_eq!(tags(&running.rest().await), "T D C Z E");
    open.send(sync()).await;
    assert_eq!(tags(&open.rest().await), "Z E");
    assert!(proxy.ended().await, "exit code 0");
}

#[tokio::test]
async fn clients_are_left_alone_while_it_lingers() {
    let (mut proxy, _) = started("[listen]\nlinger = \"365d\"").await;
    let (mut one, mut other) = (proxy.wire("app").await, proxy.wire("app").await);
    proxy.signal(Signal::TERM);
    proxy.logged("draining").await;
    assert_eq!(proxy.http("/readyz").0, 503, "nobody new should be sent");
    assert!(tokio::net::TcpStream::connect(proxy.addr).await.is_err(), "nobody new comes in");
    for wire in [&mut one, &mut other] {
        assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z");
    }
    drop((one, other));
    assert!(proxy.ended().await, "exit code 0 as soon as the last has gone");
}

#[tokio::test]
async fn who_is_left_when_it_has_lingered_is_told() {
    let (mut proxy, _) = started("[listen]\nlinger = \"200ms\"").await;
    let (mut idle, mut busy) = (proxy.wire("app").await, proxy.wire("app").await);
    busy.query("BEGIN").await;
    proxy.signal(Signal::TERM);
    assert_eq!(fatal(&idle.rest().await).as_deref(), Some("57P01"));
    busy.send(query("COMMIT")).await;
    assert_eq!(tags(&busy.rest().await), "C Z E");
    assert!(proxy.ended().await, "exit code 0");
}

// A waiting client has nothing to lose, and would hang until the last backend is gone.
#[tokio::test]
async fn a_waiting_client_goes_at_once() {
    let proxy = proxy().pool_size(1).toml("[listen]\nworkers = 1").start().await;
    let (mut holder, mut waiter) = (proxy.wire("app").await, proxy.wire("app").await);
    holder.query("BEGIN").await;
    waiter.send(query("SELECT 1")).await;
    let mut bystander = proxy.wire("app").await;
    bystander.send(sync()).await;
    bystander.expect("Z").await;
    proxy.signal(Signal::TERM);
    assert_eq!(fatal(&waiter.rest().await).as_deref(), Some("57P01"));
    assert_eq!(tags(&holder.query("SELECT 1").await), "T D C Z");
}

#[tokio::test]
async fn shutdown_timeout_ends_what_does_not_end_by_itself() {
    let (mut proxy, sessions) = started("[listen]\nshutdown_timeout = \"300ms\"").await;
    let (mut idle_in, mut running) = (proxy.wire("app").await, proxy.wire("app").await);
    idle_in.query("BEGIN").await;
    running.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    proxy.signal(Signal::TERM);
    assert_eq!(fatal(&idle_in.rest().await).as_deref(), Some("57P01"));
    assert_eq!(fatal(&running.rest().await).as_deref(), Some("57P01"));
    assert!(proxy.ended().await, "exit code 0");
    sessions.until("true", 0).await;
}

#[tokio::test]
async fn a_second_signal_ends_everything_now() {
    let (mut proxy, sessions) = started("").await;
    let mut running = proxy.wire("app").await;
    running.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    let mut idle = proxy.wire("app").await;
    proxy.signal(Signal::TERM);
    // The first has arrived.
    idle.rest().await;
    proxy.signal(Signal::TERM);
    assert_eq!(fatal(&running.rest().await).as_deref(), Some("57P01"));
    assert!(proxy.ended().await, "exit code 0");
    sessions.until("true", 0).await;
}

#[tokio::test]
async fn a_pgweir_without_clients_ends_at_once_and_leaves_nothing() {
    let (mut proxy, sessions) = started("").await;
    proxy.wire("app").await.query("SELECT 1").await;
    eventually(async || sessions.open().await == 1).await;
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().await, "exit code 0");
    sessions.until("true", 0).await;
}
