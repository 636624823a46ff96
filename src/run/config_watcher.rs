//! Reads the configuration file again when it changes and on SIGHUP, and hands over the result.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval};

use super::service::Service;
use crate::config::{Config, Mistakes, Watcher};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The result of reading the file.
pub(super) type Reading = Result<Config, Mistakes>;

/// The file that the configuration comes from.
#[derive(Debug, Clone)]
pub(super) struct ConfigFile(Arc<Mutex<Watcher>>);

impl ConfigFile {
    pub(super) fn new(path: &Path, config: &Config) -> Self {
        Self(Arc::new(Mutex::new(Watcher::new(path, config))))
    }

    /// Reads the file, changed or not.
    pub(super) fn read(&self) -> Reading {
        self.0.lock().expect("no panic while held").reload()
    }

    fn read_if_changed(&self) -> Option<Reading> {
        self.0.lock().expect("no panic while held").check()
    }
}

/// Looks at the file until it is finished.
#[derive(Debug)]
pub(super) struct ConfigWatcher(JoinHandle<()>);

impl ConfigWatcher {
    pub(super) fn start(file: &ConfigFile, readings: mpsc::Sender<Reading>) -> io::Result<Self> {
        Ok(Self(tokio::spawn(watch(file.clone(), signal(SignalKind::hangup())?, readings))))
    }
}

impl Service for ConfigWatcher {
    fn reload(&self) {}

    fn finish(self: Box<Self>, _deadline: Instant) -> Pin<Box<dyn Future<Output = ()>>> {
        self.0.abort();
        Box::pin(async move {
            let _ = self.0.await;
        })
    }
}

async fn watch(file: ConfigFile, mut hangup: Signal, readings: mpsc::Sender<Reading>) {
    let mut look = interval(LOOK_EVERY);
    loop {
        let reading = tokio::select! {
            _ = hangup.recv() => Some(file.read()),
            _ = look.tick() => file.read_if_changed(),
        };
        if let Some(reading) = reading
            && readings.send(reading).await.is_err()
        {
            return;
        }
    }
}
