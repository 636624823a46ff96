//! Reactions where the configuration asks for them: fewer transactions of roles in a convoy, and the end of clients
//! that idle while others wait. They touch pgweir's own clients only.

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::support::{Builder, Frame, Postgres, Proxy, eventually, password_of, proxy, tags};

const ADD: &str = "UPDATE counters SET n = n + 1";

/// A proxy with these lines under `[watch]` in front of a server with a table of one row.
async fn watched<'a>(postgres: &'a Postgres, keys: &str) -> Builder<'a> {
    let (role, dbname) = (postgres.own_role("IN ROLE pg_monitor").await, postgres.database().await);
    let table = "CREATE TABLE counters AS SELECT 1 AS id, 0 AS n; GRANT ALL ON counters TO PUBLIC";
    postgres.admin(&dbname).await.batch_execute(table).await.expect("a new table");
    let login = format!("[watch]\nrole = \"{role}\"\npassword = \"{}\"\n{keys}", password_of(&role));
    proxy().postgres(postgres).dbname(&dbname).toml(&login)
}

const CANCEL: &str = "on_idle_holder = \"cancel\"\nblocked = \"300ms\"";

/// Another client, which adds one as soon as nobody keeps it waiting.
async fn adds(proxy: &Proxy) -> JoinHandle<Result<(), tokio_postgres::Error>> {
    let client = proxy.connect("app").await;
    tokio::spawn(async move { client.batch_execute(ADD).await })
}

fn is_reaction(key: &'static str) -> impl Fn(&Value) -> bool {
    move |fields| fields["message"].as_str().is_some_and(|text| text.starts_with(key))
}

fn reactions(proxy: &Proxy, kind: &str) -> f64 {
    proxy.metric("pgweir_watch_reactions_total", &[&format!("kind=\"{kind}\"")])
}

/// SQLSTATE, severity and HINT of the only error.
#[track_caller]
fn error(frames: &[Frame]) -> (String, String, String) {
    let errors: Vec<_> = frames.iter().filter(|frame| frame.tag == 'E').collect();
    let [error] = errors[..] else { panic!("one error expected: {frames:?}") };
    let mut fields = error.fields();
    (error.sqlstate(), fields.remove(&'S').expect("a severity"), fields.remove(&'H').expect("a hint"))
}

/// Waits until so many were told to keep others waiting; what follows from that has followed by then.
async fn told_of_blockers(proxy: &Proxy, count: usize) {
    let opened = |fields: &Value| fields["kind"] == "blocker" && fields["remedy"].is_string();
    eventually(async || proxy.records(opened).len() == count).await;
    eventually(async || !proxy.console("SHOW BLOCKERS").await.is_empty()).await;
}

#[tokio::test]
async fn a_client_that_idles_while_others_wait_loses_its_transaction_where_that_is_asked_for() {
    let postgres = Postgres::private(&[]);
    let proxy = watched(&postgres, CANCEL).await.start().await;
    let mut holder = proxy.wire("app").await;
    holder.query("BEGIN").await;
    holder.query(ADD).await;
    adds(&proxy).await.await.unwrap().expect("it went on");

    let told = proxy.told(is_reaction("watch.on_idle_holder")).await;
    assert!(told["client"].as_str().is_some_and(|client| client.contains("role \"app\"")), "{told}");
    assert!(told["reason"].as_str().is_some_and(|reason| reason.starts_with("1 wait for up to ")), "{told}");
    assert_eq!(reactions(&proxy, "cancel"), 1.0);

    let (code, severity, hint) = error(&holder.query("SELECT 1").await);
    assert_eq!((code.as_str(), severity.as_str()), ("25P03", "ERROR"));
    assert!(hint.contains("watch.on_idle_holder") && hint.contains("watch.blocked"), "{hint}");
    assert_eq!(tags(&holder.query("ROLLBACK").await), "C Z");
    let n = holder.query("SELECT n FROM counters").await;
    assert!(n.iter().any(|frame| frame.tag == 'D' && frame.body.ends_with(b"1")), "the other's, not its own: {n:?}");
}

#[tokio::test]
async fn in_session_mode_it_loses_its_connection() {
    let postgres = Postgres::private(&[]);
    let proxy = watched(&postgres, CANCEL).await.mode("session").start().await;
    let mut holder = proxy.wire("app").await;
    holder.query("BEGIN").await;
    holder.query(ADD).await;
    adds(&proxy).await.await.unwrap().expect("it went on");
    let (code, severity, hint) = error(&holder.rest().await);
    assert_eq!((code.as_str(), severity.as_str()), ("25P03", "FATAL"));
    assert!(hint.contains("watch.on_idle_holder"), "{hint}");
}

#[tokio::test]
async fn unless_it_is_asked_for_nobody_is_ended() {
    let postgres = Postgres::private(&[]);
    let proxy = watched(&postgres, "blocked = \"300ms\"").await.start().await;
    let holder = proxy.connect("app").await;
    holder.batch_execute(&format!("BEGIN; {ADD}")).await.unwrap();
    let waiter = adds(&proxy).await;
    told_of_blockers(&proxy, 1).await;
    holder.batch_execute("COMMIT").await.expect("it was left alone");
    waiter.await.unwrap().expect("it went on");
    assert_eq!(proxy.records(is_reaction("watch.on_idle_holder")).len(), 0);
}

#[tokio::test]
async fn who_is_no_client_of_ours_or_at_work_is_never_ended() {
    let postgres = Postgres::private(&[]);
    let proxy = watched(&postgres, CANCEL).await.start().await;
    let stranger = postgres.admin(&proxy.dbname).await;
    stranger.batch_execute(&format!("BEGIN; {ADD}")).await.unwrap();
    let waiter = adds(&proxy).await;
    told_of_blockers(&proxy, 1).await;
    stranger.batch_execute("COMMIT").await.expect("it was left alone");
    waiter.await.unwrap().expect("it went on");

    let worker = proxy.connect("app").await;
    let cancel = worker.cancel_token();
    let text = format!("BEGIN; {ADD}; SELECT pg_sleep(600)");
    let work = tokio::spawn(async move { worker.batch_execute(&text).await });
    let added = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let admin = postgres.admin(&proxy.dbname).await;
    eventually(async || admin.query_one(added, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 1)).await;
    let waiter = adds(&proxy).await;
    told_of_blockers(&proxy, 2).await;
    cancel.cancel_query(NoTls).await.unwrap();
    assert_eq!(work.await.unwrap().unwrap_err().code().map(|code| code.code()), Some("57014"), "by its own cancel");
    waiter.await.unwrap().expect("it went on");
    assert_eq!(proxy.records(is_reaction("watch.on_idle_holder")).len(), 0);
    assert_eq!(reactions(&proxy, "cancel"), 0.0);
}

// ---- on_convoy ----------------------------------------------------------------------------------

async fn effective_limit(proxy: &Proxy, role: &str) -> u32 {
    let rows = proxy.console("SHOW ROLES").await;
    let row = rows.iter().find(|row| row["role"] == role).expect("it has clients");
    row["effective_limit"].parse().expect("a number")
}

/// Short transactions, one after the other.
fn works(client: Client) -> JoinHandle<()> {
    tokio::spawn(async move { while client.batch_execute("SELECT 1").await.is_ok() {} })
}

/// A server with a convoy of 30 clients of the role `app` behind one, and a role `other` that has nothing to do with
/// it.
async fn convoy(builder: Builder<'_>) -> (Proxy, Client, Vec<JoinHandle<Result<(), tokio_postgres::Error>>>) {
    let builder = builder
        .pool_size(40)
        .role("other", "")
        .toml("[admission]\ninitial = 40")
        .toml("[roles.app]\ntransactions_min = 2");
    let proxy = builder.start().await;
    proxy.connect("other").await.batch_execute("SELECT 1").await.unwrap();
    let holder = proxy.connect("app").await;
    holder.batch_execute(&format!("BEGIN; {ADD}")).await.unwrap();
    let mut waiters = Vec::new();
    for _ in 0..30 {
        waiters.push(adds(&proxy).await);
    }
    proxy.told(|fields| fields["kind"] == "convoy").await;
    (proxy, holder, waiters)
}

#[tokio::test]
async fn a_role_in_a_convoy_is_tightened_where_that_is_asked_for_and_comes_back_afterwards() {
    let postgres = Postgres::private(&[]);
    let keys = "on_convoy = \"tighten\"\nconvoy_waiters = 10";
    let (proxy, holder, waiters) = convoy(watched(&postgres, keys).await).await;
    let told = proxy.told(is_reaction("watch.on_convoy")).await;
    assert_eq!(told["role"], "app");
    eventually(async || effective_limit(&proxy, "app").await == 2).await;
    assert_eq!(effective_limit(&proxy, "other").await, 40);
    // Halves of those at work: 40, 15, 7, 3, 2, or less often where the watch saw fewer of them at first.
    assert!(reactions(&proxy, "tighten") >= 2.0, "step by step");
    assert_eq!(proxy.metric("pgweir_role_limit_cuts_total", &["role=\"app\""]), reactions(&proxy, "tighten"));

    holder.batch_execute("COMMIT").await.unwrap();
    for waiter in waiters {
        waiter.await.unwrap().expect("nobody was ended");
    }
    let mut work = Vec::new();
    for _ in 0..30 {
        work.push(works(proxy.connect("app").await));
    }
    eventually(async || effective_limit(&proxy, "app").await >= 20).await;
    work.iter().for_each(JoinHandle::abort);
    assert_eq!(proxy.records(is_reaction("watch.on_convoy")).len(), 1, "one record for each convoy and role");
}

#[tokio::test]
async fn unless_it_is_asked_for_no_role_is_tightened() {
    let postgres = Postgres::private(&[]);
    let (proxy, holder, waiters) = convoy(watched(&postgres, "convoy_waiters = 10").await).await;
    proxy.told(|fields| fields["kind"] == "blocker").await;
    assert_eq!(effective_limit(&proxy, "app").await, 40);
    holder.batch_execute("COMMIT").await.unwrap();
    for waiter in waiters {
        waiter.await.unwrap().expect("it went on");
    }
    assert_eq!(reactions(&proxy, "tighten"), 0.0);
}
