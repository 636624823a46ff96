//! Rules of the network: where a role may come from, what it may reach, and balancers that say whose a connection is.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::support::frontend::{PROTOCOL_3_0, startup};
use crate::support::{Builder, Endpoint, Haproxy, Proxy, Wire, password_of, proxy, soon};

/// A header of the PROXY protocol, version 2.
fn header(source: SocketAddrV4) -> Vec<u8> {
    let mut out = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    out.extend_from_slice(&source.ip().octets());
    out.extend_from_slice(&Ipv4Addr::LOCALHOST.octets());
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&5432_u16.to_be_bytes());
    out
}

/// Logs in behind these bytes; the SQLSTATE is that of the refusal.
async fn log_in(at: &Endpoint, before: &[u8], role: &str) -> Result<Wire, String> {
    let mut wire = Wire::open(at.addr).await;
    wire.send([before, &startup(PROTOCOL_3_0, &[("user", role), ("database", &at.dbname)])].concat()).await;
    let frames = wire.authenticate(role, &password_of(role)).await;
    match frames.last() {
        Some(frame) if frame.tag == 'Z' => Ok(wire),
        Some(frame) => Err(frame.sqlstate()),
        None => Err("a close".to_owned()),
    }
}

async fn refusal(at: &Endpoint, before: &[u8], role: &str) -> String {
    log_in(at, before, role).await.err().unwrap_or_else(|| panic!("{role} came in"))
}

/// Whether a connection with these bytes in front is closed without a word.
async fn is_closed_on(at: &Endpoint, before: &[u8]) -> bool {
    let mut wire = Wire::open(at.addr).await;
    wire.send([before, &startup(PROTOCOL_3_0, &[("user", "app"), ("database", &at.dbname)])].concat()).await;
    wire.next().await.is_none()
}

/// The rows of SHOW CLIENTS, asked for behind these bytes.
async fn console_behind(proxy: &Proxy, before: &[u8]) -> Vec<Vec<Option<String>>> {
    let mut wire = log_in(&proxy.database("pgweir"), before, "ops").await.expect("a login");
    let frames = wire.query("SHOW CLIENTS").await;
    frames.iter().filter(|frame| frame.tag == 'D').map(|frame| frame.columns()).collect()
}

fn has(rows: &[Vec<Option<String>>], cells: &[&str]) -> bool {
    rows.iter().any(|row| cells.iter().all(|cell| row.iter().any(|value| value.as_deref() == Some(*cell))))
}

/// The first message of the answer to a StartupMessage.
async fn first_answer(at: &Endpoint, role: &str) -> char {
    let mut wire = Wire::open(at.addr).await;
    wire.send(startup(PROTOCOL_3_0, &[("user", role), ("database", &at.dbname)])).await;
    wire.frame().await.tag
}

#[tokio::test]
async fn a_role_comes_only_from_its_networks() {
    let proxy = proxy()
        .role("near", "from = [\"10.0.0.0/8\", \"127.0.0.0/8\"]")
        .role("far", "from = \"10.0.0.0/8\"")
        .start()
        .await;
    assert!(log_in(&proxy, b"", "near").await.is_ok());
    assert_eq!(refusal(&proxy, b"", "far").await, "28000");
    assert_eq!(first_answer(&proxy, "far").await, 'E', "no password is asked for");
    assert_eq!(first_answer(&proxy, "nobody").await, 'R', "others may come from here, and this may be one");
    proxy.reload("[roles.far]\nfrom = []\n[roles.near]\nfrom = \"::1\"").await;
    assert!(log_in(&proxy, b"", "far").await.is_ok());
    assert_eq!(refusal(&proxy, b"", "near").await, "28000");
}

#[tokio::test]
async fn roles_are_not_told_apart_from_where_none_may_come() {
    let elsewhere = "from = \"10.0.0.0/8\"";
    let proxy = proxy().role("app", elsewhere).role("ops", elsewhere).start().await;
    assert_eq!((first_answer(&proxy, "app").await, first_answer(&proxy, "nobody").await), ('E', 'E'));
    assert_eq!(
        (refusal(&proxy, b"", "app").await, refusal(&proxy, b"", "nobody").await),
        ("28000".into(), "28000".into())
    );
}

#[tokio::test]
async fn a_role_reaches_only_its_databases() {
    let proxy = proxy()
        .role("confined", "databases = [\"other\"]")
        .toml("[databases.other]\nhost = \"127.0.0.1\"")
        .start()
        .await;
    assert_eq!(refusal(&proxy, b"", "confined").await, "28000");
    let mut wire = Wire::open(proxy.addr).await;
    wire.send(startup(PROTOCOL_3_0, &[("user", "confined"), ("database", "app")])).await;
    assert_eq!(wire.authenticate("confined", "wrong").await[0].sqlstate(), "28P01", "only who may come in is told");
    proxy.reload("[roles.confined]\ndatabases = [\"app\"]").await;
    assert!(log_in(&proxy, b"", "confined").await.is_ok());
}

/// Behind a balancer on this machine.
fn balanced() -> Builder<'static> {
    proxy().toml("[listen]\nproxy_protocol = { from = [\"127.0.0.1\"] }\nlog_logins = true")
}

#[tokio::test]
async fn a_balancer_says_whose_connection_it_is() {
    let proxy = balanced().role("far", "from = \"10.1.2.3\"").bare_role("any", "auth = \"passthrough\"").start().await;
    let source = |address: [u8; 4]| header(SocketAddrV4::new(address.into(), 4660));
    let _client = log_in(&proxy, &source([10, 1, 2, 3]), "far").await.expect("its own network");
    let clients = console_behind(&proxy, &source([10, 1, 2, 3])).await;
    assert!(has(&clients, &["far", "10.1.2.3", "4660"]), "{clients:?}");
    proxy.told(|record| record["message"] == "login" && record["client.addr"] == "10.1.2.3:4660").await;
    assert_eq!(refusal(&proxy, &source([10, 1, 2, 4]), "far").await, "28000");
    // The way to the balancer is no part of this machine, so it must not carry passwords in clear text.
    assert_eq!(refusal(&proxy, &source([10, 1, 2, 3]), "any").await, "28000");
    let own = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    assert!(log_in(&proxy, own, "app").await.is_ok(), "a health check of the balancer");
}

#[tokio::test]
async fn connections_count_for_the_address_that_a_balancer_names() {
    let proxy = balanced().toml("[listen]\nclients_max_per_address = 2").start().await;
    let source = |n: u8, port: u16| header(SocketAddrV4::new([10, 1, 2, n].into(), port));
    let mut clients = Vec::new();
    for n in 3..7 {
        for port in [1, 2] {
            clients.push(log_in(&proxy, &source(n, port), "app").await.expect("one of two of its address"));
        }
        assert_eq!(refusal(&proxy, &source(n, 3), "app").await, "53300");
    }
    let own = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    assert!(log_in(&proxy, own, "app").await.is_ok(), "the balancer has none of them");
    clients.truncate(1);
    soon(async {
        while let Err(code) = log_in(&proxy, &source(3, 4), "app").await {
            assert_eq!(code, "53300");
        }
    })
    .await;
}

#[tokio::test]
async fn a_header_is_believed_from_balancers_only_and_has_to_come_from_them() {
    let source = SocketAddrV4::new(Ipv4Addr::new(10, 1, 2, 3), 4660);
    let open = proxy().start().await;
    assert!(is_closed_on(&open, &header(source)).await);
    open.told(|record| record["fault"].as_str().is_some_and(|fault| fault.contains("not in listen.proxy_protocol")))
        .await;
    let proxy = balanced().start().await;
    for no_header in [&b""[..], b"PROXY TCP4 10.1.2.3 127.0.0.1 4660 5432\r\n"] {
        assert!(is_closed_on(&proxy, no_header).await);
    }
    proxy.told(|record| record["fault"].as_str().is_some_and(|fault| fault.contains("no PROXY protocol header"))).await;
    proxy.rewrite("[listen]\nproxy_protocol = { from = [] }");
    proxy.logged("configuration changed").await;
    assert!(log_in(&proxy, b"", "app").await.is_ok());
}

#[tokio::test]
async fn haproxy_passes_clients_on_with_their_addresses() {
    let proxy = balanced().start().await;
    let haproxy = Haproxy::before(std::slice::from_ref(&proxy), "send-proxy-v2").await;
    let mut wire = log_in(&haproxy.endpoint(), b"", "app").await.expect("a login");
    let port = wire.local_addr().port().to_string();
    assert_eq!(wire.query("SELECT 1").await[1].columns(), [Some("1".to_owned())]);
    let own = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let clients = console_behind(&proxy, own).await;
    assert!(has(&clients, &["app", &port]), "{port}: {clients:?}");
}

#[tokio::test]
async fn the_server_sees_the_address_of_each_client_where_it_is_asked_for() {
    let proxy = proxy().toml("[listen]\napplication_name_address = true").pool_size(1).start().await;
    let named = |name: &'static str| {
        let parameters = [("user", "app"), ("database", "app"), ("application_name", name)];
        startup(PROTOCOL_3_0, &parameters[..if name.is_empty() { 2 } else { 3 }])
    };
    for (name, before) in [("jobs", "jobs - "), ("", ""), (&"x".repeat(80).leak()[..], "xxxxxxxx")] {
        let mut wire = Wire::open(proxy.addr).await;
        wire.send(named(name)).await;
        wire.authenticate("app", &password_of("app")).await;
        let shown = wire.query("SHOW application_name").await[1].columns().remove(0).expect("a name");
        let addr = wire.local_addr().to_string();
        assert!(shown.starts_with(before) && shown.ends_with(&addr), "{shown}");
    }
}
