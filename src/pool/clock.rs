//! A backend's current activity, and since when: stamped by the task of its client, read by the clock that looks for
//! activities that take too long.
//!
//! Stamps are numbers of ticks. A stamp is a relaxed store of a number that lies ready, so no clock is asked on the way
//! of a query. A stamp may be a little too early, never too late: a statement that ran for its limit is never taken for
//! shorter.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::config::Timeouts;
use crate::state::timeout::{OwnTimeouts, Timeout, whole};
use crate::wire::expected::TransactionStatus;

/// Length of a tick.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// The number of the tick in which `elapsed` since the start of the process lies; ticks count from 1.
pub(crate) fn tick_of(elapsed: Duration) -> u32 {
    u32::try_from(elapsed.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX - 1) + 1
}

/// Time after a limit before pgweir acts itself. Postgres has had its chance by then, and ticks and stamps are no more
/// exact than this.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// No value of the client's own is known.
const NOT_OWN: u32 = u32::MAX;

/// One backend's stamps; zero is none.
#[derive(Debug)]
pub struct Clock {
    /// Since when its client waits for the end of a cycle. A server keeps answers back until then, so any outstanding
    /// statement may have begun at any time since.
    cycle: AtomicU32,
    /// Since when a statement may run, as Postgres counts it: each one that completed starts the next.
    statement: AtomicU32,
    /// Since when a transaction is open, implicit ones included.
    transaction: AtomicU32,
    /// Since when a transaction is open and nothing runs.
    idle: AtomicU32,
    /// When a client last asked for a cancel.
    asked: AtomicU32,
    /// When pgweir last acted.
    acted: AtomicU32,
    /// Milliseconds that a statement may take in its lane; zero is no limit.
    lane: AtomicU32,
    /// Values of the client's own in milliseconds, as far as they are known; zero is no limit.
    own: [AtomicU32; Timeout::ALL.len()],
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            cycle: AtomicU32::new(0),
            statement: AtomicU32::new(0),
            transaction: AtomicU32::new(0),
            idle: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            acted: AtomicU32::new(0),
            lane: AtomicU32::new(0),
            own: std::array::from_fn(|_| AtomicU32::new(NOT_OWN)),
        }
    }
}

impl Clock {
    /// Something is sent where nothing was outstanding, and if it `is_fresh`, where no transaction was open.
    #[inline]
    pub fn begin(&self, tick: u32, is_fresh: bool) {
        self.cycle.store(tick, Ordering::Relaxed);
        self.statement.store(tick, Ordering::Relaxed);
        self.idle.store(0, Ordering::Relaxed);
        if is_fresh {
            self.transaction.store(tick, Ordering::Relaxed);
        }
    }

    #[inline]
    pub fn complete(&self, tick: u32) {
        self.statement.store(tick, Ordering::Relaxed);
    }

    /// A transaction completed, and another may begin in the same cycle.
    pub fn transact(&self, tick: u32) {
        self.transaction.store(tick, Ordering::Relaxed);
    }

    /// A cycle ended, and nothing is outstanding.
    #[inline]
    pub fn end(&self, tick: u32, status: TransactionStatus) {
        self.cycle.store(0, Ordering::Relaxed);
        self.statement.store(0, Ordering::Relaxed);
        if status == TransactionStatus::Idle {
            self.transaction.store(0, Ordering::Relaxed);
        } else {
            self.idle.store(tick, Ordering::Relaxed);
        }
    }

    /// Nothing is under way, and nobody has the backend.
    pub fn clear(&self) {
        for stamp in [&self.cycle, &self.statement, &self.transaction, &self.idle] {
            stamp.store(0, Ordering::Relaxed);
        }
        self.set_own(&OwnTimeouts::default());
    }

    /// The client asks for its running statement to be cancelled.
    pub fn ask(&self, tick: u32) {
        self.asked.store(tick, Ordering::Relaxed);
    }

    /// Whether the client asked for its running statement to be cancelled.
    pub fn is_asked(&self) -> bool {
        let asked = self.asked.load(Ordering::Relaxed);
        asked != 0 && asked >= self.cycle.load(Ordering::Relaxed)
    }

    /// Whether something is outstanding.
    pub fn is_running(&self) -> bool {
        self.cycle.load(Ordering::Relaxed) != 0
    }

    /// Whether the outstanding statements may have taken this long by `now`, the tick under way.
    pub fn may_have_run(&self, limit: Duration, now: u32) -> bool {
        let since = self.cycle.load(Ordering::Relaxed);
        since != 0 && TICK * (now.saturating_sub(since) + 1) >= limit
    }

    /// Whether a transaction may have been idle for this long by `now`, the tick under way.
    pub fn may_have_idled(&self, limit: Duration, now: u32) -> bool {
        let since = self.idle.load(Ordering::Relaxed);
        since != 0 && TICK * (now.saturating_sub(since) + 1) >= limit
    }

    /// These values are the client's own.
    pub fn set_own(&self, own: &OwnTimeouts) {
        for (ours, own) in self.own.iter().zip(own) {
            ours.store(own.unwrap_or(NOT_OWN), Ordering::Relaxed);
        }
    }

    /// Statements of the transaction that begins may take this long, which only pgweir knows.
    pub fn set_lane(&self, limit: Option<Duration>) {
        self.lane.store(limit.map_or(0, whole), Ordering::Relaxed);
    }

    /// The client gives itself another value until its transaction ends, or it takes that back: until then the largest
    /// value it had counts.
    pub fn extend(&self, timeout: Timeout, value: u32, timeouts: &Timeouts) {
        let own = &self.own[timeout as usize];
        let before = match own.load(Ordering::Relaxed) {
            NOT_OWN => timeout.limit(timeouts).map_or(0, whole),
            before => before,
        };
        let most = if before == 0 || value == 0 { 0 } else { before.max(value) };
        own.store(most, Ordering::Relaxed);
    }

    /// The timeout that is exceeded by `now`, the grace included. None while pgweir's last action may still take
    /// effect.
    ///
    /// There is one statement limit since the last answer, though several statements may have run since: a limit for
    /// each would let one text have as many as it likes.
    pub fn overdue(&self, timeouts: &Timeouts, now: u32) -> Option<Timeout> {
        let acted = self.acted.load(Ordering::Relaxed);
        if acted != 0 && TICK * now.saturating_sub(acted) < GRACE {
            return None;
        }
        let is_over = |timeout: Timeout, since: &AtomicU32| {
            let since = since.load(Ordering::Relaxed);
            let limit = self.limit(timeout, timeouts);
            since != 0 && limit.is_some_and(|limit| TICK * now.saturating_sub(since) >= limit + GRACE)
        };
        let since = self.statement.load(Ordering::Relaxed);
        let in_lane = Duration::from_millis(self.lane.load(Ordering::Relaxed).into());
        // One tick more, since the stamp may be as much too early.
        if !in_lane.is_zero() && since != 0 && TICK * now.saturating_sub(since) >= in_lane + TICK {
            return Some(Timeout::Statement);
        }
        let kinds = [
            (Timeout::Transaction, &self.transaction),
            (Timeout::IdleInTransaction, &self.idle),
            (Timeout::Statement, &self.statement),
        ];
        kinds.into_iter().find(|(timeout, since)| is_over(*timeout, since)).map(|(timeout, _)| timeout)
    }

    /// Whether nothing has completed since pgweir's last action.
    pub fn is_unanswered(&self) -> bool {
        let acted = self.acted.load(Ordering::Relaxed);
        [&self.cycle, &self.statement].into_iter().all(|since| acted >= since.load(Ordering::Relaxed))
    }

    /// pgweir acts on an exceeded timeout.
    pub fn act(&self, now: u32) {
        self.acted.store(now, Ordering::Relaxed);
    }

    /// The limit in force, the client's own value included; none where the role has no limit.
    fn limit(&self, timeout: Timeout, timeouts: &Timeouts) -> Option<Duration> {
        let limit = timeout.limit(timeouts)?;
        let limit = match self.own[timeout as usize].load(Ordering::Relaxed) {
            NOT_OWN => limit,
            own => Duration::from_millis(own.into()),
        };
        (!limit.is_zero()).then_some(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_is_asked_for_the_cycle_under_way_not_for_a_later_one() {
        let clock = Clock::default();
        clock.begin(7, true);
        assert!(!clock.is_asked());
        clock.ask(7);
        assert!(clock.is_asked());
        clock.begin(8, true);
        assert!(!clock.is_asked());
    }

    #[test]
    fn what_may_have_taken_its_limit_is_never_taken_for_shorter() {
        let clock = Clock::default();
        assert!(!clock.may_have_run(Duration::ZERO, 1));
        // From the last moment of tick 3, which is 300 ms after the start, to 500 ms.
        clock.begin(tick_of(Duration::from_millis(299)), true);
        assert!(clock.may_have_run(Duration::from_millis(201), tick_of(Duration::from_millis(500))));
        assert!(!clock.may_have_run(Duration::from_millis(500), tick_of(Duration::from_millis(500))));
    }

    const LIMITS: Timeouts = Timeouts {
        statement: Some(Duration::from_secs(2)),
        lock: None,
        idle_in_transaction: Some(Duration::from_secs(3)),
        transaction: Some(Duration::from_secs(5)),
    };

    #[test]
    fn a_statement_is_overdue_a_grace_after_its_limit_and_again_a_grace_later() {
        let clock = Clock::default();
        assert_eq!(clock.overdue(&LIMITS, 1000), None);
        clock.begin(100, true);
        assert_eq!(clock.overdue(&LIMITS, 129), None);
        assert_eq!(clock.overdue(&LIMITS, 130), Some(Timeout::Statement));
        clock.act(130);
        assert_eq!(clock.overdue(&LIMITS, 139), None);
        assert_eq!(clock.overdue(&LIMITS, 140), Some(Timeout::Statement));
        assert!(clock.is_unanswered());
        // The next one has its own time.
        clock.complete(140);
        assert!(!clock.is_unanswered());
        assert_eq!(clock.overdue(&LIMITS, 159), None);
        clock.end(159, TransactionStatus::Idle);
        assert_eq!(clock.overdue(&LIMITS, 1000), None);
    }

    #[test]
    fn a_statement_has_no_grace_beyond_the_limit_of_its_lane() {
        let clock = Clock::default();
        clock.set_lane(Some(Duration::from_millis(500)));
        clock.begin(100, true);
        assert_eq!(clock.overdue(&Timeouts::default(), 105), None);
        assert_eq!(clock.overdue(&Timeouts::default(), 106), Some(Timeout::Statement));
        clock.set_lane(None);
        assert_eq!(clock.overdue(&Timeouts::default(), 1000), None);
    }

    #[test]
    fn a_transaction_has_one_time_whatever_is_done_in_it() {
        let clock = Clock::default();
        clock.begin(100, true);
        clock.end(110, TransactionStatus::InTransaction);
        assert_eq!(clock.overdue(&LIMITS, 149), None);
        assert_eq!(clock.overdue(&LIMITS, 150), Some(Timeout::IdleInTransaction));
        clock.begin(150, false);
        assert_eq!(clock.overdue(&LIMITS, 159), None);
        assert_eq!(clock.overdue(&LIMITS, 160), Some(Timeout::Transaction));
        clock.transact(160);
        assert_eq!(clock.overdue(&LIMITS, 160), None);
    }

    #[test]
    fn what_a_client_made_of_a_limit_counts() {
        let clock = Clock::default();
        clock.begin(100, true);
        clock.extend(Timeout::Statement, 4000, &LIMITS);
        assert_eq!(clock.overdue(&LIMITS, 149), None);
        assert_eq!(clock.overdue(&LIMITS, 150), Some(Timeout::Statement));
        // It may take that back, so the most it had counts until the transaction ends.
        clock.extend(Timeout::Statement, 1000, &LIMITS);
        assert_eq!(clock.overdue(&LIMITS, 149), None);
        clock.extend(Timeout::Statement, 0, &LIMITS);
        assert_eq!(clock.overdue(&Timeouts { transaction: None, ..LIMITS }, 1000), None);
        clock.set_own(&[Some(500), None, None, None]);
        assert_eq!(clock.overdue(&LIMITS, 115), Some(Timeout::Statement));
        // Not where the role has no limit.
        assert_eq!(clock.overdue(&Timeouts::default(), 1000), None);
    }
}
