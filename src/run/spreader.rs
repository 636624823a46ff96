//! Looks how busy each worker is, and has the load spread over as many as it needs: the shell around [`Spread`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::service::Service;
use super::spread::{Spread, WorkerLook};
use crate::proxy::Proxy;
use crate::session::context::Inbox;

/// Time between two looks: clients are counted once a second.
const EVERY: Duration = Duration::from_secs(1);

/// Spreads the load until the process ends.
#[derive(Debug)]
pub(super) struct Spreader {
    task: JoinHandle<()>,
}

impl Spreader {
    /// `None` where the configuration says how many workers serve, or there is but one.
    pub(super) fn start(proxy: &Arc<Proxy>, inboxes: &Arc<[Inbox]>) -> Option<Self> {
        let is_fixed = proxy.config.load().listen.workers.is_some();
        let spread = spread(Arc::clone(proxy), Arc::clone(inboxes));
        (!is_fixed && inboxes.len() > 1).then(|| Self { task: tokio::spawn(spread) })
    }
}

impl Service for Spreader {
    fn reload(&self) {}

    fn finish(self: Box<Self>, _deadline: Instant) -> Pin<Box<dyn Future<Output = ()>>> {
        self.task.abort();
        Box::pin(async {})
    }
}

/// The counters of a worker at the last look.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    busy: Duration,
    served: u32,
}

async fn spread(proxy: Arc<Proxy>, inboxes: Arc<[Inbox]>) {
    let mut spread = Spread::new(inboxes.len());
    let mut seen = vec![Seen::default(); inboxes.len()];
    let mut turns = interval(EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = turns.tick().await;
    loop {
        turns.tick().await;
        let now = Instant::now();
        let elapsed = now - std::mem::replace(&mut last, now);
        let looks: Vec<WorkerLook> =
            inboxes.iter().zip(&mut seen).map(|(inbox, seen)| look(inbox, seen, elapsed)).collect();
        let departures = spread.look(&looks);
        let was = proxy.serving.swap(spread.serving(), Ordering::Relaxed);
        if was != spread.serving() {
            tracing::info!(was, now = spread.serving(), most = inboxes.len(), "workers serve as the load needs");
        }
        let mut asked = vec![(0, 0); inboxes.len()];
        departures.iter().for_each(|departure| asked[departure.from] = (departure.clients, departure.to));
        inboxes.iter().zip(asked).for_each(|(inbox, (clients, to))| inbox.load().send_away(clients, to));
    }
}

fn look(inbox: &Inbox, seen: &mut Seen, elapsed: Duration) -> WorkerLook {
    let now = Seen { busy: inbox.load().busy(), served: inbox.load().served() };
    let was = std::mem::replace(seen, now);
    let busy = now.busy.saturating_sub(was.busy).as_secs_f64() / elapsed.as_secs_f64();
    WorkerLook { busy: busy.min(1.0), clients: now.served.wrapping_sub(was.served) }
}
