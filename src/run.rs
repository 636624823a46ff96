//! The process from its start to its end: workers, listeners, services, reload, drain.

mod accept;
mod bus_supervisor;
mod config_watcher;
mod connection;
mod descriptors;
mod drain;
pub(crate) mod in_process;
mod leases;
mod password_run;
mod passwords;
mod peers;
mod service;
mod spread;
mod spreader;
mod systemd;
mod watchers;
mod worker;

use std::io;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, diff, overloads};
use crate::net::listen::{self, Handed, ListenError, Listener};
use crate::net::tls::TlsError;
use crate::orders::Order;
use crate::orders::log_level::LogLevel;
use crate::proxy::Proxy;
use crate::session::context::Inbox;
use bus_supervisor::BusSupervisor;
use config_watcher::{ConfigFile, ConfigWatcher, Reading};
use drain::Stops;
use leases::LeaseKeeper;
use peers::Peers;
use service::Service;
use spreader::Spreader;

/// The reason why the process did not start.
#[derive(Debug, Error)]
pub enum RunError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Threads or signals are not to be had.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Status shown by the service manager while clients are served.
const SERVING: &str = "serving";

/// Readings of the file that may wait to be put into force.
const READINGS: usize = 1;

/// Certificates and keys that a valid configuration names and that cannot be used, each with its key.
pub fn unloadable(config: &Config) -> Vec<String> {
    crate::net::tls::check(config).into_iter().map(|(key, error)| format!("{key}: {error}")).collect()
}

/// Serves until asked to stop.
pub fn run(path: &Path, config: Config, log_level: LogLevel) -> Result<(), RunError> {
    let handed = systemd::sockets()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(path, config, log_level, handed))
}

async fn serve(path: &Path, mut config: Config, log_level: LogLevel, handed: Vec<Handed>) -> Result<(), RunError> {
    let file = ConfigFile::new(path, &config);
    let descriptors = descriptors::raise();
    descriptors::fit(&mut config, descriptors);
    warn_of_overloads(&config);
    let reuse_port = config.listen.reuse_port;
    let listeners = accept::listeners(&config, handed)?;
    let (orders, mut inbox) = mpsc::channel(16);
    let admin_addr = config.admin.addr;
    let spare = descriptors::spare(&config, descriptors);
    let mut proxy = Proxy::new(config, orders)?;
    proxy.log_level = log_level;
    let proxy = Arc::new(proxy);
    proxy.set_spare(spare);
    let (read, mut readings) = mpsc::channel(READINGS);
    let mut services = services(&proxy, &file, read)?;
    let mut inboxes = Vec::new();
    for id in 0..proxy.workers {
        inboxes.push(worker::start(id, Arc::clone(&proxy)).await?);
    }
    let inboxes: Arc<[Inbox]> = inboxes.into();
    for inbox in inboxes.iter() {
        let all = Arc::clone(&inboxes);
        inbox.send(move |worker| worker.meet(&all)).await;
    }
    if let Some(leases) = LeaseKeeper::start(&proxy, &inboxes[0]) {
        services.push(Box::new(leases));
    }
    if let Some(spreader) = Spreader::start(&proxy, &inboxes) {
        services.push(Box::new(spreader));
    }
    let process = ServingProcess { proxy, inboxes, services, descriptors };
    if let Some(addr) = admin_addr {
        let bound = listen::bind_tcp(addr, reuse_port);
        let http = bound.map_err(|source| ListenError { addr: addr.to_string(), source })?;
        tracing::info!(kind = "admin", addr = %http.local_addr()?, "listening");
        tokio::spawn(crate::admin::http::serve(http, Arc::clone(&process.proxy), process.inboxes[0].clone()));
    }
    let (acceptors, stop) = process.accept(listeners);
    tokio::spawn(systemd::feed_watchdog(Arc::clone(&process.inboxes)));
    let mut stops = Stops::new()?;
    systemd::ready(SERVING);
    let now = loop {
        tokio::select! {
            () = stops.next() => break false,
            Some(reading) = readings.recv() => {
                process.reload(reading).await.ok();
            }
            Some(order) = inbox.recv() => match order {
                Order::Shutdown { now } => break now,
                Order::Reload(answer) => {
                    let _ = answer.send(process.reload(file.read()).await);
                }
            },
        }
    };
    systemd::stopping("draining");
    process.proxy.leave();
    stop.cancel();
    // Connections that had come already are let in, and asked to leave below.
    acceptors.wait().await;
    process.end(now, &mut stops).await;
    Ok(())
}

/// All services, in the order in which they are to be finished: the buses send the notifications that clients
/// committed last.
fn services(
    proxy: &Arc<Proxy>,
    file: &ConfigFile,
    readings: mpsc::Sender<Reading>,
) -> Result<Vec<Box<dyn Service>>, RunError> {
    let buses = BusSupervisor::start(proxy);
    let watchers = watchers::start(proxy);
    let peers = Peers::start(proxy)?;
    let passwords = passwords::start(proxy);
    let config_watcher = ConfigWatcher::start(file, readings)?;
    // Watches and buses may still have to log in.
    Ok(vec![Box::new(peers), Box::new(config_watcher), Box::new(watchers), Box::new(buses), Box::new(passwords)])
}

/// The process while it serves.
struct ServingProcess {
    proxy: Arc<Proxy>,
    inboxes: Arc<[Inbox]>,
    services: Vec<Box<dyn Service>>,
    /// Files that the process may open, if there is a limit.
    descriptors: Option<u64>,
}

impl ServingProcess {
    /// Accepts on all of these until the token is cancelled.
    fn accept(&self, listeners: Vec<Listener>) -> (TaskTracker, CancellationToken) {
        let (acceptors, stop) = (TaskTracker::new(), CancellationToken::new());
        for listener in listeners {
            tracing::info!(kind = "postgres", addr = %listener.local_addr(), "listening");
            acceptors.spawn(accept::accept(listener, Arc::clone(&self.proxy), Arc::clone(&self.inboxes), stop.clone()));
        }
        acceptors.close();
        (acceptors, stop)
    }

    /// Puts a configuration that was read into force, and returns what changed, or why it failed.
    async fn reload(&self, reading: Reading) -> Result<Vec<String>, String> {
        let outcome = self.apply(reading).await;
        self.proxy.process.reloaded(outcome.is_ok());
        systemd::ready(if outcome.is_ok() { SERVING } else { "serving; the configuration file is invalid" });
        match &outcome {
            Ok(changes) if changes.is_empty() => tracing::info!("configuration read again; nothing changed"),
            Ok(changes) => changes.iter().for_each(|change| tracing::info!(%change, "configuration changed")),
            Err(mistakes) => tracing::error!(%mistakes, "configuration is invalid; the old one stays in force"),
        }
        outcome
    }

    async fn apply(&self, reading: Reading) -> Result<Vec<String>, String> {
        systemd::reloading();
        let mut config = reading.map_err(|mistakes| mistakes.to_string())?;
        descriptors::fit(&mut config, self.descriptors);
        let spare = descriptors::spare(&config, self.descriptors);
        let changes = diff(&self.proxy.config.load(), &config);
        if !changes.changed.is_empty() {
            warn_of_overloads(&config);
        }
        match self.inboxes[0].run(move |worker| worker.proxy.reload(worker.id, config)).await {
            Some(Ok(())) => {
                self.proxy.set_spare(spare);
                self.services.iter().for_each(|service| service.reload());
            }
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err("pgweir is shutting down".to_owned()),
        }
        Ok(changes.told())
    }

    /// Has the clients leave, all at once if `now`, and finishes the services.
    async fn end(self, now: bool, stops: &mut Stops) {
        let mut deadline = Instant::now();
        if !now {
            deadline = drain::leave(&self.proxy, &self.inboxes, stops).await;
        }
        self.proxy.drain();
        drain::end(&self.proxy, stops).await;
        let deadline = deadline.max(Instant::now() + self.proxy.cancel_timeout());
        let finish = async {
            for service in self.services {
                service.finish(deadline).await;
            }
        };
        tokio::select! {
            () = finish => {}
            () = stops.next() => {}
        }
    }
}

fn warn_of_overloads(config: &Config) {
    for overload in overloads(config) {
        tracing::warn!("{overload}");
    }
}
