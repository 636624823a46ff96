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
    /// Carries the notifications of an exchange to others, and brings it theirs. Never ends; dropped at any time, it
    /// loses nothing of the outbox.
    fn carry<'a>(&'a self, way: Way<'a>) -> Carrying<'a>;
}

/// A carrier at work for one exchange.
pub(super) type Carrying<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The exchange a carrier works for, and the means it works with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) exchange: &'a Arc<Exchange>,
    /// Opens connections to the exchange's server.
    pub(super) opener: &'a Opener,
    /// Connections that send are recorded here, so that the bridge knows them.
    pub(super) senders: &'a Arc<Senders>,
}
