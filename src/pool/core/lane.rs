//! Lanes: one role over all its databases, with the limiter that says how many of its backends may be with clients at once.
//!
//! A permit is a mark on a slot, held from the moment it is promised to a waiter or leased until it is given back or its
//! socket is really closed: the limiter counts what is busy, not what somebody asked for.

use std::time::Duration;

use slotmap::new_key_type;
use tokio::time::Instant;

use super::line::Turn;
use super::slot::State;
use super::{Command, Core, PoolId, SlotId};
use crate::admission::limiter::{Pace, RoleLimiter, View};
use crate::config::LaneSettings;

new_key_type! {
    /// Names a lane.
    pub struct LaneId;
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) limiter: RoleLimiter,
    pub(super) pools: Vec<PoolId>,
    is_removed: bool,
}

/// One lane at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneView {
    /// Its limiter.
    pub limiter: View,
    /// When the first in any of its lines came.
    pub waiting_since: Option<Instant>,
}

impl<B> Core<B> {
    /// Adds a role; its limit grows by its ramp from now on.
    pub fn add_lane(&mut self, rules: LaneSettings, now: Instant) -> LaneId {
        self.lanes.insert(Lane { limiter: RoleLimiter::new(rules, now), pools: Vec::new(), is_removed: false })
    }

    /// Changes a role's rules. Raising a limit admits at once; lowering one drains.
    pub fn set_lane(&mut self, lane: LaneId, rules: LaneSettings, now: Instant, out: &mut Vec<Command<B>>) {
        self.change_limiter(lane, now, out, |limiter| limiter.set(rules, now));
    }

    /// `LIMIT`: another limit than the configured one, at once or over some time.
    pub fn limit_lane(
        &mut self,
        lane: LaneId,
        max: Option<u32>,
        over: Option<Duration>,
        now: Instant,
        out: &mut Vec<Command<B>>,
    ) {
        self.change_limiter(lane, now, out, |limiter| limiter.set_limit(max, over, now));
    }

    /// `LIMIT … DEFAULT`: back to the configured limit.
    pub fn unlimit_lane(&mut self, lane: LaneId, now: Instant, out: &mut Vec<Command<B>>) {
        self.change_limiter(lane, now, out, RoleLimiter::reset_limit);
    }

    /// `RAMP`: from `admission.initial` to the limit over this time, if there is a limit to grow to.
    pub fn ramp_lane(&mut self, lane: LaneId, over: Duration, now: Instant, out: &mut Vec<Command<B>>) {
        self.change_limiter(lane, now, out, |limiter| limiter.ramp_over(over, now));
    }

    /// Its clients are much of a lock convoy. Returns the effective limit if that became lower.
    pub fn tighten_lane(&mut self, lane: LaneId, now: Instant) -> Option<u32> {
        self.lanes.get_mut(lane)?.limiter.tighten(now)
    }

    /// The role left the configuration. The id ends with its last pool.
    pub fn remove_lane(&mut self, lane: LaneId) {
        if let Some(removed) = self.lanes.get_mut(lane) {
            removed.is_removed = true;
            self.bury_lane(lane);
        }
    }

    /// Forgets a role that no pool is of and of which there is nothing to remember. True if it is gone.
    pub fn forget_lane(&mut self, lane: LaneId) -> bool {
        let is_unused = |lane: &Lane| lane.pools.is_empty() && lane.limiter.is_as_configured();
        if self.lanes.get(lane).is_some_and(is_unused) {
            self.lanes.remove(lane);
        }
        !self.lanes.contains_key(lane)
    }

    /// One lane, unless it is gone.
    pub fn lane(&self, lane: LaneId, now: Instant) -> Option<LaneView> {
        let lane = self.lanes.get(lane)?;
        let waiting_since = lane.pools.iter().filter_map(|pool| self.pools[*pool].line.first_since()).min();
        Some(LaneView { limiter: lane.limiter.view(now), waiting_since })
    }

    /// The line of the role that a pool belongs to: its length, and how long it would take a newcomer, if that is known.
    pub fn line(&self, pool: PoolId, now: Instant) -> Option<(u32, Option<Duration>)> {
        let limiter = &self.lanes[self.pools.get(pool)?.lane?].limiter;
        Some((limiter.waiting(), limiter.expected_wait(now)))
    }

    fn change_limiter(
        &mut self,
        lane: LaneId,
        now: Instant,
        out: &mut Vec<Command<B>>,
        change: impl FnOnce(&mut RoleLimiter),
    ) {
        if let Some(changed) = self.lanes.get_mut(lane) {
            change(&mut changed.limiter);
            self.serve_lane(lane, now, out);
        }
    }

    pub(super) fn limiter(&mut self, pool: PoolId) -> Option<&mut RoleLimiter> {
        Some(&mut self.lanes[self.pools[pool].lane?].limiter)
    }

    /// The endpoint is back: every role that uses it comes in slowly.
    pub(super) fn restart_lanes(&mut self, pools: &[PoolId], now: Instant) {
        for pool in pools {
            if let Some(limiter) = self.limiter(*pool) {
                limiter.restart(now);
            }
        }
    }

    /// The slot's backend goes to a client: from now on it holds a permit.
    #[inline]
    pub(super) fn enter(&mut self, slot: SlotId, has_waited: bool, now: Instant) {
        let slot = &mut self.slots[slot];
        slot.entered = Some(now);
        if let Some(lane) = slot.lane {
            self.lanes[lane].limiter.started(has_waited, now);
        }
    }

    /// The slot gives its permit back, if it has one.
    #[inline]
    pub(super) fn leave(&mut self, slot: SlotId, outcome: Outcome, now: Instant) {
        let slot = &mut self.slots[slot];
        let (Some(lane), Some(entered)) = (slot.lane, slot.entered.take()) else { return };
        let limiter = &mut self.lanes[lane].limiter;
        match outcome {
            Outcome::Served => limiter.completed(entered, now),
            Outcome::Lost => limiter.ended(now),
        }
    }

    /// Hands idle backends to the role's waiters as far as permits go.
    pub(super) fn hand_out(&mut self, lane: LaneId, now: Instant, out: &mut Vec<Command<B>>) {
        let Some(served) = self.lanes.get(lane).filter(|lane| lane.limiter.waiting() > 0) else { return };
        for i in 0..served.pools.len() {
            self.ripen(self.lanes[lane].pools[i], now, out);
        }
        while let Some(pool) = self.next_in_lane(lane, now)
            && self.hand_next(pool, 0, now, out)
        {}
    }

    /// Hands out what is idle, and dials for the rest. Not where a slot has just become free: others may be owed that.
    fn serve_lane(&mut self, lane: LaneId, now: Instant, out: &mut Vec<Command<B>>) {
        self.hand_out(lane, now, out);
        for i in 0..self.lanes.get(lane).map_or(0, |lane| lane.pools.len()) {
            let pool = self.lanes[lane].pools[i];
            if self.pools[pool].line.ready() > 0 {
                self.serve_newcomer(pool, now, out);
            }
        }
    }

    /// As [`Self::serve_lane`], for whatever line the pool's waiters stand in.
    pub(super) fn serve_lines(&mut self, pool: PoolId, worker: usize, now: Instant, out: &mut Vec<Command<B>>) {
        match self.pools[pool].lane {
            // The usual case: a role with one database.
            Some(lane) if self.lanes[lane].pools.len() > 1 => self.serve_lane(lane, now, out),
            _ => {
                self.ripen(pool, now, out);
                while self.hand_next(pool, worker, now, out) {}
                if self.pools[pool].line.ready() > 0 {
                    self.serve_newcomer(pool, now, out);
                }
            }
        }
    }

    fn is_servable(&self, pool: PoolId) -> bool {
        let pool = &self.pools[pool];
        pool.line.ready() > 0 && pool.counts.idle > 0 && !self.databases[pool.database].is_paused
    }

    /// Among the role's pools that have a backend to give and a permit for it, the one whose first waiter came first.
    fn next_in_lane(&self, lane: LaneId, now: Instant) -> Option<PoolId> {
        let Lane { limiter, pools, .. } = &self.lanes[lane];
        let is_permitted = |pool: &PoolId| limiter.permits(self.pools[*pool].limits.tenure, now) > 0;
        let servable = pools.iter().copied().filter(|pool| self.is_servable(*pool) && is_permitted(pool));
        servable.min_by_key(|pool| self.pools[*pool].line.first_since())
    }

    /// Hands one idle backend of the pool to the next in its line.
    fn hand_next(&mut self, pool_id: PoolId, worker: usize, now: Instant, out: &mut Vec<Command<B>>) -> bool {
        if !self.is_servable(pool_id) {
            return false;
        }
        let waited = self.pools[pool_id].line.first_since().map_or(Duration::ZERO, |since| now - since);
        let tenure = self.pools[pool_id].limits.tenure;
        if let Some(limiter) = self.limiter(pool_id) {
            if limiter.permits(tenure, now) == 0 {
                return false;
            }
            if let Pace::NotBefore(then) = limiter.pace(waited, now) {
                self.wake_at(then, out);
                return false;
            }
        }
        while let Some(slot) = self.pools[pool_id].take_idle(worker) {
            let backend = self.take(slot);
            if self.is_spent(slot, now) {
                self.close(slot, backend, out);
                continue;
            }
            // ## Idle => Handed
            self.change(slot, State::Handed { backend });
            self.enter(slot, true, now);
            let waker = self.draw(pool_id, Turn::Handed(slot));
            out.extend(waker.map(Command::Wake));
            return true;
        }
        false
    }

    /// Those whose own moment has come join the line.
    fn ripen(&mut self, pool: PoolId, now: Instant, out: &mut Vec<Command<B>>) {
        if self.pools[pool].line.next_ripe().is_none() {
            return;
        }
        let window = self.limiter(pool).map_or(Duration::ZERO, |limiter| limiter.rules().jitter_window);
        let (line, waiters) = (&mut self.pools[pool].line, &mut self.waiters);
        while let Some(ticket) =
            line.ripe(now, |ticket| waiters.get(ticket).is_some_and(|waiter| waiter.turn.is_waiting()))
        {
            let batch = line.join(ticket, now, window, false);
            waiters[ticket].batch = Some(batch);
        }
        if let Some(then) = line.next_ripe() {
            self.wake_at(then, out);
        }
    }

    /// Has the shell call [`Self::alarm`] then, unless it will earlier anyway.
    pub(super) fn wake_at(&mut self, then: Instant, out: &mut Vec<Command<B>>) {
        if self.alarm.is_none_or(|alarm| then < alarm) {
            self.alarm = Some(then);
            out.push(Command::Alarm(then));
        }
    }

    /// A moment that [`Command::Alarm`] named has come.
    pub fn alarm(&mut self, now: Instant, out: &mut Vec<Command<B>>) {
        if self.alarm.is_some_and(|alarm| alarm <= now) {
            self.alarm = None;
            self.serve_lanes(now, out);
        }
    }

    pub(super) fn serve_lanes(&mut self, now: Instant, out: &mut Vec<Command<B>>) {
        let waiting: Vec<_> =
            self.lanes.iter().filter(|(_, lane)| lane.limiter.waiting() > 0).map(|(id, _)| id).collect();
        for lane in waiting {
            self.serve_lane(lane, now, out);
        }
    }

    pub(super) fn leave_lane(&mut self, pool: PoolId) {
        if let Some(lane) = self.pools[pool].lane {
            self.lanes[lane].pools.retain(|other| *other != pool);
            self.bury_lane(lane);
        }
    }

    fn bury_lane(&mut self, lane: LaneId) {
        if self.lanes[lane].is_removed && self.lanes[lane].pools.is_empty() {
            self.lanes.remove(lane);
        }
    }
}

/// How a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The backend came back.
    Served,
    /// It was never picked up, or it is gone.
    Lost,
}
