//! CancelRequests: they end the query they are meant for, in whatever state it is, and never another.

use futures_util::future::join_all;

use crate::support::frontend::{self, PROTOCOL_3_2, extended, flush, query, startup, sync};
use crate::support::{Endpoint, Postgres, Proxy, Sessions, Wire, errors, password_of, proxy, tags};

pub(crate) const SLEEP: &str = "SELECT pg_sleep(600)";

/// Sends the CancelRequest of `wire` on a connection of its own and waits until that is closed, as libpq does.
pub(crate) async fn cancel(at: &Endpoint, wire: &Wire) {
    let (process, secret) = wire.key.as_ref().expect("BackendKeyData");
    cancel_with(at, *process, secret).await;
}

pub(crate) async fn cancel_with(at: &Endpoint, process: u32, secret: &[u8]) {
    let mut request = Wire::open(at.addr).await;
    request.send(frontend::cancel_request(process, secret)).await;
    assert!(request.rest().await.is_empty(), "a CancelRequest is never answered");
}

async fn started(size: u32) -> (Proxy, Sessions) {
    let proxy = proxy().pool_size(size).start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    (proxy, sessions)
}

#[tokio::test]
async fn a_running_query_is_cancelled_in_both_protocols_and_modes() {
    for mode in ["transaction", "session"] {
        let proxy = proxy().pool_size(1).mode(mode).start().await;
        let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
        let mut wire = proxy.wire("app").await;
        for sleep in [query(SLEEP), [extended(SLEEP, &[]), sync()].concat()] {
            wire.send(sleep).await;
            sessions.until_running(SLEEP, 1).await;
            cancel(&proxy, &wire).await;
            let frames = wire.cycle().await;
            assert_eq!((errors(&frames), frames[frames.len() - 1].text().as_str()), (vec!["57014".to_owned()], "I"));
            assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z");
        }
    }
}

#[tokio::test]
async fn a_cancelled_transaction_has_failed() {
    let (proxy, sessions) = started(1).await;
    let mut wire = proxy.wire("app").await;
    wire.query("BEGIN").await;
    wire.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    cancel(&proxy, &wire).await;
    assert_eq!(wire.expect("T E Z").await[2].text(), "E");
    assert_eq!(wire.query("ROLLBACK").await[1].text(), "I");
}

// A pooler that drops the cancel of a waiting client, or its place without an answer, leaves it hanging.
#[tokio::test]
async fn a_waiting_client_leaves_the_line_with_57014_and_its_query_never_runs() {
    let (proxy, _) = started(1).await;
    let mut holder = proxy.wire("app").await;
    holder.query("CREATE TABLE t (a int)").await;
    holder.query("BEGIN").await;
    let insert = "INSERT INTO t VALUES (1)";
    let mut simple = proxy.wire("app").await;
    simple.send([query(insert), query("SELECT 'behind'")].concat()).await;
    let mut extending = proxy.wire("app").await;
    extending.send([extended(insert, &[]), sync(), query("SELECT 'behind'")].concat()).await;
    // Before it is in line a cancel has no effect, as with Postgres: it is sent until there is one. The query behind is
    // refused with it, because the two may belong together.
    for wire in [&mut simple, &mut extending] {
        let frames = loop {
            cancel(&proxy, wire).await;
            let answered = tokio::time::timeout(std::time::Duration::from_millis(20), wire.expect("E Z E Z")).await;
            if let Ok(frames) = answered {
                break frames;
            }
        };
        assert_eq!(errors(&frames), ["57014"; 2]);
        assert_eq!((frames[0].fields()[&'S'].as_str(), frames[1].text().as_str()), ("ERROR", "I"));
        assert_eq!(frames[0].fields()[&'M'], "canceling statement due to user request");
    }
    holder.query("COMMIT").await;
    assert_eq!(simple.query("SELECT count(*) FROM t").await[1].columns(), [Some("0".to_owned())]);
}

// Postgres answers nothing to it, not even a ReadyForQuery.
#[tokio::test]
async fn a_cancel_of_an_idle_client_has_no_effect() {
    let (proxy, _) = started(1).await;
    let mut wire = proxy.wire("app").await;
    for _ in 0..20 {
        cancel(&proxy, &wire).await;
        assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z");
    }
    // Idle in a transaction: Postgres ignores it, too.
    wire.query("BEGIN").await;
    cancel(&proxy, &wire).await;
    assert_eq!(tags(&wire.query("COMMIT").await), "C Z");
}

#[tokio::test]
async fn a_cancel_with_any_other_key_has_no_effect() {
    let (proxy, sessions) = started(1).await;
    let mut wire = proxy.wire("app").await;
    let (process, secret) = wire.key.clone().expect("BackendKeyData");
    assert_eq!(secret.len(), 4, "protocol 3.0");
    wire.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    let inverted: Vec<u8> = secret.iter().map(|byte| !byte).collect();
    let longer = [&secret[..], &[0]].concat();
    let zeros = [0; 32];
    for (process, secret) in [
        (process, &inverted[..]),
        (process, &longer),
        (process, &secret[..3]),
        (process, &[]),
        (process, &zeros),
        (process + 1, &secret),
        (process | 1 << 31, &secret),
        (0, &secret),
        (u32::MAX, &zeros),
    ] {
        let mut request = Wire::open(proxy.addr).await;
        request.send(frontend::cancel_request(process, secret)).await;
        request.rest().await;
    }
    assert_eq!(sessions.running(SLEEP).await, 1);
    cancel(&proxy, &wire).await;
    assert_eq!(errors(&wire.cycle().await), ["57014"]);
}

// Some clients send a byte more, some wait for the end, some do not.
#[tokio::test]
async fn a_cancel_whose_connection_is_gone_at_once_is_a_cancel() {
    let (proxy, sessions) = started(1).await;
    let mut wire = proxy.wire("app").await;
    let (process, secret) = wire.key.clone().expect("BackendKeyData");
    for behind in [&b""[..], b"\0"] {
        wire.send(query(SLEEP)).await;
        sessions.until_running(SLEEP, 1).await;
        let mut request = Wire::open(proxy.addr).await;
        request.send([&frontend::cancel_request(process, &secret)[..], behind].concat()).await;
        drop(request);
        assert_eq!(errors(&wire.cycle().await), ["57014"]);
    }
}

#[tokio::test]
async fn a_cancel_in_a_pipeline_ends_the_cycle_it_finds() {
    let (proxy, sessions) = started(1).await;
    let mut wire = proxy.wire("app").await;
    let cycle = || [extended("SELECT 1", &[]), sync()].concat();
    wire.send(
        [cycle(), extended(SLEEP, &[]), extended("SELECT 'skipped'", &[]), sync(), cycle(), query("SELECT 2")].concat(),
    )
    .await;
    sessions.until_running(SLEEP, 1).await;
    cancel(&proxy, &wire).await;
    assert_eq!(errors(&wire.expect("1 2 T D C Z 1 2 T E Z 1 2 T D C Z T D C Z").await), ["57014"]);

    // Between Flush and Sync there is nothing to cancel.
    wire.send([extended("SELECT 3", &[]), flush()].concat()).await;
    wire.expect("1 2 T D C").await;
    cancel(&proxy, &wire).await;
    wire.send(sync()).await;
    wire.expect("Z").await;
}

// A CancelRequest does not say which protocol its client speaks; the key is found by its bytes.
#[tokio::test]
async fn a_client_of_protocol_3_2_cancels_with_its_longer_key() {
    let (proxy, sessions) = started(1).await;
    let mut wire = Wire::open(proxy.addr).await;
    wire.send(startup(PROTOCOL_3_2, &[("user", "app"), ("database", "app")])).await;
    wire.authenticate("app", &password_of("app")).await;
    assert_eq!(wire.key.as_ref().map(|(_, secret)| secret.len()), Some(32));
    wire.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    cancel(&proxy, &wire).await;
    assert_eq!(errors(&wire.cycle().await), ["57014"]);
}

// No part of a cancel waits for the pool.
#[tokio::test]
async fn cancels_pass_a_full_pool_and_a_full_house() {
    let proxy = proxy().pool_size(2).toml("[listen]\nclients_max = 6").start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    let mut wires = join_all((0..6).map(|_| proxy.wire("app"))).await;
    for wire in &mut wires {
        wire.send(query(SLEEP)).await;
    }
    for left in (0..6_i64).rev() {
        sessions.until_running(SLEEP, 2.min(left + 1)).await;
        // Whoever is at work is told apart by nobody but the server: cancel all, one of them gets its error.
        let wire = &mut wires[usize::try_from(left).expect("not negative")];
        while sessions.running(SLEEP).await > 0 {
            cancel(&proxy, wire).await;
            if let Ok(frames) = tokio::time::timeout(std::time::Duration::from_millis(20), wire.cycle()).await {
                assert_eq!(errors(&frames), ["57014"]);
                break;
            }
        }
    }
    assert!(sessions.open().await <= 2);
}

// A backend that is given away while a cancel is on its way to it would have the next client's query cancelled.
#[tokio::test]
async fn a_hundred_cancels_at_once_hit_nobody_else() {
    let proxy = proxy().pool_size(4).toml("[admission]\ncancel_rate_per_address = \"off\"").start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    let mut bystanders = join_all((0..20).map(|_| proxy.wire("app"))).await;
    let mut targets = join_all((0..10).map(|_| proxy.wire("app"))).await;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let is_over = || stop.load(std::sync::atomic::Ordering::Relaxed);
    let at_work = join_all(bystanders.iter_mut().map(async |wire| {
        while !is_over() {
            assert_eq!(tags(&wire.query("SELECT pg_sleep(0.01)").await), "T D C Z");
        }
    }));
    // Their queries are over at about the time the cancels arrive: that is where one could miss.
    let cancelled = async {
        let hits = join_all(targets.iter_mut().map(async |wire| {
            let (process, secret) = wire.key.clone().expect("BackendKeyData");
            let mut hits = 0;
            for _ in 0..10 {
                let shots = join_all((0..10).map(|_| cancel_with(&proxy, process, &secret)));
                let (frames, _) = tokio::join!(wire.query("SELECT pg_sleep(0.01)"), shots);
                hits += errors(&frames).len();
            }
            hits
        }));
        let hits: usize = hits.await.into_iter().sum();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        hits
    };
    let (_, hits) = tokio::join!(at_work, cancelled);
    assert!(hits > 0, "none of a thousand cancels found its query: nothing was tried");
    assert!(sessions.open().await <= 4);
}
