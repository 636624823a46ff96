//! Regular work of the process: forgets unused things, ends idle or overdue ones.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::Proxy;
use crate::admission::fleet_share::FleetShare;
use crate::clients::{Activity, Signal};
use crate::pool::core::FleetParts;
use crate::pool::idle_check;

/// Idle backends with outdated timeouts that a worker closes at one tick, so that a reload replaces them one after the
/// other.
const OUTDATED_AT_ONCE: u32 = 2;

impl Proxy {
    /// Regular work: on each worker for its own stacks, and once in all for everything shared.
    pub(crate) fn tick(self: &Arc<Self>, worker: usize) {
        let now = Instant::now();
        self.clock.look(now);
        if worker == 0 {
            if self.clock.count_seconds(now) {
                self.entrance.tick(now);
                self.look_for_pinned();
                self.tell_observed(now);
                self.tell_episodes(now);
                if let Some(workload) = &self.workload {
                    workload.look(self.clock.second());
                }
            }
            self.lanes.tick(&self.pools, worker, now);
            self.take_share(worker, now);
            self.directory.keep_warm();
            self.pools.decide(worker, |core, out| core.tick(now, out));
            self.forget_unused(worker);
            self.history()
                .roll(now, || self.pools.all().iter().map(|pool| (pool.key(), pool.stats.totals())).collect());
            self.pools.sweep();
            self.end_idle_clients();
            self.look_for_overdue();
            self.renew_proofs(worker);
        }
        let pools = self.pools.all();
        self.pools.decide(worker, |core, out| {
            let mut cx = Context::from_waker(Waker::noop());
            let mut outdated = 0;
            for pool in &pools {
                core.peek_idle(
                    pool.id,
                    worker,
                    |backend| {
                        if outdated < OUTDATED_AT_ONCE && backend.is_outdated(pool, now) {
                            outdated += 1;
                            return false;
                        }
                        !backend.stream.is_readable(&mut cx) || idle_check::is_fit(backend, pool, &mut cx)
                    },
                    out,
                );
            }
        });
    }

    /// Puts another part of the fleet's limits into force, once the number of instances has changed.
    fn take_share(&self, worker: usize, now: Instant) {
        let Some(census) = &self.census else { return };
        let share = census.share();
        let was = std::mem::replace(&mut *self.share.lock().expect("no panic while held"), share);
        if share == was {
            return;
        }
        if let FleetShare::Part { of, .. } = share {
            tracing::info!(instances = of, "this instance has its part of the fleet's limits");
        }
        self.pools.decide(worker, |core, out| core.set_parts(FleetParts::all(share), now, out));
    }

    /// Forgets everything that the configuration does not name and nobody uses.
    fn forget_unused(&self, worker: usize) {
        let config = self.config.load();
        self.directory.forget_unused(worker);
        let is_gone = |name: &str| !config.databases.contains_key(name) && !self.directory.has_database(name);
        self.hub.forget_unused(is_gone);
    }

    /// Signals clients whose backends have been busy for longer than their role's limits allow.
    fn look_for_overdue(&self) {
        let tick = self.clock.ticks();
        let overdue = self.pools.backends().find(|facts| {
            let limits = &facts.pool.settings().timeouts;
            !facts.pool.is_dedicated() && facts.target.clock.overdue(limits, tick).is_some()
        });
        if overdue.is_empty() {
            return;
        }
        for entry in self.clients.all() {
            if matches!(entry.activity(), Activity::Active(at) if overdue.iter().any(|target| Arc::ptr_eq(target, &at)))
            {
                entry.signal(Signal::Overdue);
            }
        }
    }

    /// Signals clients that keep a backend for longer than their role may without using it.
    fn look_for_pinned(&self) {
        let config = self.config.load();
        if config.roles.values().all(|role| role.limits.pin_timeout.is_zero()) {
            return;
        }
        for entry in self.clients.all().into_iter().filter(|entry| entry.pins() != 0) {
            let limit = config.role(&entry.role).map_or(Duration::ZERO, |role| role.limits.pin_timeout);
            if !limit.is_zero() && entry.has_idled(limit, self.clock.second()) {
                entry.signal(Signal::Pinned);
            }
        }
    }

    fn end_idle_clients(&self) {
        let limit = self.config.load().listen.idle_timeout;
        if limit.is_zero() {
            return;
        }
        for entry in self.clients.all() {
            if entry.has_idled(limit, self.clock.second()) {
                entry.signal(Signal::Idle);
            }
        }
    }
}
