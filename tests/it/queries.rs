//! Queries of every shape: what a client gets through pgweir is what Postgres sends, frame by frame.

use std::time::Duration;

use futures_util::future::join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::support::frontend::{
    bind, close_statement, describe_statement, execute, extended, flush, parse, query, sync,
};
use crate::support::{Endpoint, Wire, eventually, frontend, on_both, soon, tags};

#[tokio::test]
async fn simple_query_answers_with_its_rows() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        wire.send(query("SELECT 1, NULL, 'two'")).await;
        let frames = wire.expect("T D C Z").await;
        assert_eq!(frames[1].columns(), [Some("1".to_owned()), None, Some("two".to_owned())]);
        assert_eq!(frames[2].text(), "SELECT 1");
        assert_eq!(frames[3].text(), "I");
    })
    .await;
}

#[tokio::test]
async fn several_statements_in_one_query_share_a_cycle() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        wire.send(query("SELECT 1; CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2); SELECT a FROM t")).await;
        wire.expect("T D C C C T D D C Z").await;
        wire.send(query("INSERT INTO t VALUES (3); SELECT 1/0; SELECT 2")).await;
        wire.expect("C E Z").await;
        wire.send(query("SELECT count(*) FROM t")).await;
        assert_eq!(wire.expect("T D C Z").await[1].columns(), [Some("2".to_owned())], "one implicit transaction");
        wire.send(query(";")).await;
        wire.expect("I Z").await;
    })
    .await;
}

#[tokio::test]
async fn extended_query_with_a_named_statement() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        wire.send([parse("double", "SELECT $1::int * 2", &[]), describe_statement("double"), sync()].concat()).await;
        wire.expect("1 t T Z").await;
        for n in ["1", "21"] {
            wire.send([bind("", "double", &[Some(n.as_bytes())]), execute("", 0), sync()].concat()).await;
            let doubled = 2 * n.parse::<i32>().expect("a number");
            assert_eq!(wire.expect("2 D C Z").await[1].columns(), [Some(doubled.to_string())]);
        }
        wire.send([close_statement("double"), sync()].concat()).await;
        wire.expect("3 Z").await;
        wire.send([bind("", "double", &[Some(b"1")]), sync()].concat()).await;
        assert_eq!(wire.expect("E Z").await[0].sqlstate(), "26000");
    })
    .await;
}

#[tokio::test]
async fn a_portal_is_suspended_and_goes_on() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        let start = [parse("", "SELECT generate_series(1, 5)", &[]), bind("p", "", &[])].concat();
        wire.send([query("BEGIN"), start, execute("p", 2), sync()].concat()).await;
        wire.expect("C Z 1 2 D D s Z").await;
        wire.send([execute("p", 2), execute("p", 2), sync()].concat()).await;
        wire.expect("D D s D C Z").await;
        wire.send(query("COMMIT")).await;
        wire.expect("C Z").await;
    })
    .await;
}

#[tokio::test]
async fn flush_brings_answers_before_sync() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        wire.send([parse("", "SELECT $1::text", &[]), describe_statement(""), flush()].concat()).await;
        wire.expect("1 t T").await;
        wire.send([bind("", "", &[Some(b"x")]), execute("", 0), flush()].concat()).await;
        wire.expect("2 D C").await;
        wire.send(sync()).await;
        wire.expect("Z").await;
    })
    .await;
}

#[tokio::test]
async fn several_syncs_in_one_write_are_answered_in_order() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        let numbers: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        let cycle = |n: &String| [extended("SELECT $1::text", &[Some(n.as_bytes())]), sync()].concat();
        wire.send(numbers.iter().flat_map(cycle).collect::<Vec<u8>>()).await;
        for n in numbers {
            assert_eq!(wire.expect("1 2 T D C Z").await[3].columns(), [Some(n)]);
        }
    })
    .await;
}

#[tokio::test]
async fn an_error_in_a_pipeline_drops_the_rest_up_to_its_sync() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        let good = || extended("SELECT 1", &[]);
        let failing = [good(), extended("SELECT 1/$1::int", &[Some(b"0")]), good(), query("SELECT 'dropped'")].concat();
        wire.send([failing, sync(), good(), sync(), query("SELECT 2")].concat()).await;
        let frames = wire.expect("1 2 T D C 1 E Z 1 2 T D C Z T D C Z").await;
        assert_eq!(frames[6].sqlstate(), "22012");
    })
    .await;
}

#[tokio::test]
async fn a_failed_transaction_refuses_until_it_is_rolled_back() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        let status = |frames: Vec<super::support::Frame>| frames.last().expect("ReadyForQuery").text();
        wire.query("CREATE TABLE t (a int)").await;
        assert_eq!(status(wire.query("BEGIN").await), "T");
        assert_eq!(status(wire.query("INSERT INTO t VALUES (1)").await), "T");
        assert_eq!(status(wire.query("SAVEPOINT s").await), "T");
        assert_eq!(status(wire.query("SELECT 1/0").await), "E");
        assert_eq!(wire.query("SELECT 1").await[0].sqlstate(), "25P02");
        assert_eq!(status(wire.query("ROLLBACK TO s").await), "T");
        assert_eq!(status(wire.query("INSERT INTO t VALUES (2)").await), "T");
        assert_eq!(status(wire.query("COMMIT").await), "I");
        assert_eq!(wire.query("SELECT sum(a) FROM t").await[1].columns(), [Some("3".to_owned())]);
        wire.query("BEGIN; DELETE FROM t").await;
        assert_eq!(status(wire.query("ROLLBACK").await), "I");
        assert_eq!(wire.query("SELECT sum(a) FROM t").await[1].columns(), [Some("3".to_owned())]);
    })
    .await;
}

#[tokio::test]
async fn a_result_of_100_mb_arrives_whole() {
    on_both(async |at: &Endpoint| {
        let client = at.connect("app").await;
        let rows = soon(client.query("SELECT repeat('x', 100000), n FROM generate_series(1, 1000) n", &[])).await;
        let rows = rows.expect("1,000 rows");
        assert!(rows.iter().all(|row| row.get::<_, &str>(0).len() == 100_000));
        assert!(rows.iter().map(|row| row.get::<_, i32>(1)).eq(1..=1000));
    })
    .await;
}

#[tokio::test]
async fn one_value_of_20_mb_goes_there_and_back() {
    on_both(async |at: &Endpoint| {
        let client = at.connect("app").await;
        let value: Vec<u8> = (0..20_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let row = soon(client.query_one("SELECT $1::bytea, 7", &[&value])).await.expect("a row");
        assert!(row.get::<_, &[u8]>(0) == value, "the bytes came back changed");
        assert_eq!(row.get::<_, i32>(1), 7);
    })
    .await;
}

#[tokio::test]
async fn notices_come_in_their_place() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        let sql = "DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING ERRCODE = '01ABC'; END $$";
        wire.send([query(sql), query("SELECT 1")].concat()).await;
        let frames = wire.expect("N N C Z T D C Z").await;
        assert_eq!(frames[0].fields()[&'M'], "one");
        assert_eq!(frames[1].sqlstate(), "01ABC");

        let (client, mut messages) = at.connect_and_hear("app").await;
        client.batch_execute("DO $$ BEGIN RAISE NOTICE 'three'; END $$").await.expect("a notice");
        let message = soon(messages.recv()).await;
        assert!(matches!(message, Some(AsyncMessage::Notice(notice)) if notice.message() == "three"));
    })
    .await;
}

#[tokio::test]
async fn an_error_keeps_every_field_it_was_raised_with() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        let raise = "DO $$ BEGIN RAISE 'no' USING ERRCODE = 'ABCDE', DETAIL = 'd', HINT = 'h', TABLE = 't'; END $$";
        let fields = wire.query(raise).await[0].fields();
        let expected = [('S', "ERROR"), ('C', "ABCDE"), ('M', "no"), ('D', "d"), ('H', "h"), ('t', "t")];
        for (letter, text) in expected {
            assert_eq!(fields[&letter], text, "{letter}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_function_call_is_answered() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        let oid = wire.query("SELECT 'pg_catalog.int4pl'::regproc::oid").await[1].columns().remove(0);
        let oid = oid.and_then(|oid| oid.parse().ok()).expect("an oid");
        wire.send(frontend::function_call(oid, &[b"40", b"2"])).await;
        assert!(wire.expect("V Z").await[0].body.ends_with(b"42"));
    })
    .await;
}

#[tokio::test]
async fn cancel_ends_the_query_and_not_the_session() {
    on_both(async |at: &Endpoint| {
        let (client, busy) = (at.connect("app").await, at.connect("app").await);
        let cancel = busy.cancel_token();
        let canceller = async {
            let sleeping = async || {
                let count = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'";
                let count = client.query_one(&format!("{count} AND datname = current_database()"), &[]).await;
                count.expect("a count").get::<_, i64>(0) == 1
            };
            eventually(sleeping).await;
            cancel.cancel_query(NoTls).await.expect("a cancel");
        };
        let (slept, ()) = soon(async { tokio::join!(busy.batch_execute("SELECT pg_sleep(60)"), canceller) }).await;
        assert_eq!(slept.expect_err("it was cancelled").code(), Some(&SqlState::QUERY_CANCELED));
        busy.batch_execute("SELECT 1").await.expect("the session lives on");
    })
    .await;
}

#[tokio::test]
async fn a_cancel_with_a_wrong_key_is_closed_without_a_word_and_without_effect() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        let (process, secret) = wire.key.clone().expect("BackendKeyData");
        let wrong: Vec<u8> = secret.iter().map(|byte| !byte).collect();
        wire.send(query("SELECT pg_sleep(0.2)")).await;
        let mut cancel = Wire::open(at.addr).await;
        cancel.send(frontend::cancel_request(process, &wrong)).await;
        assert!(cancel.rest().await.is_empty());
        wire.expect("T D C Z").await;
    })
    .await;
}

#[tokio::test]
async fn many_clients_at_once_get_their_own_answers() {
    on_both(async |at: &Endpoint| {
        let clients = join_all((0..100).map(|_| at.connect("app"))).await;
        let asked = clients.iter().enumerate().map(async |(n, client)| {
            for round in 0..20_i32 {
                let n = i32::try_from(n).expect("below 100");
                let row = client.query_one("SELECT $1::int, $2::int", &[&n, &round]).await.expect("a row");
                assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1)), (n, round));
            }
        });
        soon(join_all(asked)).await;
    })
    .await;
}

#[tokio::test]
async fn bytes_that_trickle_in_are_a_query_too() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        for byte in [extended("SELECT 'slow'", &[]), sync(), query("SELECT 1")].concat() {
            wire.send([byte]).await;
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        assert_eq!(tags(&[wire.cycle().await, wire.cycle().await].concat()), "1 2 T D C Z T D C Z");
    })
    .await;
}
