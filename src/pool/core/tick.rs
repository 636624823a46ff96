//! The work that is due because time passes. The shell calls it about ten times a second.

use std::cmp::Reverse;
use std::time::Duration;

use tokio::time::Instant;

use super::queue_id::LineId;
use super::slot::SlotState;
use super::waiter::{Notice, Turn, WaiterState};
use super::{Bottleneck, Command, Core, PoolId, SlotId, WaitError};
use crate::admission::limiter::LimiterState;

/// Backends looked at per tick: bounds the time under the lock. A thousand backends take 1.6 s at ten ticks a second.
const IDLE_SCAN_STEP: usize = 64;

/// Backends closed for age per tick, so that a lowered limit does not close, and replace, everything at once.
const EXPIRIES_MAX: usize = 4;

impl<B> Core<B> {
    /// Fails waiters whose time is up or whose endpoint stays down, admits waiters as a growing limit allows, dials
    /// where a back-off is over, also for nobody, or a pool has too few backends, closes idle ones of old age.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Command<B>>) {
        self.tick_readers(now, out);
        self.fail_waiters_of_down_endpoints(now, out);
        self.fail_waiters_past_their_time(now, out);
        self.tell_refused(now, out);
        self.wake_for_notices(now, out);
        for role_queue in self.role_queues.values_mut() {
            role_queue.limiter.tick(now);
            if let Some(shadow) = &mut role_queue.shadow {
                shadow.tick(now);
            }
        }
        self.serve_role_queues(now, out);
        self.serve(None, now, out);
        self.probe(now, out);
        self.warm_up(now, out);
        self.scan_idle(now, out);
    }

    fn fail_waiters_of_down_endpoints(&mut self, now: Instant, out: &mut Vec<Command<B>>) {
        for i in (0..self.total.hungry.len()).rev() {
            let pool = self.total.hungry[i];
            let database = &self.databases[self.pools[pool].database];
            let connect_timeout = database.limits.connect_timeout;
            if let Some(down) = database.down_since()
                && !database.stops.is_any()
                && now >= down + connect_timeout
            {
                let is_due = |waiter: &WaiterState| now >= waiter.since.max(down) + connect_timeout;
                let error = if database.readers.is_some() { WaitError::NoReader } else { WaitError::EndpointDown };
                self.fail_waiters(pool, error, is_due, out);
            }
        }
    }

    /// Fails waiters without a timer for each: those whose time is up are among the first batches.
    fn fail_waiters_past_their_time(&mut self, now: Instant, out: &mut Vec<Command<B>>) {
        for i in (0..self.total.hungry.len()).rev() {
            let id = self.total.hungry[i];
            let pool = &self.pools[id];
            let lines: Vec<LineId> = pool.queue.all().map(|(line, _)| line).collect();
            for line in lines {
                self.fail_line_past_its_time(id, line, now, out);
            }
        }
    }

    fn fail_line_past_its_time(&mut self, id: PoolId, line: LineId, now: Instant, out: &mut Vec<Command<B>>) {
        let Some(wait_timeout) = self.wait_timeout(id, line) else { return };
        let bottleneck = self.bottleneck(id, line, now);
        let spread_max = self.limiter(id, line).map_or(Duration::ZERO, |limiter| limiter.rules().spread_max);
        let may_hold = |opened: Instant| now + spread_max >= opened + wait_timeout.mul_f64(0.9);
        let is_due = |waiter: &WaiterState| now >= waiter.since + wait_timeout.mul_f64(waiter.patience);
        let timed_out = self.fail_line(id, line, WaitError::TimedOut(bottleneck), may_hold, is_due, out);
        if let Some(limiter) = self.limiter(id, line) {
            limiter.counters().timed_out += timed_out;
        }
    }

    fn bottleneck(&self, pool: PoolId, line: LineId, now: Instant) -> Bottleneck {
        if self.databases[self.pools[pool].database].stops.is_unproved {
            return Bottleneck::Unproved;
        }
        if line.is_some_and(|lane| self.lane_permits(pool, lane, now) == 0) {
            return Bottleneck::Lane;
        }
        let Some(role_queue) = self.pools[pool].role_queue else { return Bottleneck::Pool };
        let limiter = &self.role_queues[role_queue].limiter;
        match limiter.view(now).state {
            LimiterState::Closed => Bottleneck::Closed,
            _ if limiter.permits(self.pools[pool].limits.lease_scope, now) == 0 => Bottleneck::Role,
            _ => Bottleneck::Pool,
        }
    }

    fn tell_refused(&mut self, now: Instant, out: &mut Vec<Command<B>>) {
        while let Some(Reverse((at, ticket))) = self.refused.peek().copied()
            && at <= now
        {
            self.refused.pop();
            let Some(waiter) = self.waiters.get_mut(ticket) else { continue };
            if let Turn::Refused(error, waker) = &waiter.turn {
                out.push(Command::Wake(waker.clone()));
                waiter.turn = Turn::Failed(*error);
            }
        }
    }

    fn wake_for_notices(&mut self, now: Instant, out: &mut Vec<Command<B>>) {
        for id in &self.total.hungry {
            let pool = &self.pools[*id];
            let notice_after =
                pool.role_queue.map(|role_queue| self.role_queues[role_queue].limiter.rules().notice_after);
            let Some(notice_after) = notice_after.filter(|after| !after.is_zero()) else { continue };
            let Some(then) = now.checked_sub(notice_after) else { continue };
            for ticket in pool.queue.joined_by(then) {
                if let Some(waiter) = self.waiters.get_mut(ticket)
                    && let Turn::Waiting(waker) = &waiter.turn
                    && waiter.since <= then
                    && waiter.notice == Notice::Untold
                {
                    waiter.notice = Notice::Due;
                    out.push(Command::Wake(waker.clone()));
                }
            }
        }
    }

    fn scan_idle(&mut self, now: Instant, out: &mut Vec<Command<B>>) {
        let mut expiries = 0;
        for _ in 0..IDLE_SCAN_STEP.min(self.idle_scan.len()) {
            let Some(slot) = self.idle_scan.pop_front() else {
                return;
            };
            if !self.slots.contains_key(slot) {
                continue;
            }
            self.idle_scan.push_back(slot);
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
        let SlotState::Idle { since, .. } = slot.state else {
            return false;
        };
        let pool = &self.pools[slot.pool];
        let has_idled = pool.limits.idle_timeout.is_some_and(|timeout| now >= since + timeout.mul_f64(slot.spread));
        has_idled && !pool.is_barely_warm() || self.is_spent(id, now)
    }
}
