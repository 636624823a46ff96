//! Keeps the leases of this instance: says what is wanted, takes what is granted, and puts it into force.
//!
//! It looks every few milliseconds what is wanted, and asks the book at once if that is more than may be had.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::service::Service;
use crate::config::Secret;
use crate::fleet::lease::engine::{BookErrand, LeaseEngine};
use crate::fleet::lease::holder::LeaseState;
use crate::fleet::lease::leases::{LeaseShares, Leases, LeasesView};
use crate::pool::backoff::Backoff;
use crate::pool::core::FleetLimit;
use crate::proxy::{NamedUse, Proxy};
use crate::session::context::{Inbox, Worker};

/// How often to look what is wanted.
const LOOK: Duration = Duration::from_millis(50);

/// The pace of requests while somebody waits or much is in use, and otherwise: an order, or a share that another wants,
/// is to be everywhere within a second.
const UNDER_LOAD: Duration = Duration::from_millis(250);
const IN_CALM: Duration = Duration::from_millis(500);

/// Requests are no closer to each other than this, but for those that confirm; nor are tries.
const PACE_MIN: Duration = Duration::from_millis(50);

/// Longest wait before another try.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Shares are put into force again when no more of their time is left than this.
const RENEWED: Duration = Duration::from_secs(2);

/// Time to tell the book of the end.
const GOODBYE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct LeaseKeeper {
    proxy: Arc<Proxy>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl LeaseKeeper {
    /// Asks the book from now on; `None`: there are no leases.
    pub(super) fn start(proxy: &Arc<Proxy>, inbox: &Inbox) -> Option<Self> {
        let leases = Arc::clone(proxy.leases.as_ref()?);
        proxy.make_limits(&proxy.config.load());
        let stop = CancellationToken::new();
        let in_force = Mutex::new(None);
        let keeping = Keeping { proxy: Arc::clone(proxy), leases, inbox: inbox.clone(), in_force };
        let task = tokio::spawn(keeping.run(stop.clone()));
        Some(Self { proxy: Arc::clone(proxy), stop, task })
    }
}

impl Service for LeaseKeeper {
    fn reload(&self) {
        self.proxy.make_limits(&self.proxy.config.load());
        if let Some(leases) = &self.proxy.leases {
            leases.urgent.notify_one();
        }
    }

    /// Tells the book that nothing is in use.
    fn finish(self: Box<Self>, deadline: Instant) -> Pin<Box<dyn Future<Output = ()>>> {
        self.stop.cancel();
        Box::pin(async move {
            let _ = timeout_at(deadline, self.task).await;
        })
    }
}

struct Keeping {
    proxy: Arc<Proxy>,
    leases: Arc<Leases>,
    /// Of the worker that puts shares into force.
    inbox: Inbox,
    in_force: Mutex<Option<(Vec<FleetLimit>, LeaseShares)>>,
}

impl Keeping {
    async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.look() => {}
            () = self.ask() => {}
        }
        let Some(mut engine) = self.engine().map(|(engine, _)| engine) else { return };
        match timeout(GOODBYE, engine.leave(self.leases.next_seq())).await {
            Ok(Ok(())) => {}
            left => tracing::debug!(?left, "the book was not told of the end"),
        }
    }

    fn engine(&self) -> Option<(LeaseEngine, Secret)> {
        let fleet = &self.proxy.config.load().fleet;
        let url = fleet.url.clone()?;
        Some((LeaseEngine::new(&url, &fleet.name, &self.leases.id), url))
    }

    /// Looks what is wanted, and puts shares into force when their time has come.
    async fn look(&self) {
        let mut was_pressed = false;
        loop {
            let now = Instant::now();
            let uses = self.proxy.fleet_uses(now);
            let is_pressed = self.leases.note(uses.iter().map(NamedUse::pair), now);
            if is_pressed && !was_pressed {
                self.leases.urgent.notify_one();
            }
            was_pressed = is_pressed;
            self.apply().await;
            sleep(LOOK).await;
        }
    }

    /// Asks the book, time and again.
    async fn ask(&self) {
        let Some((mut engine, mut url)) = self.engine() else { return };
        let mut backoff = Backoff::up_to(BACKOFF_MAX);
        loop {
            let asked = Instant::now();
            let uses = self.proxy.fleet_uses(asked);
            let weight = self.proxy.config.load().fleet.weight;
            let request = self.leases.request(uses.iter().map(NamedUse::pair), weight);
            // Also where the demand has just ended: another may want what is given up.
            let is_loaded = request.wants.values().any(|one| one.want > one.cap / 2);
            let caps: Vec<_> = uses.iter().map(|one| (one.name.as_str(), one.uses.cap)).collect();
            let errand = BookErrand {
                request,
                facts: self.proxy.fleet_facts(&uses, asked).to_string(),
                orders: self.leases.unwritten(),
            };
            let mut orders = Vec::new();
            let wait = match engine.refresh(&errand).await {
                Ok(answer) => {
                    backoff.succeeded();
                    self.leases.answered(&answer, asked, Instant::now());
                    let ago = |since: u64| Duration::from_millis(answer.wall.saturating_sub(since));
                    let new = self.leases.learn(&answer.orders).into_iter();
                    orders = new.map(|(role, order)| (role, order.text, ago(order.since))).collect();
                    let grants = &answer.book.grants;
                    let is_less = |(name, cap): &(&str, u32)| grants.get(*name).is_some_and(|grant| grant.most < *cap);
                    let pace = if is_loaded { UNDER_LOAD } else { IN_CALM };
                    // What was given up is for others once we have said that we use it no more.
                    if caps.iter().any(is_less) { Duration::ZERO } else { pace.mul_f64(0.8 + 0.4 * fastrand::f64()) }
                }
                Err(_) => {
                    self.leases.failed(Instant::now());
                    backoff.failed(fastrand::f64()).max(PACE_MIN)
                }
            };
            self.obey(orders).await;
            self.apply().await;
            self.rest(asked + PACE_MIN, wait).await;
            if let Some((other, other_url)) = self.engine().filter(|(_, now)| *now != url) {
                (engine, url) = (other, other_url);
            }
        }
    }

    /// Carries out what was ordered at other instances, each order with how long ago that was.
    async fn obey(&self, orders: Vec<(String, String, Duration)>) {
        if orders.is_empty() {
            return;
        }
        let obey = move |worker: &Rc<Worker>| {
            orders.iter().for_each(|(role, text, ago)| worker.proxy.obey(worker.id, role, text, *ago));
        };
        self.inbox.run(obey).await;
    }

    /// Waits so long, or until something is urgent, but not before `earliest` then.
    async fn rest(&self, earliest: Instant, wait: Duration) {
        if timeout(wait, self.leases.urgent.notified()).await.is_ok() {
            sleep_until(earliest).await;
        }
    }

    /// Puts the shares of this moment into force, if they differ from those that are or their time runs out.
    async fn apply(&self) {
        let mut in_force = self.in_force.lock().await;
        let now = Instant::now();
        let uses = self.proxy.fleet_uses(now);
        let limits: Vec<_> = uses.iter().map(|one| one.limit).collect();
        let shares = self.leases.shares(uses.iter().map(NamedUse::pair), now);
        if let Some((was_limits, was)) = &*in_force {
            let is_same = (&was.own, was.general, was_limits) == (&shares.own, shares.general, &limits);
            if is_same && was.until >= now + RENEWED {
                return;
            }
            if was.state != shares.state {
                say(shares.state, &self.leases.view(now));
            }
        }
        let next = (limits.clone(), shares.clone());
        let applied = self.inbox.run(move |worker| worker.proxy.apply_shares(worker.id, &limits, &shares)).await;
        *in_force = applied.map(|()| next);
    }
}

/// The shares are by other rules than before.
fn say(state: LeaseState, view: &LeasesView) {
    let instances = view.knows;
    match state {
        LeaseState::Granted => tracing::info!(instances, "limits are held by leases"),
        LeaseState::Shrunk | LeaseState::Even => {
            tracing::warn!(instances, "no leases are to be had: this instance keeps to an even part of the limits");
        }
        LeaseState::Smallest => {
            tracing::warn!("no leases are to be had: this instance keeps to one transaction of each limit");
        }
        LeaseState::Lapsed => tracing::warn!("the leases are over: this instance lets nothing in until it has others"),
    }
}
