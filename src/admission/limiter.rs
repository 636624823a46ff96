//! One role's limiter: how many of its transactions may be active, and whether the next may start now.
//!
//! The smaller of two limits holds: our part of the operator's (`limit`: configuration, `LIMIT`, `RAMP`) and the one
//! that the server has shown it can take (slow start, or the adaptive limit). The light path is a comparison and a few
//! additions.

#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::Instant;

use super::adaptive::{self, Adaptive};
use super::burst::Burst;
use super::fleet_share::{FleetShare, FleetUse};
use super::limit::Limit;
pub(crate) use super::rate::Pace;
use super::rate::Rate;
use super::slow_start::{self, Baseline, SlowStart};
use super::throughput::Throughput;
use crate::config::{AdmissionMode, Jitter, RateWhen, RoleQueueSettings};
use crate::words::words;

/// A role queue in which nothing ends for this long, or for four times the usual, is stuck: Postgres's default
/// `deadlock_timeout`, after which waiters begin to harm each other.
const STUCK_MIN: f64 = 1.0;

/// This many waiters on one lock freeze nobody (docs/PROTECTION.md).
const HARMLESS: u32 = 100;

/// A full role queue in which nothing has ended for this long gets one more with every tick, up to [`HARMLESS`].
const SILENCE: Duration = Duration::from_secs(1);

/// A role queue is tightened no more often than this, however many watches see the same convoy; and for so long after
/// it nothing but completions makes it wider.
const TIGHTEN_EVERY: Duration = Duration::from_millis(200);
const TIGHT_FOR: Duration = Duration::from_secs(1);

/// With room to spare one of this many transactions is looked at: the light path is a comparison.
const SAMPLE: u64 = 8;

/// A queue whose wait is expected to be this many times `wait_timeout` is not joined.
const SHED_AT: f64 = 1.5;

/// How long a client keeps its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseScope {
    /// To the end of a transaction.
    Transaction,
    /// To the end of its session. Sessions end too late to show what the server can take, so only the limit holds for
    /// them.
    Session,
}

words! {
    /// The condition of the role queue.
    pub enum LimiterState {
        /// Nothing special.
        Calm = "calm",
        /// Far more arrivals than usual, or a deep queue.
        Burst = "burst",
        /// It is full, somebody waits, and nothing ends.
        Stuck = "stuck",
        /// The limit is zero.
        Closed = "closed",
    }
}

words! {
    /// The bound that keeps a role from having more transactions at once.
    pub enum LimitedBy {
        /// The size of its pools, or what bounds them.
        Pool = "pool",
        /// The limit of the file, or that of `LIMIT`.
        Limit = "limit",
        /// The limit, on its way to another.
        Ramp = "ramp",
        /// The part of the limit that this instance has.
        Fleet = "fleet",
        /// Slow start: the server has not shown yet that it takes more.
        SlowStart = "slow_start",
        /// The adaptive limit.
        Adaptive = "adaptive",
        /// The watch, which saw a convoy.
        Watch = "watch",
    }
}

/// Counters of a limiter since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimiterCounters {
    /// Transactions started.
    pub starts: u64,
    /// Of these, without a wait.
    pub immediate: u64,
    /// Refused: the queue was full.
    pub refused_full: u64,
    /// Refused: the wait would have been too long.
    pub refused_shed: u64,
    /// Left the queue after `wait_timeout`.
    pub timed_out: u64,
    /// Bursts begun.
    pub bursts: u64,
    /// Times the role queue was stuck, until something ended.
    pub stuck: u64,
    /// Times the effective limit was lowered.
    pub cuts: u64,
    /// Times the adaptive limit took its cuts back.
    pub reverts: u64,
    /// Starts held up by the rate.
    pub paced: u64,
    /// Starts over the rate, after `rate_delay_max`.
    pub overdue: u64,
    /// Waiters held back by `jitter = "spread"`.
    pub spread: u64,
}

/// A limiter at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimiterView {
    /// Where the limit is or moves to; `None`: the pools bound it.
    pub limit: Option<u32>,
    /// Our part of the limit that holds now.
    pub part: Option<u32>,
    /// The limit that holds now.
    pub effective: u32,
    /// What makes it as low as it is.
    pub limited_by: LimitedBy,
    /// Backends with clients of the role.
    pub active: u32,
    /// Clients waiting.
    pub waiting: u32,
    /// When the limit will have arrived.
    pub moves_until: Option<Instant>,
    /// The condition of the role queue.
    pub state: LimiterState,
    /// Counts since the start.
    pub counters: LimiterCounters,
}

#[derive(Debug)]
enum Width {
    Unbounded,
    SlowStart(SlowStart),
    Adaptive(Box<Adaptive>),
}

impl Width {
    fn new(rules: &RoleQueueSettings, now: Instant) -> Self {
        match (rules.mode, rules.adaptive) {
            (AdmissionMode::Off, _) => Self::Unbounded,
            (AdmissionMode::On, true) => Self::Adaptive(Box::new(Adaptive::new(rules.initial, now))),
            (AdmissionMode::On, false) => Self::SlowStart(SlowStart::new(rules.initial)),
        }
    }

    fn value(&self) -> u32 {
        match self {
            Self::Unbounded => u32::MAX,
            Self::SlowStart(slow_start) => slow_start.width(),
            Self::Adaptive(adaptive) => adaptive.width(),
        }
    }

    fn widen(&mut self) {
        match self {
            Self::Unbounded => {}
            Self::SlowStart(slow_start) => slow_start.widen(),
            Self::Adaptive(adaptive) => adaptive.widen(),
        }
    }

    fn restart(&mut self, initial: u32) {
        match self {
            Self::Unbounded => {}
            Self::SlowStart(slow_start) => slow_start.restart(initial),
            Self::Adaptive(adaptive) => adaptive.restart(initial),
        }
    }

    /// Narrows to `to`, if it is wider and not unbounded. True if it was.
    fn narrow(&mut self, to: u32) -> bool {
        if self.value() <= to {
            return false;
        }
        match self {
            Self::Unbounded => return false,
            Self::SlowStart(slow_start) => slow_start.restart(to),
            Self::Adaptive(adaptive) => adaptive.narrow(to),
        }
        true
    }
}

/// One role's limiter.
#[derive(Debug)]
pub(crate) struct RoleLimiter {
    rules: RoleQueueSettings,
    limit: Limit,
    /// Our part of the limit and the rate, which are the fleet's.
    share: FleetShare,
    /// From then on the share is nothing, also if nobody has come to say so: the process may have stood still.
    share_lapses: Option<Instant>,
    width: Width,
    /// The effective limit while the limit does not move, at hand for the light path.
    settled: u32,
    base: Baseline,
    burst: Burst,
    rate: Option<Rate>,
    throughput: Throughput,
    active: u32,
    waiting: u32,
    /// Clients of the role that wait in lanes.
    beside: u32,
    /// Start of the time with fewer than half of `initial` active.
    quiet_since: Option<Instant>,
    /// When it was last no longer quiet, after having been so for `slow_start_idle`.
    woke: Instant,
    /// When a transaction that was looked at ended last, or when the queue began.
    progressed: Instant,
    /// When any transaction ended last, or one started in an empty role queue.
    ended: Instant,
    /// When [`Self::tighten`] last tightened.
    tightened: Option<Instant>,
    /// The rate holds somebody up who has not started yet.
    is_pacing: bool,
    counters: LimiterCounters,
}

impl RoleLimiter {
    /// A limiter that nobody has passed. Its limit grows by `ramp`, if there is one.
    pub(crate) fn new(rules: RoleQueueSettings, now: Instant) -> Self {
        let mut limiter = Self {
            limit: Limit::new(rules.transactions_max),
            share: FleetShare::All,
            share_lapses: None,
            width: Width::new(&rules, now),
            settled: 0,
            base: Baseline::default(),
            burst: Burst::new(now),
            rate: rules.rate.map(|rate| Rate::new(rate, FleetShare::All, now)),
            throughput: Throughput::default(),
            active: 0,
            waiting: 0,
            beside: 0,
            // The first transaction counts as one after a quiet time.
            quiet_since: now.checked_sub(rules.slow_start_idle).or(Some(now)),
            woke: now,
            progressed: now,
            ended: now,
            tightened: None,
            is_pacing: false,
            counters: LimiterCounters::default(),
            rules,
        };
        limiter.restart(now);
        limiter
    }

    /// The rules in force.
    pub(crate) fn rules(&self) -> &RoleQueueSettings {
        &self.rules
    }

    /// The limit is the configured one: the console has not set another.
    pub(crate) fn is_as_configured(&self) -> bool {
        self.limit.target() == self.rules.transactions_max
    }

    /// Clients waiting, over all pools of the role.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Somebody waits, in lanes or beside them.
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiting + self.beside > 0
    }

    /// Counters, for the caller that fails and refuses waiters to add to.
    pub(crate) fn counters(&mut self) -> &mut LimiterCounters {
        &mut self.counters
    }

    // ---- asking ---------------------------------------------------------------------------------

    /// A transaction wants to start.
    #[inline]
    pub(crate) fn arrived(&mut self, now: Instant) {
        if self.burst.arrived(now) {
            self.counters.bursts += 1;
        }
    }

    /// Whether a newcomer may start at once. If so, it does.
    #[inline]
    pub(crate) fn admits(&mut self, lease_scope: LeaseScope, now: Instant) -> bool {
        self.may_admit(lease_scope, now)
            && (self.rate.is_none() || !matches!(self.pace(Duration::ZERO, now), Pace::NotBefore(_)))
    }

    /// The same without its rate.
    #[inline]
    pub(crate) fn may_admit(&self, lease_scope: LeaseScope, now: Instant) -> bool {
        self.waiting == 0 && self.permits(lease_scope, now) > 0 && !self.is_spreading()
    }

    /// Our part of the operator's limit now; the server may have shown that it can take less.
    pub(crate) fn allowed(&self, now: Instant) -> u32 {
        if self.is_lapsed(now) { 0 } else { self.share.of(self.limit.at(now)) }
    }

    /// The fleet's limit now, and our use of it; `None`: there is none.
    pub(crate) fn fleet_use(&self, now: Instant) -> Option<FleetUse> {
        let limit = self.limit.at(now);
        let (used, waiting) = (self.active, self.waiting);
        (limit != u32::MAX).then(|| FleetUse { limit, cap: self.allowed(now), used, wanted: used + waiting })
    }

    /// Number of transactions that may still start now, as far as the limits go.
    #[inline]
    pub(crate) fn permits(&self, lease_scope: LeaseScope, now: Instant) -> u32 {
        let most = match lease_scope {
            LeaseScope::Transaction => self.effective(now),
            LeaseScope::Session => self.allowed(now),
        };
        most.saturating_sub(self.active)
    }

    /// Whether the head of the queue, which has waited for `waited`, may start as far as the rate goes. The caller has
    /// a permit and starts unless the answer is `NotBefore`.
    #[inline]
    pub(crate) fn pace(&mut self, waited: Duration, now: Instant) -> Pace {
        let Some(rate) = &self.rate else { return Pace::Now };
        if rate.rules().when == RateWhen::Burst && !self.burst.is_on() {
            return Pace::Now;
        }
        let pace = rate.pace(waited, now);
        match pace {
            Pace::NotBefore(_) => self.is_pacing = true,
            Pace::Now | Pace::Overdue => {
                self.counters.paced += u64::from(std::mem::take(&mut self.is_pacing));
                self.counters.overdue += u64::from(pace == Pace::Overdue);
            }
        }
        pace
    }

    /// Whether newcomers are held back, each until a moment of its own.
    #[inline]
    pub(crate) fn is_spreading(&self) -> bool {
        self.rules.jitter == Jitter::Spread && self.burst.is_on()
    }

    /// The time until which a newcomer is held back. `roll` is uniform in `[0, 1)`.
    pub(crate) fn hold(&mut self, roll: f64, now: Instant) -> Option<Instant> {
        self.is_spreading().then(|| {
            self.counters.spread += 1;
            now + self.rules.spread_max.mul_f64(roll)
        })
    }

    /// Whether newcomers are drawn at random. Only for `jitter_window` after the role queue was quiet, when a crowd
    /// came in step. Under steady load the order of arrival is kept, or the longest waits would be as long as the
    /// window.
    pub(crate) fn is_drawing(&self, now: Instant) -> bool {
        self.rules.jitter != Jitter::Off && now <= self.woke + self.rules.jitter_window
    }

    /// Expected wait of a newcomer, if it is known.
    pub(crate) fn expected_wait(&self, now: Instant) -> Option<Duration> {
        self.throughput.expected_wait(self.waiting, now)
    }

    /// Expected wait of a newcomer, if it is known to be too long and the newcomer is to be shed.
    pub(crate) fn shed(&self, wait_timeout: Duration, now: Instant) -> Option<Duration> {
        let expected = self.expected_wait(now)?;
        let is_shed = expected > wait_timeout.mul_f64(SHED_AT);
        (self.rules.mode == AdmissionMode::On && is_shed).then_some(expected)
    }

    // ---- what happens ---------------------------------------------------------------------------

    /// The queues of the role became longer or shorter.
    #[inline]
    pub(crate) fn queued(&mut self, before: u32, after: u32) {
        self.waiting = self.waiting - before + after;
    }

    /// The lines of lanes in those queues became longer or shorter.
    pub(crate) fn queued_beside(&mut self, before: u32, after: u32) {
        self.beside = self.beside - before + after;
    }

    /// Somebody joined a queue whose first waiter has waited for `oldest_wait`.
    pub(crate) fn deepened(&mut self, oldest_wait: Duration, now: Instant) {
        if self.waiting == 1 {
            self.progressed = now;
        }
        if self.burst.queued(self.waiting, self.effective(now), oldest_wait) {
            self.counters.bursts += 1;
        }
    }

    /// A transaction starts, having `waited` or not.
    #[inline]
    pub(crate) fn started(&mut self, has_waited: bool, now: Instant) {
        if self.active == 0 {
            self.ended = now;
        }
        self.active += 1;
        self.counters.starts += 1;
        self.counters.immediate += u64::from(!has_waited);
        if self.active >= self.half_of_initial()
            && let Some(quiet_since) = self.quiet_since.take()
            && now >= quiet_since + self.rules.slow_start_idle
        {
            self.woke = now;
            self.width.restart(self.rules.initial);
            self.settle();
        }
        if let Width::Adaptive(adaptive) = &mut self.width {
            adaptive.started(self.active);
        }
    }

    /// A transaction that had its backend since `started` ended.
    #[inline]
    pub(crate) fn completed(&mut self, started: Instant, now: Instant) {
        let is_used = self.active >= self.effective(now).saturating_sub(1);
        // With room to spare nothing is decided: a sample keeps the usual service time up to date.
        if is_used || self.waiting > 0 || self.counters.starts.is_multiple_of(SAMPLE) {
            self.learn(now.saturating_duration_since(started), is_used, now);
        }
        self.ended(now);
    }

    fn learn(&mut self, served: Duration, is_used: bool, now: Instant) {
        if self.is_stuck(now) {
            self.counters.stuck += 1;
            self.restart(now);
        }
        self.progressed = now;
        self.throughput.completed(self.waiting > 0, now);
        let served = served.as_secs_f64();
        let may_grow = is_used && self.width.value() < self.allowed(now);
        let floor = self.rules.transactions_min.max(self.rules.initial);
        match &mut self.width {
            Width::Unbounded => self.base.note(served),
            Width::SlowStart(slow_start) => {
                let verdict = slow_start.completed(served, &mut self.base, may_grow, floor, now);
                self.counters.cuts += u64::from(verdict == slow_start::CompletionVerdict::Cut);
            }
            Width::Adaptive(adaptive) => {
                self.base.note(served);
                adaptive.completed(served);
                self.judge(now);
            }
        }
        self.settle();
    }

    /// A permit comes back from a transaction that was not served, or whose backend was lost.
    #[inline]
    pub(crate) fn ended(&mut self, now: Instant) {
        self.ended = now;
        self.active -= 1;
        if self.active < self.half_of_initial() {
            self.quiet_since.get_or_insert(now);
        }
    }

    /// Time passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.burst.tick(self.waiting, now);
        self.judge(now);
        self.widen(now);
        self.settle();
    }

    // ---- what is wanted -------------------------------------------------------------------------

    /// Puts other rules into force. A changed `max` replaces the console's limit; everything else of the role queue
    /// goes on.
    pub(crate) fn set(&mut self, rules: RoleQueueSettings, now: Instant) {
        if rules.transactions_max != self.rules.transactions_max {
            self.limit = Limit::new(rules.transactions_max);
        }
        if (rules.mode, rules.adaptive) != (self.rules.mode, self.rules.adaptive) {
            self.width = Width::new(&rules, now);
        }
        if rules.rate != self.rules.rate {
            self.rate = rules.rate.map(|rate| Rate::new(rate, self.share.of_rates(), now));
        }
        self.rules = rules;
        self.settle();
    }

    /// Takes another part of the fleet's limit and rate, until `lapses`.
    pub(crate) fn set_share(&mut self, share: FleetShare, lapses: Option<Instant>, now: Instant) {
        self.share_lapses = lapses;
        if share != self.share {
            let was = std::mem::replace(&mut self.share, share);
            if share.of_rates() != was.of_rates() {
                self.rate = self.rules.rate.map(|rate| Rate::new(rate, share.of_rates(), now));
            }
            self.settle();
        }
    }

    /// `LIMIT`: another limit than the configured one, until that changes; at once, or `over` some time.
    pub(crate) fn set_limit(&mut self, max: Option<u32>, over: Option<Duration>, now: Instant) {
        self.limit = match (max, over.filter(|over| !over.is_zero())) {
            (Some(to), Some(over)) => {
                // The move starts at the present limit, but no lower than `initial`: a closed role queue opens as a new
                // one does.
                let from = match self.limit {
                    Limit::Unlimited => to.max(self.active),
                    _ => self.limit.at(now).max(to.min(self.rules.initial)),
                };
                Limit::Moving { from, to, start: now, over }
            }
            _ => Limit::new(max),
        };
        self.settle();
    }

    /// `LIMIT … DEFAULT`: back to the configured limit.
    pub(crate) fn reset_limit(&mut self) {
        self.limit = Limit::new(self.rules.transactions_max);
        self.settle();
    }

    /// `RAMP`: from `initial` to the present limit, over this time; without a limit, or with a limit of zero, there is
    /// nothing to grow to.
    pub(crate) fn ramp_over(&mut self, over: Duration, now: Instant) {
        self.width.restart(self.rules.initial);
        if let Some(to @ 1..) = self.limit.target() {
            self.limit = match over.is_zero() {
                true => Limit::Fixed(to),
                false => Limit::Moving { from: to.min(self.rules.initial), to, start: now, over },
            };
        }
        self.settle();
    }

    /// The server, or the way to it, is back after a failure, a pause or a convoy: transactions are let in slowly.
    pub(crate) fn restart(&mut self, now: Instant) {
        match self.rules.ramp {
            Some(over) => self.ramp_over(over, now),
            None => {
                self.width.restart(self.rules.initial);
                self.settle();
            }
        }
    }

    /// The role's transactions are much of a lock convoy: narrows the role queue to half of the active ones, but not
    /// below the reserved ones. Nobody is ended, and the width comes back as always, by completions. Returns the
    /// effective limit if it became lower.
    pub(crate) fn tighten(&mut self, now: Instant) -> Option<u32> {
        if self.tightened.is_some_and(|then| now < then + TIGHTEN_EVERY) {
            return None;
        }
        self.tightened = Some(now);
        let floor = self.rules.transactions_min.max(1);
        let before = self.effective(now);
        if !self.width.narrow((before.min(self.active) / 2).max(floor)) {
            return None;
        }
        self.settle();
        let effective = self.effective(now);
        self.counters.cuts += u64::from(effective < before);
        (effective < before).then_some(effective)
    }

    /// A limiter at this moment.
    pub(crate) fn view(&self, now: Instant) -> LimiterView {
        LimiterView {
            limit: self.limit.target(),
            part: self.limit.target().map(|_| self.allowed(now)),
            effective: self.effective(now),
            limited_by: self.limited_by(now),
            active: self.active,
            waiting: self.waiting,
            moves_until: self.limit.moves_until(now),
            state: self.state(now),
            counters: self.counters,
        }
    }

    // ---------------------------------------------------------------------------------------------

    fn limited_by(&self, now: Instant) -> LimitedBy {
        let (limit, allowed) = (self.limit.at(now), self.allowed(now));
        if self.width.value() < allowed {
            return match self.width {
                _ if self.is_tight(now) => LimitedBy::Watch,
                Width::Adaptive(_) => LimitedBy::Adaptive,
                Width::SlowStart(_) | Width::Unbounded => LimitedBy::SlowStart,
            };
        }
        match self.limit {
            Limit::Unlimited => LimitedBy::Pool,
            _ if allowed < limit => LimitedBy::Fleet,
            Limit::Moving { .. } if self.limit.moves_until(now).is_some() => LimitedBy::Ramp,
            Limit::Fixed(_) | Limit::Moving { .. } => LimitedBy::Limit,
        }
    }

    fn is_tight(&self, now: Instant) -> bool {
        self.tightened.is_some_and(|then| now < then + TIGHT_FOR)
    }

    /// Widens a full role queue in which nothing ends, up to [`HARMLESS`]: completions cannot show then that more would
    /// do no harm. Up to that width more does none anyway, and long transactions must not keep all others out.
    fn widen(&mut self, now: Instant) {
        let is_full = self.has_waiters() && self.active >= self.effective(now);
        let is_silent = now.saturating_duration_since(self.ended) >= SILENCE;
        if is_full && is_silent && !self.is_tight(now) && self.width.value() < self.allowed(now).min(HARMLESS) {
            self.width.widen();
        }
    }

    fn judge(&mut self, now: Instant) {
        let allowed = self.allowed(now);
        let Width::Adaptive(adaptive) = &mut self.width else { return };
        // A cut must not make a tightened width wider.
        let floor = self.rules.transactions_min.max(self.rules.initial / 2).max(1).min(adaptive.width());
        match adaptive.judge(self.active, floor, allowed, now) {
            adaptive::WindowVerdict::Kept => {}
            adaptive::WindowVerdict::Cut => self.counters.cuts += 1,
            adaptive::WindowVerdict::Reverted => self.counters.reverts += 1,
        }
    }

    #[inline]
    fn effective(&self, now: Instant) -> u32 {
        if self.is_lapsed(now) {
            return 0;
        }
        match self.limit {
            Limit::Moving { .. } => self.allowed(now).min(self.width.value()),
            Limit::Unlimited | Limit::Fixed(_) => self.settled,
        }
    }

    #[inline]
    fn is_lapsed(&self, now: Instant) -> bool {
        self.share_lapses.is_some_and(|then| now >= then) && self.limit != Limit::Unlimited
    }

    /// To be called when the limit or the width has changed.
    fn settle(&mut self) {
        self.settled = self.share.of(self.limit.target().unwrap_or(u32::MAX)).min(self.width.value());
    }

    /// Fewer active transactions than this are a quiet role queue.
    fn half_of_initial(&self) -> u32 {
        (self.rules.initial / 2).min(self.settled).max(1)
    }

    fn state(&self, now: Instant) -> LimiterState {
        if self.limit.target() == Some(0) && self.limit.at(now) == 0 {
            LimiterState::Closed
        } else if self.is_stuck(now) {
            LimiterState::Stuck
        } else if self.burst.is_on() {
            LimiterState::Burst
        } else {
            LimiterState::Calm
        }
    }

    /// Whether somebody waits and nothing ends. At least `initial` must be active: a narrow role queue in which nothing
    /// ends is a few long transactions.
    #[inline]
    fn is_stuck(&self, now: Instant) -> bool {
        self.waiting > 0
            && self.active >= self.rules.initial
            && now.saturating_duration_since(self.progressed).as_secs_f64() > self.base.slow().max(STUCK_MIN)
    }
}
