//! Statements that drivers and programs send to every server: the console answers politely and does nothing.

use super::commands::set_log_level;
use super::table::TableCell;
use super::words::unquoted;

/// A Postgres version that drivers know how to talk to; the rest names pgweir.
pub(super) const SERVER_VERSION: &str = concat!("15.0 (pgweir ", env!("CARGO_PKG_VERSION"), ")");

/// The parameters that are reported to the client at its login, and by SHOW and `current_setting`.
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
    // libpq and others look at these two for target_session_attrs.
    ("in_hot_standby", "off"),
    ("default_transaction_read_only", "off"),
];

/// A statement that changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DriverStatement {
    /// One value under one name.
    Value(&'static str, TableCell),
    /// Done as soon as it is answered with this tag: SET, BEGIN and the like.
    Nothing(&'static str),
}

/// The statement of these words, folded, if it is one of those.
pub(super) fn read(folded: &[&str]) -> Option<DriverStatement> {
    use DriverStatement::Nothing;
    Some(match *folded {
        ["show", "transaction", "isolation", "level"] => value("transaction_isolation", "read committed"),
        ["show", "time", "zone"] => parameter("TimeZone")?,
        ["show", "transaction_read_only"] => value("transaction_read_only", "off"),
        ["show", name] => parameter(&unquoted(name))?,
        ["select", ref what @ ..] => select(&what.concat())?,
        ["set", name, ..] if !name.starts_with(set_log_level::NAME) => Nothing("SET"),
        ["reset", what, ..] if what != "statements" => Nothing("RESET"),
        ["begin", ..] => Nothing("BEGIN"),
        ["start", "transaction", ..] => Nothing("START TRANSACTION"),
        ["commit" | "end", ..] => Nothing("COMMIT"),
        ["rollback" | "abort", ..] => Nothing("ROLLBACK"),
        ["discard", "all"] => Nothing("DISCARD ALL"),
        ["deallocate", "all"] => Nothing("DEALLOCATE ALL"),
        ["deallocate", _, ..] => Nothing("DEALLOCATE"),
        ["close", "all"] => Nothing("CLOSE CURSOR ALL"),
        ["unlisten", _] => Nothing("UNLISTEN"),
        _ => return None,
    })
}

/// A SELECT, by the rest of it, folded and without blanks.
fn select(what: &str) -> Option<DriverStatement> {
    match what.trim_start_matches("pg_catalog.") {
        "1" => Some(DriverStatement::Value("?column?", TableCell::Int(1))),
        "version()" => Some(value("version", concat!("pgweir ", env!("CARGO_PKG_VERSION")))),
        "current_database()" => Some(value("current_database", "pgweir")),
        "pg_is_in_recovery()" => Some(value("pg_is_in_recovery", "f")),
        "pg_advisory_unlock_all()" => Some(value("pg_advisory_unlock_all", "")),
        what => {
            let argument = what.strip_prefix("current_setting('")?;
            let (_, text) = known(argument.split('\'').next()?)?;
            Some(value("current_setting", text))
        }
    }
}

fn parameter(name: &str) -> Option<DriverStatement> {
    known(name).map(|(name, text)| value(name, text))
}

fn known(name: &str) -> Option<(&'static str, &'static str)> {
    PARAMETERS.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name))
}

fn value(name: &'static str, text: &str) -> DriverStatement {
    DriverStatement::Value(name, TableCell::Text(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> DriverStatement {
        let folded = text.to_ascii_lowercase();
        let folded: Vec<&str> = folded.split(' ').collect();
        read(&folded).expect(text)
    }

    #[test]
    fn boilerplate_of_drivers_gets_polite_answers() {
        assert_eq!(said("SET extra_float_digits = 3"), DriverStatement::Nothing("SET"));
        assert_eq!(said("BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE"), DriverStatement::Nothing("BEGIN"));
        assert_eq!(said("DISCARD ALL"), DriverStatement::Nothing("DISCARD ALL"));
        assert_eq!(said("select 1"), DriverStatement::Value("?column?", TableCell::Int(1)));
        assert_eq!(said("SHOW client_encoding"), value("client_encoding", "UTF8"));
        assert_eq!(said("SELECT current_setting('TimeZone')"), value("current_setting", "UTC"));
        assert_eq!(
            said("SELECT pg_catalog.version()"),
            value("version", concat!("pgweir ", env!("CARGO_PKG_VERSION")))
        );
    }
}
