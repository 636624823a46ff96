//! What carries notifications to listeners elsewhere: `notify.bus`.
//!
//! A bus takes what is published out of the exchange's outbox. Whatever it is, it may be dropped at any time: an entry leaves the outbox
//! when it has arrived, and the next bus goes on with what is left.

mod batch;
pub mod postgres;
pub mod redis;

use std::sync::Arc;

use tokio::sync::watch;

use super::exchange::Exchange;
use super::senders::Senders;
use crate::config;
use crate::pool::lease::Pools;

/// What buses use together, whatever the database.
#[derive(Debug)]
pub struct Shared {
    /// They log in as backends do.
    pub pools: Arc<Pools>,
    /// The Redis, if it is one.
    pub redis: redis::Shared,
}

/// Carries what `exchange` publishes, for ever, over the bus that `settings` names now.
pub async fn carry(
    exchange: &Arc<Exchange>,
    settings: &watch::Receiver<Arc<config::Notify>>,
    shared: &Shared,
    senders: &Arc<Senders>,
) {
    let (bus, opener) = (settings.borrow().bus, shared.pools.opener());
    if bus != config::Bus::Redis {
        // Neither the Redis nor Postgres took that in time, and nobody waits for it any more.
        exchange.overflow().give_up(usize::MAX);
    }
    match bus {
        config::Bus::Memory => discard(exchange).await,
        config::Bus::Postgres => postgres::carry(exchange, exchange.outbox(), opener, senders).await,
        config::Bus::Redis => {
            let redis = shared.redis.redis(settings);
            // What the Redis takes too long for goes by way of Postgres.
            let detour = postgres::carry(exchange, exchange.overflow(), opener, senders);
            tokio::join!(redis.carry(exchange), detour);
        }
    }
}

/// Nobody else is there to hear: what another bus has left behind is given up.
async fn discard(exchange: &Exchange) {
    loop {
        exchange.outbox().next_batch(1).await;
        exchange.outbox().give_up(usize::MAX);
    }
}
