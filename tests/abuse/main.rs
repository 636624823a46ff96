//! Clients that do what they should not, over the wire, one after the other, before a pgweir in front of a real
//! Postgres. Each hears what its row says; then another client's query is answered, every backend is free again, and
//! nobody is left. Over the whole run memory does not grow.
//!
//! A row's answer is what comes back, message by message: `E` and `Z` with their SQLSTATE and status, `R` with its
//! number, the byte of an answer to an SSLRequest as it is, `end` for the end of the connection.
//! `ABUSE=text` runs the rows with that in their name; `PGWEIR_TEST_TARGET=postgres` asks Postgres itself, and prints
//! where it answers otherwise.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod admin;
mod before_login;
mod case;
mod floods;
mod halves;
mod messages;
#[path = "../it/support/mod.rs"]
mod support;

use std::fs;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use case::{Abuse, Case, Target};
use support::{Pki, Postgres, Proxy, Wire, eventually, proxy, tags};

/// Growth of the process over the whole run: buffers that are kept, and what the allocator does not give back.
const GROWTH_MAX: u64 = 64 << 20;

/// Nobody is kept waiting longer than this by what another client does.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Rows that take longer are named with their time.
const SLOW: Duration = Duration::from_secs(2);

fn cases() -> Vec<Case> {
    [before_login::cases(), messages::cases(), halves::cases(), floods::cases(), admin::cases()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn the_kit_has_at_least_150_cases_of_different_names() {
    let names: std::collections::BTreeSet<_> = cases().into_iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases().len());
    assert!(names.len() >= 150, "{}", names.len());
}

#[tokio::test]
async fn whatever_a_client_does_others_are_served_and_nothing_is_left_of_it() {
    let pki = Pki::new();
    pki.issue("server", "127.0.0.1");
    let file = |name: &str| pki.path(name).display().to_string();
    let (cert, key) = (file("server.crt"), file("server.key"));
    let proxy = proxy()
        .pool_size(3)
        .toml(&format!("[listen]\ntls = {{ mode = \"allow\", cert = \"{cert}\", key = \"{key}\" }}"))
        .toml("[listen]\nstartup_timeout = \"1s\"\nlogin_timeout = \"3s\"\n[pool]\ncancel_timeout = \"2s\"")
        .toml("[roles.app]\nstatement_timeout = \"3s\"\nidle_in_transaction_timeout = \"3s\"")
        .toml("[admin]\ntoken = \"a-token-of-24-characters\"")
        .start()
        .await;
    let postgres = Postgres::shared();
    let before = postgres.endpoint(&proxy.dbname);
    let wanted = std::env::var("ABUSE").unwrap_or_default();
    let is_direct = std::env::var("PGWEIR_TEST_TARGET").is_ok_and(|target| target == "postgres");
    let mut witness = Witness::new(&proxy).await;
    let target = Target { proxy: &proxy, endpoint: if is_direct { &before } else { &proxy } };
    let mut wrong = Vec::new();
    let mut judge = |case: &Case, came: String| {
        if came != case.answer {
            println!("{}: expected {:?}, came {came:?}", case.name, case.answer);
            wrong.push(case.name.clone());
        }
    };
    let is_asked_for = |case: &Case| {
        case.name.contains(&wanted)
            && (!is_direct || matches!(case.abuse, Abuse::Bytes(stage, _) if stage.is_of_postgres()))
    };
    let (slow, quick): (Vec<_>, Vec<_>) = cases().into_iter().filter(is_asked_for).partition(Case::is_slow);
    let came = join_all(slow.iter().map(|case| case.run(&target))).await;
    slow.iter().zip(came).for_each(|(case, came)| judge(case, came));
    if !is_direct {
        witness.check("rows that wait for a time limit").await;
    }
    for case in quick {
        let since = Instant::now();
        judge(&case, case.run(&target).await);
        if !is_direct {
            witness.check(&case.name).await;
        }
        if since.elapsed() > SLOW {
            println!("{}: {:?}", case.name, since.elapsed());
        }
    }
    assert!(wrong.is_empty() || is_direct, "{} rows: {wrong:#?}", wrong.len());
    witness.end().await;
}

/// Another client, which has to be served whatever happens.
struct Witness<'a> {
    proxy: &'a Proxy,
    wire: Wire,
    memory: u64,
}

impl<'a> Witness<'a> {
    async fn new(proxy: &'a Proxy) -> Self {
        let mut wire = proxy.wire("app").await;
        wire.value("CREATE TABLE abused (n int)").await;
        // All backends are open, and each buffer has been used once.
        let clients: Vec<_> = join_all((0..3).map(|_| proxy.wire("app"))).await;
        let asleep = clients.into_iter().map(|mut client| async move { client.query("SELECT pg_sleep(0.2)").await });
        join_all(asleep).await;
        let memory = resident(proxy);
        Self { proxy, wire, memory }
    }

    /// A query is answered, all backends are free, and nobody but this client is connected.
    async fn check(&mut self, name: &str) {
        let answer = timeout(ANSWER_MAX, self.wire.query("SELECT 1")).await;
        let answer = answer.unwrap_or_else(|_| panic!("{name}: another client gets no answer"));
        assert_eq!(tags(&answer), "T D C Z", "{name}: another client");
        eventually(async || {
            let metrics = self.proxy.metrics();
            let value = |name: &str| sum(&metrics, name);
            value("pgweir_connections ") < 1.5
                && value("pgweir_backends{") - sum_where(&metrics, "pgweir_backends{", "state=\"idle\"") < 0.5
                && value("pgweir_waiters{") < 0.5
        })
        .await;
        let told =
            self.proxy.records(|record| record["level"] == "ERROR" || record["message"].to_string().contains("panic"));
        assert!(told.is_empty(), "{name}: {told:?}");
    }

    async fn end(&self) {
        let memory = resident(self.proxy);
        assert!(
            memory.saturating_sub(self.memory) <= GROWTH_MAX,
            "memory grew from {} to {} KiB",
            self.memory >> 10,
            memory >> 10
        );
        println!("memory: {} KiB before, {} KiB after", self.memory >> 10, memory >> 10);
        let server = Postgres::shared().admin(&self.proxy.dbname).await;
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'app' \
                   AND state <> 'idle'";
        let busy = async || server.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0;
        eventually(busy).await;
    }
}

/// Memory of the process (proc(5)).
fn resident(proxy: &Proxy) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn sum(metrics: &str, prefix: &str) -> f64 {
    sum_where(metrics, prefix, "")
}

fn sum_where(metrics: &str, prefix: &str, label: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with(prefix) && line.contains(label));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}
