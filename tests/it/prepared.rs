//! Prepared statements of many clients on few backends.

use tokio_postgres::error::SqlState;

use crate::support::frontend::{
    bind, close_statement, describe_statement, execute, extended, flush, parse, query, sync,
};
use crate::support::{Endpoint, Frame, Proxy, Wire, on_both_with, proxy, tags};

async fn one_backend() -> Proxy {
    proxy().pool_size(1).start().await
}

/// Executes the named statement in a cycle of its own; returns the first column of its only row.
async fn run(wire: &mut Wire, name: &str, values: &[Option<&[u8]>]) -> String {
    wire.send([bind("", name, values), execute("", 0), sync()].concat()).await;
    let frames = wire.cycle().await;
    assert_eq!(tags(&frames), "2 D C Z", "{name}: {frames:?}");
    frames[1].columns().swap_remove(0).unwrap_or_default()
}

async fn prepare(wire: &mut Wire, name: &str, sql: &str) {
    wire.send([parse(name, sql, &[]), sync()].concat()).await;
    wire.expect("1 Z").await;
}

fn error(frames: &[Frame]) -> &Frame {
    frames.iter().find(|frame| frame.tag == 'E').expect("an error")
}

/// Statements with names of ours that the only backend has.
async fn at_backend(wire: &mut Wire) -> usize {
    let count = wire.value("SELECT count(*) FROM pg_prepared_statements WHERE NOT from_sql").await;
    count.parse().expect("a number")
}

#[tokio::test]
async fn clients_share_statements_and_not_their_names() {
    let proxy = one_backend().await;
    let (mut a, mut b) = (proxy.wire("app").await, proxy.wire("app").await);
    prepare(&mut a, "s", "SELECT 'a' || $1").await;
    prepare(&mut b, "s", "SELECT 'b' || $1").await;
    prepare(&mut b, "t", "SELECT 'a' || $1").await;
    for _ in 0..2 {
        assert_eq!(run(&mut a, "s", &[Some(b"1")]).await, "a1");
        assert_eq!(run(&mut b, "s", &[Some(b"2")]).await, "b2");
        assert_eq!(run(&mut b, "t", &[Some(b"3")]).await, "a3");
    }
    // The one that came out the same as another is closed with the next Parse.
    for name in ["u", "v"] {
        prepare(&mut a, name, "SELECT 'a' || $1").await;
        assert_eq!(at_backend(&mut a).await, 3);
    }
}

// The types of parameters are part of a shared statement's key, or one client would get the other's plan.
#[tokio::test]
async fn other_types_are_another_statement() {
    let proxy = one_backend().await;
    let mut wire = proxy.wire("app").await;
    wire.send(
        [parse("i", "SELECT pg_typeof($1)::text", &[23]), parse("t", "SELECT pg_typeof($1)::text", &[25]), sync()]
            .concat(),
    )
    .await;
    wire.expect("1 1 Z").await;
    assert_eq!(run(&mut wire, "i", &[Some(b"1")]).await, "integer");
    assert_eq!(run(&mut wire, "t", &[Some(b"1")]).await, "text");
}

// Names in a statement are resolved by search_path when it is parsed, so clients that differ in it share nothing.
#[tokio::test]
async fn another_search_path_is_another_statement() {
    let proxy = one_backend().await;
    let (mut a, mut b) = (proxy.wire("app").await, proxy.wire("app").await);
    let database = &proxy.dbname;
    a.value(&format!("SELECT '{database}'")).await;
    crate::support::Postgres::shared().admin(database).await
        .batch_execute("CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t AS SELECT 'a' x; CREATE TABLE b.t AS SELECT 'b' x; GRANT ALL ON SCHEMA a, b TO PUBLIC; GRANT ALL ON a.t, b.t TO PUBLIC")
        .await.expect("schemas");
    a.value("SET search_path = a").await;
    b.value("SET search_path = b").await;
    for (wire, value) in [(&mut a, "a"), (&mut b, "b")] {
        prepare(wire, "s", "SELECT x FROM t").await;
        assert_eq!(run(wire, "s", &[]).await, value);
    }
    assert_eq!(run(&mut a, "s", &[]).await, "a");
}

// 42P05 and 26000 keep the connection; closing a name that does not exist succeeds.
#[tokio::test]
async fn names_are_duplicate_unknown_and_closed_as_postgres_says() {
    on_both_with(proxy().pool_size(1), async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        prepare(&mut wire, "s", "SELECT 1").await;
        let text = |frames: &[Frame]| (error(frames).sqlstate(), error(frames).fields()[&'M'].clone());

        wire.send([parse("s", "SELECT 2", &[]), bind("", "s", &[]), execute("", 0), sync()].concat()).await;
        let frames = wire.cycle().await;
        assert_eq!(
            (tags(&frames), text(&frames)),
            ("E Z".into(), ("42P05".into(), "prepared statement \"s\" already exists".into()))
        );
        assert_eq!(run(&mut wire, "s", &[]).await, "1");

        wire.send([bind("", "nope", &[]), execute("", 0), sync()].concat()).await;
        let frames = wire.cycle().await;
        assert_eq!(
            (tags(&frames), text(&frames)),
            ("E Z".into(), ("26000".into(), "prepared statement \"nope\" does not exist".into()))
        );
        wire.send([describe_statement("pgweir_0"), sync()].concat()).await;
        let frames = wire.cycle().await;
        assert_eq!(
            (tags(&frames), text(&frames)),
            ("E Z".into(), ("26000".into(), "prepared statement \"pgweir_0\" does not exist".into()))
        );

        wire.send([extended("SELECT 1", &[]), close_statement("nope"), sync()].concat()).await;
        wire.expect("1 2 T D C 3 Z").await;
        wire.send([close_statement("s"), parse("s", "SELECT 2", &[]), sync()].concat()).await;
        wire.expect("3 1 Z").await;
        assert_eq!(run(&mut wire, "s", &[]).await, "2");

        // In a failed transaction Parse fails for that reason first; a name that is taken or not.
        wire.query("BEGIN").await;
        wire.query("SELECT 1/0").await;
        for name in ["s", "new"] {
            wire.send([parse(name, "SELECT 2", &[]), sync()].concat()).await;
            assert_eq!(wire.expect("E Z").await[0].sqlstate(), "25P02", "{name}");
        }
        wire.query("ROLLBACK").await;
        prepare(&mut wire, "new", "SELECT 3").await;
    })
    .await;
}

// Another client's unnamed statement is still on the backend.
#[tokio::test]
async fn an_unnamed_statement_is_its_clients_alone() {
    on_both_with(proxy().pool_size(1), async |at: &Endpoint| {
        let (mut a, mut b) = (at.wire("app").await, at.wire("app").await);
        a.send([extended("SELECT 'secret'", &[]), sync()].concat()).await;
        a.cycle().await;
        for message in [bind("", "", &[]), describe_statement("")] {
            b.send([message, execute("", 0), sync()].concat()).await;
            let frames = b.cycle().await;
            assert_eq!(error(&frames).sqlstate(), "26000");
            assert_eq!(error(&frames).fields()[&'M'], "unnamed prepared statement does not exist");
        }
        // A refused name leaves the unnamed statement alone; a Query destroys it.
        a.send([bind("", "nope", &[]), sync()].concat()).await;
        a.expect("E Z").await;
        assert_eq!(run(&mut a, "", &[]).await, "secret");
        a.value("SELECT 1").await;
        a.send([bind("", "", &[]), sync()].concat()).await;
        assert_eq!(a.expect("E Z").await[0].sqlstate(), "26000");
    })
    .await;
}

// Parse and Bind of the unnamed statement may meet different backends.
#[tokio::test]
async fn an_unnamed_statement_outlives_its_lease() {
    let proxy = one_backend().await;
    let (mut a, mut b) = (proxy.wire("app").await, proxy.wire("app").await);
    a.send([parse("", "SELECT 'a' || $1", &[]), describe_statement(""), sync()].concat()).await;
    a.expect("1 t T Z").await;
    b.send([extended("SELECT 'b' || 1", &[]), sync()].concat()).await;
    b.cycle().await;
    for _ in 0..2 {
        assert_eq!(run(&mut a, "", &[Some(b"1")]).await, "a1");
        assert_eq!(run(&mut b, "", &[]).await, "b1");
    }
    // Portals are gone with their transaction, though.
    a.send([execute("", 0), sync()].concat()).await;
    assert_eq!(a.expect("E Z").await[0].sqlstate(), "34000");
}

#[tokio::test]
async fn statements_too_long_to_keep_hold_their_backend() {
    let proxy = proxy().pool_size(1).toml("[pool]\nstatements_max = 2").start().await;
    let mut a = proxy.wire("app").await;
    let long = |what: &str| format!("SELECT '{what}' /*{}*/", "x".repeat(100_000));
    prepare(&mut a, "long", &long("named")).await;
    a.send([parse("", &long("unnamed"), &[]), sync()].concat()).await;
    a.expect("1 Z").await;
    assert_eq!(run(&mut a, "", &[]).await, "unnamed");
    for n in 0..4 {
        prepare(&mut a, &format!("s{n}"), &format!("SELECT {n}")).await;
    }
    a.value("SELECT 1").await;
    assert_eq!(run(&mut a, "long", &[]).await, "named");
    a.send([close_statement("long"), sync()].concat()).await;
    a.expect("3 Z").await;
    assert_eq!(proxy.wire("app").await.value("SELECT 2").await, "2", "nothing holds the backend now");
    // A long one that fails holds nothing.
    a.send([parse("bad", &format!("SELEKT '{}'", "x".repeat(100_000)), &[]), sync()].concat()).await;
    a.expect("E Z").await;
    assert_eq!(proxy.wire("app").await.value("SELECT 3").await, "3");
}

// The Close of an evicted statement is skipped in an aborted pipeline; then the statement is still there.
#[tokio::test]
async fn a_backend_keeps_no_more_statements_than_allowed() {
    let proxy = proxy().pool_size(1).toml("[pool]\nstatements_max = 3").start().await;
    let mut wire = proxy.wire("app").await;
    for round in 0..3 {
        for n in 0..6 {
            if round == 0 {
                prepare(&mut wire, &format!("s{n}"), &format!("SELECT {n}")).await;
            }
            assert_eq!(run(&mut wire, &format!("s{n}"), &[]).await, n.to_string());
            assert!(at_backend(&mut wire).await <= 3);
        }
    }
    // Evictions that an aborted pipeline skips did not happen.
    for n in [0, 1, 2, 3, 4, 5] {
        wire.send(
            [query("SELECT 1"), extended("SELECT 1/0", &[]), bind("", &format!("s{n}"), &[]), execute("", 0), sync()]
                .concat(),
        )
        .await;
        wire.cycle().await;
        assert_eq!(error(&wire.cycle().await).sqlstate(), "22012");
        // Nor those of messages sent after the error was seen.
        wire.send([extended("SELECT 1/0", &[]), flush()].concat()).await;
        while wire.frame().await.tag != 'E' {}
        for m in 0..6 {
            wire.send([bind("", &format!("s{m}"), &[]), execute("", 0)].concat()).await;
        }
        wire.send([parse(&format!("n{n}"), &format!("SELECT {n}+10"), &[]), sync()].concat()).await;
        wire.expect("Z").await;
    }
    for n in 0..6 {
        assert_eq!(run(&mut wire, &format!("s{n}"), &[]).await, n.to_string());
        prepare(&mut wire, &format!("n{n}"), &format!("SELECT {n}+10")).await;
        assert_eq!(run(&mut wire, &format!("n{n}"), &[]).await, (n + 10).to_string());
    }
    assert!(at_backend(&mut wire).await <= 4);
}

// The server skips every Parse after an error, and answers of our own come in the order of the requests.
#[tokio::test]
async fn an_error_takes_names_back_that_came_after_it() {
    on_both_with(proxy().pool_size(1), async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        prepare(&mut wire, "old", "SELECT 'old'").await;
        wire.send(
            [
                extended("SELECT 1/0", &[]),
                close_statement("old"),
                parse("old", "SELECT 'new'", &[]),
                parse("n", "SELECT 1", &[]),
                sync(),
            ]
            .concat(),
        )
        .await;
        wire.cycle().await;
        assert_eq!(run(&mut wire, "old", &[]).await, "old");
        prepare(&mut wire, "n", "SELECT 2").await;
        assert_eq!(run(&mut wire, "n", &[]).await, "2");
        // Before the error, both stand.
        wire.send(
            [close_statement("old"), parse("old", "SELECT 'new'", &[]), parse("bad", "SELECT nope", &[]), sync()]
                .concat(),
        )
        .await;
        wire.expect("3 1 E Z").await;
        assert_eq!(run(&mut wire, "old", &[]).await, "new");
        // A Parse that failed is tried anew after DDL.
        wire.send([parse("late", "SELECT count(*) FROM late", &[]), sync()].concat()).await;
        wire.expect("E Z").await;
        wire.query("CREATE TABLE late ()").await;
        prepare(&mut wire, "late", "SELECT count(*) FROM late").await;
        assert_eq!(run(&mut wire, "late", &[]).await, "0");
    })
    .await;
}

// DEALLOCATE arrives as SQL, with names that the backend knows under others, and must not touch those of other clients.
#[tokio::test]
async fn deallocate_takes_the_clients_own_names() {
    on_both_with(proxy().pool_size(1), async |at: &Endpoint| {
        let (mut a, mut b) = (at.wire("app").await, at.wire("app").await);
        for (n, sql) in
            ["DEALLOCATE s", "DEALLOCATE PREPARE \"s\"", "DEALLOCATE ALL", "DISCARD ALL", "SELECT 1; DEALLOCATE ALL"]
                .iter()
                .enumerate()
        {
            for is_simple in [true, false] {
                // As PostgreSQL has it, that of several statements may not be parsed.
                if !is_simple && sql.contains(';') {
                    continue;
                }
                let text = format!("SELECT {n}");
                prepare(&mut a, "s", &text).await;
                prepare(&mut b, "s", &text).await;
                a.send(if is_simple { query(sql) } else { [extended(sql, &[]), sync()].concat() }).await;
                let frames = a.cycle().await;
                let tag = frames.iter().rev().find(|frame| frame.tag == 'C').expect("it completes").text();
                assert!(sql.starts_with(&tag) || sql.ends_with(&tag), "{sql}: {tag}");
                a.send([bind("", "s", &[]), sync()].concat()).await;
                assert_eq!(a.expect("E Z").await[0].sqlstate(), "26000", "{sql}");
                assert_eq!(run(&mut b, "s", &[]).await, n.to_string(), "{sql}");
                prepare(&mut a, "s", &text).await;
                assert_eq!(run(&mut a, "s", &[]).await, n.to_string(), "{sql}");
                for wire in [&mut a, &mut b] {
                    wire.send([close_statement("s"), sync()].concat()).await;
                    wire.expect("3 Z").await;
                }
            }
        }
        assert_eq!(a.failure("DEALLOCATE nope").await, "26000");
        // Pipelined, the name is free at once.
        prepare(&mut a, "s", "SELECT 1").await;
        a.send([extended("DEALLOCATE s", &[]), parse("s", "SELECT 2", &[]), sync()].concat()).await;
        a.cycle().await;
        assert_eq!(run(&mut a, "s", &[]).await, "2");
        // And not, if it comes behind an error.
        a.query("BEGIN").await;
        a.query("SELECT 1/0").await;
        assert_eq!(a.failure("DEALLOCATE s").await, "25P02");
        a.query("ROLLBACK").await;
        assert_eq!(run(&mut a, "s", &[]).await, "2");
    })
    .await;
}

// postgres.js and pgjdbc prepare again when the error says that it came from RevalidateCachedQuery.
#[tokio::test]
async fn errors_about_statements_name_the_function_of_postgres() {
    on_both_with(proxy().pool_size(2), async |endpoint| {
        let (mut a, mut b) = (endpoint.wire("app").await, endpoint.wire("app").await);
        a.query("DROP TABLE IF EXISTS regrown").await;
        a.query("CREATE TABLE regrown AS SELECT 1 x").await;
        prepare(&mut a, "s", "SELECT * FROM regrown").await;
        a.query("ALTER TABLE regrown ADD y int").await;
        // The other backend takes the statement over.
        b.query("BEGIN").await;
        for (message, routine) in [
            (bind("", "s", &[]), "RevalidateCachedQuery"),
            (parse("s", "SELECT 1", &[]), "StorePreparedStatement"),
            (bind("", "nope", &[]), "FetchPreparedStatement"),
            (describe_statement("nope"), "FetchPreparedStatement"),
            (bind("", "s", &[None]), "exec_bind_message"),
        ] {
            a.send([message, sync()].concat()).await;
            let frames = a.cycle().await;
            assert_eq!(error(&frames).fields().get(&'R').map(String::as_str), Some(routine), "{frames:?}");
        }
    })
    .await;
}

// A client that prepared before the DDL sees the error that Postgres gives it, on whichever backend; one that prepares
// afterwards never does.
#[tokio::test]
async fn a_statement_whose_result_changed_fails_until_it_is_prepared_again() {
    for size in [1, 2] {
        on_both_with(proxy().pool_size(size), async |endpoint| {
            let (mut a, mut b) = (endpoint.wire("app").await, endpoint.wire("app").await);
            a.query("DROP TABLE IF EXISTS changed").await;
            a.query("CREATE TABLE changed AS SELECT 1 x").await;
            prepare(&mut a, "s", "SELECT * FROM changed").await;
            assert_eq!(run(&mut a, "s", &[]).await, "1");
            b.query("ALTER TABLE changed ADD y int").await;
            // Another backend takes the statement over, if there is one.
            if size == 2 {
                b.query("BEGIN").await;
            }
            let unit = || [bind("", "s", &[]), execute("", 0), sync()].concat();
            a.send([unit(), unit()].concat()).await;
            for _ in 0..2 {
                assert_eq!(error(&a.cycle().await).sqlstate(), "0A000");
            }
            b.query("COMMIT").await;
            prepare(&mut b, "s", "SELECT * FROM changed").await;
            for _ in 0..2 {
                assert_eq!(run(&mut b, "s", &[]).await, "1");
                a.send(unit()).await;
                assert_eq!(error(&a.cycle().await).sqlstate(), "0A000");
            }
            prepare(&mut a, "t", "SELECT * FROM changed").await;
            assert_eq!(run(&mut a, "t", &[]).await, "1");
        })
        .await;
    }
}

// A Parse means an analysis now: types that were chosen for somebody else before the DDL are not those of the table.
#[tokio::test]
async fn a_parse_is_an_analysis_now_whoever_prepared_the_text_before() {
    on_both_with(proxy().pool_size(1), async |endpoint| {
        let (mut a, mut b) = (endpoint.wire("app").await, endpoint.wire("app").await);
        a.query("DROP TABLE IF EXISTS widened").await;
        a.query("CREATE TABLE widened (x int)").await;
        let text = "INSERT INTO widened VALUES ($1)";
        let described = || [parse("s", text, &[]), describe_statement("s"), sync()].concat();
        a.send(described()).await;
        assert_eq!(a.expect("1 t n Z").await[1].body[2..], 23u32.to_be_bytes());
        a.query("ALTER TABLE widened ALTER x TYPE bigint").await;
        b.send(described()).await;
        assert_eq!(b.expect("1 t n Z").await[1].body[2..], 20u32.to_be_bytes());
        for (wire, value) in [(&mut b, "3000000000"), (&mut a, "1")] {
            wire.send([bind("", "s", &[Some(value.as_bytes())]), execute("", 0), sync()].concat()).await;
            wire.expect("2 C Z").await;
        }
        // For whom it was int it is int.
        a.send([bind("", "s", &[Some(b"3000000000")]), execute("", 0), sync()].concat()).await;
        assert_eq!(error(&a.cycle().await).sqlstate(), "22003");
    })
    .await;
}

// An open portal means an implicit transaction: Execute with Flush, or a suspended portal, is no end of it.
#[tokio::test]
async fn an_open_portal_holds_the_backend_to_its_sync() {
    on_both_with(proxy().pool_size(1), async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        let sql = "SELECT generate_series(1, 3)";
        prepare(&mut wire, "s", sql).await;
        wire.send([bind("p", "s", &[]), execute("p", 2), flush()].concat()).await;
        wire.expect("2 D D s").await;
        wire.send([execute("p", 2), sync()].concat()).await;
        wire.expect("D C Z").await;
        wire.query("BEGIN").await;
        wire.send([bind("p", "s", &[]), execute("p", 1), sync()].concat()).await;
        wire.expect("2 D s Z").await;
        wire.send([execute("p", 0), sync()].concat()).await;
        wire.expect("D D C Z").await;
        wire.query("COMMIT").await;
        wire.send([execute("p", 0), sync()].concat()).await;
        assert_eq!(wire.expect("E Z").await[0].sqlstate(), "34000");
    })
    .await;
}

#[tokio::test]
async fn a_driver_prepares_on_one_backend_and_executes_on_another() {
    let proxy = proxy().pool_size(2).start().await;
    let (a, b) = (proxy.connect("app").await, proxy.connect("app").await);
    let of_a = a.prepare("SELECT $1::int + 1").await.expect("a statement");
    b.batch_execute("BEGIN").await.expect("one backend is taken");
    for n in 0..3 {
        let row = a.query_one(&of_a, &[&n]).await.expect("a row");
        assert_eq!(row.get::<_, i32>(0), n + 1);
    }
    let of_b = b.prepare("SELECT $1::int + 1").await.expect("a statement");
    b.batch_execute("COMMIT").await.expect("the end");
    assert_eq!(b.query_one(&of_b, &[&1]).await.expect("a row").get::<_, i32>(0), 2);
    let failed = a.prepare("SELECT nope").await.expect_err("no such column");
    assert_eq!(failed.code(), Some(&SqlState::UNDEFINED_COLUMN));
}
