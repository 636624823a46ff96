//! Timeouts of a role: what clients are told of them, how they reach backends, and that nothing of them reaches anybody else.

use crate::support::frontend::{cancel_request, copy_fail, extended, query, sync};
use crate::support::{Frame, Link, Postgres, Proxy, Sessions, Wire, eventually, proxy, tags};

const SLEEP: &str = "SELECT pg_sleep(600)";

/// SQLSTATE and HINT of the only error in `frames`.
#[track_caller]
fn error(frames: &[Frame]) -> (String, Option<String>) {
    let errors: Vec<_> = frames.iter().filter(|frame| frame.tag == 'E').collect();
    let [error] = errors[..] else { panic!("one error expected: {frames:?}") };
    (error.sqlstate(), error.fields().remove(&'H'))
}

fn hint(key: &str) -> Option<String> {
    Some(format!("roles.app.{key} in pgweir's configuration."))
}

/// A proxy with one backend and these lines in the section of the role `app`.
async fn with(lines: &str) -> Proxy {
    proxy().pool_size(1).toml(&format!("[roles.app]\n{lines}")).start().await
}

async fn sessions(proxy: &Proxy) -> Sessions {
    Sessions::of(Postgres::shared(), &proxy.dbname).await
}

fn counted(proxy: &Proxy, kind: &str) -> f64 {
    proxy.metric("pgweir_timeouts_total", &["database=\"app\"", "role=\"app\"", &format!("kind=\"{kind}\"")])
}

/// Has somebody else cancel what `proxy`'s only client runs.
async fn cancel(proxy: &Proxy, wire: &Wire) {
    let (process, secret) = wire.key.as_ref().expect("it is logged in");
    let mut other = Wire::open(proxy.addr).await;
    other.send(cancel_request(*process, secret)).await;
    assert!(other.rest().await.is_empty());
}

// ---- errors of a limit ---------------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_error_of_a_limit_names_its_key_and_is_counted() {
    let proxy = with("statement_timeout = \"300ms\"").await;
    let mut wire = proxy.wire("app").await;
    let expected = ("57014".to_owned(), hint("statement_timeout = 300ms"));
    assert_eq!(error(&wire.query(SLEEP).await), expected);
    wire.send([extended(SLEEP, &[]), sync()].concat()).await;
    assert_eq!(error(&wire.cycle().await), expected);
    // Each statement of a text has its own time; the answers come together.
    let frames = wire.query(&format!("SELECT pg_sleep(0.2); SELECT pg_sleep(0.2); {SLEEP}")).await;
    assert_eq!((tags(&frames).as_str(), error(&frames)), ("T D C T D C T E Z", expected));
    assert_eq!(counted(&proxy, "statement"), 3.0);
    assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z");
}

#[tokio::test]
async fn a_lock_that_is_not_to_be_had_in_time_is_55p03_and_nowait_is_no_timeout() {
    let proxy = proxy().pool_size(2).toml("[roles.app]\nlock_timeout = \"200ms\"").start().await;
    let (mut holder, mut wire) = (proxy.wire("app").await, proxy.wire("app").await);
    holder.query("CREATE TABLE t (a int)").await;
    holder.query("BEGIN; LOCK t").await;
    assert_eq!(error(&wire.query("SELECT * FROM t").await), ("55P03".to_owned(), hint("lock_timeout = 200ms")));
    assert_eq!(counted(&proxy, "lock"), 1.0);
    assert_eq!(error(&wire.query("BEGIN; LOCK t NOWAIT").await), ("55P03".to_owned(), None));
    assert_eq!(counted(&proxy, "lock"), 1.0);
}

#[tokio::test]
async fn a_cancel_that_was_asked_for_is_no_timeout() {
    let proxy = with("statement_timeout = \"40s\"").await;
    let sessions = sessions(&proxy).await;
    let mut wire = proxy.wire("app").await;
    wire.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    cancel(&proxy, &wire).await;
    assert_eq!(error(&wire.cycle().await), ("57014".to_owned(), None));
    assert_eq!(counted(&proxy, "statement"), 0.0);
    // COPY that its client gives up has the same SQLSTATE.
    wire.query("CREATE TABLE t (a int)").await;
    wire.send(query("COPY t FROM STDIN")).await;
    wire.expect("G").await;
    wire.send(copy_fail("no more")).await;
    assert_eq!(error(&wire.cycle().await), ("57014".to_owned(), None));
    assert_eq!(counted(&proxy, "statement"), 0.0);
}

#[tokio::test]
async fn a_limit_that_is_not_ours_is_counted_and_names_no_key() {
    let proxy = with("statement_timeout = \"40s\"").await;
    let mut wire = proxy.wire("app").await;
    wire.query("SET statement_timeout = '100ms'").await;
    assert_eq!(error(&wire.query(SLEEP).await), ("57014".to_owned(), None));
    wire.query("RESET statement_timeout").await;
    let frames = wire.query(&format!("SET LOCAL statement_timeout = '100ms'; {SLEEP}")).await;
    assert_eq!(error(&frames), ("57014".to_owned(), None));
    assert_eq!(counted(&proxy, "statement"), 2.0);
}

#[tokio::test]
async fn a_transaction_that_was_idle_for_too_long_is_lost_and_its_client_stays() {
    let proxy = with("idle_in_transaction_timeout = \"200ms\"").await;
    let sessions = sessions(&proxy).await;
    let mut wire = proxy.wire("app").await;
    for in_extended in [false, true] {
        wire.query("BEGIN").await;
        sessions.until("true", 0).await;
        if in_extended {
            wire.send([extended("SELECT 1", &[]), sync()].concat()).await;
        } else {
            wire.send(query("SELECT 1")).await;
        }
        let frames = wire.cycle().await;
        assert_eq!(error(&frames), ("25P03".to_owned(), hint("idle_in_transaction_timeout = 200ms")));
        assert_eq!(frames.last().map(Frame::text).as_deref(), Some("E"));
        assert_eq!(error(&wire.query("SELECT 1").await).0, "25P02");
        assert_eq!(tags(&wire.query("ROLLBACK").await), "C Z");
        assert_eq!(wire.value("SELECT 1").await, "1");
    }
    assert_eq!(counted(&proxy, "idle_in_transaction"), 2.0);
    // A backend that belongs to one client takes the session with it, as without a pool.
    wire.query("CREATE TEMP TABLE t (a int)").await;
    wire.query("BEGIN").await;
    let frames = wire.rest().await;
    assert_eq!(error(&frames), ("25P03".to_owned(), hint("idle_in_transaction_timeout = 200ms")));
    assert_eq!(frames[0].fields()[&'S'], "FATAL");
}

// ---- epochs ----------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_changed_limit_reaches_live_backends_without_a_round_trip_or_a_login() {
    let link = Link::to(Postgres::shared().endpoint("postgres").addr).await;
    let proxy = proxy()
        .pool_size(1)
        .backend(link.addr)
        .toml("[roles.app]\nstatement_timeout = \"40s\"\nidle_in_transaction_timeout = \"40s\"")
        .start()
        .await;
    let sessions = sessions(&proxy).await;
    let (mut wire, mut other) = (proxy.wire("app").await, proxy.wire("app").await);
    wire.query("SELECT 1").await;
    let before = (sessions.pids().await, link.sent());
    proxy.reload("[roles.app]\nstatement_timeout = \"50s\"\nlock_timeout = \"700ms\"").await;
    // The second statement is in the same write as what brings the values.
    let shown = "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),
        current_setting('idle_in_transaction_session_timeout')";
    for wire in [&mut wire, &mut other] {
        let expected = ["50s", "700ms", "40s"].map(|value| Some(value.to_owned()));
        assert_eq!(wire.query(shown).await[1].columns(), expected);
    }
    assert_eq!((sessions.pids().await, link.sent()), (before.0, before.1 + 2));
}

#[tokio::test]
async fn an_idle_backend_with_outdated_limits_is_replaced_after_a_while() {
    let proxy = proxy().pool_size(5).toml("[roles.app]\nstatement_timeout = \"40s\"").start().await;
    let sessions = sessions(&proxy).await;
    let mut wires = Vec::new();
    for _ in 0..5 {
        let mut wire = proxy.wire("app").await;
        wire.query("BEGIN").await;
        wires.push(wire);
    }
    for wire in &mut wires {
        wire.query("COMMIT").await;
    }
    let before = sessions.pids().await;
    proxy.reload("[roles.app]\nstatement_timeout = \"50s\"").await;
    assert_eq!(wires[0].value("SHOW statement_timeout").await, "50s");
    eventually(async || sessions.pids().await.iter().all(|pid| !before.contains(pid))).await;
    // A new one has it from its login.
    wires[0].query("RESET ALL").await;
    assert_eq!(wires[0].value("SELECT reset_val FROM pg_settings WHERE name = 'statement_timeout'").await, "50000");
    let fresh = sessions.pids().await;
    wires[1].query("SELECT 1").await;
    assert_eq!(sessions.pids().await, fresh);
}

#[tokio::test]
async fn nothing_takes_a_changed_limit_off_a_backend() {
    let proxy = with("statement_timeout = \"40s\"").await;
    let (mut wire, mut other) = (proxy.wire("app").await, proxy.wire("app").await);
    wire.query("SELECT 1").await;
    proxy.reload("[roles.app]\nstatement_timeout = \"50s\"").await;
    for statement in [
        "RESET statement_timeout",
        "SET statement_timeout TO DEFAULT",
        "RESET ALL",
        "DISCARD ALL",
        "BEGIN; RESET ALL; ROLLBACK",
        "BEGIN; SET LOCAL statement_timeout = 7; COMMIT",
        "SET statement_timeout = 7; RESET ALL",
        "SELECT set_config('statement_timeout', NULL, true)",
        "CREATE TEMP TABLE t (a int); DROP TABLE t",
    ] {
        wire.query(statement).await;
        for wire in [&mut wire, &mut other] {
            assert_eq!(wire.value("SHOW statement_timeout").await, "50s", "after {statement}");
        }
    }
    // What a client set itself stays with it.
    wire.query("SET statement_timeout = '7s'").await;
    proxy.reload("[roles.app]\nstatement_timeout = \"55s\"").await;
    for _ in 0..2 {
        assert_eq!(wire.value("SHOW statement_timeout").await, "7s");
        assert_eq!(other.value("SHOW statement_timeout").await, "55s");
    }
    wire.query("RESET statement_timeout").await;
    assert_eq!(wire.value("SHOW statement_timeout").await, "55s");
    // Back to what the backend logged in with.
    proxy.reload("[roles.app]\nstatement_timeout = \"40s\"").await;
    assert_eq!(other.value("SHOW statement_timeout").await, "40s");
}

#[tokio::test]
async fn a_transaction_under_way_keeps_its_limits_and_a_session_gets_them_with_its_next() {
    for mode in ["transaction", "session"] {
        let proxy = proxy().pool_size(2).mode(mode).toml("[roles.app]\nstatement_timeout = \"40s\"").start().await;
        let sessions = sessions(&proxy).await;
        let mut wire = proxy.wire("app").await;
        // Pinned, where the mode does not tie it to its backend anyway.
        wire.query("CREATE TEMP TABLE t (a int)").await;
        wire.query("BEGIN").await;
        let before = sessions.pids().await;
        proxy.reload("[roles.app]\nstatement_timeout = \"50s\"").await;
        assert_eq!(wire.value("SHOW statement_timeout").await, "40s");
        wire.send([extended("SHOW statement_timeout", &[]), sync(), query("COMMIT")].concat()).await;
        wire.expect("1 2 T D C Z C Z").await;
        wire.send([extended("SHOW statement_timeout", &[]), sync()].concat()).await;
        assert_eq!(wire.expect("1 2 T D C Z").await[3].columns(), [Some("50s".to_owned())]);
        assert_eq!(sessions.pids().await, before, "{mode}");
    }
}

#[tokio::test]
async fn a_limit_that_is_no_longer_configured_is_the_servers_again() {
    let role = Postgres::shared().own_role("").await;
    let admin = Postgres::shared().admin("postgres").await;
    admin.batch_execute(&format!("ALTER ROLE {role} SET statement_timeout = '33s'")).await.expect("an ALTER ROLE");
    let proxy = proxy().pool_size(1).role(&role, "statement_timeout = \"40s\"").start().await;
    let mut wire = proxy.wire(&role).await;
    assert_eq!(wire.value("SHOW statement_timeout").await, "40s");
    let text = std::fs::read_to_string(proxy.file()).expect("our own file").replace("statement_timeout = \"40s\"", "");
    proxy.overwrite(&text);
    proxy.console("RELOAD").await;
    assert_eq!(wire.value("SHOW statement_timeout").await, "33s");
}

#[tokio::test]
async fn a_limit_that_the_server_does_not_know_harms_nobody() {
    let proxy = with("statement_timeout = \"40s\"").await;
    let mut wire = proxy.wire("app").await;
    wire.query("SELECT 1").await;
    proxy.reload("[roles.app]\nstatement_timeout = \"50s\"\ntransaction_timeout = \"60s\"").await;
    assert_eq!(wire.value("SHOW statement_timeout").await, "50s");
    assert_eq!(proxy.wire("app").await.value("SELECT 1").await, "1");
}
