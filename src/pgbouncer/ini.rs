//! `pgbouncer.ini` as written: sections of keys and values, as libusual's `parse_ini_file` reads them.
//!
//! No crate reads this dialect: a value goes to the end of its line, `;`, `#` and quotes included; comments are whole
//! lines; a key in double quotes doubles those it holds; `%include` goes on in the section where it stands.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Files;

/// As PgBouncer's: files that include one another end here.
const DEPTH_MAX: usize = 10;

/// One line `key = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IniEntry {
    pub(super) section: String,
    pub(super) key: String,
    pub(super) value: String,
    pub(super) place: Place,
}

/// Where a line stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// As it was named.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A file that PgBouncer would not start with either.
#[derive(Debug, Error)]
pub enum IniError {
    /// It cannot be read.
    #[error("{file}: cannot be read: {source}", file = .file.display())]
    Unreadable {
        /// As it was named.
        file: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A line is neither a section nor a pair.
    #[error("{0}: is neither a [section] nor key = value")]
    Syntax(Place),
    /// A value before the first section.
    #[error("{0}: stands before the first [section]")]
    Homeless(Place),
    /// Files include one another.
    #[error("{0}: includes too deeply")]
    TooDeep(Place),
}

/// All lines of a file and those it includes, in order.
pub(super) fn read(path: &Path, files: Files<'_>) -> Result<Vec<IniEntry>, IniError> {
    let mut reader = IniReader { files, section: None, entries: Vec::new() };
    reader.file(path, 0)?;
    Ok(reader.entries)
}

struct IniReader<'a> {
    files: Files<'a>,
    section: Option<String>,
    entries: Vec<IniEntry>,
}

impl IniReader<'_> {
    fn file(&mut self, path: &Path, depth: usize) -> Result<(), IniError> {
        let text = (self.files)(path).map_err(|source| IniError::Unreadable { file: path.to_path_buf(), source })?;
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            let place = Place { file: path.to_path_buf(), line: number };
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(section) = line.strip_prefix('[') {
                let (name, _) = section.split_once(']').ok_or(IniError::Syntax(place))?;
                self.section = Some(name.to_owned());
            } else if let Some(included) = line.strip_prefix("%include") {
                if depth == DEPTH_MAX {
                    return Err(IniError::TooDeep(place));
                }
                self.file(Path::new(included.trim()), depth + 1)?;
            } else {
                let (key, value) = pair(line).ok_or_else(|| IniError::Syntax(place.clone()))?;
                let section = self.section.clone().ok_or_else(|| IniError::Homeless(place.clone()))?;
                self.entries.push(IniEntry { section, key, value: value.to_owned(), place });
            }
        }
        Ok(())
    }
}

/// `key = value` or `"key" = value`.
fn pair(line: &str) -> Option<(String, &str)> {
    let (key, rest) = match line.strip_prefix('"') {
        Some(quoted) => unquote(quoted, '"')?,
        None => {
            let is_bare = |c: char| c.is_ascii_alphanumeric() || "_.-*".contains(c);
            let (key, rest) = line.split_at(line.find(|c| !is_bare(c))?);
            (key.to_owned(), rest)
        }
    };
    Some((key, rest.trim_start().strip_prefix('=')?.trim()))
}

/// The text before the closing quote, doubled quotes made one, and the text behind it.
pub(super) fn unquote(text: &str, quote: char) -> Option<(String, &str)> {
    let mut unquoted = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once(quote)?;
        unquoted += before;
        let Some(more) = after.strip_prefix(quote) else { return Some((unquoted, after)) };
        unquoted.push(quote);
        rest = more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(files: &[(&str, &str)]) -> Result<Vec<(String, String, String)>, IniError> {
        let look = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        let entries = read(Path::new("a.ini"), &look)?;
        Ok(entries.into_iter().map(|entry| (entry.section, entry.key, entry.value)).collect())
    }

    fn of(section: &str, key: &str, value: &str) -> (String, String, String) {
        (section.to_owned(), key.to_owned(), value.to_owned())
    }

    #[test]
    fn value_goes_to_the_end_of_its_line() {
        let text =
            "; c\n# c\n[databases]\n  a-b.c = host=h password='x;y#z' \n* =\n[pgbouncer]\nauth_query=SELECT \"a\"\n";
        let read = entries(&[("a.ini", text)]).expect("valid");
        assert_eq!(
            read,
            [
                of("databases", "a-b.c", "host=h password='x;y#z'"),
                of("databases", "*", ""),
                of("pgbouncer", "auth_query", "SELECT \"a\""),
            ]
        );
    }

    #[test]
    fn quoted_key_may_hold_anything() {
        let read = entries(&[("a.ini", "[databases]\n\"a \"\"b\"\" =\" = host=h\n")]).expect("valid");
        assert_eq!(read, [of("databases", "a \"b\" =", "host=h")]);
    }

    #[test]
    fn include_goes_on_in_its_section() {
        let files = [("a.ini", "[databases]\n%include b.ini\nz = 1\n"), ("b.ini", "x = 1\n[users]\ny = 1\n")];
        let read = entries(&files).expect("valid");
        assert_eq!(read, [of("databases", "x", "1"), of("users", "y", "1"), of("users", "z", "1")]);
    }

    #[test]
    fn what_pgbouncer_does_not_read_is_told_with_its_line() {
        let told = |text: &str| entries(&[("a.ini", text)]).expect_err(text).to_string();
        assert_eq!(told("[a]\n\nword\n"), "a.ini:3: is neither a [section] nor key = value");
        assert_eq!(told("[a\n"), "a.ini:1: is neither a [section] nor key = value");
        assert_eq!(told("[a]\n\"b = c\n"), "a.ini:2: is neither a [section] nor key = value");
        assert_eq!(told("a = b\n"), "a.ini:1: stands before the first [section]");
        assert_eq!(told("%include a.ini\n"), "a.ini:1: includes too deeply");
        assert!(told("%include b.ini\n").starts_with("b.ini: cannot be read: "));
    }
}
