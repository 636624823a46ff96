//! Logins that wait for the same thing, served fairly. Pure.
//!
//! Roles that are known go before connections that have not named one, and those before roles that nobody knows. Among
//! equals the addresses take turns, so an address with a thousand logins delays one with a single login by one turn. So
//! do the roles of one address, because many clients may share one: behind a balancer, or a network's way out.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::arrival_list::PeerOrigin;
use super::loads::Loads;

/// How much is known of a login. In the order in which they are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Of a role with a section of its own, or with clients.
    Known,
    /// It has not named a role yet.
    Unnamed,
    /// Of any other role.
    Unknown,
}

impl Standing {
    const ALL: [Self; 3] = [Self::Known, Self::Unnamed, Self::Unknown];
}

/// The role that a login has named, hashed; 0 where it has named none.
type RoleKey = u64;

/// A login that waits, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    origin: PeerOrigin,
    standing: Standing,
    role: RoleKey,
}

impl Caller {
    /// pgweir itself.
    pub(crate) const OWN: Self = Self { origin: None, standing: Standing::Known, role: 0 };

    /// A connection that has not named a role yet.
    pub(crate) fn unnamed(origin: PeerOrigin) -> Self {
        Self { origin, standing: Standing::Unnamed, role: 0 }
    }

    /// A login of this role.
    pub(crate) fn new(origin: PeerOrigin, role: &str, is_known: bool) -> Self {
        let standing = if is_known { Standing::Known } else { Standing::Unknown };
        let mut hasher = DefaultHasher::new();
        role.hash(&mut hasher);
        Self { origin, standing, role: hasher.finish() }
    }

    /// Where it comes from.
    pub(crate) fn origin(&self) -> PeerOrigin {
        self.origin
    }
}

/// The place of a login in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FairTicket {
    caller: Caller,
    id: u64,
}

/// Those of one standing.
#[derive(Debug)]
struct Equals<T> {
    /// Addresses in the order of their turns, each with somebody who waits.
    turns: VecDeque<PeerOrigin>,
    waiting: HashMap<PeerOrigin, OfAddress<T>>,
    loads: Loads<PeerOrigin>,
}

/// Those of one standing and one address.
#[derive(Debug)]
struct OfAddress<T> {
    /// Roles in the order of their turns, each with somebody who waits.
    turns: VecDeque<RoleKey>,
    /// In order of arrival, so of growing numbers.
    waiting: HashMap<RoleKey, VecDeque<(u64, T)>>,
    loads: Loads<RoleKey>,
}

#[derive(Debug)]
pub(super) struct FairQueue<T> {
    next: u64,
    equals: [Equals<T>; Standing::ALL.len()],
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { next: 0, equals: Standing::ALL.map(|_| Equals::default()) }
    }
}

impl<T> FairQueue<T> {
    pub(super) fn push(&mut self, caller: Caller, item: T) -> FairTicket {
        let id = self.next;
        self.next += 1;
        self.equals[caller.standing as usize].push(caller, id, item);
        FairTicket { caller, id }
    }

    /// Takes the one whose turn it is.
    pub(super) fn pop(&mut self) -> Option<(FairTicket, T)> {
        Standing::ALL.into_iter().find_map(|standing| {
            let (origin, role, id, item) = self.equals[standing as usize].pop()?;
            Some((FairTicket { caller: Caller { origin, standing, role }, id }, item))
        })
    }

    /// Takes one away that this newcomer goes before: of a lower standing, or of an address that has more than the
    /// newcomer's would have then. It is the latest of the role that has most there.
    pub(super) fn give_way(&mut self, newcomer: Caller) -> Option<T> {
        let (standing, of) = Standing::ALL
            .into_iter()
            .zip(&mut self.equals)
            .rev()
            .find(|(standing, of)| *standing >= newcomer.standing && !of.turns.is_empty())?;
        let (heaviest, count) = of.loads.heaviest()?;
        if standing == newcomer.standing && count <= of.loads.count(newcomer.origin) + 1 {
            return None;
        }
        let of_address = of.waiting.get(&heaviest)?;
        let (role, _) = of_address.loads.heaviest()?;
        let id = of_address.waiting.get(&role)?.back()?.0;
        of.remove(heaviest, role, id)
    }

    /// `None`: it is not waiting any more.
    pub(super) fn get_mut(&mut self, ticket: FairTicket) -> Option<&mut T> {
        let FairTicket { caller, id } = ticket;
        let of_address = self.equals[caller.standing as usize].waiting.get_mut(&caller.origin)?;
        let waiting = of_address.waiting.get_mut(&caller.role)?;
        let at = waiting.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        waiting.get_mut(at).map(|(_, item)| item)
    }

    pub(super) fn remove(&mut self, ticket: FairTicket) -> Option<T> {
        let FairTicket { caller, id } = ticket;
        self.equals[caller.standing as usize].remove(caller.origin, caller.role, id)
    }
}

impl<T> Default for Equals<T> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), waiting: HashMap::new(), loads: Loads::default() }
    }
}

impl<T> Default for OfAddress<T> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), waiting: HashMap::new(), loads: Loads::default() }
    }
}

impl<T> Equals<T> {
    fn push(&mut self, caller: Caller, id: u64, item: T) {
        let of_address = self.waiting.entry(caller.origin).or_default();
        if of_address.turns.is_empty() {
            self.turns.push_back(caller.origin);
        }
        of_address.push(caller.role, id, item);
        self.loads.add(caller.origin);
    }

    fn pop(&mut self) -> Option<(PeerOrigin, RoleKey, u64, T)> {
        let origin = self.turns.pop_front()?;
        let of_address = self.waiting.get_mut(&origin)?;
        let (role, id, item) = of_address.pop()?;
        self.loads.sub(origin);
        if of_address.turns.is_empty() {
            self.waiting.remove(&origin);
        } else {
            self.turns.push_back(origin);
        }
        Some((origin, role, id, item))
    }

    fn remove(&mut self, origin: PeerOrigin, role: RoleKey, id: u64) -> Option<T> {
        let of_address = self.waiting.get_mut(&origin)?;
        let item = of_address.remove(role, id)?;
        self.loads.sub(origin);
        if of_address.turns.is_empty() {
            self.waiting.remove(&origin);
            self.turns.retain(|turn| *turn != origin);
        }
        Some(item)
    }
}

impl<T> OfAddress<T> {
    fn push(&mut self, role: RoleKey, id: u64, item: T) {
        let waiting = self.waiting.entry(role).or_default();
        if waiting.is_empty() {
            self.turns.push_back(role);
        }
        waiting.push_back((id, item));
        self.loads.add(role);
    }

    fn pop(&mut self) -> Option<(RoleKey, u64, T)> {
        let role = self.turns.pop_front()?;
        let waiting = self.waiting.get_mut(&role)?;
        let (id, item) = waiting.pop_front()?;
        self.loads.sub(role);
        if waiting.is_empty() {
            self.waiting.remove(&role);
        } else {
            self.turns.push_back(role);
        }
        Some((role, id, item))
    }

    fn remove(&mut self, role: RoleKey, id: u64) -> Option<T> {
        let waiting = self.waiting.get_mut(&role)?;
        let at = waiting.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let (_, item) = waiting.remove(at)?;
        self.loads.sub(role);
        if waiting.is_empty() {
            self.waiting.remove(&role);
            self.turns.retain(|turn| *turn != role);
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn known(n: u8) -> Caller {
        Caller::new(Some(IpAddr::from([10, 0, 0, n]).into()), "role", true)
    }

    fn unknown(n: u8) -> Caller {
        Caller { standing: Standing::Unknown, ..known(n) }
    }

    fn order<T>(queue: &mut FairQueue<T>) -> Vec<T> {
        std::iter::from_fn(|| queue.pop()).map(|(_, item)| item).collect()
    }

    #[test]
    fn addresses_take_turns_and_known_roles_go_first() {
        let mut queue = FairQueue::default();
        for (caller, name) in
            [(unknown(1), "u1"), (known(1), "a1"), (known(1), "a2"), (known(1), "a3"), (known(2), "b1")]
        {
            queue.push(caller, name);
        }
        queue.push(Caller::unnamed(known(3).origin), "handshake");
        assert_eq!(order(&mut queue), ["a1", "b1", "a2", "a3", "handshake", "u1"]);
    }

    #[test]
    fn roles_of_one_address_take_turns() {
        let mut queue = FairQueue::default();
        let other = Caller { role: 7, ..unknown(1) };
        for name in ["a1", "a2", "a3"] {
            queue.push(unknown(1), name);
        }
        let last = queue.push(other, "b1");
        queue.push(unknown(2), "c1");
        assert_eq!(queue.give_way(unknown(3)), Some("a3"), "the latest of the role that has most");
        assert_eq!(queue.get_mut(last), Some(&mut "b1"));
        assert_eq!(order(&mut queue), ["a1", "c1", "b1", "a2"]);
    }

    #[test]
    fn the_one_that_gives_way_is_of_a_lower_standing_or_of_an_address_with_more() {
        let mut queue = FairQueue::default();
        for name in ["a1", "a2", "a3"] {
            queue.push(known(1), name);
        }
        queue.push(unknown(2), "u1");
        assert_eq!(queue.give_way(unknown(2)), None);
        assert_eq!(queue.give_way(known(1)), Some("u1"));
        assert_eq!(queue.give_way(known(1)), None);
        assert_eq!(queue.give_way(unknown(2)), None);
        assert_eq!(queue.give_way(known(2)), Some("a3"));
        queue.push(known(2), "b1");
        assert_eq!(queue.give_way(known(2)), None);
        assert_eq!(order(&mut queue), ["a1", "b1", "a2"]);
    }

    proptest! {
        #[test]
        fn nobody_is_lost_and_nobody_waits_longer_than_a_turn_of_each_address(
            steps in prop::collection::vec((0u8..5, 0u8..4), 1..300)
        ) {
            let mut queue = FairQueue::default();
            let mut waiting = Vec::new();
            let mut since_mine = 0;
            for (who, step) in steps {
                match step {
                    0 | 1 => waiting.push(queue.push(known(who), who)),
                    2 => {
                        let has_mine = waiting.iter().any(|ticket| ticket.caller == known(0));
                        if let Some((ticket, item)) = queue.pop() {
                            prop_assert_eq!(ticket.caller, known(item));
                            let at = waiting.iter().position(|of| *of == ticket);
                            prop_assert!(at.is_some());
                            waiting.remove(at.unwrap());
                            since_mine = if item == 0 || !has_mine { 0 } else { since_mine + 1 };
                            prop_assert!(since_mine < 5);
                        } else {
                            prop_assert!(waiting.is_empty());
                        }
                    }
                    _ => {
                        if let Some(ticket) = waiting.pop() {
                            prop_assert!(queue.get_mut(ticket).is_some());
                            prop_assert!(queue.remove(ticket).is_some());
                            prop_assert!(queue.get_mut(ticket).is_none());
                            since_mine *= u32::from(waiting.iter().any(|ticket| ticket.caller == known(0)));
                        }
                    }
                }
            }
            prop_assert_eq!(order(&mut queue).len(), waiting.len());
            prop_assert!(queue.equals.iter().all(|of| of.waiting.is_empty() && of.loads.heaviest().is_none()));
        }
    }
}
