//! The leases of this process: what it wants, what it was granted, and what it knows of the others.
//!
//! A service asks the book and applies the shares; the console and the page look.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::engine::{EngineAnswer, KeptOrder, SeenMember};
use super::holder::{LeaseHolder, LeaseState};
use super::peaks::Peaks;
use super::{Grant, LeaseRequest, LeaseWant};
use crate::admission::fleet_share::{FleetShare, FleetUse};

/// All of it.
#[derive(Debug)]
pub(crate) struct Leases {
    /// Our name in the book.
    pub(crate) id: String,
    /// There is something to say at once.
    pub(crate) urgent: Notify,
    state: Mutex<LeasesState>,
}

#[derive(Debug, Default)]
struct LeasesState {
    holder: LeaseHolder,
    /// By the name of the limit.
    peaks: HashMap<String, Peaks>,
    grants: BTreeMap<String, Grant>,
    members: Arc<[SeenMember]>,
    answered: Option<Instant>,
    lag: Duration,
    counts: LeaseCounts,
    orders: Orders,
}

/// Orders for roles, each with the last one only.
#[derive(Debug, Default)]
struct Orders {
    /// Given here, and not in the book so far.
    given: BTreeMap<String, String>,
    /// As the book has them, and as it had them before it forgot.
    kept: BTreeMap<String, KeptOrder>,
    /// Those of the last request.
    sent: Vec<(String, KeptOrder)>,
}

/// Requests to the book since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LeaseCounts {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
}

/// The leases at one moment.
#[derive(Debug, Clone)]
pub(crate) struct LeasesView {
    pub(crate) state: LeaseState,
    /// Members by which limits are divided when the book is lost; 0: not known.
    pub(crate) knows: u32,
    /// As they were when the book answered last.
    pub(crate) members: Arc<[SeenMember]>,
    /// By the name of the limit.
    pub(crate) grants: BTreeMap<String, Grant>,
    /// When the book answered last.
    pub(crate) answered: Option<Instant>,
    /// When it was lost, unless it answers.
    pub(crate) lost_since: Option<Instant>,
    /// How long the last answer took.
    pub(crate) lag: Duration,
    pub(crate) counts: LeaseCounts,
}

/// The shares to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaseShares {
    pub(crate) state: LeaseState,
    /// In the order of the limits that were asked for.
    pub(crate) own: Vec<FleetShare>,
    /// Of everything else.
    pub(crate) general: FleetShare,
    /// To be applied again before that.
    pub(crate) until: Instant,
}

impl LeasesView {
    /// Members, ourselves included; those that were there last, if the book is lost.
    pub(crate) fn size(&self) -> u32 {
        u32::try_from(self.members.len().max(1)).expect("fewer members than that")
    }

    /// All members but this one, as of now.
    pub(crate) fn others(&self, me: &str, now: Instant) -> Vec<SeenMember> {
        let since = self.answered.map_or(Duration::ZERO, |answered| now.saturating_duration_since(answered));
        let others = self.members.iter().filter(|member| member.id != me);
        others.map(|member| SeenMember { age: member.age + since, ..member.clone() }).collect()
    }
}

impl Leases {
    /// Of an instance with this id, which nothing has been granted.
    pub(crate) fn new(id: u64) -> Self {
        Self { id: format!("{id:016x}"), urgent: Notify::new(), state: Mutex::default() }
    }

    /// Takes note of what is used, and says whether more is wanted than may be had.
    pub(crate) fn note<'a>(&self, uses: impl Iterator<Item = (&'a str, FleetUse)>, now: Instant) -> bool {
        let mut state = self.state();
        let mut is_pressed = false;
        for (name, seen) in uses {
            is_pressed |= seen.wanted > seen.cap && seen.cap < seen.limit;
            match state.peaks.get_mut(name) {
                Some(peaks) => peaks.note(seen.wanted, now),
                None => {
                    let mut peaks = Peaks::new(now);
                    peaks.note(seen.wanted, now);
                    state.peaks.insert(name.to_owned(), peaks);
                }
            }
        }
        is_pressed
    }

    /// The next request.
    pub(crate) fn request<'a>(&self, uses: impl Iterator<Item = (&'a str, FleetUse)>, weight: u32) -> LeaseRequest {
        let mut state = self.state();
        let peaks = &state.peaks;
        let want = |(name, seen): (&str, FleetUse)| {
            let want = peaks.get(name).map_or(seen.wanted, Peaks::most);
            (name.to_owned(), LeaseWant { limit: seen.limit, want, cap: seen.cap, used: seen.used })
        };
        let wants: BTreeMap<_, _> = uses.map(want).collect();
        state.peaks.retain(|name, _| wants.contains_key(name));
        LeaseRequest { seq: state.holder.next_seq(), weight, knows: state.holder.knows(), wants }
    }

    /// The number of a request without wants.
    pub(crate) fn next_seq(&self) -> u64 {
        self.state().holder.next_seq()
    }

    /// An order was given, and carried out here.
    pub(crate) fn give(&self, role: &str, order: String) {
        self.state().orders.given.insert(role.to_owned(), order);
        self.urgent.notify_one();
    }

    /// Orders to be written into the book: what was given here, or all that the book may have forgotten.
    pub(crate) fn unwritten(&self) -> Vec<(String, KeptOrder)> {
        let mut state = self.state();
        let Orders { given, kept, sent } = &mut state.orders;
        let new = given.iter().map(|(role, text)| (role.clone(), KeptOrder { text: text.clone(), since: 0 }));
        let old = kept.iter().filter(|(role, _)| !given.contains_key(*role));
        *sent = new.chain(old.map(|(role, order)| (role.clone(), order.clone()))).collect();
        sent.clone()
    }

    /// Takes note of the orders in the book, and returns those that are new here.
    pub(crate) fn learn(&self, orders: &BTreeMap<String, KeptOrder>) -> Vec<(String, KeptOrder)> {
        let mut state = self.state();
        let Orders { given, kept, sent } = &mut state.orders;
        let mut new = Vec::new();
        for (role, order) in orders {
            if kept.get(role).is_some_and(|known| known.since >= order.since) {
                continue;
            }
            let was_sent = sent.iter().any(|(of, sent)| of == role && sent.since == 0 && sent.text == order.text);
            if was_sent && given.get(role) == Some(&order.text) {
                given.remove(role);
            } else if !given.contains_key(role) {
                new.push((role.clone(), order.clone()));
            }
            kept.insert(role.clone(), order.clone());
        }
        new
    }

    /// The orders in force.
    pub(crate) fn orders(&self) -> BTreeMap<String, KeptOrder> {
        self.state().orders.kept.clone()
    }

    /// The book has answered what was asked at `asked`.
    pub(crate) fn answered(&self, answer: &EngineAnswer, asked: Instant, now: Instant) {
        let mut state = self.state();
        state.holder.answered(&answer.book, asked);
        state.grants.clone_from(&answer.book.grants);
        state.members = answer.members.as_slice().into();
        state.answered = Some(now);
        state.lag = now.saturating_duration_since(asked);
        state.counts.answered += 1;
    }

    /// A request has failed.
    pub(crate) fn failed(&self, now: Instant) {
        let mut state = self.state();
        state.holder.failed(now);
        state.counts.failed += 1;
    }

    /// The shares of these limits.
    pub(crate) fn shares<'a>(&self, uses: impl Iterator<Item = (&'a str, FleetUse)>, now: Instant) -> LeaseShares {
        let mut locked = self.state();
        let (state, until) = locked.holder.apply(now);
        let holder = &locked.holder;
        let own = uses.map(|(name, seen)| holder.share(name, seen.limit, now)).collect();
        LeaseShares { state, own, general: holder.general(now), until }
    }

    /// By what transactions are let in now.
    pub(crate) fn current(&self, now: Instant) -> LeaseState {
        self.state().holder.state(now)
    }

    /// The leases now.
    pub(crate) fn view(&self, now: Instant) -> LeasesView {
        let state = self.state();
        LeasesView {
            state: state.holder.state(now),
            knows: state.holder.knows(),
            members: Arc::clone(&state.members),
            grants: state.grants.clone(),
            answered: state.answered,
            lost_since: state.holder.lost_since(),
            lag: state.lag,
            counts: state.counts,
        }
    }

    fn state(&self) -> MutexGuard<'_, LeasesState> {
        self.state.lock().expect("no panic while held")
    }
}
