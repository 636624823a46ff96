//! How logins and cancels are let in: a storm is spread, what is too much is refused, and nobody is locked out by
//! others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, UnixStream};
use tokio::time::Instant;

use crate::support::frontend::{PROTOCOL_3_0, cancel_request, query, startup};
use crate::support::{Endpoint, Link, Postgres, Proxy, Sessions, Wire, eventually, password_of, proxy, tags};

const SLEEP: &str = "SELECT pg_sleep(600)";
const HERE: &str = "127.0.0.1";
const THERE: &str = "127.0.0.2";

/// A connection from this address.
async fn from(source: &str, at: &Endpoint) -> Wire {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(source.parse().expect("an address"), 0)).expect("all of 127/8 is ours");
    Wire::over(socket.connect(at.addr).await.expect("it accepts"))
}

/// Logs `app` in, or tells the fields of the refusal.
async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(mut wire: Wire<S>) -> Result<Wire<S>, BTreeMap<char, String>> {
    wire.send(startup(PROTOCOL_3_0, &[("user", "app"), ("database", "app")])).await;
    let frames = wire.authenticate("app", &password_of("app")).await;
    match frames.last() {
        Some(last) if last.tag == 'Z' => Ok(wire),
        Some(last) => Err(last.fields()),
        None => panic!("closed without a word"),
    }
}

async fn is_let_in(source: &str, at: &Endpoint) -> bool {
    log_in(from(source, at).await).await.is_ok()
}

/// Waits until so many logins of this storm wait for their slot, and no more are on their way.
async fn connected(proxy: &Proxy, count: f64) {
    eventually(async || (proxy.metric("pgweir_connections", &[]) - count).abs() < 0.5).await;
}

// admission-and-incidents §8.4
#[tokio::test]
async fn a_storm_of_logins_is_spread_and_all_get_in() {
    let proxy = proxy().toml("[admission]\nlogin_rate = \"100/s\"\nlogin_burst = 20").start().await;
    let start = Instant::now();
    let mut wires = join_all((0..200).map(|_| proxy.wire("app"))).await;
    // 20 at once and the other 180 one by one, whenever they came.
    assert!(start.elapsed() >= Duration::from_millis(1790), "{:?}", start.elapsed());
    for wire in &mut wires {
        assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z");
    }
    assert!(proxy.metric("pgweir_login_delay_seconds_count", &[]) > 0.5);
    assert!(proxy.metric("pgweir_login_delay_seconds_sum", &[]) > 0.0);
    assert!(proxy.metric("pgweir_login_failures_total", &[]) < 0.5);
}

#[tokio::test]
async fn logins_under_the_rate_wait_for_nothing() {
    let proxy = proxy().start().await;
    join_all((0..50).map(|_| proxy.wire("app"))).await;
    assert!(proxy.metric("pgweir_login_delay_seconds_count", &[]) < 0.5);
}

#[tokio::test]
async fn a_login_too_far_over_the_rate_is_refused_with_the_key_and_not_at_once() {
    let limits = "[admission]\nlogin_rate = \"4/h\"\nlogin_burst = 1\nlogin_delay_max = \"0s\"";
    let proxy = proxy().toml(limits).start().await;
    let mut first = proxy.wire("app").await;
    let start = Instant::now();
    let refused = log_in(Wire::open(proxy.addr).await).await.err().expect("one at once");
    assert!(start.elapsed() >= Duration::from_millis(500), "a client that comes back at once would spin");
    assert_eq!((refused[&'S'].as_str(), refused[&'C'].as_str()), ("FATAL", "53300"));
    assert!(refused[&'H'].contains("admission.login_rate,"), "{refused:?}");
    assert_eq!(tags(&first.query("SELECT 1").await), "T D C Z");
    assert!((proxy.metric("pgweir_login_failures_total", &["reason=\"login_rate\""]) - 1.0).abs() < 0.5);

    // Who may use the console gets in, whatever the rate; who only asks for it is one of the crowd.
    assert_eq!(proxy.console("SHOW VERSION").await.len(), 1);
    let mut wire = Wire::open(proxy.addr).await;
    wire.send(startup(PROTOCOL_3_0, &[("user", "app"), ("database", "pgweir")])).await;
    assert_eq!(wire.frame().await.sqlstate(), "53300");
}

#[tokio::test]
async fn where_there_is_no_room_a_client_is_not_refused_at_once() {
    for section in ["listen", "roles.app", "databases.app"] {
        let limits = &format!("[{section}]\nclients_max = 1");
        let proxy = proxy().toml(limits).start().await;
        let _first = proxy.wire("app").await;
        let start = Instant::now();
        let refused = log_in(Wire::open(proxy.addr).await).await.err().expect("one at a time");
        assert_eq!(refused[&'C'], "53300");
        assert!(start.elapsed() >= Duration::from_millis(500), "{limits}");
    }
}

#[tokio::test]
async fn no_more_clients_are_let_in_than_there_are_file_descriptors_for() {
    // 128 of the process itself, and 40 backends: 20 for each of two roles.
    let proxy = proxy().toml("[listen]\nclients_max = 5000").descriptors(180).start().await;
    let said = proxy
        .logged("listen.clients_max is lowered: the process may not open more files; raise LimitNOFILE or ulimit -n");
    let said = said.await;
    assert_eq!([&said["clients_max"], &said["descriptors"], &said["lowered_to"]], [5000, 180, 12]);
    let mut clients = join_all((0..12).map(|_| proxy.wire("app"))).await;
    let refused = log_in(Wire::open(proxy.addr).await).await.err().expect("one too many");
    assert_eq!(refused[&'C'], "53300");
    for client in &mut clients {
        assert_eq!(tags(&client.query("SELECT 1").await), "T D C Z");
    }
}

#[tokio::test]
async fn refused_logins_take_nobodys_place_while_they_wait_for_their_answer() {
    let limits = "login_rate = \"4/h\"\nlogin_burst = 3\nlogin_delay_max = \"0s\"";
    let proxy = proxy().toml(&format!("[listen]\nworkers = 1\nclients_max = 4\n[admission]\n{limits}")).start().await;
    let _clients = join_all((0..3).map(|_| proxy.wire("app"))).await;
    let mut refused = Vec::new();
    for _ in 0..10 {
        let mut wire = Wire::open(proxy.addr).await;
        wire.send(startup(PROTOCOL_3_0, &[("user", "app"), ("database", "app")])).await;
        // Whoever comes after it by the same door is served after it.
        proxy.console("SHOW VERSION").await;
        connected(&proxy, 3.0).await;
        refused.push(wire);
    }
    for wire in &mut refused {
        assert!(wire.frame().await.fields()[&'H'].contains("login_rate"), "there was room for one more");
    }
}

#[tokio::test]
async fn an_address_over_its_rate_is_refused_and_the_others_are_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let front = dir.path().join("front");
    let proxy = proxy()
        .toml("[admission]\nlogin_rate_per_address = \"4/h\"\nlogin_delay_max = \"0s\"")
        .toml(&format!("[listen]\naddr = [\"127.0.0.1:0\", \"unix:{}\"]", front.display()))
        .start()
        .await;
    assert!(is_let_in(HERE, &proxy).await);
    let refused = log_in(from(HERE, &proxy).await).await.err().expect("one at once");
    assert_eq!((refused[&'S'].as_str(), refused[&'C'].as_str()), ("FATAL", "53300"));
    assert!(refused[&'H'].contains("admission.login_rate_per_address"), "{refused:?}");
    assert!(is_let_in(THERE, &proxy).await);
    for _ in 0..3 {
        let local = Wire::over(UnixStream::connect(&front).await.expect("it listens"));
        assert!(log_in(local).await.is_ok(), "this machine has no rate of its own");
    }
    assert_eq!(proxy.console("SHOW VERSION").await.len(), 1);
    assert!(!is_let_in(HERE, &proxy).await);
    assert!((proxy.metric("pgweir_login_failures_total", &["reason=\"login_rate_per_address\""]) - 2.0).abs() < 0.5);
}

/// The second login waits for a minute, the third, too, and the fourth is refused.
const SLOW: &str = "[listen]\nlogin_timeout = \"200s\"\n
    [admission]\nlogin_rate = \"1/m\"\nlogin_burst = 1\nlogin_delay_max = \"150s\"";

#[tokio::test]
async fn a_reload_lets_those_in_who_wait() {
    let proxy = proxy().toml(SLOW).start().await;
    let _first = proxy.wire("app").await;
    let waiting = join_all((0..2).map(|_| proxy.wire("app")));
    let reload = async {
        connected(&proxy, 3.0).await;
        proxy.reload("[admission]\nlogin_rate = \"off\"").await;
    };
    let (mut wires, ()) = tokio::join!(waiting, reload);
    for wire in &mut wires {
        assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z");
    }
    // And back: the next one comes in as the first of the new rate, the one after it does not.
    proxy.reload("[admission]\nlogin_rate = \"4/h\"\nlogin_delay_max = \"0s\"").await;
    assert!(is_let_in(HERE, &proxy).await);
    assert!(!is_let_in(HERE, &proxy).await);
}

#[tokio::test]
async fn the_console_gets_in_during_a_storm() {
    let proxy = proxy().toml(SLOW).start().await;
    let _first = proxy.wire("app").await;
    let storm = join_all((0..50).map(async |_| log_in(Wire::open(proxy.addr).await).await));
    let console = async {
        eventually(async || proxy.metric("pgweir_login_failures_total", &["reason=\"login_rate\""]) > 47.5).await;
        assert_eq!(proxy.console("SHOW VERSION").await.len(), 1);
    };
    tokio::select! {
        _ = storm => panic!("two of them wait"),
        () = console => {}
    }
}

#[tokio::test]
async fn a_login_that_leaves_while_it_waits_is_gone() {
    let proxy = proxy().toml(SLOW).start().await;
    drop(proxy.wire("app").await);
    let mut wire = Wire::open(proxy.addr).await;
    wire.send(startup(PROTOCOL_3_0, &[("user", "app"), ("database", "app")])).await;
    connected(&proxy, 1.0).await;
    drop(wire);
    connected(&proxy, 0.0).await;
}

#[tokio::test]
async fn a_login_that_waits_is_told_of_a_shutdown_at_once() {
    let mut proxy = proxy().toml(SLOW).start().await;
    drop(proxy.wire("app").await);
    let mut wire = Wire::open(proxy.addr).await;
    wire.send(startup(PROTOCOL_3_0, &[("user", "app"), ("database", "app")])).await;
    connected(&proxy, 1.0).await;
    proxy.signal(Signal::TERM);
    assert_eq!(wire.frame().await.sqlstate(), "57P01");
    drop(wire);
    assert!(proxy.ended().await);
}

#[tokio::test]
async fn cancels_over_an_addresss_rate_are_dropped() {
    let proxy = proxy().toml("[admission]\ncancel_rate_per_address = \"4/h\"").start().await;
    let sessions = Sessions::of(Postgres::shared(), &proxy.dbname).await;
    let mut wire = proxy.wire("app").await;
    wire.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    let (process, secret) = wire.key.clone().expect("BackendKeyData");
    let cancel = async |source: &str, secret: &[u8]| {
        let mut request = from(source, &proxy).await;
        request.send(cancel_request(process, secret)).await;
        assert!(request.rest().await.is_empty());
    };
    cancel(HERE, b"guess").await;
    cancel(HERE, &secret).await;
    assert_eq!(sessions.running(SLEEP).await, 1);
    assert!((proxy.metric("pgweir_cancels_dropped_total", &[]) - 1.0).abs() < 0.5);
    cancel(THERE, &secret).await;
    let frames = wire.cycle().await;
    assert!(frames.iter().any(|frame| frame.tag == 'E' && frame.sqlstate() == "57014"));
    assert!((proxy.metric("pgweir_cancels_total", &["cause=\"client\""]) - 1.0).abs() < 0.5);
}

#[tokio::test]
async fn silent_logins_hold_nobody_up() {
    let proxy = proxy().toml("[admission]\nlogin_concurrency = 1").start().await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        let mut wire = Wire::open(proxy.addr).await;
        wire.send(startup(PROTOCOL_3_0, &[("user", "app"), ("database", "app")])).await;
        assert_eq!(wire.frame().await.tag, 'R');
        silent.push(wire);
        silent.push(Wire::open(proxy.addr).await);
    }
    join_all((0..10).map(|_| proxy.wire("app"))).await;
}

#[tokio::test]
async fn wrong_passwords_of_a_crowd_delay_a_right_one_by_one_turn() {
    let postgres = Postgres::shared();
    let (role, other) = (postgres.own_role("").await, postgres.own_role("").await);
    let link = Link::to(postgres.endpoint("").addr).await;
    let through = format!("[roles.{role}]\nauth = \"passthrough\"\n[roles.{other}]\nauth = \"passthrough\"");
    let proxy = proxy().toml(&through).backend(link.addr).start().await;
    let attempt = async |source: &str, role: &str, password: &str| {
        let mut wire = from(source, &proxy).await;
        wire.send(startup(PROTOCOL_3_0, &[("user", role), ("database", "app")])).await;
        wire.authenticate(role, password).await.last().map(|frame| frame.tag)
    };
    // Each check of a password takes some trips to the server, and few are made at once.
    link.delay(Duration::from_millis(20));
    let crowd = join_all((0..120).map(|_| attempt(THERE, &role, "wrong")));
    let wrong = || proxy.metric("pgweir_login_failures_total", &["reason=\"authentication\""]);
    let right = async {
        eventually(async || wrong() > 0.5).await;
        // The same role from elsewhere, and another role from where the crowd is.
        let (of_role, of_other) = (password_of(&role), password_of(&other));
        let (elsewhere, beside) = tokio::join!(attempt(HERE, &role, &of_role), attempt(THERE, &other, &of_other));
        assert_eq!((elsewhere, beside), (Some('Z'), Some('Z')));
        assert!(wrong() < 60.0, "{} of the crowd went before them", wrong());
    };
    let (crowd, ()) = tokio::join!(crowd, right);
    assert!(crowd.iter().all(|last| *last == Some('E')));
}

#[tokio::test]
async fn guesses_of_a_console_password_are_paced_like_logins() {
    let limits = "[admission]\nlogin_rate_per_address = \"2/m\"\nlogin_delay_max = \"0s\"";
    let proxy = proxy().toml(limits).start().await;
    let guess = async |password: &str| {
        let mut wire = from(THERE, &proxy).await;
        wire.send(startup(PROTOCOL_3_0, &[("user", "ops"), ("database", "pgweir")])).await;
        wire.authenticate("ops", password).await.last().map(|frame| frame.fields()[&'C'].clone())
    };
    assert_eq!(guess("wrong").await.as_deref(), Some("28P01"));
    assert_eq!(guess("wrong").await.as_deref(), Some("53300"));
    assert_eq!(proxy.console("SHOW VERSION").await.len(), 1, "from another address");
    let record = proxy.told(|fields| fields["message"] == "login failed" && fields["role"] == "ops").await;
    assert_eq!((&record["database"], &record["reason"]), (&"pgweir".into(), &"authentication".into()));
    assert!(record["client.addr"].as_str().is_some_and(|addr| addr.starts_with(THERE)), "{record}");
}

#[tokio::test]
async fn logins_are_recorded_where_that_is_wanted() {
    let proxy = proxy().start().await;
    proxy.wire("app").await;
    let logins = || proxy.records(|fields| fields["message"] == "login");
    assert!(logins().is_empty());
    proxy.reload("[listen]\nlog_logins = true").await;
    proxy.wire("app").await;
    let login = proxy.told(|fields| fields["message"] == "login" && fields["role"] == "app").await;
    assert_eq!((&login["database"], &login["kind"]), (&"app".into(), &"client".into()));
    proxy.console("SHOW VERSION").await;
    proxy.told(|fields| fields["message"] == "login" && fields["kind"] == "console").await;
}
