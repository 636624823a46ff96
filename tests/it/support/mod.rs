//! What behaviour tests are written with: a Postgres of their own, pgweir in front of it, a link that misbehaves, a raw
//! wire.

#![allow(dead_code, unused_imports, reason = "a kit: each part is there for the tests that need it")]

mod endpoint;
pub(crate) mod fake;
mod haproxy;
mod link;
mod patroni;
mod pki;
mod postgres;
mod process;
mod programs_page;
mod proxy;
mod redis;
mod sessions;
mod wire;

pub(crate) use endpoint::{Endpoint, password_of};
pub(crate) use haproxy::Haproxy;
pub(crate) use link::{Link, Toward};
pub(crate) use patroni::PatroniCluster;
pub(crate) use pki::Pki;
pub(crate) use postgres::{Postgres, free_port};
pub(crate) use process::{output_of, root};
pub(crate) use programs_page::{hold_row, listed_files};
pub(crate) use proxy::{Builder, Proxy, Row, proxy, proxy_before};
pub(crate) use redis::Redis;
pub(crate) use sessions::Sessions;
pub(crate) use wire::{Frame, Wire, errors, frontend, tags};

use std::time::Duration;

/// No wait in a test is longer than this; on a healthy machine none comes near it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `condition` again and again until it says yes, and panics when it does not within [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually<F>(condition: impl Fn() -> F) -> impl Future<Output = ()>
where
    F: Future<Output = bool>,
{
    let asked_at = std::panic::Location::caller();
    async move {
        let asking = async {
            while !condition().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, asking).await.is_err() {
            panic!("still not so after {PATIENCE:?}: {asked_at}");
        }
    }
}

/// Awaits `future`, and panics when it takes longer than [`PATIENCE`]: a test that hangs says where.
#[track_caller]
pub(crate) fn soon<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let asked_at = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_) => panic!("nothing after {PATIENCE:?}: {asked_at}"),
        }
    }
}

/// Runs `test` against Postgres itself, then through pgweir with its defaults: what holds for the one must hold for the
/// other. `PGWEIR_TEST_TARGET=postgres` (or `pgweir`) keeps to one of them.
pub(crate) async fn on_both(test: impl AsyncFn(&Endpoint)) {
    on_both_with(proxy(), test).await;
}

/// [`on_both`] with a proxy of the test's own.
pub(crate) async fn on_both_with(proxy: Builder<'_>, test: impl AsyncFn(&Endpoint)) {
    let wanted = std::env::var("PGWEIR_TEST_TARGET").ok();
    let wants = |target: &str| wanted.as_deref().is_none_or(|wanted| wanted == target);
    if wants("postgres") {
        println!("against Postgres itself");
        let postgres = Postgres::shared();
        postgres.role("app").await;
        test(&postgres.endpoint(&postgres.database().await)).await;
    }
    if wants("pgweir") {
        println!("through pgweir");
        let proxy = proxy.start().await;
        test(&proxy).await;
    }
}
