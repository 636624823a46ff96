//! Configuration read again while clients are at work: a good file changes what differs and nothing else, a bad one
//! nothing.

use std::fs;

use rustix::process::Signal;

use crate::support::frontend::{query, sync};
use crate::support::{Frame, Postgres, Proxy, Sessions, Wire, eventually, proxy, tags};

fn fatal(frames: &[Frame]) -> Option<String> {
    let last = frames.last().filter(|frame| frame.tag == 'E')?;
    assert_eq!(last.fields()[&'S'], "FATAL");
    Some(last.sqlstate())
}

async fn show(wire: &mut Wire, setting: &str) -> String {
    wire.query(&format!("SHOW {setting}")).await[1].columns().remove(0).expect("a value")
}

async fn sessions(proxy: &Proxy) -> Sessions {
    Sessions::of(Postgres::shared(), &proxy.dbname).await
}

#[tokio::test]
async fn a_larger_pool_admits_waiting_clients_at_once() {
    let proxy = proxy().pool_size(1).start().await;
    let (mut holder, mut waiter) = (proxy.wire("app").await, proxy.wire("app").await);
    holder.query("BEGIN").await;
    waiter.send(query("SELECT 'admitted'")).await;
    proxy.rewrite("[pool]\nsize = 2");
    proxy.signal(Signal::HUP);
    waiter.expect("T D C Z").await;
    assert_eq!(holder.query("COMMIT").await[1].text(), "I");
}

#[tokio::test]
async fn a_smaller_pool_ends_idle_backends_and_lets_transactions_finish() {
    let proxy = proxy().pool_size(3).start().await;
    let sessions = sessions(&proxy).await;
    let (mut one, mut two, mut idle) = (proxy.wire("app").await, proxy.wire("app").await, proxy.wire("app").await);
    for wire in [&mut one, &mut two, &mut idle] {
        wire.query("BEGIN").await;
    }
    idle.query("COMMIT").await;
    assert_eq!(sessions.open().await, 3);
    proxy.rewrite("[pool]\nsize = 1");
    proxy.signal(Signal::HUP);
    sessions.until("true", 2).await;
    one.query("COMMIT").await;
    sessions.until("true", 1).await;
    assert_eq!(tags(&two.query("SELECT 1").await), "T D C Z");
    two.query("COMMIT").await;
    assert_eq!(tags(&one.query("SELECT 1").await), "T D C Z");
    assert_eq!(sessions.open().await, 1);
}

#[tokio::test]
async fn changed_timeouts_reach_backends_without_a_client_noticing() {
    let proxy = proxy().pool_size(2).toml("[roles.app]\nstatement_timeout = \"40s\"").start().await;
    let sessions = sessions(&proxy).await;
    let (mut wire, mut busy) = (proxy.wire("app").await, proxy.wire("app").await);
    busy.query("BEGIN").await;
    assert_eq!(show(&mut wire, "statement_timeout").await, "40s");
    let before = sessions.pids().await;
    proxy.rewrite("[roles.app]\nstatement_timeout = \"50s\"\nlock_timeout = \"800ms\"");
    proxy.signal(Signal::HUP);
    proxy.logged("configuration changed").await;
    assert_eq!(show(&mut wire, "statement_timeout").await, "50s");
    assert_eq!(show(&mut wire, "lock_timeout").await, "800ms");
    // A transaction is not disturbed; the backend is replaced when it idles.
    assert_eq!(show(&mut busy, "statement_timeout").await, "40s");
    assert_eq!(busy.query("COMMIT").await[1].text(), "I");
    assert_eq!(show(&mut busy, "statement_timeout").await, "50s");
    eventually(async || sessions.pids().await.iter().all(|pid| !before.contains(pid))).await;
}

// A reload that closes what it need not becomes a storm of logins.
#[tokio::test]
async fn a_reload_that_changes_nothing_recycles_nothing() {
    let proxy = proxy().pool_size(2).toml("[roles.app]\nstatement_timeout = \"40s\"").start().await;
    let sessions = sessions(&proxy).await;
    let (mut one, mut two) = (proxy.wire("app").await, proxy.wire("app").await);
    one.query("BEGIN").await;
    two.query("SELECT 1").await;
    let before = sessions.pids().await;
    proxy.signal(Signal::HUP);
    proxy.logged("configuration read again; nothing changed").await;
    // A change elsewhere, too.
    proxy.rewrite("[roles.stranger]\npassword = \"x\"");
    proxy.signal(Signal::HUP);
    proxy.logged("configuration changed").await;
    one.query("COMMIT").await;
    assert_eq!(tags(&two.query("SELECT 1").await), "T D C Z");
    assert_eq!(sessions.pids().await, before);
}

// PgBouncer and Odyssey apply a bad file in part.
#[tokio::test]
async fn a_bad_file_changes_nothing() {
    let proxy = proxy().pool_size(1).start().await;
    let sessions = sessions(&proxy).await;
    let mut wire = proxy.wire("app").await;
    wire.query("SELECT 1").await;
    let before = sessions.pids().await;
    proxy.overwrite("[pool]\nsize = 0\nsise = 3\n[databases.app]\nhost = \"nowhere\"\nport = 99999");
    proxy.signal(Signal::HUP);
    let record = proxy.logged("configuration is invalid; the old one stays in force").await;
    let mistakes = record["mistakes"].as_str().expect("a text").to_owned();
    for key in ["pool.size", "pool.sise", "databases.app.port"] {
        assert!(mistakes.contains(key), "every mistake in one run: {mistakes}");
    }
    assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z");
    assert_eq!(tags(&proxy.wire("app").await.query("SELECT 1").await), "T D C Z");
    assert_eq!(sessions.pids().await, before);
    // And a good one is taken again.
    proxy.rewrite("[roles.app]\nstatement_timeout = \"41s\"");
    proxy.signal(Signal::HUP);
    proxy.logged("configuration changed").await;
    assert_eq!(show(&mut wire, "statement_timeout").await, "41s");
}

#[tokio::test]
async fn a_changed_file_is_noticed_without_a_signal_also_when_it_was_renamed_into_place() {
    let proxy = proxy().pool_size(1).start().await;
    let mut wire = proxy.wire("app").await;
    proxy.rewrite("[roles.app]\nstatement_timeout = \"42s\"");
    proxy.logged("configuration changed").await;
    assert_eq!(show(&mut wire, "statement_timeout").await, "42s");

    let next = proxy.file().with_extension("next");
    let text = fs::read_to_string(proxy.file()).expect("our own file").replace("\"42s\"", "\"43s\"");
    fs::write(&next, text).expect("our own directory");
    fs::rename(&next, proxy.file()).expect("our own directory");
    let seconds = async || show(&mut proxy.wire("app").await, "statement_timeout").await;
    eventually(async || seconds().await == "43s").await;
}

// Waiting and idle clients get an error that says why; a transaction may end first.
#[tokio::test]
async fn clients_of_a_removed_database_go_when_their_transaction_is_over() {
    let proxy = proxy().pool_size(1).toml("[listen]\nworkers = 1").start().await;
    let sessions = sessions(&proxy).await;
    let (mut busy, mut idle, mut waiting) = (proxy.wire("app").await, proxy.wire("app").await, proxy.wire("app").await);
    idle.query("CREATE TABLE t (a int)").await;
    busy.query("BEGIN").await;
    waiting.send(query("INSERT INTO t VALUES (2)")).await;
    idle.send(sync()).await;
    idle.expect("Z").await;
    let text = fs::read_to_string(proxy.file()).expect("our own file").replace("[databases.app]", "[databases.other]");
    proxy.overwrite(&text);
    proxy.signal(Signal::HUP);
    assert_eq!(fatal(&idle.rest().await).as_deref(), Some("57P01"));
    assert_eq!(fatal(&waiting.rest().await).as_deref(), Some("57P01"));
    assert_eq!(tags(&busy.query("INSERT INTO t VALUES (1)").await), "C Z");
    busy.send(query("COMMIT")).await;
    let frames = busy.rest().await;
    assert_eq!((tags(&frames).as_str(), fatal(&frames).as_deref()), ("C Z E", Some("57P01")));
    sessions.until("true", 0).await;
    let refused = proxy.try_connect("app").await.expect_err("it is gone");
    assert_eq!(refused.code().map(|code| code.code()), Some("3D000"));
    let other = proxy.database("other").connect("app").await;
    let rows = other.query_one("SELECT count(*) FROM t", &[]).await;
    assert_eq!(rows.expect("a count").get::<_, i64>(0), 1, "what was waiting never ran");
}

// A reload is compared with the configuration of now, not with one seen before, and reloads do not overlap.
#[tokio::test]
async fn reloads_there_and_back_under_load_lose_nobody() {
    let proxy = proxy().pool_size(2).start().await;
    let sessions = sessions(&proxy).await;
    let mut wires = futures_util::future::join_all((0..8).map(|_| proxy.wire("app"))).await;
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let work = futures_util::future::join_all(wires.iter_mut().map(async |wire| {
        while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
            assert_eq!(tags(&wire.query("SELECT pg_sleep(0.002)").await), "T D C Z");
            assert_eq!(tags(&wire.query("BEGIN").await), "C Z");
            assert_eq!(tags(&wire.query("COMMIT").await), "C Z");
        }
    }));
    let reloads = async {
        for seconds in [40, 50, 40, 60, 40] {
            proxy.rewrite(&format!(
                "[roles.app]\nstatement_timeout = \"{seconds}s\"\n[pool]\nsize = {}",
                seconds / 10 - 2
            ));
            proxy.signal(Signal::HUP);
            let current = async || show(&mut proxy.wire("app").await, "statement_timeout").await;
            let expected = if seconds == 60 { "1min".to_owned() } else { format!("{seconds}s") };
            eventually(async || current().await == expected).await;
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::join!(work, reloads);
    sessions.until("state <> 'idle'", 0).await;
    eventually(async || sessions.open().await <= 2).await;
}
