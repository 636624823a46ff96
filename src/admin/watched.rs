//! The rows of SHOW on what goes on at the servers besides, from what their watches know.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::rows::{address, row, time, wait};
use super::table::{Cell, Row};
use crate::proxy::Proxy;
use crate::watch::blockers::Blocker;
use crate::watch::convoy::ConvoyWatch;
use crate::watch::core::WatchCore;
use crate::watch::culprit::Culprit;
use crate::watch::detectors::dead_tuples::Bloat;
use crate::watch::detectors::horizon::Hold;
use crate::watch::detectors::sessions::Lingering;
use crate::watch::finding::Finding;
use crate::watch::incidents::Incident;
use crate::watch::monitor::Monitor;

/// One row for each watched database.
pub(super) fn servers(proxy: &Proxy) -> Vec<Row> {
    let config = proxy.config.load();
    let row = |monitor: Arc<Monitor>| {
        let core = monitor.core();
        let sample = core.convoy().sample();
        let standing = core.server().map(|server| if server.is_standby { "standby" } else { "primary" });
        let database = config.database(&monitor.database).and_then(|database| database.backends_max);
        let backends_max = database.into_iter().chain(config.backends_total_max).min();
        let percent = (core.detectors().notify_queue.usage() * 100.0).round();
        row![
            &*monitor.database,
            monitor.is_up(&core),
            core.convoy().state().word(),
            standing,
            sample.backends,
            sample.active,
            sample.idle_in_transaction,
            core.detectors().outside.count(),
            percent as u32,
            core.findings(usize::MAX, Instant::now()).len(),
            core.server().map(|server| server.advice(backends_max).join("; ")),
        ]
    };
    proxy.watches.all().into_iter().map(row).collect()
}

/// One row for each watched database: that nothing is the matter is worth to be seen, too.
pub(super) fn convoys(proxy: &Proxy) -> Vec<Row> {
    let view = View::now();
    proxy.watches.all().iter().map(|monitor| view.convoy(&monitor.database, monitor.core().convoy())).collect()
}

/// Who holds the horizon, the oldest first, then the tables that this keeps vacuum from.
pub(super) fn horizon(proxy: &Proxy) -> Vec<Row> {
    View::now().each(proxy, |view, database, core| {
        let open = core.detectors().horizon.open();
        let holds = core.detectors().horizon.holds().enumerate().map(|(place, hold)| {
            // What is open is the oldest.
            let since = open.filter(|_| place == 0).map(|open| open.since);
            view.hold(database, hold, since)
        });
        holds.chain(core.detectors().dead_tuples.open().map(|open| view.bloat(database, open))).collect()
    })
}

/// Those with the longest lines behind them, then those who take long.
pub(super) fn blockers(proxy: &Proxy) -> Vec<Row> {
    View::now().each(proxy, |view, database, core| {
        let blockers = core.blockers().open().into_iter().map(|open| view.blocker(database, open));
        blockers
            .chain(core.detectors().sessions.open().into_iter().map(|open| view.lingering(database, open)))
            .collect()
    })
}

/// The moment that rows are of.
struct View {
    now: (Instant, SystemTime),
}

impl View {
    fn now() -> Self {
        Self { now: (Instant::now(), SystemTime::now()) }
    }

    fn each(&self, proxy: &Proxy, rows: impl Fn(&Self, &str, &WatchCore) -> Vec<Row>) -> Vec<Row> {
        proxy.watches.all().iter().flat_map(|monitor| rows(self, &monitor.database, &monitor.core())).collect()
    }

    fn since(&self, at: Instant) -> String {
        let (instant, calendar) = self.now;
        time(calendar - instant.saturating_duration_since(at))
    }

    fn convoy(&self, database: &str, watch: &ConvoyWatch) -> Row {
        let (episode, sample) = (watch.convoy(), watch.sample());
        let waiters = sample.waiters.len();
        let (longest, longest_us) = wait(Some(watch.longest()));
        let site = episode.and_then(|episode| episode.site.as_ref());
        // A kind, until the lock table could be asked.
        let lock = site.map(|site| site.lock.to_string()).or_else(|| sample.main_kind().map(|kind| kind.word().into()));
        let since = episode.map(|episode| episode.since).or(watch.blind_since());
        let mut row = row![
            database,
            watch.state().word(),
            since.map(|since| self.since(since)),
            waiters,
            episode.map_or(waiters, |episode| episode.waiters_max),
            longest,
            longest_us,
            lock,
        ];
        row.extend(named(site.and_then(|site| site.culprit.as_ref())));
        row.push(Cell::from(site.and_then(|site| site.culprit.as_ref()).map(Culprit::remedy)));
        row
    }

    fn hold(&self, database: &str, hold: &Hold, since: Option<Instant>) -> Row {
        let Finding { what, remedy, .. } = Finding::from(hold);
        let mut row = row![
            database,
            hold.culprit.kind().word(),
            what,
            since.map(|since| self.since(since)),
            hold.transactions,
            hold.age.as_secs(),
        ];
        row.extend(named(Some(&hold.culprit)));
        row.push(Cell::from(remedy));
        row
    }

    fn bloat(&self, database: &str, open: &Incident<Bloat>) -> Row {
        let Finding { kind, what, culprit, remedy } = Finding::from(&open.value);
        let mut row = row![database, kind.word(), what, self.since(open.since), Cell::Null, Cell::Null];
        row.extend(named(culprit.as_ref()));
        row.push(Cell::from(remedy));
        row
    }

    fn blocker(&self, database: &str, open: &Incident<Blocker>) -> Row {
        let Finding { kind, what, culprit, remedy } = Finding::from(&open.value);
        let Blocker { transaction_age, lock, waiters, .. } = &open.value;
        let since = self.since(open.since);
        let mut row = row![database, kind.word(), what, since, *waiters, lock.to_string(), seconds(*transaction_age)];
        row.extend(named(culprit.as_ref()));
        row.push(Cell::from(remedy));
        row
    }

    fn lingering(&self, database: &str, open: &Incident<Lingering>) -> Row {
        let Finding { kind, what, culprit, remedy } = Finding::from(&open.value);
        let age = seconds(open.value.session.transaction_age);
        let mut row = row![database, kind.word(), what, self.since(open.since), 0, Cell::Null, age];
        row.extend(named(culprit.as_ref()));
        row.push(Cell::from(remedy));
        row
    }
}

/// Who, its process, and which client of ours that is.
fn named(culprit: Option<&Culprit>) -> [Cell; 5] {
    let client = culprit.and_then(Culprit::client);
    [
        culprit.map(ToString::to_string).into(),
        culprit.and_then(Culprit::pid).into(),
        client.map(|client| client.pid).into(),
        client.map(|client| &*client.role).into(),
        client.map(|client| address(&client.addr).0).into(),
    ]
}

fn seconds(age: Option<Duration>) -> Option<u64> {
    age.map(|age| age.as_secs())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::admin::fixtures::Trouble;
    use crate::admin::show::Show;

    /// The cells of one row by the names of their columns.
    fn table(show: Show, trouble: &Trouble) -> Vec<HashMap<&'static str, Cell>> {
        let names = || show.columns().iter().map(|(name, _)| *name);
        let rows = show.rows(&trouble.proxy).into_iter();
        rows.map(|row| {
            assert_eq!(row.len(), show.columns().len());
            names().zip(row).collect()
        })
        .collect()
    }

    #[test]
    fn a_calm_server_has_a_row_and_nobody_is_to_blame() {
        let trouble = Trouble::calm();
        let convoys = table(Show::Convoys, &trouble);
        assert_eq!(convoys.len(), 1);
        assert_eq!((&convoys[0]["database"], &convoys[0]["state"]), (&"app".into(), &"calm".into()));
        assert_eq!((&convoys[0]["waiters"], &convoys[0]["lock"]), (&Cell::Int(0), &Cell::Null));
        assert!(table(Show::Horizon, &trouble).is_empty() && table(Show::Blockers, &trouble).is_empty());
        let servers = table(Show::Watch, &trouble);
        assert_eq!((&servers[0]["up"], &servers[0]["standing"]), (&Cell::Int(1), &"primary".into()));
        assert_eq!(servers[0]["findings"], Cell::Int(0));
    }

    #[test]
    fn a_server_that_was_never_reached_is_not_up_and_what_it_is_not_known() {
        let servers = table(Show::Watch, &Trouble::unreached());
        assert_eq!((&servers[0]["up"], &servers[0]["standing"]), (&Cell::Int(0), &Cell::Null));
    }

    #[test]
    fn a_convoy_is_shown_with_its_lock_its_root_and_what_would_end_it() {
        let trouble = Trouble::convoy();
        let row = &table(Show::Convoys, &trouble)[0];
        assert_eq!(
            (&row["state"], &row["waiters"], &row["waiters_max"]),
            (&"convoy".into(), &Cell::Int(150), &Cell::Int(150))
        );
        assert_eq!((&row["maxwait"], &row["pid"]), (&Cell::Int(6), &Cell::Int(7)));
        assert_eq!(row["lock"], "rows changed by transaction 744".into());
        assert_eq!(row["culprit"], "process 7, idle in transaction, application \"worker\", from 10.0.0.7".into());
        assert_eq!(row["remedy"], "SELECT pg_terminate_backend(7)".into());
        assert_eq!(row["client"], Cell::Null, "it is not ours");
        let blockers = table(Show::Blockers, &trouble);
        let kinds: Vec<_> = blockers.iter().map(|row| &row["kind"]).collect();
        assert_eq!(kinds, [&"blocker".into(), &"idle_in_transaction".into()]);
        assert_eq!((&blockers[0]["waiters"], &blockers[0]["transaction_seconds"]), (&Cell::Int(150), &Cell::Int(90)));
        assert!(blockers.iter().all(|row| row["remedy"] == "SELECT pg_terminate_backend(7)".into()));
    }

    #[test]
    fn the_horizon_shows_every_holder_and_the_tables_that_vacuum_does_not_help() {
        let trouble = Trouble::horizon();
        let rows = table(Show::Horizon, &trouble);
        let kinds: Vec<_> = rows.iter().map(|row| &row["kind"]).collect();
        assert_eq!(kinds, [&"slot".into(), &"backend".into(), &"dead_tuples".into()]);
        assert_eq!(
            (&rows[0]["age_transactions"], &rows[1]["age_transactions"]),
            (&Cell::Int(2_000_000), &Cell::Int(40))
        );
        let is_dated = |row: &HashMap<_, _>| row["since"] != Cell::Null;
        assert_eq!(rows.iter().map(is_dated).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(rows[2]["culprit"], "replication slot \"cdc\", which nobody reads".into());
        assert_eq!(rows[2]["remedy"], "SELECT pg_drop_replication_slot('cdc')".into());
    }
}
