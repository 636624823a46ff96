//! What the admin address says over HTTP.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use flate2::read::GzDecoder;
use pgweir::testing::metrics::{Metric, MetricKind};
use serde_json::Value;

use crate::support::{Link, Postgres, Proxy, eventually, proxy};
use crate::watchers::watched;

fn is(value: f64, expected: u32) -> bool {
    (value - f64::from(expected)).abs() < f64::EPSILON
}

/// The first line of the answer to a request as it is written here.
fn status(proxy: &Proxy, request: &str) -> String {
    let mut stream = TcpStream::connect(proxy.admin).expect("the admin address accepts");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut line = String::new();
    let _ = BufReader::new(stream).read_line(&mut line);
    line.trim_end().to_owned()
}

/// The head and the body of the next answer on a connection.
fn answer(stream: &mut BufReader<TcpStream>) -> (String, Vec<u8>) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).expect("an answer"), 0, "it ends: {head}");
    }
    let head = head.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    stream.read_exact(&mut body).expect("a body");
    (head, body)
}

#[tokio::test]
async fn scrapes_share_a_connection_and_are_compressed_for_those_who_take_it() {
    let proxy = proxy().start().await;
    let mut stream = BufReader::new(TcpStream::connect(proxy.admin).expect("the admin address accepts"));
    let mut ask = |path: &str, more: &str| {
        write!(stream.get_mut(), "GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n").expect("it reads");
        answer(&mut stream)
    };
    let (head, plain) = ask("/metrics", "");
    assert!(!head.contains("content-encoding") && head.contains("vary: accept-encoding"), "{head}");
    assert_eq!(ask("/nothing", "").0.lines().next(), Some("http/1.1 404 not found"));
    let (head, compressed) = ask("/metrics", "Accept-Encoding: deflate;q=0.5, gzip\r\n");
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let mut text = String::new();
    GzDecoder::new(&*compressed).read_to_string(&mut text).expect("gzip");
    let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(series(&text), series(&String::from_utf8(plain).expect("UTF-8")));
    assert!(compressed.len() * 3 < text.len(), "{} of {}", compressed.len(), text.len());
    let (head, body) = ask("/metrics", "Accept-Encoding: gzip;q=0, *\r\nConnection: close\r\n");
    assert!(!head.contains("content-encoding") && body.starts_with(b"# HELP"), "{head}");
    assert_eq!(stream.read(&mut [0]).expect("an end"), 0, "as it was asked to");
}

#[tokio::test]
async fn connections_that_wait_for_their_next_scrape_give_way() {
    let proxy = proxy().start().await;
    let mut idle: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = BufReader::new(TcpStream::connect(proxy.admin).expect("the admin address accepts"));
            write!(stream.get_mut(), "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
            assert!(answer(&mut stream).0.contains("200 ok"));
            stream
        })
        .collect();
    assert_eq!(proxy.http("/readyz").0, 200);
    let ends = |stream: &mut BufReader<TcpStream>| matches!(stream.read(&mut [0]), Ok(0) | Err(_));
    assert!(ends(&mut idle[0]), "the oldest left");
    let last = idle.last_mut().expect("200 of them");
    write!(last.get_mut(), "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
    assert!(answer(last).0.contains("200 ok"), "and the last stays");
}

#[tokio::test]
async fn counters_and_gauges_follow_what_clients_do() {
    let proxy = proxy().pool_size(1).start().await;
    let labels = ["database=\"app\"", "role=\"app\""];
    let (busy, waiting) = (proxy.connect("app").await, proxy.connect("app").await);
    busy.batch_execute("BEGIN").await.expect("a transaction");
    let waits = tokio::spawn(async move { waiting.batch_execute("SELECT 1").await });
    eventually(async || is(proxy.metric("pgweir_waiters", &labels), 1)).await;
    assert!(is(proxy.metric("pgweir_clients", &["state=\"waiting\"", "role=\"app\""]), 1));
    assert!(is(proxy.metric("pgweir_clients", &["state=\"active\"", "role=\"app\""]), 1));
    assert!(is(proxy.metric("pgweir_backends", &["state=\"leased\""]), 1));
    assert!(proxy.metric("pgweir_oldest_wait_seconds", &labels) > 0.0);
    assert!(is(proxy.metric("pgweir_pool_wait_seconds_count", &labels[1..]), 0));

    busy.batch_execute("SELECT 1/0").await.expect_err("an error");
    busy.batch_execute("ROLLBACK").await.expect("an end");
    waits.await.expect("no panic").expect("its turn came");
    eventually(async || is(proxy.metric("pgweir_queries_total", &labels), 4)).await;
    assert!(is(proxy.metric("pgweir_transactions_total", &labels), 2));
    assert!(is(proxy.metric("pgweir_logins_total", &labels), 2));
    assert!(is(proxy.metric("pgweir_errors_total", &["sqlstate=\"22012\""]), 1));
    assert!(is(proxy.metric("pgweir_pool_wait_seconds_count", &labels[1..]), 1));
    assert!(proxy.metric("pgweir_pool_wait_seconds_sum", &labels[1..]) > 0.0);
    assert!(proxy.metric("pgweir_received_bytes_total", &labels) > 20.0);
    assert!(is(proxy.metric("pgweir_waiters", &labels), 0));
    assert!(proxy.try_connect("nobody").await.is_err());
    eventually(async || is(proxy.metric("pgweir_login_failures_total", &[]), 1)).await;
}

#[tokio::test]
async fn page_is_well_formed() {
    let proxy = proxy().start().await;
    proxy.connect("app").await.batch_execute("SELECT 1").await.expect("a query");
    let page = proxy.metrics();
    let mut kinds = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut current = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a kind");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} comes twice");
            name.clone_into(&mut current);
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            assert!(series.starts_with(&current), "{line} stands under {current}");
            value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
            assert!(seen.insert(series.to_owned()), "{series} comes twice");
        }
    }
    assert_eq!(kinds["pgweir_lease_seconds"], "histogram");
    assert_eq!(kinds["pgweir_queries_total"], "counter");
    assert!(page.contains(&format!("pgweir_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"))));
    assert!(!page.contains("secret"), "no secrets");
}

#[tokio::test]
async fn only_what_is_known_is_answered() {
    let proxy = proxy().start().await;
    assert_eq!(proxy.http("/healthz").0, 200);
    assert_eq!(proxy.http("/nothing").0, 404);
    assert_eq!(
        status(&proxy, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
        "HTTP/1.1 405 Method Not Allowed"
    );
    assert_eq!(status(&proxy, "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"), "HTTP/1.1 200 OK");
    let long = "x".repeat(64 * 1024);
    assert!(!status(&proxy, &format!("GET /metrics HTTP/1.1\r\nHost: {long}\r\n\r\n")).contains("200"));
    assert!(!status(&proxy, "\u{16}\u{3}\u{1}").contains("200"));
    assert_eq!(proxy.http("/healthz").0, 200);
}

#[tokio::test]
async fn silent_connections_hold_nobody_up() {
    let proxy = proxy().start().await;
    let _silent: Vec<_> = (0..32).map(|_| TcpStream::connect(proxy.admin).expect("accepted")).collect();
    assert_eq!(proxy.http("/metrics").0, 200);
    proxy.connect("app").await.batch_execute("SELECT 1").await.expect("clients do not wait");
}

#[tokio::test]
async fn ready_until_no_server_answers() {
    let postgres = Postgres::shared();
    let link = Link::to(postgres.endpoint("postgres").addr).await;
    let proxy = proxy().backend(link.addr).toml("[pool]\nconnect_timeout = \"2s\"").start().await;
    let ready = || {
        let (status, why) = proxy.http("/readyz");
        (status, serde_json::from_str::<Value>(&why).expect("JSON"))
    };
    assert_eq!(ready().0, 200, "nothing was tried yet");
    let client = proxy.connect("app").await;
    assert_eq!(ready().1["databases"]["app"], "up");

    link.refuse(true);
    link.cut();
    // The first may be told that its backend was lost; those after it make pgweir dial.
    eventually(async || client.batch_execute("SELECT 1").await.is_err() && ready().0 == 503).await;
    assert!(ready().1["databases"]["app"].as_str().is_some_and(|state| state.starts_with("down for ")));
    assert!(is(proxy.metric("pgweir_endpoint_up", &["database=\"app\""]), 0));
    let gone = proxy.logged("the server does not answer; it is tried again until it does").await;
    assert_eq!(gone["database"], "app");

    // A balancer sends nobody before it is ready.
    link.refuse(false);
    eventually(async || ready().0 == 200).await;
    assert!(proxy.logged("the server answers again").await["down_for"].is_string());
    assert!(is(proxy.metric("pgweir_endpoint_up", &["database=\"app\""]), 1));
    client.batch_execute("SELECT 1").await.expect("it is true");
}

#[tokio::test]
async fn the_kernel_s_numbers_of_the_process_have_the_names_that_every_process_gives_them() {
    let proxy = proxy().descriptors(3000).start().await;
    let of = |name: &str| proxy.metric(name, &[]);
    let files = of("process_open_fds");
    let _client = proxy.connect("app").await;
    eventually(async || of("process_open_fds") > files).await;
    assert!(is(of("process_max_fds"), 3000));
    assert!(of("process_cpu_seconds_total") > 0.0 && of("process_start_time_seconds") > 1e9);
    let resident = of("process_resident_memory_bytes");
    assert!(resident > 1e6 && of("process_virtual_memory_bytes") > resident, "{resident}");
}

/// Names of the labels behind a series' name.
fn labels(series: &str) -> Vec<&str> {
    let inside = series.split_once('{').map_or("", |(_, rest)| rest.trim_end_matches('}'));
    let pairs = inside.split("\",").filter_map(|pair| pair.split_once("=\""));
    pairs.map(|(name, _)| name).filter(|name| *name != "le").collect()
}

#[tokio::test]
async fn every_metric_is_there_with_its_labels_and_promtool_has_no_complaints() {
    let postgres = Postgres::private(&[]);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("flight.rec");
    let more = format!("[roles.app]\ntransactions_max = 10\n[recorder]\npath = {:?}", path.to_str().expect("UTF-8"));
    let proxy = watched(&postgres, "").await.toml(&more).start().await;
    let client = proxy.connect("app").await;
    client.batch_execute("LISTEN jobs; NOTIFY jobs").await.expect("a notification");
    client.batch_execute("SELECT 1/0").await.expect_err("an error");
    eventually(async || is(proxy.metric("pgweir_watch_up", &[]), 1)).await;
    let page = proxy.metrics();
    for metric in Metric::ALL {
        let name = metric.name();
        let is_its = |series: &&str| match metric.kind() {
            MetricKind::Histogram => series.strip_prefix(name).is_some_and(|rest| rest.starts_with("_bucket")),
            MetricKind::Counter | MetricKind::Gauge => series.split('{').next() == Some(name),
        };
        let series = page.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0));
        let mut found = series.filter(is_its).peekable();
        // No table is looked at in the first half minute, this instance is alone and shows no certificate, its limit is
        // enforced, its database has neither lanes nor readers, and causes without an event have no series.
        let is_absent =
            matches!(metric, Metric::DeadTuples | Metric::CertificateExpiry | Metric::RoleObserved | Metric::Pins)
                || metric.labels().len() == 3 && metric.kind() == MetricKind::Counter
                || ["pgweir_lane", "pgweir_reader"].iter().any(|part| name.starts_with(part))
                || name.starts_with("pgweir_fleet_") && *metric != Metric::FleetCancels;
        assert!(found.peek().is_some() || is_absent, "{name} is not there:\n{page}");
        let expected: Vec<_> = metric.labels().iter().map(|label| label.name()).collect();
        found.for_each(|series| assert_eq!(labels(series), expected, "{series}"));
    }

    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().expect("it is installed: make install");
    promtool.stdin.take().expect("a pipe").write_all(page.as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[tokio::test]
async fn a_transaction_lasts_as_long_as_its_client_keeps_it_and_its_queries_as_long_as_the_server_takes() {
    let proxy = proxy().role("slow", "").start().await;
    let (slow, quick) = (proxy.connect("slow").await, proxy.connect("app").await);
    slow.batch_execute("BEGIN").await.expect("a transaction");
    quick.batch_execute("SELECT pg_sleep(0.3)").await.expect("a query");
    slow.batch_execute("COMMIT").await.expect("its end");

    let of = |name: &str, role: &str| proxy.metric(name, &[&format!("role=\"{role}\"")]);
    eventually(async || is(of("pgweir_transaction_seconds_count", "slow"), 1)).await;
    assert!(is(of("pgweir_query_seconds_count", "slow"), 2));
    assert!(of("pgweir_transaction_seconds_sum", "slow") >= 0.3);
    assert!(of("pgweir_query_seconds_sum", "slow") + 0.3 <= of("pgweir_lease_seconds_sum", "slow"));
    for name in ["pgweir_query_seconds", "pgweir_transaction_seconds"] {
        assert!(is(of(&format!("{name}_count"), "app"), 1));
        assert!(of(&format!("{name}_sum"), "app") >= 0.3);
    }
    let stats = proxy.console("SHOW STATS").await;
    let micros = |column: &str| stats[0][column].parse::<u64>().expect("a number");
    assert!(micros("total_query_time") + 300_000 <= micros("total_xact_time"), "{stats:?}");
}

#[tokio::test]
async fn backends_that_cannot_be_opened_are_counted_by_reason() {
    let proxy = proxy().role("lost", "login_as = \"no_such_role\"\nbackend_password = \"wrong\"").start().await;
    proxy.try_connect("lost").await.expect_err("the server knows no such role");
    assert!(proxy.metric("pgweir_backend_open_failures_total", &["role=\"lost\"", "reason=\"refused\""]) >= 1.0);
    proxy.connect("app").await;
    assert!(proxy.metric("pgweir_backend_open_seconds_count", &["role=\"app\""]) >= 1.0);
    // A client may use its session before its login is counted.
    eventually(async || is(proxy.metric("pgweir_login_seconds_count", &[]), 1)).await;
}

#[tokio::test]
async fn closed_backends_are_counted_by_reason() {
    let proxy = proxy().pool_size(1).start().await;
    let client = proxy.connect("app").await;
    let closed =
        |reason: &str| proxy.metric("pgweir_backends_closed_total", &["role=\"app\"", &format!("reason=\"{reason}\"")]);
    client.batch_execute("SELECT pg_terminate_backend(pg_backend_pid())").await.expect_err("the backend is lost");
    eventually(async || is(closed("unfit"), 1)).await;
    client.batch_execute("SELECT 1").await.expect("another backend");
    assert!(is(closed("retired"), 0));

    proxy.console("RECONNECT").await;
    eventually(async || client.batch_execute("SELECT 1").await.is_ok() && is(closed("retired"), 1)).await;
    assert!(is(closed("unfit"), 1));
}

#[tokio::test]
async fn a_configuration_that_is_refused_is_told_until_a_good_one_is_read() {
    let proxy = proxy().start().await;
    let current = "pgweir_config_last_reload_successful";
    assert!(is(proxy.metric(current, &[]), 1));
    proxy.rewrite("[pool]\nsize = -1");
    eventually(async || is(proxy.metric(current, &[]), 0)).await;
    proxy.rewrite("[pool]\nsize = 3");
    eventually(async || is(proxy.metric(current, &[]), 1)).await;
}

#[tokio::test]
async fn alerts_name_commands_that_the_console_has() {
    let proxy = proxy().start().await;
    let help = proxy.console("SHOW HELP").await;
    let commands: Vec<_> = help.iter().flat_map(|row| row.values()).collect();
    let rules = include_str!("../../deploy/prometheus/alerts.yml");
    for rest in rules.split("SHOW ").skip(1) {
        let name = rest.split(|c: char| !c.is_ascii_uppercase()).next().unwrap_or_default();
        assert!(commands.iter().any(|command| **command == format!("SHOW {name}")), "SHOW {name}: {help:?}");
    }
}
