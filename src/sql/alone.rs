//! Statements that Postgres carries out only while nobody else is connected to the database they name.

use bytes::Bytes;

use super::effect::Context;
use super::lex::TokenKind;
use super::quote;
use super::read::Reader;

/// The template of a CREATE DATABASE that names none.
const TEMPLATE: &[u8] = b"template1";

/// The database that nobody may be connected to while `text` runs: of DROP DATABASE, of CREATE DATABASE its template,
/// of ALTER DATABASE with RENAME or SET TABLESPACE. Most texts are told apart by their first letters.
#[inline]
pub(crate) fn wants_alone(text: &[u8], context: Context) -> Option<Bytes> {
    let head = text.trim_ascii_start().first_chunk::<4>()?.map(|byte| byte | 0x20);
    matches!(&head, b"drop" | b"crea" | b"alte").then(|| read(text, context))?
}

fn read(text: &[u8], context: Context) -> Option<Bytes> {
    let mut reader = Reader::new(text, context);
    let command = reader.name()?;
    if &reader.name()?[..] != b"database" {
        return None;
    }
    let name = reader.name()?;
    match &command[..] {
        b"drop" if &name[..] == b"if" => {
            reader.name()?;
            reader.name()
        }
        b"drop" => Some(name),
        b"create" => Some(template(reader)),
        b"alter" => {
            let (first, second) = (reader.name()?, reader.name()?);
            matches!((&first[..], &second[..]), (b"rename", b"to") | (b"set", b"tablespace")).then_some(name)
        }
        _ => None,
    }
}

fn template(mut reader: Reader<'_>) -> Bytes {
    while !reader.is_at_end() {
        let is_template = reader.name_ahead().is_some_and(|name| &name[..] == b"template");
        reader.advance();
        if !is_template {
            continue;
        }
        reader.symbol(b'=');
        let named = match reader.token().kind {
            TokenKind::Plain | TokenKind::Escaped => quote::literal(reader.text(), reader.token()),
            _ => reader.name().filter(|name| &name[..] != b"default"),
        };
        return named.unwrap_or_else(|| TEMPLATE.into());
    }
    TEMPLATE.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn alone(text: &str) -> Option<String> {
        wants_alone(text.as_bytes(), Context::default()).map(|name| String::from_utf8_lossy(&name).into_owned())
    }

    #[test]
    fn the_database_is_known_in_every_form() {
        for (text, name) in [
            ("DROP DATABASE t11", "t11"),
            ("drop database if exists \"T 11\" with (force);", "T 11"),
            ("/* test */ DROP DATABASE x", ""),
            ("CREATE DATABASE y TEMPLATE x", "x"),
            ("create database y with owner app template = 'X' encoding 'UTF8'", "X"),
            ("CREATE DATABASE y", "template1"),
            ("CREATE DATABASE y TEMPLATE DEFAULT", "template1"),
            ("ALTER DATABASE x RENAME TO y", "x"),
            ("ALTER DATABASE x SET TABLESPACE fast", "x"),
        ] {
            assert_eq!(alone(text).unwrap_or_default(), name, "{text}");
        }
    }

    #[test]
    fn other_statements_want_nothing() {
        for text in [
            "DROP TABLE t",
            "CREATE TABLE database (a int)",
            "ALTER DATABASE x SET work_mem = '4MB'",
            "ALTER DATABASE x OWNER TO y",
            "DROP",
            "SELECT 1",
        ] {
            assert_eq!(alone(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(tail: Vec<u8>) {
            for head in [&b""[..], b"DROP DATABASE ", b"CREATE DATABASE a ", b"ALTER DATABASE "] {
                wants_alone(&[head, &tail].concat(), Context::default());
            }
        }
    }
}
