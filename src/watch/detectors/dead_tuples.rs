//! Tables whose dead rows grow although vacuum runs.
//!
//! Dead rows alone are the daily business of vacuum. The harm is that vacuum came, and went, and there are more than
//! before: something holds the horizon, or more rows die than one vacuum after the other can remove.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::horizon::Hold;
use super::{Detector, Look};
use crate::watch::culprit::Culprit;
use crate::watch::finding::{Finding, FindingKind, Reach, reported};
use crate::watch::incidents::{Incident, IncidentChange, IncidentLevel, Incidents};
use crate::watch::row::{AnswerRow, Unreadable};
use crate::watch::settings::WatchSettings;

/// Tables with many dead rows. About 2 µs for each table of the database; reads `pg_class`, which nothing in a convoy
/// locks.
///
/// Columns: oid, name, live rows, dead rows, times it was vacuumed.
const TABLES: &str = "\
SELECT oid, oid::regclass::text, pg_stat_get_live_tuples(oid), pg_stat_get_dead_tuples(oid),
       pg_stat_get_vacuum_count(oid) + pg_stat_get_autovacuum_count(oid)
  FROM pg_class
 WHERE relkind IN ('r', 'm', 't') AND pg_stat_get_dead_tuples(oid) >= 1000
 ORDER BY 4 DESC LIMIT 100";

/// Looks in a row, each with more dead rows than the one before, that are a growth.
const GROWTHS: u32 = 3;

/// Dead rows for each live one below which a table is fine.
const RATIO: f64 = 0.2;

/// One table; a row of [`TABLES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRows {
    oid: u32,
    pub name: String,
    /// Live rows, as estimated.
    pub live: u64,
    /// Dead rows, as estimated.
    pub dead: u64,
    /// Times it was vacuumed, by whomever.
    vacuums: u64,
}

impl TableRows {
    /// Reads its row.
    pub fn read(row: &AnswerRow) -> Result<Self, Unreadable> {
        Ok(Self {
            oid: row.value(0)?,
            name: row.text(1)?.to_owned(),
            live: row.value(2)?,
            dead: row.value(3)?,
            vacuums: row.value(4)?,
        })
    }
}

/// A table that vacuum does not help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bloat {
    /// The table as last seen.
    pub table: TableRows,
    /// The holder of the horizon; `None`: there is none, and vacuum does not keep up.
    pub culprit: Option<Culprit>,
}

impl Bloat {
    /// The SQL that would end it.
    pub fn remedy(&self) -> String {
        match &self.culprit {
            Some(culprit) => culprit.remedy(),
            None => format!("VACUUM (VERBOSE) {}", self.table.name),
        }
    }
}

/// A table from look to look.
#[derive(Debug)]
struct Track {
    dead: u64,
    dead_max: u64,
    growths: u32,
    /// Times it had been vacuumed when it began to grow.
    vacuums: u64,
}

/// The tables of one database.
#[derive(Debug, Default)]
pub struct DeadTuples {
    tracks: HashMap<u32, Track>,
    tables: Vec<TableRows>,
    incidents: Incidents<u32, Bloat>,
}

impl DeadTuples {
    /// Takes the tables that have many dead rows, with the holder of the horizon. Fewer than `dead_min` dead rows in a
    /// table are nothing.
    pub fn look(
        &mut self,
        tables: Vec<TableRows>,
        culprit: Option<&Culprit>,
        dead_min: u64,
        now: Instant,
    ) -> Vec<IncidentChange<Bloat>> {
        let mut before = std::mem::take(&mut self.tracks);
        let mut seen = Vec::new();
        for table in &tables {
            let track = follow(before.remove(&table.oid), table);
            if let Some(level) = level(&track, table, dead_min) {
                seen.push((table.oid, level, Bloat { table: table.clone(), culprit: culprit.cloned() }));
            }
            self.tracks.insert(table.oid, track);
        }
        self.tables = tables;
        self.incidents.look(seen, now)
    }

    /// Tables as last seen, those with the most dead rows first.
    pub fn tables(&self) -> &[TableRows] {
        &self.tables
    }

    /// Tables that vacuum does not help.
    pub fn open(&self) -> impl Iterator<Item = &Incident<Bloat>> {
        self.incidents.open().map(|(_, open)| open)
    }
}

impl Detector for DeadTuples {
    fn question(&self, _: &WatchSettings) -> Cow<'static, str> {
        TABLES.into()
    }

    /// Three counts make a growth.
    fn every(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn is_catalog_scan(&self) -> bool {
        true
    }

    fn answer(&mut self, rows: &[AnswerRow], look: &mut Look<'_>) -> Result<Vec<IncidentChange<Finding>>, Unreadable> {
        let tables = rows.iter().map(TableRows::read).collect::<Result<_, _>>()?;
        let culprit = look.oldest_hold.and_then(Hold::culprit_of_rows);
        Ok(reported(self.look(tables, culprit, look.settings.dead_tuples, look.now)))
    }

    fn findings(&self) -> Vec<Incident<Finding>> {
        self.open().map(Incident::finding).collect()
    }

    fn close(&mut self, now: Instant) -> Vec<IncidentChange<Finding>> {
        let changes = self.incidents.clear(now);
        *self = Self::default();
        reported(changes)
    }
}

impl From<&Bloat> for Finding {
    fn from(bloat: &Bloat) -> Self {
        let table = &bloat.table;
        let what = format!(
            "{} has {} dead rows beside {} live ones, and vacuum does not help",
            table.name, table.dead, table.live
        );
        Self {
            kind: FindingKind::DeadTuples,
            what,
            culprit: bloat.culprit.clone(),
            remedy: Some(bloat.remedy()),
            reach: Reach::Own,
        }
    }
}

fn follow(before: Option<Track>, table: &TableRows) -> Track {
    let TableRows { dead, vacuums, .. } = *table;
    match before {
        // The server's counters were reset.
        Some(before) if vacuums < before.vacuums => Track { dead, dead_max: dead, growths: 0, vacuums },
        Some(before) if dead > before.dead => Track {
            dead,
            dead_max: before.dead_max.max(dead),
            growths: before.growths.saturating_add(1),
            vacuums: before.vacuums,
        },
        // Nothing died and nothing was removed: this does not show whether vacuum helps.
        Some(before) if dead == before.dead => before,
        Some(before) => Track { dead, dead_max: before.dead_max, growths: 0, vacuums },
        None => Track { dead, dead_max: dead, growths: 0, vacuums },
    }
}

fn level(track: &Track, table: &TableRows, dead_min: u64) -> Option<IncidentLevel> {
    let is_much = table.dead >= dead_min && table.dead as f64 >= RATIO * table.live as f64;
    if is_much && track.growths >= GROWTHS && table.vacuums > track.vacuums {
        return Some(IncidentLevel::Above);
    }
    (table.dead >= dead_min / 2 && table.dead >= track.dead_max / 2).then_some(IncidentLevel::Between)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEAD_MIN: u64 = 10_000;

    fn table(oid: u32, dead: u64, vacuums: u64) -> TableRows {
        TableRows { oid, name: "public.jobs".to_owned(), live: 500, dead, vacuums }
    }

    /// Looks a minute apart; each is dead rows and vacuums.
    fn tell(dead_tuples: &mut DeadTuples, looks: &[(u64, u64)]) -> Vec<IncidentChange<Bloat>> {
        let now = Instant::now();
        looks
            .iter()
            .flat_map(|(dead, vacuums)| dead_tuples.look(vec![table(1, *dead, *vacuums)], None, DEAD_MIN, now))
            .collect()
    }

    #[test]
    fn growth_that_vacuum_does_not_stop_opens_and_its_removal_closes() {
        let mut dead_tuples = DeadTuples::default();
        assert_eq!(tell(&mut dead_tuples, &[(9000, 4), (20_000, 5), (30_000, 5)]), []);
        assert!(matches!(tell(&mut dead_tuples, &[(40_000, 6)])[..], [IncidentChange::Opened(_)]));
        assert_eq!(tell(&mut dead_tuples, &[(50_000, 6), (60_000, 7), (55_000, 8), (55_000, 8)]), []);
        assert!(
            matches!(tell(&mut dead_tuples, &[(29_999, 9)])[..], [IncidentChange::Closed(..)]),
            "below half of the most"
        );
        assert_eq!(tell(&mut dead_tuples, &[(35_000, 9), (29_000, 10)]), []);
    }

    #[test]
    fn growth_without_a_vacuum_is_nothing_yet() {
        let mut dead_tuples = DeadTuples::default();
        let grows: Vec<_> = (1..30).map(|look| (look * 10_000, 4)).collect();
        assert_eq!(tell(&mut dead_tuples, &grows), []);
        assert!(
            matches!(tell(&mut dead_tuples, &[(300_000, 5)])[..], [IncidentChange::Opened(_)]),
            "it came and did not help"
        );
    }

    #[test]
    fn what_vacuum_removes_is_its_daily_business() {
        let mut dead_tuples = DeadTuples::default();
        for day in 0..10 {
            let looks = [(20_000, day), (40_000, day), (60_000, day), (500, day + 1)];
            assert_eq!(tell(&mut dead_tuples, &looks), []);
        }
    }

    #[test]
    fn few_beside_many_that_live_are_nothing() {
        let mut dead_tuples = DeadTuples::default();
        for look in 1..10 {
            let large = TableRows { live: 1_000_000, ..table(1, look * 20_000, look) };
            assert_eq!(dead_tuples.look(vec![large], None, DEAD_MIN, Instant::now()), [], "{look}");
        }
    }

    #[test]
    fn who_holds_the_horizon_is_to_blame_and_otherwise_vacuum_is_asked_for() {
        let prepared = Culprit::Prepared { gid: "tx".to_owned() };
        let mut dead_tuples = DeadTuples::default();
        for look in 1..=4 {
            dead_tuples.look(vec![table(1, look * 20_000, look)], Some(&prepared), DEAD_MIN, Instant::now());
        }
        let bloat = |dead_tuples: &DeadTuples| dead_tuples.open().next().map(|open| open.value.remedy());
        assert_eq!(bloat(&dead_tuples).unwrap(), "ROLLBACK PREPARED 'tx'");
        tell(&mut dead_tuples, &[(100_000, 5)]);
        assert_eq!(bloat(&dead_tuples).unwrap(), "VACUUM (VERBOSE) public.jobs");
    }

    #[test]
    fn counters_that_were_reset_are_no_growth() {
        let mut dead_tuples = DeadTuples::default();
        assert_eq!(tell(&mut dead_tuples, &[(20_000, 9), (30_000, 9), (40_000, 9), (50_000, 0), (60_000, 0)]), []);
        assert_eq!(tell(&mut dead_tuples, &[(70_000, 0), (80_000, 0)]), []);
    }

    #[test]
    fn a_table_that_is_gone_is_closed_and_forgotten() {
        let mut dead_tuples = DeadTuples::default();
        tell(&mut dead_tuples, &[(9000, 4), (20_000, 5), (30_000, 5), (40_000, 6)]);
        assert!(matches!(
            dead_tuples.look(Vec::new(), None, DEAD_MIN, Instant::now())[..],
            [IncidentChange::Closed(..)]
        ));
        assert!(dead_tuples.tracks.is_empty());
    }

    proptest! {
        #[test]
        fn tables_open_once_close_once_and_only_with_many_dead_rows(
            looks in prop::collection::vec(prop::collection::vec((1_u32..4, 0_u64..40_000, 0_u64..3), 0..4), 0..60)
        ) {
            let (mut dead_tuples, mut now) = (DeadTuples::default(), Instant::now());
            let (mut vacuums, mut open) = ([0; 4], [false; 4]);
            for look in looks {
                now += Duration::from_secs(60);
                let mut tables = Vec::new();
                for (oid, dead, runs) in look {
                    vacuums[oid as usize] += runs;
                    if tables.iter().all(|table: &TableRows| table.oid != oid) {
                        tables.push(table(oid, dead, vacuums[oid as usize]));
                    }
                }
                for change in dead_tuples.look(tables, None, DEAD_MIN, now) {
                    let (bloat, is_open) = match &change {
                        IncidentChange::Opened(bloat) => (bloat, true),
                        IncidentChange::Closed(bloat, _) => (bloat, false),
                    };
                    let was_open = std::mem::replace(&mut open[bloat.table.oid as usize], is_open);
                    prop_assert_ne!(was_open, is_open);
                    prop_assert!(bloat.table.dead >= DEAD_MIN / 2);
                }
            }
            prop_assert_eq!(dead_tuples.close(now).len(), open.iter().filter(|open| **open).count());
        }
    }
}
