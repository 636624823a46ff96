//! Properties of a bus, for code that does not care which bus it is.

use crate::config::Bus;

/// Properties that make a difference to an exchange and its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BusNature {
    /// Published notifications may be heard elsewhere, so they go into the outbox.
    pub carries: bool,
    /// Listeners hear others by it: a LISTEN is in place once
    /// [`set_bus_ready`](super::exchange::Exchange::set_bus_ready) said so.
    pub must_be_ready: bool,
    /// Postgres can take notifications that this bus does not take in time, as `notify.when_down` has it.
    pub detours: bool,
    /// Hint for a client whose LISTEN waited in vain for the bus.
    pub hint: &'static str,
}

impl BusNature {
    pub(crate) fn of(bus: Bus) -> Self {
        match bus {
            Bus::Memory => Self { carries: false, must_be_ready: false, detours: false, hint: "Set notify.bus." },
            // Listeners hear others through the bridge, whose channels are waited for anyway.
            Bus::Postgres => Self {
                carries: true,
                must_be_ready: false,
                detours: false,
                hint: "Check the server behind databases.*.host.",
            },
            Bus::Redis => Self {
                carries: true,
                must_be_ready: true,
                detours: true,
                hint: "Check notify.redis_url; pool.connect_timeout is how long a LISTEN waits.",
            },
        }
    }
}
