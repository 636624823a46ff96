//! The kit itself, without pgweir: what the other tests rest on.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Link, Postgres, Toward, Wire, eventually, frontend, tags};

#[tokio::test]
async fn a_role_logs_in_with_the_method_its_group_asks_for() {
    let postgres = Postgres::shared();
    let endpoint = postgres.endpoint(&postgres.database().await);
    for (group, request) in [("", 10), ("IN ROLE login_md5", 5), ("IN ROLE login_password", 3)] {
        let role = postgres.own_role(group).await;
        let mut wire = Wire::open(endpoint.addr).await;
        wire.send(frontend::startup(frontend::PROTOCOL_3_0, &[("user", &role), ("database", &endpoint.dbname)])).await;
        let asked = wire.frame().await;
        assert_eq!(asked.body[..4], i32::to_be_bytes(request), "{group}");

        endpoint.wire(&role).await;
        let mut wire = Wire::open(endpoint.addr).await;
        wire.send(frontend::startup(frontend::PROTOCOL_3_0, &[("user", &role), ("database", &endpoint.dbname)])).await;
        let refused = wire.authenticate(&role, "wrong").await;
        assert_eq!(refused[0].sqlstate(), "28P01", "{group}");
    }
}

#[tokio::test]
async fn a_private_server_can_be_stopped_crashed_and_started_again() {
    let mut postgres = Postgres::private(&["wal_level=logical"]);
    postgres.role("app").await;
    let endpoint = postgres.endpoint("postgres");
    assert_eq!(endpoint.psql("app", "SHOW wal_level").await, "logical\n");
    let mut wire = endpoint.wire("app").await;
    postgres.stop();
    assert_eq!(wire.rest().await[0].sqlstate(), "57P01");
    assert!(endpoint.try_connect("app").await.is_err());
    postgres.start();
    let mut wire = endpoint.wire("app").await;
    postgres.crash();
    wire.rest().await;
    postgres.start();
    assert_eq!(tags(&endpoint.wire("app").await.query("SELECT 1").await), "T D C Z");
}

#[tokio::test]
async fn a_link_delays_stalls_drips_and_cuts() {
    let postgres = Postgres::shared();
    postgres.role("app").await;
    let link = Link::to(postgres.endpoint("postgres").addr).await;
    let mut endpoint = postgres.endpoint("postgres");
    endpoint.addr = link.addr;

    link.drip();
    let mut wire = endpoint.wire("app").await;
    link.delay(Duration::from_millis(2));
    let before = Instant::now();
    assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z");
    assert!(before.elapsed() > Duration::from_millis(60), "a byte at a time, each delayed");
    link.delay(Duration::ZERO);

    link.pause_toward(Toward::Frontend);
    wire.send(frontend::query("SELECT 2")).await;
    assert!(tokio::time::timeout(Duration::from_millis(50), wire.frame()).await.is_err());
    link.resume();
    wire.expect("T D C Z").await;

    link.cut();
    assert!(wire.next().await.is_none());
    eventually(async || link.open() == 0).await;
}

#[tokio::test]
async fn a_link_truncates_half_closes_and_refuses() {
    let postgres = Postgres::shared();
    postgres.role("app").await;
    let link = Link::to(postgres.endpoint("postgres").addr).await;
    let mut endpoint = postgres.endpoint("postgres");
    endpoint.addr = link.addr;

    let mut wire = endpoint.wire("app").await;
    link.half_close(Toward::Backend);
    assert!(wire.next().await.is_none(), "Postgres ends a session whose client ended");

    let link = Link::to(postgres.endpoint("postgres").addr).await;
    link.truncate_after(Toward::Frontend, 3);
    let mut wire = Wire::open(link.addr).await;
    wire.send(frontend::startup(frontend::PROTOCOL_3_0, &[("user", "app")])).await;
    assert!(wire.next().await.is_none(), "three bytes are no frame");

    link.refuse(true);
    assert!(Wire::open(link.addr).await.next().await.is_none());
}
