//! Mistakes of a configuration file, worded so that they can be put right.
//!
//! `raw` and `parse` collect [`Mistake`]s instead of stopping at the first; a [`Config`](super::Config) exists only
//! when there are none. A mistake never repeats a secret.

use std::fmt;
use std::path::PathBuf;

/// One mistake: where it stands and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The configuration file, as it was named to [`load`](super::load).
    pub file: PathBuf,
    /// Line and column, both from 1; `None` when the file itself cannot be read.
    pub position: Option<FilePosition>,
    /// The key path, such as `roles.web.statement_timeout`; empty when the whole file is meant.
    pub key: String,
    /// The offending value, and what is allowed.
    pub text: String,
}

/// A position in the file, counted from 1. The column is known only where it helps, for errors of syntax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilePosition {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: Option<usize>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(FilePosition { line, column }) = self.position {
            write!(f, ":{line}")?;
            if let Some(column) = column {
                write!(f, ":{column}")?;
            }
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.text)
    }
}

/// Every mistake of one file, in the order of its lines; displayed one a line. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.list))]
pub struct Mistakes {
    /// The mistakes.
    pub list: Vec<Mistake>,
    /// Other files the configuration names (secrets, certificates): one of them may be what has to change.
    pub files: Vec<PathBuf>,
}

fn lines(list: &[Mistake]) -> String {
    let lines: Vec<String> = list.iter().map(Mistake::to_string).collect();
    lines.join("\n")
}
