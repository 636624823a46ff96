//! `pgweir`: reads the configuration, starts the log, and serves.

use std::io::Write;

use pgweir::config;

use super::{Exit, ServeArguments, log};

/// Serves until it is told to stop.
pub(super) fn run(run: &ServeArguments) -> Exit {
    let (_flush, log_level) = match log::start(run.log_format, &run.log_level) {
        Ok(log) => log,
        Err(error) => {
            // There is nobody to tell if this fails, too.
            let _ = writeln!(std::io::stderr(), "cannot start the log: {error}");
            return Exit::CannotListen;
        }
    };
    let config = match config::load(&run.config) {
        Ok(config) => config,
        Err(mistakes) => {
            for mistake in &mistakes.list {
                tracing::error!("{mistake}");
            }
            return Exit::BadInput;
        }
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        workers_max = config.listen.workers_max(),
        clients_max = config.listen.clients_max,
        backends_total_max = config.backends_total_max,
        config = %run.config.display(),
        databases = config.databases.len(),
        roles = config.roles.len(),
        "configuration read"
    );
    match pgweir::run::run(&run.config, config, log_level) {
        Ok(()) => Exit::Done,
        Err(error) => {
            tracing::error!("{error}");
            Exit::CannotListen
        }
    }
}
