//! The watch of one database without its connection: the schedule of its questions, and the loop over its detectors.
//!
//! The monitor asks one [`Question`] at a time, brings the rows here, and reports silence. Amid deadlock checks only
//! activity is asked for: everything else can wait, and some of it would have to.

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::Instant;

use super::blockers::Blockers;
use super::convoy::{CALM_SHARE, ConvoyWatch};
use super::detectors::{DetectorId, Detectors, Look};
use super::finding::{Finding, FindingKind};
use super::incidents::{Incident, IncidentChange};
use super::lock_watch::{LockWatch, names_sql};
use super::own_backends::OwnBackends;
use super::question::Question;
use super::reaction::ReactionStep;
use super::row::{AnswerRow, Unreadable, only};
use super::server::WatchedServer;
use super::settings::WatchSettings;
use super::sql;

/// The state of one database and its server, as far as answers have shown.
#[derive(Debug)]
pub struct WatchCore {
    settings: WatchSettings,
    server: Option<WatchedServer>,
    locks: LockWatch,
    detectors: Detectors,
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
        Self { settings, server: None, locks: LockWatch::new(&settings, now), detectors, due }
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
        let locks = self.locks.next(&self.settings);
        if self.locks.is_urgent() {
            return locks;
        }
        // Of those due at the same moment the one that is asked most often goes first.
        let order = |id: &DetectorId| (self.due[*id as usize], self.detectors.get(*id).every());
        match DetectorId::ALL.into_iter().min_by_key(order) {
            Some(id) if self.due[id as usize] < locks.1 => (Question::Detector(id), self.due[id as usize]),
            _ => locks,
        }
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
        match question {
            Question::Server => {
                let server = WatchedServer::read(only(rows)?)?;
                self.locks.set_thresholds(&self.settings, Some(&server));
                self.server = Some(server);
                Ok(Vec::new())
            }
            Question::Activity => self.locks.activity(only(rows)?, cost, now),
            Question::Locks => self.locks.locks(rows, &self.settings, now),
            Question::Names(_) => self.locks.names(rows, own, &self.settings, now),
            Question::Detector(id) => {
                let oldest_hold = self.detectors.horizon.holds().next().cloned();
                let (settings, server) = (&self.settings, self.server.as_mut());
                let mut look = Look { settings, own, oldest_hold: oldest_hold.as_ref(), server, now };
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

    /// Nothing has been heard since then.
    pub fn silent(&mut self, since: Instant, now: Instant) -> Option<IncidentChange<Finding>> {
        self.locks.silent(since, now)
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
