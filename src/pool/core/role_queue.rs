//! Role queues: one role over all its databases, with the limiter that bounds how many of its backends may be with
//! clients at once.
//!
//! A permit is a mark on a slot, held from the moment it is promised to a waiter or leased until it is given back or
//! its socket is really closed: the limiter counts busy backends, not requests.

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::lane_rules::LaneState;
use super::queue_id::{LineId, RoleQueueId};
use super::slot::SlotState;
use super::waiter::{TicketQueue, Turn};
use super::{Command, Core, PoolId, SlotId};
use crate::admission::fleet_share::FleetShare;
use crate::admission::limiter::{LimiterView, Pace, RoleLimiter};
use crate::admission::shadow::{ObservedCounts, Shadow};
use crate::config::RoleQueueSettings;

#[derive(Debug)]
pub(super) struct RoleQueue {
    pub(super) limiter: RoleLimiter,
    /// Its pools; of a lane, those in which somebody of it waits.
    pub(super) pools: Vec<PoolId>,
    is_removed: bool,
    /// It is a lane.
    pub(super) lane: Option<LaneState>,
    /// It only observes.
    pub(super) shadow: Option<Box<Shadow<SlotId>>>,
}

/// One role queue at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleQueueView {
    pub limiter: LimiterView,
    /// What its limit would do, if it only observes: the limiter as it would be, and counts.
    pub observed: Option<(LimiterView, ObservedCounts)>,
    /// When the first waiter in any of its queues came.
    pub waiting_since: Option<Instant>,
}

impl RoleQueue {
    /// Takes another part of the fleet's limit.
    pub(super) fn set_share(&mut self, share: FleetShare, lapses: Option<Instant>, now: Instant) {
        self.limiter.set_share(share, lapses, now);
        if let Some(shadow) = &mut self.shadow {
            shadow.set_share(share, lapses, now);
        }
    }
}

impl<B> Core<B> {
    /// Adds a role; its limit grows by its ramp from now on.
    pub fn add_role_queue(&mut self, rules: RoleQueueSettings, now: Instant) -> RoleQueueId {
        let limiter = RoleLimiter::new(if rules.observes { rules.let_go() } else { rules.clone() }, now);
        let shadow = rules.observes.then(|| Box::new(Shadow::new(rules, false, now)));
        let mut queue = RoleQueue { limiter, pools: Vec::new(), is_removed: false, lane: None, shadow };
        // Its id is not known to anybody so far.
        queue.set_share(self.parts.general, self.parts.lapses, now);
        self.role_queues.insert(queue)
    }

    /// Changes a role's rules. Raising a limit admits at once; lowering one drains.
    pub fn set_role_queue(
        &mut self,
        role_queue: RoleQueueId,
        rules: RoleQueueSettings,
        now: Instant,
        out: &mut Vec<Command<B>>,
    ) {
        let Some(changed) = self.role_queues.get_mut(role_queue) else { return };
        changed.shadow = match (rules.observes, changed.shadow.take()) {
            (false, _) => None,
            (true, None) => Some(Box::new(Shadow::new(rules.clone(), false, now))),
            (true, Some(mut shadow)) => {
                shadow.set(rules.clone(), false, now);
                Some(shadow)
            }
        };
        let rules = if rules.observes { rules.let_go() } else { rules };
        self.change_limiter(role_queue, now, out, |limiter| limiter.set(rules, now));
    }

    /// `LIMIT`: another limit than the configured one, at once or over some time; given at `began`, here or elsewhere.
    pub fn limit_role_queue(
        &mut self,
        role_queue: RoleQueueId,
        (max, over): (Option<u32>, Option<Duration>),
        began: Instant,
        now: Instant,
        out: &mut Vec<Command<B>>,
    ) {
        self.change_limiter(role_queue, now, out, |limiter| limiter.set_limit(max, over, began));
    }

    /// `LIMIT … DEFAULT`: back to the configured limit.
    pub fn unlimit_role_queue(&mut self, role_queue: RoleQueueId, now: Instant, out: &mut Vec<Command<B>>) {
        self.change_limiter(role_queue, now, out, RoleLimiter::reset_limit);
    }

    /// `RAMP`: from `admission.initial` to the limit over this time, if there is a limit to grow to; given at `began`.
    pub fn ramp_role_queue(
        &mut self,
        role_queue: RoleQueueId,
        over: Duration,
        began: Instant,
        now: Instant,
        out: &mut Vec<Command<B>>,
    ) {
        self.change_limiter(role_queue, now, out, |limiter| limiter.ramp_over(over, began));
    }

    /// Its clients are much of a lock convoy. Returns the effective limit if it became lower.
    pub fn tighten_role_queue(&mut self, role_queue: RoleQueueId, now: Instant) -> Option<u32> {
        self.role_queues.get_mut(role_queue)?.limiter.tighten(now)
    }

    /// The role left the configuration. The id ends with its last pool.
    pub fn remove_role_queue(&mut self, role_queue: RoleQueueId) {
        if let Some(removed) = self.role_queues.get_mut(role_queue) {
            removed.is_removed = true;
            self.bury_role_queue(role_queue);
        }
    }

    /// Forgets a role that no pool belongs to and of which there is nothing to remember. True if it is gone.
    pub fn forget_role_queue(&mut self, role_queue: RoleQueueId) -> bool {
        let is_unused = |role_queue: &RoleQueue| role_queue.pools.is_empty() && role_queue.limiter.is_as_configured();
        if self.role_queues.get(role_queue).is_some_and(is_unused) {
            self.role_queues.remove(role_queue);
        }
        !self.role_queues.contains_key(role_queue)
    }

    /// One role queue, unless it is gone.
    pub fn role_queue(&self, role_queue: RoleQueueId, now: Instant) -> Option<RoleQueueView> {
        let line = self.line_of(role_queue);
        let role_queue = self.role_queues.get(role_queue)?;
        let waiting_since = role_queue.pools.iter().filter_map(|pool| self.pools[*pool].queue.first_of(line)).min();
        let observed = role_queue.shadow.as_ref().map(|shadow| (shadow.view(now), shadow.counts()));
        Some(RoleQueueView { limiter: role_queue.limiter.view(now), observed, waiting_since })
    }

    /// The queue of the role that a pool belongs to, or of this lane: its length, and the expected wait of a newcomer,
    /// if it is known.
    pub fn depth(&self, pool: PoolId, lane: Option<RoleQueueId>, now: Instant) -> Option<(u32, Option<Duration>)> {
        let role_queue = || self.pools.get(pool)?.role_queue;
        let limiter = &self.role_queues.get(lane.or_else(role_queue)?)?.limiter;
        Some((limiter.waiting(), limiter.expected_wait(now)))
    }

    pub(super) fn change_limiter(
        &mut self,
        role_queue: RoleQueueId,
        now: Instant,
        out: &mut Vec<Command<B>>,
        change: impl FnOnce(&mut RoleLimiter),
    ) {
        self.change_role_queue(role_queue, now, out, |queue| change(&mut queue.limiter));
    }

    pub(super) fn change_role_queue(
        &mut self,
        role_queue: RoleQueueId,
        now: Instant,
        out: &mut Vec<Command<B>>,
        change: impl FnOnce(&mut RoleQueue),
    ) {
        if let Some(changed) = self.role_queues.get_mut(role_queue) {
            change(changed);
            self.serve_role_queue(role_queue, now, out);
        }
    }

    /// The limiter that a line of this pool waits for first: of its lane, or of the pool's role.
    pub(super) fn limiter(&mut self, pool: PoolId, line: LineId) -> Option<&mut RoleLimiter> {
        Some(&mut self.role_queues.get_mut(line.or(self.pools[pool].role_queue)?)?.limiter)
    }

    /// Its limit is the fleet's: that of every role, and of lanes in the file.
    pub(super) fn is_of_fleet(&self, id: RoleQueueId) -> bool {
        let lane = self.role_queues.get(id).and_then(|queue| queue.lane.as_ref());
        lane.is_none_or(|lane| lane.rules.is_of_fleet)
    }

    /// The lines of a role queue: of a lane its own, of a role those in no lane.
    fn line_of(&self, id: RoleQueueId) -> LineId {
        self.role_queues.get(id).is_some_and(|queue| queue.lane.is_some()).then_some(id)
    }

    /// How long a waiter of this line may wait.
    pub(super) fn wait_timeout(&self, pool: PoolId, line: LineId) -> Option<Duration> {
        let of_lane = line.and_then(|lane| self.role_queues.get(lane)?.lane.as_ref()?.rules.wait_timeout);
        of_lane.or(self.pools[pool].limits.wait_timeout)
    }

    /// The endpoint is back: every role that uses it comes in slowly.
    pub(super) fn restart_role_queues(&mut self, pools: &[PoolId], now: Instant) {
        for pool in pools {
            if let Some(limiter) = self.limiter(*pool, None) {
                limiter.restart(now);
            }
        }
    }

    /// The slot's backend goes to a client: from now on it holds a permit of its role, and of the client's lane.
    #[inline]
    pub(super) fn enter(&mut self, id: SlotId, lane: Option<RoleQueueId>, has_waited: bool, now: Instant) {
        let slot = &mut self.slots[id];
        slot.entered = Some(now);
        slot.lane = lane;
        if let Some(lane) = lane.and_then(|lane| self.role_queues.get_mut(lane)) {
            lane.limiter.started(has_waited, now);
            if let Some(shadow) = &mut lane.shadow {
                let of_lane = lane.lane.as_ref().and_then(|lane| lane.rules.wait_timeout);
                shadow.begins(id, of_lane.or(self.pools[slot.pool].limits.wait_timeout), now);
            }
        }
        if let Some(role_queue) = slot.role_queue {
            let role_queue = &mut self.role_queues[role_queue];
            role_queue.limiter.started(has_waited, now);
            if let Some(shadow) = &mut role_queue.shadow {
                shadow.begins(id, self.pools[slot.pool].limits.wait_timeout, now);
            }
        }
    }

    /// The slot gives its permits back, if it has any. Returns the lane whose waiters may be in other pools.
    #[inline]
    pub(super) fn leave(&mut self, id: SlotId, outcome: LeaseEnd, now: Instant) -> Option<RoleQueueId> {
        let slot = &mut self.slots[id];
        let entered = slot.entered.take()?;
        let end = |queue: &mut RoleQueue| {
            match outcome {
                LeaseEnd::Served => queue.limiter.completed(entered, now),
                LeaseEnd::Lost => queue.limiter.ended(now),
            }
            if let Some(shadow) = &mut queue.shadow {
                shadow.ends(id, now);
            }
        };
        let lane = slot.lane.take();
        if let Some(lane) = lane.and_then(|lane| self.role_queues.get_mut(lane)) {
            end(lane);
        }
        if let Some(role_queue) = slot.role_queue {
            end(&mut self.role_queues[role_queue]);
        }
        lane
    }

    /// A permit of this lane is free, and its pool has been served.
    pub(super) fn serve_lane(&mut self, lane: Option<RoleQueueId>, now: Instant, out: &mut Vec<Command<B>>) {
        if let Some(lane) = lane {
            self.serve_role_queue(lane, now, out);
        }
    }

    /// Hands idle backends to the role's waiters as far as permits go.
    pub(super) fn hand_out(&mut self, role_queue: RoleQueueId, now: Instant, out: &mut Vec<Command<B>>) {
        let Some(served) = self.role_queues.get(role_queue).filter(|role_queue| role_queue.limiter.has_waiters())
        else {
            return;
        };
        for i in 0..served.pools.len() {
            self.join_due(self.role_queues[role_queue].pools[i], now, out);
        }
        let mut held_up = SmallVec::<[PoolId; 4]>::new();
        while let Some(pool) = self.next_in_role_queue(role_queue, &held_up, now) {
            if !self.hand_next(pool, 0, now, out) {
                held_up.push(pool);
            }
        }
    }

    /// Hands out idle backends, and dials for the rest. Not where a slot has just become free: it may be owed to
    /// others.
    fn serve_role_queue(&mut self, role_queue: RoleQueueId, now: Instant, out: &mut Vec<Command<B>>) {
        self.hand_out(role_queue, now, out);
        for i in 0..self.role_queues.get(role_queue).map_or(0, |role_queue| role_queue.pools.len()) {
            let pool = self.role_queues[role_queue].pools[i];
            if self.ready(pool, now) > 0 {
                self.serve_newcomer(pool, now, out);
            }
        }
    }

    /// As [`Self::serve_role_queue`], for the queue in which the pool's waiters wait.
    pub(super) fn serve_lines(&mut self, pool: PoolId, worker: usize, now: Instant, out: &mut Vec<Command<B>>) {
        match self.pools[pool].role_queue {
            // The usual case: a role with one database.
            Some(role_queue) if self.role_queues[role_queue].pools.len() > 1 => {
                self.serve_role_queue(role_queue, now, out)
            }
            _ => {
                self.join_due(pool, now, out);
                while self.hand_next(pool, worker, now, out) {}
                if self.ready(pool, now) > 0 {
                    self.serve_newcomer(pool, now, out);
                }
            }
        }
    }

    fn is_servable(&self, id: PoolId, now: Instant) -> bool {
        let pool = &self.pools[id];
        pool.counts.idle > 0 && !self.databases[pool.database].stops.is_any() && self.ready(id, now) > 0
    }

    /// Whether the role of a pool lets one more start.
    fn is_permitted(&self, pool: PoolId, now: Instant) -> bool {
        let pool = &self.pools[pool];
        let limiter = pool.role_queue.map(|role_queue| &self.role_queues[role_queue].limiter);
        limiter.is_none_or(|limiter| limiter.permits(pool.limits.lease_scope, now) > 0)
    }

    /// Among the role's pools that have a backend to give and a permit for it, the one whose first waiter came first.
    /// `held_up`: those that rates hold up.
    fn next_in_role_queue(&self, id: RoleQueueId, held_up: &[PoolId], now: Instant) -> Option<PoolId> {
        let pools = self.role_queues.get(id)?.pools.iter().copied().filter(|pool| !held_up.contains(pool));
        let is_lane = self.line_of(id).is_some();
        let may = |pool: &PoolId| {
            let is_ready = !is_lane || self.lane_permits(*pool, id, now) > 0;
            is_ready && self.is_servable(*pool, now) && self.is_permitted(*pool, now)
        };
        pools.filter(may).min_by_key(|pool| self.servable_since(*pool, now))
    }

    /// Hands one idle backend of the pool to the next in its queue.
    fn hand_next(&mut self, pool_id: PoolId, worker: usize, now: Instant, out: &mut Vec<Command<B>>) -> bool {
        if !self.is_servable(pool_id, now) || !self.is_permitted(pool_id, now) {
            return false;
        }
        let Some(line) = self.take_turn(pool_id, now, out) else { return false };
        let waited = self.pools[pool_id].queue.first_of(line).map_or(Duration::ZERO, |since| now - since);
        if let Some(limiter) = self.limiter(pool_id, None)
            && let Pace::NotBefore(then) = limiter.pace(waited, now)
        {
            self.wake_at(then, out);
            return false;
        }
        while let Some(slot) = self.next_idle(pool_id, worker, now) {
            let backend = self.take(slot);
            if self.is_spent(slot, now) {
                self.close(slot, backend, out);
                continue;
            }
            // ## Idle => Handed
            self.change(slot, SlotState::Handed { backend });
            let popped = self.pop_waiter(pool_id, line, self.slots[slot].worker, Turn::Handed(slot));
            self.enter(slot, popped.as_ref().and_then(|(_, lane)| *lane), true, now);
            out.extend(popped.map(|(waker, _)| Command::Wake(waker)));
            return true;
        }
        false
    }

    /// Waiters whose own moment has come join the queue.
    fn join_due(&mut self, pool: PoolId, now: Instant, out: &mut Vec<Command<B>>) {
        let has_held = |queue: &TicketQueue| queue.next_held().is_some();
        let held: SmallVec<[LineId; 2]> =
            self.pools[pool].queue.all().filter(|(_, queue)| has_held(queue)).map(|(line, _)| line).collect();
        held.into_iter().for_each(|line| self.join_line(pool, line, now, out));
    }

    fn join_line(&mut self, pool: PoolId, line: LineId, now: Instant, out: &mut Vec<Command<B>>) {
        let window = self.limiter(pool, line).map_or(Duration::ZERO, |limiter| limiter.rules().jitter_window);
        let (queue, waiters) = (self.pools[pool].queue.line_mut(line), &mut self.waiters);
        while let Some(ticket) =
            queue.pop_held(now, |ticket| waiters.get(ticket).is_some_and(|waiter| waiter.turn.is_waiting()))
        {
            let batch = queue.join(ticket, now, window, false);
            waiters[ticket].batch = Some(batch);
        }
        if let Some(then) = queue.next_held() {
            self.wake_at(then, out);
        }
    }

    /// Has the shell call [`Self::alarm`] at `then`, unless it will do so earlier anyway.
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
            self.serve_role_queues(now, out);
        }
    }

    pub(super) fn serve_role_queues(&mut self, now: Instant, out: &mut Vec<Command<B>>) {
        let waiting: Vec<_> = self
            .role_queues
            .iter()
            .filter(|(_, role_queue)| role_queue.limiter.has_waiters())
            .map(|(id, _)| id)
            .collect();
        for role_queue in waiting {
            self.serve_role_queue(role_queue, now, out);
        }
    }

    pub(super) fn leave_role_queue(&mut self, pool: PoolId) {
        if let Some(role_queue) = self.pools[pool].role_queue {
            self.role_queues[role_queue].pools.retain(|other| *other != pool);
            self.bury_role_queue(role_queue);
        }
    }

    pub(super) fn bury_role_queue(&mut self, role_queue: RoleQueueId) {
        let is_over = |queue: &RoleQueue| queue.is_removed && queue.pools.is_empty();
        if self.role_queues.get(role_queue).is_some_and(is_over) {
            self.role_queues.remove(role_queue);
        }
    }
}

/// How a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaseEnd {
    /// The backend came back.
    Served,
    /// It was never picked up, or it is gone.
    Lost,
}
