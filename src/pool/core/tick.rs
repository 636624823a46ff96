//! What happens because time passes. The shell calls it about ten times a second.

use tokio::time::Instant;

use super::slot::State;
use super::{Command, Core, SlotId, WaitError};

/// Backends looked at per tick: bounds the time under the lock. A thousand backends take 1.6 s at ten ticks a second.
const PATROL_STEP: usize = 64;

/// Backends closed for age per tick, so that a lowered limit does not close, and replace, everything at once.
const EXPIRIES_MAX: usize = 4;

impl<B> Core<B> {
    /// Fails waiters whose time is up or whose endpoint stays down, dials where a back-off is over, closes idle backends of old age.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Command<B>>) {
        self.fail_waiters_of_down_endpoints(now, out);
        self.fail_waiters_past_their_time(now, out);
        self.serve(None, now, out);
        self.patrol(now, out);
    }

    fn fail_waiters_of_down_endpoints(&mut self, now: Instant, out: &mut Vec<Command<B>>) {
        for i in (0..self.total.hungry.len()).rev() {
            let pool = self.total.hungry[i];
            let database = &self.databases[self.pools[pool].database];
            let connect_timeout = database.limits.connect_timeout;
            if let Some(down) = database.health.down_since()
                && !database.is_paused
            {
                let is_due = |since: Instant| now >= since.max(down) + connect_timeout;
                self.fail_waiters(pool, WaitError::EndpointDown, is_due, out);
            }
        }
    }

    /// All waiters of a pool wait equally long, so the first in line is the first whose time is up: no timer for each.
    fn fail_waiters_past_their_time(&mut self, now: Instant, out: &mut Vec<Command<B>>) {
        for i in (0..self.total.hungry.len()).rev() {
            let pool = self.total.hungry[i];
            if let Some(wait_timeout) = self.pools[pool].limits.wait_timeout {
                self.fail_waiters(pool, WaitError::TimedOut, |since| now >= since + wait_timeout, out);
            }
        }
    }

    fn patrol(&mut self, now: Instant, out: &mut Vec<Command<B>>) {
        let mut expiries = 0;
        for _ in 0..PATROL_STEP.min(self.patrol.len()) {
            let Some(slot) = self.patrol.pop_front() else {
                return;
            };
            if !self.slots.contains_key(slot) {
                continue;
            }
            self.patrol.push_back(slot);
            if self.is_too_old(slot, now) {
                // ## Idle => Closing: old age
                self.close_idle(slot, out);
                expiries += 1;
                if expiries == EXPIRIES_MAX {
                    return;
                }
            }
        }
    }

    fn is_too_old(&self, id: SlotId, now: Instant) -> bool {
        let slot = &self.slots[id];
        let State::Idle { since, .. } = slot.state else {
            return false;
        };
        let idle_timeout = self.pools[slot.pool].limits.idle_timeout;
        idle_timeout.is_some_and(|timeout| now >= since + timeout.mul_f64(slot.spread)) || self.is_spent(id, now)
    }
}
