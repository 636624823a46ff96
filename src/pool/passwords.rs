//! The passwords that commands print: the last good one of each, and the dials that wait for one.
//!
//! `schedule` decides when a command runs. The process's main thread runs them
//! (`run::passwords`); dials of all workers only wait here, and none waits where there is a
//! password. What a command printed is in no log and no error.

mod schedule;

use std::collections::HashMap;
use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use self::schedule::RefreshSchedule;
use crate::config::{PasswordCommand, Secret};

/// Every run ends within its time, and the next begins within a second; so longer than this waits only who is with a
/// process that stands still.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a run of a command is of no use.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CommandFailure {
    #[error("the command cannot be run: {0}")]
    Start(io::ErrorKind),
    #[error("the command ended with {0}")]
    Status(ExitStatus),
    #[error("the command did not end within {0:?}")]
    Timeout(Duration),
    #[error("the command printed nothing")]
    Empty,
    #[error("the command printed more than {0} bytes")]
    TooLong(usize),
    /// Not UTF-8, or with a zero byte.
    #[error("the command printed what is no text")]
    NotText,
    #[error("the command's output cannot be read: {0}")]
    Output(io::ErrorKind),
}

/// Why there is no password.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PasswordError {
    /// The last run failed, and none before was of use.
    #[error("there is no password so far, {key}: {failure}")]
    Failed {
        /// Where the command stands.
        key: Arc<str>,
        /// Shown as text.
        failure: String,
    },
    /// No run came to its end in time.
    #[error("there is no password so far, {key}: the command did not end in time")]
    Late {
        /// Where the command stands.
        key: Arc<str>,
    },
    /// Another configuration is in force.
    #[error("{key} has changed")]
    Gone {
        /// Where the command stood.
        key: Arc<str>,
    },
}

/// All commands of the configuration in force.
#[derive(Debug, Default)]
pub(crate) struct Passwords {
    entries: Mutex<HashMap<PasswordCommand, Arc<PasswordEntry>>>,
}

/// One command.
#[derive(Debug)]
pub(crate) struct PasswordEntry {
    command: Mutex<PasswordCommand>,
    schedule: Mutex<RefreshSchedule>,
    asked: Notify,
    outcome: watch::Sender<RunsSoFar>,
}

#[derive(Debug, Default)]
struct RunsSoFar {
    ended: u64,
    issued: Option<Secret>,
    /// Of the last run.
    failure: Option<CommandFailure>,
}

impl Passwords {
    /// These are the commands in force: those that were before keep what they printed.
    pub(crate) fn set(&self, commands: impl Iterator<Item = PasswordCommand>) {
        let mut entries = self.entries();
        let mut before = std::mem::take(&mut *entries);
        for command in commands {
            if let Some(entry) = before.remove(&command) {
                *entry.command.lock().expect("no panic while held") = command.clone();
                entries.insert(command, entry);
            } else {
                entries.entry(command).or_insert_with_key(|command| Arc::new(PasswordEntry::new(command.clone())));
            }
        }
        before.values().for_each(|entry| entry.retire());
    }

    pub(crate) fn all(&self) -> Vec<Arc<PasswordEntry>> {
        self.entries().values().cloned().collect()
    }

    /// The password that this command printed last; waits for the first. May be dropped at any time.
    pub(crate) async fn current(&self, command: &PasswordCommand) -> Result<Secret, PasswordError> {
        self.entry(command)?.issued(command, |_| true).await
    }

    /// Another password, after a server refused this one: printed since, or by a run now. `None`: there is no other.
    pub(crate) async fn other_than(&self, refused: &Secret, command: &PasswordCommand) -> Option<Secret> {
        let is_other = |issued: &Secret| issued != refused;
        self.entry(command).ok()?.issued(command, is_other).await.ok().filter(is_other)
    }

    fn entry(&self, command: &PasswordCommand) -> Result<Arc<PasswordEntry>, PasswordError> {
        let entry = self.entries().get(command).cloned();
        entry.ok_or_else(|| PasswordError::Gone { key: Arc::clone(command.key()) })
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<PasswordCommand, Arc<PasswordEntry>>> {
        self.entries.lock().expect("no panic while held")
    }
}

impl PasswordEntry {
    fn new(command: PasswordCommand) -> Self {
        let schedule = Mutex::new(RefreshSchedule::new(command.refresh(), Instant::now()));
        Self { command: Mutex::new(command), schedule, asked: Notify::new(), outcome: watch::Sender::default() }
    }

    pub(crate) fn command(&self) -> PasswordCommand {
        self.command.lock().expect("no panic while held").clone()
    }

    /// Waits until the command is to be run, and notes that it is. May be dropped at any time.
    pub(crate) async fn begin(&self) {
        loop {
            let due = self.schedule().due().unwrap_or_else(Instant::now);
            tokio::select! {
                () = sleep_until(due) => break,
                () = self.asked.notified() => {}
            }
        }
        self.schedule().begin(Instant::now());
    }

    /// The run has ended like this.
    pub(crate) fn end(&self, outcome: Result<Secret, CommandFailure>) {
        let (now, uniform) = (Instant::now(), fastrand::f64());
        match &outcome {
            Ok(_) => self.schedule().succeeded(now, uniform),
            Err(_) => self.schedule().failed(now, uniform),
        }
        self.outcome.send_modify(|so_far| {
            so_far.ended += 1;
            match outcome {
                Ok(password) => {
                    so_far.issued = Some(password);
                    so_far.failure = None;
                }
                Err(failure) => so_far.failure = Some(failure),
            }
        });
    }

    /// The last password if it is of use; else has the command run soon, and waits for what that run prints.
    async fn issued(
        &self,
        command: &PasswordCommand,
        is_of_use: impl Fn(&Secret) -> bool,
    ) -> Result<Secret, PasswordError> {
        let mut outcome = self.outcome.subscribe();
        let before = {
            let so_far = outcome.borrow_and_update();
            if let Some(issued) = so_far.issued.as_ref().filter(|issued| is_of_use(issued)) {
                return Ok(issued.clone());
            }
            so_far.ended
        };
        self.schedule().ask(Instant::now());
        self.asked.notify_one();
        let key = Arc::clone(command.key());
        let ended = timeout(command.timeout() + PATIENCE, outcome.wait_for(|so_far| so_far.ended > before)).await;
        let Ok(Ok(so_far)) = ended else { return Err(PasswordError::Late { key }) };
        match (&so_far.failure, &so_far.issued) {
            (Some(failure), _) => Err(PasswordError::Failed { key, failure: failure.to_string() }),
            (None, Some(issued)) => Ok(issued.clone()),
            (None, None) => Err(PasswordError::Gone { key }),
        }
    }

    /// It is in force no longer.
    fn retire(&self) {
        self.outcome.send_modify(|so_far| *so_far = RunsSoFar { ended: so_far.ended + 1, ..RunsSoFar::default() });
    }

    fn schedule(&self) -> MutexGuard<'_, RefreshSchedule> {
        self.schedule.lock().expect("no panic while held")
    }
}
