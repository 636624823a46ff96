//! A recording of transactions, and what is made of it.

use std::process::Command;

use crate::support::{Proxy, eventually, frontend, proxy};

/// What this command says about the recording.
fn said(proxy: &Proxy, arguments: &[&str]) -> String {
    let file = proxy.file().with_file_name("flight.rec");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgweir"));
    let output = command.arg(arguments[0]).arg(file).args(&arguments[1..]).output().expect("pgweir is built");
    String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8")
}

/// The columns of a line of a replay: answered, waited, and so on.
fn line<'a>(table: &'a str, kind: &str) -> Vec<&'a str> {
    let line = table.lines().find(|line| line.contains(kind)).unwrap_or_else(|| panic!("no {kind}: {table}"));
    line.split(kind).nth(1).expect("it has columns").split_whitespace().collect()
}

#[tokio::test]
async fn a_recording_is_replayed_with_other_settings() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("flight.rec");
    let keys = format!("[recorder]\npath = {:?}\nsize = \"1MiB\"", path.to_str().expect("UTF-8"));
    let proxy = proxy().pool_size(4).toml(&keys).start().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(proxy.wire("app").await);
    }
    let queries = clients.into_iter().map(|mut wire| async move {
        for _ in 0..10 {
            wire.query("SELECT pg_sleep(0.02)").await;
        }
    });
    futures_util::future::join_all(queries).await;
    std::os::unix::fs::symlink(&path, proxy.file().with_file_name("flight.rec")).expect("our own directory");
    let config = proxy.file().to_str().expect("UTF-8").to_owned();
    let as_it_was = ["replay", "--config", &config];
    eventually(async || {
        said(&proxy, &as_it_was).contains(" happened ") && line(&said(&proxy, &as_it_was), "happened")[0] == "40"
    })
    .await;
    let table = said(&proxy, &as_it_was);
    assert_eq!(line(&table, "replayed")[0], "40", "{table}");
    let narrow = said(&proxy, &[&as_it_was[..], &["--set", "roles.app.transactions_max=1"]].concat());
    let replayed = line(&narrow, "replayed");
    assert_eq!((replayed[0], replayed[6]), ("40", "1"), "{narrow}");
    assert!(replayed[1].parse::<u32>().expect("a number") > 10, "most have to wait: {narrow}");
    assert!(said(&proxy, &["suggest"]).contains("transactions_max = 10"));
    assert!(
        said(&proxy, &["replay", "--config", &config, "--set", "roles.app.speed=9"])
            .contains("roles.app.speed: unknown key")
    );
}

#[tokio::test]
async fn what_is_lost_or_refused_is_recorded_as_well() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("flight.rec");
    let keys = format!("[recorder]\npath = {:?}\nsize = \"1MiB\"", path.to_str().expect("UTF-8"));
    let proxy = proxy().pool_size(1).toml("[pool]\nwaiters_max = 1").toml(&keys).start().await;
    std::os::unix::fs::symlink(&path, proxy.file().with_file_name("flight.rec")).expect("our own directory");
    let (mut goes, mut waits, mut refused) =
        (proxy.wire("app").await, proxy.wire("app").await, proxy.wire("app").await);
    goes.query("BEGIN").await;
    waits.send(frontend::query("SELECT 1")).await;
    eventually(async || proxy.metric("pgweir_waiters", &[]) == 1.0).await;
    assert_eq!(refused.failure("SELECT 2").await, "53300");
    drop(goes);
    waits.cycle().await;
    let config = proxy.file().to_str().expect("UTF-8").to_owned();
    // Served: the lost one and the one that waited. The columns are those of `replay`: answered is 0, refused is 4.
    eventually(async || {
        let said = said(&proxy, &["replay", "--config", &config]);
        said.contains(" happened ") && {
            let of = line(&said, "happened");
            (of[0], of[1], of[4]) == ("2", "1", "1")
        }
    })
    .await;
}
