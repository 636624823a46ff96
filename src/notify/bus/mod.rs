//! What carries notifications to listeners elsewhere: `notify.bus`.
//!
//! A bus takes what is published out of the exchange's outbox. It may be dropped at any time: an entry leaves the outbox when it has
//! arrived, and the next bus goes on with what is left.
//!
//! A new bus is a file here with its [`BusKind`], and one line in [`kind`]. Nothing else asks which bus it is: the exchange goes by its
//! [`Nature`].

mod batch;
mod memory;
mod postgres;
pub mod redis;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::watch;

use super::exchange::Exchange;
use super::senders::Senders;
use crate::config::{self, Secret};
use crate::pool::lease::Pools;
use crate::pool::open::Opener;

/// `[notify]` as it is in force.
pub type Settings = watch::Receiver<Arc<config::Notify>>;

/// What has to be known of a bus by those who do not care which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nature {
    /// Somebody elsewhere may hear what is published here, so it goes into the outbox.
    pub carries: bool,
    /// Listeners hear others by it: a LISTEN is in place once [`Exchange::set_bus_ready`] said so.
    pub must_be_ready: bool,
    /// Postgres can take what it takes too long for, as `notify.when_down` has it.
    pub detours: bool,
    /// For a client whose LISTEN waited in vain for the bus.
    pub hint: &'static str,
}

/// A kind of bus.
struct BusKind {
    nature: Nature,
    /// Makes the bus that the settings describe. Within a runtime.
    open: fn(&Settings) -> Arc<dyn Carrier>,
}

/// The one place that tells buses apart.
fn kind(bus: config::Bus) -> BusKind {
    match bus {
        config::Bus::Memory => memory::KIND,
        config::Bus::Postgres => postgres::KIND,
        config::Bus::Redis => redis::KIND,
    }
}

/// What is known of a bus before there is one.
pub fn nature(bus: config::Bus) -> Nature {
    kind(bus).nature
}

/// One bus, for all databases.
trait Carrier: fmt::Debug + Send + Sync {
    /// Carries what an exchange publishes, and brings it what others do. Never ends; dropped at any time, it loses nothing of the outbox.
    fn carry<'a>(&'a self, way: Way<'a>) -> Carrying<'a>;
}

/// A carrier at work for one exchange.
type Carrying<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Between what a carrier carries.
#[derive(Debug, Clone, Copy)]
struct Way<'a> {
    exchange: &'a Arc<Exchange>,
    /// Opens connections to the exchange's server.
    opener: &'a Opener,
    /// Those that send over such connections are known to the bridge.
    senders: &'a Arc<Senders>,
}

/// What makes a bus another one: its kind, and where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Route(config::Bus, Option<Secret>);

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
    fn carrier(&self, settings: &Settings) -> Arc<dyn Carrier> {
        let route = Route::from(&**settings.borrow());
        let mut current = self.current.lock().expect("no panic while held");
        if let Some((known, carrier)) = &*current
            && *known == route
            && let Some(carrier) = carrier.upgrade()
        {
            return carrier;
        }
        let carrier = (kind(route.0).open)(settings);
        *current = Some((route, Arc::downgrade(&carrier)));
        carrier
    }
}

/// Carries what `exchange` publishes, for ever, over the bus that `settings` names now.
pub async fn carry(exchange: &Arc<Exchange>, settings: &Settings, shared: &Shared, senders: &Arc<Senders>) {
    let carrier = shared.carrier(settings);
    let way = Way { exchange, opener: shared.pools.opener(), senders };
    if nature(settings.borrow().bus).detours {
        let detour = postgres::send(way, exchange.overflow());
        tokio::join!(carrier.carry(way), detour);
    } else {
        // Neither the last bus nor Postgres took that in time, and nobody waits for it any more.
        exchange.overflow().give_up(usize::MAX);
        carrier.carry(way).await;
    }
}
