//! Work beside the clients: what runs on the process's main thread from its start to its end.
//!
//! That thread serves no clients, so neither delays the other, and services outlive them. A new one is a file with this trait and a line in [`start`].

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::config_watcher::{ConfigFile, ConfigWatcher, Reading};
use super::switchboard::Switchboard;
use super::watchers::Watchers;
use crate::proxy::Proxy;

/// One such work. Each has a `start` of its own, which takes the parts it needs.
pub(super) trait Service {
    /// The configuration in force has changed.
    fn reload(&self);

    /// Ends it, at `deadline` at the latest.
    fn finish(self: Box<Self>, deadline: Instant) -> Pin<Box<dyn Future<Output = ()>>>;
}

/// All services, in the order in which they are to be finished: what clients committed last is sent by the last of them.
pub(super) fn start(
    proxy: &Arc<Proxy>,
    file: &ConfigFile,
    readings: mpsc::Sender<Reading>,
) -> io::Result<Vec<Box<dyn Service>>> {
    let buses = Switchboard::start(proxy);
    let watchers = Watchers::start(proxy);
    Ok(vec![Box::new(ConfigWatcher::start(file, readings)?), Box::new(watchers), Box::new(buses)])
}
