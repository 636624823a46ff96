//! Databases that are read from several servers: the core's side of [`Readers`].
//!
//! Idle backends of such a pool lie on the stacks of their reader. Those of a reader that is not used any more are
//! closed: idle and promised ones now, the others as they come back, so whatever is idle may be lent.

use slotmap::SecondaryMap;
use tokio::time::Instant;

use super::endpoint::Health;
use super::idle::IdleStacks;
use super::readers::{ReaderRules, ReaderSpec, ReaderView, Readers};
use super::slot::{ReaderId, Slot, SlotPhase, SlotState};
use super::{Command, Core, DatabaseId, DatabaseState, PoolId, PoolState, SlotId};
use crate::pool::host_port::ServerTarget;

impl DatabaseState {
    /// Since when none of its servers answers, by the last dials.
    pub(super) fn down_since(&self) -> Option<Instant> {
        match &self.readers {
            None => self.health.down_since(),
            Some(readers) => readers.unreachable_since(),
        }
    }
}

impl<B> Core<B> {
    /// A database is read from these servers from now on, by these rules.
    pub(crate) fn set_readers(
        &mut self,
        database: DatabaseId,
        rules: ReaderRules,
        specs: Vec<ReaderSpec>,
        now: Instant,
        out: &mut Vec<Command<B>>,
    ) {
        let Some(of) = self.databases.get(database) else { return };
        if of.readers.is_none() {
            for pool in of.pools.clone() {
                self.revoke_pool(pool, out);
                self.pools[pool].readers = Some(Box::default());
            }
            self.databases[database].readers = Some(Box::new(Readers::new(rules, now)));
        }
        self.change_readers(database, now, out, |readers| readers.set(rules, specs, now));
    }

    /// A database is no longer read from several servers: backends go where the configuration says.
    pub(crate) fn end_readers(&mut self, database: DatabaseId, now: Instant, out: &mut Vec<Command<B>>) {
        let Some(of) = self.databases.get(database).filter(|of| of.readers.is_some()) else { return };
        let pools = of.pools.clone();
        for pool in &pools {
            self.revoke_pool(*pool, out);
        }
        for slot in self.slots.values_mut().filter(|slot| pools.contains(&slot.pool)) {
            slot.reader = None;
        }
        let of = &mut self.databases[database];
        (of.readers, of.health) = (None, Health::new());
        pools.iter().for_each(|pool| self.pools[*pool].readers = None);
        self.recall(database, |_| true, now, out);
        pools.iter().for_each(|pool| self.replace(*pool, now, out));
    }

    /// A reader answered beside the pools.
    pub(crate) fn reader_reached(
        &mut self,
        database: DatabaseId,
        target: &ServerTarget,
        now: Instant,
        out: &mut Vec<Command<B>>,
    ) {
        self.change_readers(database, now, out, |readers| readers.reached(target, now));
    }

    /// The readers of a database, in the order of preference; none where it is not read from several servers.
    pub(crate) fn readers(&self, database: DatabaseId, now: Instant) -> Vec<ReaderView> {
        let readers = self.databases.get(database).and_then(|database| database.readers.as_ref());
        readers.map_or_else(Vec::new, |readers| readers.views(now))
    }

    /// Changes readers, and does what follows for backends and waiters.
    pub(super) fn change_readers(
        &mut self,
        database: DatabaseId,
        now: Instant,
        out: &mut Vec<Command<B>>,
        change: impl FnOnce(&mut Readers),
    ) {
        let Some(of) = self.databases.get_mut(database) else { return };
        let Some(readers) = &mut of.readers else { return };
        let was_down = readers.unreachable_since().is_some();
        change(readers);
        let is_back = was_down && readers.unreachable_since().is_none();
        let (unused, pools) = (readers.unused_with_some(), of.pools.clone());
        for reader in &unused {
            for pool in &pools {
                self.close_idle_at(*pool, *reader, out);
            }
        }
        if !unused.is_empty() {
            self.recall(database, |slot| slot.reader.is_some_and(|reader| unused.contains(&reader)), now, out);
        }
        for reader in self.databases[database].readers.as_mut().map_or_else(Vec::new, |readers| readers.forget()) {
            for pool in &pools {
                if let Some(of) = &mut self.pools[*pool].readers {
                    of.idle.remove(reader);
                }
            }
        }
        match is_back {
            true => self.let_in(database, now, out),
            false => self.serve(Some(database), now, out),
        }
    }

    fn close_idle_at(&mut self, pool: PoolId, reader: ReaderId, out: &mut Vec<Command<B>>) {
        while let Some(stacks) = self.pools[pool].readers.as_mut().and_then(|of| of.idle.get_mut(reader))
            && let Some(slot) = stacks.pop(0)
        {
            let backend = self.take(slot);
            self.close(slot, backend, out);
        }
    }

    /// Takes the idle backend from its stack that the next client of this worker gets.
    #[inline]
    pub(super) fn next_idle(&mut self, pool: PoolId, worker: usize, now: Instant) -> Option<SlotId> {
        let PoolState { database, idle, readers, .. } = &mut self.pools[pool];
        let Some(of) = readers else { return idle.pop(worker) };
        let has_idle = |reader| of.idle.get(reader).is_some_and(|stacks| !stacks.is_empty());
        let reader = self.databases[*database].readers.as_mut()?.lend(has_idle, now)?;
        of.idle.get_mut(reader)?.pop(worker)
    }

    /// Lays a backend that is idle from now on on its stack.
    #[inline]
    pub(super) fn lay_idle(&mut self, slot: SlotId) {
        let laid = &self.slots[slot];
        let pool = &mut self.pools[laid.pool];
        match (laid.reader, &mut pool.readers) {
            (Some(reader), Some(of)) => {
                let stacks = of.idle.entry(reader).expect("no newer reader has its place while it has a backend");
                stacks.or_insert_with(|| IdleStacks::new(self.workers)).push(laid.worker, slot);
            }
            _ => pool.idle.push(laid.worker, slot),
        }
    }

    pub(super) fn is_unused_reader(&self, pool: PoolId, reader: ReaderId) -> bool {
        let readers = &self.databases[self.pools[pool].database].readers;
        readers.as_ref().is_none_or(|readers| readers.is_unused(reader))
    }

    /// The reader that a dial of this pool goes to now.
    pub(super) fn dial_target(&self, pool: PoolId, now: Instant) -> Option<ReaderId> {
        let readers = self.databases[self.pools[pool].database].readers.as_ref()?;
        let live = self.live_at_readers(pool, now);
        readers.dial_target(|reader| live.get(reader).copied().unwrap_or(0), now)
    }

    /// Readers that are down and due for a look, each with a pool that can take one.
    pub(super) fn due_reader_probes(
        &self,
        can_probe: impl Fn(&PoolId) -> bool,
        now: Instant,
    ) -> Vec<(PoolId, ReaderId)> {
        let mut probes = Vec::new();
        for database in self.databases.values().filter(|database| !database.stops.is_any()) {
            let Some(readers) = &database.readers else { continue };
            let due = readers.due_probes(now);
            if let Some(pool) = (!due.is_empty()).then(|| database.pools.iter().copied().find(&can_probe)).flatten() {
                probes.extend(due.into_iter().map(|reader| (pool, reader)));
            }
        }
        probes
    }

    /// The backends of a pool at each reader, without those that end when they come back.
    fn live_at_readers(&self, pool: PoolId, now: Instant) -> SecondaryMap<ReaderId, u32> {
        let mut live = SecondaryMap::new();
        for (id, slot) in &self.slots {
            let is_live = !matches!(slot.state.phase(), SlotPhase::Closing | SlotPhase::Zombie);
            if let Some(reader) = slot.reader
                && slot.pool == pool
                && is_live
                && !self.is_spent(id, now)
                && let Some(entry) = live.entry(reader)
            {
                *entry.or_insert(0) += 1;
            }
        }
        live
    }

    /// Readers enter little by little, the primary stands in after a while, and backends move to where they are due.
    pub(super) fn tick_readers(&mut self, now: Instant, out: &mut Vec<Command<B>>) {
        let read = self.databases.iter().filter(|(_, database)| database.readers.is_some());
        for database in read.map(|(id, _)| id).collect::<Vec<_>>() {
            self.change_readers(database, now, out, |readers| readers.rank(now));
            self.balance_readers(database, now, out);
        }
    }

    fn balance_readers(&mut self, database: DatabaseId, now: Instant, out: &mut Vec<Command<B>>) {
        let of = &self.databases[database];
        if of.stops.is_any() {
            return;
        }
        let live = of.bound.counts.live();
        for pool in of.pools.clone() {
            let mut at = self.live_at_readers(pool, now);
            while let Some(readers) = self.databases[database].readers.as_mut()
                && readers.may_move(now)
                && let Some(from) = readers.overloaded(|reader| at.get(reader).copied().unwrap_or(0), now)
            {
                readers.moved(live, now);
                if !self.retire_one_at(pool, from, now, out) {
                    break;
                }
                at[from] -= 1;
                if let Some(of) = &mut self.pools[pool].readers {
                    of.owed += 1;
                }
            }
            self.open_owed(pool, now, out);
        }
    }

    /// Closes one backend of a pool at this reader: an idle one now, or one at work as it comes back.
    fn retire_one_at(&mut self, pool: PoolId, reader: ReaderId, now: Instant, out: &mut Vec<Command<B>>) -> bool {
        let stacks = self.pools[pool].readers.as_ref().and_then(|of| of.idle.get(reader));
        let idle = stacks.and_then(|stacks| stacks.oldest().next());
        if let Some(slot) = idle {
            // ## Idle => Closing: another reader is due a backend
            self.close_idle(slot, out);
            return true;
        }
        let is_meant = |(id, slot): &(SlotId, &Slot<B>)| {
            slot.pool == pool
                && slot.reader == Some(reader)
                && matches!(slot.state, SlotState::Leased | SlotState::Handed { .. })
                && !self.is_spent(*id, now)
        };
        let Some((slot, _)) = self.slots.iter().find(is_meant) else { return false };
        self.slots[slot].expires = Some(now);
        true
    }

    /// Opens at other readers what left one, as far as there is room.
    fn open_owed(&mut self, pool: PoolId, now: Instant, out: &mut Vec<Command<B>>) {
        let may_open = |core: &Self| {
            let of = &core.pools[pool];
            let has_room = of.counts.open() < of.limits.size && of.refused.is_none() && !of.is_removed;
            has_room && core.fits(pool) && core.dial_target(pool, now).is_some()
        };
        while self.pools[pool].readers.as_ref().is_some_and(|of| of.owed > 0) && may_open(self) {
            self.dial(pool, now, out);
        }
    }
}
