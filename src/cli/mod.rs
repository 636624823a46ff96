//! The command line: which command, with what, and what it exits with.
//!
//! One file per command. Commands print for people on stdout, and what is wrong on stderr.

mod check;
mod import;
mod log;
mod man;
mod notify_sql;
mod replay;
mod run;
mod verifier;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

/// A connection-pooling proxy for Postgres that keeps the database from tipping over.
///
/// Without a command it serves clients as the configuration file says.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Subcommands>,
    #[command(flatten)]
    run: ServeArguments,
}

/// Serve clients.
#[derive(Debug, Args)]
struct ServeArguments {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "proxy.toml")]
    config: PathBuf,
    /// How log records are written to stderr.
    #[arg(long, value_enum, default_value_t = log::Format::Text)]
    log_format: log::Format,
    /// Least level to log, such as "debug", or per module, such as "info,pgweir::pool=trace".
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = log::filter)]
    log_level: String,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    Check(check::CheckArguments),
    /// Print SQL that lets triggers and functions notify through pgweir, for psql to run.
    NotifySql(notify_sql::NotifySql),
    Import(import::Arguments),
    Replay(replay::ReplayArguments),
    Suggest(replay::SuggestArguments),
    /// Turn a password read from stdin into a SCRAM-SHA-256 verifier, for `roles.*.password`.
    Verifier,
    /// Print the JSON schema of a configuration file, for editors: taplo, check-jsonschema.
    Schema,
    /// Print the manual page: pgweir man | man -l -.
    Man,
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// What the program exits with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// All went well.
    Done = 0,
    /// The command line, its input or the configuration is wrong.
    BadInput = 1,
    /// An address cannot be listened on.
    CannotListen = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs the command that the command line names.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap, too; clap's own exit code for mistakes would be CannotListen.
            let exit = match error.use_stderr() {
                true => Exit::BadInput,
                false => Exit::Done,
            };
            // A closed stdout or stderr leaves nobody to tell.
            let _ = error.print();
            return exit.into();
        }
    };
    let exit = match cli.command {
        None => run::run(&cli.run),
        Some(Subcommands::Check(arguments)) => check::check(&arguments),
        Some(Subcommands::NotifySql(wanted)) => notify_sql::notify_sql(&wanted),
        Some(Subcommands::Import(arguments)) => import::import(&arguments),
        Some(Subcommands::Replay(arguments)) => replay::replay(&arguments),
        Some(Subcommands::Suggest(arguments)) => replay::suggest(&arguments),
        Some(Subcommands::Verifier) => verifier::verifier(),
        Some(Subcommands::Schema) => {
            println!("{:#}", pgweir::config::schema());
            Exit::Done
        }
        Some(Subcommands::Man) => man::man(),
        Some(Subcommands::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "pgweir", &mut std::io::stdout());
            Exit::Done
        }
    };
    exit.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_arguments_it_runs_the_file_in_the_working_directory() {
        let cli = Cli::try_parse_from(["pgweir"]).expect("no arguments are needed");
        assert!(cli.command.is_none());
        assert_eq!(cli.run.config, PathBuf::from("proxy.toml"));
    }

    #[test]
    fn log_level_that_cannot_be_read_is_refused() {
        for level in ["pgweir=loud", "loud", "info,loud", ""] {
            let refused = Cli::try_parse_from(["pgweir", "--log-level", level]);
            assert!(refused.is_err(), "{level}");
        }
        assert!(Cli::try_parse_from(["pgweir", "--log-level", "info,pgweir::pool=trace"]).is_ok());
    }
}
