//! Reads the texts that the console is sent: tables, commands, and what drivers send to every server.

use super::command::Action;
use super::drivers::{self, DriverStatement};
use super::help;
use super::rows_wanted::RowsWanted;
use super::table::{Column, ColumnType, ConsoleTable, TableCell};
use super::words::{self, CommandArguments};
use crate::config::Access;
use crate::error::ConsoleFault;
use crate::sql;

/// One statement of the console.
#[derive(Debug, Clone)]
pub(super) enum ConsoleStatement {
    /// SHOW of a table.
    Show(&'static ConsoleTable, RowsWanted),
    /// Something that changes nothing.
    Driver(DriverStatement),
    Act(Action),
}

impl ConsoleStatement {
    /// The tag of its CommandComplete.
    pub(super) fn tag(&self) -> &'static str {
        match self {
            Self::Show(..) => "SHOW",
            Self::Driver(DriverStatement::Value(..)) => "SELECT",
            Self::Driver(DriverStatement::Nothing(tag)) => tag,
            Self::Act(action) => action.kind.tag,
        }
    }

    /// The right that its user needs.
    pub(super) fn access(&self) -> Access {
        match self {
            Self::Show(..) | Self::Driver(_) => Access::Look,
            Self::Act(action) => action.kind.access,
        }
    }

    /// The columns of its rows, if it has rows.
    pub(super) fn columns(&self) -> Option<Vec<Column>> {
        match self {
            Self::Show(table, _) => Some(table.columns.to_vec()),
            Self::Driver(DriverStatement::Value(name, TableCell::Int(_))) => Some(vec![(*name, ColumnType::Int)]),
            Self::Driver(DriverStatement::Value(name, _)) => Some(vec![(*name, ColumnType::Text)]),
            Self::Driver(DriverStatement::Nothing(_)) | Self::Act(_) => None,
        }
    }
}

/// The statements of a text, which may be none.
pub(super) fn parse(text: &str) -> Result<Vec<ConsoleStatement>, ConsoleFault> {
    let spans = sql::split(text.as_bytes(), sql::Context::default());
    spans.map(|span| text.get(span.clone()).unwrap_or_default()).map(statement).collect()
}

fn statement(text: &str) -> Result<ConsoleStatement, ConsoleFault> {
    let words = words::cut(text);
    let folded: Vec<String> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
    let folded: Vec<&str> = folded.iter().map(String::as_str).collect();
    let found = match *folded.as_slice() {
        ["show"] => Some(ConsoleStatement::Show(&help::TABLE, RowsWanted::default())),
        ["show", name, ref rest @ ..] if let Some(table) = help::table(name) => {
            RowsWanted::read(table, rest).map(|wanted| ConsoleStatement::Show(table, wanted))
        }
        ["set", ref assignment @ ..] if let Some(fault) = help::setting(assignment) => return Err(fault),
        [first, ref rest @ ..] => drivers::read(&folded).map(ConsoleStatement::Driver).or_else(|| {
            let action = help::command(first)?.read(&CommandArguments::new(&words[1..], rest), text)?;
            Some(ConsoleStatement::Act(action))
        }),
        [] => None,
    };
    found.ok_or_else(|| help::unknown(text, &folded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> ConsoleStatement {
        let mut statements = parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
        assert_eq!(statements.len(), 1, "{text}");
        statements.remove(0)
    }

    /// The command that is read of a text, and its arguments.
    fn action(text: &str) -> String {
        match one(text) {
            ConsoleStatement::Act(action) => format!("{action:?}"),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn tags(text: &str) -> Vec<&'static str> {
        parse(text).expect(text).iter().map(ConsoleStatement::tag).collect()
    }

    #[test]
    fn case_blanks_comments_and_a_semicolon_do_not_matter() {
        for text in ["SHOW POOLS", "show pools;", " Show\n\tPools ; ", "/* agent */ SHOW POOLS -- now"] {
            assert!(matches!(one(text), ConsoleStatement::Show(table, _) if table.name == "POOLS"), "{text}");
        }
    }

    #[test]
    fn several_statements_are_read_in_order() {
        assert_eq!(tags("PAUSE; SHOW STATS;; SELECT 1; RESUME;"), ["PAUSE", "SHOW", "SELECT", "RESUME"]);
        assert!(tags(" ; -- nothing").is_empty());
    }

    #[test]
    fn names_keep_their_case_and_lose_their_quotes() {
        assert_eq!(action("pause App"), r#"Pause { database: Some("App"), until_primary: None }"#);
        assert_eq!(action("RESUME \"my \"\"app\"\"\""), r#"Resume(Some("my \"app\""))"#);
        assert_eq!(action("kill 'a b'"), r#"Kill(Some("a b"))"#);
        assert_eq!(action("Disable x"), r#"Disable("x")"#);
    }

    #[test]
    fn every_command_is_read() {
        for (text, read) in [
            ("RELOAD", "Reload"),
            ("PAUSE app UNTIL PRIMARY '30s'", r#"Pause { database: Some("app"), until_primary: Some(30s) }"#),
            ("RECONNECT", "Reconnect(None)"),
            ("WAIT_CLOSE app", r#"WaitClose(Some("app"))"#),
            ("KILL_CLIENT 17", "KillClient(17)"),
            ("ENABLE x", r#"Enable("x")"#),
            ("LIMIT Web 0", r#"LimitRole { role: "Web", max: Some(0), over: None }"#),
            ("limit \"a b\" 40 over '60s'", r#"LimitRole { role: "a b", max: Some(40), over: Some(60s) }"#),
            (
                "LIMIT STATEMENT 0123456789abcdef 1 FOR '10m'",
                "LimitStatement { digest: Digest(81985529216486895), max: 1, lasts: 600s }",
            ),
            ("UNBLOCK STATEMENT 0123456789ABCDEF", "UnblockStatement(Digest(81985529216486895))"),
            ("LIMIT web DEFAULT", r#"LimitRole { role: "web", max: None, over: None }"#),
            ("RAMP web", r#"RampRole { role: "web", over: None }"#),
            ("RAMP web OVER 1m", r#"RampRole { role: "web", over: Some(60s) }"#),
            ("SHUTDOWN", "Shutdown { now: false }"),
            ("SHUTDOWN WAIT_FOR_SERVERS", "Shutdown { now: false }"),
            ("SHUTDOWN NOW", "Shutdown { now: true }"),
        ] {
            assert_eq!(action(text), read, "{text}");
        }
        for table in help::tables() {
            let read = one(&format!("SHOW {}", table.name));
            assert!(matches!(read, ConsoleStatement::Show(found, _) if found.name == table.name), "{}", table.name);
        }
    }
}
