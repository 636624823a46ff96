//! Episodes of a role's limiter for the log: a burst, a standstill, refusals; each begins once and ends once, though it
//! may pause for some seconds. Pure.

use super::limiter::{LimiterCounters, LimiterState};
use crate::words::words;

/// An episode ends after so many seconds without it.
const QUIET: u32 = 5;

words! {
    /// The kind of an episode.
    pub(crate) enum EpisodeKind {
        /// Far more arrivals than usual.
        Burst = "burst",
        /// It is full, somebody waits, and nothing ends.
        Stuck = "stuck",
        /// Transactions are refused, or wait for too long.
        Refusals = "refusals",
    }
}

/// A change that a look brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EpisodeChange {
    Began(EpisodeKind),
    /// It took so many seconds, in which the limiter counted this.
    Ended(EpisodeKind, u32, LimiterCounters),
}

/// The episodes of one role.
#[derive(Debug, Default)]
pub(crate) struct Episodes {
    before: LimiterCounters,
    open: [Option<OpenEpisode>; EpisodeKind::ALL.len()],
}

#[derive(Debug, Clone, Copy)]
struct OpenEpisode {
    since: u32,
    /// The last second of it so far.
    last: u32,
    /// As it began.
    counters: LimiterCounters,
}

impl Episodes {
    /// Takes the state in this second.
    pub(crate) fn look(&mut self, state: LimiterState, counters: LimiterCounters, second: u32) -> Vec<EpisodeChange> {
        let before = std::mem::replace(&mut self.before, counters);
        let mut changes = Vec::new();
        for (kind, open) in EpisodeKind::ALL.into_iter().zip(&mut self.open) {
            let is_on = match kind {
                EpisodeKind::Burst => state == LimiterState::Burst || counters.bursts > before.bursts,
                EpisodeKind::Stuck => state == LimiterState::Stuck || counters.stuck > before.stuck,
                EpisodeKind::Refusals => turned_away(&counters) > turned_away(&before),
            };
            match open {
                None if is_on => {
                    *open = Some(OpenEpisode { since: second, last: second, counters: before });
                    changes.push(EpisodeChange::Began(kind));
                }
                Some(episode) if is_on => episode.last = second,
                Some(episode) if second >= episode.last + QUIET => {
                    let took = episode.last.saturating_sub(episode.since);
                    changes.push(EpisodeChange::Ended(kind, took, since(&counters, &episode.counters)));
                    *open = None;
                }
                Some(_) | None => {}
            }
        }
        changes
    }
}

/// Transactions that did not come to their turn.
pub(crate) fn turned_away(counters: &LimiterCounters) -> u64 {
    counters.refused_full + counters.refused_shed + counters.timed_out
}

fn since(now: &LimiterCounters, before: &LimiterCounters) -> LimiterCounters {
    LimiterCounters {
        starts: now.starts.saturating_sub(before.starts),
        immediate: now.immediate.saturating_sub(before.immediate),
        refused_full: now.refused_full.saturating_sub(before.refused_full),
        refused_shed: now.refused_shed.saturating_sub(before.refused_shed),
        timed_out: now.timed_out.saturating_sub(before.timed_out),
        ..*now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(starts: u64, refused_full: u64) -> LimiterCounters {
        LimiterCounters { starts, refused_full, ..LimiterCounters::default() }
    }

    #[test]
    fn a_burst_begins_once_and_ends_once_with_what_it_cost() {
        let mut episodes = Episodes::default();
        assert_eq!(episodes.look(LimiterState::Calm, counted(10, 0), 1), []);
        assert_eq!(episodes.look(LimiterState::Burst, counted(50, 0), 2), [EpisodeChange::Began(EpisodeKind::Burst)]);
        // It pauses, and goes on.
        assert_eq!(episodes.look(LimiterState::Calm, counted(60, 0), 4), []);
        assert_eq!(episodes.look(LimiterState::Burst, counted(90, 0), 6), []);
        assert_eq!(episodes.look(LimiterState::Calm, counted(95, 0), 10), []);
        let ended = episodes.look(LimiterState::Calm, counted(100, 0), 11);
        assert_eq!(ended, [EpisodeChange::Ended(EpisodeKind::Burst, 4, counted(90, 0))]);
        assert_eq!(episodes.look(LimiterState::Calm, counted(100, 0), 30), []);
    }

    #[test]
    fn refusals_are_an_episode_of_their_own_whatever_the_state() {
        let mut episodes = Episodes::default();
        let began = episodes.look(LimiterState::Calm, counted(0, 3), 1);
        assert_eq!(began, [EpisodeChange::Began(EpisodeKind::Refusals)]);
        assert_eq!(episodes.look(LimiterState::Calm, counted(0, 7), 2), []);
        let ended = episodes.look(LimiterState::Calm, counted(0, 7), 7);
        assert_eq!(ended, [EpisodeChange::Ended(EpisodeKind::Refusals, 1, counted(0, 7))]);
    }

    #[test]
    fn a_standstill_within_a_second_is_told_all_the_same() {
        let mut episodes = Episodes::default();
        let stuck = LimiterCounters { stuck: 1, ..LimiterCounters::default() };
        let began = episodes.look(LimiterState::Calm, stuck, 1);
        assert_eq!(began, [EpisodeChange::Began(EpisodeKind::Stuck)]);
    }
}
