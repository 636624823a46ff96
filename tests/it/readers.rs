//! Reads are spread over the standbys of a cluster: each has its part, and one that lags or is gone gets nothing.

use std::collections::BTreeMap;

use crate::support::{Endpoint, Postgres, Proxy, Wire, eventually, proxy, tags};

const ADDRESS: &str = "SELECT host(inet_server_addr())";

/// A primary at 127.0.0.1 and standbys at .2 and .3.
async fn cluster() -> (Postgres, Postgres, Postgres) {
    let primary = Postgres::private(&[]);
    primary.role("app").await;
    let admin = primary.admin("postgres").await;
    let sql = "CREATE ROLE prober LOGIN PASSWORD 'prober-password'; CREATE TABLE t (a int); GRANT ALL ON t TO app";
    admin.batch_execute(sql).await.expect("a table");
    let standbys = (primary.standby_at(2), primary.standby_at(3));
    (primary, standbys.0, standbys.1)
}

/// The database `reads` in front of these hosts.
async fn in_front_of(primary: &Postgres, hosts: &[u8], more: &str) -> Proxy {
    let hosts: Vec<String> = hosts.iter().map(|n| format!("127.0.0.{n}")).collect();
    let port = primary.port;
    proxy()
        .postgres(primary)
        .dbname("postgres")
        .toml(&format!(
            "[databases.reads]\nhost = {hosts:?}\nport = {port}\ndbname = \"postgres\"\nreaders = true\n\
             connect_timeout = \"1s\"\n{more}"
        ))
        .start()
        .await
}

const PROBE: &str = "topology = \"probe\"\nprobe = { role = \"prober\", password = \"prober-password\" }\n";

/// The readers in this state, by SHOW READERS.
async fn in_state(proxy: &Proxy, state: &str) -> Vec<String> {
    let lines = proxy.console("SHOW READERS").await;
    lines.iter().filter(|line| line["state"] == state).map(|line| line["host"].clone()).collect()
}

fn named(primary: &Postgres, servers: &[u8]) -> Vec<String> {
    servers.iter().map(|n| format!("127.0.0.{n}:{}", primary.port)).collect()
}

async fn clients(at: &Endpoint, count: usize) -> Vec<Wire> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(at.wire("app").await);
    }
    clients
}

/// A transaction of each client at once: how many are at each server.
async fn spread(clients: &mut [Wire]) -> BTreeMap<String, usize> {
    let mut at = BTreeMap::new();
    for client in &mut *clients {
        assert_eq!(tags(&client.query("BEGIN").await), "C Z");
        *at.entry(client.value(ADDRESS).await).or_default() += 1;
    }
    for client in clients {
        assert_eq!(tags(&client.query("COMMIT").await), "C Z");
    }
    at
}

fn even(servers: &[u8], each: usize) -> BTreeMap<String, usize> {
    servers.iter().map(|n| (format!("127.0.0.{n}"), each)).collect()
}

#[tokio::test]
async fn reads_are_spread_over_the_standbys_and_a_lagging_one_gets_nothing() {
    let (primary, lagging, _other) = cluster().await;
    let proxy = in_front_of(&primary, &[1, 2, 3], &format!("{PROBE}lag_max = \"1s\"\nsize = 8\n")).await;
    let mut clients = clients(&proxy.database("reads"), 8).await;
    eventually(async || in_state(&proxy, "used").await == named(&primary, &[2, 3])).await;
    assert_eq!(in_state(&proxy, "spare").await, named(&primary, &[1]), "the primary");
    assert_eq!(spread(&mut clients).await, even(&[2, 3], 4));
    // It replays nothing more, and the primary writes.
    let admin = lagging.admin("postgres").await;
    admin.batch_execute("SELECT pg_wal_replay_pause()").await.expect("a superuser may");
    let writer = primary.admin("postgres").await;
    writer.batch_execute("INSERT INTO t VALUES (1)").await.expect("the primary writes");
    eventually(async || in_state(&proxy, "draining").await == named(&primary, &[2])).await;
    assert_eq!(spread(&mut clients).await, even(&[3], 8));
    let lines = proxy.console("SHOW READERS").await;
    let line = lines.iter().find(|line| line["state"] == "draining").expect("one");
    assert_eq!((line["reason"].as_str(), line["backends"].as_str()), ("further behind than lag_max", "0"));
    let labels = [&*format!("reader=\"127.0.0.2:{}\"", primary.port)];
    assert!(proxy.metric("pgweir_reader_lag_seconds", &labels) > 1.0);
    assert_eq!(proxy.metric("pgweir_reader_used", &labels), 0.0);
    admin.batch_execute("SELECT pg_wal_replay_resume()").await.expect("a superuser may");
    eventually(async || in_state(&proxy, "used").await == named(&primary, &[2, 3])).await;
}

#[tokio::test]
async fn a_reader_that_was_away_gets_its_part_back_and_nobody_an_error() {
    let (primary, _other, mut gone) = cluster().await;
    let proxy = in_front_of(&primary, &[1, 2, 3], &format!("{PROBE}size = 8\n")).await;
    let mut clients = clients(&proxy.database("reads"), 8).await;
    eventually(async || in_state(&proxy, "used").await == named(&primary, &[2, 3])).await;
    assert_eq!(spread(&mut clients).await, even(&[2, 3], 4));
    gone.stop();
    assert_eq!(spread(&mut clients).await, even(&[2], 8));
    gone.start();
    eventually(async || in_state(&proxy, "used").await == named(&primary, &[2, 3])).await;
    // Its backends move to it few by few, without a client that waits.
    let backends = async || {
        let lines = proxy.console("SHOW READERS").await;
        lines
            .into_iter()
            .filter(|line| line["state"] == "used")
            .map(|line| line["backends"].clone())
            .collect::<Vec<_>>()
    };
    eventually(async || backends().await == ["4", "4"]).await;
    assert_eq!(spread(&mut clients).await, even(&[2, 3], 4));
}

#[tokio::test]
async fn without_a_reader_clients_get_57p03_or_the_primary_if_it_may_stand_in() {
    let (primary, mut one, mut other) = cluster().await;
    let port = primary.port;
    let more = format!(
        "{PROBE}[databases.falls_back]\nhost = [\"127.0.0.1\", \"127.0.0.2\", \"127.0.0.3\"]\nport = {port}\n\
         dbname = \"postgres\"\nreaders = true\nfallback_max = 1\n{PROBE}"
    );
    let proxy = in_front_of(&primary, &[1, 2, 3], &more).await;
    let mut client = proxy.database("reads").wire("app").await;
    let mut falls_back = proxy.database("falls_back").wire("app").await;
    assert_ne!(client.value(ADDRESS).await, "127.0.0.1");
    assert_ne!(falls_back.value(ADDRESS).await, "127.0.0.1");
    one.stop();
    other.stop();
    let frames = client.query("SELECT 1").await;
    let error = frames.iter().find(|frame| frame.tag == 'E').unwrap_or_else(|| panic!("no error: {frames:?}"));
    assert_eq!(error.sqlstate(), "57P03", "{frames:?}");
    assert!(error.text().contains("SHOW READERS"), "{error:?}");
    assert_eq!(falls_back.value(ADDRESS).await, "127.0.0.1");
    one.start();
    eventually(async || in_state(&proxy, "used").await == [named(&primary, &[2]), named(&primary, &[2])].concat())
        .await;
    assert_eq!(client.value(ADDRESS).await, "127.0.0.2");
    assert_eq!(falls_back.value(ADDRESS).await, "127.0.0.2");
}

#[tokio::test]
async fn a_list_of_hosts_is_enough_and_one_that_is_down_is_found_again() {
    let (primary, _other, mut gone) = cluster().await;
    let proxy = in_front_of(&primary, &[2, 3], "server_role = \"standby\"\nsize = 6\n").await;
    let mut clients = clients(&proxy.database("reads"), 6).await;
    eventually(async || in_state(&proxy, "used").await == named(&primary, &[2, 3])).await;
    assert_eq!(spread(&mut clients).await, even(&[2, 3], 3));
    gone.stop();
    assert_eq!(spread(&mut clients).await, even(&[2], 6));
    gone.start();
    eventually(async || in_state(&proxy, "used").await == named(&primary, &[2, 3])).await;
}

#[tokio::test]
async fn a_list_in_order_uses_its_first_and_a_near_one_comes_before_it() {
    let (primary, _second, mut first) = cluster().await;
    let port = primary.port;
    let near = format!(
        "load_balance = \"order\"\n[databases.near]\nhost = [\"127.0.0.3\", \"127.0.0.2\"]\nport = {port}\n\
         dbname = \"postgres\"\nreaders = true\nprefer = [\"127.0.0.2/32\"]\n"
    );
    let proxy = in_front_of(&primary, &[3, 2], &near).await;
    let (mut ordered, mut near) =
        (clients(&proxy.database("reads"), 3).await, clients(&proxy.database("near"), 3).await);
    assert_eq!(spread(&mut ordered).await, even(&[3], 3));
    assert_eq!(spread(&mut near).await, even(&[2], 3));
    first.stop();
    assert_eq!(spread(&mut ordered).await, even(&[2], 3));
}
