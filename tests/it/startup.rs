//! First packets: what a connection may say before it has a protocol, and what it hears.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_postgres::NoTls;
use tokio_postgres::config::SslMode;

use crate::support::frontend::{PROTOCOL_3_0, PROTOCOL_3_2, cancel_request, gss_request, query, ssl_request, startup};
use crate::support::{Endpoint, Frame, Postgres, Wire, eventually, on_both, password_of, proxy, soon, tags};

const WHO: [(&str, &str); 2] = [("user", "app"), ("database", "app")];

/// Opens a connection and sends a StartupMessage of this version.
async fn knock(at: &Endpoint, version: u32, params: &[(&str, &str)]) -> Wire {
    let mut wire = Wire::open(at.addr).await;
    wire.send(startup(version, params)).await;
    wire
}

/// Logs in with the right password of `app`, or says why not.
async fn greeting(at: &Endpoint, params: &[(&str, &str)]) -> Vec<Frame> {
    knock(at, PROTOCOL_3_0, params).await.authenticate("app", &password_of("app")).await
}

async fn works(at: &Endpoint) {
    assert_eq!(at.psql("app", "SELECT 1").await, "1\n");
}

#[tokio::test]
async fn cancel_keys_are_as_long_as_the_protocol_says() {
    let proxy = proxy().start().await;
    for (version, length) in [(PROTOCOL_3_0, 4), (3 << 16 | 1, 4), (PROTOCOL_3_2, 32)] {
        let mut wire = knock(&proxy, version, &WHO).await;
        let greeting = wire.authenticate("app", &password_of("app")).await;
        assert!(!tags(&greeting).contains('v'), "{version}: {greeting:?}");
        assert_eq!(wire.key.expect("a key").1.len(), length, "{version}");
    }
}

#[tokio::test]
async fn a_newer_protocol_and_its_options_are_negotiated_down_once() {
    let proxy = proxy().start().await;
    let params = [&WHO[..], &[("_pq_.shout", "1"), ("_pq_.whisper", "")]].concat();
    for (version, agreed) in [(3 << 16 | 9999, PROTOCOL_3_2), (PROTOCOL_3_0, PROTOCOL_3_0)] {
        let mut wire = knock(&proxy, version, &params).await;
        let answer = wire.frame().await;
        let expected = [&agreed.to_be_bytes()[..], &2_u32.to_be_bytes(), b"_pq_.shout\0_pq_.whisper\0"].concat();
        assert_eq!((answer.tag, &answer.body[..]), ('v', &expected[..]));
        let greeting = wire.authenticate("app", &password_of("app")).await;
        assert!(!tags(&greeting).contains('v'), "{greeting:?}");
        assert_eq!(tags(&wire.query("SELECT 1").await), "T D C Z");
    }
}

#[tokio::test]
async fn encryption_that_is_not_offered_is_refused_and_the_client_goes_on() {
    let proxy = proxy().start().await;
    let mut wire = Wire::open(proxy.addr).await;
    for request in [gss_request(), ssl_request()] {
        wire.send(request).await;
        assert_eq!(wire.byte().await, b'N');
    }
    wire.send(startup(PROTOCOL_3_0, &WHO)).await;
    let greeting = wire.authenticate("app", &password_of("app")).await;
    assert_eq!(greeting.last().map(|frame| frame.tag), Some('Z'));
}

#[tokio::test]
async fn a_second_request_for_encryption_ends_the_connection() {
    let twice = async |at: &Endpoint, request: Vec<u8>| {
        let mut wire = Wire::open(at.addr).await;
        wire.send(&request).await;
        assert_eq!(wire.byte().await, b'N');
        wire.send(&request).await;
        let frames = wire.rest().await;
        assert_eq!((tags(&frames).as_str(), frames[0].sqlstate().as_str()), ("E", "0A000"));
    };
    on_both(async |at: &Endpoint| twice(at, ssl_request()).await).await;
    twice(&*proxy().start().await, gss_request()).await; // Debian's Postgres does offer GSSAPI
}

#[tokio::test]
async fn rubbish_ends_in_an_error_or_a_close_and_harms_nobody() {
    let proxy = proxy().start().await;
    let mut neighbour = proxy.wire("app").await;
    let version = PROTOCOL_3_0.to_be_bytes();
    let packet = |body: &[u8]| [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], body].concat();
    let with = |rest: &[u8]| packet(&[&version, rest].concat());
    let (long, odd) = (vec![b'a'; 9_000], b"user\0app\0database\0\xff\xfe\0\0");
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), ""),
        ("no length", vec![0; 4], ""),
        ("length alone", vec![0, 0, 0, 4], ""),
        ("too long by one", [&10_001_u32.to_be_bytes()[..], &version].concat(), ""),
        ("negative length", vec![0xff; 64], ""),
        ("version 2", packet(&[0, 2, 0, 0, 0]), "0A000"),
        ("version 4", packet(&[0, 4, 0, 0, 0]), "0A000"),
        ("no terminator", with(b"user\0app"), "08P01"),
        ("a name without a value", with(b"user\0app\0database\0"), "08P01"),
        ("bytes behind the end", with(b"user\0app\0\0x\0"), "08P01"),
        ("not UTF-8", with(odd), "08P01"),
        ("no user", with(b"database\0app\0\0"), "28000"),
        ("two users", with(b"user\0app\0user\0ops\0\0"), "08P01"),
        ("a bad switch", with(b"user\0app\0replication\0perhaps\0\0"), "22023"),
        ("an endless name", with(&long), "08P01"),
        ("SSLRequest with a tail", packet(&[4, 0xd2, 0x16, 0x2f, 1]), ""),
        ("a TLS handshake", vec![0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0], ""),
        ("a cancel without a secret", packet(&[4, 0xd2, 0x16, 0x2e, 0, 0, 0, 1]), ""),
    ];
    for (what, bytes, code) in &cases {
        let mut wire = Wire::open(proxy.addr).await;
        wire.send(bytes).await;
        let frames = wire.rest().await;
        if code.is_empty() {
            // Another protocol: Postgres says nothing, either.
            assert_eq!(tags(&frames), "", "{what}");
            continue;
        }
        assert_eq!(tags(&frames), "E", "{what}");
        let fields = frames[0].fields();
        assert_eq!((fields[&'S'].as_str(), fields[&'C'].as_str()), ("FATAL", *code), "{what}: {fields:?}");
        // The same, cut short: half a packet and the end of the connection.
        let mut wire = Wire::open(proxy.addr).await;
        wire.send(&bytes[..bytes.len() / 2]).await;
        wire.half_close().await;
        let frames = wire.rest().await;
        assert!(frames.iter().all(|frame| frame.tag == 'E'), "half of {what}: {frames:?}");
    }
    assert_eq!(tags(&neighbour.query("SELECT 1").await), "T D C Z");
}

#[tokio::test]
async fn rubbish_instead_of_a_password_ends_the_login() {
    let proxy = proxy().bare_role("through", "auth = \"passthrough\"").start().await;
    let huge = [&b"p"[..], &(1_u32 << 30).to_be_bytes()].concat();
    for user in ["app", "through", "nobody-knows"] {
        for (what, bytes) in [
            ("a query", query("SELECT 1")),
            ("a gigabyte", huge.clone()),
            ("no length", vec![b'p', 0, 0, 0, 0]),
            ("no text", crate::support::frontend::frame(b'p', b"")),
            ("no mechanism", crate::support::frontend::frame(b'p', b"SCRAM-SHA-256\0\xff\xff\xff\xff")),
        ] {
            let mut wire = knock(&proxy, PROTOCOL_3_0, &[("user", user), ("database", "app")]).await;
            wire.expect("R").await;
            wire.send(&bytes).await;
            let frames = wire.rest().await;
            assert_eq!(tags(&frames), "E", "{user}: {what}");
            assert!(["08P01", "28P01"].contains(&frames[0].sqlstate().as_str()), "{user}: {what}: {frames:?}");
        }
    }
    works(&proxy).await;
}

#[tokio::test]
async fn a_login_that_dawdles_is_ended_and_delays_nobody() {
    // Slow logins must not hold the places of others.
    let proxy = proxy().toml("[listen]\nlogin_timeout = \"2s\"").start().await;
    let packet = startup(PROTOCOL_3_0, &WHO);
    let mut slow = Vec::new();
    for n in 0..100 {
        let mut wire = Wire::open(proxy.addr).await;
        match n % 3 {
            0 => wire.send(&packet[..6]).await,
            1 => wire.send(&packet).await,
            _ => {}
        }
        slow.push(wire);
    }
    works(&proxy).await;
    for mut wire in slow {
        let frames = wire.rest().await;
        assert_eq!(frames.last().map(Frame::sqlstate), Some("57014".to_owned()), "{frames:?}");
    }
}

#[tokio::test]
async fn one_client_too_many_is_told_so_and_cancels_still_pass() {
    let proxy = proxy().toml("[listen]\nclients_max = 2").start().await;
    let mut busy = proxy.wire("app").await;
    let other = proxy.wire("app").await;
    let refused = knock(&proxy, PROTOCOL_3_0, &WHO).await.rest().await;
    assert_eq!(refused[0].fields()[&'S'], "FATAL");
    assert_eq!(refused[0].sqlstate(), "53300");

    busy.send(query("SELECT pg_sleep(60)")).await;
    let (process, secret) = busy.key.clone().expect("a key");
    // Until the query has arrived, a cancel has nothing to hit.
    let cancelled = async {
        loop {
            Wire::open(proxy.addr).await.send(cancel_request(process, &secret)).await;
            if let Ok(frames) = tokio::time::timeout(Duration::from_millis(100), busy.cycle()).await {
                return frames;
            }
        }
    };
    assert!(soon(cancelled).await.iter().any(|frame| frame.tag == 'E' && frame.sqlstate() == "57014"));
    assert_eq!(proxy.console("SHOW VERSION").await.len(), 1, "who has to look after it comes in");
    drop(other);
    eventually(async || proxy.try_connect("app").await.is_ok()).await;
}

#[tokio::test]
async fn clients_of_a_role_are_counted_also_when_logins_fail() {
    let proxy = proxy().role("few", "clients_max = 2").start().await;
    let params = [("user", "few"), ("database", "app")];
    let wrong = async |password: &str, database: &str| {
        let mut wire = knock(&proxy, PROTOCOL_3_0, &[("user", "few"), ("database", database)]).await;
        wire.authenticate("few", password).await.last().expect("an error").sqlstate()
    };
    for _ in 0..3 {
        assert_eq!(wrong("wrong", "app").await, "28P01");
        assert_eq!(wrong(&password_of("few"), "nowhere").await, "3D000");
    }
    // All at once: no two may see the same last place.
    let logins = (0..12).map(|_| async {
        let mut wire = knock(&proxy, PROTOCOL_3_0, &params).await;
        let frames = wire.authenticate("few", &password_of("few")).await;
        (frames.last().map(|frame| frame.tag), frames, wire)
    });
    let outcomes = futures_util::future::join_all(logins).await;
    let inside = outcomes.iter().filter(|(tag, ..)| *tag == Some('Z')).count();
    assert_eq!(inside, 2);
    for (_, frames, _) in outcomes.iter().filter(|(tag, ..)| *tag == Some('E')) {
        assert_eq!(frames.last().map(Frame::sqlstate), Some("53300".to_owned()));
    }
    works(&proxy).await;
    drop(outcomes);
    eventually(async || proxy.try_connect("few").await.is_ok()).await;
}

#[tokio::test]
async fn an_unknown_database_is_told_to_those_who_proved_themselves() {
    let proxy = proxy().start().await;
    let params = [("user", "app"), ("database", "nowhere")];
    let refused = greeting(&proxy, &params).await;
    assert_eq!(refused[0].sqlstate(), "3D000");
    assert_eq!(refused[0].fields()[&'M'], "database \"nowhere\" does not exist");
    let refused = knock(&proxy, PROTOCOL_3_0, &params).await.authenticate("app", "wrong").await;
    assert_eq!(refused[0].sqlstate(), "28P01");
}

#[tokio::test]
async fn an_unknown_role_looks_like_a_wrong_password() {
    let proxy = proxy().start().await;
    let mut seen = Vec::new();
    for user in ["app", "nobody"] {
        let mut wire = knock(&proxy, PROTOCOL_3_0, &[("user", user), ("database", "app")]).await;
        let asked = wire.expect("R").await.remove(0);
        wire.send(crate::support::frontend::sasl_initial("SCRAM-SHA-256", b"n,,n=,r=fyko+d2lbbFgONRv9qkxdawL")).await;
        let challenge = wire.expect("R").await.remove(0);
        let text = String::from_utf8_lossy(&challenge.body[4..]).into_owned();
        let nonce = text.split(',').next().expect("a nonce").to_owned();
        let last = format!("c=biws,{nonce},p={}", "A".repeat(43) + "=");
        wire.send(crate::support::frontend::frame(b'p', last.as_bytes())).await;
        let frames = wire.rest().await;
        let fields = frames[0].fields();
        let fields: BTreeMap<_, _> = fields.into_iter().map(|(k, v)| (k, v.replace(user, "ROLE"))).collect();
        seen.push((asked.body.clone(), challenge.body.len(), tags(&frames), fields));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].3[&'C'], "28P01");
    assert_eq!(seen[0].3[&'M'], "password authentication failed for user \"ROLE\"");
}

#[tokio::test]
async fn options_and_parameters_of_the_startup_hold() {
    on_both(async |at: &Endpoint| {
        let shows = async |params: &[(&str, &str)], name: &str| {
            let mut wire =
                knock(at, PROTOCOL_3_0, &[&[("user", "app"), ("database", &*at.dbname)], params].concat()).await;
            let frames = wire.authenticate("app", &password_of("app")).await;
            assert_eq!(frames.last().map(|frame| frame.tag), Some('Z'), "{params:?}: {frames:?}");
            let frames = wire.query(&format!("SHOW {name}")).await;
            frames.iter().find(|frame| frame.tag == 'D').and_then(|row| row.columns().remove(0)).expect("a row")
        };
        let options = |text| [("options", text)];
        assert_eq!(shows(&options("-c work_mem=7MB"), "work_mem").await, "7MB");
        assert_eq!(shows(&options("-cwork_mem=7MB --work-mem=9MB"), "work_mem").await, "9MB");
        assert_eq!(shows(&options("--app.y=a\\ b"), "app.y").await, "a b");
        assert_eq!(shows(&options("-c app.x=a\\\\b"), "app.x").await, "a\\b");
        assert_eq!(shows(&[("options", "-c work_mem=7MB"), ("WORK_MEM", "9MB")], "work_mem").await, "9MB");
        assert_eq!(shows(&[("application_name", "it's")], "application_name").await, "it's");
        assert_eq!(shows(&[("extra_float_digits", "2")], "extra_float_digits").await, "2");
    })
    .await;
    let proxy = proxy().start().await;
    for bad in ["-c", "--nothing", "-x 1", "word"] {
        let refused = greeting(&proxy, &[&WHO[..], &[("options", bad)]].concat()).await;
        assert_eq!(refused[0].sqlstate(), "42601", "{bad}");
    }
}

#[tokio::test]
async fn a_client_is_told_what_postgres_would_tell_it() {
    let postgres = Postgres::shared();
    let proxy = proxy().start().await;
    let extra = [("application_name", "it"), ("client_encoding", "LATIN1"), ("TimeZone", "Asia/Tokyo")];
    let mut told = Vec::new();
    for at in [&postgres.endpoint(&proxy.dbname), &*proxy] {
        // Twice: the first client of a pool and the next.
        for _ in 0..2 {
            let params = [&[("user", "app"), ("database", &*at.dbname)], &extra[..]].concat();
            let frames = greeting(at, &params).await;
            let reported: BTreeMap<_, _> = frames
                .iter()
                .filter(|frame| frame.tag == 'S')
                .map(|frame| {
                    let text = frame.text();
                    let (name, value) = text.split_once('\0').expect("a name and a value");
                    (name.to_owned(), value.to_owned())
                })
                .collect();
            told.push((tags(&frames), reported));
        }
    }
    assert!(told.iter().all(|one| *one == told[0]), "{told:#?}");
}

#[tokio::test]
async fn a_client_that_names_no_database_asks_for_one_of_its_own_name() {
    let proxy = proxy().start().await;
    let frames = greeting(&proxy, &[("user", "app")]).await;
    assert_eq!(frames.last().map(|frame| frame.tag), Some('Z'), "{frames:?}");
}

#[tokio::test]
async fn a_query_may_come_glued_to_the_startup_or_the_password() {
    let proxy = proxy()
        .bare_role("open", "auth = \"trust\"\nlogin_as = \"app\"")
        .bare_role("through", "auth = \"passthrough\"");
    let proxy = proxy.toml(&format!("[roles.open]\nbackend_password = \"{}\"", password_of("app"))).start().await;
    let mut wire = Wire::open(proxy.addr).await;
    let glued = [startup(PROTOCOL_3_0, &[("user", "open"), ("database", "app")]), query("SELECT 1"), query("SELECT 2")];
    wire.send(glued.concat()).await;
    let frames = wire.cycle().await;
    assert_eq!(frames[0].tag, 'R');
    wire.expect("T D C Z T D C Z").await;

    let mut wire = knock(&proxy, PROTOCOL_3_0, &[("user", "through"), ("database", "app")]).await;
    wire.expect("R").await;
    let password = crate::support::frontend::password(&password_of("through"));
    wire.send([password, query("SELECT 1")].concat()).await;
    assert_eq!(wire.cycle().await[0].tag, 'R');
    wire.expect("T D C Z").await;
}

#[tokio::test]
async fn unix_sockets_lead_in_and_out() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("our own directory");
    let sockets = dir.path().display().to_string();
    let postgres = Postgres::private(&[&format!("unix_socket_directories={sockets}")]);
    let front = dir.path().join("front");
    let proxy = proxy()
        .postgres(&postgres)
        .toml(&format!("[listen]\naddr = [\"127.0.0.1:0\", \"unix:{}\"]", front.display()))
        .toml(&format!("[databases.app]\nhost = \"{sockets}\""))
        .start()
        .await;
    let mut wire = Wire::over(UnixStream::connect(&front).await.expect("it listens"));
    wire.send(startup(PROTOCOL_3_0, &WHO)).await;
    wire.authenticate("app", &password_of("app")).await;
    let frames = wire.query("SELECT inet_server_addr() IS NULL").await;
    assert_eq!(frames[1].columns(), [Some("t".to_owned())], "the backend came by the socket");
    drop(proxy);
}

/// A server that says as little as the protocol allows: no BackendKeyData (RDS Proxy), three parameters.
async fn terse_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(terse_session(stream));
        }
    });
    addr
}

async fn terse_session(mut stream: TcpStream) -> std::io::Result<()> {
    use crate::support::frontend::frame;
    loop {
        let length = stream.read_u32().await?;
        let mut packet = vec![0; length as usize - 4];
        stream.read_exact(&mut packet).await?;
        if packet[..4] != [4, 0xd2, 0x16, 0x2f] {
            break;
        }
        stream.write_all(b"N").await?;
    }
    let status = |name: &str, value: &str| frame(b'S', format!("{name}\0{value}\0").as_bytes());
    let greeting = [
        frame(b'R', &[0; 4]),
        status("server_version", "13.7"),
        status("client_encoding", "UTF8"),
        status("standard_conforming_strings", "on"),
        frame(b'Z', b"I"),
    ];
    stream.write_all(&greeting.concat()).await?;
    loop {
        let tag = stream.read_u8().await?;
        let length = stream.read_u32().await?;
        stream.read_exact(&mut vec![0; length as usize - 4]).await?;
        match tag {
            b'Q' => stream.write_all(&[frame(b'C', b"SELECT 0\0"), frame(b'Z', b"I")].concat()).await?,
            _ => return Ok(()),
        }
    }
}

#[tokio::test]
async fn a_server_without_cancel_keys_serves() {
    let proxy = proxy().backend(terse_server().await).start().await;
    let mut wire = proxy.wire("app").await;
    let (process, secret) = wire.key.clone().expect("pgweir has keys of its own");
    assert_eq!(tags(&wire.query("SELECT").await), "C Z");
    // A cancel has nowhere to go, and harms nobody.
    Wire::open(proxy.addr).await.send(cancel_request(process, &secret)).await;
    assert_eq!(tags(&wire.query("SELECT").await), "C Z");
}

#[tokio::test]
async fn a_client_that_gives_up_while_it_waits_for_its_first_backend_leaves_the_line() {
    // With one backend for both roles, taken by the one, the other has to wait for its greeting.
    let proxy = proxy().toml("[databases.app]\nbackends_max = 1").role("late", "clients_max = 1").start().await;
    let mut busy = proxy.wire("app").await;
    busy.query("BEGIN").await;
    for _ in 0..3 {
        let mut wire = knock(&proxy, PROTOCOL_3_0, &[("user", "late"), ("database", "app")]).await;
        let password = password_of("late");
        let login = wire.authenticate("late", &password);
        assert!(tokio::time::timeout(Duration::from_millis(100), login).await.is_err());
        drop(wire);
    }
    busy.query("COMMIT").await;
    drop(busy);
    let config = |role: &str| {
        let mut config = proxy.config(role);
        config.ssl_mode(SslMode::Disable);
        config
    };
    eventually(async || config("late").connect(NoTls).await.is_ok()).await;
}
