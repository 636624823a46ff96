//! The lock table: locks that are waited for, named as people know them, and the lockers at the root of each queue.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use super::row::{AnswerRow, Unreadable};

/// `pg_database` (pg_database_d.h). NOTIFY takes object 0 of it before its commit (async.c: `PreCommit_Notify`).
const DATABASE_CLASS: u32 = 1262;

/// Modes of table locks in their order, with the modes each conflicts with, bit n for the n-th (lock.c:
/// `LockConflicts`).
const MODES: [(&str, u8); 8] = [
    ("AccessShareLock", 0b1000_0000),
    ("RowShareLock", 0b1100_0000),
    ("RowExclusiveLock", 0b1111_0000),
    ("ShareUpdateExclusiveLock", 0b1111_1000),
    ("ShareLock", 0b1110_1100),
    ("ShareRowExclusiveLock", 0b1111_1100),
    ("ExclusiveLock", 0b1111_1110),
    ("AccessExclusiveLock", 0b1111_1111),
];

/// A place in [`MODES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LockMode(usize);

impl LockMode {
    fn of(name: &str) -> Option<Self> {
        MODES.iter().position(|(mode, _)| *mode == name).map(Self)
    }

    fn conflicts(self, other: Self) -> bool {
        MODES[self.0].1 & 1 << other.0 != 0
    }
}

/// A holder of a lock, or a session that waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Locker {
    Process(i32),
    /// A prepared transaction, by its id.
    Prepared(u32),
}

impl Locker {
    fn read(text: &str) -> Option<Self> {
        match text.strip_prefix('x') {
            Some(xid) => xid.parse().ok().map(Self::Prepared),
            None => text.parse().ok().map(Self::Process),
        }
    }
}

/// One lock of one locker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    who: Locker,
    mode: LockMode,
    /// How long it has waited for the lock; `None`: it has it.
    waits: Option<Duration>,
}

impl Claim {
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (who, mode) = (Locker::read(words.next()?)?, LockMode::of(words.next()?)?);
        let waits = match words.next()? {
            "t" => None,
            // A wait that has just begun is not dated yet (manual: `pg_locks.waitstart`).
            _ => Some(Duration::from_millis(words.next().and_then(|ms| ms.parse().ok()).unwrap_or(0))),
        };
        Some(Self { who, mode, waits })
    }
}

/// A lock as people know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockName {
    /// The end of a relation's file, which one session at a time makes longer.
    Extension(String),
    Relation(String),
    /// A row of a relation, with several sessions in its queue.
    Row(String),
    /// Rows that this transaction changed.
    Transaction(u32),
    /// The lock NOTIFY takes before its commit.
    Notify,
    /// `pg_advisory_lock(bigint)`.
    Advisory(i64),
    /// `pg_advisory_lock(int, int)`.
    AdvisoryPair(i32, i32),
    /// Anything else, by its type.
    Other(String),
}

impl LockName {
    fn read(row: &AnswerRow, known: Option<&String>) -> Result<Self, Unreadable> {
        let relation = || -> Result<String, Unreadable> {
            let name = row.text_or_null(10)?.or_else(|| known.map(String::as_str));
            match (name, row.text_or_null(2)?, row.text_or_null(1)?) {
                (Some(name), ..) => Ok(name.to_owned()),
                (None, Some(oid), database) => Ok(format!("{oid} of database {}", database.unwrap_or("0"))),
                (None, None, _) => Err(row.unreadable(2)),
            }
        };
        // Oids, shown without a sign; keys of advisory locks have one.
        let oid = |column| row.value::<u32>(column);
        Ok(match row.text(0)? {
            "extend" => Self::Extension(relation()?),
            "relation" => Self::Relation(relation()?),
            "tuple" => Self::Row(relation()?),
            "transactionid" => Self::Transaction(row.value(6)?),
            "object" if (oid(1)?, oid(7)?, oid(8)?) == (0, DATABASE_CLASS, 0) => Self::Notify,
            "advisory" if row.text(9)? == "1" => Self::Advisory(i64::from(oid(7)?) << 32 | i64::from(oid(8)?)),
            "advisory" => Self::AdvisoryPair(oid(7)?.cast_signed(), oid(8)?.cast_signed()),
            other => Self::Other(other.to_owned()),
        })
    }

    /// Its kind, as a label.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Extension(_) => "extension",
            Self::Relation(_) => "relation",
            Self::Row(_) | Self::Transaction(_) => "row",
            Self::Notify => "notify",
            Self::Advisory(_) | Self::AdvisoryPair(..) => "advisory",
            Self::Other(_) => "other",
        }
    }
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Extension(relation) => write!(f, "extension of {relation}"),
            Self::Relation(relation) => write!(f, "relation {relation}"),
            Self::Row(relation) => write!(f, "row of {relation}"),
            Self::Transaction(xid) => write!(f, "rows changed by transaction {xid}"),
            Self::Notify => f.write_str("NOTIFY's commit lock"),
            Self::Advisory(key) => write!(f, "advisory lock {key}"),
            Self::AdvisoryPair(class, object) => write!(f, "advisory lock ({class}, {object})"),
            Self::Other(kind) => write!(f, "{kind} lock"),
        }
    }
}

/// A relation: its database and itself, by their oids.
pub(crate) type RelationId = (u32, u32);

/// The relation of a row of [`sql::LOCKS`](super::sql::LOCKS), if it is of another database than that asked.
pub(crate) fn unnamed(row: &AnswerRow) -> Option<RelationId> {
    let is_named = row.text_or_null(10).is_ok_and(|name| name.is_some());
    (!is_named).then(|| Some((row.value(1).ok()?, row.value(2).ok()?)))?
}

/// A lock that somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WaitedLock {
    name: LockName,
    /// `None`: it is of no database, as transactions are.
    database: Option<u32>,
    claims: Vec<Claim>,
}

impl WaitedLock {
    /// A row of [`sql::LOCKS`](super::sql::LOCKS); `names`: those of relations that it does not name.
    pub(crate) fn read(row: &AnswerRow, names: &BTreeMap<RelationId, String>) -> Result<Self, Unreadable> {
        let name = LockName::read(row, unnamed(row).and_then(|relation| names.get(&relation)))?;
        let database = row.value_or_null(1)?.filter(|database| *database != 0);
        let claims = row.text(11)?.split(',').map(Claim::read);
        let claims = claims.collect::<Option<_>>().ok_or_else(|| row.unreadable(11))?;
        Ok(Self { name, database, claims })
    }

    fn waiters(&self) -> impl Iterator<Item = (&Claim, Duration)> {
        self.claims.iter().filter_map(|claim| Some((claim, claim.waits?)))
    }

    /// The lockers whose locks keep this one waiting; if there are none, those before it in the queue.
    fn blockers(&self, waiter: &Claim) -> Vec<Locker> {
        let in_the_way = |claim: &&Claim| claim.who != waiter.who && waiter.mode.conflicts(claim.mode);
        let others = || self.claims.iter().filter(in_the_way);
        let holders: Vec<_> = others().filter(|claim| claim.waits.is_none()).map(|claim| claim.who).collect();
        if !holders.is_empty() {
            return holders;
        }
        others().filter(|claim| claim.waits > waiter.waits).map(|claim| claim.who).collect()
    }
}

/// Sessions that wait for one lock, and the lockers at the root of their queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockQueue {
    /// The lock they wait for.
    pub lock: LockName,
    /// How many sessions wait.
    pub waiters: usize,
    /// Its database, and those of the sessions.
    pub databases: BTreeSet<u32>,
    /// The longest of their waits.
    pub longest: Duration,
    /// Lockers that wait for nothing themselves and hold up the queue. Empty: they wait for each other.
    pub roots: Vec<Locker>,
}

/// Queues of all locks, the largest first; `homes`: the databases of those who wait.
pub(crate) fn lock_queues(locks: &[WaitedLock], homes: &HashMap<i32, u32>) -> Vec<LockQueue> {
    // A session waits for one lock at a time (proc.c: `waitLock`).
    let mut waits = BTreeMap::new();
    for lock in locks {
        waits.extend(lock.waiters().map(|(claim, _)| (claim.who, (lock, claim))));
    }
    let queue = |lock: &WaitedLock| {
        let (first, longest) = lock.waiters().max_by_key(|(_, waits)| *waits)?;
        let waiters = lock.waiters().count();
        let home = |claim: &Claim| match claim.who {
            Locker::Process(pid) => homes.get(&pid).copied(),
            Locker::Prepared(_) => None,
        };
        let databases = lock.waiters().filter_map(|(claim, _)| home(claim)).chain(lock.database).collect();
        let roots = roots(lock.blockers(first), &waits);
        Some(LockQueue { lock: lock.name.clone(), waiters, databases, longest, roots })
    };
    let mut queues: Vec<_> = locks.iter().filter_map(queue).collect();
    queues.sort_by_key(|queue| std::cmp::Reverse(queue.waiters));
    queues
}

/// Follows the waits from these blockers to the lockers that wait for nobody.
fn roots(blockers: Vec<Locker>, waits: &BTreeMap<Locker, (&WaitedLock, &Claim)>) -> Vec<Locker> {
    let (mut seen, mut roots, mut left) = (BTreeSet::new(), BTreeSet::new(), blockers);
    while let Some(who) = left.pop() {
        if !seen.insert(who) {
            continue;
        }
        match waits.get(&who) {
            Some((lock, claim)) => left.extend(lock.blockers(claim)),
            None => {
                roots.insert(who);
            }
        }
    }
    roots.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::Locker::{Prepared, Process};
    use super::*;

    /// A lock with this tag, the columns of `pg_locks` by position, and lockers.
    fn lock(kind: &str, tag: &[(usize, &str)], lockers: &str) -> WaitedLock {
        let mut row = [None; 12];
        row[0] = Some(kind);
        tag.iter().for_each(|(column, value)| row[*column] = Some(value));
        row[11] = Some(lockers);
        WaitedLock::read(&AnswerRow::of(&row), &BTreeMap::new()).unwrap()
    }

    fn queues(locks: &[WaitedLock]) -> Vec<LockQueue> {
        lock_queues(locks, &HashMap::from([(11, 6), (12, 7)]))
    }

    fn table(kind: &str, lockers: &str) -> WaitedLock {
        lock(kind, &[(1, "5"), (2, "16400"), (10, "public.jobs")], lockers)
    }

    fn name(kind: &str, tag: &[(usize, &str)]) -> String {
        lock(kind, tag, "1 ExclusiveLock t,2 ExclusiveLock f 10").name.to_string()
    }

    #[test]
    fn locks_are_named_as_people_know_them() {
        assert_eq!(table("extend", "1 ExclusiveLock t").name.to_string(), "extension of public.jobs");
        assert_eq!(table("tuple", "1 ExclusiveLock t").name.to_string(), "row of public.jobs");
        assert_eq!(name("relation", &[(1, "5"), (2, "16400")]), "relation 16400 of database 5");
        let names = BTreeMap::from([((5, 16400), "public.jobs".to_owned())]);
        let row = AnswerRow::of(
            &[Some("tuple"), Some("5"), Some("16400")]
                .into_iter()
                .chain([None; 8])
                .chain([Some("1 ExclusiveLock t")])
                .collect::<Vec<_>>(),
        );
        assert_eq!(
            (unnamed(&row), WaitedLock::read(&row, &names).unwrap().name.to_string()),
            (Some((5, 16400)), "row of public.jobs".to_owned())
        );
        assert_eq!(name("transactionid", &[(6, "744")]), "rows changed by transaction 744");
        assert_eq!(name("object", &[(1, "0"), (7, "1262"), (8, "0"), (9, "0")]), "NOTIFY's commit lock");
        assert_eq!(name("object", &[(1, "5"), (7, "1262"), (8, "0"), (9, "0")]), "object lock");
        assert_eq!(name("virtualxid", &[(5, "3/7")]), "virtualxid lock");
    }

    #[test]
    fn advisory_locks_have_the_keys_they_were_taken_with() {
        let advisory = |class, object, kind| name("advisory", &[(1, "5"), (7, class), (8, object), (9, kind)]);
        assert_eq!(advisory("0", "77", "1"), "advisory lock 77");
        assert_eq!(advisory("4294967295", "4294967295", "1"), "advisory lock -1");
        assert_eq!(advisory("1", "4294967294", "2"), "advisory lock (1, -2)");
    }

    #[test]
    fn conflicts_are_mutual_and_those_of_the_manual() {
        let of = |name| LockMode::of(name).unwrap();
        assert!(!of("AccessShareLock").conflicts(of("ExclusiveLock")));
        assert!(of("AccessShareLock").conflicts(of("AccessExclusiveLock")));
        assert!(!of("ShareLock").conflicts(of("ShareLock")));
        assert!(!of("RowExclusiveLock").conflicts(of("RowExclusiveLock")));
        assert!(of("ShareUpdateExclusiveLock").conflicts(of("ShareUpdateExclusiveLock")));
        for (a, b) in (0..8).flat_map(|a| (0..8).map(move |b| (LockMode(a), LockMode(b)))) {
            assert_eq!(a.conflicts(b), b.conflicts(a), "{a:?} {b:?}");
        }
    }

    #[test]
    fn behind_a_row_stands_the_transaction_that_changed_it() {
        let row = table("tuple", "10 ExclusiveLock t,11 ExclusiveLock f 900,12 ExclusiveLock f 800");
        let change = lock("transactionid", &[(6, "744")], "9 ExclusiveLock t,10 ShareLock f 1000");
        let queues = queues(&[change, row]);
        assert_eq!(queues[0].lock, LockName::Row("public.jobs".to_owned()));
        assert_eq!((queues[0].waiters, queues[0].longest), (2, Duration::from_millis(900)));
        assert_eq!((&queues[0].databases, &queues[1].databases), (&[5, 6, 7].into(), &[].into()));
        assert_eq!((queues[0].roots.as_slice(), queues[1].roots.as_slice()), (&[Process(9)][..], &[Process(9)][..]));
    }

    #[test]
    fn behind_a_line_for_a_table_stand_those_the_first_in_it_waits_for() {
        let lockers = "1 RowExclusiveLock t,2 AccessShareLock t,3 AccessExclusiveLock f 500,4 AccessShareLock f 400";
        let queues = queues(&[table("relation", lockers)]);
        assert_eq!(queues[0].roots, [Process(1), Process(2)]);
    }

    #[test]
    fn holders_that_are_in_nobodys_way_are_not_blamed() {
        let lockers = "1 AccessShareLock t,2 ShareUpdateExclusiveLock t,3 ShareLock f 500";
        assert_eq!(queues(&[table("relation", lockers)])[0].roots, [Process(2)]);
    }

    #[test]
    fn a_prepared_transaction_can_be_the_root() {
        let change = lock("transactionid", &[(6, "744")], "x744 ExclusiveLock t,10 ShareLock f 1000");
        assert_eq!(queues(&[change])[0].roots, [Prepared(744)]);
    }

    #[test]
    fn a_deadlock_has_no_root_and_ends() {
        let first = lock("transactionid", &[(6, "1")], "1 ExclusiveLock t,2 ShareLock f 10");
        let second = lock("transactionid", &[(6, "2")], "2 ExclusiveLock t,1 ShareLock f 20");
        assert!(queues(&[first, second]).iter().all(|queue| queue.roots.is_empty()));
    }

    #[test]
    fn when_the_holder_has_just_let_go_the_first_in_line_is_in_the_way() {
        let queues = queues(&[table("extend", "5 ExclusiveLock f 300,6 ExclusiveLock f 200")]);
        assert_eq!(queues[0].roots, []);
        let lock = table("extend", "5 ExclusiveLock f 300,6 ExclusiveLock f 200");
        assert_eq!(lock.blockers(&lock.claims[1]), [Process(5)]);
    }

    #[test]
    fn a_wait_too_young_for_a_date_has_lasted_no_time() {
        let queues = queues(&[table("extend", "5 ExclusiveLock t,6 ExclusiveLock f")]);
        assert_eq!((queues[0].longest, queues[0].roots.as_slice()), (Duration::ZERO, &[Process(5)][..]));
    }

    #[test]
    fn what_is_no_locker_is_an_error() {
        let mut row = [None; 12];
        (row[0], row[6], row[11]) = (Some("transactionid"), Some("1"), Some("1 SomeLock t"));
        assert_eq!(
            WaitedLock::read(&AnswerRow::of(&row), &BTreeMap::new()),
            Err(Unreadable { column: 12, columns: 12 })
        );
    }
}
