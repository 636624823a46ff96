//! Clients that go away, at every phase, politely or not: their query ends with them, their backend serves the next,
//! and nothing of theirs reaches anybody.

use std::time::Duration;

use tokio::time::timeout;

use crate::support::frontend::{
    PROTOCOL_3_0, bind, copy_data, describe_portal, execute, extended, flush, parse, query, startup, sync, terminate,
};
use crate::support::{Link, Postgres, Proxy, Sessions, Toward, Wire, proxy, tags};

/// A client that does something and is gone: with a FIN, with a reset, with a Terminate in front.
async fn gone_after(mode: &str, act: impl AsyncFn(&mut Wire, &Sessions)) {
    gone_by(&["fin", "reset", "terminate"], mode, act).await;
}

/// [`gone_after`] in the middle of a frame, where no Terminate fits.
async fn cut_off_after(mode: &str, act: impl AsyncFn(&mut Wire, &Sessions)) {
    gone_by(&["fin", "reset"], mode, act).await;
}

/// The next client has its own answers and settings, the table is as it was, and there is still one backend.
async fn gone_by(ways: &[&str], mode: &str, act: impl AsyncFn(&mut Wire, &Sessions)) {
    let proxy = proxy().pool_size(1).mode(mode).start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    let mut wire = proxy.wire("app").await;
    wire.query("CREATE TABLE t (a int)").await;
    drop(wire);
    for way in ways {
        println!("{mode} {way}");
        let mut wire = proxy.wire("app").await;
        act(&mut wire, &sessions).await;
        match *way {
            "fin" => drop(wire),
            "reset" => wire.reset(),
            _ => {
                wire.send(terminate()).await;
                wire.rest().await;
            }
        }
        is_served_well(&proxy, &sessions).await;
        assert_eq!(sessions.open().await, 1);
    }
}

/// A new client is served, by a backend that holds nothing of another's.
async fn is_served_well(proxy: &Proxy, sessions: &Sessions) {
    let mut next = proxy.wire("app").await;
    let asked = "SELECT 'mine', (SELECT count(*) FROM t), current_setting('work_mem'),
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
        (SELECT count(*) FROM pg_class WHERE relname = 'temporary')";
    next.send([query(asked), extended("SELECT 'mine too'", &[]), sync()].concat()).await;
    let frames = next.expect("T D C Z 1 2 T D C Z").await;
    let expected = ["mine", "0", "4MB", "0", "0"].map(|text| Some(text.to_owned()));
    assert_eq!(frames[1].columns(), expected);
    assert_eq!(frames[7].columns(), [Some("mine too".to_owned())]);
    assert_eq!(frames[9].text(), "I");
    assert!(sessions.open().await <= 1, "the pool may have one backend");
}

const SLEEP: &str = "SELECT pg_sleep(600)";

#[tokio::test]
async fn a_client_gone_before_or_in_its_startup_packet_leaves_no_trace() {
    let proxy = proxy().pool_size(1).start().await;
    let packet = startup(PROTOCOL_3_0, &[("user", "app"), ("database", "app")]);
    for sent in [0, 3, 4, 9, packet.len() - 1, packet.len()] {
        for resets in [false, true] {
            let mut wire = Wire::open(proxy.addr).await;
            wire.send(&packet[..sent]).await;
            if resets { wire.reset() } else { drop(wire) }
        }
    }
    // Half a password message, of a client that was asked for one.
    let mut wire = Wire::open(proxy.addr).await;
    wire.send(&packet).await;
    assert_eq!(wire.frame().await.tag, 'R');
    wire.send(b"p\0\0").await;
    drop(wire);
    assert_eq!(tags(&proxy.wire("app").await.query("SELECT 1").await), "T D C Z");
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    assert_eq!(sessions.open().await, 1);
}

#[tokio::test]
async fn a_client_gone_while_idle_leaves_its_backend_to_the_next() {
    for mode in ["transaction", "session"] {
        gone_after(mode, async |wire, _| {
            wire.query("SELECT 'of somebody else'").await;
        })
        .await;
    }
}

// A backend that has half a frame of a departed client would read the next client's bytes as its end.
#[tokio::test]
async fn a_client_gone_in_the_middle_of_a_frame_leaves_nothing_of_it() {
    for mode in ["transaction", "session"] {
        for sent in [1, 4, 5, 12] {
            cut_off_after(mode, async |wire, _| wire.send(&query("INSERT INTO t VALUES (1)")[..sent]).await).await;
        }
    }
    // So long that it was on its way to the backend already.
    cut_off_after("transaction", async |wire, _| {
        let long = query(&format!("INSERT INTO t VALUES (1) -- {}", "x".repeat(300_000)));
        wire.send(&long[..200_000]).await;
    })
    .await;
}

// The query is cancelled and its backend kept; closing the connection would leave it running on the server.
#[tokio::test]
async fn a_query_ends_with_its_client() {
    for mode in ["transaction", "session"] {
        gone_after(mode, async |wire, sessions| {
            wire.send(query(SLEEP)).await;
            sessions.until_running(SLEEP, 1).await;
        })
        .await;
        gone_after(mode, async |wire, sessions| {
            wire.send([extended(SLEEP, &[]), sync()].concat()).await;
            sessions.until_running(SLEEP, 1).await;
        })
        .await;
        // One behind the other: a cancel ends one of them.
        gone_after(mode, async |wire, sessions| {
            wire.send(query(SLEEP).repeat(4)).await;
            sessions.until_running(SLEEP, 1).await;
        })
        .await;
    }
}

// Half a frame behind a running query: the connection cannot be used again, but the query must still end.
#[tokio::test]
async fn a_query_ends_with_its_client_that_was_sending_the_next() {
    cut_off_after("transaction", async |wire, sessions| {
        let long = query(&format!("SELECT 1 -- {}", "x".repeat(300_000)));
        wire.send([&query(SLEEP), &long[..200_000]].concat()).await;
        sessions.until_running(SLEEP, 1).await;
    })
    .await;
    // A cancel ends one of them.
    cut_off_after("transaction", async |wire, sessions| {
        let long = query(&format!("SELECT 1 -- {}", "x".repeat(300_000)));
        wire.send([&query(SLEEP).repeat(3)[..], &long[..200_000]].concat()).await;
        sessions.until_running(SLEEP, 1).await;
    })
    .await;
}

// Terminate may come in any state; an open transaction is rolled back before anybody else gets its backend.
#[tokio::test]
async fn a_transaction_ends_with_its_client() {
    for mode in ["transaction", "session"] {
        gone_after(mode, async |wire, _| {
            wire.query("BEGIN").await;
            wire.query("INSERT INTO t VALUES (1)").await;
        })
        .await;
        gone_after(mode, async |wire, _| {
            wire.query("BEGIN").await;
            wire.query("SELECT 1/0").await;
        })
        .await;
        gone_after(mode, async |wire, sessions| {
            wire.query("BEGIN; INSERT INTO t VALUES (1)").await;
            wire.send(query(SLEEP)).await;
            sessions.until_running(SLEEP, 1).await;
        })
        .await;
    }
}

#[tokio::test]
async fn session_state_ends_with_its_client() {
    for mode in ["transaction", "session"] {
        gone_after(mode, async |wire, _| {
            wire.query("SET work_mem = '5MB'").await;
            wire.query("SELECT pg_advisory_lock(1)").await;
            wire.query("CREATE TEMP TABLE temporary (a int)").await;
            wire.query("PREPARE p AS SELECT 1").await;
        })
        .await;
    }
}

// An extended query without its Sync leaves the server in an implicit transaction, or skipping.
#[tokio::test]
async fn a_client_gone_between_parse_and_sync_leaves_no_open_unit() {
    let insert = || [parse("s", "INSERT INTO t VALUES (1)", &[]), bind("", "s", &[])].concat();
    gone_after("transaction", async |wire, _| {
        wire.send([insert(), flush()].concat()).await;
        wire.expect("1 2").await;
    })
    .await;
    gone_after("transaction", async |wire, _| {
        wire.send([insert(), execute("", 0), flush()].concat()).await;
        wire.expect("1 2 C").await;
    })
    .await;
    gone_after("transaction", async |wire, _| {
        wire.send([extended("SELECT 1/0", &[]), insert(), execute("", 0), flush()].concat()).await;
        wire.expect("1 E").await;
    })
    .await;
    gone_after("transaction", async |wire, _| {
        wire.send(
            [parse("", "SELECT generate_series(1, 9)", &[]), bind("", "", &[]), execute("", 2), flush()].concat(),
        )
        .await;
        wire.expect("1 2 D D s").await;
    })
    .await;
}

// The server waits for data of the departed client; the COPY must fail rather than end.
#[tokio::test]
async fn a_client_gone_in_copy_in_copies_nothing() {
    for mode in ["transaction", "session"] {
        // Before the server has said that it is ready for data, and after.
        gone_after(mode, async |wire, _| wire.send(query("COPY t FROM STDIN")).await).await;
        gone_after(mode, async |wire, _| {
            let copy = [parse("", "COPY t FROM STDIN", &[]), bind("", "", &[]), execute("", 0)].concat();
            wire.send(copy).await;
        })
        .await;
        gone_after(mode, async |wire, _| {
            wire.send(query("COPY t FROM STDIN")).await;
            wire.expect("G").await;
        })
        .await;
        gone_after(mode, async |wire, sessions| {
            wire.send(query("COPY t FROM STDIN")).await;
            wire.expect("G").await;
            wire.send(copy_data(b"1\n2\n")).await;
            sessions.until_running("COPY t FROM STDIN", 1).await;
        })
        .await;
        gone_after(mode, async |wire, _| {
            let copy = [parse("", "COPY t FROM STDIN", &[]), bind("", "", &[]), execute("", 0), flush()].concat();
            wire.send(copy).await;
            wire.expect("1 2 G").await;
            wire.send(copy_data(b"1\n2\n")).await;
        })
        .await;
        // Half a CopyData.
        cut_off_after(mode, async |wire, _| {
            wire.send(query("COPY t FROM STDIN")).await;
            wire.expect("G").await;
            wire.send(&copy_data(&b"1\n".repeat(1000))[..700]).await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_client_gone_with_results_unread_does_not_hold_its_backend() {
    for sql in [
        "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT",
        "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)",
    ] {
        gone_after("transaction", async |wire, sessions| {
            wire.send(query(sql)).await;
            // It writes until all buffers between are full, then waits for the client.
            sessions.until(format!("query = '{}' AND wait_event = 'ClientWrite'", sql.replace('\'', "''")), 1).await;
        })
        .await;
    }
}

// A backend is free at the last owed ReadyForQuery, and a Parse that was sent without its Sync holds it, too.
#[tokio::test]
async fn a_client_gone_with_a_pipeline_half_sent_leaves_nothing_of_it() {
    let cycle = |n: usize| [extended("SELECT $1::text", &[Some(n.to_string().as_bytes())]), sync()].concat();
    gone_after("transaction", async |wire, _| {
        let cycles: Vec<u8> = (0..100).flat_map(cycle).collect();
        let open = [parse("", "INSERT INTO t VALUES (1)", &[]), bind("", "", &[]), execute("", 0)].concat();
        wire.send([cycles, open, describe_portal("")].concat()).await;
        wire.expect("1 2 T D C Z").await;
    })
    .await;
    cut_off_after("transaction", async |wire, _| {
        let cycles: Vec<u8> = (0..10_000).flat_map(cycle).collect();
        wire.send(&cycles[..cycles.len() - 7]).await;
    })
    .await;
}

// Found by an audit: cancels ended one of them now and then, and 296 were committed after the client had gone.
#[tokio::test]
async fn nothing_of_a_pipeline_starts_once_its_client_is_gone() {
    let insert = "INSERT INTO t SELECT 1 FROM pg_sleep(0.1)";
    let pipelines = [query(insert).repeat(200), [extended(insert, &[]), sync()].concat().repeat(200)];
    for mode in ["transaction", "session"] {
        let proxy = proxy().pool_size(1).mode(mode).start().await;
        let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
        proxy.wire("app").await.query("CREATE TABLE t (a int)").await;
        for pipeline in &pipelines {
            for resets in [false, true] {
                proxy.wire("app").await.query("TRUNCATE t").await;
                let mut wire = proxy.wire("app").await;
                wire.send(pipeline.clone()).await;
                sessions.until_running(insert, 1).await;
                let mut other = proxy.wire("app").await;
                if resets {
                    wire.reset()
                } else {
                    drop(wire)
                }
                // Its answer shows that nothing of the pipeline runs any more: the pool has one backend.
                let done = other.query("SELECT count(*) <= 2 FROM t").await[1].columns();
                assert_eq!(done, [Some("t".to_owned())], "{mode}, reset: {resets}");
                assert_eq!(sessions.open().await, 1);
                assert_eq!(sessions.running(insert).await, 0);
            }
        }
    }
}

/// More than all sockets on the way take: its end stands behind bytes that nobody reads. A FIN would not even arrive.
async fn send_too_much_and_reset(mut wire: Wire) {
    let much = query(&format!("SELECT 1 /*{}*/", "x".repeat(1 << 20))).repeat(64);
    assert!(timeout(Duration::from_secs(2), wire.try_send(&much)).await.is_err(), "all of it was taken");
    wire.reset();
}

// Found by random sessions: neither its bytes nor its end were read, and it kept its backend until the server went on.
#[tokio::test]
async fn a_query_ends_with_its_client_that_has_sent_more_than_is_read() {
    let asleep = "SELECT pg_sleep(600)";
    let proxy = proxy().pool_size(1).toml("[pool]\nwait_timeout = \"10m\"").start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    let mut wire = proxy.wire("app").await;
    wire.send(query(asleep)).await;
    sessions.until_running(asleep, 1).await;
    send_too_much_and_reset(wire).await;
    assert_eq!(tags(&proxy.wire("app").await.query("SELECT 1").await), "T D C Z");
    assert_eq!(sessions.running(asleep).await, 0);
}

#[tokio::test]
async fn a_client_gone_while_it_waits_leaves_the_line_and_its_query_never_runs() {
    let proxy = proxy().pool_size(1).start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    let mut holder = proxy.wire("app").await;
    holder.query("CREATE TABLE t (a int)").await;
    holder.query("BEGIN").await;
    for resets in [false, true] {
        let mut waiter = proxy.wire("app").await;
        waiter.send(query("INSERT INTO t VALUES (1)")).await;
        if resets { waiter.reset() } else { drop(waiter) }
    }
    let mut polite = proxy.wire("app").await;
    polite.send([query("INSERT INTO t VALUES (1)"), terminate()].concat()).await;
    polite.half_close().await;
    polite.rest().await;
    holder.query("COMMIT").await;
    is_served_well(&proxy, &sessions).await;
}

// A write to a client that does not read must not hold a backend for ever.
#[tokio::test]
async fn a_client_that_stops_reading_harms_only_itself() {
    let proxy = proxy().pool_size(2).start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    let mut lazy = proxy.wire("app").await;
    lazy.send(query("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")).await;
    sessions.until("wait_event = 'ClientWrite'", 1).await;
    let mut other = proxy.wire("app").await;
    for _ in 0..20 {
        assert_eq!(tags(&other.query("SELECT 1").await), "T D C Z");
    }
    assert_eq!(sessions.open().await, 2);
    lazy.reset();
    sessions.until("wait_event = 'ClientWrite'", 0).await;
}

#[tokio::test]
async fn many_clients_gone_at_once_leave_a_pool_of_the_same_size() {
    let proxy = proxy().pool_size(3).start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    proxy.wire("app").await.query("CREATE TABLE t (a int)").await;
    for round in 0..5 {
        let mut wires = Vec::new();
        for n in 0..30 {
            let mut wire = proxy.wire("app").await;
            wire.send(if n % 2 == 0 { query(SLEEP) } else { query("BEGIN; INSERT INTO t VALUES (1)") }).await;
            wires.push(wire);
        }
        for (n, wire) in wires.into_iter().enumerate() {
            if n % 3 == round % 3 { wire.reset() } else { drop(wire) }
        }
        assert!(sessions.open().await <= 3);
    }
    sessions.until("state <> 'idle'", 0).await;
    let mut next = proxy.wire("app").await;
    assert_eq!(next.query("SELECT count(*) FROM t").await[1].columns(), [Some("0".to_owned())]);
    assert!(sessions.open().await <= 3);
}

// Nothing comes back from the server, the end of its connection neither.
#[tokio::test]
async fn a_backend_that_does_not_answer_is_given_up_after_cancel_timeout() {
    let postgres = Postgres::shared();
    let link = Link::to(postgres.endpoint("postgres").addr).await;
    let proxy = proxy().pool_size(1).backend(link.addr);
    let proxy =
        proxy.toml("[pool]\ncancel_timeout = \"200ms\"\n[databases.app]\ntls = { mode = \"disable\" }").start().await;
    let sessions = Sessions::of(postgres, &proxy.dbname).await;
    let mut wire = proxy.wire("app").await;
    wire.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    link.pause_toward(Toward::Frontend);
    drop(wire);
    sessions.until("true", 0).await;
    link.resume();
    assert_eq!(tags(&proxy.wire("app").await.query("SELECT 1").await), "T D C Z");
}
