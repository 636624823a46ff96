//! A recording, run again with other settings: the real core of the pools over the recorded arrivals, with a model of
//! the server that is fitted to the recording.
//!
//! [`server`] is the model, [`run`] the run, [`report`] what it says beside what happened, [`mod@suggest`] what the
//! recording would set.

mod report;
mod run;
mod server;
mod suggest;

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::{self, SetError};
use crate::recorder::{self, Recording};

/// Why there is nothing to show.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The file cannot be read.
    #[error("{0}: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// It is another file.
    #[error("{0} is no recording, or has no names that are whole")]
    NoRecording(PathBuf),
    /// Nothing was recorded so far.
    #[error("{0} has no transactions")]
    Empty(PathBuf),
    /// The configuration has mistakes, or cannot be changed so.
    #[error("{0}")]
    Set(#[from] SetError),
}

/// The table of what happened, and of what would have with this configuration and these changes of it.
pub fn replay(file: &Path, config: &Path, changes: &[String]) -> Result<String, ReplayError> {
    let config = config::load_with(config, changes)?;
    let recording = read(file)?;
    let model = server::ServerModel::fit(&recording.transactions);
    let happened = report::happened(&recording);
    let replayed = run::run(&recording, &config, &model);
    Ok(report::table(&recording, &happened, &replayed, &model))
}

/// What the recording says that should be set, and why.
pub fn suggest(file: &Path) -> Result<String, ReplayError> {
    Ok(suggest::suggestions(&read(file)?))
}

fn read(file: &Path) -> Result<Recording, ReplayError> {
    let bytes = std::fs::read(file).map_err(|error| ReplayError::Unreadable(file.to_owned(), error))?;
    let recording = recorder::read(&bytes).ok_or_else(|| ReplayError::NoRecording(file.to_owned()))?;
    match recording.transactions.is_empty() {
        true => Err(ReplayError::Empty(file.to_owned())),
        false => Ok(recording),
    }
}
