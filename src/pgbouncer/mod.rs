//! `pgbouncer.ini` to `proxy.toml`: what means the same, and a word on everything else. Pure but for the files it is
//! shown.
//!
//! `ini` and `words` read, `keys` says what becomes of each key, `translate` decides, `toml` writes. The result means
//! what the old file meant, also where that says nothing: PgBouncer's default stands in it wherever pgweir's is
//! another.

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

/// What becomes of a key of `[pgbouncer]`; `None`: it has no such key.
pub(crate) fn fate(key: &str) -> Option<Fate> {
    keys::find(Section::General, key).map(|key| key.fate)
}

/// A translated configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The text of `proxy.toml`.
    pub toml: String,
    /// What somebody should look at, in the order of the file.
    pub notes: Vec<Note>,
    /// Keys that nothing has to take the place of.
    pub unneeded: Vec<&'static str>,
}

/// Something that does not mean the same any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Where it stands; `None`: it is about what does not stand there.
    pub place: Option<Place>,
    /// How much of it is left.
    pub kind: Kind,
    /// The key, or what else it is about.
    pub about: String,
    /// What to know and do.
    pub text: String,
}

/// How much of a key is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
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
