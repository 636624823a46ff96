//! Limits of roles that Postgres itself enforces, and limits of the login: timeouts, storms, idleness.

use tokio::time::Instant;

use futures_util::future::join_all;
use tokio_postgres::error::SqlState;

use crate::support::{Endpoint, Postgres, Wire, eventually, proxy, soon, tags};

async fn show(at: &Endpoint, role: &str, sql: &str) -> String {
    at.psql(role, sql).await
}

const LIMITS: &str = "statement_timeout = \"7s\"\nlock_timeout = \"0s\"\nidle_in_transaction_timeout = \"90s\"";

#[tokio::test]
async fn limits_of_a_role_hold_at_the_server_and_nothing_takes_them_away() {
    let postgres = Postgres::shared();
    let role = postgres.own_role("").await;
    let admin = postgres.admin("postgres").await;
    let own = format!("ALTER ROLE {role} SET statement_timeout = '1h'; ALTER ROLE {role} SET lock_timeout = '1h'");
    admin.batch_execute(&own).await.expect("our own role");
    for mode in ["transaction", "session"] {
        let proxy =
            proxy().mode(mode).bare_role(&role, &format!("password = \"{role}-secret\"\n{LIMITS}")).start().await;
        let all = "SHOW statement_timeout; SHOW lock_timeout; SHOW idle_in_transaction_session_timeout";
        let expected = "7s\n0\n90s\n";
        assert_eq!(show(&proxy, &role, all).await, expected, "{mode}");
        for undo in ["RESET ALL", "RESET statement_timeout", "DISCARD ALL", "SET statement_timeout TO DEFAULT"] {
            let mut wire = proxy.wire(&role).await;
            wire.query("SET statement_timeout = '1min'").await;
            wire.query(undo).await;
            let frames = wire.query("SHOW statement_timeout").await;
            assert_eq!(frames[1].columns(), [Some("7s".to_owned())], "{mode}: {undo}");
        }
        assert_eq!(show(&proxy, &role, all).await, expected, "{mode}");
    }
}

#[tokio::test]
async fn transaction_timeout_is_left_out_where_the_server_has_none() {
    // On 15 the first login is refused with 42704, and tried again without it.
    let proxy = proxy().role("timed", "transaction_timeout = \"9s\"\nstatement_timeout = \"8s\"").start().await;
    let client = proxy.connect("timed").await;
    let row =
        client.query_one("SELECT current_setting('server_version_num')::int >= 170000", &[]).await.expect("a row");
    let has_it: bool = row.get(0);
    let row = client.query_one("SELECT current_setting('transaction_timeout', true)", &[]).await.expect("a row");
    assert_eq!(row.get::<_, Option<&str>>(0), has_it.then_some("9s"));
    assert_eq!(show(&proxy, "timed", "SHOW statement_timeout").await, "8s\n");
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_ended_by_the_server() {
    let proxy = proxy().role("brief", "statement_timeout = \"50ms\"").start().await;
    let client = proxy.connect("brief").await;
    let error = soon(client.simple_query("SELECT pg_sleep(60)")).await.expect_err("too long");
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    client.simple_query("SELECT 1").await.expect("the session lives on");
}

#[tokio::test]
async fn five_hundred_logins_at_once_are_all_served_while_a_query_goes_on() {
    // Each login hashes thousands of times; on the threads that carry the traffic it would stop every client of theirs.
    let proxy = proxy().pool_size(5).start().await;
    let mut steady = proxy.wire("app").await;
    let measure = async |wire: &mut Wire| {
        let mut times = Vec::new();
        for _ in 0..40 {
            let start = Instant::now();
            wire.query("SELECT 1").await;
            times.push(start.elapsed());
        }
        times.sort();
        times[20]
    };
    let alone = measure(&mut steady).await;
    let start = Instant::now();
    let storm = join_all((0..500).map(|_| proxy.wire("app")));
    let (mut clients, beside) = tokio::join!(storm, measure(&mut steady));
    let whole = start.elapsed();
    assert_eq!(clients.len(), 500);
    // The storm's own clients compute in this thread, too: what counts is that nobody waits for all of it.
    assert!(beside < whole / 4, "{beside:?} beside a storm of {whole:?}; {alone:?} without");
    let answers = join_all(clients.iter_mut().map(|wire| wire.query("SELECT 1"))).await;
    assert!(answers.iter().all(|frames| tags(frames) == "T D C Z"));
}

#[tokio::test]
async fn a_client_idle_for_too_long_is_told_and_one_in_a_transaction_is_not() {
    let proxy = proxy().toml("[listen]\nidle_timeout = \"1s\"").start().await;
    let mut idle = proxy.wire("app").await;
    let mut busy = proxy.wire("app").await;
    busy.query("BEGIN").await;
    let ended = idle.rest().await;
    assert_eq!((tags(&ended).as_str(), ended[0].sqlstate().as_str()), ("E", "57P05"));
    assert_eq!(tags(&busy.query("SELECT 1").await), "T D C Z");
}

#[tokio::test]
async fn many_idle_clients_are_served_by_few_backends() {
    let proxy = proxy().pool_size(2).start().await;
    let mut clients = join_all((0..300).map(|_| proxy.wire("app"))).await;
    let postgres = Postgres::shared().admin("postgres").await;
    let count = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND usename = 'app'";
        postgres.query_one(sql, &[&proxy.dbname]).await.expect("a count").get::<_, i64>(0)
    };
    for _ in 0..3 {
        for client in &mut clients {
            client.send(crate::support::frontend::query("SELECT 1")).await;
        }
        for client in &mut clients {
            assert_eq!(tags(&client.cycle().await), "T D C Z");
        }
        assert!((1..=2).contains(&count().await));
    }
}

#[tokio::test]
async fn pools_that_clients_made_by_asking_are_forgotten() {
    let postgres = Postgres::shared();
    let role = postgres.own_role("").await;
    let proxy = proxy()
        .toml(&format!("[databases.\"*\"]\nhost = \"127.0.0.1\"\nport = {}", postgres.port))
        .toml("[roles.\"*\"]\nauth = \"passthrough\"\n[pool]\nidle_timeout = \"1s\"")
        .start()
        .await;
    let dbname = postgres.database().await;
    let at = proxy.database(&dbname);
    assert_eq!(at.psql(&role, "SELECT 1").await, "1\n");
    for n in 0..20 {
        assert!(proxy.database(&format!("made_up_{n}")).try_connect(&format!("nobody_{n}")).await.is_err());
    }
    // Idle backends go after their time, and the pool after them; then the database can be dropped.
    let admin = postgres.admin("postgres").await;
    eventually(async || admin.batch_execute(&format!("DROP DATABASE {dbname}")).await.is_ok()).await;
    // What was known of it is gone with its pool: the next login is judged by the server again.
    eventually(async || at.try_connect(&role).await.is_err()).await;
    assert_eq!(proxy.psql("app", "SELECT 1").await, "1\n");
}
