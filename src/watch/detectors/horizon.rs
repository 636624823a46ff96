//! The horizon: the oldest snapshot or transaction still in use, which keeps vacuum from removing dead rows.
//!
//! There is one horizon, that of the oldest holder; others matter only when that one is gone. So one hold is open at a
//! time, with its culprit, and when another takes its place that one opens in turn.

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::Instant;

use super::{Detector, Look};
use crate::watch::culprit::{Culprit, ServerProcess};
use crate::watch::finding::{Finding, FindingKind, Reach, Seconds, reported};
use crate::watch::incidents::{Incident, IncidentChange, IncidentLevel, Incidents};
use crate::watch::own_backends::OwnBackends;
use crate::watch::row::{AnswerRow, Unreadable};
use crate::watch::settings::{HorizonThresholds, WatchSettings};
use crate::watch::xid_clock::{Age, XidClock};

/// Holders of the horizon of this database. 12 ms, 39 ms at worst; 12 and 34 ms amid deadlock checks.
///
/// Left out are processes that do not count in `ComputeXidHorizons` (procarray.c): sessions of other databases, and a
/// running VACUUM, whose process shows an xmin all the same. A walsender counts for all databases. The `catalog_xmin`
/// of a slot holds the rows of catalogs only. The first row is no holder: its age is that of the first transaction id
/// of all, 3, which tells how far the server's counter has come.
///
/// Columns: kind, name, process, beginning of the transaction in microseconds of the epoch, age in transactions, age in
/// milliseconds, state, application, client address.
const HORIZON: &str = "\
WITH me AS (SELECT datid FROM pg_stat_get_activity(pg_backend_pid())),
session AS MATERIALIZED (
    SELECT *, greatest(age(backend_xmin), age(backend_xid)) AS age_xids
      FROM pg_stat_get_activity(NULL)
     WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND pid <> pg_backend_pid()),
holder (kind, name, pid, since, age_xids, age_ms, state, application, addr) AS (
    SELECT CASE backend_type WHEN 'walsender' THEN 'walsender' ELSE 'backend' END, NULL, pid,
           (extract(epoch FROM xact_start) * 1000000)::bigint, age_xids,
           (extract(epoch FROM clock_timestamp() - xact_start) * 1000)::bigint, state, application_name, host(client_addr)
      FROM session
     WHERE (backend_type = 'walsender' OR datid = (SELECT datid FROM me)) AND backend_type <> 'parallel worker'
       AND pid NOT IN (SELECT pid FROM pg_stat_get_progress_info('VACUUM'))
    UNION ALL
    SELECT CASE WHEN xmin IS NULL THEN 'catalog slot' ELSE 'slot' END, slot_name, active_pid, NULL,
           greatest(age(xmin), age(catalog_xmin)), NULL, slot_type, plugin, NULL
      FROM pg_get_replication_slots() WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL
    UNION ALL
    SELECT 'prepared', gid, NULL, (extract(epoch FROM prepared) * 1000000)::bigint, age(transaction),
           (extract(epoch FROM clock_timestamp() - prepared) * 1000)::bigint, NULL, NULL, NULL
      FROM pg_prepared_xact() WHERE dbid = (SELECT datid FROM me))
SELECT 'next', NULL, NULL, NULL, age('3'::xid), NULL, NULL, NULL, NULL
UNION ALL
(SELECT kind, name, pid, since, age_xids, age_ms, state, application, addr
   FROM holder ORDER BY age_xids DESC, since, name, pid LIMIT 20)";

/// `FirstNormalTransactionId` (transam.h), whose age is asked for.
const FIRST_XID: u32 = 3;

/// A session, slot or prepared transaction with a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HorizonHolder {
    culprit: Culprit,
    /// It holds the rows of catalogs only.
    is_catalog_only: bool,
    /// Beginning of its transaction in microseconds of the epoch: the same process may hold the horizon again later.
    since: Option<i64>,
    transactions: u32,
    transaction_age: Option<Duration>,
}

/// An answer to [`HORIZON`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holders {
    /// The next transaction id to be given out.
    next: u32,
    holders: Vec<HorizonHolder>,
}

impl Holders {
    pub fn read(rows: &[AnswerRow], own: &OwnBackends) -> Result<Self, Unreadable> {
        let (mut next, mut holders) = (0, Vec::new());
        for row in rows {
            // Ages can be negative where the circle of ids is nearly used up; the difference is right all the same.
            let transactions = row.value::<i32>(4)?.cast_unsigned();
            let culprit = match row.text(0)? {
                "next" => {
                    next = transactions.wrapping_add(FIRST_XID);
                    continue;
                }
                "backend" => Culprit::Backend(ServerProcess::read(row, row.value(2)?, 6, own)?),
                "walsender" => Culprit::Standby(ServerProcess::read(row, row.value(2)?, 6, own)?),
                "slot" | "catalog slot" => {
                    Culprit::Slot { name: row.text(1)?.to_owned(), reader: row.value_or_null(2)? }
                }
                "prepared" => Culprit::Prepared { gid: row.text(1)?.to_owned() },
                _ => return Err(row.unreadable(0)),
            };
            holders.push(HorizonHolder {
                culprit,
                is_catalog_only: row.text(0)? == "catalog slot",
                since: row.value_or_null(3)?,
                transactions,
                transaction_age: row.duration_or_null(5)?,
            });
        }
        Ok(Self { next, holders })
    }
}

/// One holder, and how far it holds the horizon back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub culprit: Culprit,
    /// Only dead rows of catalogs are kept.
    pub is_catalog_only: bool,
    /// How many transactions have begun since.
    pub transactions: u32,
    /// For how long transactions have begun since.
    pub age: Duration,
}

impl Hold {
    /// It holds the horizon of every database of the server.
    pub(crate) fn is_of_server(&self) -> bool {
        matches!(self.culprit, Culprit::Slot { .. } | Culprit::Standby(_))
    }

    /// The culprit to blame for dead rows of tables; `None`: the hold is of a moment ago, or of catalogs only.
    pub(super) fn culprit_of_rows(&self) -> Option<&Culprit> {
        (self.transactions > 0 && !self.is_catalog_only).then_some(&self.culprit)
    }
}

/// Identity of a hold from look to look: kind, name, beginning of its transaction.
pub(crate) type HorizonKey = (&'static str, String, Option<i64>);

/// The horizon of one database.
#[derive(Debug, Default)]
pub struct Horizon {
    clock: XidClock,
    holds: Vec<(HorizonKey, Hold)>,
    incidents: Incidents<HorizonKey, Hold>,
    /// Of holders that hold back all databases of the server; only the watch that speaks for it reports them.
    of_server: Incidents<HorizonKey, Hold>,
}

impl Horizon {
    /// Takes an answer.
    pub fn look(
        &mut self,
        seen: Holders,
        thresholds: &HorizonThresholds,
        leads: bool,
        now: Instant,
    ) -> Vec<IncidentChange<Hold>> {
        let Holders { next, holders } = seen;
        self.clock.mark(next, now);
        self.holds = holders.into_iter().map(|holder| hold(&self.clock, next, holder, now)).collect();
        let oldest = self.holds.first().and_then(|(key, hold)| {
            let by_age = IncidentLevel::of(hold.age, thresholds.age);
            let by_transactions = IncidentLevel::of(hold.transactions, thresholds.transactions);
            Some((key.clone(), worse(by_age, by_transactions)?, hold.clone()))
        });
        let (of_server, own): (Vec<_>, Vec<_>) = oldest.into_iter().partition(|(_, _, hold)| hold.is_of_server());
        let mut changes = self.incidents.look(own, now);
        changes.extend(self.of_server.look(of_server.into_iter().filter(|_| leads), now));
        // What has ended comes before what takes its place.
        changes.sort_by_key(|change| matches!(change, IncidentChange::Opened(_)));
        changes
    }

    /// The open holds of the whole server, for the watch that speaks for it.
    pub(crate) fn of_server(&mut self) -> &mut Incidents<HorizonKey, Hold> {
        &mut self.of_server
    }

    /// All holders as last seen, the oldest first.
    pub fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.iter().map(|(_, hold)| hold)
    }

    /// The hold that is too old.
    pub fn open(&self) -> Option<&Incident<Hold>> {
        self.incidents.open().chain(self.of_server.open()).map(|(_, open)| open).next()
    }
}

impl Detector for Horizon {
    fn question(&self, _: &WatchSettings) -> Cow<'static, str> {
        HORIZON.into()
    }

    fn every(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn names_processes(&self) -> bool {
        true
    }

    fn answer(&mut self, rows: &[AnswerRow], look: &mut Look<'_>) -> Result<Vec<IncidentChange<Finding>>, Unreadable> {
        Ok(reported(self.look(Holders::read(rows, look.own)?, &look.settings.horizon, look.leads, look.now)))
    }

    fn findings(&self) -> Vec<Incident<Finding>> {
        self.open().map(Incident::finding).into_iter().collect()
    }

    fn close(&mut self, now: Instant) -> Vec<IncidentChange<Finding>> {
        let mut changes = self.incidents.clear(now);
        changes.extend(self.of_server.clear(now));
        *self = Self::default();
        reported(changes)
    }
}

impl From<&Hold> for Finding {
    fn from(hold: &Hold) -> Self {
        let Hold { culprit, is_catalog_only, transactions, age } = hold;
        let rows = if *is_catalog_only { "rows of catalogs" } else { "rows" };
        let what = format_args!(
            "vacuum cannot remove {rows} that died in the last {}, {transactions} transactions",
            Seconds(*age)
        );
        let reach = if hold.is_of_server() { Reach::Server } else { Reach::Own };
        Self::new(FindingKind::Horizon, what, Some(culprit.clone())).reaching(reach)
    }
}

fn hold(clock: &XidClock, next: u32, holder: HorizonHolder, now: Instant) -> (HorizonKey, Hold) {
    let HorizonHolder { culprit, is_catalog_only, since, transactions, transaction_age } = holder;
    let age = match clock.age(next.wrapping_sub(transactions), now) {
        Age::Known(age) => age,
        // The first look of all cannot tell a snapshot of hours from one of this moment; the second can.
        Age::AtLeast(Duration::ZERO) => Duration::ZERO,
        // Older than the watch: a session has had its snapshot for no longer than its transaction, and mostly for as
        // long.
        Age::AtLeast(age) => transaction_age.unwrap_or_default().max(age),
    };
    // A slot or a standby moves on with time and remains the same holder.
    let name = match &culprit {
        Culprit::Backend(backend) | Culprit::Standby(backend) => backend.pid.to_string(),
        Culprit::Slot { name, .. } | Culprit::Prepared { gid: name } => name.clone(),
    };
    let since = since.filter(|_| !matches!(culprit, Culprit::Standby(_)));
    ((culprit.kind().word(), name, since), Hold { culprit, is_catalog_only, transactions, age })
}

fn worse(a: Option<IncidentLevel>, b: Option<IncidentLevel>) -> Option<IncidentLevel> {
    match (a, b) {
        (Some(IncidentLevel::Above), _) | (_, Some(IncidentLevel::Above)) => Some(IncidentLevel::Above),
        (Some(IncidentLevel::Between), _) | (_, Some(IncidentLevel::Between)) => Some(IncidentLevel::Between),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::watch::culprit::CulpritKind;

    const THRESHOLDS: HorizonThresholds = HorizonThresholds { age: Duration::from_secs(300), transactions: 1_000_000 };

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The row of the server's counter, with so many ids given out.
    fn counter(next: u32) -> AnswerRow {
        let age = next.wrapping_sub(FIRST_XID).cast_signed().to_string();
        AnswerRow::of(&[Some("next"), None, None, None, Some(&age), None, None, None, None])
    }

    fn session(pid: u32, since: u64, transactions: u32, age: u64) -> AnswerRow {
        let texts = [pid.to_string(), since.to_string(), transactions.to_string(), (age * 1000).to_string()];
        let [pid, since, transactions, age] = texts.each_ref().map(|text| Some(text.as_str()));
        let state = Some("idle in transaction");
        AnswerRow::of(&[Some("backend"), None, pid, since, transactions, age, state, Some("worker"), Some("10.0.0.7")])
    }

    fn named(kind: &str, name: &str, transactions: u32) -> AnswerRow {
        let transactions = transactions.to_string();
        AnswerRow::of(&[Some(kind), Some(name), None, None, Some(&transactions), None, None, None, None])
    }

    fn look(horizon: &mut Horizon, rows: &[AnswerRow], now: Instant) -> Vec<IncidentChange<Hold>> {
        horizon.look(Holders::read(rows, &OwnBackends::default()).unwrap(), &THRESHOLDS, true, now)
    }

    #[test]
    fn an_idle_transaction_opens_after_its_time_and_closes_with_its_end() {
        let (mut horizon, start) = (Horizon::default(), Instant::now());
        look(&mut horizon, &[counter(1000)], start);
        for seconds in (15..=300).step_by(15) {
            let rows = [counter(1000 + seconds), session(42, 7, seconds, u64::from(seconds))];
            assert_eq!(look(&mut horizon, &rows, start + s(seconds.into())), []);
        }
        let rows = [counter(1315), session(42, 7, 315, 315)];
        let changes = look(&mut horizon, &rows, start + s(315));
        let [IncidentChange::Opened(hold)] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!((hold.culprit.pid(), hold.transactions, hold.age), (Some(42), 315, s(300)));
        assert_eq!(hold.culprit.remedy(), "SELECT pg_terminate_backend(42)");
        let changes = look(&mut horizon, &[counter(1330)], start + s(330));
        assert!(matches!(changes[..], [IncidentChange::Closed(_, lasted)] if lasted == s(15)));
    }

    #[test]
    fn a_long_transaction_with_a_fresh_snapshot_holds_nothing_back() {
        let (mut horizon, start) = (Horizon::default(), Instant::now());
        for seconds in (0..3600).step_by(15) {
            let rows = [counter(1000 + seconds), session(42, 7, 2, 9000)];
            assert_eq!(look(&mut horizon, &rows, start + s(seconds.into())), []);
        }
    }

    #[test]
    fn what_is_older_than_the_watch_is_as_old_as_its_transaction() {
        let (mut horizon, start) = (Horizon::default(), Instant::now());
        assert_eq!(look(&mut horizon, &[counter(900_000), session(42, 7, 5000, 4000)], start), []);
        let changes = look(&mut horizon, &[counter(900_000), session(42, 7, 5000, 4015)], start + s(15));
        assert!(matches!(&changes[..], [IncidentChange::Opened(hold)] if hold.age == s(4015)));
    }

    #[test]
    fn transactions_count_where_time_does_not_tell() {
        let mut horizon = Horizon::default();
        let rows = [counter(5_000_000), named("slot", "standby_1", 1_000_000)];
        let changes = look(&mut horizon, &rows, Instant::now());
        let [IncidentChange::Opened(hold)] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!(hold.culprit.remedy(), "SELECT pg_drop_replication_slot('standby_1')");
    }

    #[test]
    fn a_slot_that_moves_on_and_stays_behind_is_one_and_closes_when_it_catches_up() {
        let (mut horizon, start) = (Horizon::default(), Instant::now());
        let mut told = Vec::new();
        for (seconds, lag) in [(0, 1_000_000), (15, 900_000), (30, 1_200_000), (45, 500_000), (60, 499_999)] {
            let rows = [counter(5_000_000 + seconds * 1000), named("catalog slot", "cdc", lag)];
            told.extend(look(&mut horizon, &rows, start + s(seconds.into())));
        }
        assert!(
            matches!(&told[..], [IncidentChange::Opened(hold), IncidentChange::Closed(..)] if hold.is_catalog_only),
            "{told:?}"
        );
    }

    #[test]
    fn when_the_oldest_is_gone_the_next_is_to_blame() {
        let (mut horizon, now) = (Horizon::default(), Instant::now());
        let both = [counter(9_000_000), named("prepared", "tx", 3_000_000), session(42, 7, 2_000_000, 900)];
        assert_eq!(look(&mut horizon, &both, now).len(), 1, "the horizon is one");
        let changes = look(&mut horizon, &[counter(9_000_100), session(42, 7, 2_000_100, 915)], now + s(15));
        let [IncidentChange::Closed(first, _), IncidentChange::Opened(second)] = changes.as_slice() else {
            panic!("{changes:?}")
        };
        assert_eq!((first.culprit.kind(), second.culprit.kind()), (CulpritKind::Prepared, CulpritKind::Backend));
    }

    #[test]
    fn a_slot_is_reported_by_the_watch_that_speaks_for_the_server_and_a_session_by_its_own() {
        let (mut horizon, now) = (Horizon::default(), Instant::now());
        let mut follow = |rows: &[AnswerRow]| {
            let seen = Holders::read(rows, &OwnBackends::default()).unwrap();
            horizon.look(seen, &THRESHOLDS, false, now)
        };
        let slot = named("slot", "cdc", 3_000_000);
        assert_eq!(follow(&[counter(9_000_000), slot.clone(), session(42, 7, 2_000_000, 900)]), []);
        assert_eq!(follow(&[counter(9_000_000), session(42, 7, 2_000_000, 900)]).len(), 1);
        let mut lead = Horizon::default();
        let changes = look(&mut lead, &[counter(9_000_000), slot], now);
        assert!(matches!(&changes[..], [IncidentChange::Opened(hold)] if Finding::from(hold).reach == Reach::Server));
    }

    #[test]
    fn the_same_process_in_another_transaction_is_another_holder() {
        let (mut horizon, now) = (Horizon::default(), Instant::now());
        look(&mut horizon, &[counter(9_000_000), session(42, 7, 3_000_000, 900)], now);
        let changes = look(&mut horizon, &[counter(9_000_000), session(42, 8, 10, 5)], now + s(15));
        assert!(matches!(changes[..], [IncidentChange::Closed(..)]));
    }

    #[test]
    fn what_is_of_no_known_kind_is_an_error() {
        assert_eq!(
            Holders::read(&[named("aurora", "x", 1)], &OwnBackends::default()),
            Err(Unreadable { column: 1, columns: 9 })
        );
    }

    #[test]
    fn a_hold_says_what_vacuum_cannot_remove() {
        let hold = Hold {
            culprit: Culprit::Slot { name: "cdc".to_owned(), reader: None },
            is_catalog_only: true,
            transactions: 1_200_000,
            age: Duration::from_secs(301),
        };
        let finding = Finding::from(&hold);
        assert_eq!(
            finding.what,
            "vacuum cannot remove rows of catalogs that died in the last 301 s, 1200000 transactions"
        );
        assert_eq!(finding.remedy.as_deref(), Some("SELECT pg_drop_replication_slot('cdc')"));
    }

    proptest! {
        #[test]
        fn one_is_open_at_a_time_and_it_is_the_oldest(
            looks in prop::collection::vec(
                prop::collection::vec((1_u32..4, 1_u64..3, 0_u32..2_000_000), 0..4), 0..40)
        ) {
            let (mut horizon, mut now) = (Horizon::default(), Instant::now());
            let (mut open, mut next) = (0, 5_000_000);
            for mut look_rows in looks {
                now += s(15);
                next += 50;
                look_rows.sort_by_key(|(_, _, age)| std::cmp::Reverse(*age));
                let rows: Vec<_> = std::iter::once(counter(next))
                    .chain(look_rows.iter().map(|(pid, since, age)| session(*pid, *since, *age, 60)))
                    .collect();
                for change in look(&mut horizon, &rows, now) {
                    open += if matches!(change, IncidentChange::Opened(_)) { 1 } else { -1 };
                    prop_assert!((0..=1).contains(&open));
                }
                if let Some(open) = horizon.open() {
                    prop_assert_eq!(Some(&open.value), horizon.holds().next());
                }
            }
            prop_assert_eq!(horizon.close(now).len(), open as usize);
        }
    }
}
