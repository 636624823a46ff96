//! Buses carry notifications to listeners elsewhere: `notify.bus`.
//!
//! A bus takes published notifications out of the exchange's outbox. It may be dropped at any time: an entry leaves the
//! outbox when it has arrived, and the next bus goes on with the rest.
//!
//! A new bus is a file here with its [`Carrier`], an arm in [`open`] and one in [`BusNature::of`]. Nobody else asks
//! which bus it is.

mod batch;
mod carrier;
mod memory;
mod postgres;
pub(crate) mod redis;

use std::sync::{Arc, Mutex, Weak};

pub(crate) use carrier::NotifySettings;
use carrier::{Carrier, Way};

use super::exchange::Exchange;
use super::nature::BusNature;
use super::senders::Senders;
use crate::config::BusSettings;
use crate::pool::lease::Pools;

/// Makes a bus. Within a runtime.
fn open(bus: &BusSettings, settings: &NotifySettings) -> Arc<dyn Carrier> {
    match bus {
        BusSettings::Memory => Arc::new(memory::MemoryBus),
        BusSettings::Postgres => Arc::new(postgres::PostgresBus),
        BusSettings::Redis { url } => Arc::new(redis::RedisBus::new(url, settings)),
    }
}

/// State that the buses of all databases share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// They log in as backends do.
    pub pools: Arc<Pools>,
    /// The bus in use, as long as an exchange uses it.
    current: Mutex<Option<(BusSettings, Weak<dyn Carrier>)>>,
}

impl Shared {
    /// No bus is in use yet.
    pub(crate) fn new(pools: Arc<Pools>) -> Self {
        Self { pools, current: Mutex::default() }
    }

    /// The configured bus: the one in use, or a new one if the configuration names another.
    fn carrier(&self, settings: &NotifySettings) -> Arc<dyn Carrier> {
        let bus = settings.borrow().bus.clone();
        let mut current = self.current.lock().expect("no panic while held");
        if let Some((known, carrier)) = &*current
            && *known == bus
            && let Some(carrier) = carrier.upgrade()
        {
            return carrier;
        }
        let carrier = open(&bus, settings);
        *current = Some((bus, Arc::downgrade(&carrier)));
        carrier
    }
}

/// Carries the notifications that `exchange` publishes, for ever, over the bus that `settings` names now.
pub(crate) async fn carry(
    exchange: &Arc<Exchange>,
    settings: &NotifySettings,
    shared: &Shared,
    senders: &Arc<Senders>,
) {
    let carrier = shared.carrier(settings);
    let way = Way { exchange, opener: shared.pools.opener(), senders };
    if BusNature::of(settings.borrow().bus.kind()).detours {
        let detour = postgres::send(way, exchange.overflow());
        tokio::join!(carrier.carry(way), detour);
    } else {
        // These entries were taken in time neither by the last bus nor by Postgres, and nobody waits for them any more.
        exchange.overflow().give_up(usize::MAX);
        carrier.carry(way).await;
    }
}
