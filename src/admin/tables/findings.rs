//! SHOW FINDINGS: every open finding of every detector of the watch.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::culprits::{NamedCulprit, Today, columns_to_culprit};
use super::format::time;
use crate::admin::statement_finding;
use crate::admin::table::{ConsoleTable, table};
use crate::proxy::Proxy;
use crate::watch::finding::Finding;
use crate::watch::watches::{OpenFinding, listed};

pub(in crate::admin) const TABLE: ConsoleTable = table!(
    "FINDINGS",
    "everything that the watches have found and that is not over, with the SQL that would end it",
    lines,
);

struct FindingLine {
    database: String,
    since: String,
    finding: Finding,
    culprit: NamedCulprit,
    remedy: Option<String>,
}

columns_to_culprit! { FindingLine;
    "database" text = |it| &it.database,
    "kind" text = |it| it.finding.kind.word(),
    "what" text = |it| &it.finding.what,
    "since" text = |it| &it.since,
}

fn lines(proxy: &Proxy) -> Vec<FindingLine> {
    let today = Today::now();
    let line = |OpenFinding { databases, open }: OpenFinding| FindingLine {
        database: listed(&databases),
        since: today.date(open.since),
        culprit: NamedCulprit::of(open.value.culprit.as_ref()),
        remedy: open.value.remedy.clone(),
        finding: open.value,
    };
    let findings = proxy.watches.findings(usize::MAX, Instant::now());
    let mut found: Vec<_> = findings.into_iter().map(line).collect();
    let of_statement = |(database, since, finding): (Arc<str>, u32, Finding)| FindingLine {
        database: database.to_string(),
        since: time(proxy.clock.started_at() + Duration::from_secs(since.into())),
        culprit: NamedCulprit::default(),
        remedy: finding.remedy.clone(),
        finding,
    };
    found.extend(statement_finding::findings(proxy).into_iter().map(of_statement));
    found
}
