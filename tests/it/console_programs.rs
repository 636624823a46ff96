//! The console as programs see it: psql, drivers of several languages, and the exporters that Prometheus scrapes
//! PgBouncer with.

use std::process::Command;

use crate::drivers::{install, node, python};
use crate::support::{eventually, password_of, proxy, root};

#[tokio::test]
async fn psql_runs_a_script() {
    let proxy = proxy().start().await;
    let script = tempfile::NamedTempFile::new().expect("a temporary file");
    let lines = r"
        \x on
        SHOW STATE;
        \x off
        \pset format unaligned
        \pset tuples_only on
        SHOW VERSION \; SHOW STATE;
        SHOW VERSION \gset
        \echo got :version
        SHOW POOL;
        \echo failed with :SQLSTATE
        PAUSE app;
        RESUME app;
        SHOW TOTALS;
    ";
    std::fs::write(script.path(), lines).expect("our own file");
    let mut psql = Command::new("psql");
    psql.args(["-X", "-f"]).arg(script.path()).env("PGTARGETSESSIONATTRS", "primary");
    let output = proxy.database("pgweir").run("ops", psql).await;
    let version = concat!("pgweir ", env!("CARGO_PKG_VERSION"));
    let combined =
        format!("{version}\nactive|yes\npaused|no\nsuspended|no\ngot {version}\nfailed with 42601\nPAUSE\nRESUME\n");
    for part in ["-[ RECORD 1 ]----\nkey   | active\nvalue | yes\n", &combined, "total_xact_count|0\n"] {
        assert!(output.contains(part), "{part}\n---\n{output}");
    }
}

#[tokio::test]
async fn psycopg() {
    install();
    let proxy = proxy().start().await;
    print!("{}", proxy.database("pgweir").run("ops", python("console_with_psycopg.py")).await);
}

#[tokio::test]
async fn node_postgres() {
    install();
    let proxy = proxy().start().await;
    print!("{}", proxy.database("pgweir").run("ops", node("console_with_pg.js")).await);
}

#[tokio::test]
async fn pgjdbc() {
    let proxy = proxy().start().await;
    let mut java = Command::new("java");
    java.args(["-XX:TieredStopAtLevel=1", "-cp", "/usr/share/java/postgresql.jar"]);
    java.arg(root().join("tests/drivers/java/ConsoleWithJdbc.java"));
    print!("{}", proxy.database("pgweir").run("ops", java).await);
}

/// prometheus-pgbouncer-exporter 2.1.2, which takes an empty table for a PgBouncer that is down.
#[tokio::test]
async fn exporter_in_python_finds_everything() {
    install();
    let stats = format!("[roles.stats]\npassword = \"{}\"\n[admin]\nstats_roles = [\"stats\"]", password_of("stats"));
    let proxy = proxy().pool_size(7).toml(&stats).start().await;
    let scrape = async || proxy.database("pgbouncer").run("stats", python("scrape_with_exporter.py")).await;
    let scraped = scrape().await;
    assert!(scraped.contains("\npgbouncer_up 1.0\n"), "nobody has come so far: {scraped}");

    let client = proxy.connect("app").await;
    client.batch_execute("SELECT 1").await.expect("a query");
    client.batch_execute("BEGIN; SELECT 1").await.expect("a query");
    client.batch_execute("COMMIT").await.expect("a query");
    eventually(async || proxy.console("SHOW STATS").await[0]["total_query_count"] == "3").await;
    let scraped = scrape().await;
    let database = format!("backend_database=\"{}\",database=\"app\"", proxy.dbname);
    for line in [
        "pgbouncer_up 1.0",
        "pgbouncer_stats_queries_total{database=\"app\"} 3.0",
        "pgbouncer_stats_transactions_total{database=\"app\"} 2.0",
        "pgbouncer_pools_client_active_connections{database=\"app\",user=\"app\"} 1.0",
        "pgbouncer_pools_server_idle_connections{database=\"app\",user=\"app\"} 1.0",
        "pgbouncer_pools_client_maxwait_seconds{database=\"app\",user=\"app\"} 0.0",
        &format!("pgbouncer_databases_database_pool_size{{{database}}} 7.0"),
        &format!("pgbouncer_databases_database_current_connections{{{database}}} 1.0"),
    ] {
        assert!(scraped.lines().any(|scraped| scraped == line), "{line}\n---\n{scraped}");
    }
    for name in ["received_bytes_total", "sent_bytes_total", "transactions_duration_microseconds_total"] {
        let line = format!("pgbouncer_stats_{name}{{database=\"app\"}} ");
        let value = scraped.lines().find_map(|scraped| scraped.strip_prefix(&*line)?.parse::<f64>().ok());
        assert!(value.is_some_and(|value| value > 0.0), "{line}\n---\n{scraped}");
    }
}

/// What pgbouncer_exporter of prometheus-community (0.11, `collector.go`) asks, over one connection and the simple
/// protocol, and the columns it reads as numbers: a row whose value is none is left out of what it exports.
#[tokio::test]
async fn exporter_in_go_finds_everything() {
    let proxy = proxy().start().await;
    let _client = proxy.connect("app").await;
    for (query, numbers) in [
        ("SHOW STATS", ""),
        ("SHOW databases;", "pool_size max_connections current_connections paused disabled"),
        (
            "SHOW stats_totals;",
            "query_count query_time bytes_received bytes_sent wait_time xact_count xact_time client_parse_count \
             server_parse_count bind_count",
        ),
        (
            "SHOW pools;",
            "cl_active cl_active_cancel_req cl_waiting cl_waiting_cancel_req sv_active sv_active_cancel \
             sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait",
        ),
        ("SHOW LISTS;", "items"),
    ] {
        let rows = proxy.console(query).await;
        assert!(!rows.is_empty(), "{query}");
        for (row, column) in rows.iter().flat_map(|row| numbers.split_whitespace().map(move |column| (row, column))) {
            let value = row.get(column).unwrap_or_else(|| panic!("{query}: no {column}"));
            assert!(value.parse::<f64>().is_ok(), "{query}: {column} is {value:?}");
        }
    }
    let lists = proxy.console("SHOW LISTS;").await;
    for list in
        ["databases", "users", "pools", "free_clients", "used_clients", "login_clients", "free_servers", "used_servers"]
    {
        assert!(lists.iter().any(|row| row["list"] == list), "{list}");
    }
    let config = proxy.console("SHOW CONFIG;").await;
    assert_eq!(config[0].len(), 4, "it takes three columns or four");
    for (key, value) in [("max_client_conn", "10000"), ("max_user_connections", "0"), ("query_wait_timeout", "30")] {
        assert!(config.iter().any(|row| row["key"] == key && row["value"] == value), "{key}: {config:?}");
    }
    let version = proxy.console("SHOW VERSION;").await;
    assert_eq!(version[0].keys().collect::<Vec<_>>(), ["version"]);
}

/// check_postgres of Debian, as Nagios runs it: it divides by max_client_conn of SHOW CONFIG.
#[tokio::test]
async fn check_postgres_counts_clients() {
    let proxy = proxy().toml("[listen]\nclients_max = 200").start().await;
    let _client = proxy.connect("app").await;
    let mut check = Command::new("check_postgres");
    check.args(["--action=pgbouncer_backends", "--dbname=pgbouncer", "--dbuser=ops"]);
    check.args(["--host=127.0.0.1", &format!("--port={}", proxy.addr.port())]);
    let said = proxy.database("pgbouncer").run("ops", check).await;
    assert!(said.contains("POSTGRES_PGBOUNCER_BACKENDS OK") && said.contains(" of 200 connections"), "{said}");
}

/// pgcli asks this as it connects.
#[tokio::test]
async fn time_zone_is_shown() {
    let proxy = proxy().start().await;
    assert_eq!(proxy.console("SHOW TIME ZONE").await[0]["TimeZone"], "UTC");
}

/// The integration of Datadog (`pgbouncer/metrics.py`): what it reads as numbers, and times as it parses them.
#[tokio::test]
async fn datadog_finds_everything() {
    let proxy = proxy().start().await;
    let _client = proxy.connect("app").await;
    for (query, numbers) in [
        (
            "SHOW STATS",
            "total_xact_count total_query_count total_received total_sent total_query_time total_xact_time \
             total_wait_time avg_xact_count avg_query_count avg_wait_time avg_recv avg_sent avg_xact_time avg_query_time",
        ),
        ("SHOW POOLS", "cl_active cl_waiting sv_active sv_idle sv_used sv_tested sv_login maxwait maxwait_us"),
        ("SHOW DATABASES", "pool_size max_connections current_connections"),
        ("SHOW CLIENTS", "wait wait_us"),
        ("SHOW SERVERS", "wait wait_us"),
    ] {
        let rows = proxy.console(query).await;
        assert!(rows.iter().any(|row| row["database"] != "pgbouncer"), "{query}");
        for (row, column) in rows.iter().flat_map(|row| numbers.split_whitespace().map(move |column| (row, column))) {
            assert!(row[column].parse::<f64>().is_ok(), "{query}: {column} is {:?}", row[column]);
        }
        // Without the zone behind it, `%Y-%m-%d %H:%M:%S`.
        for row in rows.iter().filter(|row| row.contains_key("connect_time")) {
            let time = row["connect_time"].split(' ').take(2).collect::<Vec<_>>().join(" ");
            let digits = time.replace(|c: char| c.is_ascii_digit(), "0");
            assert_eq!(digits, "0000-00-00 00:00:00", "{query}");
        }
    }
    let config = proxy.console("SHOW CONFIG").await;
    assert!(config.iter().any(|row| row["key"] == "max_client_conn" && row["value"].parse::<u32>().is_ok()));
    let version = &proxy.console("SHOW VERSION;").await[0]["version"];
    assert_eq!(version.split(' ').next_back().map(|version| version.split('.').count()), Some(3), "{version}");
}

/// Telegraf's input (`pgbouncer.go`): every column of SHOW STATS but these is a number, and each pool has its names.
#[tokio::test]
async fn telegraf_finds_everything() {
    let proxy = proxy().start().await;
    let _client = proxy.connect("app").await;
    for row in proxy.console("SHOW STATS").await {
        let ignored = ["user", "database", "pool_mode", "avg_req", "avg_recv", "avg_sent", "avg_query"];
        for (column, value) in row.iter().filter(|(column, _)| !ignored.contains(&column.as_str())) {
            assert!(value.parse::<i64>().is_ok(), "{column} is {value:?}");
        }
    }
    let pools = proxy.console("SHOW POOLS").await;
    for column in ["database", "user", "pool_mode"] {
        assert!(pools.iter().all(|row| !row[column].is_empty()), "{column}: {pools:?}");
    }
}

/// The other actions of check_postgres: one of SHOW CONFIG, which must have `log_pooler_errors`, and one of SHOW POOLS
/// for each number. Nagios takes an exit code above zero for a finding.
#[tokio::test]
async fn check_postgres_checks_pools_and_the_configuration() {
    let proxy = proxy().start().await;
    let _client = proxy.connect("app").await;
    let said = async |arguments: &str| {
        let mut check = Command::new("sh");
        let line = format!("check_postgres {arguments} --dbname=pgbouncer --dbuser=ops --host=127.0.0.1");
        check.args(["-c", &format!("{line} --port={} || true", proxy.addr.port())]);
        proxy.database("pgbouncer").run("ops", check).await
    };
    for number in ["cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login", "maxwait"] {
        let said = said(&format!("--action=pgb_pool_{number} --critical=100")).await;
        assert!(said.contains(" OK: ") && said.contains("app="), "{said}");
    }
    let first = said("--action=pgbouncer_checksum --critical=0").await;
    let checksum = first.split_whitespace().find(|word| word.len() == 32).unwrap_or_else(|| panic!("{first}"));
    let again = said(&format!("--action=pgbouncer_checksum --critical={checksum}")).await;
    assert!(again.contains("POSTGRES_PGBOUNCER_CHECKSUM OK"), "{again}");
}
