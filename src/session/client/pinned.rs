//! Limits of a role for its pinned clients: how many there may be, and how long each may idle.

use std::time::Duration;

use super::{Client, End, Phase};
use crate::error::Fault;
use crate::metrics::{PinEnd, PoolCounter};
use crate::session::pins;

impl Client {
    /// The client keeps its backend between transactions, if one more of its role may.
    pub(super) fn keep_pinned(&mut self) -> Result<(), End> {
        self.handle.set_pins(self.session.pin_bits());
        self.was_served();
        let Phase::Leased(leased) = &mut self.phase else { return Ok(()) };
        if leased.pin.is_some() {
            return Ok(());
        }
        let config = self.worker.proxy.config.load();
        let most = config.role(&self.handle.role).and_then(|role| role.limits.pins_max);
        leased.pin = self.handle.pin_slot(most).map(Box::new);
        if leased.pin.is_some() { Ok(()) } else { Err(self.pin_ended(PinEnd::Max, Fault::TooManyPins)) }
    }

    /// The client may have idled for too long with a backend that it keeps.
    pub(super) fn handle_pin(&mut self) -> Result<(), End> {
        let Phase::Leased(leased) = &self.phase else { return Ok(()) };
        let proxy = &self.worker.proxy;
        let config = proxy.config.load();
        let limit = config.role(&self.handle.role).map_or(Duration::ZERO, |role| role.limits.pin_timeout);
        let is_idle = leased.cycle.can_release() && !self.side.is_mid_forward();
        if limit.is_zero() || !is_idle || !self.handle.has_idled(limit, proxy.clock.second()) {
            return Ok(());
        }
        Err(self.pin_ended(PinEnd::Timeout, Fault::PinTimeout))
    }

    fn pin_ended(&self, end: PinEnd, fault: Fault) -> End {
        let pool = &self.session.pool;
        pool.stats.worker(self.worker.id).add(PoolCounter::PinsEnded(end));
        let reasons: Vec<_> = pins::names(self.session.pin_bits()).collect();
        tracing::info!(
            client.addr = %self.handle.addr, role = %pool.name.role, database = %self.handle.database,
            limit = end.word(), pins = reasons.join(","), "pinned client closed"
        );
        fault.into()
    }
}
