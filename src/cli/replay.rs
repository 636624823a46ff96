//! `pgweir replay` and `pgweir suggest`: a recording run again with other settings, and what it would set.

use std::path::PathBuf;

use clap::Args;
use pgweir::replay;

use super::Exit;

/// Run the transactions of a recording again with other settings, and print what would have happened.
#[derive(Debug, Args)]
pub(super) struct ReplayArguments {
    /// The recording: `recorder.path`.
    file: PathBuf,
    /// The configuration that is changed.
    #[arg(long, short, value_name = "FILE", default_value = "proxy.toml")]
    config: PathBuf,
    /// A key with another value, such as roles.web.transactions_max=30; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    changes: Vec<String>,
}

/// Print the limits and timeouts that a recording suggests, as lines of a configuration.
#[derive(Debug, Args)]
pub(super) struct SuggestArguments {
    /// The recording: `recorder.path`.
    file: PathBuf,
}

pub(super) fn replay(arguments: &ReplayArguments) -> Exit {
    print(replay::replay(&arguments.file, &arguments.config, &arguments.changes))
}

pub(super) fn suggest(arguments: &SuggestArguments) -> Exit {
    print(replay::suggest(&arguments.file))
}

fn print(answer: Result<String, replay::ReplayError>) -> Exit {
    match answer {
        Ok(text) => {
            print!("{text}");
            Exit::Done
        }
        Err(error) => {
            eprintln!("{error}");
            Exit::BadInput
        }
    }
}
