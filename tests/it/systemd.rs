//! What systemd is told, and the sockets it hands over.

use std::net::TcpListener;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::UnixDatagram;

use crate::support::{PATIENCE, proxy, soon};

/// Stands for systemd's end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    path: String,
    _dir: TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("our own directory");
        Self { socket, path: path.display().to_string(), _dir: dir }
    }

    /// What it is told next, a line for each fact.
    async fn told(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let length = soon(self.socket.recv(&mut message)).await.expect("a datagram");
        String::from_utf8_lossy(&message[..length]).lines().map(str::to_owned).collect()
    }

    /// What it is told next that is not about the watchdog.
    async fn told_of_life(&self) -> Vec<String> {
        loop {
            let told = self.told().await;
            if told != ["WATCHDOG=1"] {
                return told;
            }
        }
    }
}

#[tokio::test]
async fn systemd_is_told_of_start_reload_and_end() {
    let manager = Manager::new();
    let mut proxy = proxy().env("NOTIFY_SOCKET", &manager.path).start().await;
    assert_eq!(manager.told().await, ["READY=1", "STATUS=serving"]);

    proxy.signal(Signal::HUP);
    let told = manager.told().await;
    assert!(told[0] == "RELOADING=1" && told[1].starts_with("MONOTONIC_USEC="), "{told:?}");
    assert_eq!(manager.told().await, ["READY=1", "STATUS=serving"]);

    proxy.overwrite("no configuration");
    proxy.signal(Signal::HUP);
    assert_eq!(manager.told().await[0], "RELOADING=1");
    assert_eq!(manager.told().await, ["READY=1", "STATUS=serving; the configuration file is invalid"]);

    proxy.signal(Signal::TERM);
    assert_eq!(manager.told().await, ["STOPPING=1", "STATUS=draining"]);
    assert!(proxy.ended().await, "exit code 0");
}

#[tokio::test]
async fn watchdog_is_fed_to_the_end() {
    let manager = Manager::new();
    let limit = Duration::from_millis(40).as_micros().to_string();
    let mut proxy = proxy().env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", limit).start().await;
    assert_eq!(manager.told_of_life().await[0], "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.told().await, ["WATCHDOG=1"]);
    }
    // A transaction keeps it from ending, which is no reason to kill it.
    let mut busy = proxy.wire("app").await;
    busy.query("BEGIN").await;
    proxy.signal(Signal::TERM);
    assert_eq!(manager.told_of_life().await[0], "STOPPING=1");
    for _ in 0..3 {
        assert_eq!(manager.told().await, ["WATCHDOG=1"]);
    }
    drop(busy);
    assert!(proxy.ended().await, "exit code 0");
}

#[tokio::test]
async fn watchdog_that_nobody_asked_for_is_silent() {
    let manager = Manager::new();
    // Meant for another process, as in a child of the service.
    let builder = proxy().env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    let proxy = builder.start().await;
    assert_eq!(manager.told().await[0], "READY=1");
    proxy.wire("app").await.query("SELECT pg_sleep(0.05)").await;
    proxy.signal(Signal::TERM);
    assert_eq!(manager.told().await[0], "STOPPING=1");
}

#[tokio::test]
async fn socket_that_is_handed_over_takes_the_place_of_listen_addr() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = socket.local_addr().expect("it is bound");
    // Nobody may listen there, so it is not tried.
    let mut proxy = proxy().socket(&socket).toml("[listen]\naddr = [\"192.0.2.1:1\"]").start().await;
    assert_eq!(proxy.addr, addr);
    proxy.wire("app").await.query("SELECT 1").await;
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().await, "exit code 0");
    // Whoever comes now waits for the next pgweir.
    let waiting = tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(addr));
    assert!(waiting.await.is_ok_and(|connected| connected.is_ok()));
}
