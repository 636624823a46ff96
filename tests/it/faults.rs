//! Networks that are slow or torn, and servers that do not speak Postgres: clear errors for whom it concerns, and for
//! nobody else anything.

use std::time::Duration;

use crate::support::fake::{self, FakeServer};
use crate::support::frontend::{
    bind, close_statement, copy_data, copy_done, describe_statement, execute, extended, flush, frame, parse, query,
    sync,
};
use crate::support::{Endpoint, Frame, Link, Postgres, Proxy, Toward, Wire, eventually, on_both, proxy, tags};

/// All flows of the protocol, short enough to be sent byte by byte.
async fn all_flows_work(wire: &mut Wire) {
    wire.send(query("CREATE TEMP TABLE f (a int); DROP TABLE f")).await;
    wire.expect("C C Z").await;
    wire.send([parse("s", "SELECT $1::int + 1", &[]), describe_statement("s"), flush()].concat()).await;
    wire.expect("1 t T").await;
    wire.send([bind("", "s", &[Some(b"41")]), execute("", 0), sync()].concat()).await;
    assert_eq!(wire.expect("2 D C Z").await[1].columns(), [Some("42".to_owned())]);
    wire.send([close_statement("s"), sync()].concat()).await;
    wire.expect("3 Z").await;
    let failing = [extended("SELECT 1/0", &[]), extended("SELECT 1", &[]), query("SELECT 'skipped'"), sync()].concat();
    wire.send([failing, extended("SELECT 2", &[]), sync(), query("SELECT 3")].concat()).await;
    let frames = wire.expect("1 E Z 1 2 T D C Z T D C Z").await;
    assert_eq!(frames[1].sqlstate(), "22012");
    wire.send(query("BEGIN; SET LOCAL work_mem = '5MB'; CREATE TABLE f (a int)")).await;
    assert_eq!(wire.expect("C C C Z").await[3].text(), "T");
    wire.send([query("COPY f FROM STDIN"), copy_data(b"1\n2"), copy_data(b"\n3\n"), copy_done()].concat()).await;
    assert_eq!(wire.expect("G C Z").await[1].text(), "COPY 3");
    wire.send([parse("", "COPY f TO STDOUT", &[]), bind("", "", &[]), execute("", 0), sync()].concat()).await;
    wire.expect("1 2 H d d d c C Z").await;
    wire.send([query("ROLLBACK"), query("SELECT current_setting('work_mem')"), query("")].concat()).await;
    assert_eq!(wire.expect("C Z T D C Z I Z").await[3].columns(), [Some("4MB".to_owned())]);
    wire.send(query("DO $$ BEGIN RAISE NOTICE 'n'; END $$")).await;
    wire.expect("N C Z").await;
}

/// A proxy with a link on either side, and where its clients find it.
async fn between_links(size: u32) -> (Link, Proxy, Link, Endpoint) {
    let backends = Link::to(Postgres::shared().endpoint("postgres").addr).await;
    let proxy = proxy().pool_size(size).backend(backends.addr).start().await;
    let clients = Link::to(proxy.addr).await;
    let at = Endpoint { addr: clients.addr, ..(*proxy).clone() };
    (clients, proxy, backends, at)
}

// Decisions are made on whole frames, never on reads, and a full buffer with half a frame must not stall.
#[tokio::test]
async fn a_byte_at_a_time_is_enough_for_every_flow() {
    let (clients, _proxy, backends, at) = between_links(1).await;
    let mut wire = at.wire("app").await;
    backends.drip();
    all_flows_work(&mut wire).await;
    clients.drip();
    all_flows_work(&mut wire).await;
    all_flows_work(&mut at.wire("app").await).await;
}

#[tokio::test]
async fn a_slow_network_only_takes_longer() {
    let (clients, _proxy, backends, at) = between_links(2).await;
    clients.delay(Duration::from_millis(3));
    backends.delay(Duration::from_millis(7));
    let flows = (0..6).map(async |_| {
        let mut wire = at.wire("app").await;
        let sums =
            (0..10).map(|n: u32| [extended("SELECT $1::int", &[Some(n.to_string().as_bytes())]), sync()].concat());
        wire.send(sums.collect::<Vec<_>>().concat()).await;
        for n in 0..10 {
            assert_eq!(wire.expect("1 2 T D C Z").await[3].columns(), [Some(n.to_string())]);
        }
        wire.query("SET work_mem = '6MB'").await;
        assert_eq!(wire.query("SHOW work_mem").await[1].columns(), [Some("6MB".to_owned())]);
    });
    futures_util::future::join_all(flows).await;
    all_flows_work(&mut at.wire("app").await).await;
}

// Bytes that were passed on in part cannot be taken back; that connection is closed.
#[tokio::test]
async fn a_connection_to_the_server_may_be_cut_after_any_byte() {
    let link = Link::to(Postgres::shared().endpoint("postgres").addr).await;
    let proxy = proxy().pool_size(1).backend(link.addr).toml("[pool]\nconnect_timeout = \"1s\"").start().await;
    let mut last = proxy.wire("app").await;
    for toward in [Toward::Frontend, Toward::Backend] {
        for bytes in (1..700).step_by(97) {
            link.truncate_after(toward, bytes);
            link.cut();
            let mut wire = last;
            wire.send([query("SELECT 'one'"), extended("SELECT 'two'", &[]), sync()].concat()).await;
            for expected in ["one", "two"] {
                let frames = rest_of_cycle(&mut wire).await;
                if let Some(error) = frames.iter().find(|frame| frame.tag == 'E') {
                    assert!(["08006", "57P03"].contains(&error.sqlstate().as_str()), "{toward:?} {bytes}: {frames:?}");
                } else if frames.last().is_some_and(|frame| frame.tag == 'Z') {
                    let row = frames.iter().find(|frame| frame.tag == 'D').expect("a row");
                    assert_eq!(row.columns(), [Some(expected.to_owned())], "{toward:?} {bytes}");
                }
            }
            link.truncate_after(toward, usize::MAX);
            link.cut();
            // Back-off passes; then everybody is served again.
            last = proxy.wire("app").await;
            eventually(async || tags(&proxy.wire("app").await.query("SELECT 1").await) == "T D C Z").await;
        }
    }
}

/// A proxy in front of a server that answers `bad` to the query `bad`, and with a row to any other.
async fn in_front_of(bad: Vec<u8>) -> (FakeServer, Proxy) {
    let answer = move |tag: u8, body: &[u8]| match (tag, body) {
        (b'Q', b"bad\0") => bad.clone(),
        (b'Q', b"BEGIN\0") => [frame(b'C', b"BEGIN\0"), frame(b'Z', b"T")].concat(),
        (b'Q', _) => fake::row("good"),
        _ => Vec::new(),
    };
    let server = FakeServer::start(answer).await;
    let proxy = proxy().pool_size(2).backend(server.addr).start().await;
    (server, proxy)
}

/// Up to ReadyForQuery, or the end.
async fn rest_of_cycle(wire: &mut Wire) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = wire.next().await {
        frames.push(frame);
        if frames.last().is_some_and(|frame| frame.tag == 'Z') {
            break;
        }
    }
    frames
}

async fn is_served(wire: &mut Wire) {
    wire.send(query("SELECT 1")).await;
    assert_eq!(wire.expect("T D C Z").await[1].columns(), [Some("good".to_owned())]);
}

// A server is no more trusted than a client: lengths are checked before they are used (CVE-2026-6664 to 6666).
#[tokio::test]
async fn a_server_that_does_not_speak_the_protocol_loses_its_client_and_no_other() {
    let answers = [
        (&b"\xff\xff\xff\xff\xff\xff\xff\xff"[..], "no frame"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "another protocol"),
        (b"Z\0\0\0\x03", "a length that does not count itself"),
        (b"Z\0\0\0\x04", "ReadyForQuery without a status"),
        (b"Z\0\0\0\x05Q", "an unknown status"),
        (b"D\x7f\xff\xff\xff", "a row of 2 GiB"),
        (b"C\0\x10\0\0", "a tag of a megabyte"),
        (b"1\0\0\0\x04", "an answer to nothing that was asked"),
        (b"@\0\0\0\x04", "an unknown type"),
        (b"R\0\0\0\x08\0\0\0\x03", "a request for a password"),
        (b"G\0\0\0\x07\0\0\0Z\0\0\0\x05I1\0\0\0\x04", "an answer too many"),
    ];
    for (bad, what) in answers {
        println!("{what}");
        let (server, proxy) = in_front_of(bad.to_vec()).await;
        let mut bystander = proxy.wire("app").await;
        assert_eq!(tags(&bystander.query("BEGIN").await), "C Z");
        let mut wire = proxy.wire("app").await;
        is_served(&mut wire).await;
        wire.send(query("bad")).await;
        let frames = wire.rest().await;
        let error = frames.last().expect("an error").fields();
        assert_eq!((error[&'S'].as_str(), error[&'C'].as_str()), ("FATAL", "08P01"), "{error:?}");
        assert!(error[&'H'].contains("databases."), "the client is not to blame: {error:?}");
        eventually(async || server.open() == 1).await;
        is_served(&mut proxy.wire("app").await).await;
        is_served(&mut bystander).await;
    }
}

#[tokio::test]
async fn odd_errors_of_a_server_are_passed_on() {
    let ready = frame(b'Z', b"I");
    for body in
        [&b"\0"[..], b"", b"S", b"SERROR\0", b"C\0M\0\0", b"SERROR\0VERROR\0\0", b"Mno\xff\xfe text\0\0", b"SFATA\0\0"]
    {
        let (server, proxy) = in_front_of([frame(b'E', body), ready.clone()].concat()).await;
        let mut wire = proxy.wire("app").await;
        wire.send(query("bad")).await;
        assert_eq!(wire.expect("E Z").await[0].body, body);
        is_served(&mut wire).await;
        assert!(server.open() <= 1);
    }
}

#[tokio::test]
async fn odd_parameters_and_notices_of_a_server_harm_nobody() {
    let row = fake::row("bad");
    for odd in
        [frame(b'S', b""), frame(b'S', b"name"), frame(b'S', b"\xff\xfe\0\0"), frame(b'N', b""), frame(b'A', b"")]
    {
        let (_server, proxy) = in_front_of([odd, row.clone()].concat()).await;
        let mut wire = proxy.wire("app").await;
        wire.send(query("bad")).await;
        let frames = rest_of_cycle(&mut wire).await;
        if frames.last().is_some_and(|frame| frame.tag == 'Z') {
            is_served(&mut wire).await;
        }
        is_served(&mut proxy.wire("app").await).await;
    }
}

// A word of an idle server must not become the answer to the next query.
#[tokio::test]
async fn what_an_idle_server_says_is_nobodys_answer() {
    for (said, is_kept) in [
        (fake::row("of somebody else"), false),
        (frame(b'E', b"SFATAL\0C57P01\0Mgone\0\0"), false),
        (b"T\0\0".to_vec(), false),
        (frame(b'S', b"in_hot_standby\0off\0"), true),
        (frame(b'N', b"SNOTICE\0C00000\0Mnews\0\0"), true),
        (frame(b'A', b"\0\0\0\x01channel\0payload\0"), true),
    ] {
        let (server, proxy) = in_front_of(Vec::new()).await;
        let mut wire = proxy.wire("app").await;
        is_served(&mut wire).await;
        server.say(&said);
        if !is_kept {
            eventually(async || server.open() == 0).await;
        }
        for _ in 0..3 {
            wire.send(query("SELECT 1")).await;
            let frames = wire.cycle().await;
            // News may come while the client has the backend; a notification it has never asked for.
            let answer: Vec<_> = frames.iter().filter(|frame| !"SN".contains(frame.tag)).cloned().collect();
            assert_eq!(tags(&answer), "T D C Z");
            assert_eq!(answer[1].columns(), [Some("good".to_owned())]);
        }
        assert_eq!(server.open(), 1);
    }
}

#[tokio::test]
async fn a_client_that_does_not_speak_the_protocol_is_told_so_and_nobody_else_notices() {
    let proxy = proxy().pool_size(2).start().await;
    let mut bystander = proxy.wire("app").await;
    bystander.query("BEGIN").await;
    for bad in [
        &b"\xff\xff\xff\xff\xff\xff"[..],
        b"Q\0\0\0\x03",
        b"Q\x7f\xff\xff\xff",
        b"@\0\0\0\x04",
        b"P\0\0\0\x04",
        &frame(b'P', b"name without an end"),
        &frame(b'D', b""),
        &frame(b'C', b"S"),
        &frame(b'p', b"password\0"),
    ] {
        let mut wire = proxy.wire("app").await;
        wire.send(bad).await;
        let frames = wire.rest().await;
        let error = frames.last().unwrap_or_else(|| panic!("{bad:?}: no error")).fields();
        assert_eq!((error[&'S'].as_str(), error[&'C'].as_str()), ("FATAL", "08P01"), "{bad:?}");
        // Behind a good query it changes nothing of its answer.
        let mut wire = proxy.wire("app").await;
        wire.send([&query("SELECT 1")[..], bad].concat()).await;
        let frames = wire.rest().await;
        assert_eq!(frames.last().map(|frame| frame.tag), Some('E'), "{bad:?}");
    }
    assert_eq!(tags(&bystander.query("COMMIT").await), "C Z");
}

/// Good messages, then `bad` and more: answers up to the end of the connection.
async fn cut_off_by(at: &Endpoint, bad: &[u8]) {
    let unsynced = [parse("", "SELECT 1", &[]), bind("", "", &[]), execute("", 0)].concat();
    for (before, answers) in [(query("SELECT 1"), "T D C Z E"), (unsynced, "1 2 D C E")] {
        let mut wire = at.wire("app").await;
        wire.send([&before[..], bad, &query("SELECT 2")].concat()).await;
        let frames = wire.rest().await;
        assert_eq!(tags(&frames), answers, "{bad:?}");
        assert_eq!(frames.last().expect("an error").sqlstate(), "08P01");
    }
}

#[tokio::test]
async fn what_stands_in_front_of_garbage_is_answered_first() {
    on_both(async |at: &Endpoint| cut_off_by(at, b"@\0\0\0\x04").await).await;
    // Postgres skips to the Sync behind a Parse without an end, or says nothing of a length that cannot be.
    let proxy = proxy().pool_size(1).start().await;
    for bad in [&frame(b'P', b"name without an end")[..], b"Q\0\0\0\x01"] {
        cut_off_by(&proxy, bad).await;
    }
}
