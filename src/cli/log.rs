//! Log records to stderr, for people or for machines.

use std::io;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How log records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Checks a filter when the command line is read; it is used as text later.
pub(super) fn filter(text: &str) -> Result<String, ParseError> {
    EnvFilter::try_new(text).map(|_| text.to_owned())
}

/// Starts logging for the whole process.
pub(super) fn start(format: Format, level: &str) {
    let records = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(level)).with_writer(io::stderr);
    match format {
        Format::Text => records.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        Format::Json => records.json().flatten_event(true).init(),
    }
}
