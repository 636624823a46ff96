//! Reactions to a convoy, and to clients that idle while others wait: none, unless `[watch]` asks for them.
//!
//! Reactions touch only clients that pgweir has let in itself, and roles with such clients among those in wait.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::activity::ActivitySample;
use super::blockers::{Blocker, Blockers, LockerNames};
use super::culprit::{Culprit, ServerProcess, SessionState};
use super::finding::Seconds;
use super::locks::LockName;
use super::own_backends::{OwnBackends, OwnClient};

/// A role is part of a convoy if its clients are at least one in so many of those that wait.
const SHARE: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReactionStep {
    /// Fewer transactions of these roles at once.
    Tighten(Vec<Arc<str>>),
    /// This client's transaction is to end.
    Cancel(IdleHolder),
}

/// A client that idles in a transaction which others wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdleHolder {
    /// Its process at the server.
    pub backend: i32,
    /// The client.
    pub client: OwnClient,
    lock: LockName,
    waiters: usize,
    longest: Duration,
}

impl fmt::Display for IdleHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lock, waiters, longest, .. } = self;
        write!(f, "{waiters} wait for up to {}, most for {lock}", Seconds(*longest))
    }
}

/// Roles whose clients are a large share of the sessions in wait for locks.
pub(super) fn roles_in_wait(sample: &ActivitySample, own: &OwnBackends) -> Vec<Arc<str>> {
    let mut waiting: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
    for client in sample.waiters.iter().filter_map(|(pid, _)| own.client(*pid)) {
        *waiting.entry(&client.role).or_default() += 1;
    }
    let many = |(role, count): (&Arc<str>, usize)| (count * SHARE >= sample.waiters.len()).then(|| Arc::clone(role));
    waiting.into_iter().filter_map(many).collect()
}

/// Clients of ours that have idled in a transaction for so long, while others have waited for it for as long.
pub(super) fn idle_holders(blockers: &Blockers, names: &LockerNames, limit: Duration) -> Vec<IdleHolder> {
    let holder = |blocker: &Blocker| {
        let Culprit::Backend(ServerProcess {
            pid, state: SessionState::IdleInTransaction, client: Some(client), ..
        }) = &blocker.culprit
        else {
            return None;
        };
        let idle = names.sessions.get(pid)?.state_age?;
        let Blocker { lock, waiters, longest, .. } = blocker.clone();
        let holder = IdleHolder { backend: *pid, client: client.clone(), lock, waiters, longest };
        (longest >= limit && idle >= limit).then_some(holder)
    };
    blockers.open().into_iter().filter_map(|open| holder(&open.value)).collect()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::sql::Digest;
    use crate::watch::activity::LockKind;
    use crate::watch::culprit::ServerSession;
    use crate::watch::locks::{LockQueue, Locker};

    const LIMIT: Duration = Duration::from_secs(5);

    fn client(pid: i32, role: &str) -> OwnClient {
        OwnClient {
            pid,
            role: role.into(),
            addr: "10.0.0.7:4444".to_owned(),
            application: "".into(),
            statement: Digest::NONE,
        }
    }

    #[test]
    fn roles_with_a_fifth_of_those_who_wait_are_meant_and_strangers_count_among_them() {
        let mut own = OwnBackends::default();
        (0..6).for_each(|pid| own.give(pid, client(pid, "web")));
        (6..8).for_each(|pid| own.give(pid, client(pid, "batch")));
        own.give(8, client(8, "cron"));
        own.add([9]);
        let waiting = |pids: std::ops::Range<i32>| ActivitySample {
            waiters: pids.map(|pid| (pid, LockKind::Row)).collect(),
            ..ActivitySample::default()
        };
        let roles =
            |pids| -> Vec<_> { roles_in_wait(&waiting(pids), &own).iter().map(|role| role.to_string()).collect() };
        assert_eq!(roles(0..10), ["batch", "web"]);
        assert_eq!(roles(0..31), [""; 0], "most are strangers");
        assert_eq!(roles(0..0), [""; 0]);
    }

    /// Process 7 has idled for so long in a transaction that three have waited for.
    fn blocked(idle: u64, waits: u64, state: SessionState, client: Option<OwnClient>) -> Vec<IdleHolder> {
        let backend = ServerProcess { pid: 7, state, application: String::new(), addr: None, client };
        let age = Some(Duration::from_secs(90));
        let session = ServerSession {
            backend,
            transaction: None,
            statement: None,
            transaction_age: age,
            statement_age: age,
            state_age: Some(Duration::from_secs(idle)),
        };
        let names = LockerNames { sessions: [(7, session)].into(), ..LockerNames::default() };
        let longest = Duration::from_secs(waits);
        let queue = LockQueue {
            lock: LockName::Notify,
            waiters: 3,
            databases: [5].into(),
            longest,
            roots: vec![Locker::Process(7)],
        };
        let mut blockers = Blockers::default();
        blockers.look(&[queue], &names, LIMIT, Instant::now());
        idle_holders(&blockers, &names, LIMIT)
    }

    #[test]
    fn who_idles_while_others_wait_is_named_with_them() {
        let holders = blocked(5, 5, SessionState::IdleInTransaction, Some(client(12, "web")));
        let [holder] = holders.as_slice() else { panic!("{holders:?}") };
        assert_eq!((holder.backend, holder.client.pid), (7, 12));
        assert_eq!(holder.to_string(), "3 wait for up to 5 s, most for NOTIFY's commit lock");
    }

    #[test]
    fn who_is_at_work_or_nobodys_client_or_not_idle_for_long_is_left_alone() {
        let ours = || Some(client(12, "web"));
        assert_eq!(blocked(90, 90, SessionState::Active, ours()), []);
        assert_eq!(blocked(90, 90, SessionState::Idle, ours()), []);
        assert_eq!(blocked(90, 90, SessionState::IdleInTransaction, None), []);
        assert_eq!(blocked(4, 90, SessionState::IdleInTransaction, ours()), []);
        assert_eq!(blocked(90, 4, SessionState::IdleInTransaction, ours()), []);
    }
}
