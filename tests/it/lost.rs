//! Backends that are lost, at every moment: their client is told what it must know and stays, nobody else notices.

use std::time::Duration;

use futures_util::future::join_all;
use tokio_postgres::Client;

use crate::support::frontend::{
    bind, close_statement, copy_data, copy_done, describe_portal, describe_statement, execute, extended, flush, parse,
    query, sync,
};
use crate::support::{Frame, Link, Postgres, Proxy, Sessions, Toward, Wire, errors, eventually, proxy, soon, tags};

const SLEEP: &str = "SELECT pg_sleep(600)";

/// The texts of all ReadyForQuery in `frames`.
fn statuses(frames: &[Frame]) -> String {
    frames.iter().filter(|frame| frame.tag == 'Z').map(Frame::text).collect()
}

async fn started(size: u32) -> (Proxy, Sessions) {
    let proxy = proxy().pool_size(size).start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    (proxy, sessions)
}

/// A client that got an error goes on as if nothing had been.
async fn goes_on(wire: &mut Wire) {
    wire.send([query("SELECT 1"), extended("SELECT 2", &[]), sync()].concat()).await;
    assert_eq!(statuses(&wire.expect("T D C Z 1 2 T D C Z").await), "II");
}

// Bytes or an end that wait on an idle backend disqualify it; a client would get them as its answer.
#[tokio::test]
async fn a_client_does_not_notice_that_an_idle_backend_was_lost() {
    let (proxy, sessions) = started(3).await;
    let mut wires = join_all((0..3).map(|_| proxy.wire("app"))).await;
    for round in 0..5 {
        join_all(wires.iter_mut().map(async |wire| wire.query("SELECT pg_sleep(0.02)").await)).await;
        // A backend whose login is still under way comes later, and stays.
        let before = sessions.pids().await;
        let pids = before.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
        assert!(sessions.terminate(&format!("pid IN ({pids})")).await >= 1);
        for wire in &mut wires {
            assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z", "round {round}");
        }
        assert!(sessions.pids().await.iter().all(|pid| !before.contains(pid)));
    }
}

#[tokio::test]
async fn a_query_whose_backend_is_lost_fails_with_08006_and_the_session_goes_on() {
    let (proxy, sessions) = started(1).await;
    let mut wire = proxy.wire("app").await;
    wire.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    sessions.terminate("true").await;
    let frames = wire.expect("T E Z").await;
    let fields = frames[1].fields();
    assert_eq!((fields[&'S'].as_str(), fields[&'C'].as_str()), ("ERROR", "08006"));
    assert_eq!(frames[2].text(), "I");
    goes_on(&mut wire).await;

    wire.send([extended(SLEEP, &[]), sync()].concat()).await;
    sessions.until_running(SLEEP, 1).await;
    sessions.terminate("true").await;
    let frames = wire.cycle().await;
    assert_eq!((errors(&frames), statuses(&frames)), (vec!["08006".to_owned()], "I".to_owned()));
    goes_on(&mut wire).await;
}

#[tokio::test]
async fn an_extended_query_without_sync_whose_backend_is_lost_is_skipped_up_to_its_sync() {
    let (proxy, sessions) = started(1).await;
    let mut wire = proxy.wire("app").await;
    wire.send([parse("", SLEEP, &[]), bind("", "", &[]), describe_portal(""), flush()].concat()).await;
    wire.expect("1 2 T").await;
    wire.send([execute("", 0), flush()].concat()).await;
    sessions.until_running(SLEEP, 1).await;
    sessions.terminate("true").await;
    assert_eq!(wire.expect("E").await[0].sqlstate(), "08006");
    wire.send([extended("SELECT 'skipped'", &[]), query("SELECT 'skipped'"), sync()].concat()).await;
    assert_eq!(statuses(&wire.expect("Z").await), "I");
    goes_on(&mut wire).await;
}

#[tokio::test]
async fn every_cycle_of_a_pipeline_whose_backend_is_lost_gets_its_error() {
    let (proxy, sessions) = started(1).await;
    let mut wire = proxy.wire("app").await;
    let extended_cycle = || [extended("SELECT 1", &[]), sync()].concat();
    wire.send([query(SLEEP), extended_cycle(), query("SELECT 1"), extended_cycle()].concat()).await;
    sessions.until_running(SLEEP, 1).await;
    sessions.terminate("true").await;
    let frames = wire.expect("T E Z E Z E Z E Z").await;
    assert_eq!(errors(&frames), ["08006"; 4]);
    assert_eq!(statuses(&frames), "IIII");
    goes_on(&mut wire).await;
}

/// Puts a client into a transaction that is lost while it is idle in it.
async fn orphaned(proxy: &Proxy, sessions: &Sessions) -> Wire {
    let mut wire = proxy.wire("app").await;
    wire.query("CREATE TABLE IF NOT EXISTS t (a int)").await;
    wire.query("BEGIN").await;
    wire.query("INSERT INTO t VALUES (1)").await;
    sessions.terminate("state = 'idle in transaction'").await;
    // What it sends before pgweir has seen that may have been run, for all that anyone knows.
    eventually(async || proxy.console("SHOW SERVERS").await.is_empty()).await;
    wire
}

async fn rows(proxy: &Proxy) -> Option<String> {
    proxy.wire("app").await.query("SELECT count(*) FROM t").await[1].columns().remove(0)
}

#[tokio::test]
async fn a_lost_transaction_refuses_everything_until_it_is_rolled_back() {
    let (proxy, sessions) = started(1).await;
    let mut wire = orphaned(&proxy, &sessions).await;
    let frames = wire.query("INSERT INTO t VALUES (2)").await;
    assert_eq!((errors(&frames), statuses(&frames)), (vec!["40001".to_owned()], "E".to_owned()));
    for sql in [
        "INSERT INTO t VALUES (3)",
        "SAVEPOINT s",
        "ROLLBACK TO s",
        "BEGIN",
        "SET work_mem = '5MB'",
        "SELECT 1; COMMIT",
    ] {
        let frames = wire.query(sql).await;
        assert_eq!((errors(&frames), statuses(&frames)), (vec!["25P02".to_owned()], "E".to_owned()), "{sql}");
    }
    let frames = wire.query("ROLLBACK").await;
    assert_eq!((tags(&frames).as_str(), statuses(&frames).as_str()), ("C Z", "I"));
    goes_on(&mut wire).await;
    assert_eq!(rows(&proxy).await.as_deref(), Some("0"));
}

// Who has not seen an error would take the answer for a COMMIT, whatever its tag says.
#[tokio::test]
async fn commit_is_the_first_to_hear_that_its_transaction_was_lost() {
    let (proxy, sessions) = started(1).await;
    for commit in [query("COMMIT"), [extended("COMMIT", &[]), sync()].concat()] {
        let mut wire = orphaned(&proxy, &sessions).await;
        wire.send(commit).await;
        let frames = wire.cycle().await;
        assert_eq!((errors(&frames), statuses(&frames)), (vec!["40001".to_owned()], "I".to_owned()));
        goes_on(&mut wire).await;
    }
    // It wanted nothing else.
    let mut wire = orphaned(&proxy, &sessions).await;
    assert_eq!(tags(&wire.query("ROLLBACK").await), "C Z");
    goes_on(&mut wire).await;
    assert_eq!(rows(&proxy).await.as_deref(), Some("0"));
}

// The next backend must not get the end of a message whose beginning another one got.
#[tokio::test]
async fn the_rest_of_a_message_is_dropped_when_its_backend_is_lost() {
    let (proxy, sessions) = started(1).await;
    let mut wire = proxy.wire("app").await;
    let long = query(&format!("SELECT 1 -- {}", "x".repeat(3_000_000)));
    wire.send(&long[..2_000_000]).await;
    sessions.until("state = 'idle'", 1).await;
    sessions.terminate("true").await;
    let frames = wire.expect("E Z").await;
    assert_eq!((errors(&frames), statuses(&frames)), (vec!["08006".to_owned()], "I".to_owned()));
    wire.send([&long[2_000_000..], &query("SELECT 1")].concat()).await;
    wire.expect("T D C Z").await;
    goes_on(&mut wire).await;
}

#[tokio::test]
async fn commit_of_a_lost_transaction_is_answered_with_rollback() {
    let (proxy, sessions) = started(1).await;
    for commit in ["COMMIT", "END", "ABORT"] {
        let mut wire = orphaned(&proxy, &sessions).await;
        assert_eq!(errors(&wire.query("SELECT 1").await), ["40001"]);
        let frames = wire.query(commit).await;
        assert_eq!((tags(&frames).as_str(), statuses(&frames).as_str()), ("C Z", "I"), "{commit}");
        assert_eq!(frames[0].text(), "ROLLBACK", "{commit}");
        goes_on(&mut wire).await;
    }
    assert_eq!(rows(&proxy).await.as_deref(), Some("0"));
}

// What comes behind the end of the transaction in one text must be run, or not be taken for run.
#[tokio::test]
async fn a_text_that_goes_on_behind_the_end_of_a_lost_transaction_is_run_from_there() {
    let (proxy, sessions) = started(1).await;
    let mut wire = orphaned(&proxy, &sessions).await;
    assert_eq!(errors(&wire.query("SELECT 1").await), ["40001"]);
    let frames = wire.query("ROLLBACK; SELECT 'behind'").await;
    let row = frames.iter().find(|frame| frame.tag == 'D').expect("a row");
    assert_eq!(row.columns(), [Some("behind".to_owned())]);
    assert_eq!((errors(&frames), statuses(&frames)), (vec![], "I".to_owned()));
    goes_on(&mut wire).await;

    // The COMMIT would be reported as done.
    let mut wire = orphaned(&proxy, &sessions).await;
    assert_eq!(errors(&wire.query("SELECT 1").await), ["40001"]);
    for sql in ["COMMIT; SELECT 1", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN"] {
        let frames = wire.query(sql).await;
        assert_eq!((errors(&frames), statuses(&frames)), (vec!["25P02".to_owned()], "E".to_owned()), "{sql}");
    }
    wire.query("ROLLBACK").await;
    goes_on(&mut wire).await;
}

#[tokio::test]
async fn a_lost_transaction_refuses_in_the_extended_protocol_too() {
    let (proxy, sessions) = started(1).await;
    let mut wire = orphaned(&proxy, &sessions).await;
    let insert = || [extended("INSERT INTO t VALUES (4)", &[]), sync()].concat();
    wire.send(insert()).await;
    let frames = wire.cycle().await;
    assert_eq!((errors(&frames), statuses(&frames)), (vec!["40001".to_owned()], "E".to_owned()));
    wire.send([insert(), query("SELECT 1"), insert()].concat()).await;
    let frames = wire.expect("E Z E Z E Z").await;
    assert_eq!((errors(&frames), statuses(&frames).as_str()), (vec!["25P02".to_owned(); 3], "EEE"));
    wire.send([extended("ROLLBACK", &[]), sync()].concat()).await;
    let frames = wire.expect("1 2 n C Z").await;
    assert_eq!((frames[3].text().as_str(), statuses(&frames).as_str()), ("ROLLBACK", "I"));
    goes_on(&mut wire).await;
    assert_eq!(rows(&proxy).await.as_deref(), Some("0"));
}

// pgjdbc prepares its ROLLBACK under a name, and would be refused for ever.
#[tokio::test]
async fn a_lost_transaction_is_left_by_a_statement_of_any_name() {
    let (proxy, sessions) = started(1).await;
    let mut wire = proxy.wire("app").await;
    wire.send([parse("before", "ROLLBACK", &[]), parse("one", "SELECT 1", &[]), sync()].concat()).await;
    wire.expect("1 1 Z").await;
    let lose = async |wire: &mut Wire| {
        wire.query("BEGIN").await;
        sessions.terminate("state = 'idle in transaction'").await;
        assert_eq!(errors(&wire.query("SELECT 1").await), ["40001"]);
    };
    let executed = |portal: &str, name: &str, rows| [bind(portal, name, &[]), execute(portal, rows), sync()].concat();
    for (name, portal, rows) in [("before", "", 0), ("S_1", "", 1), ("S_2", "C_2", 0)] {
        lose(&mut wire).await;
        if name != "before" {
            wire.send(parse(name, "ROLLBACK", &[])).await;
            wire.expect("1").await;
        }
        wire.send(executed(portal, name, rows)).await;
        let frames = wire.expect("2 C Z").await;
        assert_eq!((frames[1].text().as_str(), statuses(&frames).as_str()), ("ROLLBACK", "I"), "{name}");
        goes_on(&mut wire).await;
    }
    // The names of then are the names of later, and what follows in the unit runs.
    lose(&mut wire).await;
    wire.send([close_statement("one"), parse("", "", &[]), parse("to", "ROLLBACK TO s", &[]), sync()].concat()).await;
    assert_eq!(statuses(&wire.expect("3 1 1 Z").await), "E");
    wire.send([describe_statement("S_1"), parse("S_1", "COMMIT", &[]), sync()].concat()).await;
    assert_eq!(errors(&wire.expect("t n E Z").await), ["42P05"]);
    for (refused, sqlstate) in [("one", "26000"), ("", "25P02"), ("to", "25P02")] {
        wire.send(executed("", refused, 0)).await;
        let frames = wire.cycle().await;
        assert_eq!((errors(&frames), statuses(&frames)), (vec![sqlstate.to_owned()], "E".to_owned()), "{refused}");
    }
    assert_eq!(tags(&wire.query("").await), "I Z");
    let behind = [parse("one", "SELECT 'new'", &[]), bind("", "one", &[]), execute("", 0), sync()].concat();
    wire.send([bind("", "S_1", &[]), execute("", 0), behind].concat()).await;
    let frames = wire.expect("2 C 1 2 D C Z").await;
    assert_eq!((frames[4].columns(), statuses(&frames)), (vec![Some("new".to_owned())], "I".to_owned()));
    wire.query("BEGIN; SAVEPOINT s").await;
    wire.send(executed("", "to", 0)).await;
    assert_eq!(statuses(&wire.expect("2 C Z").await), "T");
    wire.send(executed("", "S_2", 0)).await;
    assert_eq!(statuses(&wire.expect("2 C Z").await), "I");
}

// The server took the change back without a word: its connection was gone.
#[tokio::test]
async fn a_client_is_told_the_parameters_that_it_goes_on_with() {
    let (proxy, sessions) = started(1).await;
    let mut wire = proxy.wire("app").await;
    wire.query("SET DateStyle = 'ISO, YMD'").await;
    wire.query("BEGIN; SET LOCAL DateStyle = 'SQL, DMY'; SET LOCAL standard_conforming_strings = off").await;
    sessions.terminate("state = 'idle in transaction'").await;
    let frames = wire.query("SELECT 1").await;
    let mut told: Vec<_> = frames.iter().filter(|frame| frame.tag == 'S').map(Frame::parameter).collect();
    told.sort();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(told, [pair("DateStyle", "ISO, YMD"), pair("standard_conforming_strings", "on")]);
    assert_eq!(errors(&frames), ["40001"]);
    wire.query("ROLLBACK").await;
    // Its texts are read as the server reads them: this one has a second statement.
    assert_eq!(tags(&wire.query(r"SELECT '\'; SET work_mem = '5MB'").await), "T D C C Z");
    assert_eq!(proxy.wire("app").await.value("SHOW work_mem").await, "4MB");
    assert_eq!(wire.value("SHOW work_mem").await, "5MB");
    assert_eq!(wire.value("SHOW DateStyle").await, "ISO, YMD");
}

// libpq sends a Sync with the COPY and one behind it; Postgres swallows the first, and the second gets the only answer.
#[tokio::test]
async fn a_copy_whose_backend_is_lost_is_answered_once() {
    let (proxy, sessions) = started(1).await;
    let mut wire = proxy.wire("app").await;
    wire.query("CREATE TABLE t (a int)").await;
    let begun =
        || [parse("", "COPY t FROM STDIN", &[]), bind("", "", &[]), describe_portal(""), execute("", 0)].concat();
    for is_transaction in [false, true] {
        if is_transaction {
            wire.query("BEGIN").await;
        }
        wire.send([begun(), sync()].concat()).await;
        wire.expect("1 2 n G").await;
        wire.send(copy_data(b"1\n")).await;
        sessions.terminate("true").await;
        let frames = wire.expect("E Z").await;
        let (code, status) = if is_transaction { ("40001", "E") } else { ("08006", "I") };
        assert_eq!((errors(&frames), statuses(&frames)), (vec![code.to_owned()], status.to_owned()));
        let rest = [copy_data(b"2\n"), copy_done(), sync()].concat();
        if is_transaction {
            wire.send([rest, query("ROLLBACK")].concat()).await;
            wire.expect("C Z").await;
        } else {
            wire.send(rest).await;
        }
        goes_on(&mut wire).await;
    }
    // Without the first Sync the error holds up to the one that comes.
    wire.send([begun(), flush()].concat()).await;
    wire.expect("1 2 n G").await;
    sessions.terminate("true").await;
    assert_eq!(errors(&wire.expect("E").await), ["08006"]);
    wire.send([copy_data(b"1\n"), copy_done(), sync()].concat()).await;
    assert_eq!(statuses(&wire.expect("Z").await), "I");
    goes_on(&mut wire).await;
}

// The client has sent the rest of its transaction before it can know that it is lost.
#[tokio::test]
async fn no_statement_of_a_pipelined_transaction_takes_effect_outside_of_it() {
    let (proxy, sessions) = started(1).await;
    let mut wire = proxy.wire("app").await;
    wire.query("CREATE TABLE t (a int)").await;
    // The transaction has begun, and its BEGIN was answered.
    wire.query("BEGIN").await;
    wire.send([query(SLEEP), query("INSERT INTO t VALUES (1)")].concat()).await;
    sessions.until_running(SLEEP, 1).await;
    sessions.terminate("true").await;
    wire.send([query("INSERT INTO t VALUES (2)"), query("COMMIT")].concat()).await;
    let frames = wire.expect("T E Z E Z E Z C Z").await;
    assert_eq!((statuses(&frames).as_str(), frames[7].text().as_str()), ("EEEI", "ROLLBACK"));
    assert_eq!(rows(&proxy).await.as_deref(), Some("0"));

    // Its BEGIN was not answered: it is in one write with the rest, and other statements come later.
    wire.send([query(SLEEP), query("BEGIN"), query("INSERT INTO t VALUES (1)")].concat()).await;
    sessions.until_running(SLEEP, 1).await;
    sessions.terminate("true").await;
    wire.send([query("INSERT INTO t VALUES (2)"), query("COMMIT")].concat()).await;
    let frames = wire.expect("T E Z E Z E Z E Z C Z").await;
    assert_eq!((statuses(&frames).as_str(), frames[9].text().as_str()), ("EEEEI", "ROLLBACK"));
    assert_eq!(rows(&proxy).await.as_deref(), Some("0"));
    goes_on(&mut wire).await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_fails_with_08007() {
    let postgres = Postgres::shared();
    let link = Link::to(postgres.endpoint("postgres").addr).await;
    let proxy = proxy().pool_size(1).backend(link.addr).start().await;
    let sessions = Sessions::of(postgres, &proxy.dbname).await;
    let mut wire = proxy.wire("app").await;
    wire.query("CREATE TABLE t (a int)").await;
    for extended_protocol in [false, true] {
        wire.query("BEGIN").await;
        wire.query("INSERT INTO t VALUES (1)").await;
        link.pause_toward(Toward::Frontend);
        let commit = if extended_protocol { [extended("COMMIT", &[]), sync()].concat() } else { query("COMMIT") };
        wire.send(commit).await;
        sessions.until("query = 'COMMIT' AND state = 'idle'", 1).await;
        link.cut();
        link.resume();
        let frames = wire.cycle().await;
        assert_eq!((errors(&frames), statuses(&frames)), (vec!["08007".to_owned()], "I".to_owned()));
        goes_on(&mut wire).await;
    }
    // A COMMIT that was answered has no part in what is lost later.
    wire.query("BEGIN").await;
    assert_eq!(statuses(&wire.query("COMMIT AND CHAIN").await), "T");
    link.cut();
    let frames = wire.query("INSERT INTO t VALUES (1)").await;
    assert_eq!((errors(&frames), statuses(&frames)), (vec!["40001".to_owned()], "E".to_owned()));
    wire.query("ROLLBACK").await;
    goes_on(&mut wire).await;
}

// No error can follow half a row.
#[tokio::test]
async fn a_client_with_half_a_row_is_closed_and_nobody_else() {
    let postgres = Postgres::shared();
    let link = Link::to(postgres.endpoint("postgres").addr).await;
    let proxy = proxy().pool_size(2).backend(link.addr).start().await;
    let mut bystander = proxy.wire("app").await;
    let mut wire = proxy.wire("app").await;
    link.truncate_after(Toward::Frontend, 100_000);
    wire.send(query("SELECT repeat('x', 1000000)")).await;
    wire.expect("T").await;
    assert!(wire.next().await.is_none(), "half a row and the end");
    link.truncate_after(Toward::Frontend, usize::MAX);
    goes_on(&mut bystander).await;
    goes_on(&mut proxy.wire("app").await).await;
}

#[tokio::test]
async fn a_backend_that_closes_between_rows_gives_an_error_behind_them() {
    let (proxy, sessions) = started(1).await;
    let mut wire = proxy.wire("app").await;
    let sql =
        "SELECT CASE WHEN n > 2000 THEN pg_sleep(600)::text ELSE repeat('x', 100) END FROM generate_series(1, 3000) n";
    wire.send(query(sql)).await;
    sessions.until("wait_event = 'PgSleep'", 1).await;
    sessions.terminate("true").await;
    let frames = wire.cycle().await;
    assert_eq!((errors(&frames), statuses(&frames)), (vec!["08006".to_owned()], "I".to_owned()));
    goes_on(&mut wire).await;
}

#[tokio::test]
async fn a_client_whose_session_was_lost_is_closed_with_fatal() {
    // In session mode the server says so itself.
    for (mode, pin, code) in
        [("transaction", "CREATE TEMP TABLE mine (a int)", "08006"), ("session", "SELECT 1", "57P01")]
    {
        let proxy = proxy().pool_size(1).mode(mode).start().await;
        let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
        for is_busy in [false, true] {
            println!("{mode}, busy: {is_busy}");
            let mut wire = proxy.wire("app").await;
            wire.query(pin).await;
            if is_busy {
                wire.send(query(SLEEP)).await;
                sessions.until_running(SLEEP, 1).await;
            }
            sessions.terminate("true").await;
            let rest = wire.rest().await;
            assert_eq!(tags(&rest), if is_busy { "T E" } else { "E" });
            let fields = rest[rest.len() - 1].fields();
            assert_eq!((fields[&'S'].as_str(), fields[&'C'].as_str()), ("FATAL", code));
            assert_eq!(fields.contains_key(&'W'), code == "08006", "{fields:?}");
            goes_on(&mut proxy.wire("app").await).await;
        }
    }
}

// Nothing of it has run, so nothing of it can be lost.
#[tokio::test]
async fn a_statement_that_never_began_leaves_no_doubt_about_a_session() {
    let (proxy, sessions) = started(1).await;
    let unknown = [bind("", "nobody", &[]), sync(), execute("", 0), sync()].concat();
    for (failed, cycles) in [(unknown, 2), (query("SELECT pg_advisory_lock(1)"), 1)] {
        let mut wire = proxy.wire("app").await;
        wire.query("BEGIN").await;
        wire.query("SELECT 1/0").await;
        wire.send(&failed).await;
        for _ in 0..cycles {
            assert_eq!(tags(&wire.cycle().await), "E Z");
        }
        sessions.terminate("state LIKE 'idle in transaction%'").await;
        let frames = wire.query("ROLLBACK").await;
        assert_eq!((tags(&frames).as_str(), statuses(&frames).as_str()), ("C Z", "I"));
        goes_on(&mut wire).await;
    }
}

/// A backend lost while it is asked what its client holds there: whatever that was is gone.
#[tokio::test]
async fn a_client_that_may_have_lost_its_session_is_told() {
    let postgres = Postgres::shared();
    let link = Link::to(postgres.endpoint("postgres").addr).await;
    let proxy = proxy().pool_size(1).backend(link.addr).start().await;
    let mut wire = proxy.wire("app").await;
    wire.query("SELECT 1").await;
    link.delay(Duration::from_millis(300));
    wire.query("CREATE TEMP TABLE mine (a int)").await;
    // The question is on its way and has not been answered.
    link.cut();
    let rest = wire.rest().await;
    assert_eq!(tags(&rest), "E");
    assert_eq!(rest[0].fields()[&'C'], "08006");
}

/// Queries until told to stop; returns the SQLSTATEs of those that failed. The connection must survive.
async fn works(client: &Client, stop: &tokio::sync::watch::Receiver<bool>) -> Vec<String> {
    let mut failed = Vec::new();
    while !*stop.borrow() {
        match soon(client.query_one("SELECT 42", &[])).await {
            Ok(row) => assert_eq!(row.get::<_, i32>(0), 42),
            Err(error) => failed.push(error.code().unwrap_or_else(|| panic!("{error:?}")).code().to_owned()),
        }
    }
    failed
}

// A server that starts up refuses logins (57P03): waiting clients stay, and one login tries for all of them.
#[tokio::test]
async fn clients_at_work_survive_a_crash_of_the_server() {
    let mut postgres = Postgres::private(&[]);
    let config = "[databases.app]\nport = 0\n[pool]\nconnect_timeout = \"30s\""
        .replace("port = 0", &format!("port = {}", postgres.port));
    let proxy = proxy().postgres(&postgres).pool_size(4).toml(&config).start().await;
    let clients = join_all((0..12).map(|_| proxy.connect("app"))).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let crash = async {
        eventually(async || clients[0].query_one("SELECT 1", &[]).await.is_ok()).await;
        for crashes in [true, false] {
            if crashes {
                postgres.crash()
            } else {
                postgres.stop()
            }
            postgres.start();
            eventually(async || clients[0].query_one("SELECT 1", &[]).await.is_ok()).await;
        }
        stop.send_replace(true);
    };
    let (failed, ()) = tokio::join!(join_all(clients[1..].iter().map(|client| works(client, &stopped))), crash);
    for code in failed.into_iter().flatten() {
        assert!(["08006", "57P03"].contains(&code.as_str()), "{code}");
    }
    for client in &clients {
        client.query_one("SELECT 1", &[]).await.expect("it goes on by itself");
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_57p03_after_connect_timeout_until_it_is_back() {
    let mut postgres = Postgres::private(&[]);
    let proxy = proxy().postgres(&postgres).pool_size(2).toml("[pool]\nconnect_timeout = \"1s\"").start().await;
    postgres.stop();
    // Nobody was served yet, so there is nothing to greet a client with.
    let refused = proxy.try_connect("app").await.expect_err("no server");
    assert_eq!(refused.code().map(|code| code.code()), Some("57P03"));
    postgres.start();
    let clients = {
        eventually(async || proxy.try_connect("app").await.is_ok()).await;
        join_all((0..5).map(|_| proxy.connect("app"))).await
    };
    let mut wire = proxy.wire("app").await;
    postgres.stop();
    wire.send([query("BEGIN"), extended("SELECT 1", &[]), sync(), query("COMMIT")].concat()).await;
    assert_eq!(errors(&wire.expect("E Z E Z E Z").await), ["57P03"; 3]);
    let answers = join_all(clients.iter().map(|client| client.query_one("SELECT 1", &[]))).await;
    for answer in answers {
        assert_eq!(
            answer.err().and_then(|error| error.code().map(|code| code.code().to_owned())).as_deref(),
            Some("57P03")
        );
    }
    postgres.start();
    for client in &clients {
        eventually(async || client.query_one("SELECT 1", &[]).await.is_ok()).await;
    }
}
