//! Settings whose values only the server knows: given by an expression, reported without a statement that sets them, or
//! touched by a transaction of which a part may have committed.
//!
//! The backend is asked about them before its release, while nothing is outstanding.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::sql::quote_literal;
use crate::wire::frame::{HEADER_LEN, header};

/// The settings to ask about.
#[derive(Debug, Default)]
pub(crate) struct UnknownSettings {
    names: BTreeSet<String>,
    /// Any of those that the server lists may have been set.
    is_any: bool,
}

/// The server's answer about one setting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KnownSetting {
    /// Folded name.
    pub name: String,
    /// The value in force; `None`: the server has no such setting.
    pub value: Option<Bytes>,
    pub source: SettingSource,
}

/// Where a value comes from (`pg_settings.source`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SettingSource {
    /// A SET of the session.
    Session,
    /// The configuration, the login, or the default.
    Server,
    /// A custom setting, whose source the server does not tell.
    Unlisted,
}

impl UnknownSettings {
    /// The value of one is not known.
    pub(crate) fn push(&mut self, name: &str) {
        self.names.insert(name.to_ascii_lowercase());
    }

    /// True if the value of this setting is not known.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.is_any || self.names.contains(&name.to_ascii_lowercase())
    }

    /// Any setting that the server lists may have been set.
    pub(crate) fn push_any(&mut self) {
        self.is_any = true;
    }

    /// The question for the server. Those of a transaction end with it. `role` and `session_authorization` are listed
    /// nowhere, but have values.
    pub(crate) fn question(&self) -> Vec<u8> {
        let mut parts = Vec::new();
        if self.is_any {
            parts.push(
                b"SELECT pg_catalog.lower(name), pg_catalog.current_setting(name), source FROM pg_catalog.pg_settings \
                  WHERE source OPERATOR(pg_catalog.=) 'session' \
                  AND name OPERATOR(pg_catalog.<>) ALL \
                  ('{transaction_isolation,transaction_read_only,transaction_deferrable}'::pg_catalog.text[])"
                    .to_vec(),
            );
        }
        for name in &self.names {
            let name = quote_literal(name.as_bytes());
            parts.push(
                [
                    b"SELECT ",
                    &name[..],
                    b", pg_catalog.current_setting(",
                    &name,
                    b", true), (SELECT source FROM pg_catalog.pg_settings \
                    WHERE pg_catalog.lower(name) OPERATOR(pg_catalog.=) ",
                    &name,
                    b")",
                ]
                .concat(),
            );
        }
        parts.join(&b" UNION ALL "[..])
    }
}

/// Reads the rows that answer a question, one DataRow after the other. `None`: they are not what was asked for.
pub(crate) fn read(mut rows: &[u8]) -> Option<Vec<KnownSetting>> {
    let mut settings = Vec::new();
    while !rows.is_empty() {
        let length = HEADER_LEN + header(rows).ok()??.body;
        let (row, rest) = rows.split_at_checked(length)?;
        rows = rest;
        let mut values = row.get(HEADER_LEN + 2..)?;
        let (name, value, source) = (column(&mut values)?, column(&mut values)?, column(&mut values)?);
        settings.push(KnownSetting {
            name: String::from_utf8(name?.to_vec()).ok()?,
            value: value.map(Bytes::copy_from_slice),
            source: match source {
                Some(b"session") => SettingSource::Session,
                Some(_) => SettingSource::Server,
                None => SettingSource::Unlisted,
            },
        });
    }
    Some(settings)
}

/// Takes one column off a row; the inner `None` is NULL.
#[expect(clippy::option_option, reason = "a row that is too short, and NULL")]
fn column<'a>(values: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, rest) = values.split_first_chunk::<4>()?;
    let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
        *values = rest;
        return Some(None);
    };
    let (value, rest) = rest.split_at_checked(length)?;
    *values = rest;
    Some(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::build;

    #[test]
    fn a_question_names_each_setting_once() {
        let mut unknown = UnknownSettings::default();
        for name in ["TimeZone", "timezone", "a.b'c"] {
            unknown.push(name);
        }
        let question = String::from_utf8(unknown.question()).unwrap();
        assert_eq!(question.matches("current_setting('timezone', true)").count(), 1);
        assert_eq!(question.matches("current_setting('a.b''c', true)").count(), 1);
        assert_eq!(question.matches("UNION ALL").count(), 1);
    }

    #[test]
    fn rows_are_read_as_they_were_asked_for() {
        let mut rows = Vec::new();
        let text = |text: &str| Some(text.as_bytes().to_vec());
        build::data_row(&mut rows, [text("timezone"), text("UTC"), text("configuration file")]);
        build::data_row(&mut rows, [text("a.b"), None, None]);
        let known = read(&rows).unwrap();
        assert_eq!((known[0].source, known[0].value.as_deref()), (SettingSource::Server, Some(&b"UTC"[..])));
        assert_eq!((known[1].source, &known[1].value), (SettingSource::Unlisted, &None));
        assert_eq!(read(&rows[..rows.len() - 1]), None);
    }
}
