//! A new pgweir takes over from an old one while clients are at work.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use tokio::net::UnixStream;

use crate::support::frontend::{PROTOCOL_3_0, query, startup};
use crate::support::{Endpoint, Postgres, Proxy, Wire, eventually, password_of, proxy, soon, tags};

/// Runs pgbench; it fails with the first connection or transaction that does.
async fn pgbench(at: &Endpoint, arguments: &str) {
    let mut pgbench = Command::new("pgbench");
    pgbench.args(["-n", "-c", "4", "-j", "2"]).args(arguments.split(' '));
    let report = at.run("app", pgbench).await;
    assert!(report.contains("number of failed transactions: 0"), "{report}");
}

/// A new database with pgbench's tables; its name.
async fn bank() -> String {
    let postgres = Postgres::shared();
    let dbname = postgres.database().await;
    postgres.role("app").await;
    let mut fill = Command::new("pgbench");
    fill.args(["-i", "-q"]);
    postgres.endpoint(&dbname).run("app", fill).await;
    dbname
}

/// A client of a Unix socket.
async fn through(path: &Path) -> Wire<UnixStream> {
    let mut wire = Wire::over(UnixStream::connect(path).await.expect("somebody listens"));
    wire.send(startup(PROTOCOL_3_0, &[("user", "app"), ("database", "app")])).await;
    wire.authenticate("app", &password_of("app")).await;
    wire
}

async fn logins(proxy: &Proxy) -> f64 {
    proxy.metric("pgweir_logins_total", &[])
}

#[tokio::test]
async fn no_transaction_fails_when_two_share_a_socket_that_was_handed_over() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let dbname = bank().await;
    let one_more = || proxy().dbname(&dbname).socket(&socket).toml("[listen]\nlinger = \"1d\"");
    let mut old = one_more().start().await;
    // A connection for each transaction, and connections that stay.
    let (at, stays, is_over) = (Endpoint::clone(&old), old.wire("app").await, AtomicBool::new(false));
    let restart = async {
        eventually(async || logins(&old).await > 20.0).await;
        let new = one_more().start().await;
        eventually(async || logins(&new).await > 20.0).await;
        old.signal(Signal::TERM);
        old.logged("draining").await;
        let before = logins(&new).await;
        eventually(async || logins(&new).await > before + 20.0).await;
        drop(stays);
        assert!(old.ended().await, "exit code 0");
        is_over.store(true, Ordering::Release);
        new
    };
    // As long as it takes, however slow the machine is.
    let load = async {
        while !is_over.load(Ordering::Acquire) {
            pgbench(&at, "-C -t 25").await;
        }
    };
    let (new, ()) = tokio::join!(restart, load);
    drop(new);
}

#[tokio::test]
async fn no_transaction_fails_when_two_share_a_port() {
    let dbname = bank().await;
    let shares =
        |text: &str| proxy().dbname(&dbname).toml("[listen]\nreuse_port = true\nlinger = \"1d\"").toml(text).start();
    let mut old = shares("").await;
    let (at, mut stays) = (Endpoint::clone(&old), old.wire("app").await);
    let restart = async {
        eventually(async || logins(&old).await >= 5.0).await;
        let addresses = format!("[listen]\naddr = [\"{}\"]\n[admin]\naddr = \"{}\"", old.addr, old.admin);
        let new = shares(&addresses).await;
        old.signal(Signal::TERM);
        old.logged("draining").await;
        // Everybody who comes now comes to the new one, and pgbench stays with the old one to its end.
        for _ in 0..20 {
            assert_eq!(tags(&new.wire("app").await.query("SELECT 1").await), "T D C Z");
        }
        assert_eq!(tags(&stays.query("SELECT 1").await), "T D C Z");
        drop(stays);
        new
    };
    let (new, ()) = tokio::join!(restart, pgbench(&at, "-T 3"));
    assert!(old.ended().await, "exit code 0");
    // Their HTTP address was one, too; by now the new one has it alone.
    assert_eq!((logins(&new).await, new.metric("pgweir_draining", &[])), (20.0, 0.0));
}

#[tokio::test]
async fn port_is_not_shared_unless_both_say_so() {
    let old = proxy().start().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("proxy.toml");
    let listen = format!("[listen]\nreuse_port = true\naddr = [\"{}\"]\n[admin]\naddr = \"off\"\n", old.addr);
    let rest = "[databases.\"*\"]\nhost = \"127.0.0.1\"\n[roles.\"*\"]\nauth = \"trust\"\n";
    std::fs::write(&file, listen + rest).expect("our own directory");
    let mut new = tokio::process::Command::new(env!("CARGO_BIN_EXE_pgweir"));
    let ended = soon(new.arg("--config").arg(&file).kill_on_drop(true).output()).await.expect("pgweir is built");
    assert_eq!(ended.status.code(), Some(2), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[tokio::test]
async fn unix_socket_passes_to_the_new_one() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("socket");
    let listen = format!("[listen]\nreuse_port = true\naddr = [\"127.0.0.1:0\", \"unix:{}\"]", path.display());
    let mut old = proxy().toml(&listen).start().await;
    let mut before = through(&path).await;
    let new = proxy().dbname(&old.dbname).toml(&listen).start().await;
    // Nothing is left of the name it was made under.
    assert_eq!(std::fs::read_dir(dir.path()).expect("our own").count(), 1);
    let mut after = through(&path).await;
    for wire in [&mut before, &mut after] {
        assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z");
    }
    drop(before);
    old.signal(Signal::TERM);
    assert!(old.ended().await, "exit code 0");
    assert!(path.exists(), "the socket file is the new one's");
    after.send(query("SELECT 1")).await;
    after.expect("T D C Z").await;
    drop(new);
}
