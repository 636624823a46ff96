//! Slots tell the truth: while a server process works for a client that is gone, nobody else's takes its place.

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::support::frontend::query;
use crate::support::{Postgres, Proxy, Sessions, Wire, eventually, proxy, tags};

const SLEEP: &str = "SELECT pg_sleep(600)";

/// A statement that nothing ends but its time, or the end of its server process.
const STUBBORN: &str = "CREATE FUNCTION stubborn(seconds float8) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE over timestamptz := clock_timestamp() + make_interval(secs => seconds);
    BEGIN
        WHILE clock_timestamp() < over LOOP
            BEGIN
                PERFORM pg_sleep(0.05);
            EXCEPTION WHEN query_canceled THEN
                NULL;
            END;
        END LOOP;
    END $$";

async fn zombies(proxy: &Proxy, count: f64) {
    eventually(async || (proxy.metric("pgweir_backends", &["state=\"zombie\""]) - count).abs() < 0.5).await;
}

/// So many clients, each of which has sent this.
async fn all_ask(proxy: &Proxy, clients: usize, sql: &str) -> Vec<Wire> {
    let mut wires = join_all((0..clients).map(|_| proxy.wire("app"))).await;
    for wire in &mut wires {
        wire.send(query(sql)).await;
    }
    wires
}

// admission-and-incidents §4: PgBouncer with a pool of 5 has 30 active backends after this.
#[tokio::test]
async fn six_rounds_of_clients_that_give_up_leave_a_pool_of_five_as_it_was() {
    let proxy = proxy().pool_size(5).start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    let most = Cell::new(0);
    let mut times = Vec::new();
    let mut pids = Vec::new();
    for round in 0..6 {
        let wires = all_ask(&proxy, 8, SLEEP).await;
        sessions.until_running(SLEEP, 5).await;
        let gone = Instant::now();
        drop(wires);
        eventually(async || {
            let active = sessions.count("state = 'active'").await;
            most.set(active.max(most.get()));
            active == 0
        })
        .await;
        times.push(gone.elapsed());
        // ROLLBACK and reset are over when the next client is served; the backends are the same ones.
        if round == 0 {
            pids = sessions.pids().await;
        }
        assert_eq!(sessions.pids().await, pids, "round {round}");
    }
    assert_eq!(most.get(), 5);
    // What the cancel takes, and what this machine has to do besides.
    times.sort();
    println!("from the client's end to that of its query: {times:?}");
    assert!(times[3] < Duration::from_secs(1), "{times:?}");
    assert!((proxy.metric("pgweir_zombies_total", &["role=\"app\""]) - 30.0).abs() < 0.5);
    assert!(proxy.metric("pgweir_cancels_total", &["cause=\"zombie\""]) > 29.5);
}

#[tokio::test]
async fn a_server_process_that_no_cancel_ends_keeps_its_slot_until_it_ends_itself() {
    let limits = "[pool]\ncancel_timeout = \"200ms\"\n[admission]\nnotice_after = \"0s\"";
    let proxy = proxy().pool_size(3).toml(limits).start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    proxy.wire("app").await.query(STUBBORN).await;
    let stubborn = "SELECT stubborn(7)";
    let busy = async || {
        let busy = sessions.count("state = 'active'").await;
        assert!(busy <= 3, "{busy} busy in a pool of 3");
        busy
    };
    let wires = all_ask(&proxy, 3, stubborn).await;
    eventually(async || busy().await == 3).await;
    drop(wires);
    for round in 0..5 {
        // Whoever comes now waits, and gives up, too.
        let wires = all_ask(&proxy, 5, stubborn).await;
        zombies(&proxy, 3.0).await;
        assert_eq!(busy().await, 3, "round {round}");
        drop(wires);
    }
    // The last ones get their turn when a server process is through, and no sooner.
    let mut wires = all_ask(&proxy, 5, "SELECT pg_sleep(1)").await;
    let is_over = Cell::new(false);
    let answers = async {
        for wire in &mut wires {
            assert_eq!(tags(&wire.cycle().await), "T D C Z");
        }
        is_over.set(true);
    };
    let watch = async {
        while !is_over.get() {
            busy().await;
        }
    };
    tokio::join!(answers, watch);
    zombies(&proxy, 0.0).await;
    assert!(sessions.open().await <= 3);
}

#[tokio::test]
async fn a_zombie_is_one_of_its_roles_transactions() {
    let limits = "[pool]\ncancel_timeout = \"200ms\"\n[roles.app]\ntransactions_max = 2";
    let proxy = proxy().pool_size(10).toml(limits).start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    proxy.wire("app").await.query(STUBBORN).await;
    let stubborn = "SELECT stubborn(600)";
    let wires = all_ask(&proxy, 2, stubborn).await;
    sessions.until_running(stubborn, 2).await;
    drop(wires);
    zombies(&proxy, 2.0).await;
    let mut waiting = all_ask(&proxy, 1, "SELECT 1").await;
    eventually(async || proxy.metric("pgweir_waiters", &[]) > 0.5).await;
    assert_eq!(sessions.running(stubborn).await, 2);
    assert_eq!(sessions.terminate("query LIKE '%stubborn(600)'").await, 2);
    assert_eq!(tags(&waiting[0].cycle().await), "T D C Z");
    assert!(sessions.open().await <= 2);
}

#[tokio::test]
async fn a_server_process_that_pays_no_heed_is_not_swamped_with_cancels() {
    let proxy = proxy().pool_size(1).toml("[pool]\ncancel_timeout = \"2s\"").start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    proxy.wire("app").await.query(STUBBORN).await;
    let wires = all_ask(&proxy, 1, "SELECT stubborn(600)").await;
    sessions.until_running("SELECT stubborn(600)", 1).await;
    drop(wires);
    zombies(&proxy, 1.0).await;
    let cancels = proxy.metric("pgweir_cancels_total", &["cause=\"zombie\""]);
    assert!((1.0..=6.0).contains(&cancels), "{cancels} in two seconds");
    assert_eq!(sessions.terminate("query LIKE '%stubborn(600)'").await, 1);
}

#[tokio::test]
async fn after_zombie_max_the_slot_is_free_whatever_the_server_does() {
    let limits = "[pool]\ncancel_timeout = \"100ms\"\n[admission]\nzombie_max = \"100ms\"";
    let proxy = proxy().pool_size(1).toml(limits).start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    let mut other = proxy.wire("app").await;
    other.query(STUBBORN).await;
    let wires = all_ask(&proxy, 1, "SELECT stubborn(600)").await;
    sessions.until_running("SELECT stubborn(600)", 1).await;
    drop(wires);
    assert_eq!(tags(&other.query("SELECT 1").await), "T D C Z");
    assert_eq!(sessions.terminate("query LIKE '%stubborn(600)'").await, 1);
}

#[tokio::test]
async fn zombie_max_can_be_changed_by_a_reload() {
    let proxy = proxy().pool_size(1).toml("[pool]\ncancel_timeout = \"100ms\"").start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    let mut other = proxy.wire("app").await;
    other.query(STUBBORN).await;
    proxy.reload("[admission]\nzombie_max = \"50ms\"").await;
    let wires = all_ask(&proxy, 1, "SELECT stubborn(600)").await;
    sessions.until_running("SELECT stubborn(600)", 1).await;
    drop(wires);
    assert_eq!(tags(&other.query("SELECT 1").await), "T D C Z");
    assert_eq!(sessions.terminate("query LIKE '%stubborn(600)'").await, 1);
}
