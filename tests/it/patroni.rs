//! In front of a cluster that Patroni runs: a switchover and a crash as clients see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::drivers::install;
use crate::support::{PatroniCluster, Proxy, eventually, password_of, proxy};

/// Clients whose statements commit themselves, and clients with transactions of several.
const AUTOCOMMIT: u32 = 12;
const EXPLICIT: u32 = 4;

/// pgweir in front of it, as docs/FAILOVER.md has it.
async fn in_front_of(cluster: &PatroniCluster) -> Proxy {
    let [a, b] = cluster.hosts();
    let (port, api) = (cluster.port, cluster.api);
    let admin = cluster.admin().await;
    let password = password_of("app");
    let sql = format!(
        "CREATE ROLE app LOGIN PASSWORD '{password}'; CREATE TABLE t (client int, number int, PRIMARY KEY (client, number));
         GRANT ALL ON t TO app"
    );
    admin.batch_execute(&sql).await.expect("a table");
    proxy()
        .wait_timeout("120s")
        .toml(&format!(
            "[databases.cluster]\nhost = [\"{a}\", \"{b}\"]\nport = {port}\ndbname = \"postgres\"\ntopology = \"patroni\"\n\
             patroni = {{ url = [\"http://{a}:{api}\", \"http://{b}:{api}\"] }}"
        ))
        .start()
        .await
}

/// What clients did, and what went wrong.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    /// Rows that a client was told are committed, and statements and transactions that failed.
    committed: AtomicU32,
    failed: [AtomicU32; 2],
}

/// A client writes row after row; a transaction's second statement is its first one's again.
async fn write(load: Arc<Load>, client: Client, number: u32, is_explicit: bool) -> Vec<(i32, i32)> {
    let mut told = Vec::new();
    for row in 0.. {
        if load.is_over.load(Ordering::Relaxed) {
            break;
        }
        let insert = format!("INSERT INTO t VALUES ({number}, {row})");
        let texts =
            if is_explicit { vec!["BEGIN", &insert, "SELECT pg_sleep(0.01)", "COMMIT"] } else { vec![&*insert] };
        let mut outcome = Ok(());
        for text in texts {
            outcome = client.batch_execute(text).await;
            if outcome.is_err() {
                break;
            }
        }
        match outcome {
            Ok(()) => {
                load.committed.fetch_add(1, Ordering::Relaxed);
                told.push((number as i32, row));
            }
            Err(error) => {
                load.failed[usize::from(is_explicit)].fetch_add(1, Ordering::Relaxed);
                println!("client {number}, row {row}: {error:?}");
                let _ = client.batch_execute("ROLLBACK").await;
            }
        }
    }
    told
}

/// Runs `incident` under load; what the clients were told is committed is there afterwards, and nothing else failed
/// but transactions that were open. Returns how many of these did.
async fn survives(cluster: &PatroniCluster, proxy: &Proxy, incident: impl AsyncFnOnce()) -> Arc<Load> {
    let load = Arc::new(Load::default());
    let mut clients = JoinSet::new();
    for number in 0..AUTOCOMMIT + EXPLICIT {
        let client = proxy.database("cluster").connect("app").await;
        clients.spawn(write(Arc::clone(&load), client, number, number >= AUTOCOMMIT));
    }
    let more = async || {
        let before = load.committed.load(Ordering::Relaxed);
        eventually(async || load.committed.load(Ordering::Relaxed) > before + 200).await;
    };
    more().await;
    incident().await;
    more().await;
    load.is_over.store(true, Ordering::Relaxed);
    let told: Vec<_> = clients.join_all().await.concat();
    let rows = cluster.admin().await.query("SELECT client, number FROM t", &[]).await.expect("a table");
    let there: std::collections::HashSet<(i32, i32)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let missing: Vec<_> = told.iter().filter(|row| !there.contains(row)).collect();
    assert!(missing.is_empty(), "told committed, and not there: {missing:?}");
    load
}

#[tokio::test]
async fn a_switchover_fails_no_statement() {
    install();
    let cluster = PatroniCluster::start().await;
    let proxy = in_front_of(&cluster).await;
    let (addr, password) = (proxy.addr, password_of("ops"));
    cluster.before_stop(&format!(
        "#!/bin/sh\npsql 'host={} port={} dbname=pgweir user=ops password={password}' -c \"PAUSE cluster UNTIL PRIMARY '30s'\" || true\n",
        addr.ip(),
        addr.port()
    ));
    let load = survives(&cluster, &proxy, async || cluster.switch_over().await).await;
    let failed = load.failed.each_ref().map(|failed| failed.load(Ordering::Relaxed));
    assert_eq!(failed, [0, 0], "statements, transactions");
}

#[tokio::test]
async fn a_crash_fails_what_was_under_way_and_nothing_else() {
    install();
    let cluster = PatroniCluster::start().await;
    let proxy = in_front_of(&cluster).await;
    let load = survives(&cluster, &proxy, async || cluster.crash_leader().await).await;
    let failed = load.failed.each_ref().map(|failed| failed.load(Ordering::Relaxed));
    assert!(
        failed[0] <= AUTOCOMMIT && failed[1] <= EXPLICIT,
        "each client lost at most what it had under way: {failed:?}"
    );
}
