//! COPY in both directions, and all the ways it ends early.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, pin_mut};

use crate::support::frontend::{bind, copy_data, copy_done, copy_fail, execute, flush, parse, query, sync};
use crate::support::{Endpoint, Frame, on_both, on_both_with, proxy, soon, tags};

#[tokio::test]
async fn a_million_rows_go_in_and_come_out() {
    on_both(async |at: &Endpoint| {
        let client = at.connect("app").await;
        client.batch_execute("CREATE TABLE t (a int, b text)").await.expect("a table");
        let sink = client.copy_in::<_, Bytes>("COPY t FROM STDIN").await.expect("COPY IN");
        pin_mut!(sink);
        for chunk in 0..1000 {
            let rows = (0..1000).map(|row| format!("{}\tsome text\n", chunk * 1000 + row));
            soon(sink.send(rows.collect::<String>().into())).await.expect("it reads");
        }
        assert_eq!(soon(sink.finish()).await.expect("rows"), 1_000_000);

        let stream = client.copy_out("COPY (SELECT a, b FROM t) TO STDOUT").await.expect("COPY OUT");
        pin_mut!(stream);
        let mut lines = 0;
        while let Some(chunk) = soon(stream.next()).await {
            lines += chunk.expect("data").iter().filter(|&&byte| byte == b'\n').count();
        }
        assert_eq!(lines, 1_000_000);
        client.batch_execute("SELECT 1").await.expect("the session goes on");
    })
    .await;
}

#[tokio::test]
async fn copy_in_the_simple_protocol_frame_by_frame() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        wire.query("CREATE TABLE t (a int)").await;
        wire.send(query("COPY t FROM STDIN; SELECT count(*) FROM t")).await;
        wire.expect("G").await;
        wire.send([copy_data(b"1\n2"), copy_data(b"\n3\n"), copy_done()].concat()).await;
        let frames = wire.expect("C T D C Z").await;
        assert_eq!((frames[0].text().as_str(), frames[2].columns()), ("COPY 3", vec![Some("3".to_owned())]));
        wire.send(query("COPY t TO STDOUT")).await;
        wire.expect("H d d d c C Z").await;
    })
    .await;
}

#[tokio::test]
async fn copy_in_the_extended_protocol_ignores_sync_and_flush_until_it_ends() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        wire.query("CREATE TABLE t (a int)").await;
        let start = [parse("", "COPY t FROM STDIN", &[]), bind("", "", &[]), execute("", 0)].concat();
        let data = [copy_data(b"1\n"), flush(), sync(), copy_data(b"2\n"), copy_done()].concat();
        wire.send([start, sync(), data, sync(), query("SELECT count(*) FROM t")].concat()).await;
        let frames = wire.expect("1 2 G C Z T D C Z").await;
        assert_eq!(frames[6].columns(), [Some("2".to_owned())]);
    })
    .await;
}

#[tokio::test]
async fn copy_that_the_client_fails_is_an_error_and_the_session_goes_on() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        wire.query("CREATE TABLE t (a int)").await;
        wire.send([query("COPY t FROM STDIN"), copy_data(b"1\n"), copy_fail("changed my mind")].concat()).await;
        let frames = wire.expect("G E Z").await;
        assert_eq!(frames[1].sqlstate(), "57014");
        assert!(frames[1].fields()[&'M'].contains("changed my mind"));
        wire.send(query("SELECT count(*) FROM t")).await;
        assert_eq!(wire.expect("T D C Z").await[1].columns(), [Some("0".to_owned())]);
    })
    .await;
}

#[tokio::test]
async fn copy_that_the_server_fails_swallows_the_data_still_coming() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        wire.query("CREATE TABLE t (a int)").await;
        let data = copy_data(b"not a number\n").repeat(10_000);
        wire.send([query("COPY t FROM STDIN"), data, copy_done(), query("SELECT 1")].concat()).await;
        assert_eq!(wire.expect("G E Z T D C Z").await[1].sqlstate(), "22P02");
    })
    .await;
}

// Postgres has lost its place in the stream then, and closes.
#[tokio::test]
async fn another_message_within_a_copy_ends_the_connection() {
    on_both(async |at: &Endpoint| {
        let start = [parse("", "COPY t FROM STDIN", &[]), bind("", "", &[]), execute("", 0)].concat();
        for (start, ready) in [(query("COPY t FROM STDIN"), "G"), (start, "1 2 G")] {
            for inside in [query("SELECT 1"), parse("", "SELECT 1", &[]), bind("", "", &[])] {
                let mut wire = at.wire("app").await;
                wire.query("CREATE TABLE IF NOT EXISTS t (a int)").await;
                wire.send(&start[..]).await;
                wire.expect(ready).await;
                wire.send([inside, sync(), query("SELECT 2")].concat()).await;
                let rest = wire.rest().await;
                assert_eq!(tags(&rest), "E E", "{rest:?}");
                assert_eq!(rest.iter().map(Frame::sqlstate).collect::<Vec<_>>(), ["08P01", "08P01"]);
            }
        }
    })
    .await;
}

async fn sends_another_message_behind_a_copy_that_fails(at: &Endpoint) {
    let mut wire = at.wire("app").await;
    wire.query("CREATE TABLE IF NOT EXISTS t (a int)").await;
    let start = [parse("", "COPY t FROM STDIN", &[]), bind("", "", &[]), execute("", 0)].concat();
    for (start, ready, tags) in [(query("COPY t FROM STDIN"), "G", "E Z 1 Z"), (start, "1 2 G", "E Z")] {
        wire.send(&start[..]).await;
        wire.expect(ready).await;
        wire.send([copy_data(b"no number\n"), parse("s", "SELECT 1", &[]), copy_done(), sync()].concat()).await;
        wire.expect(tags).await;
        assert_eq!(wire.value("SELECT 'it goes on'").await, "it goes on");
    }
}

// The server has failed the COPY when it reads the message, and carries it out.
#[tokio::test]
async fn another_message_behind_a_copy_that_has_failed_is_no_fault() {
    on_both(sends_another_message_behind_a_copy_that_fails).await;
    on_both_with(proxy().mode("session"), sends_another_message_behind_a_copy_that_fails).await;
}
