//! pgbench with far more clients than backends: every transaction counts once, whatever the protocol.

use std::process::Command;

use crate::support::{Endpoint, on_both_with, proxy};

/// 200 clients over 5 backends, a new script run each; the four sums of TPC-B agree at the end or an update was lost,
/// doubled, or went to someone else's transaction.
async fn sums_agree(mode: &str) {
    on_both_with(proxy().pool_size(5), async |at: &Endpoint| {
        let pgbench = async |arguments: &str| {
            let mut pgbench = Command::new("pgbench");
            pgbench.args(arguments.split(' '));
            at.run("app", pgbench).await
        };
        pgbench("-i -q -s 5").await;
        let report = pgbench(&format!("-n -c 200 -j 2 -t 10 -M {mode}")).await;
        assert!(report.contains("actually processed: 2000/2000"), "{report}");
        let sums = "SELECT count(*), sum(delta), (SELECT sum(abalance) FROM pgbench_accounts),
            (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(bbalance) FROM pgbench_branches)
            FROM pgbench_history";
        let sums = at.psql("app", sums).await;
        let sums: Vec<&str> = sums.trim().split('|').collect();
        assert_eq!(sums[0], "2000");
        assert!(sums[2..].iter().all(|sum| *sum == sums[1]), "{sums:?}");
    })
    .await;
}

#[tokio::test]
async fn no_update_is_lost_in_the_simple_protocol() {
    sums_agree("simple").await;
}

#[tokio::test]
async fn no_update_is_lost_in_the_extended_protocol() {
    sums_agree("extended").await;
}

#[tokio::test]
async fn no_update_is_lost_with_prepared_statements() {
    sums_agree("prepared").await;
}
