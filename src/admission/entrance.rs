//! The entrance for logins: when they may come in, and how much is done for them at once.
//!
//! [`LoginPace`] decides when; logins that have to wait sleep here, and a reload wakes them. The cost of a login is
//! bounded in two ways. `login_concurrency` bounds our own CPU time for key derivation and TLS handshakes, over all
//! logins: a turn is held while a thread computes and never while we wait for a peer, so silent peers keep nobody out.
//! A few turns for each database bound the questions to servers, apart from the former, so a server that does not
//! answer keeps nobody out of another's database. Slots and turns go round the addresses, known roles first
//! ([`FairQueue`]): logins that are wrong do not hold up those that are right.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::arrival_list::PeerOrigin;
use super::fair_queue::{Caller, FairQueue, FairTicket};
use super::fair_turns::{FairTurns, LoginTurn};
use super::login::{LoginLimits, LoginPace, TooFast};
use super::login_records::LoginRecords;
use crate::config::{Admission, AdmissionMode};

/// Logins that may ask the servers of one database section something at the same time: whether a pass-through password
/// is right, or for a role's secret. More logins wait, so that people who guess passwords cannot take all connections
/// of the section.
const ASKING_AT_ONCE: u32 = 4;

/// Longest time until a login for which there is no room is answered.
const HOLD: Duration = Duration::from_secs(1);

/// Refused logins that may wait for their answer; beyond that the answer comes at once. Each costs a socket and a few
/// KiB.
const HOLDS_MAX: usize = 1024;

/// Logins to the console per second of one address where `login_rate_per_address` is off: nobody guesses a password so.
const CONSOLE_RATE: f64 = 20.0;

#[derive(Debug)]
pub(crate) struct Entrance {
    pace: Mutex<PacedLogins>,
    /// Of those who may use the console: a storm of clients does not keep them out, and they are paced all the same.
    console_pace: Mutex<PacedLogins>,
    records: Mutex<LoginRecords>,
    /// Notified when the pace changes or nobody is let in any more: waiting logins look again.
    changed: Notify,
    is_closed: AtomicBool,
    /// The right to compute.
    turns: FairTurns,
    /// [`ASKING_AT_ONCE`], by database section.
    asking: Mutex<HashMap<String, FairTurns>>,
    holds: Semaphore,
}

/// The pace of logins, and those who wait for their slot.
#[derive(Debug)]
struct PacedLogins {
    pace: LoginPace,
    waiting: FairQueue<SlotWaiter>,
}

/// A login that waits. The slots of all who wait are theirs together: when one is due, the queue says who gets it.
#[derive(Debug)]
struct SlotWaiter {
    slot: Instant,
    tell: oneshot::Sender<SlotOutcome>,
}

#[derive(Debug)]
enum SlotOutcome {
    In,
    /// Its slot went to a login that goes before it.
    Outbid,
}

impl PacedLogins {
    fn new(limits: LoginLimits) -> Mutex<Self> {
        Mutex::new(Self { pace: LoginPace::new(limits, Instant::now()), waiting: FairQueue::default() })
    }
}

/// A login in the queue for a slot, until it leaves.
struct WaitsForSlot<'a> {
    logins: &'a Mutex<PacedLogins>,
    ticket: FairTicket,
}

impl WaitsForSlot<'_> {
    /// The slot of this login is due. The one whose turn it is comes in, and leaves its own slot to this one; `None`:
    /// it is this one.
    fn hand_out(&self) -> Option<Instant> {
        let mut logins = locked(self.logins);
        while let Some((ticket, next)) = logins.waiting.pop() {
            if ticket == self.ticket {
                return None;
            }
            if next.tell.send(SlotOutcome::In).is_ok() {
                if let Some(waiter) = logins.waiting.get_mut(self.ticket) {
                    waiter.slot = next.slot;
                }
                return Some(next.slot);
            }
        }
        None
    }

    /// A slot that came to be nearer.
    fn set(&self, slot: Instant) {
        if let Some(waiter) = locked(self.logins).waiting.get_mut(self.ticket) {
            waiter.slot = slot;
        }
    }
}

impl Drop for WaitsForSlot<'_> {
    fn drop(&mut self) {
        locked(self.logins).waiting.remove(self.ticket);
    }
}

fn locked(logins: &Mutex<PacedLogins>) -> MutexGuard<'_, PacedLogins> {
    logins.lock().expect("no panic while held")
}

impl From<&Admission> for LoginLimits {
    fn from(admission: &Admission) -> Self {
        Self {
            rate: admission.login_rate,
            burst: admission.login_burst,
            delay_max: admission.login_delay_max,
            rate_per_address: admission.login_rate_per_address,
            cancel_rate_per_address: admission.cancel_rate_per_address,
            is_jittered: admission.mode == AdmissionMode::On,
        }
    }
}

/// For those who may use the console: of each address only, or strangers could keep them out.
fn of_console(admission: &Admission) -> LoginLimits {
    let limits = LoginLimits::from(admission);
    LoginLimits { rate: None, rate_per_address: limits.rate_per_address.or(Some(CONSOLE_RATE)), ..limits }
}

impl Entrance {
    /// Open to everybody who keeps to these limits.
    pub(crate) fn new(admission: &Admission) -> Self {
        Self {
            pace: PacedLogins::new(admission.into()),
            console_pace: PacedLogins::new(of_console(admission)),
            records: Mutex::new(LoginRecords::new(Instant::now())),
            changed: Notify::new(),
            is_closed: AtomicBool::new(false),
            turns: FairTurns::new(admission.login_concurrency),
            asking: Mutex::default(),
            holds: Semaphore::new(HOLDS_MAX),
        }
    }

    /// Puts other limits into force, for logins that wait already, too.
    pub(crate) fn set(&self, admission: &Admission) {
        let now = Instant::now();
        let is_other = self.console_pace().pace.set(of_console(admission), now);
        if self.pace().pace.set(admission.into(), now) || is_other {
            self.changed.notify_waiters();
        }
        self.turns.set(admission.login_concurrency);
    }

    /// Going down: logins no longer wait for a slot, so that they are refused at once.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits until this login may come in; returns how long that took, nothing at all under the rate.
    pub(crate) async fn slot(&self, caller: Caller) -> Result<Duration, TooFast> {
        self.slot_of(&self.pace, caller).await
    }

    /// The same for somebody who may use the console, if the password is right.
    pub(crate) async fn console_slot(&self, caller: Caller) -> Result<Duration, TooFast> {
        self.slot_of(&self.console_pace, caller).await
    }

    async fn slot_of(&self, logins: &Mutex<PacedLogins>, caller: Caller) -> Result<Duration, TooFast> {
        let came = Instant::now();
        let mut changed = pin!(self.changed.notified());
        let (mut slot, waits, mut told) = {
            let mut locked = locked(logins);
            let (slot, is_own) = match locked.pace.login(caller.origin(), came, fastrand::f64) {
                Ok(slot) if slot.wait.is_zero() => return Ok(slot.wait),
                Ok(slot) => (came + slot.wait, slot.is_own),
                Err(TooFast::Rate) => {
                    let outbid = locked.waiting.give_way(caller).ok_or(TooFast::Rate)?;
                    let _ = outbid.tell.send(SlotOutcome::Outbid);
                    (outbid.slot, false)
                }
                Err(fault @ TooFast::AddressRate) => return Err(fault),
            };
            let (tell, told) = oneshot::channel();
            let ticket = (!is_own).then(|| locked.waiting.push(caller, SlotWaiter { slot, tell }));
            (slot, ticket.map(|ticket| WaitsForSlot { logins, ticket }), told)
        };
        while !self.is_closed.load(Ordering::Acquire) {
            tokio::select! {
                biased;
                Ok(outcome) = &mut told, if waits.is_some() => return match outcome {
                    SlotOutcome::In => Ok(came.elapsed()),
                    SlotOutcome::Outbid => Err(TooFast::Rate),
                },
                () = sleep_until(slot) => match waits.as_ref().and_then(WaitsForSlot::hand_out) {
                    Some(others) => {
                        slot = others;
                        continue;
                    }
                    None => return Ok(came.elapsed()),
                },
                () = changed.as_mut() => {}
            }
            changed.set(self.changed.notified());
            let now = Instant::now();
            // Other limits may bring a slot nearer, but take no slot away.
            let next = locked(logins).pace.login(caller.origin(), now, fastrand::f64);
            if let Ok(next) = next {
                if next.wait.is_zero() {
                    // Not by way of the queue: others in it may not have looked at the new limits so far.
                    return Ok(came.elapsed());
                }
                slot = slot.min(now + next.wait);
                waits.iter().for_each(|waits| waits.set(slot));
            }
        }
        Ok(came.elapsed())
    }

    /// Whether one more refused login may be recorded, and how many were left out before it.
    pub(crate) fn record_refusal(&self) -> Option<u64> {
        self.records.lock().expect("no panic while held").one_more(Instant::now())
    }

    /// Keeps a refused login waiting for a moment, so that a client that comes back at once does not spin.
    pub(crate) async fn hold(&self) {
        let is_jittered = self.pace().pace.is_jittered();
        if is_jittered && let Ok(_held) = self.holds.try_acquire() {
            sleep(HOLD.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    }

    /// Whether this address's cancel may pass.
    pub(crate) fn admits_cancel(&self, origin: PeerOrigin) -> bool {
        self.pace().pace.cancel(origin, Instant::now())
    }

    /// Computes something for a login on a thread that carries no traffic, when it is its turn. Fails if it panics.
    pub(crate) async fn compute<R: Send + 'static>(
        &self,
        caller: Caller,
        job: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<R> {
        let turn = self.turns.turn(caller).await;
        let computed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            job()
        });
        computed.await.map_err(io::Error::other)
    }

    /// Waits until one more login may ask the servers of this database section something.
    pub(crate) async fn turn_to_ask(&self, section: &str, caller: Caller) -> LoginTurn {
        let turns = {
            let mut asking = self.asking.lock().expect("no panic while held");
            asking.entry(section.to_owned()).or_insert_with(|| FairTurns::new(ASKING_AT_ONCE)).clone()
        };
        turns.turn(caller).await
    }

    /// Forgets addresses that have not come for a while.
    pub(crate) fn tick(&self, now: Instant) {
        self.pace().pace.tick(now);
        self.console_pace().pace.tick(now);
    }

    fn pace(&self) -> MutexGuard<'_, PacedLogins> {
        locked(&self.pace)
    }

    fn console_pace(&self) -> MutexGuard<'_, PacedLogins> {
        locked(&self.console_pace)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::IpAddr;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::Poll;

    use futures_util::future::join_all;
    use futures_util::poll;

    use super::*;

    const NOBODY: Caller = Caller::OWN;

    fn admission(rate: f64, burst: u32) -> Admission {
        let login_delay_max = Duration::from_secs(10);
        Admission { login_rate: Some(rate), login_burst: burst, login_delay_max, ..Admission::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn under_the_rate_a_login_comes_in_without_a_wait() {
        let entrance = Entrance::new(&admission(1.0, 2));
        for _ in 0..2 {
            assert_eq!(poll!(std::pin::pin!(entrance.slot(NOBODY))), Poll::Ready(Ok(Duration::ZERO)));
        }
        assert!(poll!(std::pin::pin!(entrance.slot(NOBODY))).is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_is_spread_over_the_time_that_the_rate_needs() {
        let entrance = Entrance::new(&admission(100.0, 10));
        let start = Instant::now();
        let waits = join_all((0..510).map(|_| entrance.slot(NOBODY))).await;
        assert!(waits.iter().all(Result::is_ok));
        let whole = start.elapsed();
        assert!((Duration::from_millis(4990)..Duration::from_millis(5050)).contains(&whole), "{whole:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_higher_rate_wakes_those_who_wait() {
        let entrance = Entrance::new(&admission(0.1, 1));
        let (first, second) = (entrance.slot(NOBODY), entrance.slot(NOBODY));
        let reload = async {
            tokio::task::yield_now().await;
            entrance.set(&admission(1000.0, 10));
        };
        let start = Instant::now();
        let (first, second, ()) = tokio::join!(first, second, reload);
        assert!(first.is_ok() && second.is_ok());
        assert!(start.elapsed() < Duration::from_millis(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lower_rate_leaves_those_who_wait_their_slot() {
        let entrance = Entrance::new(&admission(1.0, 1));
        let waiting = join_all((0..5).map(|_| entrance.slot(NOBODY)));
        let reload = async {
            tokio::task::yield_now().await;
            entrance.set(&admission(0.01, 1));
        };
        let start = Instant::now();
        let (waits, ()) = tokio::join!(waiting, reload);
        assert!(waits.iter().all(Result::is_ok));
        assert!(start.elapsed() <= Duration::from_secs(5));
        assert_eq!(entrance.slot(NOBODY).await, Err(TooFast::Rate));
    }

    fn from(n: u8, is_known: bool) -> Caller {
        Caller::new(Some(IpAddr::from([10, 0, 0, n]).into()), "role", is_known)
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_of_one_address_delays_another_by_one_slot_and_unknown_roles_delay_nobody() {
        for crowd in [from(1, true), from(2, false)] {
            let entrance = Entrance::new(&admission(10.0, 1));
            let crowd = join_all((0..90).map(|_| entrance.slot(crowd)));
            let one = async {
                tokio::task::yield_now().await;
                entrance.slot(from(2, true)).await
            };
            let start = Instant::now();
            let (crowd, one) = tokio::join!(crowd, one);
            assert!(one.is_ok_and(|waited| waited <= Duration::from_millis(300)), "{one:?}");
            assert!(crowd.iter().all(Result::is_ok));
            assert!(start.elapsed() >= Duration::from_secs(9), "the rate is kept");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_slots_are_taken_the_crowd_loses_one_of_its_own() {
        let entrance = Entrance::new(&admission(10.0, 1));
        let crowd = join_all((0..200).map(|_| entrance.slot(from(1, true))));
        let one = async {
            tokio::task::yield_now().await;
            entrance.slot(from(2, true)).await
        };
        let (crowd, one) = tokio::join!(crowd, one);
        assert!(one.is_ok_and(|waited| waited <= Duration::from_millis(300)), "{one:?}");
        assert_eq!(crowd.iter().filter(|slot| slot.is_ok()).count(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_held_a_moment_and_only_so_many_of_them() {
        let entrance = Entrance::new(&Admission::default());
        let start = Instant::now();
        let times = Rc::new(Cell::new(0));
        join_all((0..HOLDS_MAX).map(|_| entrance.hold())).await;
        assert!((HOLD / 2..=HOLD).contains(&start.elapsed()));
        let holds = join_all((0..HOLDS_MAX + 1).map(|_| {
            let times = Rc::clone(&times);
            let entrance = &entrance;
            async move {
                let start = Instant::now();
                entrance.hold().await;
                times.set(times.get() + u32::from(start.elapsed().is_zero()));
            }
        }));
        holds.await;
        assert_eq!(times.get(), 1);
        entrance.set(&Admission { mode: AdmissionMode::Off, ..Admission::default() });
        assert!(poll!(std::pin::pin!(entrance.hold())).is_ready());
    }

    #[tokio::test]
    async fn no_more_is_computed_at_once_than_allowed_and_a_reload_changes_how_much() {
        let entrance = Entrance::new(&Admission { login_concurrency: 1, ..Admission::default() });
        let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let job = || {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            entrance.compute(NOBODY, move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
            })
        };
        let done = join_all((0..100).map(|_| job())).await;
        assert!(done.iter().all(Result::is_ok));
        assert_eq!(most.load(Ordering::SeqCst), 1);
        // Two that wait for each other are only ever done together.
        let both = Arc::new(std::sync::Barrier::new(2));
        let wait = || {
            let both = Arc::clone(&both);
            entrance.compute(NOBODY, move || both.wait().is_leader())
        };
        let reload = async { entrance.set(&Admission { login_concurrency: 2, ..Admission::default() }) };
        let (first, second, ()) = tokio::join!(wait(), wait(), reload);
        assert!(first.is_ok() && second.is_ok());
    }
}
