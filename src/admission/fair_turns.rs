//! Turns for logins: so many at once, handed on by [`FairQueue`].

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use super::fair_queue::{Caller, FairQueue, FairTicket};

#[derive(Debug, Clone)]
pub(super) struct FairTurns(Arc<Mutex<TurnsTaken>>);

#[derive(Debug)]
struct TurnsTaken {
    most: u32,
    taken: u32,
    waiting: FairQueue<oneshot::Sender<LoginTurn>>,
}

/// The right to go on, handed on when dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct LoginTurn(FairTurns);

/// A login in the queue, until it has its turn or leaves.
struct WaitsForTurn<'a> {
    turns: &'a FairTurns,
    ticket: FairTicket,
}

impl Drop for WaitsForTurn<'_> {
    fn drop(&mut self) {
        // Bound, and so dropped after the lock: the answer may hold a turn that is handed on.
        let _left = self.turns.taken().waiting.remove(self.ticket);
    }
}

impl FairTurns {
    pub(super) fn new(most: u32) -> Self {
        Self(Arc::new(Mutex::new(TurnsTaken { most, taken: 0, waiting: FairQueue::default() })))
    }

    /// Waits until it is this caller's turn.
    pub(super) async fn turn(&self, caller: Caller) -> LoginTurn {
        let (ticket, told) = {
            let mut taken = self.taken();
            if taken.taken < taken.most {
                taken.taken += 1;
                return LoginTurn(self.clone());
            }
            let (tell, told) = oneshot::channel();
            (taken.waiting.push(caller, tell), told)
        };
        let _waits = WaitsForTurn { turns: self, ticket };
        told.await.expect("the sender is in the queue, or sends")
    }

    /// Another number at once, for those who wait, too.
    pub(super) fn set(&self, most: u32) {
        self.taken().most = most;
        while let Some(next) = self.next() {
            let _ = next.send(LoginTurn(self.clone()));
        }
    }

    /// Takes the next one off, if there is a turn for it.
    fn next(&self) -> Option<oneshot::Sender<LoginTurn>> {
        let mut taken = self.taken();
        if taken.taken >= taken.most {
            return None;
        }
        let (_, next) = taken.waiting.pop()?;
        taken.taken += 1;
        Some(next)
    }

    fn taken(&self) -> MutexGuard<'_, TurnsTaken> {
        self.0.lock().expect("no panic while held")
    }
}

impl Drop for LoginTurn {
    fn drop(&mut self) {
        self.0.taken().taken -= 1;
        if let Some(next) = self.0.next() {
            // One that has left drops its turn, which goes on to the next.
            let _ = next.send(Self(self.0.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    fn from(n: u8, is_known: bool) -> Caller {
        Caller::new(Some(IpAddr::from([10, 0, 0, n]).into()), "role", is_known)
    }

    #[test]
    fn a_turn_goes_to_a_known_role_first_and_to_each_address_in_turn() {
        let turns = FairTurns::new(1);
        let held = turns.turn(from(1, true)).now_or_never().unwrap();
        let mut crowd: Vec<_> = (0..3).map(|_| Box::pin(turns.turn(from(1, false)))).collect();
        crowd.iter_mut().for_each(|turn| assert!(turn.now_or_never().is_none()));
        let mut known = pin!(turns.turn(from(2, true)));
        let mut gone = Box::pin(turns.turn(from(3, true)));
        assert!(known.as_mut().now_or_never().is_none() && gone.as_mut().now_or_never().is_none());
        drop(held);
        assert!(crowd[0].as_mut().now_or_never().is_none());
        let held = known.now_or_never().expect("its turn");
        drop(gone);
        drop(held);
        let first = crowd[0].as_mut().now_or_never().expect("its turn");
        assert!(crowd[1].as_mut().now_or_never().is_none());
        turns.set(2);
        let _second = crowd[1].as_mut().now_or_never().expect("one more at once");
        // It was told, and leaves without having looked.
        drop(first);
        drop(crowd);
        assert_eq!(turns.taken().taken, 1);
    }
}
