//! The process from its start to its end: workers, listeners, signals, reload, drain.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Watcher, diff, overloads};
use crate::net::listen::{self, Handed, ListenError, Listener};
use crate::net::tls::TlsError;
use crate::notify::switchboard::Switchboard;
use crate::orders::Order;
use crate::proxy::Proxy;
use crate::systemd;
use crate::watch::watchers::Watchers;
use crate::worker::{self, Inbox};

/// Why it did not start.
#[derive(Debug, Error)]
pub enum RunError {
    /// An address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Threads or signals.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How often the file is looked at.
const WATCH: Duration = Duration::from_secs(1);

/// How often a shutdown looks whether everybody has gone.
const LOOK: Duration = Duration::from_millis(20);

/// What the service manager shows.
const SERVING: &str = "serving";

/// Serves until told to stop.
pub fn run(path: &Path, config: Config) -> Result<(), RunError> {
    let handed = systemd::sockets()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(path, config, handed))
}

async fn serve(path: &Path, config: Config, handed: Vec<Handed>) -> Result<(), RunError> {
    let mut watcher = Watcher::new(path, &config);
    warn_of_overloads(&config);
    let reuse_port = config.listen.reuse_port;
    let listeners = listeners(&config, handed)?;
    let (orders, mut inbox) = mpsc::channel(16);
    let admin_addr = config.admin.addr;
    let proxy = Arc::new(Proxy::new(config, orders)?);
    let switchboard = Switchboard::start(&proxy);
    let watchers = Watchers::start(&proxy);
    let mut inboxes = Vec::new();
    for id in 0..proxy.workers {
        inboxes.push(worker::start(id, Arc::clone(&proxy)).await?);
    }
    let inboxes: Arc<[Inbox]> = inboxes.into();
    let stop = CancellationToken::new();
    if let Some(addr) = admin_addr {
        let bound = listen::bind_tcp(addr, reuse_port);
        let http = bound.map_err(|source| ListenError { addr: addr.to_string(), source })?;
        tracing::info!(kind = "admin", addr = %http.local_addr()?, "listening");
        tokio::spawn(crate::admin::http::serve(http, Arc::clone(&proxy), inboxes[0].clone()));
    }
    let acceptors = TaskTracker::new();
    for listener in listeners {
        tracing::info!(kind = "postgres", addr = %listener.local_addr(), "listening");
        acceptors.spawn(accept(listener, Arc::clone(&inboxes), stop.clone()));
    }
    acceptors.close();
    tokio::spawn(systemd::feed_watchdog(Arc::clone(&inboxes)));
    let mut hangup = signal(SignalKind::hangup())?;
    let mut stops = Stops { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    let mut watch = tokio::time::interval(WATCH);
    systemd::ready(SERVING);
    let now = loop {
        tokio::select! {
            () = stops.next() => break false,
            _ = hangup.recv() => {
                let read = watcher.reload();
                report(&proxy, apply(&proxy, &inboxes[0], &switchboard, &watchers, read).await);
            }
            _ = watch.tick() => {
                if let Some(read) = watcher.check() {
                    report(&proxy, apply(&proxy, &inboxes[0], &switchboard, &watchers, read).await);
                }
            }
            Some(order) = inbox.recv() => match order {
                Order::Shutdown { now } => break now,
                Order::Reload(answer) => {
                    let read = watcher.reload();
                    let outcome = apply(&proxy, &inboxes[0], &switchboard, &watchers, read).await;
                    report(&proxy, outcome.clone());
                    let _ = answer.send(outcome);
                }
            },
        }
    };
    systemd::stopping("draining");
    proxy.leave();
    stop.cancel();
    // Who had come already is let in, and asked to leave by what follows.
    acceptors.wait().await;
    let mut deadline = Instant::now();
    if !now {
        deadline = leave(&proxy, &inboxes, &mut stops).await;
    }
    proxy.drain();
    end(&proxy, &mut stops).await;
    watchers.finish().await;
    let least = Instant::now() + proxy.cancel_timeout();
    tokio::select! {
        () = switchboard.finish(deadline.max(least)) => {}
        () = stops.next() => {}
    }
    Ok(())
}

/// The sockets that were handed over, or those of `listen.addr`.
fn listeners(config: &Config, handed: Vec<Handed>) -> Result<Vec<Listener>, ListenError> {
    if handed.is_empty() {
        return config.listen.addr.iter().map(|addr| Listener::bind(addr, config.listen.reuse_port)).collect();
    }
    tracing::info!(sockets = handed.len(), "listening on sockets that were handed over, not on listen.addr");
    handed.into_iter().map(Listener::adopt).collect()
}

/// The two signals that end the process.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Nobody new. Those connected are left alone for `linger`, and told to leave when their transaction ends; until all have, or
/// the time is up, or a second signal comes. Returns when the time is up.
async fn leave(proxy: &Proxy, inboxes: &[Inbox], stops: &mut Stops) -> Instant {
    let (linger, limit) = {
        let listen = &proxy.config.load().listen;
        (listen.linger, listen.shutdown_timeout)
    };
    tracing::info!(clients = proxy.clients.len(), ?linger, ?limit, "draining");
    let lingered = until_empty(inboxes, linger, stops).await;
    let deadline = Instant::now() + limit;
    let outcome = match lingered {
        Wait::TimeUp => {
            proxy.drain();
            until_empty(inboxes, limit, stops).await
        }
        Wait::Empty | Wait::Signal => lingered,
    };
    match outcome {
        Wait::Empty => tracing::info!("drained"),
        Wait::TimeUp => tracing::warn!(clients = proxy.clients.len(), "shutdown_timeout passed; closing the rest"),
        Wait::Signal => tracing::warn!(clients = proxy.clients.len(), "second signal; closing the rest"),
    }
    deadline
}

/// What ended a wait.
enum Wait {
    Empty,
    TimeUp,
    Signal,
}

async fn until_empty(inboxes: &[Inbox], limit: Duration, stops: &mut Stops) -> Wait {
    let empty = async {
        while inboxes.iter().any(|inbox| inbox.load() > 0) {
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        biased;
        ended = timeout(limit, empty) => if ended.is_ok() { Wait::Empty } else { Wait::TimeUp },
        () = stops.next() => Wait::Signal,
    }
}

/// Tells those who are left, and ends their queries: a server does not notice that nobody waits for them any more. Once
/// more a signal, and that is left undone.
async fn end(proxy: &Proxy, stops: &mut Stops) {
    proxy.kill();
    let ended = async {
        while !proxy.clients.is_empty() || proxy.pools.core().total().leased > 0 {
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        _ = timeout(proxy.cancel_timeout(), ended) => {}
        () = stops.next() => {}
    }
}

/// Accepts until told to stop, and deals connections to workers.
async fn accept(listener: Listener, inboxes: Arc<[Inbox]>, stop: CancellationToken) {
    let mut dealt = 0;
    let mut deal = async |accepted| {
        // Least loaded; among equals in turn.
        dealt += 1;
        let order = (0..inboxes.len()).map(|i| (dealt + i) % inboxes.len());
        if let Some(least) = order.min_by_key(|i| inboxes[*i].load()) {
            inboxes[least].serve(accepted).await;
        }
    };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => deal(accepted).await,
        }
    }
    for accepted in listener.close() {
        deal(accepted).await;
    }
}

/// Puts a configuration that was read into force, and says what changed.
async fn apply(
    proxy: &Arc<Proxy>,
    inbox: &Inbox,
    switchboard: &Switchboard,
    watchers: &Watchers,
    read: Result<Config, crate::config::Mistakes>,
) -> Result<Vec<String>, String> {
    systemd::reloading();
    let config = read.map_err(|mistakes| mistakes.to_string())?;
    let changes = diff(&proxy.config.load(), &config);
    if !changes.changed.is_empty() {
        warn_of_overloads(&config);
    }
    let applied = inbox.run(move |worker| worker.proxy.reload(worker.id, config)).await;
    match applied {
        Some(Ok(())) => {
            switchboard.reload();
            watchers.reload();
        }
        Some(Err(error)) => return Err(error.to_string()),
        None => return Err("pgweir is shutting down".to_owned()),
    }
    let mut lines: Vec<_> = changes.changed.iter().map(ToString::to_string).collect();
    lines.extend(changes.needs_restart.iter().map(|key| format!("{key} takes effect after a restart")));
    Ok(lines)
}

fn warn_of_overloads(config: &Config) {
    for overload in overloads(config) {
        tracing::warn!("{overload}");
    }
}

fn report(proxy: &Proxy, outcome: Result<Vec<String>, String>) {
    proxy.process.reloaded(outcome.is_ok());
    systemd::ready(if outcome.is_ok() { SERVING } else { "serving; the configuration file is invalid" });
    match outcome {
        Ok(changes) if changes.is_empty() => tracing::info!("configuration read again; nothing changed"),
        Ok(changes) => changes.iter().for_each(|change| tracing::info!(%change, "configuration changed")),
        Err(mistakes) => tracing::error!(%mistakes, "configuration is invalid; the old one stays in force"),
    }
}
