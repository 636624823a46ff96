//! Help: HELP itself, how a command is written, which one was probably meant, and the replacements of those that only
//! PgBouncer has.

use super::command::CommandKind;
use super::commands;
use super::table::{ConsoleTable, columns, table};
use super::tables;
use crate::error::ConsoleFault;
use crate::pgbouncer::{self, Fate};
use crate::proxy::Proxy;

/// Commands of PgBouncer's console that ours does not have, and what to do instead.
const ABSENT: [(&str, &str); 6] = [
    ("SHOW FDS", "A new pgweir starts beside the old one: see listen.reuse_port and SHUTDOWN."),
    ("SHOW SOCKETS", "SHOW CLIENTS and SHOW SERVERS list every connection."),
    ("SHOW ACTIVE_SOCKETS", "SHOW CLIENTS and SHOW SERVERS list every connection; state tells who is active."),
    ("SHOW MEM", "What the process holds is best asked of the system; SHOW LISTS counts what it is made of."),
    (
        "SHUTDOWN WAIT_FOR_CLIENTS",
        "Raise listen.linger, RELOAD, then SHUTDOWN: nobody is told to go before it is over.",
    ),
    (
        "SUSPEND",
        "PAUSE holds clients for a restart of the server; a new pgweir starts beside the old one: see listen.reuse_port.",
    ),
];

/// First words of SQL, typed by people who think that they are at a server.
const SQL: [&str; 25] = [
    "select", "insert", "update", "delete", "merge", "with", "values", "table", "copy", "create", "drop", "truncate",
    "grant", "revoke", "comment", "explain", "analyze", "vacuum", "call", "do", "prepare", "execute", "declare",
    "lock", "alter",
];

/// SHOW HELP.
pub(super) const TABLE: ConsoleTable = table!("HELP", "every command", lines);

struct HelpLine {
    command: String,
    help: &'static str,
}

columns! { HelpLine;
    "command" text = |it| &it.command,
    "what it does" text = |it| it.help,
}

fn lines(_: &Proxy) -> Vec<HelpLine> {
    let shows = tables().map(|table| HelpLine { command: format!("SHOW {}", table.name), help: table.help });
    let commands = usages().map(|(command, help)| HelpLine { command: command.to_owned(), help });
    shows.chain(commands).collect()
}

pub(super) fn tables() -> impl Iterator<Item = &'static ConsoleTable> {
    [&TABLE].into_iter().chain(tables::ALL.iter().copied())
}

/// The table of this name.
pub(super) fn table(name: &str) -> Option<&'static ConsoleTable> {
    tables().find(|table| table.name.eq_ignore_ascii_case(name))
}

/// The command that begins with this word.
pub(super) fn command(first: &str) -> Option<&'static CommandKind> {
    commands::ALL.iter().find(|command| command.tag.eq_ignore_ascii_case(first))
}

/// The ways to write commands, and what they do.
fn usages() -> impl Iterator<Item = (&'static str, &'static str)> {
    commands::ALL.iter().flat_map(|command| command.usage).copied()
}

/// The fault of a text that is no command; `folded` is its words in lower case.
pub(super) fn unknown(text: &str, folded: &[&str]) -> ConsoleFault {
    let begins_with = |command: &str| {
        let mut words = folded.iter();
        command.split(' ').all(|word| words.next().is_some_and(|said| word.eq_ignore_ascii_case(said)))
    };
    if let Some((command, instead)) = ABSENT.into_iter().find(|(command, _)| begins_with(command)) {
        return ConsoleFault::Absent { command, instead };
    }
    let first = folded.first().copied().unwrap_or_default();
    if SQL.contains(&first) {
        return ConsoleFault::Sql;
    }
    if let Some(command) = command(first) {
        let written: Vec<&str> = command.usage.iter().map(|(usage, _)| *usage).collect();
        return ConsoleFault::Usage(written.join(", or "));
    }
    let shows = tables().map(|table| table.name);
    let meant = match *folded {
        ["show", what] => nearest(what, shows).map(|show| format!("SHOW {show}")),
        // People leave it out.
        [what] if table(what).is_some() => Some(format!("SHOW {}", what.to_ascii_uppercase())),
        _ => nearest(first, commands::ALL.iter().map(|command| command.tag).chain(["SHOW"])).map(str::to_owned),
    };
    ConsoleFault::Command { text: excerpt(text), meant }
}

/// The fault of a SET, by the words behind it in lower case. `None`: drivers set this at every server.
pub(super) fn setting(assignment: &[&str]) -> Option<ConsoleFault> {
    let (["session" | "local", first, ..] | [first, ..]) = *assignment else { return None };
    let name = first.split('=').next().unwrap_or_default();
    if name.contains('.') {
        return Some(ConsoleFault::Setting(Some(name.to_owned())));
    }
    // Since version 17 it is Postgres's, too, and programs set it at every server.
    let fate = pgbouncer::fate(name).filter(|_| name != "transaction_timeout")?;
    let place = match fate {
        Fate::Same(place) | Fate::Different(place) => Some(place).filter(|place| *place != "—"),
        Fate::Missing | Fate::Unsafe | Fate::Unneeded => None,
    };
    Some(ConsoleFault::Setting(place.map(str::to_owned)))
}

/// The known word that is a slip away, or two if the word is longer.
fn nearest(said: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let slips = |known: &str| strsim::osa_distance(&known.to_ascii_lowercase(), said);
    let (slips, near) = known.map(|known| (slips(known), known)).min()?;
    (slips <= 1 + said.len() / 4).then_some(near)
}

/// Enough of a text to know it again.
fn excerpt(text: &str) -> String {
    const CHARACTERS: usize = 60;
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::statement::parse;
    use super::*;

    fn fault(text: &str) -> ConsoleFault {
        parse(text).expect_err(text)
    }

    fn meant(text: &str) -> Option<String> {
        match fault(text) {
            ConsoleFault::Command { meant, .. } => meant,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn what_was_probably_meant_is_said() {
        for (text, expected) in [
            ("SHOW POOL", "SHOW POOLS"),
            ("show clinets", "SHOW CLIENTS"),
            ("SHOW CONVOY", "SHOW CONVOYS"),
            ("POOLS", "SHOW POOLS"),
            ("PUASE app", "PAUSE"),
            ("KILL-CLIENT 5", "KILL_CLIENT"),
            ("SHWO POOLS", "SHOW"),
        ] {
            assert_eq!(meant(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["SHOW ME", "SHOW statement_timeout", "SHOW POOLS app", "what is this", "\""] {
            assert!(meant(text).is_none_or(|meant| meant == "SHOW"), "{text}");
        }
    }

    #[test]
    fn a_command_that_goes_on_otherwise_is_told_how_it_is_written() {
        for (text, usage) in [
            ("PAUSE a b", "PAUSE [db], or PAUSE db UNTIL PRIMARY '30s'"),
            ("RELOAD now", "RELOAD"),
            ("SET", "SET log_level = 'debug'"),
            ("SET log_level 'debug'", "SET log_level = 'debug'"),
            ("DISABLE", "DISABLE db"),
            ("KILL_CLIENT x", "KILL_CLIENT id"),
            ("RAMP web 60s", "RAMP role [OVER '60s']"),
            ("RAMP web OVER '60'", "RAMP role [OVER '60s']"),
            ("LIMIT web -1", "LIMIT role n [OVER '60s'], or LIMIT role DEFAULT, or LIMIT STATEMENT digest n FOR '10m'"),
            (
                "LIMIT web 5 OVER 60",
                "LIMIT role n [OVER '60s'], or LIMIT role DEFAULT, or LIMIT STATEMENT digest n FOR '10m'",
            ),
            ("SHUTDOWN later", "SHUTDOWN, or SHUTDOWN WAIT_FOR_SERVERS, or SHUTDOWN NOW"),
        ] {
            assert_eq!(fault(text), ConsoleFault::Usage(usage.to_owned()), "{text}");
        }
    }

    #[test]
    fn the_page_names_every_command() {
        let page = include_str!("../../docs/OPERATIONS.md");
        for command in tables().map(|table| format!("`SHOW {}`", table.name)) {
            assert!(page.contains(&command), "{command}");
        }
        for command in commands::ALL {
            assert!(page.contains(&format!("`{}", command.tag)), "{}", command.tag);
        }
    }

    #[test]
    fn what_only_pgbouncer_has_is_answered_with_what_to_do_instead() {
        for (command, instead) in ABSENT {
            assert_eq!(fault(command), ConsoleFault::Absent { command, instead });
        }
    }

    // PgBouncer 1.25, src/admin.c: all of its HELP.
    #[test]
    fn every_command_of_pgbouncer_is_known_or_answered_with_another() {
        for text in [
            "SHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION|PEERS|PEER_POOLS|FDS|SOCKETS|ACTIVE_SOCKETS",
            "SHOW LISTS|MEM|STATE|DNS_HOSTS|DNS_ZONES|STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS",
            "RELOAD ",
            "PAUSE |app",
            "RESUME |app",
            "DISABLE app",
            "ENABLE app",
            "RECONNECT |app",
            "KILL |app",
            "KILL_CLIENT 1",
            "SUSPEND ",
            "SHUTDOWN |WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS",
            "WAIT_CLOSE |app",
        ] {
            let (command, arguments) = text.split_once(' ').expect("both");
            for argument in arguments.split('|') {
                let read = parse(&format!("{command} {argument}"));
                assert!(matches!(read, Ok(_) | Err(ConsoleFault::Absent { .. })), "{command} {argument}: {read:?}");
            }
        }
    }

    #[test]
    fn settings_are_not_changed_here() {
        for (text, place) in [
            ("SET query_wait_timeout = 5", Some("pool.wait_timeout")),
            ("set default_pool_size=5", Some("pool.size")),
            ("SET verbose TO 2", None),
            ("SET pool.size = 5", Some("pool.size")),
        ] {
            assert_eq!(fault(text), ConsoleFault::Setting(place.map(str::to_owned)), "{text}");
        }
        for text in ["SET extra_float_digits=3", "SET SESSION application_name TO 'x'", "SET transaction_timeout = 0"] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn sql_is_sent_elsewhere() {
        for text in ["SELECT * FROM t", "insert into t values (1)", "EXPLAIN SELECT 1"] {
            assert_eq!(fault(text), ConsoleFault::Sql, "{text}");
        }
    }

    #[test]
    fn long_texts_are_told_in_part() {
        let long = format!("what {}", "ä".repeat(100));
        let ConsoleFault::Command { text, .. } = fault(&long) else { panic!("it is known") };
        assert_eq!(text.chars().count(), 61);
    }

    #[test]
    fn tables_that_the_pages_name_exist() {
        let docs = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).expect("readable");
        let docs = docs.map(|entry| entry.expect("an entry").path());
        for page in docs.chain([concat!(env!("CARGO_MANIFEST_DIR"), "/README.md").into()]).filter(|page| page.is_file())
        {
            let text = fs::read_to_string(&page).expect("readable");
            for named in text.split("SHOW ").skip(1) {
                let name = named.split(|c: char| !c.is_ascii_uppercase() && c != '_').next().unwrap_or_default();
                let is_known = tables().any(|table| table.name == name);
                assert!(is_known || name.is_empty(), "{}: there is no SHOW {name}", page.display());
            }
        }
    }
}
