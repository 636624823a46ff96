//! Log records of the watch while pgweir serves: which servers are watched, by which role, and which of its own clients
//! is to blame.

use rustix::process::Signal;
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

use crate::support::{Builder, Endpoint, Postgres, Proxy, eventually, password_of, proxy};

/// A role that may watch, and pgweir with it in front of this server.
pub(crate) async fn watched<'a>(postgres: &'a Postgres, keys: &str) -> Builder<'a> {
    let role = postgres.own_role("IN ROLE pg_monitor").await;
    proxy().postgres(postgres).toml(&login(&role)).toml(&format!("[watch]\n{keys}"))
}

fn login(role: &str) -> String {
    format!("[watch]\nrole = \"{role}\"\npassword = \"{}\"", password_of(role))
}

/// A record of the watch that something of this kind has begun.
pub(crate) fn opened(kind: &str) -> impl Fn(&Value) -> bool {
    move |fields| fields["kind"] == kind && fields["lasted"].is_null()
}

fn closed(kind: &str) -> impl Fn(&Value) -> bool {
    move |fields| fields["kind"] == kind && fields["message"].as_str().is_some_and(|text| text.starts_with("over: "))
}

fn text<'a>(fields: &'a Value, name: &str) -> &'a str {
    fields[name].as_str().unwrap_or_else(|| panic!("no {name} in {fields}"))
}

pub(crate) async fn named(endpoint: &Endpoint, application: &str) -> Client {
    let connected = endpoint.config("app").application_name(application).connect(NoTls).await;
    let (client, connection) = connected.expect("a login");
    tokio::spawn(connection);
    client
}

/// The watch's connections: process and role.
async fn connections(postgres: &Postgres) -> Vec<(i32, String)> {
    let sql = "SELECT pid, usename::text FROM pg_stat_activity WHERE application_name = 'pgweir watch'";
    let rows = postgres.admin("postgres").await.query(sql, &[]).await.expect("rows");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Ends the watch's connections: the next ask everything anew.
pub(crate) async fn look_again(postgres: &Postgres, proxy: &Proxy) {
    let looks = proxy.records(|fields| fields["message"] == "watching").len();
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgweir watch'";
    postgres.admin("postgres").await.query(sql, &[]).await.expect("the superuser may");
    eventually(async || proxy.records(|fields| fields["message"] == "watching").len() > looks).await;
}

async fn pid(client: &Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.expect("it is connected").get(0)
}

#[tokio::test]
async fn a_line_behind_a_client_is_told_once_with_that_client_and_once_when_it_is_over() {
    let postgres = Postgres::private(&[]);
    let proxy = watched(&postgres, "convoy_waiters = 10").await.pool_size(40).start().await;
    let holder = named(&proxy, "forgetful").await;
    holder.batch_execute("CREATE TABLE counters AS SELECT 1 AS id, 0 AS n").await.unwrap();
    holder.batch_execute("BEGIN; UPDATE counters SET n = n + 1").await.unwrap();
    let pid = pid(&holder).await;
    let mut waiters = Vec::new();
    for _ in 0..15 {
        let client = proxy.connect("app").await;
        waiters.push(tokio::spawn(async move { client.batch_execute("UPDATE counters SET n = n + 1").await }));
    }
    let finding = proxy.told(opened("convoy")).await;
    assert_eq!(text(&finding, "database"), "app");
    assert!(text(&finding, "message").ends_with("of public.counters"), "{finding}");
    let culprit = text(&finding, "culprit");
    let rows = proxy.console("SHOW CLIENTS").await;
    let client = rows.iter().find(|row| row["application_name"] == "forgetful").expect("it is connected");
    let expected = format!("process {pid}, idle in transaction, of our client {} (role \"app\", from ", client["id"]);
    assert!(culprit.starts_with(&expected), "{culprit}, not {expected}");
    assert!(culprit.contains(", application \"forgetful\", statement "), "{culprit}");
    assert_eq!(text(&finding, "remedy"), format!("SELECT pg_terminate_backend({pid})"));

    holder.batch_execute("COMMIT").await.unwrap();
    for waiter in waiters {
        waiter.await.unwrap().expect("nobody was ended");
    }
    let over = proxy.told(closed("convoy")).await;
    assert_eq!(text(&over, "culprit"), culprit);
    assert_eq!(proxy.records(opened("convoy")).len(), 1);
    assert_eq!(proxy.records(closed("convoy")).len(), 1);
}

#[tokio::test]
async fn whoever_is_no_client_of_ours_is_not_called_one() {
    let postgres = Postgres::private(&[]);
    let proxy = watched(&postgres, "idle_in_transaction = \"1ms\"").await.start().await;
    let outsider = postgres.admin(&proxy.dbname).await;
    outsider.batch_execute("SET application_name = 'psql'; BEGIN").await.unwrap();
    let finding = proxy.told(opened("idle_in_transaction")).await;
    let culprit = text(&finding, "culprit");
    assert!(!culprit.contains("client") && culprit.contains("application \"psql\""), "{culprit}");
}

#[tokio::test]
async fn without_a_role_nothing_is_watched_and_that_is_said_once() {
    let proxy = proxy().start().await;
    let is_off = |fields: &Value| fields["message"] == "no database is watched: watch.role is not set";
    proxy.told(is_off).await;
    proxy.reload("[watch]\nblocked = \"9s\"").await;
    proxy.console("RELOAD").await;
    assert_eq!(proxy.records(is_off).len(), 1);
    assert_eq!(proxy.records(|fields| fields["message"] == "watching").len(), 0);
}

#[tokio::test]
async fn a_role_that_may_not_look_is_told_what_to_grant() {
    let postgres = Postgres::shared();
    let role = postgres.own_role("").await;
    let proxy = proxy().toml(&login(&role)).start().await;
    let text = "the watch sees its own role's sessions only: GRANT pg_monitor to its role";
    proxy.told(|fields| fields["message"] == text).await;
}

#[tokio::test]
async fn thresholds_and_role_are_changed_by_a_reload() {
    let postgres = Postgres::private(&[]);
    let proxy = watched(&postgres, "idle_in_transaction = \"1h\"").await.start().await;
    let idle = named(&proxy, "idle").await;
    idle.batch_execute("BEGIN").await.unwrap();
    proxy.logged("watching").await;
    proxy.reload("[watch]\nidle_in_transaction = \"1ms\"").await;
    proxy.told(opened("idle_in_transaction")).await;

    let other = postgres.own_role("IN ROLE pg_monitor").await;
    proxy.reload(&login(&other)).await;
    eventually(async || {
        let connections = connections(&postgres).await;
        connections.len() == 1 && connections[0].1 == other
    })
    .await;
    let own = postgres.own_role("IN ROLE pg_monitor").await;
    let password = password_of(&own);
    proxy.reload(&format!("[databases.app]\nwatch = {{ role = \"{own}\", password = \"{password}\" }}")).await;
    eventually(async || connections(&postgres).await.iter().all(|(_, role)| *role == own)).await;
    idle.batch_execute("COMMIT").await.unwrap();
    proxy.told(closed("idle_in_transaction")).await;
    assert_eq!(proxy.records(opened("idle_in_transaction")).len(), 1, "it was the same all the time");
}

#[tokio::test]
async fn without_its_role_a_watch_ends_with_what_was_open_and_its_connection() {
    let postgres = Postgres::private(&[]);
    let proxy = watched(&postgres, "idle_in_transaction = \"1ms\"").await.start().await;
    let idle = postgres.admin(&proxy.dbname).await;
    idle.batch_execute("BEGIN").await.unwrap();
    proxy.told(opened("idle_in_transaction")).await;
    let (port, dbname, secret) = (postgres.port, &proxy.dbname, password_of("ops"));
    proxy.overwrite(&format!(
        "[admin]\nroles = [\"ops\"]\n[databases.app]\nhost = \"127.0.0.1\"\nport = {port}\ndbname = \"{dbname}\"\n\
         [roles.ops]\npassword = \"{secret}\"\n"
    ));
    proxy.console("RELOAD").await;
    let ended = proxy.told(|fields| fields["kind"] == "idle_in_transaction" && !fields["lasted"].is_null()).await;
    // It may last; nobody looks any more.
    assert!(text(&ended, "message").starts_with("no longer watched: "), "{ended}");
    proxy.logged("no database is watched: watch.role is not set").await;
    eventually(async || connections(&postgres).await.is_empty()).await;
    assert!(proxy.console("SHOW WATCH").await.is_empty());
}

#[tokio::test]
async fn a_wrong_password_is_told_once_and_the_right_one_is_used_at_once() {
    let postgres = Postgres::private(&[]);
    let role = postgres.own_role("IN ROLE pg_monitor").await;
    let wrong = format!("[watch]\nrole = \"{role}\"\npassword = \"wrong\"");
    let proxy = proxy().postgres(&postgres).toml(&wrong).start().await;
    let told = proxy.logged("the server is not watched").await;
    assert!(text(&told, "error").contains("password authentication failed"), "{told}");
    proxy.reload(&login(&role)).await;
    proxy.logged("watching").await;
}

#[tokio::test]
async fn a_watch_that_lost_its_connection_is_back_although_the_database_is_full() {
    let mut postgres = Postgres::private(&[]);
    let proxy = watched(&postgres, "").await.toml("[databases.app]\nbackends_max = 1").start().await;
    let client = proxy.connect("app").await;
    client.batch_execute("BEGIN").await.unwrap();
    proxy.logged("watching").await;
    look_again(&postgres, &proxy).await;
    eventually(async || connections(&postgres).await.len() == 1).await;

    postgres.stop();
    proxy.logged("the server is not watched").await;
    postgres.start();
    eventually(async || connections(&postgres).await.len() == 1).await;
}

#[tokio::test]
async fn databases_under_the_star_are_watched_once_they_have_a_backend() {
    let postgres = Postgres::private(&[]);
    let (first, second) = (postgres.database().await, postgres.database().await);
    let star = format!("[databases.\"*\"]\nhost = \"127.0.0.1\"\nport = {}", postgres.port);
    let proxy = watched(&postgres, "").await.toml(&star).start().await;
    let _nowhere = proxy.database("nowhere").try_connect("app").await;
    let client = proxy.database(&second).connect("app").await;
    client.batch_execute("SELECT 1").await.unwrap();
    proxy.told(|fields| fields["message"] == "watching" && fields["database"] == second).await;
    let watches = proxy.records(|fields| fields["message"] == "watching");
    assert!(watches.iter().all(|fields| fields["database"] != first && fields["database"] != "nowhere"), "{watches:?}");
}

#[tokio::test]
async fn a_standby_is_watched_too() {
    let postgres = Postgres::private(&[]);
    let dbname = postgres.database().await;
    let role = postgres.own_role("IN ROLE pg_monitor").await;
    let standby = postgres.standby();
    let keys = format!("[databases.app]\nhost = \"{}\"\nserver_role = \"standby\"", standby.host);
    let quick = "[watch]\nidle_in_transaction = \"1ms\"";
    let builder = proxy().postgres(&postgres).dbname(&dbname).toml(&login(&role)).toml(quick).toml(&keys);
    let proxy = builder.start().await;
    let idle = standby.admin(&dbname).await;
    idle.batch_execute("BEGIN").await.unwrap();
    let finding = proxy.told(opened("idle_in_transaction")).await;
    assert!(text(&finding, "culprit").starts_with(&format!("process {}, ", pid(&idle).await)), "{finding}");
}

#[tokio::test]
async fn a_primary_that_became_a_standby_is_told_until_it_leads_again() {
    let postgres = Postgres::private(&[]);
    let proxy = watched(&postgres, "").await.start().await;
    proxy.logged("watching").await;
    eventually(async || proxy.console("SHOW WATCH").await[0]["server_role"] == "primary").await;
    // As after a failover, when the name leads to the other one.
    let standby = postgres.standby();
    proxy.reload(&format!("[databases.app]\nhost = \"{}\"\nport = {}", standby.host, standby.port)).await;
    let opened = proxy.told(opened("server_role")).await;
    assert!(text(&opened, "message").contains("is a standby now"), "{opened}");
    assert_eq!(proxy.metric("pgweir_watch_standby", &[]), 1.0);
    standby.promote();
    proxy.told(closed("server_role")).await;
    assert_eq!(proxy.console("SHOW WATCH").await[0]["server_role"], "primary");
}

#[tokio::test]
async fn strangers_are_counted_and_no_connection_of_pgweir_is_one() {
    let postgres = Postgres::private(&[]);
    let proxy = watched(&postgres, "outside_max = 0").await.start().await;
    let (client, listener) = (proxy.connect("app").await, proxy.connect("app").await);
    client.batch_execute("BEGIN").await.unwrap();
    listener.batch_execute("LISTEN jobs; NOTIFY jobs").await.unwrap();
    let stranger = postgres.admin(&proxy.dbname).await;
    look_again(&postgres, &proxy).await;
    // Another of the test's own may still be going: the next look does not see it.
    eventually(async || proxy.console("SHOW WATCH").await[0]["outside"] == "1").await;
    look_again(&postgres, &proxy).await;
    proxy.told(|fields| opened("outside")(fields) && text(fields, "message").starts_with("1 connections that")).await;
    drop(stranger);
}

#[tokio::test]
async fn a_shutdown_leaves_no_connection_behind() {
    let postgres = Postgres::private(&[]);
    let mut proxy = watched(&postgres, "").await.start().await;
    proxy.logged("watching").await;
    assert_eq!(connections(&postgres).await.len(), 1);
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().await);
    eventually(async || connections(&postgres).await.is_empty()).await;
}
