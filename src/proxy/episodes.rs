//! The log of bursts, standstills and refusals of roles: each begins and ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Proxy;
use crate::admission::episodes::{EpisodeChange, EpisodeKind, Episodes, turned_away};

/// The episodes of every role that has logged in.
pub(super) type RoleEpisodes = HashMap<Arc<str>, Episodes>;

impl Proxy {
    /// Tells what has begun and ended since the last look. Once a second.
    pub(super) fn tell_episodes(&self, now: Instant) {
        let second = self.clock.second();
        let mut known = self.episodes.lock().expect("no panic while held");
        let mut before = std::mem::take(&mut *known);
        for (role, id) in self.directory.all_role_queues() {
            let Some(view) = self.pools.core().role_queue(id, now) else { continue };
            let mut episodes = before.remove(&role).unwrap_or_default();
            for change in episodes.look(view.limiter.state, view.limiter.counters, second) {
                let (waiting, limit) = (view.limiter.waiting, view.limiter.limit);
                match change {
                    EpisodeChange::Began(EpisodeKind::Burst) => {
                        tracing::info!(%role, waiting, limit, "a burst begins");
                    }
                    EpisodeChange::Began(EpisodeKind::Stuck) => {
                        tracing::warn!(%role, waiting, limit, "a role is stuck: it is full, and nothing ends");
                    }
                    EpisodeChange::Began(EpisodeKind::Refusals) => {
                        tracing::warn!(%role, waiting, limit, "transactions of a role are refused, or wait for too long");
                    }
                    EpisodeChange::Ended(kind, seconds, counted) => {
                        let (starts, refused) = (counted.starts, turned_away(&counted));
                        let waited = starts.saturating_sub(counted.immediate);
                        let took = Duration::from_secs(seconds.into());
                        tracing::info!(%role, ?took, starts, waited, refused, "{}", over(kind));
                    }
                }
            }
            known.insert(role, episodes);
        }
    }
}

fn over(kind: EpisodeKind) -> &'static str {
    match kind {
        EpisodeKind::Burst => "a burst is over",
        EpisodeKind::Stuck => "a role is no longer stuck",
        EpisodeKind::Refusals => "no transactions of a role are refused any more",
    }
}
