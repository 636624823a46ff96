//! The readers of one database, and which of them is lent from, dialled, and relieved.
//!
//! Pure, as all of the core. A topology says which servers there are and what they are for; whether one answers is
//! seen where it is dialled. A busy server is not a dead one: only a dial that fails, or a topology that cannot ask it,
//! takes a reader out of use. One that comes into use has little weight at first, so that its caches fill before its
//! part of the load comes; its part of the backends moves there a few a second.

use std::sync::Arc;
use std::time::Duration;

use slotmap::SlotMap;
use tokio::time::Instant;

use super::endpoint::{FailureKind, Health};
use super::slot::{ReaderId, SlotCounts, SlotPhase};
use crate::config::LoadBalance;
use crate::pool::host_port::{HostPort, ServerTarget};
use crate::words::words;

/// A reader that comes into use has its whole weight after this long.
const ENTRY: Duration = Duration::from_secs(3);

/// The weight that it begins with.
const ENTRY_WEIGHT: f64 = 0.1;

/// The primary stands in once no reader could be used for this long: all servers have been asked by then.
const STAND_IN_AFTER: Duration = Duration::from_secs(1);

/// One in this many of a database's backends may move to another reader in a second.
const MOVES_PART: u32 = 8;

/// As many may move in a second at least.
const MOVES_MIN: u32 = 2;

/// A backend too many or too few, as far as fractions of weights show it.
const ONE: f64 = 0.999;

/// How readers are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReaderRules {
    /// Which of several is lent.
    pub(crate) load_balance: LoadBalance,
    /// Backends at servers that stand in.
    pub(crate) fallback_max: u32,
}

words! {
    /// The use of a server, as its topology sees it.
    pub(crate) enum ReaderDuty {
        /// It serves reads.
        Reads = "reads",
        /// It serves them while no reader can be used: the primary.
        StandsIn = "stands in",
        /// It gets nothing, and what it has ends: it lags, cannot be asked, or is no reader any more.
        Drains = "drains",
    }
}

/// A server, in the order of preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReaderSpec {
    /// Where it is.
    pub(crate) target: ServerTarget,
    pub(crate) duty: ReaderDuty,
    /// It is near.
    pub(crate) is_preferred: bool,
}

impl ReaderSpec {
    /// Whether it is the server that a topology knows by this host: one that was found by a name by its address.
    pub(crate) fn is_at(&self, host: &HostPort) -> bool {
        let ServerTarget { host: own, address } = &self.target;
        match address {
            None => own == host,
            Some(address) => own.port == host.port && address.to_string() == host.host,
        }
    }
}

words! {
    /// The state of a reader.
    pub(crate) enum ReaderState {
        /// It has its part of the clients.
        Used = "used",
        /// It has come into use, and gets its part little by little.
        Entering = "entering",
        /// Others come first: they are near, or before it in the list.
        Spare = "spare",
        /// It could not be dialled.
        Down = "down",
        /// It gets nothing, and what it has ends.
        Draining = "draining",
    }
}

/// One reader at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReaderView {
    /// Where it is.
    pub(crate) target: Arc<ServerTarget>,
    pub(crate) state: ReaderState,
    pub(crate) counts: SlotCounts,
    /// Leases since it became known.
    pub(crate) leases: u64,
}

/// How a reader stands among the others at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    /// It is lent from and dialled.
    Used,
    /// What is idle there may be lent, rather than nothing.
    Spare,
    /// Nothing of it is lent.
    Unused,
}

#[derive(Debug)]
struct ReaderServer {
    target: Arc<ServerTarget>,
    duty: ReaderDuty,
    is_preferred: bool,
    /// A topology or the configuration names it; otherwise it ends with its last backend.
    is_named: bool,
    health: Health,
    counts: SlotCounts,
    rank: Rank,
    /// Since when it can be used, as of the last look; `None`: it cannot.
    usable_since: Option<Instant>,
    leases: u64,
    /// When it was lent last, in leases of all readers.
    turn: u64,
}

impl ReaderServer {
    fn is_down(&self) -> bool {
        self.health.down_since().is_some()
    }

    fn active(&self) -> f64 {
        f64::from(self.counts.leased + self.counts.handed)
    }
}

/// All readers of a database.
#[derive(Debug)]
pub(super) struct Readers {
    rules: ReaderRules,
    readers: SlotMap<ReaderId, ReaderServer>,
    /// In the order of preference, those that only end included.
    order: Vec<ReaderId>,
    /// Since when no reader can be used.
    none_since: Option<Instant>,
    /// Leases in all.
    turns: u64,
    /// When the next backend may move.
    next_move: Instant,
}

impl Readers {
    pub(super) fn new(rules: ReaderRules, now: Instant) -> Self {
        let (readers, order) = Default::default();
        Self { rules, readers, order, none_since: Some(now), turns: 0, next_move: now }
    }

    /// These are the servers, and the rules of their use; one that is not named any more ends.
    pub(super) fn set(&mut self, rules: ReaderRules, specs: Vec<ReaderSpec>, now: Instant) {
        self.rules = rules;
        let mut order = Vec::with_capacity(specs.len());
        for ReaderSpec { target, duty, is_preferred } in specs {
            let mut known = order.iter().chain(&self.order).copied();
            let known = known.find(|id| *self.readers[*id].target == target);
            let id = known.unwrap_or_else(|| {
                self.readers.insert(ReaderServer {
                    target: Arc::new(target),
                    duty,
                    is_preferred,
                    is_named: true,
                    health: Health::new(),
                    counts: SlotCounts::default(),
                    rank: Rank::Unused,
                    usable_since: None,
                    leases: 0,
                    turn: self.turns,
                })
            });
            let reader = &mut self.readers[id];
            (reader.duty, reader.is_preferred, reader.is_named) = (duty, is_preferred, true);
            if !order.contains(&id) {
                order.push(id);
            }
        }
        for id in std::mem::replace(&mut self.order, order) {
            if !self.order.contains(&id) {
                (self.readers[id].duty, self.readers[id].is_named) = (ReaderDuty::Drains, false);
                self.order.push(id);
            }
        }
        self.rank(now);
    }

    /// Ranks the readers anew, after one of them has changed or time has passed.
    pub(super) fn rank(&mut self, now: Instant) {
        let is_usable = |reader: &ReaderServer| reader.duty == ReaderDuty::Reads && !reader.is_down();
        let is_ordered = self.rules.load_balance == LoadBalance::Order;
        let tier = |(place, id): (usize, &ReaderId)| {
            let reader = &self.readers[*id];
            is_usable(reader).then_some((!reader.is_preferred, if is_ordered { place } else { 0 }))
        };
        let tiers: Vec<_> = self.order.iter().enumerate().map(tier).collect();
        let best = tiers.iter().copied().flatten().min();
        self.none_since = match best {
            Some(_) => None,
            None => self.none_since.or(Some(now)),
        };
        let stands_in = self.rules.fallback_max > 0
            && self.none_since.is_some_and(|since| now >= since + STAND_IN_AFTER)
            && self.readers.values().any(|reader| reader.duty == ReaderDuty::StandsIn);
        for (id, tier) in self.order.iter().zip(tiers) {
            let reader = &mut self.readers[*id];
            reader.rank = match (reader.duty, tier) {
                (ReaderDuty::Reads, Some(_)) if tier == best => Rank::Used,
                (ReaderDuty::Reads, Some(_)) => Rank::Spare,
                // It may be well all the same, and nobody else is.
                (ReaderDuty::Reads, None) if best.is_none() && !stands_in => Rank::Spare,
                (ReaderDuty::StandsIn, _) if stands_in => Rank::Used,
                _ => Rank::Unused,
            };
            reader.usable_since = match is_usable(reader) {
                true => reader.usable_since.or(Some(now)),
                false => None,
            };
        }
    }

    /// Forgets readers that are named no more and have no backend; returns them.
    pub(super) fn forget(&mut self) -> Vec<ReaderId> {
        let is_over = |reader: &ReaderServer| !reader.is_named && reader.counts.open() == 0;
        let over: Vec<_> = self.readers.iter().filter(|(_, reader)| is_over(reader)).map(|(id, _)| id).collect();
        for id in &over {
            self.readers.remove(*id);
            self.order.retain(|other| other != id);
        }
        over
    }

    /// Since when no server can be used that clients may be sent to.
    pub(super) fn unreachable_since(&self) -> Option<Instant> {
        let is_up = |reader: &ReaderServer| reader.rank == Rank::Used && !reader.is_down();
        if self.readers.values().any(is_up) { None } else { self.none_since }
    }

    /// Nobody was let in for a while, so waiters' time without a reader starts anew.
    pub(super) fn resumed(&mut self, now: Instant) {
        self.none_since = self.none_since.map(|_| now);
    }

    /// Whether nothing of this reader is lent.
    pub(super) fn is_unused(&self, id: ReaderId) -> bool {
        self.readers.get(id).is_none_or(|reader| reader.rank == Rank::Unused)
    }

    /// Readers of which nothing is lent, though backends are idle there or promised.
    pub(super) fn unused_with_some(&self) -> Vec<ReaderId> {
        let has_some =
            |reader: &ReaderServer| reader.rank == Rank::Unused && reader.counts.idle + reader.counts.handed > 0;
        self.readers.iter().filter(|(_, reader)| has_some(reader)).map(|(id, _)| id).collect()
    }

    pub(super) fn target(&self, id: ReaderId) -> Option<Arc<ServerTarget>> {
        self.readers.get(id).map(|reader| Arc::clone(&reader.target))
    }

    /// A backend of this reader came from one phase to another.
    #[inline]
    pub(super) fn shift(&mut self, id: ReaderId, from: Option<SlotPhase>, to: Option<SlotPhase>) {
        if let Some(reader) = self.readers.get_mut(id) {
            reader.counts.shift(from, to);
        }
    }

    /// The reader of which the next client gets a backend, among those where one is idle.
    pub(super) fn lend(&mut self, has_idle: impl Fn(ReaderId) -> bool, now: Instant) -> Option<ReaderId> {
        let idle = || self.order.iter().copied().filter(|id| has_idle(*id));
        let of = |id: &ReaderId| &self.readers[*id];
        let used = idle().filter(|id| of(id).rank == Rank::Used);
        let chosen = match self.rules.load_balance {
            LoadBalance::RoundRobin => used.min_by_key(|id| of(id).turn),
            LoadBalance::Least | LoadBalance::Order => {
                let load = |id: &ReaderId| of(id).active() / self.weight(*id, now);
                used.min_by(|a, b| load(a).total_cmp(&load(b)).then(of(a).turn.cmp(&of(b).turn)))
            }
        };
        let chosen = chosen.or_else(|| idle().find(|id| of(id).rank == Rank::Spare))?;
        self.turns += 1;
        let lent = &mut self.readers[chosen];
        (lent.turn, lent.leases) = (self.turns, lent.leases + 1);
        Some(chosen)
    }

    /// A reader's part of the load, beside that of the others.
    fn weight(&self, id: ReaderId, now: Instant) -> f64 {
        let reader = &self.readers[id];
        match (reader.rank, reader.duty, reader.usable_since) {
            (Rank::Used, ReaderDuty::Reads, Some(since)) if self.rules.load_balance != LoadBalance::Order => {
                let entered = now.saturating_duration_since(since).as_secs_f64() / ENTRY.as_secs_f64();
                entered.clamp(ENTRY_WEIGHT, 1.0)
            }
            (Rank::Used, ..) => 1.0,
            (Rank::Spare | Rank::Unused, ..) => 0.0,
        }
    }

    /// Dials that may start now, over all readers.
    pub(super) fn dials_allowed(&self, now: Instant) -> u32 {
        self.dialable(now).map(|(_, dials)| dials).fold(0, u32::saturating_add)
    }

    /// Readers that may be dialled, with how often at once.
    fn dialable(&self, now: Instant) -> impl Iterator<Item = (ReaderId, u32)> {
        let is_any_used = self.readers.values().any(|reader| reader.rank == Rank::Used);
        let wanted = if is_any_used { Rank::Used } else { Rank::Spare };
        let ids = self.order.iter().copied().filter(move |id| self.readers[*id].rank == wanted);
        ids.map(move |id| (id, self.dials(id, now))).filter(|(_, dials)| *dials > 0)
    }

    fn dials(&self, id: ReaderId, now: Instant) -> u32 {
        let ReaderServer { duty, health, counts, .. } = &self.readers[id];
        let dials = health.dials_allowed(counts.opening, now);
        match duty {
            ReaderDuty::Reads => dials,
            ReaderDuty::StandsIn => dials.min(self.rules.fallback_max.saturating_sub(counts.open())),
            ReaderDuty::Drains => 0,
        }
    }

    /// The reader that the next backend of a pool is opened at: the one with the least for its weight. `live` counts
    /// the pool's own.
    pub(super) fn dial_target(&self, live: impl Fn(ReaderId) -> u32, now: Instant) -> Option<ReaderId> {
        let load = |id: ReaderId| {
            // A spare one is dialled where no other can be: all the same weight.
            let weight = Some(self.weight(id, now)).filter(|weight| *weight > 0.0).unwrap_or(1.0);
            (f64::from(live(id)) / weight, f64::from(self.readers[id].counts.live()) / weight)
        };
        let ids = self.dialable(now).map(|(id, _)| id);
        ids.min_by(|a, b| {
            let (a, b) = (load(*a), load(*b));
            a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
        })
    }

    /// Readers that are down and may be dialled to see whether they still are.
    pub(super) fn due_probes(&self, now: Instant) -> Vec<ReaderId> {
        let is_due = |id: &ReaderId| {
            let reader = &self.readers[*id];
            reader.duty == ReaderDuty::Reads && reader.is_down() && self.dials(*id, now) > 0
        };
        self.order.iter().copied().filter(is_due).collect()
    }

    /// Whether a dial to it now only shows whether it answers.
    pub(super) fn is_probe(&self, id: ReaderId) -> bool {
        !self.readers[id].health.is_up()
    }

    /// A dial succeeded.
    pub(super) fn opened(&mut self, id: ReaderId, now: Instant) {
        if let Some(reader) = self.readers.get_mut(id) {
            reader.health.succeeded();
            self.rank(now);
        }
    }

    /// A dial failed. A server that is full for one role has no room for it, which says nothing about the others.
    pub(super) fn failed(&mut self, id: ReaderId, kind: FailureKind, is_probe: bool, now: Instant, uniform: f64) {
        if let Some(reader) = self.readers.get_mut(id) {
            let kind = if kind == FailureKind::Full { FailureKind::Busy } else { kind };
            reader.health.failed(kind, is_probe, now, uniform);
            self.rank(now);
        }
    }

    /// A server answered beside the pools: the next dial need not wait for the end of a back-off.
    pub(super) fn reached(&mut self, target: &ServerTarget, now: Instant) {
        let reached = self.readers.values_mut().filter(|reader| *reader.target == *target);
        reached.for_each(|reader| reader.health.proved());
        self.rank(now);
    }

    /// The reader that has a backend too many while another has one too few, by their weights; `live` counts those of
    /// one pool that stay.
    pub(super) fn overloaded(&self, live: impl Fn(ReaderId) -> u32, now: Instant) -> Option<ReaderId> {
        let weights: f64 = self.order.iter().map(|id| self.weight(*id, now)).sum();
        let total: u32 = self.order.iter().map(|id| live(*id)).sum();
        if weights == 0.0 {
            return None;
        }
        let excess = |id: ReaderId| f64::from(live(id)) - f64::from(total) * self.weight(id, now) / weights;
        let lacks_one = |id: &ReaderId| {
            let reader = &self.readers[*id];
            reader.rank == Rank::Used && !reader.is_down() && excess(*id) <= -ONE && self.dials(*id, now) > 0
        };
        self.order.iter().find(|id| lacks_one(id))?;
        let most = self.order.iter().copied().max_by(|a, b| excess(*a).total_cmp(&excess(*b)))?;
        (excess(most) >= ONE).then_some(most)
    }

    /// Whether a backend may move to another reader now; the next may a little later.
    pub(super) fn may_move(&self, now: Instant) -> bool {
        now >= self.next_move
    }

    /// A backend moves, of `live` in all.
    pub(super) fn moved(&mut self, live: u32, now: Instant) {
        let in_a_second = (live / MOVES_PART).max(MOVES_MIN);
        // A pause saves up for no more than one tick.
        let begin = self.next_move.max(now.checked_sub(Duration::from_millis(100)).unwrap_or(now));
        self.next_move = begin + Duration::from_secs(1) / in_a_second;
    }

    pub(super) fn views(&self, now: Instant) -> Vec<ReaderView> {
        let view = |id: &ReaderId| {
            let reader = &self.readers[*id];
            let state = match (reader.rank, reader.duty) {
                (_, ReaderDuty::Drains) => ReaderState::Draining,
                _ if reader.is_down() => ReaderState::Down,
                (Rank::Used, _) if self.weight(*id, now) < 1.0 => ReaderState::Entering,
                (Rank::Used, _) => ReaderState::Used,
                (Rank::Spare | Rank::Unused, _) => ReaderState::Spare,
            };
            let ReaderServer { target, counts, leases, .. } = reader;
            ReaderView { target: Arc::clone(target), state, counts: *counts, leases: *leases }
        };
        self.order.iter().map(view).collect()
    }
}

#[cfg(test)]
impl Readers {
    /// A dial to this reader has just been decided.
    pub(super) fn check_dial(&self, id: ReaderId) {
        let ReaderServer { duty, health, counts, .. } = &self.readers[id];
        assert!(counts.opening <= super::endpoint::DIALS_MAX, "too many dials to a reader at once");
        assert!(health.is_up() || counts.opening == 1, "more than one prober of a reader");
        assert_ne!(*duty, ReaderDuty::Drains, "a dial to a reader that gets nothing");
        if *duty == ReaderDuty::StandsIn {
            assert!(counts.open() <= self.rules.fallback_max, "more than fallback_max");
        }
    }

    /// These are the backends of each reader.
    pub(super) fn check_counts(&self, counts: &slotmap::SecondaryMap<ReaderId, SlotCounts>) {
        for (id, reader) in &self.readers {
            assert_eq!(reader.counts, counts.get(id).copied().unwrap_or_default());
            assert!(self.order.contains(&id), "a reader without a place");
        }
        assert!(counts.keys().all(|id| self.readers.contains_key(id)), "a backend of a reader that is forgotten");
        let is_stand_in_used = self.readers.values().any(|it| it.duty == ReaderDuty::StandsIn && it.rank == Rank::Used);
        let is_any_usable = self.readers.values().any(|it| it.duty == ReaderDuty::Reads && !it.is_down());
        assert!(!(is_stand_in_used && is_any_usable), "the primary stands in beside a reader");
    }
}
