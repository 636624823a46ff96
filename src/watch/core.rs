//! The watch of one database without its connection: what to ask next and when, and what follows from the answers.
//!
//! Whoever has the connection asks one [`Question`] at a time, takes the rows here, and reports silence. Amid deadlock checks only the
//! sample is asked: everything else can wait, and some of it would have to.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::activity::ActivitySample;
use super::blockers::{Blockers, Names};
use super::convoy::{CALM_SHARE, ConvoyState, ConvoyThresholds, ConvoyWatch, LockSite};
use super::culprit::ServerSession;
use super::detectors::dead_tuples::{DeadTuples, TableRows};
use super::detectors::demotion::Demotion;
use super::detectors::horizon::{Holders, Horizon, HorizonThresholds};
use super::detectors::notify_queue::NotifyQueue;
use super::detectors::outside::{Connected, Outside};
use super::detectors::sessions::{Overstay, Sessions};
use super::finding::{Finding, FindingKind, told, told_as};
use super::incidents::IncidentChange;
use super::locks::{LockQueue, Locker, WaitedLock, lock_queues};
use super::own_backends::OwnBackends;
use super::reaction::{self, IdleHolder, ReactionStep};
use super::row::{AnswerRow, Unreadable};
use super::server::WatchedServer;
use super::sql;
use crate::config::{self, OnConvoy, OnIdleHolder};

/// How often sessions that idle or take long are asked for: an idle transaction is seen this long after its limit at the latest.
const LINGERING_EVERY: Duration = Duration::from_secs(5);

/// How often the horizon, the connections and the queue of notifications are.
const HORIZON_EVERY: Duration = Duration::from_secs(15);

/// How often dead rows are counted: three counts make a growth.
const TABLES_EVERY: Duration = Duration::from_secs(60);

/// How often the lock table is asked while somebody waits for long, and while a convoy has not been located.
const BLOCKERS_EVERY: Duration = Duration::from_secs(5);
const LOCATE_EVERY: Duration = Duration::from_secs(1);

/// Until the server says otherwise; its default.
const DEADLOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Lockers whose names are asked for at once.
const NAMES_MAX: usize = 100;

/// From where on something is the matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchSettings {
    /// Sessions in wait for locks that are a convoy.
    pub convoy_waiters: usize,
    /// Keeping others waiting for so long.
    pub blocked: Duration,
    /// Idling in a transaction for so long.
    pub idle_in_transaction: Duration,
    /// One statement for so long.
    pub long_statement: Duration,
    /// The oldest snapshot.
    pub horizon: HorizonThresholds,
    /// Dead rows of one table.
    pub dead_tuples: u64,
    /// Connections that are not pgweir's; `None`: any number is fine.
    pub outside_max: Option<usize>,
    /// What is done about a convoy.
    pub on_convoy: OnConvoy,
    /// What is done about who idles while others wait.
    pub on_idle_holder: OnIdleHolder,
}

impl From<&config::Watch> for WatchSettings {
    fn from(watch: &config::Watch) -> Self {
        Self {
            convoy_waiters: watch.convoy_waiters as usize,
            blocked: watch.blocked,
            idle_in_transaction: watch.idle_in_transaction,
            long_statement: watch.long_statement,
            horizon: HorizonThresholds { age: watch.horizon_age, transactions: watch.horizon_transactions },
            dead_tuples: watch.dead_tuples.into(),
            outside_max: watch.outside_max.map(|max| max as usize),
            on_convoy: watch.on_convoy,
            on_idle_holder: watch.on_idle_holder,
        }
    }
}

/// What to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// [`sql::SERVER`].
    Server,
    /// [`sql::ACTIVITY`].
    Activity,
    /// [`sql::LOCKS`].
    Locks,
    /// [`sql::sessions`] and [`sql::PREPARED`], for those at the root of lock queues.
    Names(Vec<Locker>),
    /// [`sql::lingering`].
    Lingering,
    /// [`sql::HORIZON`].
    Horizon,
    /// [`sql::CONNECTED`].
    Connected,
    /// [`sql::NOTIFY_QUEUE`].
    NotifyQueue,
    /// [`sql::STANDING`].
    Standing,
    /// [`sql::TABLES`].
    Tables,
}

/// When each is to be asked.
#[derive(Debug)]
struct Due {
    activity: Instant,
    locate: Instant,
    blockers: Instant,
    lingering: Instant,
    horizon: Instant,
    connected: Instant,
    notify_queue: Instant,
    standing: Instant,
    tables: Instant,
}

impl Due {
    fn at(now: Instant) -> Self {
        Self {
            activity: now,
            locate: now,
            blockers: now,
            lingering: now,
            horizon: now,
            connected: now,
            notify_queue: now,
            standing: now,
            tables: now,
        }
    }
}

/// What is known of one database and its server.
#[derive(Debug)]
pub struct WatchCore {
    settings: WatchSettings,
    due: Due,
    server: Option<WatchedServer>,
    convoy: ConvoyWatch,
    /// Found in the lock table at that time, their roots not named yet.
    unnamed: Option<(Vec<LockQueue>, Instant)>,
    blockers: Blockers,
    /// As the last look at the lock table found them.
    idle_holders: Vec<IdleHolder>,
    horizon: Horizon,
    dead_tuples: DeadTuples,
    sessions: Sessions,
    outside: Outside,
    notify_queue: NotifyQueue,
    demotion: Demotion,
}

impl WatchCore {
    /// Everything is asked at once, but for the tables: `offset`, below one, keeps those of many databases apart.
    pub fn new(settings: WatchSettings, offset: f64, now: Instant) -> Self {
        Self {
            settings,
            due: Due { tables: now + TABLES_EVERY.mul_f64(offset), ..Due::at(now) },
            server: None,
            convoy: ConvoyWatch::new(convoy_thresholds(&settings, None)),
            unnamed: None,
            blockers: Blockers::default(),
            idle_holders: Vec::new(),
            horizon: Horizon::default(),
            dead_tuples: DeadTuples::default(),
            sessions: Sessions::default(),
            outside: Outside::default(),
            notify_queue: NotifyQueue::default(),
            demotion: Demotion::default(),
        }
    }

    /// There is a connection anew, perhaps to another server: everything is asked again. What is open stays so until an answer ends it.
    pub fn connected(&mut self, now: Instant) {
        (self.server, self.unnamed) = (None, None);
        self.due = Due { tables: self.due.tables, ..Due::at(now) };
    }

    /// Takes other settings, from the next answers on.
    pub fn set(&mut self, settings: WatchSettings) {
        self.settings = settings;
        self.convoy.set_thresholds(convoy_thresholds(&settings, self.server.as_ref()));
    }

    /// What to ask next, and when.
    pub fn next(&self) -> (Question, Instant) {
        let due = &self.due;
        if self.server.is_none() {
            return (Question::Server, due.activity);
        }
        if self.convoy.is_lock_manager_busy() || self.convoy.blind_since().is_some() {
            return (Question::Activity, due.activity);
        }
        if let Some((queues, found)) = &self.unnamed {
            return (Question::Names(lockers(queues)), *found);
        }
        let mut next = (Question::Activity, due.activity);
        let mut consider = |question, at| {
            if at < next.1 {
                next = (question, at);
            }
        };
        if self.convoy.wants_locks() {
            consider(Question::Locks, due.locate);
        }
        if self.is_somebody_blocked() {
            consider(Question::Locks, due.blockers);
        }
        consider(Question::Lingering, due.lingering);
        consider(Question::Horizon, due.horizon);
        consider(Question::Connected, due.connected);
        consider(Question::NotifyQueue, due.notify_queue);
        consider(Question::Standing, due.standing);
        consider(Question::Tables, due.tables);
        next
    }

    /// The text of a question.
    pub fn sql(&self, question: &Question) -> String {
        let WatchSettings { idle_in_transaction, long_statement, .. } = self.settings;
        match question {
            Question::Server => sql::SERVER.to_owned(),
            Question::Activity => sql::ACTIVITY.to_owned(),
            Question::Locks => sql::LOCKS.to_owned(),
            Question::Names(lockers) => names_sql(lockers),
            Question::Lingering => sql::lingering(idle_in_transaction, long_statement),
            Question::Horizon => sql::HORIZON.to_owned(),
            Question::Connected => sql::CONNECTED.to_owned(),
            Question::NotifyQueue => sql::NOTIFY_QUEUE.to_owned(),
            Question::Standing => sql::STANDING.to_owned(),
            Question::Tables => sql::TABLES.to_owned(),
        }
    }

    /// Whether the answer names processes that may be pgweir's.
    pub fn asks_whose(&self, question: &Question) -> bool {
        match question {
            Question::Names(_) | Question::Lingering | Question::Horizon | Question::Connected => true,
            Question::Activity => self.tightens() && self.convoy.state() != ConvoyState::Calm,
            Question::Server | Question::Locks | Question::NotifyQueue | Question::Standing | Question::Tables => false,
        }
    }

    fn tightens(&self) -> bool {
        self.settings.on_convoy == OnConvoy::Tighten
    }

    /// What is to be done about what an answer said, which [`Self::answer`] has taken.
    pub fn react(&mut self, question: &Question, own: &OwnBackends) -> Vec<ReactionStep> {
        match question {
            Question::Activity if self.tightens() && self.convoy.convoy().is_some() => {
                let roles = reaction::roles_in_wait(self.convoy.sample(), own);
                if roles.is_empty() { Vec::new() } else { vec![ReactionStep::Tighten(roles)] }
            }
            Question::Names(_) => {
                std::mem::take(&mut self.idle_holders).into_iter().map(ReactionStep::Cancel).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Takes the rows of an answer that took so long; `own` matters where [`Self::asks_whose`] says so.
    pub fn answer(
        &mut self,
        question: &Question,
        rows: &[AnswerRow],
        own: &OwnBackends,
        cost: Duration,
        now: Instant,
    ) -> Result<Vec<IncidentChange<Finding>>, Unreadable> {
        self.asked(question, cost, now);
        // Questions about counts have one row, whatever there is to count.
        let only = || rows.first().ok_or(Unreadable { column: 0, columns: 0 });
        Ok(match question {
            Question::Server => {
                let server = WatchedServer::read(only()?)?;
                self.convoy.set_thresholds(convoy_thresholds(&self.settings, Some(&server)));
                self.server = Some(server);
                Vec::new()
            }
            Question::Activity => {
                let changes = self.convoy.look(ActivitySample::read(only()?)?, now);
                self.due.activity = now + self.convoy.interval(cost);
                let mut changes: Vec<_> = changes.into_iter().map(IncidentChange::from).collect();
                if self.convoy.sample().waiters.is_empty() {
                    changes.extend(told(self.blockers.end(now)));
                }
                changes
            }
            Question::Locks => {
                let locks = rows.iter().map(WaitedLock::read).collect::<Result<Vec<_>, _>>()?;
                let queues = lock_queues(&locks);
                if queues.iter().all(|queue| queue.roots.is_empty()) {
                    return Ok(self.name(&queues, &Names::default(), now));
                }
                self.unnamed = Some((queues, now));
                Vec::new()
            }
            Question::Names(_) => {
                let names = read_names(rows, own)?;
                let (queues, _) = self.unnamed.take().unwrap_or_else(|| (Vec::new(), now));
                self.name(&queues, &names, now)
            }
            Question::Lingering => {
                let sessions = rows.iter().map(|row| ServerSession::read(row, own)).collect::<Result<_, _>>()?;
                told(self.sessions.look(sessions, now)).collect()
            }
            Question::Horizon => {
                let changes = self.horizon.look(Holders::read(rows, own)?, &self.settings.horizon, now);
                told(changes).collect()
            }
            Question::Connected => {
                let connected = rows.iter().map(Connected::read).collect::<Result<_, _>>()?;
                let changes = self.outside.look(connected, own, self.settings.outside_max, now);
                told_as(changes, |count| Finding::outside(*count)).collect()
            }
            Question::NotifyQueue => {
                let changes = self.notify_queue.look(only()?.value(0)?, now);
                told_as(changes, |usage| Finding::notify_queue(*usage)).collect()
            }
            Question::Standing => {
                let is_standby = only()?.is(0)?;
                if let Some(server) = &mut self.server {
                    server.is_standby = is_standby;
                }
                told_as(self.demotion.look(is_standby, now), |()| Finding::demoted()).collect()
            }
            Question::Tables => {
                let tables = rows.iter().map(TableRows::read).collect::<Result<_, _>>()?;
                let culprit = self.horizon.culprit().cloned();
                let changes = self.dead_tuples.look(tables, culprit.as_ref(), self.settings.dead_tuples, now);
                told(changes).collect()
            }
        })
    }

    /// The server refused a question, or what it said is not to be understood: it is asked again when it is due again.
    pub fn refused(&mut self, question: &Question, now: Instant) {
        self.asked(question, Duration::ZERO, now);
        if matches!(question, Question::Names(_)) {
            self.unnamed = None;
        }
    }

    /// Nothing has been heard since then.
    pub fn silent(&mut self, since: Instant, now: Instant) -> Option<IncidentChange<Finding>> {
        self.convoy.silent(since, now).map(IncidentChange::from)
    }

    /// Ends what is open: nobody looks any more.
    pub fn end(&mut self, now: Instant) -> Vec<IncidentChange<Finding>> {
        let mut changes: Vec<_> = self.convoy.end(now).into_iter().map(IncidentChange::from).collect();
        changes.extend(told(self.blockers.end(now)));
        changes.extend(told(self.horizon.end(now)));
        changes.extend(told(self.dead_tuples.end(now)));
        changes.extend(told(self.sessions.end(now)));
        changes.extend(told_as(self.outside.end(now), |count| Finding::outside(*count)));
        changes.extend(told_as(self.notify_queue.end(now), |usage| Finding::notify_queue(*usage)));
        changes.extend(told_as(self.demotion.end(now), |()| Finding::demoted()));
        self.unnamed = None;
        changes
    }

    /// How many findings of this kind are open.
    pub fn open(&self, kind: FindingKind) -> usize {
        let lingering = |doing| self.sessions.open().iter().filter(|open| open.value.doing == doing).count();
        match kind {
            FindingKind::Convoy => usize::from(self.convoy.convoy().is_some()),
            FindingKind::Blind => usize::from(self.convoy.blind_since().is_some()),
            FindingKind::Blocker => self.blockers.open().len(),
            FindingKind::Horizon => usize::from(self.horizon.open().is_some()),
            FindingKind::DeadTuples => self.dead_tuples.open().count(),
            FindingKind::IdleInTransaction => lingering(Overstay::Idling),
            FindingKind::LongStatement => lingering(Overstay::Running),
            FindingKind::Outside => usize::from(self.outside.open().is_some()),
            FindingKind::NotifyQueue => usize::from(self.notify_queue.open().is_some()),
            FindingKind::Standing => usize::from(self.demotion.is_demoted()),
        }
    }

    /// How the server is set up, once it was asked.
    pub fn server(&self) -> Option<&WatchedServer> {
        self.server.as_ref()
    }

    /// Waits for locks.
    pub fn convoy(&self) -> &ConvoyWatch {
        &self.convoy
    }

    /// Who keeps others waiting.
    pub fn blockers(&self) -> &Blockers {
        &self.blockers
    }

    /// Who keeps vacuum from its work.
    pub fn horizon(&self) -> &Horizon {
        &self.horizon
    }

    /// What vacuum does not remove.
    pub fn dead_tuples(&self) -> &DeadTuples {
        &self.dead_tuples
    }

    /// Who takes long.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Who is connected without pgweir.
    pub fn outside(&self) -> &Outside {
        &self.outside
    }

    /// The queue of notifications.
    pub fn notify_queue(&self) -> &NotifyQueue {
        &self.notify_queue
    }

    /// Whether the server leads.
    pub fn demotion(&self) -> &Demotion {
        &self.demotion
    }

    fn is_somebody_blocked(&self) -> bool {
        self.convoy.longest() >= self.settings.blocked || !self.blockers.is_empty()
    }

    /// When to ask the same again: later if it costs the server much.
    fn asked(&mut self, question: &Question, cost: Duration, now: Instant) {
        let after = |every: Duration| now + every.max(cost * CALM_SHARE);
        let due = &mut self.due;
        match question {
            Question::Server | Question::Activity => due.activity = now + self.convoy.interval(cost),
            Question::Locks | Question::Names(_) => {
                due.locate = after(LOCATE_EVERY);
                due.blockers = after(BLOCKERS_EVERY);
            }
            Question::Lingering => due.lingering = after(LINGERING_EVERY),
            Question::Horizon => due.horizon = after(HORIZON_EVERY),
            Question::Connected => due.connected = after(HORIZON_EVERY),
            Question::NotifyQueue => due.notify_queue = after(HORIZON_EVERY),
            Question::Standing => due.standing = after(HORIZON_EVERY),
            Question::Tables => due.tables = after(TABLES_EVERY),
        }
    }

    fn name(&mut self, queues: &[LockQueue], names: &Names, now: Instant) -> Vec<IncidentChange<Finding>> {
        if let Some(queue) = queues.first() {
            let culprit = names.oldest(queue).map(|(_, culprit, _)| culprit);
            self.convoy.locate(LockSite { lock: queue.lock.clone(), culprit });
        }
        let changes = told(self.blockers.look(queues, names, self.settings.blocked, now)).collect();
        self.idle_holders = match self.settings.on_idle_holder {
            OnIdleHolder::Observe => Vec::new(),
            OnIdleHolder::Cancel => reaction::idle_holders(&self.blockers, names, self.settings.blocked),
        };
        changes
    }
}

fn convoy_thresholds(settings: &WatchSettings, server: Option<&WatchedServer>) -> ConvoyThresholds {
    ConvoyThresholds {
        waiters: settings.convoy_waiters,
        deadlock_timeout: server.map_or(DEADLOCK_TIMEOUT, |server| server.deadlock_timeout),
    }
}

/// those at the root of lock queues, of the largest first.
fn lockers(queues: &[LockQueue]) -> Vec<Locker> {
    let mut seen = HashSet::new();
    queues
        .iter()
        .flat_map(|queue| &queue.roots)
        .copied()
        .filter(|locker| seen.insert(*locker))
        .take(NAMES_MAX)
        .collect()
}

fn names_sql(lockers: &[Locker]) -> String {
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
fn read_names(rows: &[AnswerRow], own: &OwnBackends) -> Result<Names, Unreadable> {
    let mut names = Names::default();
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

#[cfg(test)]
mod tests;
