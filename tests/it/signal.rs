//! `pg_cancel_backend` and `pg_terminate_backend` with the ids that clients were told.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use crate::support::frontend::{bind, execute, parse, query, sync};
use crate::support::{Endpoint, Frame, Postgres, Proxy, Sessions, Wire, errors, on_both, proxy, tags};

const SLEEP: &str = "SELECT pg_sleep(600)";

fn id(wire: &Wire) -> i32 {
    i32::try_from(wire.key.as_ref().expect("a key").0).expect("ids are positive")
}

/// The column of the only row.
fn answer(frames: &[Frame]) -> Option<String> {
    frames.iter().find(|frame| frame.tag == 'D')?.columns().remove(0)
}

async fn started(size: u32) -> (Proxy, Sessions) {
    let proxy = proxy().pool_size(size).start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    (proxy, sessions)
}

#[tokio::test]
async fn ids_are_above_those_of_a_server_and_are_not_used_again_at_once() {
    let proxy = proxy().start().await;
    let wires = join_all((0..5).map(|_| proxy.wire("app"))).await;
    let mut ids: BTreeSet<_> = wires.iter().map(id).collect();
    drop(wires);
    ids.extend(join_all((0..5).map(|_| proxy.wire("app"))).await.iter().map(id));
    assert_eq!(ids.len(), 10);
    assert!(ids.first().is_some_and(|first| *first > 1 << 22), "{ids:?}");
}

#[tokio::test]
async fn a_query_is_cancelled_by_the_id_of_its_client() {
    let (proxy, sessions) = started(3).await;
    let mut busy = proxy.wire("app").await;
    let other = proxy.connect("app").await;
    let mut wire = proxy.wire("app").await;
    let id = id(&busy);
    for form in 0..4 {
        busy.send(query(SLEEP)).await;
        sessions.until_running(SLEEP, 1).await;
        let (call, text) = ("SELECT pg_cancel_backend($1)", id.to_string());
        let is_done = match form {
            0 => other.query_one(call, &[&id]).await.expect("an answer").get(0),
            1 => {
                answer(&wire.query(&format!("select pg_catalog.pg_cancel_backend({id}) AS done;")).await).as_deref()
                    == Some("t")
            }
            2 => {
                wire.send(
                    [parse("named", call, &[]), bind("", "named", &[Some(text.as_bytes())]), execute("", 0), sync()]
                        .concat(),
                )
                .await;
                answer(&wire.cycle().await).as_deref() == Some("t")
            }
            _ => {
                wire.send(
                    [
                        parse("", &format!("SELECT pg_cancel_backend({id})"), &[]),
                        bind("", "", &[]),
                        execute("", 0),
                        sync(),
                    ]
                    .concat(),
                )
                .await;
                answer(&wire.cycle().await).as_deref() == Some("t")
            }
        };
        assert!(is_done, "form {form}");
        assert_eq!(errors(&busy.cycle().await), ["57014"], "form {form}");
    }
}

#[tokio::test]
async fn a_client_cancels_and_ends_itself_as_without_a_pool() {
    on_both(async |at: &Endpoint| {
        let mut wire = at.wire("app").await;
        let id = id(&wire);
        assert_eq!(wire.failure(&format!("SELECT pg_cancel_backend({id})")).await, "57014");
        assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z");
    })
    .await;
}

#[tokio::test]
async fn a_client_without_a_backend_is_nobody_to_the_server() {
    let (proxy, _) = started(2).await;
    let idle = proxy.wire("app").await;
    let mut wire = proxy.wire("app").await;
    for function in ["pg_cancel_backend", "pg_terminate_backend"] {
        let frames = wire.query(&format!("SELECT {function}({})", id(&idle))).await;
        assert_eq!(answer(&frames).as_deref(), Some("f"));
        let warning = frames.iter().find(|frame| frame.tag == 'N').expect("a warning").fields();
        assert_eq!(warning[&'S'], "WARNING");
    }
}

#[tokio::test]
async fn the_server_checks_who_may_end_whom() {
    let postgres = Postgres::shared();
    let proxy = proxy().role("stranger", "").start().await;
    let sessions = Sessions::of(postgres, &proxy.dbname).await;
    let mut busy = proxy.wire("app").await;
    let mut stranger = proxy.wire("stranger").await;
    busy.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    assert_eq!(stranger.failure(&format!("SELECT pg_terminate_backend({})", id(&busy))).await, "42501");
    assert_eq!(sessions.running(SLEEP).await, 1);
    let mut friend = proxy.wire("app").await;
    let frames = friend.query(&format!("SELECT pg_terminate_backend({}, 5000)", id(&busy))).await;
    assert_eq!(answer(&frames).as_deref(), Some("t"));
    assert_eq!(errors(&busy.cycle().await), ["08006"]);
}

#[tokio::test]
async fn a_client_that_waits_stops_waiting_for_one_of_its_role() {
    let postgres = Postgres::shared();
    let other = format!("[databases.other]\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"postgres\"", postgres.port);
    let proxy = proxy().pool_size(1).role("stranger", "").toml(&other).start().await;
    let mut holder = proxy.wire("app").await;
    holder.query("BEGIN").await;
    let mut waiting = proxy.wire("app").await;
    waiting.send(query("SELECT 1")).await;
    let is_waiting = async || proxy.console("SHOW CLIENTS").await.iter().any(|row| row["state"] == "waiting");
    crate::support::eventually(is_waiting).await;
    let call = format!("SELECT pg_cancel_backend({})", id(&waiting));
    for role in ["stranger", "app"] {
        assert!(is_waiting().await);
        let frames = proxy.database("other").wire(role).await.query(&call).await;
        assert_eq!(answer(&frames).as_deref(), Some("f"));
    }
    assert_eq!(errors(&waiting.cycle().await), ["57014"]);
}
