//! The status page: what it is made of, its news, and who may act on it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::drivers::install;
use crate::support::{Builder, Postgres, Proxy, Redis, eventually, free_port, password_of, proxy, root};
use crate::watchers::watched;

const TOKEN: &str = "a token for tests";

/// Status, head and body of the answer to a request.
fn ask(proxy: &Proxy, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(proxy.admin).expect("the admin address accepts");
    let request = request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head.to_ascii_lowercase(), body.to_owned())
}

/// `POST /actions` with these headers besides those every client sends.
fn post(proxy: &Proxy, headers: &[&str], body: &str) -> (u16, Value) {
    let (status, _, body) = post_raw(proxy, headers, body);
    (status, serde_json::from_str(&body).expect("JSON"))
}

fn post_raw(proxy: &Proxy, headers: &[&str], body: &str) -> (u16, String, String) {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let (host, length) = (proxy.admin, body.len());
    ask(proxy, &format!("POST /actions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{headers}\r\n{body}"))
}

/// An action, with the token.
fn act(proxy: &Proxy, command: &str) -> (u16, Value) {
    let bearer = format!("Authorization: Bearer {TOKEN}");
    post(proxy, &[&bearer, "Content-Type: application/json"], &json!({ "command": command }).to_string())
}

fn with_token() -> Builder<'static> {
    proxy().toml(&format!("[admin]\ntoken = \"{TOKEN}\""))
}

/// `/status` as it is.
fn status(proxy: &Proxy) -> Value {
    let (status, text) = proxy.http("/status");
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// Somebody who watches.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(proxy: &Proxy) -> Self {
        let mut stream = TcpStream::connect(proxy.admin).expect("the admin address accepts");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        write!(stream, "GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.admin).expect("it reads");
        Self(BufReader::new(stream))
    }

    /// The next line that begins like this, without that; `None`: the stream ended.
    fn next(&mut self, start: &str) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).expect("it comes in time") == 0 {
                return None;
            }
            if let Some(rest) = line.trim_end().strip_prefix(start) {
                return Some(rest.to_owned());
            }
        }
    }

    /// The next event of this name.
    fn event(&mut self, name: &str) -> Option<Value> {
        loop {
            if self.next("event: ")? == name {
                return serde_json::from_str(&self.next("data: ")?).ok();
            }
        }
    }
}

#[tokio::test]
async fn the_page_comes_whole_and_with_a_strict_policy() {
    let proxy = proxy().start().await;
    let (status, head, body) = ask(&proxy, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(status, 200);
    for header in [
        "content-type: text/html; charset=utf-8",
        "content-security-policy: default-src 'none'; style-src 'sha256-",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
        "referrer-policy: no-referrer",
    ] {
        assert!(head.contains(header), "{header}\n{head}");
    }
    assert!(!head.contains("unsafe"), "{head}");
    assert!(body.starts_with("<!doctype html>") && body.trim_end().ends_with("</html>"));
    assert_eq!(ask(&proxy, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").2, "");
}

#[tokio::test]
async fn only_what_the_page_needs_is_answered() {
    let proxy = with_token().start().await;
    for (request, expected) in [
        ("POST /", 405),
        ("POST /status", 405),
        ("HEAD /events", 405),
        ("PUT /actions", 405),
        ("OPTIONS /actions", 405),
        ("GET /actions", 405),
        ("GET /index.html", 404),
        ("GET //", 404),
        ("GET /../proxy.toml", 404),
    ] {
        let (status, head, _) = ask(&proxy, &format!("{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(status, expected, "{request}");
        assert_eq!(head.contains("allow: "), expected == 405, "{request}");
        assert!(!head.contains("access-control"), "{request}");
    }
}

#[tokio::test]
async fn status_tells_of_pools_roles_errors_and_what_is_wrong() {
    let proxy = proxy().pool_size(1).toml("[roles.app]\ntransactions_max = 5").start().await;
    assert_eq!(status(&proxy)["headline"]["level"], "ok");
    assert_eq!(status(&proxy)["may_act"], false);
    let (busy, waiting) = (proxy.connect("app").await, proxy.connect("app").await);
    busy.batch_execute("SELECT 1/0").await.expect_err("an error");
    busy.batch_execute("BEGIN; CREATE TEMP TABLE t ()").await.expect("a transaction");
    let waits = tokio::spawn(async move { waiting.batch_execute("SELECT 1").await });
    eventually(async || status(&proxy)["pools"][0]["waiting"] == 1).await;
    eventually(async || status(&proxy)["headline"]["level"] == "warning").await;
    let now = status(&proxy);
    assert!(
        now["headline"]["text"].as_str().is_some_and(|text| text.starts_with("Role app: 1 waiting, the first for "))
    );
    let pool = &now["pools"][0];
    assert_eq!(
        (&pool["database"], &pool["role"], &pool["mode"]),
        (&json!("app"), &json!("app"), &json!("transaction"))
    );
    assert_eq!((&pool["size"], &pool["active"], &pool["clients"]), (&json!(1), &json!(1), &json!(2)));
    assert!(pool["oldest_wait"].as_f64().is_some_and(|wait| wait >= 1.0), "{pool}");
    let role = &now["roles"][0];
    assert_eq!((&role["role"], &role["limit"], &role["active"]), (&json!("app"), &json!(5), &json!(1)));
    assert_eq!(now["databases"][0]["state"], "up");
    assert_eq!(now["errors"][0], json!({ "sqlstate": "22012", "last_minute": 1, "total": 1 }));
    busy.batch_execute("COMMIT").await.expect("an end");
    let pin = json!({ "database": "app", "role": "app", "reason": "temp", "clients": 1 });
    eventually(async || status(&proxy)["pins"] == json!([pin])).await;
    drop(busy);
    waits.await.expect("no panic").expect("its turn came");
    eventually(async || status(&proxy)["headline"]["level"] == "ok").await;
    let after = status(&proxy);
    assert!(after["lately"][0]["what"].as_str().is_some_and(|what| what.starts_with("Role app: 1 waiting")), "{after}");
}

#[tokio::test]
async fn status_names_the_statement_that_keeps_the_server_busy() {
    let proxy = with_token().start().await;
    let busy = |of: &Value| of["statement"].as_str().is_some_and(|text| text.starts_with("SELECT pg_sleep"));
    let client = proxy.connect("app").await;
    let cancel = client.cancel_token();
    let runs = tokio::spawn(async move { client.batch_execute("SELECT pg_sleep(600)").await });
    // Before it has ended once.
    eventually(async || busy(&status(&proxy)["statements"][0])).await;
    let row = status(&proxy)["statements"][0].clone();
    assert_eq!((&row["running"], &row["roles"], &row["trend"]), (&json!(1), &json!([]), &json!([])), "{row}");
    let shown = proxy.console("SHOW STATEMENTS ORDER BY running LIMIT 1").await;
    assert_eq!(
        (shown[0]["digest"].as_str(), shown[0]["running"].as_str()),
        (row["digest"].as_str().expect("text"), "1")
    );
    let digest = row["digest"].as_str().expect("16 digits");
    assert_eq!(act(&proxy, &format!("BLOCK STATEMENT {digest} FOR '10m'")).0, 200);
    assert_eq!(status(&proxy)["orders"][0]["digest"], digest);
    cancel.cancel_query(tokio_postgres::NoTls).await.expect("it is canceled");
    runs.await.expect("no panic").expect_err("an end");
    // How long it ran is for the clock to say, and may come to 0.00 of a backend.
    let is_known_to_have_ended = async || {
        let rows = status(&proxy)["statements"].clone();
        let row = rows.as_array().expect("rows").iter().find(|row| busy(row)).cloned();
        row.is_some_and(|row| row["running"] == 0 && row["roles"] == json!(["app"]))
    };
    eventually(is_known_to_have_ended).await;
}

#[tokio::test]
async fn events_tell_what_was_and_follow_what_changes() {
    let mut proxy = proxy().start().await;
    let client = proxy.connect("app").await;
    eventually(async || status(&proxy)["uptime"].as_u64() >= Some(2)).await;
    let mut events = Events::open(&proxy);
    assert_eq!(events.next("content-type: ").as_deref(), Some("text/event-stream"));
    let lines = events.event("lines").expect("what was");
    assert_eq!(lines["seconds"], 600);
    let active = lines["roles"]["app"]["active"].as_array().expect("the seconds since its login");
    assert!(!active.is_empty() && active.iter().all(|active| active == 0), "{lines}");
    let active = |status: Value| status["roles"][0]["active"].clone();
    assert_eq!(active(events.event("status").expect("how it is")), 0);
    client.batch_execute("BEGIN").await.expect("a transaction");
    while active(events.event("status").expect("more")) != 1 {}
    client.batch_execute("COMMIT").await.expect("an end");
    while active(events.event("status").expect("more")) != 0 {}

    // It goes on while pgweir drains, and ends with it: it holds nothing up.
    client.batch_execute("BEGIN").await.expect("a transaction");
    proxy.signal(Signal::TERM);
    while events.event("status").expect("more")["draining"] != true {}
    drop(client);
    assert!(proxy.ended().await);
    while events.event("status").is_some() {}
}

#[tokio::test]
async fn watchers_leave_the_others_their_places() {
    let proxy = proxy().start().await;
    // They never read.
    let mut watchers: Vec<Events> = (0..16).map(|_| Events::open(&proxy)).collect();
    let events = || ask(&proxy, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    eventually(async || {
        // Not all of the others have come yet.
        let mut more = Events::open(&proxy);
        more.next("HTTP/1.1 ").is_some_and(|status| status.starts_with("503"))
    })
    .await;
    let (_, head, body) = events();
    assert!(head.contains("retry-after: 10") && body.contains("too many"), "{head}{body}");
    let _silent: Vec<_> = (0..60).map(|_| TcpStream::connect(proxy.admin).expect("accepted")).collect();
    assert_eq!(proxy.http("/metrics").0, 200);
    assert_eq!(proxy.http("/healthz").0, 200);
    assert!(watchers[0].event("status").is_some());
    // Who leaves makes room.
    watchers.clear();
    eventually(async || {
        let mut again = Events::open(&proxy);
        again.next("HTTP/1.1 ").is_some_and(|status| status.starts_with("200"))
    })
    .await;
}

#[tokio::test]
async fn nobody_acts_without_the_token() {
    let proxy = with_token().start().await;
    let json = "Content-Type: application/json";
    let pause = r#"{"command": "PAUSE app"}"#;
    let bearer = format!("Authorization: Bearer {TOKEN}");
    for headers in [&[json][..], &[json, "Authorization: Bearer wrong"], &[json, "Authorization: Basic YTpi"]] {
        let (status, head, body) = post_raw(&proxy, headers, pause);
        assert_eq!(status, 401, "{headers:?}");
        assert!(head.contains("www-authenticate: bearer") && body.contains("the token is wrong"), "{head}{body}");
    }
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        let (status, said) = post(&proxy, &[json, &bearer, &format!("Origin: {origin}")], pause);
        assert_eq!(status, 403, "{origin}");
        assert!(said["error"].as_str().is_some_and(|error| error.contains("admin.hosts")), "{said}");
    }
    assert_eq!(post(&proxy, &[&bearer], pause).0, 400, "no other content type");
    assert_eq!(post(&proxy, &[json, &bearer], &format!("{{\"command\": \"{}\"}}", "x".repeat(9000))).0, 400);
    assert_eq!(proxy.console("SHOW DATABASES").await[0]["paused"], "0");
    let refused = proxy.logged("action over HTTP refused").await;
    assert_eq!(refused["client.addr"], "127.0.0.1");
    assert!(!proxy.log_text().contains(TOKEN), "no secrets");

    let origin = format!("Origin: http://{}", proxy.admin);
    assert_eq!(post(&proxy, &[json, &bearer, &origin], pause), (200, json!({ "done": "PAUSE", "notices": [] })));
    assert_eq!(proxy.console("SHOW DATABASES").await[0]["paused"], "1");
    proxy.logged("action over HTTP").await;
}

#[tokio::test]
async fn nobody_acts_without_a_token_in_the_file() {
    let proxy = proxy().start().await;
    let (status, said) = act(&proxy, "PAUSE app");
    assert_eq!((status, said["error"].as_str()), (403, Some("admin.token is not set, so nobody may act here")));
    proxy.reload(&format!("[admin]\ntoken = \"{TOKEN}\"")).await;
    assert_eq!(act(&proxy, "PAUSE app").0, 200);
}

#[tokio::test]
async fn actions_do_what_the_console_does_and_fail_alike() {
    let proxy = with_token().start().await;
    let (client, other) = (proxy.connect("app").await, proxy.connect("app").await);
    other.batch_execute("BEGIN").await.expect("a transaction");
    assert_eq!(act(&proxy, "LIMIT app 3").0, 200);
    assert_eq!(proxy.console("SHOW ROLES").await.iter().find(|row| row["role"] == "app").expect("app")["limit"], "3");
    let (status, paused) = act(&proxy, "PAUSE app");
    assert_eq!(status, 200);
    assert!(paused["notices"][0].as_str().is_some_and(|notice| notice.contains("still open")), "{paused}");
    assert_eq!(act(&proxy, "RESUME \"app\"").0, 200);
    assert_eq!(act(&proxy, "RELOAD"), (200, json!({ "done": "RELOAD", "notices": [] })));
    let clients = proxy.console("SHOW CLIENTS").await;
    let id = &clients.iter().find(|row| row["state"] == "active").expect("it holds a backend")["id"];
    assert_eq!(act(&proxy, &format!("KILL_CLIENT {id}")).0, 200);
    eventually(async || other.is_closed()).await;
    client.batch_execute("SELECT 1").await.expect("nobody else");

    for (command, sqlstate) in [
        ("RESUME app", "55000"),
        ("PAUSE nowhere", "3D000"),
        ("LIMIT app", "42601"),
        ("RAMP nobody", "42704"),
        ("DROP", "0A000"),
        ("DROPS", "42601"),
    ] {
        let (status, said) = act(&proxy, command);
        assert_eq!((status, said["sqlstate"].as_str()), (422, Some(sqlstate)), "{command}: {said}");
        assert!(said["hint"].is_string(), "{command}: {said}");
    }
    for command in ["SHOW POOLS", "SELECT 1", "PAUSE; RESUME", "SET x = 1"] {
        assert_eq!(act(&proxy, command).0, 400, "{command}");
    }
    assert_eq!(act(&proxy, " ; "), (200, json!({ "done": null, "notices": [] })));
}

/// In Debian's Chromium.
#[tokio::test]
async fn a_browser_shows_it_and_acts_through_it() {
    install();
    let proxy = with_token().start().await;
    let pid = proxy.pid().as_raw_nonzero().to_string();
    print!("{}", proxy.run("app", browser("see_status_page.js", &proxy, &[TOKEN, &pid])).await);
}

#[tokio::test]
async fn the_page_of_any_instance_shows_the_whole_fleet() {
    install();
    let mut redis = Redis::without_memory().await;
    let lines = format!("[fleet]\nmode = \"redis\"\nurl = \"{}\"\n[roles.app]\ntransactions_max = 12", redis.url());
    let at = || format!("[listen]\naddr = [\"127.0.0.1:{}\"]", free_port());
    let fleet = [proxy().toml(&lines).toml(&at()).start().await, proxy().toml(&lines).toml(&at()).start().await];
    let _idle = fleet[0].wire("app").await;
    let mut wire = fleet[1].wire("app").await;
    wire.query("BEGIN").await;
    for (one, other) in [(&fleet[0], &fleet[1]), (&fleet[1], &fleet[0])] {
        let addresses = json!([one.addr.to_string(), other.addr.to_string()]);
        let members = || status(one)["fleet"].clone();
        eventually(async || json!([members()[0]["addr"], members()[1]["addr"]]) == addresses).await;
        print!("{}", one.run("app", browser("see_fleet.js", one, &[])).await);
    }
    redis.stop();
    for one in &fleet {
        let headline = || status(one)["headline"]["text"].to_string();
        eventually(async || headline().contains("This instance has no leases (the Redis of fleet.url has not")).await;
    }
}

#[tokio::test]
#[ignore = "make screenshots"]
async fn screenshots() {
    install();
    let postgres = Postgres::shared();
    let proxy = watched(postgres, "blocked = \"2s\"")
        .await
        .pool_size(12)
        .toml(&format!("[admin]\ntoken = \"{TOKEN}\""))
        .role("web", "transactions_max = 10")
        .role("jobs", "transactions_max = 6")
        .role("reports", "")
        .start()
        .await;
    let table = "CREATE TABLE stock AS SELECT 1 AS n; GRANT ALL ON stock TO PUBLIC";
    postgres.endpoint(&proxy.dbname).connect("postgres").await.batch_execute(table).await.expect("a table");
    let images = root().join("docs/images");
    let mut program = browser("picture_status_page.js", &proxy, &[images.to_str().expect("text")]);
    for role in ["web", "jobs", "reports"] {
        program.env(format!("{}_PASSWORD", role.to_uppercase()), password_of(role));
    }
    proxy.run("web", program).await;
}

/// A program of `tests/drivers/node` that looks at the page.
fn browser(program: &str, proxy: &Proxy, arguments: &[&str]) -> Command {
    let mut command = Command::new("node");
    command
        .arg(root().join("tests/drivers/node").join(program))
        .arg(format!("http://{}/", proxy.admin))
        .args(arguments);
    command
}

#[tokio::test]
async fn pages_of_other_names_read_nothing() {
    let proxy = proxy().toml("[admin]\nhosts = [\"pgweir.internal\"]").start().await;
    let get = |path: &str, host: &str| ask(&proxy, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    for path in ["/status", "/metrics", "/events"] {
        let (status, _, body) = get(path, "evil.example");
        assert_eq!(status, 403, "{path}");
        assert!(body.contains("admin.hosts"), "{body}");
    }
    for host in ["pgweir.internal:9432", "localhost", "127.0.0.1:9432", "[::1]"] {
        assert_eq!(get("/metrics", host).0, 200, "{host}");
    }
    // They tell nothing of anybody.
    assert_eq!((get("/healthz", "evil.example").0, get("/", "evil.example").0), (200, 200));
}
