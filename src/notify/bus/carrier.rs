//! A bus as its file provides it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;

use crate::config;
use crate::notify::exchange::Exchange;
use crate::notify::senders::Senders;
use crate::pool::open::Opener;

/// `[notify]` as it is in force.
pub(crate) type NotifySettings = watch::Receiver<Arc<config::Notify>>;

/// One bus, for all databases.
pub(super) trait Carrier: fmt::Debug + Send + Sync {
    /// Carries what an exchange publishes, and brings it what others do. Never ends; dropped at any time, it loses
    /// nothing of the outbox.
    fn carry<'a>(&'a self, way: Way<'a>) -> Carrying<'a>;
}

/// A carrier at work for one exchange.
pub(super) type Carrying<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// What a carrier works for, and with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) exchange: &'a Arc<Exchange>,
    /// Opens connections to the exchange's server.
    pub(super) opener: &'a Opener,
    /// Those that send over such connections are known to the bridge.
    pub(super) senders: &'a Arc<Senders>,
}
