//! Transaction ids that are about to run out: a row version that is not frozen in time is as old as the server lets any
//! be, and then no transaction may write (manual: "Preventing Transaction ID Wraparound Failures").
//!
//! Autovacuum freezes a table once its oldest row version is `autovacuum_freeze_max_age` transactions old, whatever its
//! other settings. Twice as old means it does not run, does not finish, or is kept from freezing by an old snapshot.
//! With the default settings 1.7 billion transactions are left then.

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::Instant;

use super::horizon::Hold;
use super::{Detector, Look};
use crate::watch::culprit::Culprit;
use crate::watch::finding::{Finding, FindingKind, Reach, reported};
use crate::watch::incidents::{Incident, IncidentChange, IncidentLevel, Incidents};
use crate::watch::row::{AnswerRow, Unreadable};
use crate::watch::settings::WatchSettings;

/// The table with the oldest row version that is not frozen. About 2 µs for each table of the database; reads
/// `pg_class` only: `pg_database`, which has the oldest of all its tables, is a shared catalog, whose lock is not to be
/// had in a convoy. A standby has no row: it is the primary that freezes.
///
/// Columns: name, is a catalog, is temporary, age in transactions, `autovacuum_freeze_max_age`, `vacuum_failsafe_age`.
const OLDEST_TABLE: &str = "\
SELECT oid::regclass::text, oid < 16384, relpersistence = 't', age(relfrozenxid),
       current_setting('autovacuum_freeze_max_age'), current_setting('vacuum_failsafe_age')
  FROM pg_class
 WHERE relkind IN ('r', 'm', 't') AND relfrozenxid <> '0'::xid AND NOT pg_is_in_recovery()
 ORDER BY age(relfrozenxid) DESC LIMIT 1";

/// In millions of transactions: the age at which the server refuses to write (varsup.c: `SetTransactionIdLimit`).
const REFUSES_AT: u32 = 2144;

/// A row of [`OLDEST_TABLE`].
#[derive(Debug, Clone, PartialEq, Eq)]
struct OldestTable {
    name: String,
    is_catalog: bool,
    is_temporary: bool,
    /// In transactions, as the others.
    age: u32,
    freeze_max_age: u32,
    failsafe_age: u32,
}

impl OldestTable {
    fn read(row: &AnswerRow) -> Result<Self, Unreadable> {
        Ok(Self {
            name: row.text(0)?.to_owned(),
            is_catalog: row.is(1)?,
            is_temporary: row.is(2)?,
            age: row.value(3)?,
            freeze_max_age: row.value(4)?,
            failsafe_age: row.value(5)?,
        })
    }

    /// The age that is too old: twice the age at which autovacuum begins to freeze, and no more than the one at which
    /// vacuum drops everything else (vacuum.c: `vacuum_xid_failsafe_check`, never below 1.05 times the former).
    fn opens(&self) -> u32 {
        let failsafe_age = self.failsafe_age.max(self.freeze_max_age.saturating_add(self.freeze_max_age / 20));
        self.freeze_max_age.saturating_mul(2).min(failsafe_age)
    }
}

/// A table that is not frozen in time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unfrozen {
    table: OldestTable,
    /// The holder of the horizon that keeps vacuum from freezing; `None`: vacuum could, and has not.
    culprit: Option<Culprit>,
}

/// The oldest table of one database. One finding is open at a time: many tables may be as old, and be frozen one after
/// the other.
#[derive(Debug, Default)]
pub struct Wraparound(Incidents<(), Unfrozen>);

impl Detector for Wraparound {
    fn question(&self, _: &WatchSettings) -> Cow<'static, str> {
        OLDEST_TABLE.into()
    }

    /// A busy server gives out some ten million ids in that time.
    fn every(&self) -> Duration {
        Duration::from_secs(300)
    }

    fn is_catalog_scan(&self) -> bool {
        true
    }

    fn answer(&mut self, rows: &[AnswerRow], look: &mut Look<'_>) -> Result<Vec<IncidentChange<Finding>>, Unreadable> {
        let table = rows.first().map(OldestTable::read).transpose()?;
        let seen = table.and_then(|table| {
            let level = IncidentLevel::of(table.age, table.opens())?;
            // With a younger holder freezing would help.
            let is_in_the_way = |hold: &&Hold| hold.transactions >= table.opens() / 2;
            let holds_it = |hold: &&Hold| table.is_catalog || !hold.is_catalog_only;
            let hold = look.oldest_hold.filter(is_in_the_way).filter(holds_it);
            Some(((), level, Unfrozen { culprit: hold.map(|hold| hold.culprit.clone()), table }))
        });
        Ok(reported(self.0.look(seen, look.now)))
    }

    fn findings(&self) -> Vec<Incident<Finding>> {
        self.0.open().map(|(_, open)| open.finding()).collect()
    }

    fn close(&mut self, now: Instant) -> Vec<IncidentChange<Finding>> {
        reported(self.0.clear(now))
    }
}

impl From<&Unfrozen> for Finding {
    fn from(Unfrozen { table, culprit }: &Unfrozen) -> Self {
        let OldestTable { name, is_temporary, age, freeze_max_age, .. } = table;
        let kind = if *is_temporary { "temporary table " } else { "" };
        let what = format!(
            "{kind}{name} has row versions {age} transactions old that are not frozen, autovacuum should at {freeze_max_age}; \
             at {REFUSES_AT} million the server refuses to write"
        );
        let remedy = match culprit {
            Some(culprit) => culprit.remedy(),
            // Only its own session could vacuum it.
            None if *is_temporary => format!("DROP TABLE {name}"),
            None => format!("VACUUM (FREEZE, VERBOSE) {name}"),
        };
        Self { kind: FindingKind::Wraparound, what, culprit: culprit.clone(), remedy: Some(remedy), reach: Reach::Own }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Watch;
    use crate::watch::own_backends::OwnBackends;

    /// A server with defaults, whose oldest table is so many million transactions old.
    fn table(age: u32) -> OldestTable {
        OldestTable {
            name: "public.jobs".to_owned(),
            is_catalog: false,
            is_temporary: false,
            age: age * 1_000_000,
            freeze_max_age: 200_000_000,
            failsafe_age: 1_600_000_000,
        }
    }

    fn row(table: &OldestTable) -> AnswerRow {
        let letter = |is| if is { "t" } else { "f" };
        let numbers = [table.age, table.freeze_max_age, table.failsafe_age].map(|number| number.to_string());
        let [age, freeze, failsafe] = numbers.each_ref().map(String::as_str);
        AnswerRow::of(
            &[&table.name, letter(table.is_catalog), letter(table.is_temporary), age, freeze, failsafe].map(Some),
        )
    }

    fn slot(transactions: u32, is_catalog_only: bool) -> Hold {
        let culprit = Culprit::Slot { name: "cdc".to_owned(), reader: None };
        Hold { culprit, is_catalog_only, transactions: transactions * 1_000_000, age: Duration::from_secs(86_400) }
    }

    fn look(
        wraparound: &mut Wraparound,
        table: Option<&OldestTable>,
        hold: Option<&Hold>,
    ) -> Vec<IncidentChange<Finding>> {
        let rows: Vec<_> = table.map(row).into_iter().collect();
        let (settings, own) = (WatchSettings::from(&Watch::default()), OwnBackends::default());
        let mut look =
            Look { settings: &settings, own: &own, oldest_hold: hold, server: None, leads: true, now: Instant::now() };
        wraparound.answer(&rows, &mut look).unwrap()
    }

    fn opened(table: &OldestTable, hold: Option<&Hold>) -> Finding {
        match look(&mut Wraparound::default(), Some(table), hold).pop() {
            Some(IncidentChange::Opened(finding)) => finding,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_opens_at_twice_the_age_at_which_autovacuum_freezes_and_closes_below_that_age() {
        let mut wraparound = Wraparound::default();
        let mut changes = |age| look(&mut wraparound, Some(&table(age)), None).len();
        assert_eq!([150, 399, 400, 500, 201, 199, 399].map(&mut changes), [0, 0, 1, 0, 0, 1, 0]);
    }

    #[test]
    fn where_autovacuum_freezes_late_it_opens_when_vacuum_drops_everything_else() {
        let opens = |freeze: u32, failsafe: u32| {
            OldestTable { freeze_max_age: freeze * 1_000_000, failsafe_age: failsafe * 1_000_000, ..table(1) }.opens()
        };
        assert_eq!(opens(200, 1600), 400_000_000);
        assert_eq!(opens(1000, 1600), 1_600_000_000);
        assert_eq!(opens(2000, 0), 2_100_000_000);
    }

    #[test]
    fn the_finding_names_the_table_and_how_to_freeze_it() {
        let finding = opened(&table(412), None);
        assert_eq!(
            finding.what,
            "public.jobs has row versions 412000000 transactions old that are not frozen, autovacuum should at 200000000; at 2144 million \
             the server refuses to write"
        );
        assert_eq!((finding.culprit, finding.remedy.as_deref()), (None, Some("VACUUM (FREEZE, VERBOSE) public.jobs")));
        let temporary = OldestTable { name: "pg_temp_3.t".to_owned(), is_temporary: true, ..table(412) };
        assert_eq!(opened(&temporary, None).remedy.as_deref(), Some("DROP TABLE pg_temp_3.t"));
    }

    #[test]
    fn a_holder_of_the_horizon_is_to_blame_only_where_it_keeps_vacuum_from_freezing() {
        let drop = Some("SELECT pg_drop_replication_slot('cdc')");
        let vacuum = Some("VACUUM (FREEZE, VERBOSE) public.jobs");
        let remedy = |table: &OldestTable, hold: &Hold| opened(table, Some(hold)).remedy;
        assert_eq!(remedy(&table(412), &slot(411, false)).as_deref(), drop);
        assert_eq!(remedy(&table(412), &slot(199, false)).as_deref(), vacuum, "too young to matter");
        assert_eq!(remedy(&table(412), &slot(411, true)).as_deref(), vacuum, "it holds rows of catalogs only");
        let catalog = OldestTable { is_catalog: true, ..table(412) };
        assert_eq!(remedy(&catalog, &slot(411, true)).as_deref(), drop);
    }

    #[test]
    fn a_server_that_has_become_a_standby_has_nothing_open() {
        let mut wraparound = Wraparound::default();
        look(&mut wraparound, Some(&table(412)), None);
        assert_eq!(wraparound.findings().len(), 1);
        assert!(matches!(look(&mut wraparound, None, None)[..], [IncidentChange::Closed(..)]));
    }
}
