//! The primary of a cluster is found and followed beside the pools: clients wait for it and lose nothing.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use crate::support::{Postgres, Proxy, eventually, proxy, tags};

/// Two hosts with one port; each is asked for its role.
async fn in_front_of(primary: &Postgres, more: &str) -> Proxy {
    let port = primary.port;
    proxy()
        .postgres(primary)
        .dbname("postgres")
        .toml("[admission]\nnotice_after = \"0s\"")
        .toml(&format!(
            "[databases.app]\nhost = [\"127.0.0.1\", \"127.0.0.2\"]\nport = {port}\ndbname = \"postgres\"\n\
             topology = \"probe\"\nprobe = {{ role = \"prober\", password = \"prober-password\" }}\n{more}\
             [databases.plain]\nhost = \"127.0.0.1\"\nport = {port}"
        ))
        .start()
        .await
}

/// A primary with a role for clients, one that asks for its role, and a table.
async fn cluster() -> (Postgres, Postgres) {
    let primary = Postgres::private(&[]);
    primary.role("app").await;
    let admin = primary.admin("postgres").await;
    let sql = "CREATE ROLE prober LOGIN PASSWORD 'prober-password'; CREATE TABLE t (a int PRIMARY KEY); GRANT ALL ON t TO app";
    admin.batch_execute(sql).await.expect("a table");
    let standby = primary.standby();
    (primary, standby)
}

/// The used host of SHOW TOPOLOGY, once it shows a line for each of two.
async fn used(proxy: &Proxy) -> Option<String> {
    let lines = proxy.console("SHOW TOPOLOGY").await;
    lines.iter().find(|line| line["used"] == "1").map(|line| line["host"].clone())
}

async fn caught_up(standby: &Postgres, rows: usize) {
    let admin = standby.admin("postgres").await;
    eventually(async || admin.query("SELECT a FROM t", &[]).await.is_ok_and(|found| found.len() == rows)).await;
}

#[tokio::test]
async fn clients_wait_while_no_primary_is_known_and_go_on_with_the_next() {
    let (mut primary, standby) = cluster().await;
    let proxy = in_front_of(&primary, "").await;
    let mut client = proxy.wire("app").await;
    assert_eq!(tags(&client.query("INSERT INTO t VALUES (1)").await), "C Z");
    assert_eq!(used(&proxy).await, Some(format!("127.0.0.1:{}", primary.port)));
    caught_up(&standby, 1).await;
    primary.crash();
    eventually(async || used(&proxy).await.is_none()).await;
    let lines = proxy.console("SHOW TOPOLOGY").await;
    assert!(
        lines.iter().any(|line| line["role"] == "standby" && line["reason"].contains("no server says")),
        "{lines:?}"
    );
    // It waits, though nothing answers: there is no error to be had before wait_timeout.
    let waiting = tokio::spawn(async move {
        let frames = client.query("INSERT INTO t VALUES (2)").await;
        (client, frames)
    });
    eventually(async || proxy.console("SHOW POOLS").await.iter().any(|line| line["cl_waiting"] == "1")).await;
    standby.promote();
    let (mut client, frames) = waiting.await.expect("it is answered");
    assert_eq!(tags(&frames), "C Z", "{frames:?}");
    assert_eq!(tags(&client.query("SELECT a FROM t").await), "T D D C Z");
    assert_eq!(used(&proxy).await, Some(format!("127.0.0.2:{}", primary.port)));
    // The former primary comes back as one of an older timeline, and is not believed.
    primary.start();
    eventually(async || {
        let lines = proxy.console("SHOW TOPOLOGY").await;
        lines.iter().filter(|line| line["role"] == "primary").count() == 2
    })
    .await;
    assert_eq!(used(&proxy).await, Some(format!("127.0.0.2:{}", primary.port)));
    assert_eq!(tags(&client.query("SELECT a FROM t").await), "T D D C Z");
}

#[tokio::test]
async fn a_server_that_was_down_is_found_again_without_a_client() {
    let (mut primary, _standby) = cluster().await;
    let proxy = in_front_of(&primary, "").await;
    eventually(async || used(&proxy).await.is_some()).await;
    primary.stop();
    eventually(async || used(&proxy).await.is_none()).await;
    primary.start();
    eventually(async || used(&proxy).await.is_some()).await;
    let mut client = proxy.wire("app").await;
    assert_eq!(tags(&client.query("SELECT 1").await), "T D C Z");
}

#[tokio::test]
async fn a_wait_for_a_primary_ends_with_the_reason() {
    let (mut primary, _standby) = cluster().await;
    let proxy = in_front_of(&primary, "wait_timeout = \"1s\"\n").await;
    let mut client = proxy.wire("app").await;
    assert_eq!(tags(&client.query("SELECT 1").await), "T D C Z");
    primary.stop();
    eventually(async || used(&proxy).await.is_none()).await;
    let frames = client.query("SELECT 1").await;
    let error = frames.iter().find(|frame| frame.tag == 'E').expect("an error");
    assert_eq!(error.sqlstate(), "57P03", "{frames:?}");
    assert!(error.text().contains("SHOW TOPOLOGY"), "{error:?}");
}

#[tokio::test]
async fn a_pause_until_primary_ends_by_itself() {
    let (mut primary, standby) = cluster().await;
    let proxy = in_front_of(&primary, "").await;
    let mut client = proxy.wire("app").await;
    assert_eq!(tags(&client.query("INSERT INTO t VALUES (1)").await), "C Z");
    caught_up(&standby, 1).await;
    // Nothing happens, and the time is up.
    let begun = Instant::now();
    proxy.console("PAUSE app UNTIL PRIMARY '1s'").await;
    assert_eq!(tags(&client.query("SELECT 1").await), "T D C Z");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    // Another primary comes long before that. The server may be stopped when the answer is there: transactions that
    // were under way have ended.
    client.query("BEGIN").await;
    let console = proxy.database("pgweir").connect("ops").await;
    let paused = tokio::spawn(async move { console.simple_query("PAUSE app UNTIL PRIMARY '10m'").await });
    eventually(async || proxy.console("SHOW DATABASES").await.iter().any(|line| line["paused"] == "1")).await;
    assert_eq!(tags(&client.query("SELECT 1").await), "T D C Z");
    assert!(!paused.is_finished(), "the transaction is open");
    client.query("COMMIT").await;
    paused.await.expect("no panic").expect("it is answered");
    primary.stop();
    standby.promote();
    assert_eq!(tags(&client.query("INSERT INTO t VALUES (2)").await), "C Z");
    let ops = proxy.database("pgweir").connect("ops").await;
    let refused = ops.simple_query("PAUSE plain UNTIL PRIMARY '1s'").await.expect_err("nobody looks for its primary");
    assert_eq!(refused.code(), Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE));
}

#[tokio::test]
async fn ending_the_probers_connection_holds_nobody_up_for_long() {
    let (primary, _standby) = cluster().await;
    let proxy = in_front_of(&primary, "").await;
    let mut client = proxy.wire("app").await;
    assert_eq!(tags(&client.query("SELECT 1").await), "T D C Z");
    let admin = primary.admin("postgres").await;
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgweir topology'";
    let ended = admin.query(sql, &[]).await.expect("a superuser may");
    assert_eq!(ended.len(), 1);
    assert_eq!(tags(&client.query("SELECT 1").await), "T D C Z");
    let lines = proxy.console("SHOW TOPOLOGY").await;
    assert!(lines.iter().all(|line| line["epoch"] == "1"), "{lines:?}");
}

/// Raises 25006 at its first calls, as a server does that may not write; a sequence counts them.
const REFUSES: &str = "CREATE SEQUENCE calls; GRANT ALL ON SEQUENCE calls TO app;
    CREATE FUNCTION refuses(times int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('calls') <= times THEN RAISE 'read only' USING ERRCODE = '25006'; END IF;
        RETURN lastval();
    END $$";

#[tokio::test]
async fn a_lone_statement_that_a_server_refused_is_sent_again() {
    let (primary, _standby) = cluster().await;
    primary.admin("postgres").await.batch_execute(REFUSES).await.expect("a function");
    let proxy = in_front_of(&primary, "").await;
    let client = proxy.connect("app").await;
    // The unnamed Parse of a lone statement, a Parse under a name, and a simple query.
    let row = client.query_one("SELECT refuses(2)", &[]).await.expect("the third time it runs");
    assert_eq!(row.get::<_, i32>(0), 3);
    client.batch_execute("SELECT setval('calls', 1, false)").await.expect("a sequence");
    client.batch_execute("SELECT refuses(1)").await.expect("the second time it runs");
    assert_eq!(proxy.metric("pgweir_replays_total", &[]), 3.0);
    // One that goes on being refused gets the error.
    client.batch_execute("SELECT setval('calls', 1, false)").await.expect("a sequence");
    let error = client.batch_execute("SELECT refuses(1000)").await.expect_err("it is refused for ever");
    assert_eq!(error.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));
}

#[tokio::test]
async fn what_may_have_run_or_is_part_of_more_is_not_sent_again() {
    let (primary, _standby) = cluster().await;
    primary.admin("postgres").await.batch_execute(REFUSES).await.expect("a function");
    let proxy = in_front_of(&primary, "").await;
    let mut client = proxy.wire("app").await;
    for statements in [
        &["BEGIN", "SELECT refuses(1000)", "ROLLBACK"][..],
        &["SET default_transaction_read_only = on", "SELECT refuses(1000)", "RESET default_transaction_read_only"],
        &["SELECT 1; SELECT refuses(1000)"],
        &["CREATE TEMP TABLE pinned ()", "SELECT refuses(1000)"],
    ] {
        for statement in statements {
            client.query(statement).await;
        }
    }
    assert_eq!(proxy.metric("pgweir_replays_total", &[]), 0.0);
    let off = in_front_of(&primary, "replay = \"off\"\n").await;
    let mut client = off.wire("app").await;
    let frames = client.query("SELECT refuses(1000)").await;
    assert_eq!(tags(&frames), "T E Z");
    assert_eq!(off.metric("pgweir_replays_total", &[]), 0.0);
}
