//! `pgbouncer.ini` to `proxy.toml`: settings that mean the same, and a note on everything else. Pure but for the files
//! it is given.
//!
//! `ini`, `words` and `hba` read, `keys` says how each key is translated, `translate` decides, `toml` writes. The
//! result means the same as the old file, also where that sets nothing: it has PgBouncer's default wherever pgweir's is
//! another.

mod hba;
mod ini;
mod keys;
mod roles;
mod toml;
mod translate;
mod translation;
mod words;

#[cfg(test)]
mod document;

use std::fmt;
use std::io;
use std::path::Path;

pub use ini::{IniError, Place};
pub(crate) use keys::Fate;
use keys::Section;
use translation::Translation;

/// How files that are named in files are read.
pub type Files<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// How a key of `[pgbouncer]` is translated; `None`: PgBouncer has no such key.
pub(crate) fn fate(key: &str) -> Option<Fate> {
    keys::find(Section::General, key).map(|key| key.fate)
}

/// A translated configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The text of `proxy.toml`.
    pub toml: String,
    /// Differences that somebody should look at, in the order of the file.
    pub notes: Vec<Note>,
    /// Keys that need no replacement.
    pub unneeded: Vec<&'static str>,
}

/// Something that does not mean the same any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its place in the file; `None`: it is about something that the file does not have.
    pub place: Option<Place>,
    /// How much of it is left.
    pub kind: Kind,
    /// The key, or what else it is about.
    pub about: String,
    /// The difference, and the advice.
    pub text: String,
}

/// How much of a key is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing does this, and without it somebody gets in, or is left out, unlike before.
    Unsafe,
    /// Nothing does this.
    Missing,
    /// It is there and means something else.
    Different,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}: {}", self.about, self.text)
    }
}

/// Translates a file and those it names.
pub fn import(path: &Path, files: Files<'_>) -> Result<Import, IniError> {
    let entries = ini::read(path, files)?;
    Ok(Translation::new(&entries).run(path, files))
}
