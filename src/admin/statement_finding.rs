//! The early warning as a finding: the statement, whose it is, and the order that would contain it.

use std::sync::Arc;
use std::time::Duration;

use crate::proxy::Proxy;
use crate::watch::finding::{Finding, FindingKind, Reach};
use crate::workload::StatementView;
use crate::workload::baseline::{StatementTrouble, StatementWarning};

/// Characters of a text that a finding shows.
const SHOWN: usize = 80;

/// The open ones: the database of the last caller, seconds of the process since when, and the finding.
pub(super) fn findings(proxy: &Proxy) -> Vec<(Arc<str>, u32, Finding)> {
    let warnings = proxy.workload.as_ref().map(|workload| workload.warnings()).unwrap_or_default();
    warnings.into_iter().map(|(warning, view)| finding(&warning, &view)).collect()
}

fn finding(warning: &StatementWarning, view: &StatementView) -> (Arc<str>, u32, Finding) {
    let digest = warning.digest;
    let is_now = match warning.trouble {
        StatementTrouble::Timeouts { now, usual } => {
            format!("runs into {now} timeouts, usually {usual:.1} in the same time")
        }
        StatementTrouble::Slow { now, usual } => format!("takes {}, usually {}", millis(now), millis(usual)),
    };
    let text: String = view.text.chars().take(SHOWN).collect();
    let mut what = format!("statement {digest} {is_now}: {text}; role {}", view.roles.join(", "));
    let caller = view.last_caller.as_ref();
    if let Some(application) = caller.map(|caller| &caller.application_name).filter(|name| !name.is_empty()) {
        what.push_str(&format!(", application {application}"));
    }
    let remedy = Some(format!("LIMIT STATEMENT {digest} 1 FOR '10m'"));
    let database = caller.map_or_else(|| "".into(), |caller| Arc::clone(&caller.database));
    (database, warning.since, Finding { kind: FindingKind::Statement, what, culprit: None, remedy, reach: Reach::Own })
}

fn millis(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Digest;
    use crate::workload::{StatementCaller, StatementTotals};

    #[test]
    fn a_warning_names_the_statement_its_role_and_the_order_against_it() {
        let digest = Digest(0x9f3a);
        let caller = StatementCaller {
            role: "web".into(),
            database: "app".into(),
            application_name: "cart".into(),
            addr: "10.0.0.7".into(),
        };
        let view = StatementView {
            digest: Some(digest),
            text: "SELECT ?".to_owned(),
            totals: StatementTotals::default(),
            roles: vec!["web".into()],
            last_caller: Some(caller),
            first_seen: 0,
            last_seen: 1,
        };
        let trouble = StatementTrouble::Slow { now: Duration::from_millis(900), usual: Duration::from_millis(20) };
        let (database, _, finding) = finding(&StatementWarning { digest, since: 1, trouble }, &view);
        assert_eq!(
            (&*database, &*finding.what, finding.remedy.as_deref()),
            (
                "app",
                "statement 0000000000009f3a takes 900 ms, usually 20 ms: SELECT ?; role web, application cart",
                Some("LIMIT STATEMENT 0000000000009f3a 1 FOR '10m'")
            )
        );
    }
}
