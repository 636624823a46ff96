//! SHOW BLOCKERS: sessions that others wait for, the most waiters first, then sessions that take long.

use super::culprits::{NamedCulprit, Today, columns_to_culprit, each, seconds};
use crate::admin::table::{ConsoleTable, table};
use crate::proxy::Proxy;
use crate::watch::finding::Finding;

pub(in crate::admin) const TABLE: ConsoleTable = table!(
    "BLOCKERS",
    "who keeps others waiting for locks, idles in a transaction, or is at one statement for too long",
    lines,
);

struct BlockerLine {
    database: String,
    kind: &'static str,
    what: String,
    since: String,
    waiters: usize,
    lock: Option<String>,
    transaction_seconds: Option<u64>,
    culprit: NamedCulprit,
    remedy: Option<String>,
}

columns_to_culprit! { BlockerLine;
    "database" text = |it| &it.database,
    "kind" text = |it| it.kind,
    "what" text = |it| &it.what,
    "since" text = |it| &it.since,
    "waiters" int = |it| it.waiters,
    "lock" text = |it| it.lock.as_ref(),
    "transaction_seconds" long = |it| it.transaction_seconds,
}

fn lines(proxy: &Proxy) -> Vec<BlockerLine> {
    let today = Today::now();
    each(proxy, |_, core, databases| {
        let line = |finding: Finding, since| line(databases(&finding.reach), finding, since);
        let blockers = core.blockers().open().into_iter().map(|open| BlockerLine {
            waiters: open.value.waiters,
            lock: Some(open.value.lock.to_string()),
            transaction_seconds: seconds(open.value.transaction_age),
            ..line(Finding::from(&open.value), today.date(open.since))
        });
        let sessions = core.detectors().sessions.open().into_iter().map(|open| BlockerLine {
            transaction_seconds: seconds(open.value.session.transaction_age),
            ..line(Finding::from(&open.value), today.date(open.since))
        });
        blockers.chain(sessions).collect()
    })
}

/// A line with the columns that all findings have.
fn line(database: String, Finding { kind, what, culprit, remedy, .. }: Finding, since: String) -> BlockerLine {
    BlockerLine {
        database,
        kind: kind.word(),
        what,
        since,
        waiters: 0,
        lock: None,
        transaction_seconds: None,
        culprit: NamedCulprit::of(culprit.as_ref()),
        remedy,
    }
}
