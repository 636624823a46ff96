//! Each statement by its digest: what is counted, by whom it was called, and how it is shown.

use std::collections::HashMap;

use pgweir::testing::sql::{Context, digests};
use serde_json::Value;

use crate::support::frontend::{bind, execute, extended, parse, query, sync};
use crate::support::{Postgres, Proxy, Row, eventually, proxy, tags};
use crate::watchers::watched;

/// The line of SHOW STATEMENTS with this text.
async fn find(proxy: &Proxy, text: &str) -> Option<Row> {
    proxy.console("SHOW STATEMENTS").await.into_iter().find(|row| row["statement"] == text)
}

async fn statement(proxy: &Proxy, text: &str) -> Row {
    find(proxy, text).await.unwrap_or_else(|| panic!("{text} is not listed"))
}

#[tokio::test]
async fn a_statement_is_one_line_whatever_its_literals_and_protocol() {
    let proxy = proxy().start().await;
    let mut wire = proxy.wire("app").await;
    for n in 1..=3 {
        wire.query(&format!("SELECT g FROM generate_series(1, {n}) AS g -- {n}")).await;
    }
    wire.send([extended("select g from generate_series(1, 4) as g", &[]), sync()].concat()).await;
    wire.cycle().await;
    wire.send([parse("s", "SELECT g FROM generate_series(1, $1) AS g", &[23]), sync()].concat()).await;
    wire.expect("1 Z").await;
    for n in [b"5", b"6"] {
        wire.send([bind("", "s", &[Some(n)]), execute("", 0), sync()].concat()).await;
        wire.cycle().await;
    }
    let line = statement(&proxy, "SELECT g FROM generate_series(?, ?) AS g").await;
    assert_eq!((&*line["calls"], &*line["rows"]), ("6", "21"));
    assert_eq!((&*line["roles"], &*line["database"], &*line["errors"]), ("app", "app", "0"));
    proxy.console("RESET STATEMENTS").await;
    assert!(find(&proxy, "SELECT g FROM generate_series(?, ?) AS g").await.is_none());
}

#[tokio::test]
async fn statements_of_one_text_and_of_a_pipeline_are_told_apart() {
    let proxy = proxy().start().await;
    let mut wire = proxy.wire("app").await;
    wire.query("BEGIN; SELECT 1; SELECT 'a', 'b'; COMMIT").await;
    wire.query("SELECT 1; SELECT 1/0; SELECT 'never', 'ran', 1").await;
    let pipeline = [
        parse("", "SELECT 7", &[]),
        bind("", "", &[]),
        execute("", 0),
        parse("", "SELECT 1/0", &[]),
        bind("", "", &[]),
        execute("", 0),
        parse("", "SELECT 'never', 'ran', 1", &[]),
        bind("", "", &[]),
        execute("", 0),
        sync(),
        query("SELECT 'a', 'b'"),
    ];
    wire.send(pipeline.concat()).await;
    wire.cycle().await;
    wire.cycle().await;
    for (text, calls, errors) in [
        ("SELECT ?", "3", "0"),
        ("SELECT ?, ?", "2", "0"),
        ("SELECT ?/?", "2", "2"),
        ("BEGIN", "1", "0"),
        ("COMMIT", "1", "0"),
    ] {
        let line = statement(&proxy, text).await;
        assert_eq!((&*line["calls"], &*line["errors"]), (calls, errors), "{text}");
    }
    assert_eq!(statement(&proxy, "SELECT ?/?").await["error_classes"], "22:2");
    assert!(find(&proxy, "SELECT ?, ?, ?").await.is_none_or(|line| line["calls"] == "0"));
}

#[tokio::test]
async fn waiting_and_the_server_are_told_apart() {
    let proxy = proxy().pool_size(1).wait_timeout("10s").start().await;
    let mut holder = proxy.wire("app").await;
    holder.query("BEGIN").await;
    let mut waiter = proxy.wire("app").await;
    waiter.send(query("SELECT 'waits' AS w")).await;
    eventually(async || proxy.console("SHOW POOLS").await.iter().any(|row| row["cl_waiting"] == "1")).await;
    holder.query("SELECT pg_sleep(0.2)").await;
    holder.query("COMMIT").await;
    waiter.cycle().await;
    let number = |row: &Row, column: &str| row[column].parse::<u64>().expect("a number");
    let waits = statement(&proxy, "SELECT ? AS w").await;
    assert!(number(&waits, "wait_us") >= 200_000 && number(&waits, "waits") == 1, "{waits:?}");
    let slept = statement(&proxy, "SELECT pg_sleep(?)").await;
    assert!(number(&slept, "server_us") >= 200_000 && number(&slept, "wait_us") == 0, "{slept:?}");
}

#[tokio::test]
async fn timeouts_cancels_and_refusals_are_counted() {
    let proxy = proxy().pool_size(1).wait_timeout("3s").role("app", "statement_timeout = \"100ms\"").start().await;
    let mut wire = proxy.wire("app").await;
    assert_eq!(tags(&wire.query("SELECT pg_sleep(60)").await), "T E Z");
    let line = statement(&proxy, "SELECT pg_sleep(?)").await;
    assert_eq!((&*line["errors"], &*line["timeout_kinds"], &*line["cancels"]), ("1", "statement:1", "0"));
    wire.query("BEGIN").await;
    let mut refused = proxy.wire("app").await;
    assert_eq!(tags(&refused.query("SELECT 'refused', 1").await), "E Z");
    let line = statement(&proxy, "SELECT ?, ?").await;
    assert_eq!((&*line["calls"], &*line["error_classes"], &*line["server_us"]), ("1", "53:1", "0"));
}

#[tokio::test]
async fn lines_are_ordered_and_cut_and_the_busiest_are_metrics() {
    let proxy = proxy().start().await;
    let mut wire = proxy.wire("app").await;
    wire.query("SELECT pg_sleep(0.1)").await;
    for _ in 0..3 {
        wire.query("SELECT 'often'").await;
    }
    let first = |rows: Vec<Row>| rows.first().map(|row| (row["statement"].clone(), row["digest"].clone()));
    let (text, digest) = first(proxy.console("SHOW STATEMENTS LIMIT 1").await).expect("a line");
    assert_eq!(text, "SELECT pg_sleep(?)");
    let (text, _) = first(proxy.console("SHOW STATEMENTS ORDER BY calls DESC LIMIT 1").await).expect("a line");
    assert_eq!(text, "SELECT ?");
    assert!(proxy.metric("pgweir_statement_server_seconds_total", &[&format!("digest=\"{digest}\"")]) >= 0.1);
}

#[tokio::test]
async fn a_slow_statement_is_logged_with_its_tags_and_without_its_literals() {
    let proxy = proxy().toml("[statements]\nlog_slow = \"50ms\"\n").start().await;
    let mut wire = proxy.wire("app").await;
    wire.query("SELECT pg_sleep(0.1), 'secret' /*job='export',route='%2Fa'*/").await;
    wire.query("SELECT 'quick'").await;
    let record = proxy.logged("slow statement").await.to_string();
    assert!(record.contains("job=export route=/a") && record.contains("SELECT pg_sleep(?), ?"), "{record}");
    assert!(!record.contains("secret") && !proxy.log_text().contains("quick"), "{record}");
}

#[tokio::test]
async fn prepared_texts_that_differ_in_their_traces_are_one_statement() {
    let proxy = proxy().pool_size(1).toml("[statements]\ncomments = \"strip_trace\"\n").start().await;
    let mut wire = proxy.wire("app").await;
    for n in 0..3 {
        let text = format!("SELECT $1::int /*job='a',traceparent='00-{n}'*/");
        wire.send([parse(&format!("s{n}"), &text, &[]), sync()].concat()).await;
        wire.expect("1 Z").await;
        wire.send([bind("", &format!("s{n}"), &[Some(b"1")]), execute("", 0), sync()].concat()).await;
        assert_eq!(tags(&wire.cycle().await), "2 D C Z");
    }
    let texts =
        wire.value("SELECT string_agg(DISTINCT statement, ';') FROM pg_prepared_statements WHERE NOT from_sql").await;
    assert_eq!(texts, "SELECT $1::int /*job='a'*/");
}

/// The texts of `digests.sql`, several for each of its lines, with the numbers of these.
fn texts() -> Vec<(usize, String)> {
    let lines = include_str!("digests.sql").lines().filter(|line| !line.starts_with("--"));
    let values = [
        ("1", "'a'", "1, 2, 3"),
        ("  20", "'it''s\nlonger'", "4, 5,6"),
        ("300", "''", "7, 8, 9"),
        ("12", "'x; y -- z'", "10, 11"),
    ];
    let spell = |line: &str| {
        let texts = values.map(|(n, s, list)| line.replace("{n}", n).replace("{s}", s).replace("{list}", list));
        let [first, second, third, fourth] = texts;
        let spaced = second.replace(" FROM ", "\n\tfrom  ").replace("SELECT ", "select /* a */ ");
        [first, spaced, third, format!("/* {fourth} */ {fourth} -- end")]
    };
    lines.enumerate().flat_map(|(n, line)| spell(line).map(|text| (n, text))).collect()
}

#[tokio::test]
async fn digests_agree_with_the_query_ids_of_postgres() {
    let postgres = Postgres::shared();
    let client = postgres.admin(&postgres.database().await).await;
    let columns = "unique1 int PRIMARY KEY, unique2 int, two int, four int, ten int, hundred int, string4 text";
    let schema = format!(
        "CREATE TABLE onek ({columns}); CREATE TABLE tenk1 ({columns});
         CREATE TABLE notes (id serial PRIMARY KEY, title text, body text, stars int);
         SET compute_query_id = on"
    );
    client.batch_execute(&schema).await.expect("a schema");
    let mut statements = Vec::new();
    for (line, text) in texts() {
        let plan = client.simple_query(&format!("EXPLAIN (VERBOSE, FORMAT JSON) {text}")).await;
        let plan = plan.unwrap_or_else(|error| panic!("{text}: {error}"));
        let json: String = plan
            .iter()
            .filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            })
            .collect();
        let plan: Value = serde_json::from_str(&json).expect("a plan");
        let id = plan[0]["Query Identifier"].as_i64().expect("an id");
        let ours = digests(text.as_bytes(), Context::default());
        assert_eq!(ours.len(), 1, "{text}");
        statements.push((line, text, id, ours[0]));
    }
    let (mut pairs, mut agreed, mut same_there, mut same_both, mut wrong) = (0u32, 0u32, 0u32, 0u32, Vec::new());
    for (n, (line, one, id, digest)) in statements.iter().enumerate() {
        for (other_line, other, other_id, other_digest) in &statements[n + 1..] {
            let (there, here) = (id == other_id, digest == other_digest);
            pairs += 1;
            agreed += u32::from(there == here);
            // Two lines may be the same to Postgres, which knows the tables; no text tells that.
            same_there += u32::from(there && line == other_line);
            same_both += u32::from(there && here && line == other_line);
            if there != here {
                wrong.push(format!("{one}\n{other}\n"));
            }
        }
    }
    println!(
        "{agreed} of {pairs} pairs agree; of {same_there} spellings that Postgres calls the same, {same_both} are"
    );
    assert!(f64::from(agreed) >= 0.99 * f64::from(pairs), "{}", wrong.join("\n"));
    assert!(f64::from(same_both) >= 0.99 * f64::from(same_there), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn calls_are_those_of_pg_stat_statements() {
    let postgres = Postgres::private(&["shared_preload_libraries=pg_stat_statements"]);
    let proxy = proxy().postgres(&postgres).start().await;
    let admin = postgres.admin(&proxy.dbname).await;
    admin
        .batch_execute("CREATE EXTENSION pg_stat_statements; CREATE TABLE t (a int, b text); GRANT ALL ON t TO PUBLIC")
        .await
        .expect("a table");
    let mut wire = proxy.wire("app").await;
    for n in 0..50 {
        wire.query(&format!("INSERT INTO t VALUES ({n}, 'x{n}')")).await;
        wire.query(&format!("SELECT b FROM t WHERE a = {n}; UPDATE t SET b = 'y' WHERE a = {n}")).await;
        wire.send([extended("SELECT count(*) FROM t WHERE a > $1", &[Some(b"3")]), sync()].concat()).await;
        wire.cycle().await;
    }
    let sql = "SELECT query, calls, rows FROM pg_stat_statements WHERE userid = 'app'::regrole AND query ~ ' t '";
    let mut theirs: HashMap<String, (i64, i64)> = HashMap::new();
    for row in admin.query(sql, &[]).await.expect("rows") {
        let (text, calls, rows): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let sum = theirs.entry(digests(text.as_bytes(), Context::default())[0].to_string()).or_default();
        *sum = (sum.0 + calls, sum.1 + rows);
    }
    assert_eq!(theirs.len(), 4);
    let ours = proxy.console("SHOW STATEMENTS").await;
    for (digest, (calls, rows)) in theirs {
        let line = ours.iter().find(|line| line["digest"] == digest).expect("it is counted here, too");
        assert_eq!((line["calls"].parse(), line["rows"].parse()), (Ok(calls), Ok(rows)), "{line:?}");
    }
}

/// The digest of a statement that has run.
async fn digest(proxy: &Proxy, text: &str) -> String {
    statement(proxy, text).await["digest"].clone()
}

#[tokio::test]
async fn an_order_is_about_those_too_who_wait_already() {
    let proxy = proxy().pool_size(2).wait_timeout("60s").start().await;
    let mut holders = [proxy.wire("app").await, proxy.wire("app").await];
    holders[0].query("SELECT pg_sleep(0)").await;
    let digest = digest(&proxy, "SELECT pg_sleep(?)").await;
    for order in ["LIMIT STATEMENT digest 1 FOR '10m'", "BLOCK STATEMENT digest FOR '10m'"] {
        for holder in &mut holders {
            holder.query("BEGIN").await;
        }
        let waiting = async |count: &str| {
            let of = async || proxy.console("SHOW POOLS").await.into_iter().find(|pool| pool["user"] == "app");
            eventually(async || of().await.is_some_and(|pool| pool["cl_waiting"] == *count)).await;
        };
        let mut sleepers = Vec::new();
        for _ in 0..3 {
            let mut sleeper = proxy.wire("app").await;
            sleeper.send(query("SELECT pg_sleep(600)")).await;
            sleepers.push(sleeper);
        }
        waiting("3").await;
        let mut other = proxy.wire("app").await;
        other.send(query("SELECT 'fine'")).await;
        waiting("4").await;
        proxy.console(&order.replace("digest", &digest)).await;
        for holder in &mut holders {
            holder.query("COMMIT").await;
        }
        // It does not wait behind the statement that never ends.
        assert_eq!(tags(&other.cycle().await), "T D C Z");
        let orders = proxy.console("SHOW ORDERS").await;
        if order.starts_with("LIMIT") {
            eventually(async || proxy.console("SHOW ORDERS").await[0]["waiting"] == "2").await;
            assert_eq!(proxy.console("SHOW ORDERS").await[0]["active"], "1");
            drop(sleepers);
            eventually(async || {
                proxy.console(&format!("CANCEL STATEMENT {digest}")).await;
                proxy.console("SHOW ORDERS").await[0]["active"] == "0"
            })
            .await;
        } else {
            for sleeper in &mut sleepers {
                assert_eq!(sleeper.cycle().await[0].sqlstate(), "53400", "{orders:?}");
            }
        }
        proxy.console(&format!("UNBLOCK STATEMENT {digest}")).await;
    }
}

#[tokio::test]
async fn a_blocked_statement_is_refused_and_nothing_else() {
    let proxy = proxy().start().await;
    let mut wire = proxy.wire("app").await;
    wire.query("SELECT 'export', 1").await;
    let digest = digest(&proxy, "SELECT ?, ?").await;
    proxy.console(&format!("BLOCK STATEMENT {digest} FOR '10m'")).await;
    let refused = wire.query("SELECT 'another', 2").await;
    assert_eq!((tags(&refused), refused[0].sqlstate()), ("E Z".to_owned(), "53400".to_owned()));
    assert_eq!(tags(&wire.query("SELECT 'fine'").await), "T D C Z");
    // In a transaction, too, which fails as by any error.
    wire.query("BEGIN").await;
    assert_eq!(wire.query("SELECT 'a', 3").await[0].sqlstate(), "53400");
    assert_eq!(wire.query("SELECT 1").await[0].sqlstate(), "25P02");
    wire.query("ROLLBACK").await;
    wire.send([extended("SELECT $1, 7", &[Some(b"x")]), sync()].concat()).await;
    assert_eq!(wire.cycle().await[0].sqlstate(), "53400");
    let orders = proxy.console("SHOW ORDERS").await;
    assert_eq!((&*orders[0]["order"], &*orders[0]["by"], &*orders[0]["refused"]), ("block", "ops", "3"));
    proxy.console(&format!("UNBLOCK STATEMENT {digest}")).await;
    assert_eq!(tags(&wire.query("SELECT 'again', 4").await), "T D C Z");
}

#[tokio::test]
async fn a_limited_statement_waits_for_its_turn_and_holds_up_nobody_else() {
    let proxy = proxy().pool_size(5).wait_timeout("30s").start().await;
    let mut wire = proxy.wire("app").await;
    wire.query("SELECT pg_sleep(0)").await;
    let digest = digest(&proxy, "SELECT pg_sleep(?)").await;
    proxy.console(&format!("LIMIT STATEMENT {digest} 1 FOR '10m'")).await;
    let mut sleepers = Vec::new();
    for _ in 0..3 {
        let mut sleeper = proxy.wire("app").await;
        sleeper.send(query("SELECT pg_sleep(60)")).await;
        sleepers.push(sleeper);
    }
    let order = async || proxy.console("SHOW ORDERS").await.swap_remove(0);
    eventually(async || order().await["waiting"] == "2").await;
    assert_eq!(order().await["active"], "1");
    assert_eq!(tags(&wire.query("SELECT 'fine'").await), "T D C Z");
    // Those who run are canceled, and the next has its turn.
    proxy.console(&format!("CANCEL STATEMENT {digest}")).await;
    eventually(async || order().await["waiting"] == "1").await;
    proxy.console(&format!("UNBLOCK STATEMENT {digest}")).await;
    eventually(async || {
        proxy.console(&format!("CANCEL STATEMENT {digest}")).await;
        proxy.console("SHOW CLIENTS").await.iter().all(|client| client["state"] == "idle" || client["user"] != "app")
    })
    .await;
    for mut sleeper in sleepers {
        let frames = sleeper.cycle().await;
        assert!(frames.iter().any(|frame| frame.tag == 'E' && frame.sqlstate() == "57014"), "{frames:?}");
    }
    assert!(proxy.metric("pgweir_cancels_total", &["cause=\"order\""]) >= 3.0);
}

#[tokio::test]
async fn a_statement_that_becomes_slow_is_a_finding() {
    let postgres = Postgres::private(&[]);
    let proxy = watched(&postgres, "").await.toml("[statements]\nearly_warning = \"1s\"").start().await;
    let mut wire = proxy.wire("app").await;
    let text = "SELECT ?, pg_sleep(?)";
    // Ten seconds at the server: its baseline needs six in which it was called.
    for _ in 0..500 {
        wire.query("SELECT 'steady', pg_sleep(0.02)").await;
    }
    let found = async || proxy.console("SHOW FINDINGS").await.into_iter().find(|row| row["kind"] == "statement");
    assert!(found().await.is_none());
    let slow = tokio::spawn(async move {
        loop {
            wire.query("SELECT 'slow', pg_sleep(0.15)").await;
        }
    });
    eventually(async || found().await.is_some()).await;
    let digest = digest(&proxy, text).await;
    let finding = found().await.expect("it was there");
    assert!(finding["what"].contains(&digest) && finding["what"].contains("role app"), "{finding:?}");
    assert_eq!(finding["remedy"], format!("LIMIT STATEMENT {digest} 1 FOR '10m'"));
    let of = ["database=\"app\"", "kind=\"statement\""];
    assert_eq!(proxy.metric("pgweir_watch_findings_total", &of), 1.0);
    assert_eq!(proxy.metric("pgweir_watch_findings_open", &of), 1.0);
    proxy.logged("a statement is not as usual").await;
    slow.abort();
}

#[tokio::test]
async fn an_order_ends_by_itself() {
    let proxy = proxy().start().await;
    let mut wire = proxy.wire("app").await;
    wire.query("SELECT 'x', 'y'").await;
    let digest = digest(&proxy, "SELECT ?, ?").await;
    proxy.console(&format!("LIMIT STATEMENT {digest} 0 FOR '1s'")).await;
    assert_eq!(tags(&wire.query("SELECT 'waits', 'and goes on'").await), "T D C Z");
    assert!(proxy.console("SHOW ORDERS").await.is_empty());
    proxy.logged("order about a statement ended").await;
}
