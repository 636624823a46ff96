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
    // Another primary comes long before that.
    proxy.console("PAUSE app UNTIL PRIMARY '10m'").await;
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
