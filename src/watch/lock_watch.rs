//! Waits for locks: a sample of the server's activity every second or so, and the lock table where that says enough.
//!
//! It is no [`Detector`](super::detectors::Detector): the activity it sees decides how often it looks again, whether
//! the lock table may be asked (amid deadlock checks it may not), and whether any other question may be.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::activity::ActivitySample;
use super::blockers::{Blockers, LockerNames};
use super::convoy::{CALM_SHARE, ConvoyState, ConvoyThresholds, ConvoyWatch, LockSite};
use super::culprit::ServerSession;
use super::finding::{Finding, reported};
use super::incidents::{Incident, IncidentChange};
use super::locks::{LockQueue, Locker, RelationId, WaitedLock, lock_queues, unnamed};
use super::own_backends::OwnBackends;
use super::question::Question;
use super::reaction::{self, IdleHolder, ReactionStep};
use super::row::{AnswerRow, Unreadable};
use super::server::WatchedServer;
use super::settings::WatchSettings;
use super::sql;
use crate::config::{OnConvoy, OnIdleHolder};

/// The pause between two looks at the lock table, while somebody waits for long and while a convoy has not been
/// located.
const BLOCKERS_EVERY: Duration = Duration::from_secs(5);
const LOCATE_EVERY: Duration = Duration::from_secs(1);

/// The watch of another database has so long to name relations of it.
const FOREIGN_WAIT: Duration = Duration::from_secs(1);

/// The server's `deadlock_timeout` until it was asked: Postgres's default.
const DEADLOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Lockers whose names are asked for at once.
const NAMES_MAX: usize = 100;

/// When each question is due.
#[derive(Debug)]
struct LocksDue {
    activity: Instant,
    locate: Instant,
    blockers: Instant,
}

/// A look at the lock table that shows relations of other databases: their watches are asked for the names.
#[derive(Debug)]
struct ForeignRelations {
    rows: Vec<AnswerRow>,
    wanted: BTreeSet<RelationId>,
    /// Without an answer they are left without a name.
    until: Instant,
}

/// Lock queues whose roots have not been named yet.
#[derive(Debug)]
struct UnnamedQueues {
    queues: Vec<LockQueue>,
    found: Instant,
}

/// Waits for locks at one server.
#[derive(Debug)]
pub(crate) struct LockWatch {
    due: LocksDue,
    convoy: ConvoyWatch,
    foreign: Option<ForeignRelations>,
    /// Names of relations of other databases, while somebody waits.
    names: BTreeMap<RelationId, String>,
    unnamed: Option<UnnamedQueues>,
    blockers: Blockers,
    /// Holders that idle, as of the last look at the lock table.
    idle_holders: Vec<IdleHolder>,
}

impl LockWatch {
    pub(super) fn new(settings: &WatchSettings, now: Instant) -> Self {
        Self {
            due: LocksDue { activity: now, locate: now, blockers: now },
            convoy: ConvoyWatch::new(thresholds(settings, None)),
            foreign: None,
            names: BTreeMap::new(),
            unnamed: None,
            blockers: Blockers::default(),
            idle_holders: Vec::new(),
        }
    }

    /// Sessions that wait, and whether they are a convoy.
    pub(crate) fn convoy(&self) -> &ConvoyWatch {
        &self.convoy
    }

    /// Sessions and prepared transactions that keep others waiting.
    pub(crate) fn blockers(&self) -> &Blockers {
        &self.blockers
    }

    /// There is a new connection: everything is asked at once.
    pub(super) fn connected(&mut self, now: Instant) {
        (self.foreign, self.unnamed) = (None, None);
        self.due = LocksDue { activity: now, locate: now, blockers: now };
    }

    pub(super) fn set_thresholds(&mut self, settings: &WatchSettings, server: Option<&WatchedServer>) {
        self.convoy.set_thresholds(thresholds(settings, server));
    }

    /// When activity is to be asked for.
    pub(super) fn activity_due(&self) -> Instant {
        self.due.activity
    }

    /// No other question may be asked before the next one of this: deadlock checks run, the server is silent, or lock
    /// queues wait for names.
    pub(super) fn is_urgent(&self) -> bool {
        self.is_obstructed() || self.unnamed.is_some()
    }

    /// Nothing but activity may be asked.
    fn is_obstructed(&self) -> bool {
        self.convoy.is_lock_manager_busy() || self.convoy.blind_since().is_some()
    }

    /// The next question, and when to ask it.
    pub(super) fn next(&self, settings: &WatchSettings) -> (Question, Instant) {
        let due = &self.due;
        if self.is_obstructed() {
            return (Question::Activity, due.activity);
        }
        if let Some(UnnamedQueues { queues, found }) = &self.unnamed {
            return (Question::Names(roots(queues)), *found);
        }
        let locate = self.convoy.wants_locks().then_some(due.locate);
        let is_somebody_blocked = self.convoy.longest() >= settings.blocked || !self.blockers.is_empty();
        let blockers = is_somebody_blocked.then_some(due.blockers);
        match locate.into_iter().chain(blockers).min() {
            Some(locks) if locks < due.activity => (Question::Locks, locks),
            _ => (Question::Activity, due.activity),
        }
    }

    /// Schedules activity again, once it or the settings of the server were asked for and the answer took `cost`.
    pub(super) fn asked_activity(&mut self, cost: Duration, now: Instant) {
        self.due.activity = now + self.convoy.interval(cost);
    }

    /// Schedules the lock table again, once it or names for it were asked for and the answer took `cost`.
    pub(super) fn asked_locks(&mut self, cost: Duration, now: Instant) {
        let after = |every: Duration| now + every.max(cost * CALM_SHARE);
        self.due.locate = after(LOCATE_EVERY);
        self.due.blockers = after(BLOCKERS_EVERY);
    }

    /// Whether the processes in an answer of activity have to be named: their roles may have to be tightened.
    pub(super) fn names_processes(&self, settings: &WatchSettings) -> bool {
        settings.on_convoy == OnConvoy::Tighten && self.convoy.state() != ConvoyState::Calm
    }

    /// Takes an answer to [`Question::Activity`] that took so long.
    pub(super) fn activity(
        &mut self,
        row: &AnswerRow,
        settings: &WatchSettings,
        cost: Duration,
        now: Instant,
    ) -> Result<Vec<IncidentChange<Finding>>, Unreadable> {
        let changes = self.convoy.look(ActivitySample::read(row)?, now);
        self.asked_activity(cost, now);
        let mut changes: Vec<_> = changes.into_iter().map(IncidentChange::from).collect();
        if self.convoy.sample().waiters.is_empty() {
            (self.foreign, self.names) = (None, BTreeMap::new());
            changes.extend(reported(self.blockers.end(now)));
        }
        if let Some(foreign) = self.foreign.take_if(|foreign| foreign.until <= now) {
            changes.extend(self.queues(&foreign.rows, settings, now)?);
        }
        Ok(changes)
    }

    /// Takes an answer to [`Question::Locks`].
    pub(super) fn locks(
        &mut self,
        rows: &[AnswerRow],
        settings: &WatchSettings,
        now: Instant,
    ) -> Result<Vec<IncidentChange<Finding>>, Unreadable> {
        let unnamed = rows.iter().filter_map(unnamed).filter(|relation| !self.names.contains_key(relation));
        let wanted: BTreeSet<_> = unnamed.collect();
        if wanted.is_empty() {
            return self.queues(rows, settings, now);
        }
        self.foreign = Some(ForeignRelations { rows: rows.to_vec(), wanted, until: now + FOREIGN_WAIT });
        Ok(Vec::new())
    }

    /// Relations of other databases that lack a name.
    pub(super) fn foreign(&self) -> BTreeMap<u32, BTreeSet<u32>> {
        let mut wanted: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (database, relation) in self.foreign.iter().flat_map(|foreign| &foreign.wanted) {
            wanted.entry(*database).or_default().insert(*relation);
        }
        wanted
    }

    /// Takes names of relations of one database; those that it does not name have none.
    pub(super) fn named(
        &mut self,
        database: u32,
        names: Vec<(u32, String)>,
        settings: &WatchSettings,
        now: Instant,
    ) -> Result<Vec<IncidentChange<Finding>>, Unreadable> {
        self.names.extend(names.into_iter().map(|(relation, name)| ((database, relation), name)));
        if let Some(foreign) = &mut self.foreign {
            foreign.wanted.retain(|(of, _)| *of != database);
        }
        match self.foreign.take_if(|foreign| foreign.wanted.is_empty()) {
            Some(foreign) => self.queues(&foreign.rows, settings, now),
            None => Ok(Vec::new()),
        }
    }

    /// Takes the lock table, with all names that are to be had.
    fn queues(
        &mut self,
        rows: &[AnswerRow],
        settings: &WatchSettings,
        now: Instant,
    ) -> Result<Vec<IncidentChange<Finding>>, Unreadable> {
        let locks = rows.iter().map(|row| WaitedLock::read(row, &self.names)).collect::<Result<Vec<_>, _>>()?;
        let queues = lock_queues(&locks, &self.convoy.sample().homes);
        if queues.iter().all(|queue| queue.roots.is_empty()) {
            return Ok(self.name(&queues, &LockerNames::default(), settings, now));
        }
        self.unnamed = Some(UnnamedQueues { queues, found: now });
        Ok(Vec::new())
    }

    /// Takes an answer to [`Question::Names`].
    pub(super) fn names(
        &mut self,
        rows: &[AnswerRow],
        own: &OwnBackends,
        settings: &WatchSettings,
        now: Instant,
    ) -> Result<Vec<IncidentChange<Finding>>, Unreadable> {
        let names = read_names(rows, own)?;
        let queues = self.unnamed.take().map(|unnamed| unnamed.queues).unwrap_or_default();
        Ok(self.name(&queues, &names, settings, now))
    }

    fn name(
        &mut self,
        queues: &[LockQueue],
        names: &LockerNames,
        settings: &WatchSettings,
        now: Instant,
    ) -> Vec<IncidentChange<Finding>> {
        if let Some(queue) = queues.first() {
            let culprit = names.oldest(queue).map(|(_, culprit, _)| culprit);
            self.convoy.locate(LockSite { lock: queue.lock.clone(), culprit });
        }
        let changes = reported(self.blockers.look(queues, names, settings.blocked, now));
        self.idle_holders = match settings.on_idle_holder {
            OnIdleHolder::Observe => Vec::new(),
            OnIdleHolder::Cancel => reaction::idle_holders(&self.blockers, names, settings.blocked),
        };
        changes
    }

    /// The server refused names: the lock table is asked again first.
    pub(super) fn refused_names(&mut self) {
        self.unnamed = None;
    }

    /// Nothing has been heard since then.
    pub(super) fn silent(&mut self, since: Instant, now: Instant) -> Option<IncidentChange<Finding>> {
        self.convoy.silent(since, now).map(IncidentChange::from)
    }

    /// Roles to tighten after an answer of activity.
    pub(super) fn roles_to_tighten(&self, settings: &WatchSettings, own: &OwnBackends) -> Option<ReactionStep> {
        if settings.on_convoy != OnConvoy::Tighten || self.convoy.convoy().is_none() {
            return None;
        }
        let roles = reaction::roles_in_wait(self.convoy.sample(), own);
        (!roles.is_empty()).then_some(ReactionStep::Tighten(roles))
    }

    /// Clients to cancel after an answer with names.
    pub(super) fn holders_to_cancel(&mut self) -> Vec<ReactionStep> {
        std::mem::take(&mut self.idle_holders).into_iter().map(ReactionStep::Cancel).collect()
    }

    /// The convoy, if one is open.
    pub(super) fn open_convoy(&self) -> Option<Incident<Finding>> {
        let episode = self.convoy.convoy()?;
        Some(Incident { since: episode.since, value: Finding::from(episode) })
    }

    /// The silence of the server, if it is silent.
    pub(super) fn open_blindness(&self, now: Instant) -> Option<Incident<Finding>> {
        let since = self.convoy.blind_since()?;
        Some(Incident { since, value: Finding::blind(now.saturating_duration_since(since)) })
    }

    /// Blockers that keep others waiting for too long, those with the longest queues first.
    pub(super) fn open_blockers(&self) -> Vec<Incident<Finding>> {
        self.blockers.open().into_iter().map(Incident::finding).collect()
    }

    /// Closes what is open: nobody looks any more.
    pub(super) fn close(&mut self, now: Instant) -> Vec<IncidentChange<Finding>> {
        (self.foreign, self.unnamed) = (None, None);
        let convoy = self.convoy.end(now).into_iter().map(IncidentChange::from);
        convoy.chain(reported(self.blockers.end(now))).collect()
    }
}

fn thresholds(settings: &WatchSettings, server: Option<&WatchedServer>) -> ConvoyThresholds {
    ConvoyThresholds {
        waiters: settings.convoy_waiters,
        deadlock_timeout: server.map_or(DEADLOCK_TIMEOUT, |server| server.deadlock_timeout),
    }
}

/// Lockers at the root of lock queues, those of the longest queue first.
fn roots(queues: &[LockQueue]) -> Vec<Locker> {
    let mut seen = HashSet::new();
    queues
        .iter()
        .flat_map(|queue| &queue.roots)
        .copied()
        .filter(|locker| seen.insert(*locker))
        .take(NAMES_MAX)
        .collect()
}

/// The text of [`Question::Names`].
pub(super) fn names_sql(lockers: &[Locker]) -> String {
    let pid = |locker: &Locker| match locker {
        Locker::Process(pid) => Some(*pid),
        Locker::Prepared(_) => None,
    };
    let pids: Vec<_> = lockers.iter().filter_map(pid).collect();
    let sessions = sql::sessions(&pids);
    match pids.len() == lockers.len() {
        true => sessions,
        false => format!("{sessions}; {}", sql::PREPARED),
    }
}

/// Sessions and prepared transactions, which have fewer columns.
fn read_names(rows: &[AnswerRow], own: &OwnBackends) -> Result<LockerNames, Unreadable> {
    let mut names = LockerNames::default();
    for row in rows {
        if row.columns() == sql::PREPARED_COLUMNS {
            names.prepared.insert(row.value(0)?, (row.text(1)?.to_owned(), row.duration(2)?));
        } else {
            let session = ServerSession::read(row, own)?;
            names.sessions.insert(session.backend.pid, session);
        }
    }
    Ok(names)
}
