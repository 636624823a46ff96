//! What a client hears that listens, and when. What Postgres does by itself is held against Postgres itself.

use std::collections::HashSet;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::time::Instant;

use crate::support::frontend::{extended, flush, parse, query, startup, sync};
use crate::support::{
    Builder, Endpoint, Frame, Postgres, Proxy, Row, Wire, eventually, frontend, on_both_with, password_of, proxy, tags,
};

/// Process id of who notified, channel and payload of a NotificationResponse.
fn told(frame: &Frame) -> (u32, String, String) {
    assert_eq!(frame.tag, 'A', "{frame:?} is no NotificationResponse");
    let (pid, texts) = frame.body.split_first_chunk().expect("a process id");
    let texts = String::from_utf8_lossy(texts);
    let mut texts = texts.split('\0').map(str::to_owned);
    (u32::from_be_bytes(*pid), texts.next().expect("a channel"), texts.next().expect("a payload"))
}

/// The next frame, which is a notification: `channel payload`.
async fn hear(wire: &mut Wire) -> String {
    let (_, channel, payload) = told(&wire.frame().await);
    format!("{channel} {payload}")
}

fn pid(wire: &Wire) -> u32 {
    wire.key.as_ref().expect("it is logged in").0
}

async fn listener(endpoint: &Endpoint, channels: &[&str]) -> Wire {
    let mut wire = endpoint.wire("app").await;
    for channel in channels {
        assert_eq!(tags(&wire.query(&format!("LISTEN {channel}")).await), "C Z");
    }
    wire
}

/// In one process, one backend.
fn small() -> Builder<'static> {
    proxy().pool_size(1).toml("[notify]\nbus = \"memory\"")
}

#[tokio::test]
async fn an_idle_client_hears_at_once_and_from_whom() {
    on_both_with(small(), async |endpoint| {
        let (mut listens, mut notifies) = (listener(endpoint, &["jobs"]).await, endpoint.wire("app").await);
        for sql in ["NOTIFY jobs, 'one'", "SELECT pg_notify('jobs', 'one')", "NOTIFY other; NOTIFY jobs, 'one'"] {
            notifies.value(sql).await;
            let heard = told(&listens.frame().await);
            assert_eq!(heard, (pid(&notifies), "jobs".to_owned(), "one".to_owned()), "{sql}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_has_been_silent_for_long_is_woken() {
    let proxy = small().start().await;
    let (mut listens, mut busy) = (listener(&proxy, &["jobs"]).await, proxy.wire("app").await);
    let began = Instant::now();
    // Many ticks of its worker, and backends that come and go without it.
    for n in 0.. {
        busy.value("SELECT 1").await;
        if n >= 100 && began.elapsed() > Duration::from_secs(1) {
            break;
        }
    }
    busy.value("NOTIFY jobs").await;
    assert_eq!(hear(&mut listens).await, "jobs ");
}

#[tokio::test]
async fn notifications_come_in_the_order_of_their_commits_over_all_channels() {
    on_both_with(proxy().toml("[notify]\nbus = \"memory\""), async |endpoint| {
        let mut listeners = [listener(endpoint, &["a", "b"]).await, listener(endpoint, &["b", "a", "c"]).await];
        let notifiers = ["a", "b"].map(|channel| {
            let endpoint = endpoint.clone();
            tokio::spawn(async move {
                let mut wire = endpoint.wire("app").await;
                for n in 0..100 {
                    wire.value(&format!("BEGIN; NOTIFY {channel}, '{n}'; COMMIT")).await;
                }
            })
        });
        let mut heard = Vec::new();
        for wire in &mut listeners {
            let mut all = Vec::new();
            for _ in 0..200 {
                all.push(hear(wire).await);
            }
            heard.push(all);
        }
        for notifier in notifiers {
            notifier.await.expect("no panic");
        }
        assert_eq!(heard[0], heard[1], "everybody hears the same order");
        for channel in ["a ", "b "] {
            let own: Vec<_> = heard[0].iter().filter_map(|told| told.strip_prefix(channel)).collect();
            assert!(own.iter().enumerate().all(|(n, payload)| *payload == n.to_string()), "{channel}: {own:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_is_told_inside_a_transaction() {
    on_both_with(proxy().toml("[notify]\nbus = \"memory\""), async |endpoint| {
        let (mut listens, mut notifies) = (listener(endpoint, &["jobs"]).await, endpoint.wire("app").await);
        for end in ["COMMIT", "ROLLBACK"] {
            assert_eq!(tags(&listens.query("BEGIN").await), "C Z");
            notifies.value("NOTIFY jobs").await;
            assert_eq!(tags(&listens.query("SELECT 1").await), "T D C Z", "{end}");
            assert!(!listens.query("SELECT 1/0").await.iter().any(|frame| frame.tag == 'A'), "{end}");
            assert_eq!(tags(&listens.query(end).await), "C A Z", "{end}");
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_is_told_between_the_messages_of_an_answer() {
    on_both_with(proxy().toml("[notify]\nbus = \"memory\""), async |endpoint| {
        let (mut listens, mut other) = (listener(endpoint, &["jobs"]).await, endpoint.wire("app").await);
        other.value("SELECT pg_advisory_lock(1)").await;
        let sql = "SELECT 1; SELECT pg_advisory_xact_lock(1); SELECT n FROM generate_series(1, 3) n";
        listens.send(query(sql)).await;
        // Until it waits for the lock, some of it may have been answered.
        let other = tokio::sync::Mutex::new(other);
        let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        eventually(async || other.lock().await.value(waits).await != "0").await;
        let mut other = other.into_inner();
        other.value("NOTIFY jobs, 'now'").await;
        other.value("SELECT pg_advisory_unlock(1)").await;
        let frames = listens.cycle().await;
        assert_eq!(tags(&frames), "T D C T D C T D D D C A Z");
    })
    .await;
}

#[tokio::test]
async fn nothing_is_told_before_the_sync_of_an_extended_query() {
    let proxy = small().start().await;
    let (mut listens, mut witness) = (listener(&proxy, &["jobs"]).await, listener(&proxy, &["jobs"]).await);
    listens.send([parse("s", "SELECT 1", &[]), sync()].concat()).await;
    assert_eq!(tags(&listens.cycle().await), "1 Z");
    listens.send([parse("s2", "SELECT 1", &[]), flush()].concat()).await;
    listens.expect("1").await;
    witness.value("NOTIFY jobs").await;
    eventually(async || proxy.metric("pgweir_notify_delivered_total", &[]) > 0.5).await;
    assert!(proxy.metric("pgweir_notify_delivered_total", &[]) < 1.5);
    listens.send(sync()).await;
    listens.expect("A Z").await;
    // A Query ends the unit, too.
    listens.send([parse("s3", "SELECT 1", &[]), query("NOTIFY other")].concat()).await;
    listens.expect("1 C Z").await;
    witness.value("NOTIFY jobs").await;
    listens.expect("A").await;
}

#[tokio::test]
async fn everybody_on_a_channel_hears_it_the_notifier_too() {
    on_both_with(small(), async |endpoint| {
        let (mut one, mut other) = (listener(endpoint, &["jobs"]).await, listener(endpoint, &["jobs"]).await);
        for sql in ["NOTIFY jobs, 'x'", "BEGIN; NOTIFY jobs, 'x'; COMMIT"] {
            let frames = one.query(sql).await;
            assert!(tags(&frames).ends_with("C A Z"), "{sql}: {}", tags(&frames));
            let own = frames.iter().find(|frame| frame.tag == 'A').expect("it is there");
            assert_eq!(told(own), (pid(&one), "jobs".to_owned(), "x".to_owned()));
            assert_eq!(told(&other.frame().await), (pid(&one), "jobs".to_owned(), "x".to_owned()));
        }
    })
    .await;
}

#[tokio::test]
async fn who_listens_in_the_same_transaction_hears_what_it_notifies_of() {
    on_both_with(small(), async |endpoint| {
        let mut wire = endpoint.wire("app").await;
        assert_eq!(tags(&wire.query("BEGIN; NOTIFY a; LISTEN a; NOTIFY a, '2'; COMMIT").await), "C C C C C A A Z");
    })
    .await;
}

#[tokio::test]
async fn who_has_ended_listening_hears_nothing_more() {
    on_both_with(small(), async |endpoint| {
        let mut other = endpoint.wire("app").await;
        for end in ["UNLISTEN a", "UNLISTEN *", "DISCARD ALL", "BEGIN; UNLISTEN a; COMMIT"] {
            let mut wire = listener(endpoint, &["a"]).await;
            wire.value(end).await;
            other.value("NOTIFY a, 'unheard'").await;
            wire.value("LISTEN b").await;
            other.value("NOTIFY b, 'heard'").await;
            assert_eq!(hear(&mut wire).await, "b heard", "{end}");
        }
    })
    .await;
}

#[tokio::test]
async fn listening_begins_and_ends_with_the_commit() {
    on_both_with(proxy().toml("[notify]\nbus = \"memory\""), async |endpoint| {
        let (mut wire, mut other) = (listener(endpoint, &["stays"]).await, endpoint.wire("app").await);
        for undone in [
            "BEGIN; LISTEN a; ROLLBACK",
            "BEGIN; SAVEPOINT s; LISTEN a; ROLLBACK TO s; COMMIT",
            "BEGIN; UNLISTEN stays; ROLLBACK",
        ] {
            wire.value(undone).await;
        }
        assert!(wire.query("LISTEN a; SELECT 1/0").await.iter().any(|frame| frame.tag == 'E'));
        wire.value("BEGIN; LISTEN b").await;
        other.value("NOTIFY a; NOTIFY stays, '1'").await;
        assert_eq!(tags(&wire.query("COMMIT").await), "C A Z");
        other.value("NOTIFY a; NOTIFY b; NOTIFY stays, '2'").await;
        assert_eq!(hear(&mut wire).await, "b ");
        assert_eq!(hear(&mut wire).await, "stays 2");
    })
    .await;
}

#[tokio::test]
async fn channels_listened_to_are_told_in_their_order() {
    on_both_with(small(), async |endpoint| {
        let mut wire = listener(endpoint, &["b", "a", "\"C d\"", "b"]).await;
        wire.value("UNLISTEN a").await;
        for sql in ["SELECT pg_listening_channels()", "SELECT * FROM pg_listening_channels()"] {
            let simple = wire.query(sql).await;
            wire.send([extended(sql, &[]), sync()].concat()).await;
            for frames in [simple, wire.cycle().await] {
                let names: Vec<_> =
                    frames.iter().filter(|frame| frame.tag == 'D').flat_map(Frame::columns).flatten().collect();
                assert_eq!(names, ["b", "C d"], "{sql}");
                let tag = frames.iter().find(|frame| frame.tag == 'C').expect("it succeeds");
                assert_eq!(tag.text(), "SELECT 2");
            }
        }
        wire.value("BEGIN; LISTEN e").await;
        let frames = wire.query("SELECT pg_listening_channels()").await;
        assert_eq!(tags(&frames), "T D D C Z", "a channel counts from the commit on");
    })
    .await;
}

#[tokio::test]
async fn a_client_with_a_backend_of_its_own_hears_between_its_cycles() {
    for (mode, ties) in [("session", "SELECT 1"), ("transaction", "CREATE TEMP TABLE t (a int)")] {
        let proxy = proxy().mode(mode).toml("[notify]\nbus = \"memory\"").start().await;
        let (mut listens, mut other) = (proxy.wire("app").await, proxy.wire("app").await);
        listens.value(ties).await;
        listens.value("LISTEN jobs").await;
        for n in ["1", "2"] {
            other.value(&format!("NOTIFY jobs, '{n}'")).await;
            assert_eq!(hear(&mut listens).await, format!("jobs {n}"), "{mode}");
            assert_eq!(tags(&listens.query("SELECT 1").await), "T D C Z", "{mode}");
        }
    }
}

#[tokio::test]
async fn a_thousand_listeners_on_twenty_channels_need_no_backend() {
    let proxy = proxy().pool_size(1).toml("[listen]\nclients_max = 1100\n[notify]\nbus = \"memory\"").start().await;
    let mut listeners = Vec::new();
    for n in 0..1000 {
        listeners.push((n % 20, listener(&proxy, &[&format!("c{}", n % 20)]).await));
    }
    assert!((proxy.metric("pgweir_notify_listeners", &["database=\"app\""]) - 1000.0).abs() < 0.5);
    assert!((proxy.metric("pgweir_notify_channels", &["database=\"app\""]) - 20.0).abs() < 0.5);
    let mut other = proxy.wire("app").await;
    for channel in 0..20 {
        other.value(&format!("BEGIN; NOTIFY c{channel}, '1'; NOTIFY c{channel}, '2'; COMMIT")).await;
    }
    for (channel, wire) in &mut listeners {
        assert_eq!(hear(wire).await, format!("c{channel} 1"));
        assert_eq!(hear(wire).await, format!("c{channel} 2"));
    }
    assert!((proxy.metric("pgweir_notify_delivered_total", &[]) - 2000.0).abs() < 0.5);
    drop(listeners);
    eventually(async || proxy.metric("pgweir_notify_listeners", &[]) < 0.5).await;
}

/// Its socket takes little before it is full.
async fn narrow(proxy: &Proxy) -> Wire {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("any size");
    let mut wire = Wire::over(socket.connect(proxy.addr).await.expect("it accepts"));
    wire.send(startup(frontend::PROTOCOL_3_0, &[("user", "app"), ("database", "app")])).await;
    wire.authenticate("app", &password_of("app")).await;
    wire
}

#[tokio::test]
async fn one_that_does_not_read_is_told_so_and_others_hear_everything() {
    let proxy = proxy().toml("[notify]\nbus = \"memory\"\nlistener_queue = \"64KiB\"").start().await;
    let (mut deaf, mut listens) = (narrow(&proxy).await, listener(&proxy, &["jobs"]).await);
    deaf.value("LISTEN jobs").await;
    let mut other = proxy.wire("app").await;
    let mut said = 0;
    while proxy.metric("pgweir_notify_dropped_total", &["cause=\"listener\""]) < 0.5 {
        let payloads = said..said + 8;
        let texts = payloads.clone().map(|n| format!("NOTIFY jobs, '{n:07000}'")).collect::<Vec<_>>();
        other.value(&format!("BEGIN; {}; COMMIT", texts.join("; "))).await;
        for n in payloads {
            assert_eq!(hear(&mut listens).await, format!("jobs {n:07000}"));
        }
        said += 8;
    }
    let rest = deaf.rest().await;
    let (end, before) = rest.split_last().expect("it was told something");
    assert_eq!(end.sqlstate(), "53400");
    assert!(end.fields()[&'H'].contains("notify.listener_queue"), "{:?}", end.fields());
    for (n, frame) in before.iter().enumerate() {
        assert_eq!(told(frame).2, format!("{n:07000}"), "in order, and none left out");
    }
    assert!(before.len() < said);
    other.value("NOTIFY jobs, 'still'").await;
    assert_eq!(hear(&mut listens).await, "jobs still");
}

#[tokio::test]
async fn a_client_in_a_transaction_is_closed_at_its_end_when_too_much_waits() {
    let proxy = proxy().toml("[notify]\nbus = \"memory\"\nlistener_queue = \"64KiB\"").start().await;
    let (mut listens, mut other) = (listener(&proxy, &["jobs"]).await, proxy.wire("app").await);
    listens.value("BEGIN").await;
    for n in 0..12 {
        other.value(&format!("NOTIFY jobs, '{n:07000}'")).await;
    }
    assert_eq!(tags(&listens.query("CREATE TABLE kept (a int)").await), "C Z");
    listens.send(query("COMMIT")).await;
    let rest = listens.rest().await;
    assert_eq!(tags(&rest), "C Z E");
    assert_eq!(rest[2].sqlstate(), "53400");
    other.value("SELECT FROM kept").await;
}

#[tokio::test]
async fn what_cannot_be_told_in_the_clients_encoding_closes_it() {
    let proxy = small().start().await;
    let mut listens = listener(&proxy, &["jobs"]).await;
    listens.value("SET client_encoding = latin1").await;
    let mut other = proxy.wire("app").await;
    other.value("NOTIFY jobs, 'plain'").await;
    other.value("NOTIFY jobs, 'é'").await;
    let rest = listens.rest().await;
    assert_eq!(tags(&rest), "A E");
    assert_eq!(rest[1].sqlstate(), "22P05");
}

#[tokio::test]
async fn a_listen_that_would_hear_nothing_fails_in_the_end() {
    // The pool has the only connection of this role.
    let role = Postgres::shared().own_role("CONNECTION LIMIT 1").await;
    let proxy = small().role(&role, "").toml("[pool]\nconnect_timeout = \"1s\"").start().await;
    for (sql, answer) in [("LISTEN a", "E"), ("BEGIN; LISTEN a; COMMIT", "C C C Z E")] {
        let mut wire = proxy.wire(&role).await;
        wire.value("SELECT 1").await;
        wire.send(query(sql)).await;
        let rest = wire.rest().await;
        assert_eq!(tags(&rest), answer, "{sql}");
        let error = rest.last().expect("it is told");
        assert_eq!(error.sqlstate(), "08006");
        assert!(error.fields()[&'M'].starts_with("LISTEN failed: "), "{:?}", error.fields());
        assert!(error.fields()[&'H'].contains("pool.connect_timeout"), "{:?}", error.fields());
    }
    assert!(proxy.console("SHOW LISTENERS").await.is_empty());
    proxy.wire(&role).await.value("SELECT 1").await;
}

#[tokio::test]
async fn the_console_shows_who_listens_to_what() {
    let proxy = small().start().await;
    assert!(proxy.console("SHOW LISTENERS").await.is_empty());
    let (mut one, two) = (listener(&proxy, &["b", "a"]).await, listener(&proxy, &["a"]).await);
    let shown = async || {
        let rows = proxy.console("SHOW LISTENERS").await;
        let of = |row: &Row| (row["channel"].clone(), row["pid"].parse::<u32>().expect("a number"));
        rows.iter().map(of).collect::<Vec<_>>()
    };
    let mut all = vec![("a".to_owned(), pid(&one)), ("a".to_owned(), pid(&two)), ("b".to_owned(), pid(&one))];
    all.sort();
    assert_eq!(shown().await, all);
    let row = proxy.console("SHOW LISTENERS").await.swap_remove(0);
    assert_eq!((&*row["database"], &*row["user"], &*row["addr"]), ("app", "app", "127.0.0.1"));
    assert_eq!(row["queued_bytes"], "0");
    assert!(row["since"].ends_with(" UTC"));
    one.value("BEGIN").await;
    one.value("SELECT pg_notify('a', 'x'), 1").await;
    let mut other = proxy.database("app").wire("app").await;
    drop(two);
    eventually(async || shown().await.len() == 2).await;
    one.value("COMMIT").await;
    other.value("NOTIFY a").await;
}

#[tokio::test]
async fn metrics_say_what_happened() {
    let proxy = small().start().await;
    let count = |name: &str| proxy.metric(&format!("pgweir_notify_{name}"), &["database=\"app\""]).round() as u64;
    let mut listens = [listener(&proxy, &["a"]).await, listener(&proxy, &["a"]).await];
    let mut wire = proxy.wire("app").await;
    wire.value("BEGIN; NOTIFY a, '1'; NOTIFY a, '1'; NOTIFY b; COMMIT").await;
    wire.value("BEGIN; NOTIFY a, '2'; ROLLBACK").await;
    for listens in &mut listens {
        assert_eq!(hear(listens).await, "a 1");
    }
    assert_eq!(count("intercepted_total"), 4);
    assert_eq!(count("published_total"), 2);
    assert_eq!(count("folded_total"), 1);
    eventually(async || count("delivered_total") == 2).await;
    assert_eq!((count("dropped_total"), count("gaps_total"), count("queue")), (0, 0, 0));
    assert_eq!((count("listeners"), count("channels")), (2, 1));
}

#[tokio::test]
async fn a_listener_that_sends_nothing_is_idle() {
    // As in Postgres and PgBouncer: what a client is told does not count as something it does.
    let proxy = small().toml("[listen]\nidle_timeout = \"1s\"").start().await;
    let (mut listens, mut other) = (listener(&proxy, &["a"]).await, proxy.wire("app").await);
    let mut heard = HashSet::new();
    let end = loop {
        other.value("NOTIFY a").await;
        match listens.frame().await {
            frame if frame.tag == 'E' => break frame,
            frame => heard.insert(told(&frame).1),
        };
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(end.sqlstate(), "57P05");
    assert_eq!(heard.len(), 1);
}
