//! The process from its start to its end: workers, listeners, signals, reload, drain.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Watcher, diff, overloads};
use crate::net::listen::{ListenError, Listener, accept_all};
use crate::net::tls::TlsError;
use crate::notify::switchboard::Switchboard;
use crate::proxy::Proxy;
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

/// What the console or a signal asks the process to do.
#[derive(Debug)]
pub enum Order {
    /// Read the file now, and tell what came of it.
    Reload(tokio::sync::oneshot::Sender<Result<Vec<String>, String>>),
    /// Drain and end; at once if `now`.
    Shutdown {
        /// Without waiting for transactions.
        now: bool,
    },
}

/// Serves until told to stop.
pub fn run(path: &Path, config: Config) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(path, config))
}

async fn serve(path: &Path, config: Config) -> Result<(), RunError> {
    let mut watcher = Watcher::new(path, &config);
    warn_of_overloads(&config);
    let listeners = config.listen.addr.iter().map(Listener::bind).collect::<Result<Vec<_>, _>>()?;
    let (orders, mut inbox) = mpsc::channel(16);
    let admin_addr = config.admin.addr;
    let proxy = Arc::new(Proxy::new(config, orders)?);
    let switchboard = Switchboard::start(&proxy);
    let mut inboxes = Vec::new();
    for id in 0..proxy.workers {
        inboxes.push(worker::start(id, Arc::clone(&proxy)).await?);
    }
    let inboxes: Arc<[Inbox]> = inboxes.into();
    let stop = CancellationToken::new();
    if let Some(addr) = admin_addr {
        let http = crate::admin::http::bind(addr).await?;
        tracing::info!(kind = "admin", addr = %http.local_addr()?, "listening");
        tokio::spawn(crate::admin::http::serve(http, Arc::clone(&proxy)));
    }
    for listener in listeners {
        tracing::info!(kind = "postgres", addr = %listener.local_addr(), "listening");
        tokio::spawn(accept(Arc::new(listener), Arc::clone(&inboxes), stop.clone()));
    }
    let mut hangup = signal(SignalKind::hangup())?;
    let mut stops = Stops { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    let mut watch = tokio::time::interval(WATCH);
    let now = loop {
        tokio::select! {
            () = stops.next() => break false,
            _ = hangup.recv() => {
                let read = watcher.reload();
                report(&proxy, apply(&proxy, &inboxes[0], &switchboard, read).await);
            }
            _ = watch.tick() => {
                if let Some(read) = watcher.check() {
                    report(&proxy, apply(&proxy, &inboxes[0], &switchboard, read).await);
                }
            }
            Some(order) = inbox.recv() => match order {
                Order::Shutdown { now } => break now,
                Order::Reload(answer) => {
                    let read = watcher.reload();
                    let outcome = apply(&proxy, &inboxes[0], &switchboard, read).await;
                    report(&proxy, outcome.clone());
                    let _ = answer.send(outcome);
                }
            },
        }
    };
    stop.cancel();
    proxy.drain();
    let deadline = Instant::now() + proxy.config.load().listen.shutdown_timeout;
    if !now {
        drain(&proxy, deadline, &mut stops).await;
    }
    end(&proxy, &mut stops).await;
    let least = Instant::now() + proxy.cancel_timeout();
    tokio::select! {
        () = switchboard.finish(if now { least } else { deadline.max(least) }) => {}
        () = stops.next() => {}
    }
    Ok(())
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

/// Nobody new; those connected leave when their transaction ends, or when the time is up, or at a second signal.
async fn drain(proxy: &Proxy, deadline: Instant, stops: &mut Stops) {
    let limit = proxy.config.load().listen.shutdown_timeout;
    tracing::info!(clients = proxy.clients.len(), ?limit, "draining");
    loop {
        if proxy.connections.load(Ordering::Acquire) == 0 {
            tracing::info!("drained");
            return;
        }
        let look = Instant::now() + Duration::from_millis(20);
        tokio::select! {
            () = sleep_until(look.min(deadline)) => if Instant::now() >= deadline {
                tracing::warn!(clients = proxy.clients.len(), "shutdown_timeout passed; closing the rest");
                return;
            },
            () = stops.next() => {
                tracing::warn!(clients = proxy.clients.len(), "second signal; closing the rest");
                return;
            }
        }
    }
}

/// Tells those who are left, and ends their queries: a server does not notice that nobody waits for them any more. Once
/// more a signal, and that is left undone.
async fn end(proxy: &Proxy, stops: &mut Stops) {
    proxy.kill();
    let ended = async {
        while !proxy.clients.is_empty() || proxy.pools.core().total().leased > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        _ = timeout(proxy.cancel_timeout(), ended) => {}
        () = stops.next() => {}
    }
}

async fn accept(listener: Arc<Listener>, inboxes: Arc<[Inbox]>, stop: CancellationToken) {
    let next = AtomicUsize::new(0);
    let deal = |accepted| {
        // Least loaded; among equals in turn.
        let start = next.fetch_add(1, Ordering::Relaxed);
        let order = (0..inboxes.len()).map(|i| (start + i) % inboxes.len());
        let inbox = order.min_by_key(|i| inboxes[*i].load()).map(|i| inboxes[i].clone());
        async move {
            if let Some(inbox) = inbox {
                inbox.serve(accepted).await;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = accept_all(listener, deal) => {}
    }
}

/// Puts a configuration that was read into force, and says what changed.
async fn apply(
    proxy: &Arc<Proxy>,
    inbox: &Inbox,
    switchboard: &Switchboard,
    read: Result<Config, crate::config::Mistakes>,
) -> Result<Vec<String>, String> {
    let config = read.map_err(|mistakes| mistakes.to_string())?;
    let changes = diff(&proxy.config.load(), &config);
    if !changes.changed.is_empty() {
        warn_of_overloads(&config);
    }
    let applied = inbox.run(move |worker| worker.proxy.reload(worker.id, config)).await;
    match applied {
        Some(Ok(())) => switchboard.reload(),
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
    match outcome {
        Ok(changes) if changes.is_empty() => tracing::info!("configuration read again; nothing changed"),
        Ok(changes) => changes.iter().for_each(|change| tracing::info!(%change, "configuration changed")),
        Err(mistakes) => tracing::error!(%mistakes, "configuration is invalid; the old one stays in force"),
    }
}
