//! SHOW HORIZON: holders of the horizon, the oldest first, then the tables that vacuum does not help for that reason.

use super::culprits::{NamedCulprit, Today, columns_to_culprit, each};
use crate::admin::table::{ConsoleTable, table};
use crate::proxy::Proxy;
use crate::watch::finding::Finding;

pub(in crate::admin) const TABLE: ConsoleTable = table!(
    "HORIZON",
    "who keeps vacuum from its work, and tables that it does not help; since is empty where that is harmless",
    lines,
);

struct HorizonLine {
    database: String,
    kind: &'static str,
    what: String,
    since: Option<String>,
    /// `None`: it is a table.
    age_transactions: Option<u32>,
    age_seconds: Option<u64>,
    culprit: NamedCulprit,
    remedy: Option<String>,
}

columns_to_culprit! { HorizonLine;
    "database" text = |it| &it.database,
    "kind" text = |it| it.kind,
    "what" text = |it| &it.what,
    "since" text = |it| it.since.as_ref(),
    "age_transactions" long = |it| it.age_transactions,
    "age_seconds" long = |it| it.age_seconds,
}

fn lines(proxy: &Proxy) -> Vec<HorizonLine> {
    let today = Today::now();
    each(proxy, |database, core, databases| {
        let open = core.detectors().horizon.open();
        // Slots and standbys hold back all databases of a server: one watch of it shows them.
        let holds = core.detectors().horizon.holds().enumerate();
        let holds = holds.filter(|(_, hold)| core.leads() || !hold.is_of_server()).map(|(place, hold)| {
            let Finding { what, remedy, reach, .. } = Finding::from(hold);
            HorizonLine {
                database: databases(&reach),
                kind: hold.culprit.kind().word(),
                what,
                // Of the holders only the oldest can be an open incident.
                since: open.filter(|_| place == 0).map(|open| today.date(open.since)),
                age_transactions: Some(hold.transactions),
                age_seconds: Some(hold.age.as_secs()),
                culprit: NamedCulprit::of(Some(&hold.culprit)),
                remedy,
            }
        });
        let tables = core.detectors().dead_tuples.open().map(|open| {
            let Finding { kind, what, culprit, remedy, .. } = Finding::from(&open.value);
            HorizonLine {
                database: database.to_owned(),
                kind: kind.word(),
                what,
                since: Some(today.date(open.since)),
                age_transactions: None,
                age_seconds: None,
                culprit: NamedCulprit::of(culprit.as_ref()),
                remedy,
            }
        });
        holds.chain(tables).collect()
    })
}
