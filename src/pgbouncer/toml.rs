//! TOML as a person would write it: tables of commented lines.

use std::fmt::{self, Display, Write};

/// A value as TOML writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TomlValue(String);

impl Display for TomlValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn text(text: &str) -> TomlValue {
    TomlValue(toml::Value::String(text.to_owned()).to_string())
}

/// A number or a truth.
pub(super) fn plain(value: impl Display) -> TomlValue {
    TomlValue(value.to_string())
}

/// One text, or a list of several.
pub(super) fn texts(texts: &[String]) -> TomlValue {
    match texts {
        [one] => text(one),
        several => list(several),
    }
}

/// A list of texts.
pub(super) fn list(texts: &[String]) -> TomlValue {
    let texts: Vec<String> = texts.iter().map(|one| text(one).0).collect();
    TomlValue(format!("[{}]", texts.join(", ")))
}

/// A table within a line.
pub(super) fn inline(pairs: &[(&str, TomlValue)]) -> TomlValue {
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    TomlValue(format!("{{ {} }}", pairs.join(", ")))
}

/// One `[table]`.
#[derive(Debug)]
pub(super) struct Table {
    name: String,
    lines: Vec<String>,
}

impl Table {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), lines: Vec::new() }
    }

    /// `[databases.name]`, the name quoted if it has to be.
    pub(super) fn of(parent: &str, name: &str) -> Self {
        let is_bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let name = if is_bare { name.to_owned() } else { text(name).0 };
        Self::new(&format!("{parent}.{name}"))
    }

    /// One line; `why` becomes its comment.
    pub(super) fn line(&mut self, key: &str, value: &TomlValue, why: &str) {
        let comment = if why.is_empty() { String::new() } else { format!("  # {why}") };
        self.lines.push(format!("{key} = {value}{comment}"));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// As it stands in the file.
    pub(super) fn write(&self, out: &mut String) {
        let _ = writeln!(out, "\n[{}]", self.name);
        for line in &self.lines {
            let _ = writeln!(out, "{line}");
        }
    }
}
