//! Runs the commands that print passwords, each on its own schedule, and one run of each at a time.
//!
//! On the process's main thread, which serves no clients. A failure is counted, and logged once for as long as it stays
//! the same; what a command printed goes nowhere but to the dials.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::password_run::{FailedRun, run};
use super::service::TaskService;
use crate::metrics::{PasswordOutcome, ProcessCounter};
use crate::pool::passwords::PasswordEntry;
use crate::proxy::Proxy;

/// Runs the commands of the configuration in force, until it ends; then it ends those that run.
pub(super) fn start(proxy: &Arc<Proxy>) -> TaskService {
    TaskService::start(|reloaded, stop| keep_all(Arc::clone(proxy), reloaded, stop))
}

async fn keep_all(proxy: Arc<Proxy>, reloaded: Arc<Notify>, stop: CancellationToken) {
    let mut kept: Vec<(Arc<PasswordEntry>, JoinHandle<()>)> = Vec::new();
    while !stop.is_cancelled() {
        let entries = proxy.pools.opener().passwords().all();
        let is_in_force = |kept: &Arc<PasswordEntry>| entries.iter().any(|entry| Arc::ptr_eq(entry, kept));
        for (_, gone) in kept.extract_if(.., |(entry, _)| !is_in_force(entry)) {
            gone.abort();
        }
        for entry in entries {
            if !kept.iter().any(|(known, _)| Arc::ptr_eq(known, &entry)) {
                kept.push((Arc::clone(&entry), tokio::spawn(keep(Arc::clone(&proxy), entry))));
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = reloaded.notified() => {}
        }
    }
    for (_, task) in kept {
        task.abort();
        // What it runs is killed when this returns.
        let _ = task.await;
    }
}

/// One command, until it is aborted.
async fn keep(proxy: Arc<Proxy>, entry: Arc<PasswordEntry>) {
    let mut told: Option<FailedRun> = None;
    loop {
        entry.begin().await;
        let command = entry.command();
        let (key, program) = (command.key(), command.program().0);
        let outcome = run(&command).await;
        let counted = if outcome.is_ok() { PasswordOutcome::Succeeded } else { PasswordOutcome::Failed };
        proxy.process.add(ProcessCounter::PasswordRuns(counted));
        match &outcome {
            Ok(_) if told.take().is_some() => tracing::info!(%key, program, "the command prints a password again"),
            Ok(_) => tracing::debug!(%key, program, "the command printed a password"),
            Err(failed) if told.as_ref() == Some(failed) => {}
            Err(failed) => {
                let FailedRun { failure, stderr } = failed;
                tracing::warn!(%key, program, %failure, stderr, "no password; the last one is kept, if there is one");
                told = Some(failed.clone());
            }
        }
        entry.end(outcome.map_err(|failed| failed.failure));
    }
}
