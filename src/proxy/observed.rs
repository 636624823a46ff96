//! The log of limits that only observe: what they would have done.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::Proxy;
use crate::admission::shadow::ObservedCounts;

/// Seconds between two records about the same limit.
const TOLD_EVERY: u32 = 10;

/// The counts that the log has, and the second in which it got them.
pub(super) type Told = HashMap<(&'static str, Arc<str>), (u32, ObservedCounts)>;

impl Proxy {
    /// Tells of limits that would have held something back since they were told of last.
    pub(super) fn tell_observed(&self, now: Instant) {
        let roles = self.directory.all_role_queues().into_iter().map(|(name, id)| ("role", name, id));
        let lanes = self.lanes.of_file();
        let lanes = lanes.iter().map(|lane| ("lane", Arc::clone(&lane.name), lane.id));
        let second = self.clock.second();
        let mut told = self.observed.lock().expect("no panic while held");
        let mut before = std::mem::take(&mut *told);
        for (kind, name, id) in roles.chain(lanes) {
            let view = self.pools.core().role_queue(id, now);
            let Some((_, counts)) = view.and_then(|view| view.observed) else { continue };
            let key = (kind, name);
            let (at, was) = before.remove(&key).unwrap_or_default();
            let (waits, refused) = (counts.waits.saturating_sub(was.waits), counts.refused.saturating_sub(was.refused));
            if waits + refused == 0 || second < at + TOLD_EVERY {
                told.insert(key, (at, was));
                continue;
            }
            let timed_out = counts.timed_out.saturating_sub(was.timed_out);
            let of = counts.seen.saturating_sub(was.seen);
            tracing::info!(kind, name = %key.1, of, waits, timed_out, refused, "a limit that observes would have held back");
            told.insert(key, (second, counts));
        }
    }
}
