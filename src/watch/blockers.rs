//! Blockers: sessions and prepared transactions that keep others waiting for a lock for too long.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::culprit::{Culprit, ServerSession};
use super::finding::{Finding, FindingKind, Reach, Seconds};
use super::incidents::{Incident, IncidentChange, IncidentLevel, Incidents};
use super::locks::{LockName, LockQueue, Locker};

/// A session or prepared transaction at the root of waits for locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The session or prepared transaction.
    pub culprit: Culprit,
    /// How long its transaction has been open.
    pub transaction_age: Option<Duration>,
    /// The lock with the longest queue.
    pub lock: LockName,
    /// Sessions that wait for it, on all locks.
    pub waiters: usize,
    /// The longest of their waits.
    pub longest: Duration,
    /// Where they wait.
    pub databases: BTreeSet<u32>,
}

/// The names of lockers, as the server was asked for them.
#[derive(Debug, Clone, Default)]
pub struct LockerNames {
    /// Sessions.
    pub sessions: HashMap<i32, ServerSession>,
    /// Names and ages of prepared transactions.
    pub prepared: HashMap<u32, (String, Duration)>,
}

impl LockerNames {
    /// The culprit and the age of its transaction; `None`: it is gone by now.
    fn culprit(&self, locker: Locker) -> Option<(Culprit, Option<Duration>)> {
        Some(match locker {
            Locker::Process(pid) => {
                let session = self.sessions.get(&pid)?;
                (Culprit::Backend(session.backend.clone()), session.transaction_age)
            }
            Locker::Prepared(xid) => {
                let (gid, age) = self.prepared.get(&xid)?;
                (Culprit::Prepared { gid: gid.clone() }, Some(*age))
            }
        })
    }

    /// The locker to end first of those at the root of a lock queue: the one with the oldest transaction.
    pub fn oldest(&self, queue: &LockQueue) -> Option<(Locker, Culprit, Option<Duration>)> {
        let named = queue.roots.iter().filter_map(|locker| {
            let (culprit, age) = self.culprit(*locker)?;
            Some((*locker, culprit, age))
        });
        named.max_by_key(|(_, _, age)| *age)
    }
}

/// The blockers at one server.
#[derive(Debug, Default)]
pub struct Blockers(Incidents<Locker, Blocker>);

impl Blockers {
    /// Takes all lock queues, the largest first. A wait of `limit` opens an incident.
    pub fn look(
        &mut self,
        queues: &[LockQueue],
        names: &LockerNames,
        limit: Duration,
        now: Instant,
    ) -> Vec<IncidentChange<Blocker>> {
        let mut blockers: BTreeMap<Locker, Blocker> = BTreeMap::new();
        for queue in queues {
            let Some((locker, culprit, transaction_age)) = names.oldest(queue) else { continue };
            let blocker = blockers.entry(locker).or_insert_with(|| Blocker {
                culprit,
                transaction_age,
                lock: queue.lock.clone(),
                waiters: 0,
                longest: Duration::ZERO,
                databases: BTreeSet::new(),
            });
            blocker.databases.extend(&queue.databases);
            blocker.waiters += queue.waiters;
            blocker.longest = blocker.longest.max(queue.longest);
        }
        let level =
            |(locker, blocker): (Locker, Blocker)| Some((locker, IncidentLevel::of(blocker.longest, limit)?, blocker));
        self.0.look(blockers.into_iter().filter_map(level), now)
    }

    /// Blockers that keep others waiting for too long, those with the most waiters first.
    pub fn open(&self) -> Vec<&Incident<Blocker>> {
        let mut open: Vec<_> = self.0.open().map(|(_, open)| open).collect();
        open.sort_by_key(|open| std::cmp::Reverse(open.value.waiters));
        open
    }

    /// Nobody keeps others waiting for too long.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Closes what is open: nobody waits any more, or nobody looks.
    pub fn end(&mut self, now: Instant) -> Vec<IncidentChange<Blocker>> {
        self.0.clear(now)
    }
}

impl From<&Blocker> for Finding {
    fn from(blocker: &Blocker) -> Self {
        let Blocker { culprit, lock, waiters, longest, databases, .. } = blocker;
        let what = format_args!("{waiters} wait for up to {}, most for {lock}", Seconds(*longest));
        Self::new(FindingKind::Blocker, what, Some(culprit.clone())).reaching(Reach::Of(databases.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::culprit::{ServerProcess, SessionState};

    const LIMIT: Duration = Duration::from_secs(5);

    fn names(pids: &[(i32, u64)]) -> LockerNames {
        let session = |(pid, seconds): &(i32, u64)| {
            let backend = ServerProcess {
                pid: *pid,
                state: SessionState::IdleInTransaction,
                application: String::new(),
                addr: None,
                client: None,
            };
            let transaction_age = Some(Duration::from_secs(*seconds));
            let session = ServerSession {
                backend,
                transaction: None,
                statement: None,
                transaction_age,
                statement_age: None,
                state_age: None,
            };
            (*pid, session)
        };
        let prepared = HashMap::from([(744, ("tx".to_owned(), Duration::from_secs(60)))]);
        LockerNames { sessions: pids.iter().map(session).collect(), prepared }
    }

    fn queue(lock: LockName, waiters: usize, seconds: u64, roots: &[Locker]) -> LockQueue {
        LockQueue {
            lock,
            waiters,
            databases: BTreeSet::from([5]),
            longest: Duration::from_secs(seconds),
            roots: roots.to_vec(),
        }
    }

    #[test]
    fn all_locks_behind_one_are_one_blocker() {
        let queues = [
            queue(LockName::Row("public.jobs".to_owned()), 30, 4, &[Locker::Process(7)]),
            queue(LockName::Transaction(744), 1, 5, &[Locker::Process(7)]),
        ];
        let changes = Blockers::default().look(&queues, &names(&[(7, 90)]), LIMIT, Instant::now());
        let [IncidentChange::Opened(blocker)] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!((blocker.waiters, blocker.longest), (31, LIMIT));
        assert_eq!(blocker.lock.to_string(), "row of public.jobs");
        assert_eq!(blocker.culprit.remedy(), "SELECT pg_terminate_backend(7)");
    }

    #[test]
    fn of_several_at_the_root_the_oldest_is_to_blame() {
        let roots = [Locker::Process(7), Locker::Prepared(744), Locker::Process(8)];
        let queues = [queue(LockName::Relation("public.jobs".to_owned()), 9, 9, &roots)];
        let mut blockers = Blockers::default();
        blockers.look(&queues, &names(&[(7, 20), (8, 50)]), LIMIT, Instant::now());
        assert_eq!(blockers.open()[0].value.culprit.remedy(), "ROLLBACK PREPARED 'tx'");
        blockers.look(&queues, &names(&[(7, 90), (8, 50)]), LIMIT, Instant::now());
        assert_eq!(blockers.open()[0].value.culprit.pid(), Some(7));
    }

    #[test]
    fn short_waits_open_nothing_and_close_what_was_long() {
        let (mut blockers, now) = (Blockers::default(), Instant::now());
        let mut look = |seconds| {
            let queues = [queue(LockName::Notify, 3, seconds, &[Locker::Process(7)])];
            blockers.look(&queues, &names(&[(7, 90)]), LIMIT, now).len()
        };
        assert_eq!([4, 5, 3, 2, 4].map(&mut look), [0, 1, 0, 1, 0]);
    }

    #[test]
    fn who_is_gone_by_the_time_names_are_asked_for_is_left_out() {
        let queues = [queue(LockName::Notify, 3, 9, &[Locker::Process(7)]), queue(LockName::Notify, 3, 9, &[])];
        assert_eq!(Blockers::default().look(&queues, &names(&[]), LIMIT, Instant::now()), []);
    }
}
