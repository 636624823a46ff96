//! Several instances in front of one server: cancels reach the instance whose client they are meant for.
//!
//! `siblings = false` hides from instances that they share a host and a user; so they use addresses, as on several
//! hosts.

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cancel::{SLEEP, cancel, cancel_with};
use crate::support::frontend::{PROTOCOL_3_2, cancel_request, query, startup};
use crate::support::{
    Haproxy, Pki, Postgres, Proxy, Sessions, Wire, errors, eventually, free_port, password_of, proxy, proxy_before,
    tags,
};

/// A fleet that knows itself by its addresses, with these lines in each file.
async fn fleet(instances: u16, lines: &str) -> (Vec<Proxy>, Sessions) {
    let dbname = Postgres::shared().database().await;
    let addresses: Vec<_> = (1..=instances).map(|host| format!("127.0.0.{host}:{}", free_port())).collect();
    let mut fleet = Vec::new();
    for address in &addresses {
        let listen = format!("[listen]\naddr = [\"{address}\"]\n[fleet]\nsiblings = false\npeers = {addresses:?}");
        fleet.push(proxy().dbname(&dbname).pool_size(2).toml(&listen).toml(lines).start().await);
    }
    (fleet, Sessions::of(Postgres::shared(), &dbname).await)
}

/// Cancels that had this outcome.
fn cancels(proxy: &Proxy, outcome: &str) -> f64 {
    proxy.metric("pgweir_fleet_cancels_total", &[&format!("outcome=\"{outcome}\"")])
}

#[tokio::test]
async fn a_cancel_that_came_to_another_instance_ends_the_query_in_both_protocols() {
    let (fleet, sessions) = fleet(3, "").await;
    let mut old = fleet[0].wire("app").await;
    let mut new = Wire::open(fleet[0].addr).await;
    new.send(startup(PROTOCOL_3_2, &[("user", "app"), ("database", "app")])).await;
    new.authenticate("app", &password_of("app")).await;
    for wire in [&mut old, &mut new] {
        for other in &fleet[1..] {
            wire.send(query(SLEEP)).await;
            sessions.until_running(SLEEP, 1).await;
            cancel(other, wire).await;
            // The connection of the cancel ended when the server had been reached.
            assert_eq!(errors(&wire.cycle().await), ["57014"]);
        }
    }
    assert_eq!(fleet.iter().map(|one| cancels(one, "forwarded")).collect::<Vec<_>>(), [0.0, 2.0, 2.0]);
    assert_eq!(fleet.iter().map(|one| cancels(one, "received")).collect::<Vec<_>>(), [4.0, 0.0, 0.0]);
}

#[tokio::test]
async fn cancels_that_a_balancer_spreads_each_end_the_query_they_are_meant_for() {
    let (fleet, sessions) = fleet(3, "[pool]\nsize = 6\n[admission]\ncancel_rate_per_address = \"off\"").await;
    let haproxy = Haproxy::before(&fleet, "").await;
    let mut wires = Vec::new();
    // Three do not divide them: a client of one round comes to another instance in the next.
    for _ in 0..10 {
        wires.push(haproxy.endpoint().wire("app").await);
    }
    for wire in &mut wires {
        wire.send(query(SLEEP)).await;
    }
    for round in 0..6 {
        sessions.until_running(SLEEP, 10).await;
        // Nobody has these keys, but for the process id.
        for (wire, seed) in wires.iter().zip(0..) {
            let mut secret = [0; 4];
            fastrand::Rng::with_seed(100 * round + seed).fill(&mut secret);
            cancel_with(&haproxy.endpoint(), wire.key.as_ref().expect("BackendKeyData").0, &secret).await;
        }
        assert_eq!(sessions.running(SLEEP).await, 10);
        for wire in &mut wires {
            cancel(&haproxy.endpoint(), wire).await;
            assert_eq!(errors(&wire.cycle().await), ["57014"]);
        }
        for wire in &mut wires {
            assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z");
            wire.send(query(SLEEP)).await;
        }
    }
    let sum = |outcome| fleet.iter().map(|one| cancels(one, outcome)).sum::<f64>();
    assert!(sum("forwarded") > 20.0 && sum("received") == sum("forwarded"), "{}", sum("forwarded"));
    assert_eq!((sum("unknown"), sum("unreached")), (60.0, 0.0));
}

#[tokio::test]
async fn a_waiting_client_of_another_instance_leaves_its_queue() {
    let (fleet, _) = fleet(2, "[pool]\nsize = 1").await;
    let mut holder = fleet[0].wire("app").await;
    holder.query("BEGIN").await;
    let mut waiting = fleet[0].wire("app").await;
    waiting.send(query("SELECT 1")).await;
    eventually(async || fleet[0].metric("pgweir_waiters", &[]) == 1.0).await;
    cancel(&fleet[1], &waiting).await;
    assert_eq!(errors(&waiting.cycle().await), ["57014"]);
}

#[tokio::test]
async fn a_wrong_secret_cancels_nobody_anywhere() {
    let (fleet, sessions) = fleet(2, "[admission]\ncancel_rate_per_address = \"off\"").await;
    let mut wire = fleet[0].wire("app").await;
    let (process, secret) = wire.key.clone().expect("BackendKeyData");
    wire.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    for bit in 0..32_u8 {
        let mut wrong = secret.to_vec();
        wrong[usize::from(bit / 8)] ^= 1 << (bit % 8);
        cancel_with(&fleet[1], process, &wrong).await;
    }
    // Neither does an id that no instance tells, nor one of an instance that there is not.
    for pid in [0, 4711, process ^ 1, process ^ (1 << 20), process ^ (1 << 31)] {
        cancel_with(&fleet[1], pid, &secret).await;
    }
    assert_eq!(sessions.running(SLEEP).await, 1);
    assert_eq!((cancels(&fleet[1], "forwarded"), cancels(&fleet[1], "unknown")), (0.0, 37.0));
    cancel(&fleet[1], &wire).await;
    assert_eq!(errors(&wire.cycle().await), ["57014"]);
}

/// Asks as another instance does; the answer.
async fn ask(stream: &mut TcpStream, packet: &[u8]) -> Option<u8> {
    stream.write_all(packet).await.expect("it reads");
    let mut answer = [0];
    (stream.read(&mut answer).await.expect("it answers") == 1).then_some(answer[0])
}

fn question(from: u64, process: u32) -> Vec<u8> {
    let number = process >> 20 << 20;
    [&20_u32.to_be_bytes()[..], &[0x70, 0x77, 0, 1], &from.to_be_bytes(), &number.to_be_bytes()].concat()
}

// Or two instances with each other as peers would hand it to and fro.
#[tokio::test]
async fn what_came_from_another_instance_is_handed_to_nobody() {
    let (fleet, sessions) = fleet(2, "").await;
    let mut wire = fleet[0].wire("app").await;
    let (process, secret) = wire.key.clone().expect("BackendKeyData");
    wire.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    let other = fleet[1].wire("app").await.key.expect("BackendKeyData").0;
    let mut peer = TcpStream::connect(fleet[1].addr).await.expect("it accepts");
    assert_eq!(ask(&mut peer, &question(1, process)).await, Some(b'N'));
    let mut peer = TcpStream::connect(fleet[1].addr).await.expect("it accepts");
    assert_eq!(ask(&mut peer, &question(1, other)).await, Some(b'Y'));
    assert_eq!(ask(&mut peer, &cancel_request(process, &secret)).await, Some(b'N'));
    assert_eq!(sessions.running(SLEEP).await, 1);
    let mut peer = TcpStream::connect(fleet[0].addr).await.expect("it accepts");
    assert_eq!(ask(&mut peer, &question(1, process)).await, Some(b'Y'));
    assert_eq!(ask(&mut peer, &cancel_request(process, &secret)).await, Some(b'Y'));
    assert_eq!(errors(&wire.cycle().await), ["57014"]);
}

#[tokio::test]
async fn cancels_over_the_rate_of_their_address_are_not_handed_on() {
    let (fleet, sessions) = fleet(2, "[admission]\ncancel_rate_per_address = \"1/m\"").await;
    let mut wire = fleet[0].wire("app").await;
    wire.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    cancel(&fleet[1], &wire).await;
    assert_eq!(errors(&wire.cycle().await), ["57014"]);
    wire.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    cancel(&fleet[1], &wire).await;
    assert_eq!(fleet[1].metric("pgweir_cancels_dropped_total", &[]), 1.0);
    assert_eq!((cancels(&fleet[1], "forwarded"), cancels(&fleet[0], "received")), (1.0, 1.0));
    assert_eq!(sessions.running(SLEEP).await, 1);
}

#[tokio::test]
async fn instances_check_each_others_certificates() {
    let (pki, others) = (Pki::new(), Pki::new());
    pki.issue("server", "127.0.0.1");
    let [cert, key, ca] = ["server.crt", "server.key", "ca.crt"].map(|name| pki.path(name).display().to_string());
    let listen = format!("[listen]\ntls = {{ mode = \"allow\", cert = \"{cert}\", key = \"{key}\" }}");
    let verify = |ca: &str| format!("[fleet]\ntls = {{ mode = \"verify-ca\", ca = \"{ca}\" }}");
    let (fleet, sessions) = fleet(2, &format!("{listen}\n{}", verify(&ca))).await;
    let mut wire = fleet[0].wire("app").await;
    wire.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    // A wrong authority: nothing is told to whoever answers there.
    fleet[1].reload(&verify(&others.path("ca.crt").display().to_string())).await;
    cancel(&fleet[1], &wire).await;
    assert_eq!((cancels(&fleet[1], "unreached"), sessions.running(SLEEP).await), (1.0, 1));
    fleet[1].reload(&verify(&ca)).await;
    eventually(async || {
        cancel(&fleet[1], &wire).await;
        cancels(&fleet[1], "forwarded") >= 1.0
    })
    .await;
    assert_eq!(errors(&wire.cycle().await), ["57014"]);
}

#[tokio::test]
async fn a_new_instance_that_shares_the_port_cancels_for_the_old_one() {
    let dbname = Postgres::shared().database().await;
    let shares =
        |text: &str| proxy().dbname(&dbname).toml("[listen]\nreuse_port = true\nlinger = \"1d\"").toml(text).start();
    let old = shares("").await;
    let mut wire = old.wire("app").await;
    let addresses = format!("[listen]\naddr = [\"{}\"]\n[admin]\naddr = \"{}\"", old.addr, old.admin);
    let new = shares(&addresses).await;
    old.signal(Signal::TERM);
    old.logged("draining").await;
    let sessions = Sessions::of(Postgres::shared(), &dbname).await;
    wire.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    cancel(&new, &wire).await;
    assert_eq!(errors(&wire.cycle().await), ["57014"]);
    assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z");
}

// The addresses of [listen] are closed then.
#[tokio::test]
async fn an_instance_that_drains_is_reached_by_its_address_for_peers() {
    let dbname = Postgres::shared().database().await;
    let ports: Vec<_> = (0..2).map(|_| format!("127.0.0.1:{}", free_port())).collect();
    let mut fleet = Vec::new();
    for port in &ports {
        let text =
            format!("[listen]\nlinger = \"1d\"\n[fleet]\nsiblings = false\naddr = \"{port}\"\npeers = {ports:?}");
        fleet.push(proxy().dbname(&dbname).toml(&text).start().await);
    }
    let mut wire = fleet[0].wire("app").await;
    fleet[0].signal(Signal::TERM);
    fleet[0].logged("draining").await;
    let sessions = Sessions::of(Postgres::shared(), &dbname).await;
    wire.send(query(SLEEP)).await;
    sessions.until_running(SLEEP, 1).await;
    cancel(&fleet[1], &wire).await;
    assert_eq!(errors(&wire.cycle().await), ["57014"]);
    // It lets no clients in.
    let mut stream = TcpStream::connect(ports[1].parse::<std::net::SocketAddr>().unwrap()).await.expect("it accepts");
    assert_eq!(ask(&mut stream, &startup(PROTOCOL_3_2, &[("user", "app")])).await, None);
}

// They send no header, and could not come in by an address where balancers do.
#[tokio::test]
async fn peers_have_an_address_of_their_own_where_their_network_is_that_of_the_balancer() {
    let dbname = Postgres::shared().database().await;
    let ports: Vec<_> = (0..2).map(|_| format!("127.0.0.1:{}", free_port())).collect();
    let mut fleet = Vec::new();
    for port in &ports {
        let text = format!(
            "[listen]\nproxy_protocol = {{ from = [\"127.0.0.0/8\"] }}\n\
             [fleet]\nsiblings = false\naddr = \"{port}\"\npeers = {ports:?}"
        );
        fleet.push(proxy().dbname(&dbname).toml(&text).start().await);
    }
    let haproxy = Haproxy::before(&fleet, "send-proxy-v2").await;
    let sessions = Sessions::of(Postgres::shared(), &dbname).await;
    let mut wire = haproxy.endpoint().wire("app").await;
    for _ in 0..2 {
        wire.send(query(SLEEP)).await;
        sessions.until_running(SLEEP, 1).await;
        cancel(&haproxy.endpoint(), &wire).await;
        assert_eq!(errors(&wire.cycle().await), ["57014"]);
        // The next cancel comes to the other instance.
        drop(haproxy.endpoint().wire("app").await);
        drop(haproxy.endpoint().wire("app").await);
    }
    assert_eq!(fleet.iter().map(|one| cancels(one, "forwarded")).sum::<f64>(), 1.0);
}

/// Instances that count each other, each with this limit in its file, in front of a server of their own.
async fn counting(postgres: &Postgres, watch: &str, dbname: &str) -> Proxy {
    let fleet = "[fleet]\nmode = \"count\"\n[roles.app]\ntransactions_max = 12\n[admission]\nmode = \"off\"";
    proxy_before(postgres).dbname(dbname).pool_size(40).toml(watch).toml(fleet).start().await
}

/// The limit in force of `app`.
fn limit(proxy: &Proxy) -> f64 {
    proxy.metric("pgweir_role_effective_limit", &["role=\"app\""])
}

#[tokio::test]
async fn instances_that_count_each_other_share_the_limit_as_they_come_and_go() {
    let postgres = Postgres::private(&[]);
    let (dbname, role) = (postgres.database().await, postgres.own_role("").await);
    let watch = format!("[watch]\nrole = \"{role}\"\npassword = \"{}\"", password_of(&role));
    let first = counting(&postgres, &watch, &dbname).await;
    let mut wire = first.wire("app").await;
    wire.query("SELECT 1").await;
    eventually(async || limit(&first) == 12.0).await;
    let mut fleet = vec![first];
    for parts in [[6.0, 6.0].as_slice(), &[4.0; 3]] {
        fleet.push(counting(&postgres, &watch, &dbname).await);
        fleet.last().expect("one more").wire("app").await.query("SELECT 1").await;
        eventually(async || fleet.iter().map(limit).eq(parts.iter().copied())).await;
    }
    // LIMIT says the fleet's.
    fleet[0].console("LIMIT app 30").await;
    assert_eq!(limit(&fleet[0]), 10.0);
    fleet[0].console("LIMIT app DEFAULT").await;
    // One is killed; the others have its part a moment later.
    drop(fleet.remove(1));
    eventually(async || fleet.iter().all(|one| limit(one) == 6.0)).await;
    // Nobody counts who only has the name.
    let name = "pgweir main 00000000000000ff";
    let impostor = fleet[0].config("app").application_name(name).connect(tokio_postgres::NoTls).await;
    let before = fleet[0].log_text();
    let (client, connection) = impostor.expect("a login");
    tokio::spawn(connection);
    client.batch_execute("BEGIN; SELECT pg_sleep(2)").await.expect("it runs");
    assert_eq!(fleet.iter().map(limit).collect::<Vec<_>>(), [6.0, 6.0]);
    assert!(!fleet[0].log_text()[before.len()..].contains("instances"), "no other part was taken");
}

#[tokio::test]
async fn shares_stay_while_the_server_is_away() {
    let mut postgres = Postgres::private(&[]);
    let (dbname, role) = (postgres.database().await, postgres.own_role("").await);
    let watch = format!("[watch]\nrole = \"{role}\"\npassword = \"{}\"", password_of(&role));
    let fleet = [counting(&postgres, &watch, &dbname).await, counting(&postgres, &watch, &dbname).await];
    for one in &fleet {
        one.wire("app").await.query("SELECT 1").await;
    }
    eventually(async || fleet.iter().all(|one| limit(one) == 6.0)).await;
    postgres.stop();
    for one in &fleet {
        one.logged("the server is not watched").await;
    }
    assert_eq!(fleet.iter().map(limit).collect::<Vec<_>>(), [6.0, 6.0]);
    postgres.start();
    for one in &fleet {
        eventually(async || one.records(|fields| fields["message"] == "watching").len() == 2).await;
    }
    assert_eq!(fleet.iter().map(limit).collect::<Vec<_>>(), [6.0, 6.0]);
}
