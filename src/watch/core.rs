//! The watch of one database without its connection: the schedule of its questions, and the loop over its detectors.
//!
//! The monitor asks one [`Question`] at a time, brings the rows here, and reports silence. Amid deadlock checks only
//! activity is asked for: everything else can wait, and some of it would have to.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::blockers::Blockers;
use super::convoy::{BLIND_AFTER, CALM_SHARE, ConvoyWatch};
use super::detectors::demotion::Demotion;
use super::detectors::horizon::{Hold, HorizonKey};
use super::detectors::notify_queue::NotifyQueue;
use super::detectors::{Detector, DetectorId, Detectors, Look};
use super::finding::{Finding, FindingKind, reported};
use super::incidents::{Incident, IncidentChange, Incidents};
use super::lock_watch::{LockWatch, names_sql};
use super::own_backends::OwnBackends;
use super::question::Question;
use super::reaction::ReactionStep;
use super::row::{AnswerRow, Unreadable, only};
use super::server::WatchedServer;
use super::settings::WatchSettings;
use super::sql;

/// What one watch asks for all databases of a server, to be handed to the next.
#[derive(Debug)]
pub(super) struct OfServer {
    locks: LockWatch,
    notify_queue: NotifyQueue,
    demotion: Demotion,
    holds: Incidents<HorizonKey, Hold>,
    is_away: bool,
}

/// The state of one database and its server, as far as answers have shown.
#[derive(Debug)]
pub struct WatchCore {
    settings: WatchSettings,
    server: Option<WatchedServer>,
    locks: LockWatch,
    detectors: Detectors,
    /// It asks what concerns the whole server, which may have other databases that are watched.
    leads: bool,
    /// Since when it does: what others have heard until then counts, too.
    leads_since: Instant,
    /// It is known that nobody reaches the server.
    is_away: bool,
    /// The last question has gone without an answer for too long.
    is_silent: bool,
    /// When the question of each detector is due.
    due: [Instant; DetectorId::ALL.len()],
}

impl WatchCore {
    /// All questions are due at once but scans of catalogs: `offset`, below one, keeps those of many databases apart.
    pub fn new(settings: WatchSettings, offset: f64, now: Instant) -> Self {
        let detectors = Detectors::default();
        let due = DetectorId::ALL.map(|id| match detectors.get(id) {
            detector if detector.is_catalog_scan() => now + detector.every().mul_f64(offset),
            _ => now,
        });
        Self {
            settings,
            server: None,
            locks: LockWatch::new(&settings, now),
            detectors,
            leads: true,
            leads_since: now,
            is_away: false,
            is_silent: false,
            due,
        }
    }

    /// It asks for the whole server, and what it has found there counts.
    pub fn leads(&self) -> bool {
        self.leads
    }

    /// Asks for the whole server from now on, where another watch has left off.
    pub(super) fn lead(&mut self, before: Option<OfServer>, now: Instant) {
        (self.leads, self.leads_since) = (true, now);
        if let Some(OfServer { locks, notify_queue, demotion, holds, is_away }) = before {
            self.is_away = is_away;
            (self.locks, self.detectors.notify_queue) = (locks, notify_queue);
            self.detectors.demotion.succeed(demotion);
            *self.detectors.horizon.of_server() = holds;
        }
        self.locks.set_thresholds(&self.settings, self.server.as_ref());
        self.locks.connected(now);
        for id in DetectorId::ALL {
            if self.detectors.get(id).is_of_server() {
                self.due[id as usize] = now;
            }
        }
    }

    /// Leaves the whole server to another watch, with all that was found there; `None`: it was left before.
    pub(super) fn follow(&mut self, now: Instant) -> Option<OfServer> {
        let fresh = LockWatch::new(&self.settings, now);
        std::mem::replace(&mut self.leads, false).then(|| OfServer {
            locks: std::mem::replace(&mut self.locks, fresh),
            notify_queue: std::mem::take(&mut self.detectors.notify_queue),
            demotion: std::mem::take(&mut self.detectors.demotion),
            holds: std::mem::take(self.detectors.horizon.of_server()),
            is_away: std::mem::take(&mut self.is_away),
        })
    }

    /// There is a new connection, perhaps to another server: all but scans of catalogs is asked again. An open finding
    /// stays open until an answer ends it.
    pub fn connected(&mut self, now: Instant) {
        self.server = None;
        self.locks.connected(now);
        for id in DetectorId::ALL {
            if !self.detectors.get(id).is_catalog_scan() {
                self.due[id as usize] = now;
            }
        }
    }

    /// Takes other settings, from the next answers on.
    pub fn set(&mut self, settings: WatchSettings) {
        self.settings = settings;
        self.locks.set_thresholds(&settings, self.server.as_ref());
    }

    /// The next question, and when to ask it.
    pub fn next(&self) -> (Question, Instant) {
        if self.server.is_none() {
            return (Question::Server, self.locks.activity_due());
        }
        // Of those due at the same moment the one that is asked most often goes first.
        let order = |id: &DetectorId| (self.due[*id as usize], self.detectors.get(*id).every());
        let is_asked = |id: &DetectorId| self.leads || !self.detectors.get(*id).is_of_server();
        let detector = DetectorId::ALL.into_iter().filter(is_asked).min_by_key(order);
        let detector = detector.expect("some are of one database");
        let detector = (Question::Detector(detector), self.due[detector as usize]);
        if !self.leads {
            return detector;
        }
        let locks = self.locks.next(&self.settings);
        if self.locks.is_urgent() || locks.1 <= detector.1 { locks } else { detector }
    }

    /// The text of a question.
    pub fn sql(&self, question: &Question) -> Cow<'static, str> {
        match question {
            Question::Server => sql::SERVER.into(),
            Question::Activity => sql::ACTIVITY.into(),
            Question::Locks => sql::LOCKS.into(),
            Question::Names(lockers) => names_sql(lockers).into(),
            Question::Detector(id) => self.detectors.get(*id).question(&self.settings),
        }
    }

    /// Whether the answer names processes that may be pgweir's.
    pub fn names_processes(&self, question: &Question) -> bool {
        match question {
            Question::Server | Question::Locks => false,
            Question::Activity => self.locks.names_processes(&self.settings),
            Question::Names(_) => true,
            Question::Detector(id) => self.detectors.get(*id).names_processes(),
        }
    }

    /// Reactions to an answer, which [`Self::answer`] has taken.
    pub fn react(&mut self, question: &Question, own: &OwnBackends) -> Vec<ReactionStep> {
        match question {
            Question::Activity => self.locks.roles_to_tighten(&self.settings, own).into_iter().collect(),
            Question::Names(_) => self.locks.holders_to_cancel(),
            Question::Server | Question::Locks | Question::Detector(_) => Vec::new(),
        }
    }

    /// Takes the rows of an answer that took so long; `own` matters where [`Self::names_processes`] says so.
    pub fn answer(
        &mut self,
        question: &Question,
        rows: &[AnswerRow],
        own: &OwnBackends,
        cost: Duration,
        now: Instant,
    ) -> Result<Vec<IncidentChange<Finding>>, Unreadable> {
        self.asked(question, cost, now);
        (self.is_silent, self.is_away) = (false, false);
        if !self.leads && self.is_of_server(question) {
            // Another watch has taken over since it was asked.
            return Ok(Vec::new());
        }
        match question {
            Question::Server => {
                let server = WatchedServer::read(only(rows)?)?;
                self.detectors.demotion.connected(server.is_standby);
                self.locks.set_thresholds(&self.settings, Some(&server));
                self.server = Some(server);
                Ok(Vec::new())
            }
            Question::Activity => self.locks.activity(only(rows)?, &self.settings, cost, now),
            Question::Locks => self.locks.locks(rows, &self.settings, now),
            Question::Names(_) => self.locks.names(rows, own, &self.settings, now),
            Question::Detector(id) => {
                let oldest_hold = self.detectors.horizon.holds().next().cloned();
                let (settings, server) = (&self.settings, self.server.as_mut());
                let leads = self.leads;
                let mut look = Look { settings, own, oldest_hold: oldest_hold.as_ref(), server, leads, now };
                self.detectors.get_mut(*id).answer(rows, &mut look)
            }
        }
    }

    /// The server refused a question, or its answer is not to be understood: it is asked again when it is due again.
    pub fn refused(&mut self, question: &Question, now: Instant) {
        self.asked(question, Duration::ZERO, now);
        if matches!(question, Question::Names(_)) {
            self.locks.refused_names();
        }
    }

    /// Nothing has been heard since then. Only the watch that asks for the whole server takes that for its silence.
    pub fn silent(&mut self, since: Instant, now: Instant) -> Option<IncidentChange<Finding>> {
        self.is_silent |= now.saturating_duration_since(since) >= BLIND_AFTER;
        if self.leads { self.locks.silent(since.max(self.leads_since), now) } else { None }
    }

    /// There is no connection to the server. True if that is news: it is away for all its databases, until it answers.
    pub(super) fn is_gone(&mut self) -> bool {
        self.leads && !std::mem::replace(&mut self.is_away, true)
    }

    /// Its connection does not answer.
    pub fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Ends what it has found at the whole server: another watch asks there.
    pub(super) fn resign(&mut self, now: Instant) -> Vec<IncidentChange<Finding>> {
        let Some(mut before) = self.follow(now) else { return Vec::new() };
        let mut changes = before.locks.close(now);
        changes.extend(before.notify_queue.close(now));
        changes.extend(before.demotion.close(now));
        changes.extend(reported(before.holds.clear(now)));
        changes
    }

    /// Relations of other databases that somebody waits for, and that lack a name.
    pub(super) fn foreign(&self) -> BTreeMap<u32, BTreeSet<u32>> {
        self.locks.foreign()
    }

    /// Takes names of relations of one database from its own watch.
    pub(super) fn named(
        &mut self,
        database: u32,
        names: Vec<(u32, String)>,
        now: Instant,
    ) -> Result<Vec<IncidentChange<Finding>>, Unreadable> {
        self.locks.named(database, names, &self.settings, now)
    }

    /// Closes what is open: nobody looks any more.
    pub fn end(&mut self, now: Instant) -> Vec<IncidentChange<Finding>> {
        let mut changes = self.locks.close(now);
        for id in DetectorId::ALL {
            changes.extend(self.detectors.get_mut(id).close(now));
        }
        changes
    }

    /// Findings that are open, of each detector `max` at most.
    pub fn findings(&self, max: usize, now: Instant) -> Vec<Incident<Finding>> {
        let mut findings: Vec<_> = self.locks.open_convoy().into_iter().chain(self.locks.open_blindness(now)).collect();
        findings.extend(self.locks.open_blockers().into_iter().take(max));
        for id in DetectorId::ALL {
            findings.extend(self.detectors.get(id).findings().into_iter().take(max));
        }
        findings
    }

    /// How many findings of each kind are open, in the order of [`FindingKind::ALL`].
    pub fn open_counts(&self, now: Instant) -> [usize; FindingKind::ALL.len()] {
        let mut counts = [0; FindingKind::ALL.len()];
        for finding in self.findings(usize::MAX, now) {
            counts[finding.value.kind as usize] += 1;
        }
        counts
    }

    /// How the server is set up, once it was asked.
    pub fn server(&self) -> Option<&WatchedServer> {
        self.server.as_ref()
    }

    /// Sessions that wait for locks.
    pub fn convoy(&self) -> &ConvoyWatch {
        self.locks.convoy()
    }

    /// Sessions and prepared transactions that keep others waiting.
    pub fn blockers(&self) -> &Blockers {
        self.locks.blockers()
    }

    /// The detectors, with what each has seen last.
    pub fn detectors(&self) -> &Detectors {
        &self.detectors
    }

    fn is_of_server(&self, question: &Question) -> bool {
        match question {
            Question::Server => false,
            Question::Activity | Question::Locks | Question::Names(_) => true,
            Question::Detector(id) => self.detectors.get(*id).is_of_server(),
        }
    }

    /// When to ask the same again: later if it costs the server much.
    fn asked(&mut self, question: &Question, cost: Duration, now: Instant) {
        match question {
            Question::Server | Question::Activity => self.locks.asked_activity(cost, now),
            Question::Locks | Question::Names(_) => self.locks.asked_locks(cost, now),
            Question::Detector(id) => {
                let every = self.detectors.get(*id).every();
                self.due[*id as usize] = now + every.max(cost * CALM_SHARE);
            }
        }
    }
}

#[cfg(test)]
mod tests;
