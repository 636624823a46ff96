//! Clients that take whatever they can get: they get an error, and others are served meanwhile.

use std::fs;
use std::time::Duration;

use tokio::time::Instant;

use tokio::time::timeout;

use crate::support::frontend::{bind, close_statement, execute, extended, flush, parse, query, sync};
use crate::support::{Proxy, Wire, errors, eventually, proxy, tags};

/// Far above any wait of a client whose worker is not kept from it, in a debug build on a busy machine.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// One worker for all clients.
async fn one_worker(lines: &str) -> Proxy {
    proxy().pool_size(4).toml("[listen]\nworkers = 1").toml(lines).start().await
}

/// Sends these one after the other, until one fails; then the rest is dropped. Meanwhile another client is served, and
/// its longest wait is short. Returns the SQLSTATE of the failure.
async fn take(proxy: &Proxy, units: Vec<Vec<u8>>) -> String {
    let (mut greedy, mut other) = (proxy.wire("app").await, proxy.wire("app").await);
    let greedy = tokio::spawn(async move {
        for unit in units {
            greedy.send(unit).await;
            if let Some(code) = errors(&greedy.cycle().await).pop() {
                // It stays, and is served.
                assert_eq!(tags(&greedy.query("ROLLBACK").await.split_off(1)).chars().last(), Some('Z'));
                return code;
            }
        }
        "00000".to_owned()
    });
    let mut longest = Duration::ZERO;
    while !greedy.is_finished() {
        let since = Instant::now();
        assert_eq!(other.value("SELECT 1").await, "1");
        longest = longest.max(since.elapsed());
    }
    assert!(longest < SILENCE_MAX, "{longest:?}");
    greedy.await.expect("no panic")
}

/// Texts of `count` statements in all, a thousand each.
fn texts(count: usize, statement: impl Fn(usize) -> String) -> Vec<Vec<u8>> {
    let numbers: Vec<_> = (0..count).collect();
    numbers.chunks(1000).map(|part| query(&part.iter().map(|n| statement(*n)).collect::<String>())).collect()
}

// Found by an audit: 16,000 LISTENs of one client kept a worker silent for 63 seconds.
#[tokio::test(flavor = "multi_thread")]
async fn listening_to_all_channels_there_are_ends_with_an_error_and_starves_nobody() {
    let proxy = one_worker("").await;
    assert_eq!(take(&proxy, texts(16_000, |n| format!("LISTEN channel_{n};"))).await, "53400");
    // The channels of the first client are gone with it.
    let mut wire = proxy.wire("app").await;
    assert_eq!(tags(&wire.query("LISTEN a").await), "C Z");
    assert_eq!(wire.value("SELECT pg_listening_channels()").await, "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn portals_settings_and_statements_without_end_are_an_error_and_starve_nobody() {
    let proxy = one_worker("").await;
    let portals = (0..20).map(|part| {
        let portals = (0..1000).flat_map(|n| bind(&format!("portal_{part}_{n}"), "s", &[]));
        [portals.collect::<Vec<_>>(), sync()].concat()
    });
    let begin = [query("BEGIN"), [parse("s", "SET LOCAL work_mem = '4MB'", &[]), sync()].concat()];
    assert_eq!(take(&proxy, begin.into_iter().chain(portals).collect()).await, "53400");
    assert_eq!(take(&proxy, texts(5_000, |n| format!("SET a.setting_{n} = 'x';"))).await, "53400");
    let large = format!("SET a.setting = '{}'", "x".repeat(300_000));
    assert_eq!(take(&proxy, vec![query(&large)]).await, "53400");
    let text = format!("SELECT '{}'", "x".repeat(200_000));
    let statements = (0..200).map(|n| [parse(&format!("s{n}"), &text, &[]), sync()].concat());
    assert_eq!(take(&proxy, statements.collect()).await, "53400");
    // Everything came back with its client.
    eventually(async || proxy.metric("pgweir_client_memory_bytes", &[]) == 0.0).await;
}

/// Bytes of memory that pgweir has from the system.
fn resident(proxy: &Proxy) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid().as_raw_nonzero())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("every process has it");
    line.split_whitespace().nth(1).expect("a number").parse::<usize>().expect("kB") * 1024
}

/// Sends as much as is taken, up to `most` bytes; returns how much that was.
async fn stuff(wire: &mut Wire, bytes: &[u8], most: usize) -> usize {
    let mut sent = 0;
    while sent < most && timeout(Duration::from_millis(500), wire.send(bytes)).await.is_ok() {
        sent += bytes.len();
    }
    sent
}

// Found by an audit: 401 MB in five seconds.
#[tokio::test]
async fn messages_that_pgweir_answers_itself_are_not_read_without_end_behind_a_slow_query() {
    const MOST: usize = 64 * 1024 * 1024;
    let proxy = one_worker("").await;
    let mut wire = proxy.wire("app").await;
    wire.send([extended("SELECT pg_sleep(600)", &[]), flush()].concat()).await;
    let before = resident(&proxy);
    let sent = stuff(&mut wire, &close_statement("x").repeat(8_000), MOST).await;
    assert!(sent < MOST, "{sent}");
    let grown = resident(&proxy).saturating_sub(before);
    assert!(grown < 32 * 1024 * 1024, "{grown}");
}

// A server that keeps its answers back until the Sync is told to send them, or nobody would ever read that Sync.
#[tokio::test]
async fn a_long_unit_of_messages_that_pgweir_answers_itself_is_answered() {
    const COUNT: usize = 40_000;
    let proxy = one_worker("").await;
    let mut wire = proxy.wire("app").await;
    let unit = [parse("", "SELECT 1", &[]), close_statement("x").repeat(COUNT), bind("", "", &[]), execute("", 0)];
    wire.send([unit.concat(), sync()].concat()).await;
    let frames = wire.cycle().await;
    assert_eq!(frames.iter().filter(|frame| frame.tag == '3').count(), COUNT);
    assert_eq!(tags(&frames[COUNT + 1..]), "2 D C Z");
}

#[tokio::test]
async fn past_the_memory_of_all_clients_the_one_that_needs_more_is_closed() {
    let proxy = one_worker("[listen]\nmemory_max = \"4MiB\"").await;
    let (mut greedy, mut small) = (proxy.wire("app").await, proxy.wire("app").await);
    let text = format!("SELECT '{}'", "x".repeat(500_000));
    let code = 'closed: {
        for n in 0..10 {
            greedy.send([parse(&format!("s{n}"), &text, &[]), sync()].concat()).await;
            while let Some(frame) = greedy.next().await.filter(|frame| frame.tag != 'Z') {
                if frame.tag == 'E' {
                    break 'closed frame.sqlstate();
                }
            }
        }
        String::new()
    };
    assert_eq!(code, "53200");
    assert_eq!(proxy.metric("pgweir_client_memory_refusals_total", &[]), 1.0);
    assert_eq!(small.value("SELECT 1").await, "1");
    drop(greedy);
    eventually(async || proxy.metric("pgweir_client_memory_bytes", &[]) == 0.0).await;
}
