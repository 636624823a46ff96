//! Where backends go: several hosts, primaries and standbys, names, and connections for replication.

use std::net::TcpListener;
use std::process::Command;

use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use crate::support::frontend::{PROTOCOL_3_0, query, startup};
use crate::support::{Endpoint, Frame, Postgres, Proxy, Wire, eventually, password_of, proxy, soon, tags};

async fn value(at: &Endpoint, sql: &str) -> Result<String, tokio_postgres::Error> {
    let client = at.try_connect("app").await?;
    let answer = soon(client.simple_query(sql)).await?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(row.expect("a row"))
}

#[tokio::test]
async fn a_host_that_swallows_everything_costs_its_share_once() {
    let postgres = Postgres::shared();
    let silent = TcpListener::bind(("127.0.0.9", postgres.port)).expect("nobody else is there");
    silent.set_nonblocking(true).expect("a socket");
    let proxy = proxy()
        .pool_size(4)
        .toml("[databases.app]\nhost = [\"127.0.0.9\", \"127.0.0.1\"]\n[pool]\nconnect_timeout = \"2s\"")
        .start()
        .await;
    let mut clients = vec![proxy.wire("app").await];
    for _ in 0..3 {
        clients.push(proxy.wire("app").await);
    }
    for client in &mut clients {
        assert_eq!(tags(&client.query("BEGIN").await), "C Z");
    }
    let knocks = std::iter::from_fn(|| silent.accept().ok()).count();
    assert_eq!(knocks, 1, "four backends, and only the first tried it");
}

#[tokio::test]
async fn hosts_may_be_names_with_addresses_that_lead_nowhere() {
    // On most machines `localhost` is ::1 first, where the server does not listen.
    let proxy = proxy().toml("[databases.app]\nhost = [\"no-such-host.invalid\", \"localhost\"]").start().await;
    assert_eq!(value(&proxy, "SELECT 1").await.expect("a row"), "1");
}

async fn in_front_of_both(primary: &Postgres) -> Proxy {
    let port = primary.port;
    let hosts = "host = [\"127.0.0.2\", \"127.0.0.1\"]";
    let database = |name: &str, server_role: &str| {
        format!("[databases.{name}]\n{hosts}\nport = {port}\ndbname = \"postgres\"\nserver_role = \"{server_role}\"\n")
    };
    proxy()
        .postgres(primary)
        .dbname("postgres")
        .toml(&database("app", "primary"))
        .toml(&database("reports", "standby"))
        .toml("[pool]\nconnect_timeout = \"20s\"")
        .start()
        .await
}

const IS_STANDBY: &str = "SELECT pg_is_in_recovery()";

#[tokio::test]
async fn primary_and_standby_are_found_and_followed_through_a_failover() {
    let mut primary = Postgres::private(&[]);
    primary.role("app").await;
    let standby = primary.standby();
    let before = primary.admin("postgres").await;
    before.batch_execute("CREATE TABLE t (a int); GRANT ALL ON t TO app").await.expect("a table");
    let proxy = in_front_of_both(&primary).await;
    let reports = proxy.database("reports");
    assert_eq!(value(&proxy, IS_STANDBY).await.expect("a primary"), "f");
    assert_eq!(value(&reports, IS_STANDBY).await.expect("a standby"), "t");
    let client = proxy.connect("app").await;
    client.simple_query("INSERT INTO t VALUES (1)").await.expect("a primary writes");

    let admin = standby.admin("postgres").await;
    eventually(async || {
        let rows = admin.query("SELECT a FROM t", &[]).await;
        rows.is_ok_and(|rows| rows.len() == 1)
    })
    .await;
    primary.crash();
    standby.promote();
    // The same session, as soon as there is a primary again: at most the statement under way is lost.
    eventually(async || client.simple_query("INSERT INTO t VALUES (2)").await.is_ok()).await;
    assert_eq!(value(&proxy, "SELECT inet_server_addr()").await.expect("a row"), "127.0.0.2");
}

#[tokio::test]
async fn an_error_of_a_read_only_server_is_the_clients_own_where_it_was_wanted() {
    let primary = Postgres::private(&[]);
    primary.role("app").await;
    let _standby = primary.standby();
    let proxy = in_front_of_both(&primary).await;
    let reports = proxy.database("reports");
    let error = value(&reports, "CREATE TABLE t ()").await.expect_err("a standby does not write");
    assert_eq!(error.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));
    assert_eq!(value(&reports, IS_STANDBY).await.expect("it is the right server all the same"), "t");
}

/// A connection for replication of a role that may replicate.
async fn replication(at: &Endpoint, role: &str, kind: &str, more: &[(&str, &str)]) -> (Wire, Vec<Frame>) {
    let mut wire = Wire::open(at.addr).await;
    let params = [&[("user", role), ("database", &at.dbname), ("replication", kind)], more].concat();
    wire.send(startup(PROTOCOL_3_0, &params)).await;
    let frames = wire.authenticate(role, &password_of(role)).await;
    (wire, frames)
}

#[tokio::test]
async fn replication_has_a_backend_of_its_own_with_its_parameters() {
    let postgres = Postgres::private(&["wal_level=logical"]);
    let role = postgres.own_role("REPLICATION").await;
    let proxy = proxy()
        .postgres(&postgres)
        .toml(&format!("[roles.{role}]\npassword = \"{}\"", password_of(&role)))
        .pool_size(2)
        .start()
        .await;
    let admin = postgres.admin("postgres").await;
    let backends = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND backend_type = 'walsender'";
        admin.query_one(sql, &[&role]).await.expect("a count").get::<_, i64>(0)
    };
    for (kind, more) in
        [("database", &[("options", "-c work_mem=7MB"), ("application_name", "sub")][..]), ("true", &[])]
    {
        let (mut wire, greeting) = replication(&proxy, &role, kind, more).await;
        assert_eq!(greeting.last().map(|frame| frame.tag), Some('Z'), "{greeting:?}");
        // pg_basebackup and pg_recvlogical look at the version first.
        assert!(greeting.iter().any(|frame| frame.tag == 'S' && frame.text().starts_with("server_version\0")));
        wire.send(query("IDENTIFY_SYSTEM")).await;
        assert_eq!(tags(&wire.cycle().await), "T D C Z");
        if kind == "database" {
            for (name, expected) in [("work_mem", "7MB"), ("application_name", "sub")] {
                let frames = wire.query(&format!("SHOW {name}")).await;
                assert_eq!(frames[1].columns(), [Some(expected.to_owned())]);
            }
        }
        assert_eq!(backends().await, 1);
        drop(wire);
        eventually(async || backends().await == 0).await;
    }
    // One that says nothing leaves nothing behind either.
    let (wire, _) = replication(&proxy, &role, "database", &[]).await;
    drop(wire);
    eventually(async || backends().await == 0).await;
}

#[tokio::test]
async fn a_refused_replication_login_is_told_and_leaves_the_ordinary_pool_alone() {
    let proxy = proxy().start().await;
    let mut neighbour = proxy.wire("app").await;
    neighbour.query("SELECT 1").await;
    let (_, frames) = replication(&proxy, "app", "database", &[]).await;
    let refused = frames.last().expect("an answer");
    assert_eq!(refused.tag, 'E', "{frames:?}");
    assert_eq!(refused.sqlstate(), "42501", "{refused:?}");
    let (_, frames) = replication(&proxy, "app", "database", &[("options", "-c no_such_setting=1")]).await;
    assert_eq!(frames.last().map(|frame| frame.tag), Some('E'));
    assert_eq!(tags(&neighbour.query("SELECT 1").await), "T D C Z");
    assert_eq!(value(&proxy, "SELECT 1").await.expect("a row"), "1");
}

#[tokio::test]
async fn pg_basebackup_and_pg_recvlogical_work() {
    let postgres = Postgres::private(&["wal_level=logical"]);
    let role = postgres.own_role("SUPERUSER").await;
    let proxy = proxy()
        .postgres(&postgres)
        .toml(&format!("[roles.{role}]\npassword = \"{}\"", password_of(&role)))
        .toml("[databases.\"*\"]\nhost = \"127.0.0.1\"")
        .toml(&format!("[databases.\"*\"]\nport = {}", postgres.port))
        .start()
        .await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut backup = Command::new("pg_basebackup");
    backup.args(["--checkpoint=fast", "-X", "stream", "-D"]).arg(dir.path().join("backup"));
    proxy.run(&role, backup).await;
    assert!(dir.path().join("backup/PG_VERSION").exists());

    let mut create = Command::new("pg_recvlogical");
    create.args(["--create-slot", "-S", "slot", "-P", "test_decoding", "-d", "app"]);
    proxy.run(&role, create).await;
    let client = proxy.connect(&role).await;
    client
        .batch_execute("SET synchronous_commit = on; CREATE TABLE t (a int); INSERT INTO t VALUES (42)")
        .await
        .expect("a table");
    let end = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.expect("a position");
    let mut receive = Command::new("pg_recvlogical");
    receive.args(["--start", "-S", "slot", "-d", "app", "--no-loop", "-f", "-", "-E", end.get(0)]);
    let changes = proxy.run(&role, receive).await;
    assert!(changes.contains("table public.t: INSERT: a[integer]:42"), "{changes}");
}
