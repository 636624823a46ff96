//! Logins that the server refuses: their clients hear it in the server's own words, at once.

use std::collections::BTreeMap;

use crate::support::frontend::{PROTOCOL_3_0, query, startup};
use crate::support::{
    Builder, Endpoint, Frame, Postgres, Sessions, Wire, eventually, on_both, password_of, proxy, tags,
};

/// Severity, SQLSTATE, message, DETAIL and HINT of the error that ended a login.
type Refusal = BTreeMap<char, String>;

fn words(frame: &Frame) -> Refusal {
    frame.fields().into_iter().filter(|(letter, _)| "SCMDH".contains(*letter)).collect()
}

async fn log_in(at: &Endpoint, role: &str, more: &[(&str, &str)]) -> Result<(Wire, Vec<Frame>), Refusal> {
    let mut wire = Wire::open(at.addr).await;
    let params = [&[("user", role), ("database", &*at.dbname)], more].concat();
    wire.send(startup(PROTOCOL_3_0, &params)).await;
    let frames = wire.authenticate(role, &password_of(role)).await;
    match frames.last() {
        Some(frame) if frame.tag == 'Z' => Ok((wire, frames)),
        Some(frame) => Err(words(frame)),
        None => panic!("no word from {at:?}"),
    }
}

async fn refusal(at: &Endpoint, role: &str, more: &[(&str, &str)]) -> Refusal {
    log_in(at, role, more).await.err().unwrap_or_else(|| panic!("{role} came into {} with {more:?}", at.dbname))
}

async fn sql(postgres: &Postgres, sql: &str) {
    postgres.admin("postgres").await.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// In front of these databases, by their own names.
fn in_front_of<'a>(postgres: &'a Postgres, databases: &[&str], lines: &str) -> Builder<'a> {
    let database =
        |name: &&str| format!("[databases.{name}]\nhost = \"127.0.0.1\"\nport = {}\n{lines}\n", postgres.port);
    // Nobody waits for as long: what is not told at once fails the test.
    proxy().postgres(postgres).wait_timeout("10m").toml(&databases.iter().map(database).collect::<String>())
}

/// The sections of a role for each way of logging in.
fn logins(role: &str) -> [String; 4] {
    let password = password_of(role);
    [
        format!("password = \"{password}\""),
        format!("auth = \"trust\"\nbackend_password = \"{password}\""),
        "auth = \"passthrough\"".to_owned(),
        "auth = \"auth-query\"".to_owned(),
    ]
    .map(|lines| format!("[roles.{role}]\n{lines}"))
}

#[tokio::test]
async fn a_database_that_lets_nobody_in_says_so_in_its_own_words() {
    let postgres = Postgres::shared();
    let (role, lookup) = (postgres.own_role("").await, postgres.own_role("SUPERUSER").await);
    let [closed, shut, full] = [postgres.database().await, postgres.database().await, postgres.database().await];
    sql(postgres, &format!("REVOKE CONNECT ON DATABASE {closed} FROM PUBLIC")).await;
    sql(postgres, &format!("ALTER DATABASE {shut} ALLOW_CONNECTIONS false")).await;
    sql(postgres, &format!("ALTER DATABASE {full} CONNECTION LIMIT 0")).await;
    let databases = [("no_such_database", "3D000"), (&closed, "42501"), (&shut, "55000"), (&full, "53300")];
    let names = databases.map(|(name, _)| name);
    let auth_query = format!("auth_query = {{ role = \"{lookup}\", password = \"{}\" }}", password_of(&lookup));
    for login in logins(&role) {
        let proxy = in_front_of(postgres, &names, &auth_query).toml(&login).start().await;
        for (name, code) in databases {
            let direct = refusal(&postgres.endpoint(name), &role, &[]).await;
            assert_eq!(direct[&'C'], code);
            for _ in 0..2 {
                assert_eq!(refusal(&proxy.database(name), &role, &[]).await, direct, "{login}");
            }
        }
    }
}

#[tokio::test]
async fn a_role_without_a_place_left_is_told_at_once() {
    let postgres = Postgres::shared();
    let (role, lookup) = (postgres.own_role("CONNECTION LIMIT 0").await, postgres.own_role("SUPERUSER").await);
    let auth_query = format!("auth_query = {{ role = \"{lookup}\", password = \"{}\" }}", password_of(&lookup));
    let direct = refusal(&postgres.endpoint("postgres"), &role, &[]).await;
    for login in logins(&role) {
        let proxy = in_front_of(postgres, &["postgres"], &auth_query).toml(&login).start().await;
        assert_eq!(refusal(&proxy.database("postgres"), &role, &[]).await, direct, "{login}");
    }
}

#[tokio::test]
async fn a_place_that_may_come_free_is_waited_for() {
    let postgres = Postgres::shared();
    let role = postgres.own_role("CONNECTION LIMIT 1").await;
    let proxy = proxy().pool_size(3).toml(&logins(&role)[0]).start().await;
    let mut first = proxy.wire(&role).await;
    first.query("BEGIN").await;
    let mut second = proxy.wire(&role).await;
    second.send(query("SELECT 1")).await;
    eventually(async || proxy.log_text().contains("too many connections for role")).await;
    first.query("COMMIT").await;
    assert_eq!(tags(&second.cycle().await), "T D C Z");
}

#[tokio::test]
async fn a_client_that_needs_a_backend_later_hears_then_what_the_server_says() {
    let postgres = Postgres::shared();
    let role = postgres.own_role("").await;
    let proxy = proxy().wait_timeout("10m").toml(&logins(&role)[0]).start().await;
    let mut idle = [proxy.wire(&role).await, proxy.wire(&role).await];
    sql(postgres, &format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", proxy.dbname)).await;
    Sessions::of(postgres, &proxy.dbname).await.terminate("true").await;
    let direct = refusal(&postgres.endpoint(&proxy.dbname), &role, &[]).await;
    assert_eq!(direct[&'C'], "55000");
    for wire in &mut idle {
        wire.send(query("SELECT 1")).await;
        let frames = wire.rest().await;
        assert_eq!(tags(&frames), "E", "and then the end");
        assert_eq!(words(&frames[0]), direct);
    }
    assert_eq!(refusal(&proxy, &role, &[]).await, direct);
    sql(postgres, &format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", proxy.dbname)).await;
    eventually(async || log_in(&proxy, &role, &[]).await.is_ok()).await;
}

/// Reported parameters of a greeting.
fn reported(frames: &[Frame]) -> BTreeMap<String, String> {
    frames.iter().filter(|frame| frame.tag == 'S').map(Frame::parameter).collect()
}

#[tokio::test]
async fn parameters_are_reported_as_the_server_spells_them() {
    const GIVEN: [&[(&str, &str)]; 14] = [
        &[("client_encoding", "'utf-8'")],
        &[("client_encoding", "utf8")],
        &[("client_encoding", "unicode")],
        &[("client_encoding", "latin1"), ("application_name", "ä")],
        &[("datestyle", "german")],
        &[("DateStyle", "iso")],
        &[("TimeZone", "europe/berlin")],
        &[("timezone", "+2")],
        &[("intervalstyle", "ISO_8601")],
        &[("standard_conforming_strings", "true")],
        &[("application_name", "aäb"), ("search_path", "public")],
        &[("options", "-c datestyle=sql,dmy"), ("application_name", "named")],
        &[("options", "-c statement_timeout=5000 -c TimeZone=utc")],
        &[("default_transaction_read_only", "1")],
    ];
    let postgres = Postgres::shared();
    // One backend, which has the settings of the client before.
    let proxy = proxy().pool_size(1).start().await;
    for given in [&GIVEN[..], &GIVEN].concat() {
        let told = async |at: &Endpoint| {
            let (mut wire, frames) = log_in(at, "app", given).await.expect("a login");
            (reported(&frames), reported(&wire.query("SELECT 1").await))
        };
        assert_eq!(told(&proxy).await, told(&postgres.endpoint(&proxy.dbname)).await, "{given:?}");
    }
}

#[tokio::test]
async fn a_parameter_that_the_server_refuses_ends_the_login() {
    const BAD: [&[(&str, &str)]; 7] = [
        &[("DateStyle", "nonsense")],
        &[("TimeZone", "Nowhere/Land")],
        &[("no_such_parameter", "1")],
        &[("max_connections", "1")],
        &[("session_replication_role", "replica")],
        &[("options", "-c statement_timeout=soon")],
        &[("application_name", "bad"), ("options", "-c role=no_such_role")],
    ];
    let proxy = proxy().pool_size(1).start().await;
    let direct = Postgres::shared().endpoint(&proxy.dbname);
    for bad in [&BAD[..], &BAD].concat() {
        assert_eq!(refusal(&proxy, "app", bad).await, refusal(&direct, "app", bad).await);
    }
    assert_eq!(proxy.metric("pgweir_open_failures_total", &[]), 0.0);
    on_both(async |at: &Endpoint| {
        let (mut wire, _) = log_in(at, "app", &[("options", "-c datestyle=german")]).await.expect("a login");
        assert_eq!(wire.value("SELECT DATE '2001-02-03'").await, "03.02.2001");
    })
    .await;
}
