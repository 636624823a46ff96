//! Connections that have not logged in yet, and which of them gives way where there is no room for one more. Pure.
//!
//! An address has as many as it likes while there is room. Where there is none, the silent go first: those whose first
//! request is not whole. Of them it is the oldest of the address that has most. So an address that opens connections
//! and says nothing only ever takes its own places.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::loads::Loads;
use super::login::PeerAddress;

/// An address, or this machine.
pub(crate) type PeerOrigin = Option<PeerAddress>;

/// The number of an arrival; later ones have higher numbers.
pub(crate) type ArrivalId = u64;

/// Those of one address.
#[derive(Debug, Default)]
struct ArrivalsOfOrigin {
    silent: BTreeSet<ArrivalId>,
    /// Their first request is whole.
    spoken: BTreeSet<ArrivalId>,
}

/// All arrivals, each with a `T` to tell it that it gives way.
#[derive(Debug)]
pub(crate) struct ArrivalList<T> {
    next: ArrivalId,
    all: BTreeMap<ArrivalId, (PeerOrigin, T)>,
    origins: HashMap<PeerOrigin, ArrivalsOfOrigin>,
    silent: Loads<PeerOrigin>,
    spoken: Loads<PeerOrigin>,
}

impl<T> Default for ArrivalList<T> {
    fn default() -> Self {
        Self {
            next: 0,
            all: BTreeMap::new(),
            origins: HashMap::new(),
            silent: Loads::default(),
            spoken: Loads::default(),
        }
    }
}

impl<T> ArrivalList<T> {
    /// One more, which has not said anything.
    pub(crate) fn arrive(&mut self, origin: PeerOrigin, tell: T) -> ArrivalId {
        let id = self.next;
        self.next += 1;
        self.all.insert(id, (origin, tell));
        self.origins.entry(origin).or_default().silent.insert(id);
        self.silent.add(origin);
        id
    }

    /// Its first request is whole.
    pub(crate) fn speak(&mut self, id: ArrivalId) {
        let Some((origin, _)) = self.all.get(&id) else { return };
        let Some(of) = self.origins.get_mut(origin) else { return };
        if of.silent.remove(&id) {
            of.spoken.insert(id);
            self.silent.sub(*origin);
            self.spoken.add(*origin);
        }
    }

    /// It comes from elsewhere, as its balancer says. It is as old as before.
    pub(crate) fn come_from(&mut self, id: ArrivalId, origin: PeerOrigin) {
        let Some((known, _)) = self.all.get_mut(&id) else { return };
        let before = std::mem::replace(known, origin);
        let is_silent = self.remove_from(before, id);
        let of = self.origins.entry(origin).or_default();
        if is_silent {
            of.silent.insert(id);
            self.silent.add(origin);
        } else {
            of.spoken.insert(id);
            self.spoken.add(origin);
        }
    }

    /// It has logged in, or is gone. `None`: it had given way.
    pub(crate) fn leave(&mut self, id: ArrivalId) -> Option<T> {
        let (origin, tell) = self.all.remove(&id)?;
        self.remove_from(origin, id);
        Some(tell)
    }

    /// Takes one off the list of its address; whether it was silent.
    fn remove_from(&mut self, origin: PeerOrigin, id: ArrivalId) -> bool {
        let of = self.origins.get_mut(&origin).expect("it has this one");
        let is_silent = of.silent.remove(&id);
        if is_silent {
            self.silent.sub(origin);
        } else {
            of.spoken.remove(&id);
            self.spoken.sub(origin);
        }
        if of.silent.is_empty() && of.spoken.is_empty() {
            self.origins.remove(&origin);
        }
        is_silent
    }

    /// Takes one away to make room for a newcomer from `origin`: a silent one if there is any, otherwise the latest of
    /// an address that has more than the newcomer's would have then. `None`: the newcomer is the one too many.
    pub(crate) fn give_way(&mut self, origin: PeerOrigin) -> Option<T> {
        if let Some((heaviest, _)) = self.silent.heaviest() {
            let oldest = self.origins.get(&heaviest).and_then(|of| of.silent.first().copied());
            return self.leave(oldest?);
        }
        let (heaviest, count) = self.spoken.heaviest()?;
        if count <= self.spoken.count(origin) + 1 {
            return None;
        }
        let latest = self.origins.get(&heaviest).and_then(|of| of.spoken.last().copied());
        self.leave(latest?)
    }

    /// Takes the oldest away of the address that has most.
    pub(crate) fn give_way_by_age(&mut self) -> Option<T> {
        let (heaviest, _) = self.spoken.heaviest()?;
        let oldest = self.origins.get(&heaviest).and_then(|of| of.spoken.first().copied());
        self.leave(oldest?)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn from(n: u8) -> PeerOrigin {
        Some(IpAddr::from([10, 0, 0, n]).into())
    }

    #[test]
    fn the_oldest_silent_one_of_the_address_that_has_most_gives_way() {
        let mut list = ArrivalList::default();
        list.arrive(from(1), "first");
        let spoken = list.arrive(from(2), "spoken");
        list.speak(spoken);
        for name in ["second", "third"] {
            list.arrive(from(2), name);
        }
        let order: Vec<_> = std::iter::from_fn(|| list.give_way(from(3))).collect();
        // Of two addresses that have as many it is either.
        assert_eq!(order[0], "second");
        assert!(order[1..] == ["third", "first"] || order[1..] == ["first", "third"], "{order:?}");
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn logins_give_way_only_to_those_of_an_address_that_has_fewer() {
        let mut list = ArrivalList::default();
        for name in ["first", "second", "third"] {
            let id = list.arrive(from(1), name);
            list.speak(id);
        }
        assert_eq!(list.give_way(from(1)), None);
        assert_eq!(list.give_way(from(2)), Some("third"));
        let id = list.arrive(from(2), "other");
        list.speak(id);
        assert_eq!(list.give_way(from(2)), None);
        assert_eq!(list.give_way(from(3)), Some("second"));
        assert_eq!(list.give_way(from(3)), None, "nobody has more than one");
        list.arrive(from(1), "fourth");
        assert_eq!(list.give_way(from(1)), Some("fourth"), "silence is nobody's right");
    }

    proptest! {
        #[test]
        fn an_address_with_its_share_keeps_what_has_spoken(steps in prop::collection::vec((0u8..4, 0u8..3), 1..200)) {
            const ROOM: usize = 12;
            let mut list = ArrivalList::default();
            let mut mine = Vec::new();
            for (who, what) in steps {
                if list.len() >= ROOM && list.give_way(from(who)).is_none() {
                    continue;
                }
                let id = list.arrive(from(who), (who, list.next));
                if what > 0 || who == 0 {
                    list.speak(id);
                }
                // A balancer names the address of one that has come before.
                if what == 2 {
                    let other = id.saturating_sub(3);
                    if !mine.contains(&other) {
                        list.come_from(other, from(1 + who % 3));
                    }
                }
                // Address 0 never has more than a fifth of the room.
                if who == 0 {
                    mine.push(id);
                    if mine.len() > ROOM / 5 {
                        prop_assert!(list.leave(mine.remove(0)).is_some());
                    }
                }
                prop_assert!(list.len() <= ROOM);
                prop_assert!(mine.iter().all(|id| list.all.contains_key(id)));
                let of_origins = list.origins.values().map(|of| of.silent.len() + of.spoken.len());
                prop_assert_eq!(of_origins.sum::<usize>(), list.len());
            }
        }
    }
}
