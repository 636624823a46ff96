//! The rules of the lease book, as `book.lua` carries them out at the Redis. Pure.
//!
//! Only tests use this: they put the script beside it, and holders around it. Five rules keep the grants of a limit
//! together within it:
//!
//! - A grant grows only from what no other member holds.
//! - It counts in full until its holder has said that it uses no more than the smaller one, or has been silent for a
//!   TTL.
//! - The book's time goes on with the Redis's clock, but in no steps longer than the margin of a holder.
//! - Members divide by the number of all when the book is lost. A larger number holds at once, a smaller one when no
//!   other divides by one that is smaller still.
//! - After a time without members the book learns for a TTL, which is longer than any grant from before can be in use:
//!   everybody keeps what it says it has, and a newcomer has one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{BookAnswer, Grant, LeaseRequest, LeaseWant, MARGIN, TTL};

/// Longer than any member is silent while the Redis answers.
const GAP: Duration = Duration::from_secs(3);

/// What the Redis has for one fleet.
#[derive(Debug, Default)]
pub struct LeaseBook {
    clock: Option<BookClock>,
    members: BTreeMap<String, BookMember>,
}

#[derive(Debug, Clone, Copy)]
struct BookClock {
    /// The time of the Redis when it was looked at last.
    wall: Duration,
    /// The book's own.
    time: Duration,
    learns_until: Duration,
}

#[derive(Debug)]
struct BookMember {
    expires: Duration,
    seq: u64,
    weight: u64,
    /// The smallest number by which it may divide.
    knows: u32,
    leases: BTreeMap<String, BookLease>,
}

#[derive(Debug, Clone, Copy)]
struct BookLease {
    limit: u32,
    want: u32,
    /// So much may be in use.
    held: u32,
}

impl LeaseBook {
    /// A request of a member, with the time of the Redis; `None`: a later one was here.
    pub fn refresh(&mut self, id: &str, request: &LeaseRequest, wall: Duration) -> Option<BookAnswer> {
        let clock = self.look(wall);
        self.members.retain(|member, record| member == id || record.expires > clock.time);
        if self.members.get(id).is_some_and(|member| request.seq <= member.seq) {
            return None;
        }
        let lease = |want: &LeaseWant| BookLease { limit: want.limit, want: want.want, held: want.cap.max(want.used) };
        let leases = request.wants.iter().map(|(name, want)| (name.clone(), lease(want))).collect();
        let (expires, weight) = (clock.time + TTL, u64::from(request.weight));
        let learns = clock.time < clock.learns_until;
        let knows = self.knows(id, request.knows, learns);
        let least = if request.knows == 0 { knows } else { knows.min(request.knows) };
        let member = BookMember { expires, seq: request.seq, weight, knows: least, leases };
        self.members.insert(id.to_owned(), member);

        let mut grants = BTreeMap::new();
        for (name, want) in &request.wants {
            let limit = self.leases(name).map(|(_, _, lease)| lease.limit).min().unwrap_or(0);
            let others: u32 =
                self.leases(name).filter(|(member, ..)| *member != id).map(|(.., lease)| lease.held).sum();
            let most = match learns {
                true => want.cap.max(1).min(limit),
                false => self.divide(name, limit, clock.time)[id].min(limit.saturating_sub(others)),
            };
            let mine = self.members.get_mut(id).and_then(|member| member.leases.get_mut(name)).expect("just written");
            mine.held = mine.held.max(most);
            grants.insert(name.clone(), Grant { most, limit });
        }
        Some(BookAnswer { learns, knows, grants })
    }

    /// The number by which a member that divides by `known` so far is to divide.
    fn knows(&self, id: &str, known: u32, learns: bool) -> u32 {
        let mut others = self.members.iter().filter(|(member, _)| *member != id).map(|(_, member)| member.knows);
        let count = 1 + u32::try_from(others.clone().count()).expect("fewer members than that");
        let is_more = known > 0 && count > known;
        if is_more || !learns && others.all(|knows| knows == 0 || knows >= count) { count } else { known }
    }

    /// A member leaves: nothing of it is in use.
    pub fn leave(&mut self, id: &str, wall: Duration) {
        self.look(wall);
        self.members.remove(id);
    }

    /// How much of a limit may be in use.
    pub fn held(&self, name: &str) -> u32 {
        self.leases(name).map(|(.., lease)| lease.held).sum()
    }

    fn look(&mut self, wall: Duration) -> BookClock {
        let clock = match self.clock {
            None => BookClock { wall, time: wall, learns_until: wall + TTL },
            Some(before) => {
                let step = wall.saturating_sub(before.wall);
                let time = before.time + step.min(MARGIN);
                let learns_until = if step > GAP { time + TTL } else { before.learns_until };
                BookClock { wall, time, learns_until }
            }
        };
        *self.clock.insert(clock)
    }

    fn leases(&self, name: &str) -> impl Iterator<Item = (&str, u64, BookLease)> {
        self.members
            .iter()
            .filter_map(move |(id, member)| Some((id.as_str(), member.weight, *member.leases.get(name)?)))
    }

    /// The part of each member in a limit, by weight and no more than it wants; the rest evenly, wanted or not.
    fn divide(&self, name: &str, limit: u32, time: Duration) -> BTreeMap<&str, u32> {
        let everybody: Vec<_> = self.leases(name).map(|(id, weight, lease)| (id, weight, lease.want)).collect();
        // One is always at hand, as far as the limit goes round: the first transaction then waits for nobody.
        let least = u32::from(everybody.len() as u64 <= u64::from(limit));
        let mut parts: BTreeMap<_, _> = everybody.iter().map(|(id, ..)| (*id, 0)).collect();
        let mut rest = u64::from(limit);
        let mut pending = everybody.clone();
        while !pending.is_empty() {
            let weights: u64 = pending.iter().map(|(_, weight, _)| weight).sum();
            let is_hungry =
                |(_, weight, want): &(&str, u64, u32)| u64::from(*want.max(&least)) * weights > rest * weight;
            let (hungry, satisfied): (Vec<_>, Vec<_>) = pending.iter().copied().partition(is_hungry);
            if satisfied.is_empty() {
                // Too few for all take turns.
                let turn = if rest < hungry.len() as u64 { time.as_secs() } else { 0 };
                spread(&mut parts, &hungry, rest, turn);
                return parts;
            }
            for (id, _, want) in satisfied {
                let want = want.max(least);
                parts.insert(id, want);
                rest -= u64::from(want);
            }
            pending = hungry;
        }
        spread(&mut parts, &everybody, rest, 0);
        parts
    }
}

/// Adds to the parts of these by weight; of what is left over, one each to those whose `turn` it is.
fn spread<'a>(parts: &mut BTreeMap<&'a str, u32>, among: &[(&'a str, u64, u32)], rest: u64, turn: u64) {
    let weights: u64 = among.iter().map(|(_, weight, _)| weight).sum();
    let mut left = rest;
    let mut add = |id: &'a str, more: u64| *parts.entry(id).or_default() += u32::try_from(more).expect("of a limit");
    for (id, weight, _) in among {
        let more = rest * weight / weights;
        add(id, more);
        left -= more;
    }
    for i in 0..left {
        add(among[((turn + i) % among.len() as u64) as usize].0, 1);
    }
}
