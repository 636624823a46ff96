//! TLS on both sides: what each mode offers, demands and checks, and certificates that change.

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::frontend::{PROTOCOL_3_0, cancel_request, query, ssl_request, startup, terminate};
use crate::support::{Endpoint, Link, Pki, Postgres, Proxy, Wire, eventually, password_of, proxy, soon, tags};

const WHO: [(&str, &str); 2] = [("user", "app"), ("database", "app")];

/// Runs a query in psql with these settings of libpq; what it wrote, or why it did not get in.
async fn psql(at: &Endpoint, role: &str, settings: &str) -> Result<String, String> {
    let (host, port) = (at.addr.ip(), at.addr.port());
    let conninfo = format!("host={host} port={port} user={role} dbname={} gssencmode=disable {settings}", at.dbname);
    let mut psql = Command::new("psql");
    psql.args(["-XAtqw", "-c", "SELECT 'in'", &conninfo]).env("PGPASSWORD", password_of(role));
    let output = soon(tokio::task::spawn_blocking(move || psql.output())).await.expect("no panic").expect("psql runs");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn listen_tls(pki: &Pki, mode: &str) -> String {
    let file = |name: &str| pki.path(name).display().to_string();
    let ca = if mode == "verify-client" { format!(", client_ca = \"{}\"", file("ca.crt")) } else { String::new() };
    let (cert, key) = (file("server.crt"), file("server.key"));
    format!("[listen]\ntls = {{ mode = \"{mode}\", cert = \"{cert}\", key = \"{key}\"{ca} }}")
}

/// A `server` certificate for 127.0.0.1, and libpq's settings that check it.
fn pki() -> (Pki, String) {
    let pki = Pki::new();
    pki.issue("server", "127.0.0.1");
    let checked = format!("sslmode=verify-full sslrootcert={}", pki.path("ca.crt").display());
    (pki, checked)
}

fn with_certificate(pki: &Pki, name: &str) -> String {
    let (cert, key) = (pki.path(&format!("{name}.crt")), pki.path(&format!("{name}.key")));
    format!("sslcert={} sslkey={}", cert.display(), key.display())
}

/// TLS on a connection as it is, by a client with this ALPN.
async fn handshake(pki: &Pki, alpn: &[&str], socket: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.path("ca.crt")).expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.expect("suites").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    soon(TlsConnector::from(Arc::new(config)).connect(name, socket)).await
}

async fn direct(pki: &Pki, at: &Endpoint, alpn: &[&str]) -> Wire<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(at.addr).await.expect("the endpoint accepts");
    Wire::over(handshake(pki, alpn, socket).await.expect("a handshake"))
}

async fn certificate_shown(pki: &Pki, at: &Endpoint) -> Option<Vec<u8>> {
    let socket = TcpStream::connect(at.addr).await.expect("the endpoint accepts");
    let stream = handshake(pki, &["postgresql"], socket).await.ok()?;
    let shown = stream.get_ref().1.peer_certificates()?.first()?.to_vec();
    Some(shown)
}

#[tokio::test]
async fn metrics_say_when_the_certificate_in_force_expires() {
    let pki = Pki::new();
    // 2100 and 2090.
    let in_force = [4_102_444_800.0, 3_786_912_000.0];
    pki.issue_until("server", "127.0.0.1", 2100);
    let proxy = proxy().toml(&listen_tls(&pki, "allow")).start().await;
    let file = format!("file=\"{}\"", pki.path("server.crt").display());
    let expires = || {
        let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("later").as_secs_f64();
        let before = now();
        let left = proxy.metric("pgweir_certificate_expiry_seconds", &[&file]);
        let (from, to) = (left + before - 2.0, left + now() + 2.0);
        in_force.iter().position(|at| (from..to).contains(at))
    };
    assert_eq!(expires(), Some(0));
    pki.issue_until("server", "127.0.0.1", 2090);
    proxy.console("RELOAD").await;
    eventually(async || expires() == Some(1)).await;
}

#[tokio::test]
async fn silent_handshakes_hold_nobody_up() {
    let (pki, _) = pki();
    let proxy = proxy().toml(&listen_tls(&pki, "require")).toml("[admission]\nlogin_concurrency = 1").start().await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        let mut wire = Wire::open(proxy.addr).await;
        wire.send(ssl_request()).await;
        assert_eq!(wire.byte().await, b'S');
        // The head of a record that never comes.
        wire.send(b"\x16\x03\x01\x02\x00").await;
        silent.push(wire);
    }
    for _ in 0..10 {
        let mut wire = direct(&pki, &proxy, &["postgresql"]).await;
        wire.send(startup(PROTOCOL_3_0, &WHO)).await;
        assert_eq!(wire.authenticate("app", &password_of("app")).await.last().map(|frame| frame.tag), Some('Z'));
    }
}

#[tokio::test]
async fn each_mode_towards_clients_offers_and_demands_what_it_says() {
    let (pki, checked) = pki();
    for (mode, clear, tls) in [("disable", true, false), ("allow", true, true), ("require", false, true)] {
        let proxy = match mode {
            "disable" => proxy().start().await,
            mode => proxy().toml(&listen_tls(&pki, mode)).start().await,
        };
        let outcome = psql(&proxy, "app", "sslmode=disable").await;
        assert_eq!(outcome.is_ok(), clear, "{mode}: {outcome:?}");
        if !clear {
            assert!(outcome.unwrap_err().contains("pgweir accepts only TLS connections"));
        }
        let outcome = psql(&proxy, "app", &checked).await;
        assert_eq!(outcome.is_ok(), tls, "{mode}: {outcome:?}");
        assert!(psql(&proxy, "app", "sslmode=prefer").await.is_ok(), "{mode}");
    }
}

#[tokio::test]
async fn clients_show_a_certificate_in_their_own_name_where_it_is_verified() {
    let (pki, checked) = pki();
    for name in ["app", "other", "pure"] {
        pki.issue(name, "client.example");
    }
    let stranger = Pki::new();
    stranger.issue("app", "client.example");
    let proxy = proxy()
        .toml(&listen_tls(&pki, "verify-client"))
        .bare_role("pure", "auth = \"certificate\"\nlogin_as = \"app\"\nbackend_password = \"app-secret\"")
        .start()
        .await;
    let outcome = async |role: &str, certificate: &str| psql(&proxy, role, &format!("{checked} {certificate}")).await;
    assert_eq!(outcome("app", &with_certificate(&pki, "app")).await, Ok("in\n".to_owned()));
    assert_eq!(outcome("pure", &with_certificate(&pki, "pure")).await, Ok("in\n".to_owned()));
    let wrong = outcome("app", &with_certificate(&pki, "other")).await.unwrap_err();
    assert!(wrong.contains("certificate authentication failed for user \"app\""), "{wrong}");
    assert!(outcome("app", "sslcert=/nowhere").await.is_err(), "no certificate");
    assert!(outcome("app", &with_certificate(&stranger, "app")).await.is_err(), "another authority");
    assert!(psql(&proxy, "app", "sslmode=disable").await.is_err());
}

#[tokio::test]
async fn channel_binding_holds_for_passwords_and_verifiers() {
    use pgweir::testing::auth::scram::{ITERATIONS, Verifier};
    let (pki, checked) = pki();
    let verifier = Verifier::new("bound-secret", b"sixteen bytes ok", ITERATIONS).to_string();
    let proxy = proxy()
        .toml(&listen_tls(&pki, "require"))
        .bare_role(
            "bound",
            &format!("password = \"{verifier}\"\nlogin_as = \"app\"\nbackend_password = \"app-secret\""),
        )
        .start()
        .await;
    for role in ["app", "bound"] {
        let outcome = psql(&proxy, role, &format!("{checked} channel_binding=require")).await;
        assert_eq!(outcome, Ok("in\n".to_owned()), "{role}");
    }
}

#[tokio::test]
async fn direct_tls_is_taken_from_who_names_the_protocol() {
    let (pki, _) = pki();
    let proxy = proxy().toml(&listen_tls(&pki, "require")).start().await;
    let mut wire = direct(&pki, &proxy, &["postgresql"]).await;
    wire.send(startup(PROTOCOL_3_0, &WHO)).await;
    wire.authenticate("app", &password_of("app")).await;
    assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z");

    let mut nameless = direct(&pki, &proxy, &[]).await;
    let refused = nameless.rest().await;
    assert_eq!((tags(&refused).as_str(), refused[0].sqlstate().as_str()), ("E", "08P01"));
    let socket = TcpStream::connect(proxy.addr).await.expect("the endpoint accepts");
    assert!(handshake(&pki, &["http/1.1"], socket).await.is_err(), "a browser");
}

#[tokio::test]
async fn tls_inside_tls_is_refused() {
    let (pki, _) = pki();
    let proxy = proxy().toml(&listen_tls(&pki, "allow")).start().await;
    for (first, answer) in [(ssl_request(), "E"), (vec![0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0], "")] {
        let mut wire = direct(&pki, &proxy, &["postgresql"]).await;
        wire.send(first).await;
        assert_eq!(tags(&wire.rest().await), answer);
    }
}

#[tokio::test]
async fn clear_text_behind_a_request_for_tls_is_not_heard() {
    // CVE-2021-3935 in PgBouncer: words put into the client's mouth before its handshake.
    let (pki, _) = pki();
    let proxy = proxy().toml(&listen_tls(&pki, "allow")).start().await;
    let mut wire = Wire::open(proxy.addr).await;
    let injected = [ssl_request(), startup(PROTOCOL_3_0, &WHO), query("SELECT 'injected'")].concat();
    wire.send(injected).await;
    assert!(wire.rest().await.is_empty(), "neither an answer nor an error");

    // Where they come a moment later, they are no handshake.
    let mut wire = Wire::open(proxy.addr).await;
    wire.send(ssl_request()).await;
    assert_eq!(wire.byte().await, b'S');
    wire.send(startup(PROTOCOL_3_0, &WHO)).await;
    let frames = wire.rest().await;
    assert!(frames.iter().all(|frame| frame.tag != 'R'), "{frames:?}");
}

#[tokio::test]
async fn one_client_too_many_is_told_so_under_tls_and_cancels_still_pass() {
    let (pki, _) = pki();
    let proxy = proxy().toml(&listen_tls(&pki, "require")).toml("[listen]\nclients_max = 1").start().await;
    let mut busy = direct(&pki, &proxy, &["postgresql"]).await;
    busy.send(startup(PROTOCOL_3_0, &WHO)).await;
    busy.authenticate("app", &password_of("app")).await;
    let mut late = direct(&pki, &proxy, &["postgresql"]).await;
    late.send(startup(PROTOCOL_3_0, &WHO)).await;
    let refused = late.rest().await;
    assert_eq!((refused[0].sqlstate().as_str(), refused[0].fields()[&'S'].as_str()), ("53300", "FATAL"));
    busy.send(query("SELECT pg_sleep(60)")).await;
    let (process, secret) = busy.key.clone().expect("a key");
    let cancelled = async {
        loop {
            // libpq of the time of Postgres 15 cancels in clear text, whatever the server demands of logins.
            Wire::open(proxy.addr).await.send(cancel_request(process, &secret)).await;
            if let Ok(frames) = tokio::time::timeout(Duration::from_millis(100), busy.cycle()).await {
                return frames;
            }
        }
    };
    assert!(soon(cancelled).await.iter().any(|frame| frame.tag == 'E' && frame.sqlstate() == "57014"));
}

#[tokio::test]
async fn tls_is_ended_as_the_protocol_has_it() {
    let (pki, _) = pki();
    let proxy = proxy().toml(&listen_tls(&pki, "require")).start().await;
    let logged_in = async || {
        let mut wire = direct(&pki, &proxy, &["postgresql"]).await;
        wire.send(startup(PROTOCOL_3_0, &WHO)).await;
        wire.authenticate("app", &password_of("app")).await;
        wire
    };
    let busy = logged_in().await;
    let (process, secret) = busy.key.clone().expect("a key");
    let mut ends = Vec::new();
    for request in [cancel_request(process, &secret), cancel_request(7, b"none"), startup(PROTOCOL_3_0, &WHO[1..])] {
        let mut wire = direct(&pki, &proxy, &["postgresql"]).await;
        wire.send(request).await;
        ends.push(wire);
    }
    let mut leaving = logged_in().await;
    leaving.send(terminate()).await;
    ends.push(leaving);
    for (n, wire) in ends.into_iter().enumerate() {
        // Without close_notify this is an error.
        let ended = soon(wire.into_inner().read_to_end(&mut Vec::new())).await;
        ended.unwrap_or_else(|error| panic!("{n}: {error}"));
    }
}

#[tokio::test]
async fn a_login_stuck_in_its_handshake_is_ended() {
    let (pki, _) = pki();
    let proxy = proxy().toml(&listen_tls(&pki, "require")).toml("[listen]\nlogin_timeout = \"1s\"").start().await;
    let mut wire = Wire::open(proxy.addr).await;
    wire.send(ssl_request()).await;
    assert_eq!(wire.byte().await, b'S');
    wire.send([0x16, 3, 1, 2, 0, 1]).await;
    assert!(wire.rest().await.is_empty());
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_the_next_client_and_a_bad_one_to_nobody() {
    let (pki, _) = pki();
    let proxy = proxy().toml(&listen_tls(&pki, "require")).start().await;
    let mut running = direct(&pki, &proxy, &["postgresql"]).await;
    running.send(startup(PROTOCOL_3_0, &WHO)).await;
    running.authenticate("app", &password_of("app")).await;
    let first = pki.der("server");
    assert_eq!(certificate_shown(&pki, &proxy).await.as_ref(), Some(&first));

    pki.issue("server", "127.0.0.1");
    let second = pki.der("server");
    assert_ne!(first, second);
    eventually(async || certificate_shown(&pki, &proxy).await.as_ref() == Some(&second)).await;

    pki.write("server.crt", "no certificate at all");
    proxy.signal(rustix::process::Signal::HUP);
    proxy.logged("configuration is invalid; the old one stays in force").await;
    assert_eq!(certificate_shown(&pki, &proxy).await.as_ref(), Some(&second));

    pki.issue("server", "127.0.0.1");
    let third = pki.der("server");
    eventually(async || certificate_shown(&pki, &proxy).await.as_ref() == Some(&third)).await;
    assert_eq!(tags(&running.query("SELECT 1").await), "T D C Z", "who is connected stays");
}

/// A Postgres that shows a certificate for `host`.
fn tls_postgres(pki: &Pki, host: &str) -> Postgres {
    pki.issue("postgres", host);
    let settings = pki.postgres_settings("postgres");
    Postgres::private(&settings.each_ref().map(String::as_str))
}

async fn towards(postgres: &Postgres, tls: &str) -> Proxy {
    let patience = "[pool]\nconnect_timeout = \"2s\"";
    proxy().postgres(postgres).toml(&format!("[databases.app]\ntls = {{ {tls} }}")).toml(patience).start().await
}

/// Whether backends are under TLS, or why there are none.
async fn is_encrypted(at: &Endpoint, role: &str) -> Result<bool, String> {
    let client = at.try_connect(role).await.map_err(|error| error.code().expect("a SQLSTATE").code().to_owned())?;
    let row = client.query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await;
    Ok(row.expect("a row").get(0))
}

#[tokio::test]
async fn each_mode_towards_servers_checks_what_it_says() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let ca = |pki: &Pki| format!("ca = \"{}\"", pki.path("ca.crt").display());
    let named = tls_postgres(&pki, "127.0.0.1");
    let (yes, no, down) = (Ok(true), Ok(false), Err("57P03".to_owned()));
    let full = |pki: &Pki| format!("mode = \"verify-full\", {}", ca(pki));
    for (tls, expected) in [
        ("mode = \"disable\"".to_owned(), &no),
        ("mode = \"prefer\"".to_owned(), &yes),
        ("mode = \"require\"".to_owned(), &yes),
        (format!("mode = \"verify-ca\", {}", ca(&pki)), &yes),
        (format!("mode = \"verify-ca\", {}", ca(&stranger)), &down),
        (full(&pki), &yes),
        (full(&stranger), &down),
    ] {
        assert_eq!(is_encrypted(&*towards(&named, &tls).await, "app").await, *expected, "{tls}");
    }
    drop(named);
    let elsewhere = Pki::new();
    let misnamed = tls_postgres(&elsewhere, "db.example");
    for (tls, expected) in [(format!("mode = \"verify-ca\", {}", ca(&elsewhere)), &yes), (full(&elsewhere), &down)] {
        assert_eq!(is_encrypted(&*towards(&misnamed, &tls).await, "app").await, *expected, "{tls}");
    }
    for (tls, expected) in [("prefer", &no), ("require", &down)] {
        let tls = format!("mode = \"{tls}\"");
        assert_eq!(is_encrypted(&*towards(Postgres::shared(), &tls).await, "app").await, *expected, "{tls}");
    }
}

#[tokio::test]
async fn why_a_server_is_not_trusted_is_in_the_log_and_not_told_to_clients() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let postgres = tls_postgres(&pki, "127.0.0.1");
    let tls = format!("mode = \"verify-full\", ca = \"{}\"", stranger.path("ca.crt").display());
    let proxy = towards(&postgres, &tls).await;
    let error = proxy.try_connect("app").await.expect_err("no login");
    let told = format!("{:?}", error.as_db_error());
    assert!(!told.contains("127.0.0.1") && !told.contains("certificate"), "{told}");
    let logged = proxy.logged("cannot open a backend").await;
    assert!(logged["error"].as_str().is_some_and(|error| error.contains("certificate")), "{logged}");
}

#[tokio::test]
async fn a_server_may_know_us_by_our_certificate() {
    let pki = Pki::new();
    let postgres = tls_postgres(&pki, "127.0.0.1");
    let role = postgres.own_role("IN ROLE login_cert").await;
    pki.issue(&role, "client.example");
    let file = |name: &str| pki.path(name).display().to_string();
    let tls = format!(
        "mode = \"verify-full\", ca = \"{}\", cert = \"{}\", key = \"{}\"",
        file("ca.crt"),
        file(&format!("{role}.crt")),
        file(&format!("{role}.key"))
    );
    let proxy = proxy()
        .postgres(&postgres)
        .toml(&format!("[databases.app]\ntls = {{ {tls} }}"))
        .toml(&format!("[roles.app]\nlogin_as = \"{role}\""))
        .start()
        .await;
    assert_eq!(proxy.psql("app", "SELECT current_user").await, format!("{role}\n"));
}

#[tokio::test]
async fn a_cancel_reaches_a_server_under_tls() {
    let pki = Pki::new();
    let postgres = tls_postgres(&pki, "127.0.0.1");
    let proxy = towards(&postgres, "mode = \"require\"").await;
    let client = proxy.connect("app").await;
    let token = client.cancel_token();
    let asleep = client.simple_query("SELECT pg_sleep(60)");
    let cancelling = async {
        loop {
            token.cancel_query(tokio_postgres::NoTls).await.expect("pgweir takes it");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let ended = soon(async {
        tokio::select! { ended = asleep => ended, () = cancelling => unreachable!("it goes on") }
    });
    assert_eq!(ended.await.unwrap_err().code(), Some(&tokio_postgres::error::SqlState::QUERY_CANCELED));
}

/// An address of this machine that is not loopback, if it has a network.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent; the address is of the range for documentation.
    socket.connect("198.51.100.1:9").ok()?;
    socket.local_addr().ok().map(|addr| addr.ip()).filter(|ip| !ip.is_loopback())
}

#[tokio::test]
async fn clear_text_goes_only_to_a_server_whose_certificate_is_checked() {
    let Some(address) = own_address() else { return };
    let pki = Pki::new();
    pki.issue("server", &address.to_string());
    let postgres = Postgres::private(&pki.postgres_settings("server").each_ref().map(String::as_str));
    let role = postgres.own_role("IN ROLE login_password").await;
    let link = Link::at(address, postgres.endpoint("postgres").addr).await;
    let ca = pki.path("ca.crt").display().to_string();
    let backend_password = format!("login_as = \"{role}\"\nbackend_password = \"{}\"", password_of(&role));
    for (tls, expected) in [
        ("mode = \"require\"".to_owned(), Err("28000")),
        ("mode = \"require\", clear_text_password = true".to_owned(), Ok(())),
        (format!("mode = \"verify-full\", ca = \"{ca}\""), Ok(())),
        ("mode = \"disable\"".to_owned(), Err("28000")),
    ] {
        let proxy = proxy().postgres(&postgres).backend(link.addr).role("front", &backend_password);
        let proxy = proxy.toml(&format!("[databases.app]\ntls = {{ {tls} }}")).start().await;
        let mut wire = Wire::open(proxy.addr).await;
        wire.send(startup(PROTOCOL_3_0, &[("user", "front"), ("database", "app")])).await;
        let last = wire.authenticate("front", &password_of("front")).await.pop().expect("an answer");
        let outcome = if last.tag == 'Z' { Ok(()) } else { Err(last.sqlstate()) };
        assert_eq!(outcome.as_ref().map_err(String::as_str), expected.as_ref().map_err(|code| *code), "{tls}");
    }
}

#[tokio::test]
async fn certificates_are_a_roles_by_the_names_in_them() {
    let (pki, checked) = pki();
    pki.issue("web-1", "a.web.internal");
    pki.issue("jobs", "b.jobs.internal");
    let proxy = proxy()
        .toml(&listen_tls(&pki, "verify-client"))
        .toml("[roles.app]\ncertificates = [\"cn:web-*\", \"dns:*.jobs.internal\"]")
        .start()
        .await;
    let outcome = async |name: &str| psql(&proxy, "app", &format!("{checked} {}", with_certificate(&pki, name))).await;
    for name in ["web-1", "jobs"] {
        assert_eq!(outcome(name).await, Ok("in\n".to_owned()), "{name}");
    }
    pki.issue("app", "app.internal");
    assert!(
        outcome("app").await.unwrap_err().contains("certificate authentication failed"),
        "its own name is not listed"
    );
    proxy.rewrite("[roles.app]\ncertificates = \"dns:app.internal\"");
    proxy.logged("configuration changed").await;
    assert_eq!(outcome("app").await, Ok("in\n".to_owned()));
    assert!(outcome("web-1").await.is_err());
}
