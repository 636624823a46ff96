//! Connects the exchanges with the world: for each a task with its bridge and its bus, from the first client to the
//! last.
//!
//! They run on the process's main thread. It serves no clients, so neither delays the other, and it outlives them: the
//! notifications they committed last are sent before the process ends.

use std::collections::HashSet;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::service::Service;
use crate::config;
use crate::notify::exchange::Exchange;
use crate::notify::senders::Senders;
use crate::notify::stats::Gap;
use crate::notify::{bridge, bus};
use crate::proxy::Proxy;

/// Time for a replaced bus to send its rest. Messages left after that go over the new one.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How often a bus that is to end is asked whether it has sent everything.
const LOOK: Duration = Duration::from_millis(5);

/// All bridges and buses.
#[derive(Debug)]
pub(super) struct BusSupervisor {
    proxy: Arc<Proxy>,
    settings: watch::Sender<Arc<config::Notify>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl BusSupervisor {
    /// Attends to exchanges as they appear. To be called before there are clients.
    pub(super) fn start(proxy: &Arc<Proxy>) -> Self {
        proxy.hub.attach_bridge();
        let (settings, reloads) = watch::channel(Arc::new(proxy.config.load().notify.clone()));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let shared = bus::Shared::new(Arc::clone(&proxy.pools));
        let newcomers = attend_all(Arc::clone(proxy), Arc::new(shared), reloads, stop.clone(), tasks.clone());
        tasks.spawn(newcomers);
        Self { proxy: Arc::clone(proxy), settings, stop, tasks }
    }
}

impl Service for BusSupervisor {
    /// Switches buses; connections to the wrong server are left.
    fn reload(&self) {
        self.settings.send_replace(Arc::new(self.proxy.config.load().notify.clone()));
    }

    /// Ends everything once all committed notifications are sent.
    fn finish(self: Box<Self>, deadline: Instant) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            self.stop.cancel();
            self.tasks.close();
            if timeout_at(deadline, self.tasks.wait()).await.is_err() {
                let exchanges = self.proxy.hub.all();
                let unsent: usize = exchanges.iter().map(|exchange| unsent(exchange)).sum();
                tracing::error!(unsent, "the bus did not take all notifications in time");
            }
        })
    }
}

async fn attend_all(
    proxy: Arc<Proxy>,
    shared: Arc<bus::Shared>,
    reloads: watch::Receiver<Arc<config::Notify>>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let mut attended = HashSet::new();
    loop {
        let exchanges = proxy.hub.all();
        // A forgotten exchange may come again under its name, and is another one then.
        let there: HashSet<_> = exchanges.iter().map(|exchange| exchange.origin).collect();
        attended.retain(|origin| there.contains(origin));
        for exchange in exchanges {
            if attended.insert(exchange.origin) {
                tasks.spawn(attend(Arc::clone(&shared), exchange, reloads.clone(), stop.clone()));
            }
        }
        tokio::select! {
            // First: the notifications that the last exchange committed are sent, too.
            biased;
            () = proxy.hub.appeared() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One exchange, until it is forgotten or the process ends.
async fn attend(
    shared: Arc<bus::Shared>,
    exchange: Arc<Exchange>,
    reloads: watch::Receiver<Arc<config::Notify>>,
    stop: CancellationToken,
) {
    let senders = Arc::<Senders>::default();
    let bridge = bridge::run(&exchange, shared.pools.opener(), &senders, reloads.clone());
    let buses = carry(&exchange, &shared, &senders, reloads, &stop);
    tokio::select! {
        () = bridge => {}
        () = buses => {}
        () = exchange.forgotten() => {}
    }
}

/// One bus after the other, until `stop`.
async fn carry(
    exchange: &Arc<Exchange>,
    shared: &bus::Shared,
    senders: &Arc<Senders>,
    mut reloads: watch::Receiver<Arc<config::Notify>>,
    stop: &CancellationToken,
) {
    loop {
        let settings = reloads.clone();
        let named = reloads.borrow().bus.clone();
        let mut bus = pin!(bus::carry(exchange, &settings, shared, senders));
        tokio::select! {
            () = &mut bus => {}
            () = switched(&mut reloads, &named) => {
                tokio::select! {
                    () = bus => {}
                    () = sent(exchange) => {}
                    () = sleep(DRAIN_MAX) => {}
                }
                exchange.gap(Gap::Switched);
            }
            () = stop.cancelled() => {
                tokio::select! {
                    () = bus => {}
                    () = sent(exchange) => {}
                }
                return;
            }
        }
    }
}

/// Waits until another bus is wanted.
async fn switched(reloads: &mut watch::Receiver<Arc<config::Notify>>, from: &config::BusSettings) {
    if reloads.wait_for(|now| now.bus != *from).await.is_err() {
        std::future::pending().await
    }
}

async fn sent(exchange: &Exchange) {
    while unsent(exchange) > 0 {
        sleep(LOOK).await;
    }
}

fn unsent(exchange: &Exchange) -> usize {
    exchange.outbox().depth() + exchange.overflow().depth()
}
