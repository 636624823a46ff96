//! Reads the texts that the console is sent: its own commands, and what drivers send to every server.

use std::time::Duration;

use super::help;
use super::table::{Cell, Table};
use crate::config::{self, Access};
use crate::error::ConsoleFault;
use crate::sql;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// A table.
    Show(&'static Table),
    /// One value under one name: what drivers ask every server for.
    Value(&'static str, Cell),
    /// Done as soon as it is answered with this tag: SET, BEGIN and the like.
    Nothing(&'static str),
    /// Read the file again.
    Reload,
    /// Stop leases and wait until all backends are closed; of one database or all.
    Pause(Option<String>),
    /// End a pause.
    Resume(Option<String>),
    /// Replace the backends.
    Reconnect(Option<String>),
    /// Wait until all that were to be replaced are gone.
    WaitClose(Option<String>),
    /// As pause, but without waiting for anybody: clients are dropped.
    Kill(Option<String>),
    /// Drop one client.
    KillClient(i32),
    /// Take no new clients.
    Disable(String),
    /// Take them again.
    Enable(String),
    /// Another limit of a role than the file's.
    Limit {
        /// Whose.
        role: String,
        /// Transactions at once; zero closes the valve.
        max: u32,
        /// Step by step in this time, not at once.
        over: Option<Duration>,
    },
    /// The file's limit of a role again.
    Unlimit(String),
    /// Have a role's limit grow from `admission.initial`.
    Ramp {
        /// Whose.
        role: String,
        /// In this time; `None`: as the role's `ramp` says.
        over: Option<Duration>,
    },
    /// End the process.
    Shutdown {
        /// Without waiting for transactions.
        now: bool,
    },
}

impl Command {
    /// What says that it is done.
    pub(super) fn tag(&self) -> &'static str {
        match self {
            Self::Show(_) => "SHOW",
            Self::Value(..) => "SELECT",
            Self::Nothing(tag) => tag,
            Self::Reload => "RELOAD",
            Self::Pause(_) => "PAUSE",
            Self::Resume(_) => "RESUME",
            Self::Reconnect(_) => "RECONNECT",
            Self::WaitClose(_) => "WAIT_CLOSE",
            Self::Kill(_) => "KILL",
            Self::KillClient(_) => "KILL_CLIENT",
            Self::Disable(_) => "DISABLE",
            Self::Enable(_) => "ENABLE",
            Self::Limit { .. } | Self::Unlimit(_) => "LIMIT",
            Self::Ramp { .. } => "RAMP",
            Self::Shutdown { .. } => "SHUTDOWN",
        }
    }

    /// What its user has to be allowed.
    pub(super) fn needs(&self) -> Access {
        match self {
            Self::Show(_) | Self::Value(..) | Self::Nothing(_) => Access::Look,
            Self::Reload
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Reconnect(_)
            | Self::WaitClose(_)
            | Self::Kill(_)
            | Self::KillClient(_)
            | Self::Disable(_)
            | Self::Enable(_)
            | Self::Limit { .. }
            | Self::Unlimit(_)
            | Self::Ramp { .. }
            | Self::Shutdown { .. } => Access::Act,
        }
    }
}

/// A Postgres version that drivers know how to talk to; the rest says who it is.
pub(super) const SERVER_VERSION: &str = concat!("15.0 (pgweir ", env!("CARGO_PKG_VERSION"), ")");

/// What the client is told at its login, and by SHOW and `current_setting`.
pub(super) const PARAMETERS: [(&str, &str); 11] = [
    ("server_version", SERVER_VERSION),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "off"),
    // What libpq and others look at for target_session_attrs.
    ("in_hot_standby", "off"),
    ("default_transaction_read_only", "off"),
];

/// The commands of a text, which may be none.
pub(super) fn parse(text: &str) -> Result<Vec<Command>, ConsoleFault> {
    let spans = sql::split(text.as_bytes(), sql::Context::default());
    spans.map(|span| text.get(span.clone()).unwrap_or_default()).map(command).collect()
}

fn command(text: &str) -> Result<Command, ConsoleFault> {
    let words = words(text);
    let folded: Vec<String> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
    let folded: Vec<&str> = folded.iter().map(String::as_str).collect();
    let name = |index: usize| words.get(index).map(|word| unquoted(word));
    let found = match *folded.as_slice() {
        ["show"] | ["show", "help"] => Some(Command::Show(&help::TABLE)),
        ["show", "transaction", "isolation", "level"] => Some(value("transaction_isolation", "read committed")),
        ["show", "transaction_read_only"] => Some(value("transaction_read_only", "off")),
        ["show", what] => help::table(what).map(Command::Show).or_else(|| parameter(&unquoted(what))),
        ["reload"] => Some(Command::Reload),
        ["pause"] => Some(Command::Pause(None)),
        ["pause", _] => Some(Command::Pause(name(1))),
        ["resume"] => Some(Command::Resume(None)),
        ["resume", _] => Some(Command::Resume(name(1))),
        ["reconnect"] => Some(Command::Reconnect(None)),
        ["reconnect", _] => Some(Command::Reconnect(name(1))),
        ["kill"] => Some(Command::Kill(None)),
        ["kill", _] => Some(Command::Kill(name(1))),
        ["wait_close"] => Some(Command::WaitClose(None)),
        ["wait_close", _] => Some(Command::WaitClose(name(1))),
        ["kill_client", id] => id.parse().ok().map(Command::KillClient),
        ["disable", _] => name(1).map(Command::Disable),
        ["enable", _] => name(1).map(Command::Enable),
        ["limit", ref rest @ ..] => limit(rest, name(1)),
        ["ramp", ref rest @ ..] => ramp(rest, name(1)),
        ["shutdown"] | ["shutdown", "wait_for_servers"] => Some(Command::Shutdown { now: false }),
        ["shutdown", "now"] => Some(Command::Shutdown { now: true }),
        ["select", ref what @ ..] => select(&what.concat()),
        ["set", ref assignment @ ..] if !assignment.is_empty() => match help::setting(assignment) {
            Some(fault) => return Err(fault),
            None => Some(Command::Nothing("SET")),
        },
        ["reset", _, ..] => Some(Command::Nothing("RESET")),
        ["begin", ..] => Some(Command::Nothing("BEGIN")),
        ["start", "transaction", ..] => Some(Command::Nothing("START TRANSACTION")),
        ["commit" | "end", ..] => Some(Command::Nothing("COMMIT")),
        ["rollback" | "abort", ..] => Some(Command::Nothing("ROLLBACK")),
        ["discard", "all"] => Some(Command::Nothing("DISCARD ALL")),
        ["deallocate", "all"] => Some(Command::Nothing("DEALLOCATE ALL")),
        ["deallocate", _, ..] => Some(Command::Nothing("DEALLOCATE")),
        ["close", "all"] => Some(Command::Nothing("CLOSE CURSOR ALL")),
        ["unlisten", _] => Some(Command::Nothing("UNLISTEN")),
        _ => None,
    };
    found.ok_or_else(|| help::unknown(text, &folded))
}

/// LIMIT, by what follows it, folded, and the role as it was written.
fn limit(rest: &[&str], role: Option<String>) -> Option<Command> {
    let role = role?;
    match *rest {
        [_, "default"] => Some(Command::Unlimit(role)),
        [_, max] => Some(Command::Limit { role, max: max.parse().ok()?, over: None }),
        [_, max, "over", over] => Some(Command::Limit { role, max: max.parse().ok()?, over: Some(duration(over)?) }),
        _ => None,
    }
}

/// RAMP, by what follows it, folded, and the role as it was written.
fn ramp(rest: &[&str], role: Option<String>) -> Option<Command> {
    let over = match *rest {
        [_] => None,
        [_, "over", over] => Some(duration(over)?),
        _ => return None,
    };
    Some(Command::Ramp { role: role?, over })
}

/// As the file has it, in quotes or without.
fn duration(word: &str) -> Option<Duration> {
    config::read_duration(&unquoted(word))
}

/// What is selected, folded and without blanks.
fn select(what: &str) -> Option<Command> {
    let what = what.trim_start_matches("pg_catalog.");
    match what {
        "1" => Some(Command::Value("?column?", Cell::Int(1))),
        "version()" => Some(value("version", concat!("pgweir ", env!("CARGO_PKG_VERSION")))),
        "current_database()" => Some(value("current_database", "pgweir")),
        "pg_is_in_recovery()" => Some(value("pg_is_in_recovery", "f")),
        "pg_advisory_unlock_all()" => Some(value("pg_advisory_unlock_all", "")),
        _ => {
            let argument = what.strip_prefix("current_setting('")?;
            let name = argument.split('\'').next()?;
            parameter(name).map(|command| match command {
                Command::Value(_, cell) => Command::Value("current_setting", cell),
                other => other,
            })
        }
    }
}

fn parameter(name: &str) -> Option<Command> {
    let (name, text) = PARAMETERS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some(value(name, text))
}

fn value(name: &'static str, text: &str) -> Command {
    Command::Value(name, Cell::Text(text.to_owned()))
}

/// Cuts a statement at blanks that are not inside of quotes.
fn words(text: &str) -> Vec<&str> {
    let mut quote = None;
    let is_cut = |c: char| {
        match quote {
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
        quote.is_none() && c.is_ascii_whitespace()
    };
    text.split(is_cut).filter(|word| !word.is_empty()).collect()
}

/// A name as it is meant; unlike in SQL, its case counts even without quotes, as in PgBouncer.
fn unquoted(word: &str) -> String {
    for quote in ['"', '\''] {
        if let Some(inner) = word.strip_prefix(quote).and_then(|word| word.strip_suffix(quote)) {
            let twice = format!("{quote}{quote}");
            return inner.replace(&twice, &quote.to_string());
        }
    }
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Command {
        let mut commands = parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
        assert_eq!(commands.len(), 1, "{text}");
        commands.remove(0)
    }

    fn show(name: &str) -> Command {
        Command::Show(help::table(name).expect("a table"))
    }

    #[test]
    fn case_blanks_comments_and_a_semicolon_do_not_matter() {
        for text in ["SHOW POOLS", "show pools;", " Show\n\tPools ; ", "/* agent */ SHOW POOLS -- now"] {
            assert_eq!(one(text), show("POOLS"), "{text}");
        }
    }

    #[test]
    fn several_commands_are_read_in_order() {
        let expected = [Command::Pause(None), show("STATS"), Command::Resume(None)];
        assert_eq!(parse("PAUSE; SHOW STATS;; RESUME;").expect("three"), expected);
        assert_eq!(parse(" ; -- nothing").expect("none"), []);
    }

    #[test]
    fn names_keep_their_case_and_lose_their_quotes() {
        assert_eq!(one("pause App"), Command::Pause(Some("App".into())));
        assert_eq!(one("RESUME \"my \"\"app\"\"\""), Command::Resume(Some("my \"app\"".into())));
        assert_eq!(one("kill 'a b'"), Command::Kill(Some("a b".into())));
        assert_eq!(one("Disable x"), Command::Disable("x".into()));
    }

    #[test]
    fn every_command_is_read() {
        assert_eq!(one("RELOAD"), Command::Reload);
        assert_eq!(one("RECONNECT"), Command::Reconnect(None));
        assert_eq!(one("KILL_CLIENT 17"), Command::KillClient(17));
        assert_eq!(one("ENABLE x"), Command::Enable("x".into()));
        assert_eq!(one("LIMIT Web 0"), Command::Limit { role: "Web".into(), max: 0, over: None });
        let over = Some(Duration::from_secs(60));
        assert_eq!(one("limit \"a b\" 40 over '60s'"), Command::Limit { role: "a b".into(), max: 40, over });
        assert_eq!(one("LIMIT web DEFAULT"), Command::Unlimit("web".into()));
        assert_eq!(one("RAMP web"), Command::Ramp { role: "web".into(), over: None });
        assert_eq!(one("RAMP web OVER 1m"), Command::Ramp { role: "web".into(), over });
        assert_eq!(one("SHUTDOWN"), Command::Shutdown { now: false });
        assert_eq!(one("WAIT_CLOSE app"), Command::WaitClose(Some("app".into())));
        assert_eq!(one("SHUTDOWN WAIT_FOR_SERVERS"), Command::Shutdown { now: false });
        assert_eq!(one("SHUTDOWN NOW"), Command::Shutdown { now: true });
        for table in help::tables() {
            assert_eq!(one(&format!("SHOW {}", table.name)), Command::Show(table));
        }
    }

    #[test]
    fn boilerplate_of_drivers_gets_polite_answers() {
        assert_eq!(one("SET extra_float_digits = 3"), Command::Nothing("SET"));
        assert_eq!(one("BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE"), Command::Nothing("BEGIN"));
        assert_eq!(one("DISCARD ALL"), Command::Nothing("DISCARD ALL"));
        assert_eq!(one("select 1"), Command::Value("?column?", Cell::Int(1)));
        assert_eq!(one("SHOW client_encoding"), value("client_encoding", "UTF8"));
        assert_eq!(one("SELECT current_setting('TimeZone')"), value("current_setting", "UTC"));
        assert_eq!(one("SELECT pg_catalog.version()"), value("version", concat!("pgweir ", env!("CARGO_PKG_VERSION"))));
    }
}
