//! Lanes: transactions of one kind, over all pools, with a limiter of their own beside that of their role.
//!
//! A lane has what a role has: a limiter that is asked when a backend is at hand, and waiters that stand in the queues
//! of their pools, each in the line of its lane. So a wait for the lane, for the role and for a backend is one wait,
//! with one deadline, and a permit of a lane, too, is held for as long as the backend is with the client.

use std::time::Duration;

use tokio::time::Instant;

use super::lane_rules::{LaneRules, LaneState};
use super::queue_id::{LineId, RoleQueueId};
use super::role_queue::RoleQueue;
use super::{Command, Core, PoolId, WaitError};
use crate::admission::limiter::{LeaseScope, LimiterView, Pace};
use crate::config::RoleQueueSettings;

impl<B> Core<B> {
    /// Adds a lane. Its id is that of a role queue, whose changes it takes, too.
    pub fn add_lane(&mut self, settings: RoleQueueSettings, rules: LaneRules, now: Instant) -> RoleQueueId {
        let id = self.add_role_queue(settings, now);
        let lane = &mut self.role_queues[id];
        if !rules.is_of_fleet {
            lane.limiter.set_share(Default::default(), None, now);
        }
        lane.lane = Some(LaneState { rules, paced: None });
        id
    }

    /// Changes the rules of a lane.
    pub fn set_lane(
        &mut self,
        id: RoleQueueId,
        settings: RoleQueueSettings,
        rules: LaneRules,
        now: Instant,
        out: &mut Vec<Command<B>>,
    ) {
        if let Some(changed) = self.role_queues.get_mut(id) {
            changed.lane = Some(LaneState { rules, paced: None });
        }
        self.set_role_queue(id, settings, now, out);
    }

    /// Ends a lane: those who wait in it wait for their role and a backend only.
    pub fn remove_lane(&mut self, id: RoleQueueId, now: Instant, out: &mut Vec<Command<B>>) {
        let Some(removed) = self.role_queues.get_mut(id) else { return };
        removed.lane = Some(LaneState { rules: LaneRules::default(), paced: None });
        removed.limiter.set_share(Default::default(), None, now);
        self.set_role_queue(id, RoleQueueSettings::open(), now, out);
        self.remove_role_queue(id);
    }

    /// A transaction of this lane could start now, or could if the lane did more than observe.
    pub fn has_room_in_lane(&self, id: RoleQueueId, now: Instant) -> bool {
        let may = |limiter: &LimiterView| limiter.waiting == 0 && limiter.active < limiter.effective;
        self.role_queues.get(id).is_none_or(|lane| match &lane.shadow {
            Some(shadow) => may(&shadow.view(now)),
            None => may(&lane.limiter.view(now)),
        })
    }

    /// Whether a newcomer may start at once as far as its lane and its role go.
    pub(super) fn admits_in_lane(&mut self, pool: PoolId, id: RoleQueueId, now: Instant) -> bool {
        let lease_scope = self.pools[pool].limits.lease_scope;
        let role_queue = self.pools[pool].role_queue;
        if !self.role_queues[id].limiter.may_admit(lease_scope, now)
            || role_queue.is_some_and(|role| !self.role_queues[role].limiter.may_admit(lease_scope, now))
        {
            return false;
        }
        // The lane's rate first: a start that it counts and the role's does not allow makes the lane a little slower.
        [Some(id), role_queue].into_iter().flatten().all(|id| {
            let pace = self.role_queues[id].limiter.pace(Duration::ZERO, now);
            !matches!(pace, Pace::NotBefore(_))
        })
    }

    /// The refusal of a newcomer to a lane that lets nobody wait.
    pub(super) fn lane_refusal(&self, id: RoleQueueId, now: Instant) -> Option<WaitError> {
        let RoleQueue { limiter, lane, .. } = &self.role_queues[id];
        let refuses = lane.as_ref().is_some_and(|lane| lane.rules.refuses);
        let waiting = limiter.waiting();
        let has_room = limiter.permits(LeaseScope::Transaction, now) > waiting && !self.is_paced(id, now);
        (refuses && !has_room).then_some(WaitError::LaneFull { waiting })
    }

    fn is_paced(&self, id: RoleQueueId, now: Instant) -> bool {
        let lane = self.role_queues.get(id).and_then(|lane| lane.lane.as_ref());
        lane.is_some_and(|lane| lane.paced.is_some_and(|until| now < until))
    }

    /// Transactions of a lane that may start in this pool now.
    pub(super) fn lane_permits(&self, pool: PoolId, id: RoleQueueId, now: Instant) -> u32 {
        let Some(lane) = self.role_queues.get(id).filter(|_| !self.is_paced(id, now)) else { return 0 };
        lane.limiter.permits(self.pools[pool].limits.lease_scope, now)
    }

    /// Waiters of this pool that could start now as far as their lanes go.
    #[inline]
    pub(super) fn ready(&self, pool: PoolId, now: Instant) -> u32 {
        self.pools[pool].queue.ready(|lane| self.lane_permits(pool, lane, now))
    }

    /// Only waiters whose lanes are full wait in this pool.
    #[cold]
    pub(super) fn is_nobody_due(&self, pool: PoolId, now: Instant) -> bool {
        let own = self.pools[pool].queue.line(None);
        own.is_none_or(|line| line.waiting() == 0) && self.ready(pool, now) == 0
    }

    /// When the first of those came.
    pub(super) fn servable_since(&self, pool: PoolId, now: Instant) -> Option<Instant> {
        self.pools[pool].queue.first_servable(|lane| self.lane_permits(pool, lane, now) > 0)
    }

    /// The line of this pool whose turn it is, with the turn counted. Lanes whose rates hold them up are passed over.
    pub(super) fn take_turn(&mut self, pool: PoolId, now: Instant, out: &mut Vec<Command<B>>) -> Option<LineId> {
        loop {
            let share = |lane: RoleQueueId| {
                let rules = self.role_queues.get(lane)?.lane.as_ref()?.rules;
                (self.lane_permits(pool, lane, now) > 0).then_some(rules.share)
            };
            let line = self.pools[pool].queue.next(share)?;
            let share = line.and_then(share).unwrap_or_default();
            if let Some(id) = line {
                let since = self.pools[pool].queue.first_of(line);
                let waited = since.map_or(Duration::ZERO, |since| now - since);
                let lane = &mut self.role_queues[id];
                if let Pace::NotBefore(then) = lane.limiter.pace(waited, now) {
                    if let Some(lane) = &mut lane.lane {
                        lane.paced = Some(then);
                    }
                    self.wake_at(then, out);
                    continue;
                }
            }
            self.pools[pool].queue.count_turn(line, share);
            return Some(line);
        }
    }
}
