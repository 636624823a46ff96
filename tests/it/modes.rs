//! When a backend goes back: after the transaction, the session or the cycle; and messages few clients send.

use crate::support::frontend::{bind, execute, extended, flush, frame, function_call, parse, query, sync};
use crate::support::{Endpoint, Frame, Postgres, Wire, eventually, frontend, on_both_with, proxy, soon, tags};

#[tokio::test]
async fn a_session_keeps_its_backend_and_leaves_it_clean() {
    let proxy = proxy().pool_size(1).mode("session").wait_timeout("3s").start().await;
    let mut wire = proxy.wire("app").await;
    let process = wire.value("SELECT pg_backend_pid()").await;
    wire.value("CREATE TEMP TABLE t AS SELECT 1 a; SET work_mem = '7MB'; SELECT pg_advisory_lock(1)").await;
    wire.send([parse("s", "SELECT a FROM t", &[]), sync()].concat()).await;
    wire.cycle().await;
    assert_eq!(wire.value("SELECT a FROM t").await, "1");
    assert_eq!(wire.value("SHOW work_mem").await, "7MB");
    let mut other = proxy.wire("app").await;
    assert_eq!(other.failure("SELECT 1").await, "53300");
    drop(wire);
    eventually(async || proxy.wire("app").await.query("SELECT 1").await.len() > 2).await;
    assert_eq!(other.value("SELECT pg_backend_pid()").await, process);
    assert_ne!(other.value("SHOW work_mem").await, "7MB");
    let left = "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) \
                + (SELECT count(*) FROM pg_prepared_statements)";
    assert_eq!(other.value(left).await, "0");
}

#[tokio::test]
async fn a_session_resets_to_its_own_startup_values() {
    let proxy = proxy().pool_size(1).mode("session").start().await;
    let (mut wire, _) =
        Wire::login_with(&proxy, "app", &[("TimeZone", "PST8PDT"), ("options", "-c work_mem=7MB")]).await;
    for reset in ["SELECT 1", "RESET ALL", "DISCARD ALL"] {
        wire.value("SET TimeZone = 'UTC'; SET work_mem = '9MB'").await;
        if reset == "SELECT 1" {
            assert_eq!(wire.value("SHOW work_mem").await, "9MB");
        } else {
            wire.value(reset).await;
            assert_eq!(
                (wire.value("SHOW TimeZone").await, wire.value("SHOW work_mem").await),
                ("PST8PDT".into(), "7MB".into())
            );
        }
    }
}

// BEGIN must be refused where it stands, rather than rolled back behind the client's back.
#[tokio::test]
async fn statement_mode_refuses_transactions_in_their_place() {
    let proxy = proxy().pool_size(1).mode("statement").start().await;
    let mut wire = proxy.wire("app").await;
    for sql in ["BEGIN", "START TRANSACTION", "BEGIN; SELECT 1; COMMIT", "SELECT 1; BEGIN"] {
        assert_eq!(wire.failure(sql).await, "0A000", "{sql}");
    }
    wire.send([query("SELECT 1"), query("BEGIN"), query("SELECT 2")].concat()).await;
    wire.expect("T D C Z E Z T D C Z").await;
    for name in ["", "s"] {
        wire.send(
            [
                extended("SELECT 1", &[]),
                parse(name, "BEGIN", &[]),
                bind("", name, &[]),
                execute("", 0),
                sync(),
                extended("SELECT 2", &[]),
                sync(),
            ]
            .concat(),
        )
        .await;
        let frames = wire.expect("1 2 T D C E Z 1 2 T D C Z").await;
        assert_eq!(frames[5].sqlstate(), "0A000");
    }
    assert_eq!(wire.value("SELECT 1; SELECT 2").await, "2");
    // Settings and statements follow here too.
    wire.value("SET work_mem = '7MB'").await;
    proxy.wire("app").await.value("SELECT 1").await;
    assert_eq!(wire.value("SHOW work_mem").await, "7MB");
}

#[tokio::test]
async fn a_mode_is_set_for_a_database_or_a_role() {
    let role = Postgres::shared().own_role("").await;
    let proxy = proxy()
        .pool_size(2)
        .toml("[databases.app]\nmode = \"statement\"")
        .role(&role, "mode = \"session\"")
        .start()
        .await;
    assert_eq!(proxy.wire("app").await.failure("BEGIN").await, "0A000");
    let mut wire = proxy.wire(&role).await;
    wire.value("BEGIN; CREATE TEMP TABLE t (a int); COMMIT").await;
    wire.value("SELECT * FROM t").await;
}

// A FunctionCall ends with a ReadyForQuery, too; forgotten, the count of replies drifts.
#[tokio::test]
async fn large_objects_go_through_the_fast_path() {
    on_both_with(proxy().pool_size(1), async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        let oid = wire.value("SELECT lo_from_bytea(0, 'hello')").await;
        let (open, read) = (
            wire.value("SELECT 'lo_open(oid, int4)'::regprocedure::oid").await,
            wire.value("SELECT 'loread(int4, int4)'::regprocedure::oid").await,
        );
        wire.query("BEGIN").await;
        wire.send(function_call(open.parse().expect("an oid"), &[oid.as_bytes(), b"262144"])).await;
        let descriptor = wire.expect("V Z").await.swap_remove(0);
        wire.send(function_call(read.parse().expect("an oid"), &[&descriptor.body[4..], b"5"])).await;
        assert_eq!(wire.expect("V Z").await[0].body[4..], *b"\\x68656c6c6f");
        wire.query("COMMIT").await;
        wire.send([function_call(1, &[]), query("SELECT 1")].concat()).await;
        wire.expect("E Z T D C Z").await;
    })
    .await;
}

// COPY that fails early, late, and by a Sync in its middle, which Postgres ignores there.
#[tokio::test]
async fn a_copy_that_fails_halfway_frees_the_backend() {
    let proxy = proxy().pool_size(1).start().await;
    let mut wire = proxy.wire("app").await;
    wire.query("CREATE TABLE t (a int)").await;
    let (good, bad) = (frame(b'd', b"1\n"), frame(b'd', b"x\n"));
    let (done, fail) = (frame(b'c', b""), frame(b'f', b"no\0"));
    for end in [vec![&good, &fail], vec![&bad, &done], vec![&good, &bad, &good, &done]] {
        let data = end.iter().flat_map(|frame| frame.iter().copied()).collect::<Vec<_>>();
        wire.send(query("COPY t FROM STDIN")).await;
        wire.expect("G").await;
        wire.send(&data).await;
        wire.expect("E Z").await;
        assert_eq!(proxy.wire("app").await.value("SELECT count(*) FROM t").await, "0");
        wire.send([extended("COPY t FROM STDIN", &[]), flush()].concat()).await;
        wire.expect("1 2 n G").await;
        wire.send([&data[..], &sync()].concat()).await;
        wire.expect("E Z").await;
        assert_eq!(proxy.wire("app").await.value("SELECT count(*) FROM t").await, "0");
    }
    // As rust-postgres does it: the first Sync is swallowed by the COPY.
    wire.send([parse("c", "COPY t FROM STDIN", &[]), sync()].concat()).await;
    wire.cycle().await;
    for end in [&done, &fail] {
        wire.send([bind("", "c", &[]), execute("", 0), sync()].concat()).await;
        wire.expect("2 G").await;
        wire.send([&good[..], end, &sync()].concat()).await;
        let frames = wire.cycle().await;
        assert!(matches!(tags(&frames).as_str(), "C Z" | "E Z"), "{frames:?}");
    }
    assert_eq!(proxy.wire("app").await.value("SELECT count(*) FROM t").await, "1");
    assert_eq!(wire.value("SELECT count(*) FROM t").await, "1");
}

// A physical walsender takes no SET, so everything must be in its startup packet; it is used once.
#[tokio::test]
async fn a_replication_connection_has_a_backend_of_its_own() {
    let postgres = Postgres::private(&["wal_level=logical"]);
    let role = postgres.own_role("REPLICATION").await;
    let proxy = proxy().postgres(&postgres).dbname("postgres").pool_size(2).role(&role, "").start().await;
    for kind in ["true", "database"] {
        let (mut wire, greeting) =
            Wire::login_with(&proxy, &role, &[("replication", kind), ("application_name", "walker")]).await;
        assert_eq!(greeting.last().map(|frame| frame.tag), Some('Z'), "{greeting:?}");
        let system = wire.query("IDENTIFY_SYSTEM").await;
        let row = system.iter().find(|frame| frame.tag == 'D').expect("a row").columns();
        if kind == "true" {
            continue;
        }
        wire.value("CREATE_REPLICATION_SLOT s TEMPORARY LOGICAL test_decoding").await;
        wire.send(query(&format!("START_REPLICATION SLOT s LOGICAL {}", row[2].as_deref().expect("a position")))).await;
        while wire.frame().await.tag != 'W' {}
        postgres.admin("postgres").await.batch_execute("CREATE TABLE t AS SELECT 'streamed' x").await.expect("a table");
        loop {
            let data = soon(wire.frame()).await;
            if data.tag == 'd' && data.body.windows(8).any(|part| part == b"streamed") {
                break;
            }
        }
        wire.send(frame(b'c', b"")).await;
        while soon(wire.frame()).await.tag != 'Z' {}
    }
    let _ = frontend::terminate();
}

#[tokio::test]
async fn a_parameter_of_200_mb_is_streamed() {
    let proxy = proxy().pool_size(1).start().await;
    let memory = || {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", proxy.pid().as_raw_nonzero())).expect("a process");
        let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("the peak").to_owned();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number")
    };
    let mut wire = proxy.wire("app").await;
    wire.send([parse("s", "SELECT length($1::bytea)", &[17]), sync()].concat()).await;
    wire.cycle().await;
    let before = memory();
    let value = vec![b'x'; 200 << 20];
    for statement in ["s", ""] {
        let unnamed = if statement.is_empty() { parse("", "SELECT length($1::bytea)", &[17]) } else { Vec::new() };
        wire.send([unnamed, bind("", statement, &[Some(&value)]), execute("", 0), sync()].concat()).await;
        let frames: Vec<Frame> = wire.cycle().await;
        let row = frames.iter().find(|frame| frame.tag == 'D').expect("a row");
        assert_eq!(row.columns()[0].as_deref(), Some((200 << 20).to_string().as_str()));
    }
    assert!(memory() - before < 8 << 10, "{} KiB more", memory() - before);
}
