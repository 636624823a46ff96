//! Console and metrics show the same findings as the watch has, as they are at the server, and none that is over.

use tokio_postgres::Client;

use crate::support::{Postgres, Proxy, Row, eventually};
use crate::watchers::{look_again, named, watched};

fn is(value: f64, expected: u32) -> bool {
    (value - f64::from(expected)).abs() < f64::EPSILON
}

async fn pid(client: &Client) -> String {
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await.expect("it is connected");
    row.get::<_, i32>(0).to_string()
}

/// The one row of a table in which a column says this.
async fn row(proxy: &Proxy, show: &str, column: &str, value: &str) -> Option<Row> {
    proxy.console(show).await.into_iter().find(|row| row[column] == value)
}

/// A client as SHOW CLIENTS has it.
async fn client(proxy: &Proxy, application: &str) -> Row {
    row(proxy, "SHOW CLIENTS", "application_name", application).await.expect("it is connected")
}

/// This client is the culprit, and the remedy of the row ends its process.
fn assert_blames(found: &Row, client: &Row, pid: &str) {
    assert_eq!((&found["client"], &found["user"], &found["addr"]), (&client["id"], &client["user"], &client["addr"]));
    assert_eq!((found["pid"].as_str(), &*found["remedy"]), (pid, &*format!("SELECT pg_terminate_backend({pid})")));
}

#[tokio::test]
async fn a_convoy_is_in_the_tables_and_the_metrics_until_it_is_over() {
    let postgres = Postgres::private(&[]);
    let keys = "convoy_waiters = 10\nblocked = \"1ms\"";
    let proxy = watched(&postgres, keys).await.pool_size(40).start().await;
    let own = ["database=\"app\""];
    eventually(async || is(proxy.metric("pgweir_watch_up", &own), 1)).await;
    let calm = row(&proxy, "SHOW CONVOYS", "database", "app").await.expect("it is watched");
    assert_eq!((&*calm["state"], &*calm["waiters"], &*calm["remedy"]), ("calm", "0", ""));

    let holder = named(&proxy, "forgetful").await;
    holder.batch_execute("CREATE TABLE counters AS SELECT 1 AS id, 0 AS n").await.unwrap();
    holder.batch_execute("BEGIN; UPDATE counters SET n = n + 1").await.unwrap();
    let mut waiters = Vec::new();
    for _ in 0..25 {
        let client = proxy.connect("app").await;
        waiters.push(tokio::spawn(async move { client.batch_execute("UPDATE counters SET n = n + 1").await }));
    }
    let convoy = async || row(&proxy, "SHOW CONVOYS", "waiters", "25").await.filter(|row| !row["culprit"].is_empty());
    eventually(async || convoy().await.is_some()).await;
    let found = convoy().await.expect("they still wait");
    assert_eq!((&*found["state"], &*found["waiters_max"]), ("convoy", "25"));
    assert!(found["lock"].ends_with("of public.counters") && found["since"].ends_with(" UTC"), "{found:?}");
    assert_blames(&found, &client(&proxy, "forgetful").await, &pid(&holder).await);
    eventually(async || row(&proxy, "SHOW BLOCKERS", "kind", "blocker").await.is_some()).await;
    let blocker = row(&proxy, "SHOW BLOCKERS", "kind", "blocker").await.expect("it still blocks");
    assert_blames(&blocker, &client(&proxy, "forgetful").await, &pid(&holder).await);
    assert!(is(proxy.metric("pgweir_watch_lock_waiters", &["kind=\"row\""]), 25));
    assert!(proxy.metric("pgweir_watch_oldest_lock_wait_seconds", &[]) > 0.0);
    assert!(is(proxy.metric("pgweir_watch_state", &["state=\"convoy\""]), 1));
    assert!(is(proxy.metric("pgweir_watch_findings_open", &["kind=\"convoy\""]), 1));
    assert!(proxy.metric("pgweir_watch_query_seconds_count", &own) > 5.0);

    holder.batch_execute("COMMIT").await.unwrap();
    for waiter in waiters {
        waiter.await.unwrap().expect("nobody was ended");
    }
    eventually(async || row(&proxy, "SHOW CONVOYS", "state", "recovered").await.is_some()).await;
    assert!(proxy.console("SHOW BLOCKERS").await.is_empty());
    assert!(is(proxy.metric("pgweir_watch_findings_open", &["kind=\"convoy\""]), 0));
    assert!(is(proxy.metric("pgweir_watch_lock_waiters", &[]), 0));
    assert!(is(proxy.metric("pgweir_watch_findings_total", &["kind=\"convoy\""]), 1));
}

#[tokio::test]
async fn the_horizon_is_in_the_tables_and_the_metrics_with_who_holds_it() {
    let postgres = Postgres::private(&["autovacuum=off"]);
    let keys = "horizon_transactions = 5\nidle_in_transaction = \"1ms\"";
    let proxy = watched(&postgres, keys).await.start().await;
    let holder = named(&proxy, "forgetful").await;
    holder.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await.unwrap();
    let stranger = postgres.admin(&proxy.dbname).await;
    stranger.batch_execute("SET application_name = 'psql'; BEGIN").await.unwrap();
    let admin = postgres.admin(&proxy.dbname).await;
    for _ in 0..10 {
        admin.batch_execute("SELECT pg_current_xact_id()").await.unwrap();
    }
    eventually(async || is(proxy.metric("pgweir_watch_up", &[]), 1)).await;
    look_again(&postgres, &proxy).await;
    eventually(async || is(proxy.metric("pgweir_watch_findings_open", &["kind=\"horizon\""]), 1)).await;
    // The look that opened it may have come before the last of the ten transactions.
    eventually(async || proxy.metric("pgweir_xmin_age_transactions", &["kind=\"backend\""]) > 9.0).await;
    let found = row(&proxy, "SHOW HORIZON", "kind", "backend").await.expect("it still holds it");
    assert_blames(&found, &client(&proxy, "forgetful").await, &pid(&holder).await);
    assert!(found["since"].ends_with(" UTC"), "{found:?}");
    let age = proxy.metric("pgweir_xmin_age_transactions", &["kind=\"backend\""]);
    assert!(age > 9.0 && found["age_transactions"] == age.to_string(), "{age} {found:?}");

    eventually(async || proxy.console("SHOW BLOCKERS").await.len() == 2).await;
    let blockers = proxy.console("SHOW BLOCKERS").await;
    assert!(blockers.iter().all(|row| row["kind"] == "idle_in_transaction"), "{blockers:?}");
    let other = blockers.iter().find(|row| row["culprit"].contains("psql")).expect("the stranger");
    assert_eq!((&*other["client"], &*other["user"], &*other["pid"]), ("", "", &*pid(&stranger).await));
    assert!(is(proxy.metric("pgweir_watch_findings_open", &["kind=\"idle_in_transaction\""]), 2));

    for client in [&holder, &stranger] {
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    look_again(&postgres, &proxy).await;
    eventually(async || is(proxy.metric("pgweir_watch_findings_open", &[]), 0)).await;
    assert!(is(proxy.metric("pgweir_xmin_age_transactions", &[]), 0));
    assert!(is(proxy.metric("pgweir_watch_findings_total", &["kind=\"horizon\""]), 1));
}

#[tokio::test]
async fn a_watch_without_a_server_is_down_and_comes_back() {
    let mut postgres = Postgres::private(&[]);
    let proxy = watched(&postgres, "").await.start().await;
    let up = async |value: &str| row(&proxy, "SHOW WATCH", "up", value).await;
    eventually(async || up("1").await.is_some()).await;
    let server = up("1").await.expect("it is up");
    assert_eq!((&*server["database"], &*server["state"], &*server["server_role"]), ("app", "calm", "primary"));
    postgres.stop();
    eventually(async || up("0").await.is_some()).await;
    assert!(is(proxy.metric("pgweir_watch_up", &[]), 0));
    postgres.start();
    eventually(async || up("1").await.is_some()).await;
}

#[tokio::test]
async fn what_is_not_watched_has_no_rows() {
    let proxy = crate::support::proxy().start().await;
    for show in ["SHOW WATCH", "SHOW FINDINGS", "SHOW CONVOYS", "SHOW HORIZON", "SHOW BLOCKERS"] {
        assert!(proxy.console(show).await.is_empty(), "{show}");
    }
}
