//! The exchanges of all databases.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify as Alarm;

use super::exchange::Exchange;
use crate::config::Notify;
use crate::pool::in_use::{CountUses, InUse};

/// One [`Exchange`] for each database that clients have asked for.
#[derive(Debug)]
pub struct Hub {
    inner: Mutex<Inner>,
    appeared: Alarm,
}

#[derive(Debug)]
struct Inner {
    settings: Notify,
    is_bridged: bool,
    exchanges: HashMap<Arc<str>, Arc<Exchange>>,
}

impl Hub {
    /// Without databases so far.
    pub fn new(settings: Notify) -> Self {
        let inner = Inner { settings, is_bridged: false, exchanges: HashMap::new() };
        Self { inner: Mutex::new(inner), appeared: Alarm::new() }
    }

    /// The exchange of this database, made if nobody has asked for it so far.
    pub fn exchange(&self, database: &Arc<str>) -> InUse<Exchange> {
        let mut inner = self.inner();
        if let Some(known) = inner.exchanges.get(database) {
            return InUse::new(Arc::clone(known));
        }
        let exchange = Arc::new(Exchange::new(Arc::clone(database), &inner.settings, inner.is_bridged));
        inner.exchanges.insert(Arc::clone(database), Arc::clone(&exchange));
        let exchange = InUse::new(exchange);
        drop(inner);
        self.appeared.notify_one();
        exchange
    }

    /// All, by name.
    pub fn all(&self) -> Vec<Arc<Exchange>> {
        let mut all: Vec<_> = self.inner().exchanges.values().cloned().collect();
        all.sort_by(|a, b| a.database.cmp(&b.database));
        all
    }

    /// Waits until there may be a new exchange. One waits at a time; cancel-safe.
    pub async fn appeared(&self) {
        self.appeared.notified().await;
    }

    /// From now on channels count as in place only when [`Exchange::set_in_place`] says so. To be called before there
    /// are clients.
    pub fn attach_bridge(&self) {
        self.inner().is_bridged = true;
    }

    /// Puts another configuration into force.
    pub fn set(&self, settings: &Notify) {
        let mut inner = self.inner();
        inner.settings = settings.clone();
        inner.exchanges.values().for_each(|exchange| exchange.set(settings));
    }

    /// Forgets the exchanges that are `forgettable` by name and that no client has.
    pub fn forget_unused(&self, forgettable: impl Fn(&str) -> bool) {
        let mut inner = self.inner();
        inner.exchanges.retain(|name, exchange| {
            if !exchange.uses().is_none() || !exchange.is_at_rest() {
                return true;
            }
            // The pool that it names may be the next to be forgotten, and then its database.
            exchange.forget_login();
            let is_unused = forgettable(name);
            if is_unused {
                exchange.forget();
            }
            !is_unused
        });
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while held")
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_exchange_is_forgotten_when_no_session_uses_it() {
        let hub = Hub::new(Notify::default());
        hub.attach_bridge();
        let session = hub.exchange(&"app".into());
        let task = Arc::clone(&session);
        let is_forgotten = async || timeout(std::time::Duration::from_secs(1), task.forgotten()).await.is_ok();
        hub.forget_unused(|_| true);
        assert!(!is_forgotten().await, "a session has it");
        drop(session);
        hub.forget_unused(|_| false);
        assert!(!is_forgotten().await, "the configuration names it");
        hub.forget_unused(|_| true);
        assert!(is_forgotten().await);
        assert!(hub.all().is_empty());
        assert_ne!(hub.exchange(&"app".into()).origin, task.origin, "it is another that comes again");
    }
}
