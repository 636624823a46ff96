//! What carries notifications to listeners elsewhere: `notify.bus`.
//!
//! A bus takes what is published out of the exchange's outbox. It may be dropped at any time: an entry leaves the outbox when it has
//! arrived, and the next bus goes on with what is left.
//!
//! A new bus is a file here with its [`Carrier`], an arm in [`open`] and one in [`BusNature::of`]. Nobody else asks which bus it is.

mod batch;
mod carrier;
mod memory;
mod postgres;
pub mod redis;

use std::sync::{Arc, Mutex, Weak};

pub use carrier::NotifySettings;
use carrier::{Carrier, Way};

use super::exchange::Exchange;
use super::nature::BusNature;
use super::senders::Senders;
use crate::config::{self, Bus, Secret};
use crate::pool::lease::Pools;

/// Makes the bus that the settings describe. Within a runtime.
fn open(bus: Bus, settings: &NotifySettings) -> Arc<dyn Carrier> {
    match bus {
        Bus::Memory => Arc::new(memory::Memory),
        Bus::Postgres => Arc::new(postgres::Postgres),
        Bus::Redis => Arc::new(redis::Redis::new(settings)),
    }
}

/// What makes a bus another one: its kind, and where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Route(Bus, Option<Secret>);

impl From<&config::Notify> for Route {
    fn from(settings: &config::Notify) -> Self {
        Self(settings.bus, settings.redis_url.clone())
    }
}

/// What buses use together, whatever the database.
#[derive(Debug)]
pub struct Shared {
    /// They log in as backends do.
    pub pools: Arc<Pools>,
    /// The bus in use, as long as an exchange uses it.
    current: Mutex<Option<(Route, Weak<dyn Carrier>)>>,
}

impl Shared {
    /// No bus is in use yet.
    pub fn new(pools: Arc<Pools>) -> Self {
        Self { pools, current: Mutex::default() }
    }

    /// The bus that is configured: that in use, unless it is another.
    fn carrier(&self, settings: &NotifySettings) -> Arc<dyn Carrier> {
        let route = Route::from(&**settings.borrow());
        let mut current = self.current.lock().expect("no panic while held");
        if let Some((known, carrier)) = &*current
            && *known == route
            && let Some(carrier) = carrier.upgrade()
        {
            return carrier;
        }
        let carrier = open(route.0, settings);
        *current = Some((route, Arc::downgrade(&carrier)));
        carrier
    }
}

/// Carries what `exchange` publishes, for ever, over the bus that `settings` names now.
pub async fn carry(exchange: &Arc<Exchange>, settings: &NotifySettings, shared: &Shared, senders: &Arc<Senders>) {
    let carrier = shared.carrier(settings);
    let way = Way { exchange, opener: shared.pools.opener(), senders };
    if BusNature::of(settings.borrow().bus).detours {
        let detour = postgres::send(way, exchange.overflow());
        tokio::join!(carrier.carry(way), detour);
    } else {
        // Neither the last bus nor Postgres took that in time, and nobody waits for it any more.
        exchange.overflow().give_up(usize::MAX);
        carrier.carry(way).await;
    }
}
