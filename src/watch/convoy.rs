//! Lock convoys. The k-th waiter on one lock costs about k³/6 steps of deadlock check, so the queue itself stops the
//! server (docs/PROTECTION.md).
//!
//! A queue seen by one look may be gone at the next, so one look is never enough; and an end counts once it has lasted.
//! The convoy watch decides how soon to look again and whether the lock table may be asked; it does neither itself.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::activity::{ActivitySample, LockKind, Waits};
use super::culprit::Culprit;
use super::finding::{Finding, FindingKind, Reach, Seconds};
use super::incidents::IncidentChange;
use super::locks::LockName;
use crate::words::words;

/// The interval between looks while all is calm.
const CALM_INTERVAL: Duration = Duration::from_secs(1);

/// The interval between looks while it is not.
const ALERT_INTERVAL: Duration = Duration::from_millis(250);

/// Share of one CPU that looks may cost the server, one in so many: a fiftieth while it is calm, a tenth in trouble. A
/// look costs it 15 µs for each of its backends.
pub(super) const CALM_SHARE: u32 = 50;
const ALERT_SHARE: u32 = 10;

/// The server counts as blind after so long without an answer.
pub(crate) const BLIND_AFTER: Duration = Duration::from_secs(2);

/// A convoy is over once it has been quiet for so long.
const CALM_AFTER: Duration = Duration::from_secs(2);

/// The server is called recovered, not calm, for so long after a convoy.
const RECOVERED_FOR: Duration = Duration::from_secs(10);

/// Sessions that wait for the lock manager itself: with this many, deadlock checks run, and the lock table would not
/// answer for seconds.
const LOCK_MANAGER_BUSY: u32 = 8;

/// Thresholds at which lock waits count as a convoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvoyThresholds {
    /// So many waiters in a growing queue, or twice as many, are a convoy. Two fifths of it are suspect.
    pub waiters: usize,
    /// The server's `deadlock_timeout`: after a wait of most of it, deadlock checks are about to begin.
    pub deadlock_timeout: Duration,
}

impl ConvoyThresholds {
    fn suspect(&self) -> usize {
        self.waiters * 2 / 5
    }

    /// Few, yet long enough for their deadlock checks to begin soon.
    fn is_suspicious(&self, waiters: usize, longest: Duration) -> bool {
        waiters >= self.suspect() || (waiters >= self.waiters / 10 && longest >= self.deadlock_timeout / 2)
    }

    fn is_convoy(&self, waiters: usize, before: usize, longest: Duration) -> bool {
        waiters >= 2 * self.waiters
            || (waiters >= self.waiters && waiters > before)
            || (waiters >= self.waiters * 3 / 5 && longest >= self.deadlock_timeout * 4 / 5)
    }
}

words! {
    /// The verdict of the watch on a server.
    pub enum ConvoyState {
        /// Few sessions wait.
        Calm = "calm",
        /// More waiters than usual, two looks running.
        Suspect = "suspect",
        /// A queue that feeds itself.
        Convoy = "convoy",
        /// No answer.
        Blind = "blind",
        /// After a convoy.
        Recovered = "recovered",
    }
}

/// The place of a convoy, from the lock table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockSite {
    /// The lock with the longest queue.
    pub lock: LockName,
    /// The holder at its root; `None`: gone by the time it was asked for, or they wait for each other.
    pub culprit: Option<Culprit>,
}

/// A convoy from its beginning on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Episode {
    /// When it was seen first.
    pub since: Instant,
    /// Sessions that wait for locks.
    pub waiters: usize,
    /// The most there were.
    pub waiters_max: usize,
    /// For how long the first of them has waited, at least.
    pub longest: Duration,
    /// The kind of lock that most wait for.
    pub kind: Option<LockKind>,
    /// Where it is, if the lock table could be asked.
    pub site: Option<LockSite>,
    /// Databases in which somebody has waited.
    pub databases: BTreeSet<u32>,
}

/// A change that a look brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConvoyChange {
    /// A convoy began.
    ConvoyOpened(Episode),
    /// The convoy is over.
    ConvoyClosed(Episode, Duration),
    /// The server does not answer.
    BlindOpened(Duration),
    /// It answers again, after so long.
    BlindClosed(Duration),
}

/// The phase of a server, with the data it needs.
#[derive(Debug)]
enum ConvoyPhase {
    Calm {
        /// Whether the look before was suspicious.
        has_doubts: bool,
    },
    Suspect {
        calm_since: Option<Instant>,
        site: Option<LockSite>,
    },
    Convoy {
        episode: Episode,
        calm_since: Option<Instant>,
    },
    Recovered {
        since: Instant,
        has_doubts: bool,
    },
}

/// The convoy watch of one server.
#[derive(Debug)]
pub struct ConvoyWatch {
    thresholds: ConvoyThresholds,
    phase: ConvoyPhase,
    /// Since when there has been no answer; kept beside the phase, which cannot be known to have changed.
    blind_since: Option<Instant>,
    waits: Waits,
    latest: ActivitySample,
    longest: Duration,
}

impl ConvoyWatch {
    /// Calm until it has looked.
    pub fn new(thresholds: ConvoyThresholds) -> Self {
        Self {
            thresholds,
            phase: ConvoyPhase::Calm { has_doubts: false },
            blind_since: None,
            waits: Waits::default(),
            latest: ActivitySample::default(),
            longest: Duration::ZERO,
        }
    }

    /// Takes other thresholds, from the next look on.
    pub fn set_thresholds(&mut self, thresholds: ConvoyThresholds) {
        self.thresholds = thresholds;
    }

    /// Its verdict on the server now.
    pub fn state(&self) -> ConvoyState {
        match (self.blind_since, &self.phase) {
            (Some(_), _) => ConvoyState::Blind,
            (None, ConvoyPhase::Calm { .. }) => ConvoyState::Calm,
            (None, ConvoyPhase::Suspect { .. }) => ConvoyState::Suspect,
            (None, ConvoyPhase::Convoy { .. }) => ConvoyState::Convoy,
            (None, ConvoyPhase::Recovered { .. }) => ConvoyState::Recovered,
        }
    }

    /// As last seen.
    pub fn sample(&self) -> &ActivitySample {
        &self.latest
    }

    /// How long the first in wait for a lock had waited then, at least.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The convoy that is open; one may be while the watch is blind.
    pub fn convoy(&self) -> Option<&Episode> {
        match &self.phase {
            ConvoyPhase::Convoy { episode, .. } => Some(episode),
            _ => None,
        }
    }

    /// Since when there has been no answer.
    pub fn blind_since(&self) -> Option<Instant> {
        self.blind_since
    }

    /// The interval to the next look, after one that took `cost`.
    pub fn interval(&self, cost: Duration) -> Duration {
        let calm = CALM_INTERVAL.max(cost * CALM_SHARE);
        match &self.phase {
            ConvoyPhase::Calm { has_doubts: false } | ConvoyPhase::Recovered { has_doubts: false, .. } => calm,
            // Few may wait for long without any harm: that is no reason to look more often for good.
            ConvoyPhase::Suspect { .. } if self.latest.waiters.len() < self.thresholds.suspect() => calm,
            _ => ALERT_INTERVAL.max(cost * ALERT_SHARE),
        }
    }

    /// Deadlock checks run: nothing but activity may be asked.
    pub fn is_lock_manager_busy(&self) -> bool {
        self.latest.lock_manager >= LOCK_MANAGER_BUSY
    }

    /// Whether the lock table should be asked now: the root is not known, and the lock manager is free enough to
    /// answer.
    pub fn wants_locks(&self) -> bool {
        let is_unknown = match &self.phase {
            ConvoyPhase::Suspect { site, .. } => site.is_none(),
            ConvoyPhase::Convoy { episode, .. } => episode.site.is_none(),
            ConvoyPhase::Calm { .. } | ConvoyPhase::Recovered { .. } => false,
        };
        is_unknown && self.blind_since.is_none() && !self.is_lock_manager_busy()
    }

    /// Takes the place that the lock table showed.
    pub fn locate(&mut self, found: LockSite) {
        match &mut self.phase {
            ConvoyPhase::Suspect { site, .. } => *site = Some(found),
            ConvoyPhase::Convoy { episode, .. } => episode.site = Some(found),
            ConvoyPhase::Calm { .. } | ConvoyPhase::Recovered { .. } => {}
        }
    }

    /// Nothing has been heard since then.
    ///
    /// ## any => the same, and blind: no answer is an answer when those who wait hold up all others
    pub fn silent(&mut self, since: Instant, now: Instant) -> Option<ConvoyChange> {
        let silence = now.saturating_duration_since(since);
        if self.blind_since.is_some() || silence < BLIND_AFTER {
            return None;
        }
        self.blind_since = Some(since);
        Some(ConvoyChange::BlindOpened(silence))
    }

    /// Takes an answer.
    pub fn look(&mut self, sample: ActivitySample, now: Instant) -> Vec<ConvoyChange> {
        let mut changes = Vec::new();
        if let Some(since) = self.blind_since.take() {
            changes.push(ConvoyChange::BlindClosed(now.saturating_duration_since(since)));
        }
        let (waiters, before) = (sample.waiters.len(), self.latest.waiters.len());
        let longest = self.waits.look(&sample, now);
        let is_suspicious = self.thresholds.is_suspicious(waiters, longest);
        let is_convoy = self.thresholds.is_convoy(waiters, before, longest);
        let phase = std::mem::replace(&mut self.phase, ConvoyPhase::Calm { has_doubts: false });
        self.phase = match phase {
            // ## (Calm | Recovered) => Suspect: two looks running, or one that could not be worse
            ConvoyPhase::Calm { has_doubts } | ConvoyPhase::Recovered { has_doubts, .. }
                if is_suspicious && (has_doubts || waiters >= 2 * self.thresholds.waiters) =>
            {
                ConvoyPhase::Suspect { calm_since: None, site: None }
            }
            ConvoyPhase::Calm { .. } => ConvoyPhase::Calm { has_doubts: is_suspicious },
            // ## Recovered => Calm: it has been quiet since
            ConvoyPhase::Recovered { since, .. } if now >= since + RECOVERED_FOR => {
                ConvoyPhase::Calm { has_doubts: is_suspicious }
            }
            ConvoyPhase::Recovered { since, .. } => ConvoyPhase::Recovered { since, has_doubts: is_suspicious },
            // ## Suspect => Convoy: so many that the queue will not end by itself
            ConvoyPhase::Suspect { site, .. } if is_convoy => {
                let (kind, databases) = (sample.main_kind(), sample.databases());
                let episode = Episode { since: now, waiters, waiters_max: waiters, longest, kind, site, databases };
                changes.push(ConvoyChange::ConvoyOpened(episode.clone()));
                ConvoyPhase::Convoy { episode, calm_since: None }
            }
            // ## Suspect => Calm
            ConvoyPhase::Suspect { calm_since, site } => match quiet(calm_since, is_suspicious, now) {
                Quiet::Over => ConvoyPhase::Calm { has_doubts: false },
                Quiet::Since(calm_since) => ConvoyPhase::Suspect { calm_since, site },
            },
            // ## Convoy => Recovered
            ConvoyPhase::Convoy { mut episode, calm_since } => {
                episode.waiters = waiters;
                episode.waiters_max = episode.waiters_max.max(waiters);
                episode.longest = episode.longest.max(longest);
                episode.kind = sample.main_kind().or(episode.kind);
                episode.databases.extend(sample.databases());
                match quiet(calm_since, waiters >= self.thresholds.suspect(), now) {
                    Quiet::Over => {
                        let lasted = now.saturating_duration_since(episode.since);
                        changes.push(ConvoyChange::ConvoyClosed(episode, lasted));
                        ConvoyPhase::Recovered { since: now, has_doubts: false }
                    }
                    Quiet::Since(calm_since) => ConvoyPhase::Convoy { episode, calm_since },
                }
            }
        };
        (self.latest, self.longest) = (sample, longest);
        changes
    }

    /// Ends what is open: nobody looks any more.
    pub fn end(&mut self, now: Instant) -> Vec<ConvoyChange> {
        let blind =
            self.blind_since.take().map(|since| ConvoyChange::BlindClosed(now.saturating_duration_since(since)));
        let convoy = match std::mem::replace(&mut self.phase, ConvoyPhase::Calm { has_doubts: false }) {
            ConvoyPhase::Convoy { episode, .. } => {
                let lasted = now.saturating_duration_since(episode.since);
                Some(ConvoyChange::ConvoyClosed(episode, lasted))
            }
            _ => None,
        };
        (self.waits, self.latest, self.longest) = (Waits::default(), ActivitySample::default(), Duration::ZERO);
        blind.into_iter().chain(convoy).collect()
    }
}

/// Whether it has been quiet for long enough.
enum Quiet {
    Over,
    /// Since when; `None`: it is not.
    Since(Option<Instant>),
}

fn quiet(since: Option<Instant>, is_loud: bool, now: Instant) -> Quiet {
    match since {
        _ if is_loud => Quiet::Since(None),
        None => Quiet::Since(Some(now)),
        Some(since) if now >= since + CALM_AFTER => Quiet::Over,
        Some(since) => Quiet::Since(Some(since)),
    }
}

impl From<&Episode> for Finding {
    fn from(episode: &Episode) -> Self {
        let Episode { waiters_max, longest, site, kind, databases, .. } = episode;
        let wait = Seconds(*longest);
        let finding = match (site, kind) {
            (Some(site), _) => {
                let what = format_args!(
                    "up to {waiters_max} sessions wait for locks, for up to {wait}; most for {}",
                    site.lock
                );
                Self::new(FindingKind::Convoy, what, site.culprit.clone())
            }
            (None, Some(kind)) => {
                let what = format_args!(
                    "up to {waiters_max} sessions wait for locks, for up to {wait}; most for locks of kind {}",
                    kind.word()
                );
                Self::new(FindingKind::Convoy, what, None)
            }
            (None, None) => Self::new(
                FindingKind::Convoy,
                format_args!("up to {waiters_max} sessions wait for locks, for up to {wait}"),
                None,
            ),
        };
        finding.reaching(Reach::Of(databases.clone()))
    }
}

impl From<ConvoyChange> for IncidentChange<Finding> {
    fn from(change: ConvoyChange) -> Self {
        match change {
            ConvoyChange::ConvoyOpened(episode) => Self::Opened(Finding::from(&episode)),
            ConvoyChange::ConvoyClosed(episode, lasted) => Self::Closed(Finding::from(&episode), lasted),
            ConvoyChange::BlindOpened(silence) => Self::Opened(Finding::blind(silence)),
            ConvoyChange::BlindClosed(silence) => Self::Closed(Finding::blind(silence), silence),
        }
    }
}

#[cfg(test)]
mod tests;
