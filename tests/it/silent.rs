//! Connections that say nothing, or too little: they keep nobody out.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::support::frontend::{PROTOCOL_3_0, ssl_request, startup};
use crate::support::{Pki, Proxy, Wire, eventually, password_of, proxy, soon, tags};

const CROWD: &str = "127.0.0.2";

/// A connection from this address.
async fn from(source: &str, addr: SocketAddr) -> Wire {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(source.parse().expect("an address"), 0)).expect("all of 127/8 is ours");
    Wire::over(socket.connect(addr).await.expect("it accepts"))
}

async fn silent(count: usize, addr: SocketAddr) -> Vec<Wire> {
    let mut wires = Vec::new();
    for _ in 0..count {
        wires.push(from(CROWD, addr).await);
    }
    wires
}

async fn works(proxy: &Proxy) {
    let mut wire = proxy.wire("app").await;
    assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z");
}

async fn arriving(proxy: &Proxy, count: f64) {
    eventually(async || (proxy.metric("pgweir_connections_arriving", &[]) - count).abs() < 0.5).await;
}

#[tokio::test]
async fn silent_connections_take_no_clients_place() {
    let proxy = proxy().toml("[listen]\nclients_max = 4").start().await;
    let _silent = silent(40, proxy.addr).await;
    arriving(&proxy, 40.0).await;
    let mut clients = join_all((0..4).map(|_| proxy.wire("app"))).await;
    for client in &mut clients {
        assert_eq!(tags(&client.query("SELECT 1").await), "T D C Z");
    }
    assert!(proxy.metric("pgweir_login_failures_total", &[]) < 0.5);
}

#[tokio::test]
async fn where_all_places_are_taken_the_oldest_silent_connection_of_the_crowd_gives_way() {
    let proxy = proxy().toml("[listen]\nclients_max = 10\nworkers = 1").start().await;
    let mut alone = from("127.0.0.3", proxy.addr).await;
    // 1024 places besides those of clients.
    let mut crowd = silent(1033, proxy.addr).await;
    arriving(&proxy, 1034.0).await;
    works(&proxy).await;
    assert!(crowd.remove(0).next().await.is_none(), "the oldest of the crowd");
    assert!(proxy.metric("pgweir_connections_gave_way_total", &[]) > 0.5);
    // The crowd goes on coming, and takes its own places only.
    let more = silent(500, proxy.addr).await;
    works(&proxy).await;
    alone.send(startup(PROTOCOL_3_0, &[("user", "app"), ("database", "app")])).await;
    let frames = alone.authenticate("app", &password_of("app")).await;
    assert_eq!(frames.last().map(|frame| frame.tag), Some('Z'), "one of another address has kept its place");
    drop((crowd, more));
    arriving(&proxy, 0.0).await;
}

#[tokio::test]
async fn a_startup_message_has_to_be_whole_in_time() {
    let pki = Pki::new();
    pki.issue("server", "127.0.0.1");
    let tls = format!(
        "[listen]\nstartup_timeout = \"300ms\"\ntls = {{ mode = \"allow\", cert = \"{}\", key = \"{}\" }}",
        pki.path("server.crt").display(),
        pki.path("server.key").display()
    );
    let proxy = proxy().toml(&tls).start().await;
    let packet = startup(PROTOCOL_3_0, &[("user", "app"), ("database", "app")]);
    for begun in [&b""[..], &packet[..3], &packet[..packet.len() - 1]] {
        let mut wire = Wire::open(proxy.addr).await;
        wire.send(begun).await;
        let fields = wire.frame().await.fields();
        assert_eq!((fields[&'S'].as_str(), fields[&'C'].as_str()), ("FATAL", "57014"));
        assert!(fields[&'H'].contains("listen.startup_timeout"), "{fields:?}");
        assert!(wire.next().await.is_none());
    }
    let mut wire = Wire::open(proxy.addr).await;
    wire.send(ssl_request()).await;
    assert_eq!(wire.byte().await, b'S');
    assert!(wire.next().await.is_none(), "a handshake that does not begin");
    // After it the client has all the time of its login.
    let mut slow = Wire::open(proxy.addr).await;
    slow.send(packet).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let frames = slow.authenticate("app", &password_of("app")).await;
    assert_eq!(frames.last().map(|frame| frame.tag), Some('Z'));
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_the_console_beside_them() {
    let proxy = proxy().toml("[listen]\nclients_max_per_address = 3").start().await;
    let mut first = proxy.wire("app").await;
    let _silent = [Wire::open(proxy.addr).await, Wire::open(proxy.addr).await];
    arriving(&proxy, 2.0).await;
    let mut wire = Wire::open(proxy.addr).await;
    wire.send(startup(PROTOCOL_3_0, &[("user", "app"), ("database", "app")])).await;
    let refused = wire.frame().await.fields();
    assert_eq!(refused[&'C'], "53300");
    assert!(refused[&'H'].contains("listen.clients_max_per_address"), "{refused:?}");
    assert_eq!(tags(&first.query("SELECT 1").await), "T D C Z");
    let mut other = from(CROWD, proxy.addr).await;
    other.send(startup(PROTOCOL_3_0, &[("user", "app"), ("database", "app")])).await;
    assert_eq!(other.authenticate("app", &password_of("app")).await.last().map(|frame| frame.tag), Some('Z'));
    assert_eq!(proxy.console("SHOW VERSION").await.len(), 1);
    assert!((proxy.metric("pgweir_login_failures_total", &["reason=\"address_clients_max\""]) - 1.0).abs() < 0.5);
    proxy.reload("[listen]\nclients_max_per_address = 100").await;
    works(&proxy).await;
}

#[tokio::test]
async fn silent_connections_to_the_admin_address_fail_no_probe() {
    let proxy = proxy().start().await;
    let mut silent = Vec::new();
    for n in 0..600 {
        let mut wire = Wire::over(TcpStream::connect(proxy.admin).await.expect("it accepts"));
        if n % 2 == 0 {
            wire.send("GET /healthz HT").await;
        }
        silent.push(wire);
    }
    for _ in 0..10 {
        let asked = Instant::now();
        assert_eq!(proxy.http("/healthz").0, 200);
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
    // Those that were let in last have their time, and no more of it.
    let mut last = silent.pop().expect("600 of them");
    soon(async { assert!(last.next().await.is_none()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_never_whole_leave_the_admin_address_to_others() {
    let proxy = proxy().toml("[admin]\ntoken = \"a-token-of-24-characters\"").start().await;
    let slow: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(proxy.admin).expect("it accepts");
            let head =
                "POST /actions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a-token-of-24-characters\r\n";
            write!(stream, "{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{").expect("it reads");
            stream
        })
        .collect();
    for _ in 0..5 {
        assert_eq!(proxy.http("/readyz").0, 200);
    }
    drop(slow);
}
