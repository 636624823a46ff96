//! PAUSE.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{resume, targets};
use crate::admin::command::{ActionWait, ConsoleCommand, FollowUp};
use crate::admin::words::{CommandArguments, duration};
use crate::error::ConsoleFault;
use crate::orders::given::{OrderMark, OrderTarget};
use crate::pool::core::DatabaseId;
use crate::proxy::Proxy;
use crate::session::context::Worker;

/// Of one database, or of all.
#[derive(Debug)]
pub(super) struct Pause {
    database: Option<String>,
    /// It ends by itself when another primary is known, or after this time.
    until_primary: Option<Duration>,
}

impl ConsoleCommand for Pause {
    const TAG: &'static str = "PAUSE";
    const USAGE: &'static [(&'static str, &'static str)] = &[
        ("PAUSE [db]", "stop leases, wait until all backends are closed; clients wait"),
        (
            "PAUSE db UNTIL PRIMARY '30s'",
            "stop leases until another primary is known, or for this time; waits for nobody",
        ),
    ];

    fn read(arguments: &CommandArguments<'_>) -> Option<Self> {
        match arguments.folded() {
            [_, "until", "primary", limit] => {
                Some(Self { database: Some(arguments.name(0)?), until_primary: Some(duration(limit)?) })
            }
            _ => Some(Self { database: arguments.name_or_all()?, until_primary: None }),
        }
    }

    fn run(&self, worker: &Worker, _: &str) -> Result<FollowUp, ConsoleFault> {
        let name = self.database.as_deref();
        if let (Some(name), Some(limit)) = (name, self.until_primary) {
            return pause_until_primary(worker, name, limit);
        }
        let databases = pause(worker, name)?;
        let (waited, is_all) = (databases.clone(), name.is_none());
        Ok(FollowUp::Wait(ActionWait {
            pending: Box::new(move |proxy| match open_backends(proxy, &waited) {
                0 => None,
                open => Some(still_open(open)),
            }),
            canceled: ConsoleFault::PauseCanceled,
            undo: Box::new(move |worker| resume::resume(worker, is_all, &databases)),
        }))
    }

    fn mark(&self) -> Option<OrderMark> {
        Some(OrderMark::Begins(OrderTarget::Pause(self.database.clone())))
    }
}

/// Stops the leases of a database now. They begin again with the next primary, or when the time is up: whoever gave the
/// command need not come back. It is answered when the transactions under way have ended, for which they have half of
/// the time: then their server may be stopped.
fn pause_until_primary(worker: &Worker, name: &str, limit: Duration) -> Result<FollowUp, ConsoleFault> {
    let proxy = Arc::clone(&worker.proxy);
    let Some(monitor) = proxy.topologies.of(name) else {
        targets::databases(&proxy, Some(name))?;
        return Err(ConsoleFault::NoTopology(name.to_owned()));
    };
    let epoch = monitor.view().epoch;
    let databases = pause(worker, Some(name))?;
    let begun = pauses(&proxy, &databases);
    let (id, now) = (worker.id, Instant::now());
    let (deadline, patience) = (now + limit, now + limit / 2);
    let waited = databases.clone();
    tokio::task::spawn_local(async move {
        let is_proved = monitor.primary_after(epoch, deadline).await;
        // Another PAUSE or RESUME has taken its place.
        if pauses(&proxy, &databases) == begun {
            tracing::info!(database = %monitor.database, is_proved, "PAUSE UNTIL PRIMARY is over");
            proxy.directory.resume(id, &databases);
        }
    });
    let undone = waited.clone();
    Ok(FollowUp::Wait(ActionWait {
        pending: Box::new(move |proxy| match open_backends(proxy, &waited) {
            open if open > 0 && pauses(proxy, &waited) == begun && Instant::now() < patience => Some(still_open(open)),
            _ => None,
        }),
        canceled: ConsoleFault::PauseCanceled,
        undo: Box::new(move |worker| resume::resume(worker, false, &undone)),
    }))
}

fn still_open(open: u32) -> String {
    format!("{open} backends are still open; each is closed when its transaction ends")
}

/// Stops the leases of a database, or of all and of those that nobody has asked for so far.
pub(super) fn pause(worker: &Worker, name: Option<&str>) -> Result<Vec<DatabaseId>, ConsoleFault> {
    let proxy = &worker.proxy;
    let databases = targets::databases(proxy, name)?;
    proxy.directory.pause_newcomers(name.is_none() || proxy.directory.is_paused());
    proxy.directory.pause(worker.id, &databases);
    Ok(databases)
}

fn open_backends(proxy: &Proxy, databases: &[DatabaseId]) -> u32 {
    let core = proxy.pools.core();
    databases.iter().filter_map(|id| core.database(*id)).map(|database| database.counts.open()).sum()
}

fn pauses(proxy: &Proxy, databases: &[DatabaseId]) -> u64 {
    let core = proxy.pools.core();
    databases.iter().filter_map(|id| core.database(*id)).map(|database| database.pauses).sum()
}
