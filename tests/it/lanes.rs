//! Lanes of the file: who is in one, what they wait for, and what a reload changes.

use std::time::Duration;

use crate::support::frontend::{bind, execute, parse, query, sync};
use crate::support::{Postgres, Proxy, Row, Wire, eventually, proxy, tags};

async fn lane(proxy: &Proxy, name: &str) -> Row {
    let lanes = proxy.console("SHOW LANES").await;
    lanes.into_iter().find(|row| row["lane"] == name).unwrap_or_else(|| panic!("{name} is no lane"))
}

/// So many clients that send this, and do not wait for the answer.
async fn send(proxy: &Proxy, count: usize, text: &str) -> Vec<Wire> {
    let mut wires = Vec::new();
    for _ in 0..count {
        let mut wire = proxy.wire("app").await;
        wire.send(query(text)).await;
        wires.push(wire);
    }
    wires
}

async fn is_waiting(proxy: &Proxy, name: &str, active: &str, waiting: &str) {
    eventually(async || {
        let lane = lane(proxy, name).await;
        lane["active"] == active && lane["waiting"] == waiting
    })
    .await;
}

const EXPORTS: &str = r#"
    [[lanes]]
    name = "exports"
    match = { tag = { job = "export" } }
    transactions_max = 1
"#;

#[tokio::test]
async fn a_tagged_statement_waits_for_its_lane_and_holds_up_nobody_else() {
    let proxy = proxy().pool_size(5).toml(EXPORTS).start().await;
    let mut exports = send(&proxy, 3, "SELECT pg_sleep(0.3) /*job='export'*/").await;
    is_waiting(&proxy, "exports", "1", "2").await;
    let mut wire = proxy.wire("app").await;
    assert_eq!(tags(&wire.query("SELECT 'fine'").await), "T D C Z");
    assert_eq!(tags(&wire.query("SELECT 'import' /*job='import'*/").await), "T D C Z");
    for export in &mut exports {
        assert_eq!(tags(&export.cycle().await), "T D C Z");
    }
    let line = lane(&proxy, "exports").await;
    assert_eq!((&*line["total_starts"], &*line["total_starts_immediate"], &*line["active"]), ("3", "1", "0"));
    assert_eq!(line["match"], "tag job=export");
    assert_eq!(proxy.metric("pgweir_lane_waited_total", &["lane=\"exports\""]), 2.0);
}

#[tokio::test]
async fn a_prepared_statement_keeps_the_tag_of_its_text() {
    let proxy = proxy().toml(EXPORTS).start().await;
    let mut wire = proxy.wire("app").await;
    wire.send([parse("e", "SELECT pg_sleep(0.2) /*job='export'*/", &[]), sync()].concat()).await;
    wire.cycle().await;
    for _ in 0..2 {
        wire.send([bind("", "e", &[]), execute("", 0), sync()].concat()).await;
        wire.cycle().await;
    }
    assert_eq!(lane(&proxy, "exports").await["total_starts"], "3", "a Parse and two runs");
}

#[tokio::test]
async fn a_lane_of_a_role_or_an_application_is_decided_by_the_login() {
    let lanes = r#"
        [[lanes]]
        name = "cron"
        match = { role = "app", application_name = "cron" }
        transactions_max = 1
        [[lanes]]
        name = "rest"
        match = { database = "app" }
        transactions_max = 20
    "#;
    let proxy = proxy().toml(lanes).start().await;
    let mut wire = proxy.wire("app").await;
    wire.query("SELECT 1").await;
    wire.query("BEGIN; SELECT 1; COMMIT").await;
    let cron = proxy.config("app").application_name("cron").connect(tokio_postgres::NoTls).await;
    let (cron, connection) = cron.expect("it logs in");
    tokio::spawn(connection);
    cron.batch_execute("SELECT 1").await.expect("it runs");
    assert_eq!(lane(&proxy, "cron").await["total_starts"], "1");
    assert_eq!(lane(&proxy, "rest").await["total_starts"], "2");
}

#[tokio::test]
async fn a_wait_for_a_lane_ends_in_time_and_names_the_key() {
    let lanes = EXPORTS.replace("transactions_max = 1", "transactions_max = 0\n wait_timeout = \"300ms\"");
    let proxy = proxy().wait_timeout("30s").toml(&lanes).start().await;
    let mut wire = proxy.wire("app").await;
    let frames = wire.query("SELECT 1 /*job='export'*/").await;
    assert_eq!(frames[0].sqlstate(), "53300", "{frames:?}");
    assert!(frames[0].fields()[&'H'].contains("lanes.exports.transactions_max"), "{frames:?}");
    assert_eq!(lane(&proxy, "exports").await["total_wait_timeouts"], "1");
}

#[tokio::test]
async fn a_lane_that_refuses_does_so_at_once_and_within_transactions() {
    let lanes = EXPORTS.replace("transactions_max = 1", "transactions_max = 0\n mode = \"refuse\"");
    let proxy = proxy().wait_timeout("30s").toml(&lanes).start().await;
    let mut wire = proxy.wire("app").await;
    assert_eq!(wire.query("SELECT 1 /*job='export'*/").await[0].sqlstate(), "53300");
    wire.query("BEGIN").await;
    assert_eq!(wire.query("SELECT 1 /*job='export'*/").await[0].sqlstate(), "53400");
    assert_eq!(wire.query("SELECT 1").await[0].sqlstate(), "25P02");
    wire.query("ROLLBACK").await;
    assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z");
    let line = lane(&proxy, "exports").await;
    assert_eq!((&*line["total_refused"], &*line["total_refused_later"]), ("1", "1"));
}

#[tokio::test]
async fn a_statement_that_takes_longer_than_its_lane_allows_is_canceled() {
    let lanes = r#"
        [[lanes]]
        name = "short"
        match = { tag = { job = "short" } }
        statement_timeout = "300ms"
    "#;
    let proxy = proxy().toml(lanes).start().await;
    let mut wire = proxy.wire("app").await;
    let frames = wire.query("SELECT pg_sleep(60) /*job='short'*/").await;
    let error = frames.iter().find(|frame| frame.tag == 'E').expect("an error");
    assert_eq!(error.sqlstate(), "57014");
    assert!(error.fields()[&'H'].contains("lanes.short.statement_timeout = 300ms"), "{frames:?}");
    assert_eq!(tags(&wire.query("SELECT pg_sleep(0.7)").await), "T D C Z", "the backend is free of it");
}

#[tokio::test]
async fn a_reload_changes_lanes_and_those_who_wait_in_them() {
    let proxy = proxy().wait_timeout("30s").toml(&EXPORTS.replace("= 1\n", "= 0\n")).start().await;
    let mut exports = send(&proxy, 2, "SELECT 1 /*job='export'*/").await;
    is_waiting(&proxy, "exports", "0", "2").await;
    let other = EXPORTS.replace("name = \"exports\"", "name = \"other\"");
    proxy.reload(&other.replace("= 1\n", "= 0\n")).await;
    for export in &mut exports {
        assert_eq!(tags(&export.cycle().await), "T D C Z", "their lane is no more");
    }
    let mut waits = send(&proxy, 1, "SELECT 1 /*job='export'*/").await;
    is_waiting(&proxy, "other", "0", "1").await;
    proxy.reload(&other).await;
    assert_eq!(tags(&waits[0].cycle().await), "T D C Z");
    proxy.reload("lanes = []").await;
    assert!(proxy.console("SHOW LANES").await.is_empty());
    let mut wire = proxy.wire("app").await;
    assert_eq!(tags(&wire.query("SELECT 1 /*job='export'*/").await), "T D C Z");
}

#[tokio::test]
async fn one_who_waits_in_a_lane_can_be_canceled_or_go() {
    let proxy = proxy().wait_timeout("30s").toml(&EXPORTS.replace("= 1\n", "= 0\n")).start().await;
    let gone = send(&proxy, 1, "SELECT 1 /*job='export'*/").await;
    is_waiting(&proxy, "exports", "0", "1").await;
    drop(gone);
    is_waiting(&proxy, "exports", "0", "0").await;
    let client = proxy.connect("app").await;
    let cancel = client.cancel_token();
    let (result, ()) = tokio::join!(client.simple_query("SELECT 1 /*job='export'*/"), async {
        is_waiting(&proxy, "exports", "0", "1").await;
        cancel.cancel_query(tokio_postgres::NoTls).await.expect("sent");
    });
    let error = result.expect_err("canceled");
    assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::QUERY_CANCELED));
    tokio::time::timeout(Duration::from_secs(20), client.simple_query("SELECT 2"))
        .await
        .expect("in time")
        .expect("it runs");
}

const LOCK: &str = "SELECT pg_advisory_lock(7)";

/// Ten clients at once, none of which ends before all have come and this is so.
async fn burst<F: Future<Output = bool>>(proxy: &Proxy, is_so: impl Fn() -> F) {
    let holder = Postgres::shared().admin(&proxy.dbname).await;
    holder.batch_execute(LOCK).await.expect("it is free");
    let text = "SELECT pg_advisory_xact_lock_shared(7) /*job='export'*/";
    let mut wires = send(proxy, 10, text).await;
    eventually(is_so).await;
    holder.batch_execute("SELECT pg_advisory_unlock(7)").await.expect("it is held");
    for wire in &mut wires {
        assert_eq!(tags(&wire.cycle().await), "T D C Z");
    }
}

async fn role(proxy: &Proxy) -> Row {
    proxy.console("SHOW ROLES").await.into_iter().find(|row| row["role"] == "app").expect("it has logged in")
}

#[tokio::test]
async fn a_lane_that_observes_lets_everything_through_and_counts_what_would_have_waited() {
    let lanes = EXPORTS.replace("= 1\n", "= 2\n mode = \"observe\"");
    let proxy = proxy().pool_size(10).wait_timeout("60s").toml(&lanes).start().await;
    burst(&proxy, async || lane(&proxy, "exports").await["active"] == "10").await;
    let line = lane(&proxy, "exports").await;
    assert_eq!((&*line["total_starts"], &*line["total_would_wait"], &*line["limit"]), ("10", "8", "2"));
    assert_eq!((&*line["waiting"], &*line["total_would_be_refused"]), ("0", "0"));
    assert_eq!(proxy.metric("pgweir_lane_observed_total", &["lane=\"exports\"", "outcome=\"waits\""]), 8.0);
    let told = proxy.logged("a limit that observes would have held back").await;
    assert_eq!((&told["kind"], &told["name"]), (&"lane".into(), &"exports".into()), "{told}");
}

#[tokio::test]
async fn a_limit_of_a_role_can_be_tried_and_then_does_what_it_said() {
    let keys = "transactions_max = 2\nlimit_mode = \"observe\"";
    let proxy = proxy().pool_size(10).wait_timeout("60s").role("app", keys).start().await;
    burst(&proxy, async || role(&proxy).await["active"] == "10").await;
    let observed = role(&proxy).await;
    assert_eq!((&*observed["total_would_wait"], &*observed["limit_mode"], &*observed["limit"]), ("8", "observe", "2"));
    let count = |row: &Row, column: &str| row[column].parse::<u32>().expect("a number");
    let refused = |row: &Row| count(row, "total_refused_full") + count(row, "total_wait_timeouts");
    proxy.reload("[roles.app]\nlimit_mode = \"enforce\"").await;
    burst(&proxy, async || role(&proxy).await["waiting"] == "8").await;
    let enforced = role(&proxy).await;
    assert_eq!((&*enforced["limit_mode"], &*enforced["effective_limit"]), ("enforce", "2"));
    assert_eq!((refused(&observed), refused(&enforced)), (0, 0));
}
