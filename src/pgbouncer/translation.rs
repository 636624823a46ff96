//! A translation under way: the contents of the file, taken apart, and the notes on them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ini::{IniEntry, Place};
use super::keys::{Fate, Section, find};
use super::words;
use super::{Kind, Note};
use crate::config::duration_text;

/// PgBouncer's default of each key that has another in pgweir, or is needed here.
const DEFAULTS: &[(&str, &str)] = &[
    ("auth_type", "md5"),
    ("client_login_timeout", "60"),
    ("client_tls_sslmode", "disable"),
    ("default_pool_size", "20"),
    ("listen_port", "6432"),
    ("max_client_conn", "100"),
    ("pool_mode", "session"),
    ("query_wait_timeout", "120"),
    ("server_connect_timeout", "15"),
    ("server_tls_sslmode", "prefer"),
    ("unix_socket_dir", "/tmp"),
];

/// One value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) value: String,
    pub(super) place: Place,
}

/// One line of `[databases]` or `[users]`, taken apart.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) given: BTreeMap<String, String>,
}

impl Words {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.given.get(key).map(String::as_str)
    }
}

/// A translation under way.
pub(super) struct Translation {
    pub(super) general: BTreeMap<String, Given>,
    pub(super) databases: Vec<Words>,
    pub(super) users: Vec<Words>,
    pub(super) notes: Vec<Note>,
    pub(super) unneeded: BTreeSet<&'static str>,
}

impl Translation {
    /// Sorts the lines of a file by section.
    pub(super) fn new(entries: &[IniEntry]) -> Self {
        let mut this = Self {
            general: BTreeMap::new(),
            databases: Vec::new(),
            users: Vec::new(),
            notes: Vec::new(),
            unneeded: BTreeSet::new(),
        };
        for IniEntry { section, key, value, place } in entries {
            match section.as_str() {
                "pgbouncer" => {
                    let given = Given { value: value.clone(), place: place.clone() };
                    this.general.insert(key.clone(), given);
                    this.remark(Section::General, key, value, key, place);
                }
                "databases" => {
                    let words = this.words(Section::Database, key, value, place);
                    replace(&mut this.databases, words);
                }
                "users" => {
                    let words = this.words(Section::User, key, value, place);
                    replace(&mut this.users, words);
                }
                "peers" => drop(this.words(Section::Peer, key, value, place)),
                _ => this.note(Some(place), Kind::Missing, &format!("[{section}]"), "PgBouncer has no such section"),
            }
        }
        this
    }

    fn words(&mut self, section: Section, name: &str, value: &str, place: &Place) -> Option<Words> {
        let Some(pairs) = words::pairs(value) else {
            self.note(Some(place), Kind::Missing, name, "is no list of key=value, and left out");
            return None;
        };
        let whose = if section == Section::Peer { "peer " } else { "" };
        for (key, value) in &pairs {
            self.remark(section, key, value, &format!("{whose}{name}: {key}"), place);
        }
        Some(Words { name: name.to_owned(), place: place.clone(), given: pairs.into_iter().collect() })
    }

    /// Adds the table's note on a key that means something else or has no counterpart.
    fn remark(&mut self, section: Section, key: &str, value: &str, about: &str, place: &Place) {
        let Some(row) = find(section, key) else {
            return self.note(Some(place), Kind::Missing, about, "is no key that pgweir knows of PgBouncer");
        };
        if row.off.contains(&value) {
            return;
        }
        let says = match row.says.strip_prefix("as ").and_then(|rest| rest.strip_suffix("in [pgbouncer]")) {
            None => row.says,
            // The note is that of the general key.
            Some(other) => {
                let general = if other.is_empty() { key } else { other.trim() };
                find(Section::General, general).map_or(row.says, |general| general.says)
            }
        };
        match row.fate {
            Fate::Same(_) => {}
            Fate::Unneeded => drop(self.unneeded.insert(row.name)),
            Fate::Missing => self.note(Some(place), Kind::Missing, about, says),
            Fate::Unsafe => self.note(Some(place), Kind::Unsafe, about, says),
            Fate::Different("—") => self.note(Some(place), Kind::Different, about, says),
            Fate::Different(setting) => {
                self.note(Some(place), Kind::Different, about, &format!("{setting}: {says}"));
            }
        }
    }

    pub(super) fn note(&mut self, place: Option<&Place>, kind: Kind, about: &str, text: &str) {
        let is_told =
            self.notes.iter().any(|note| note.place.as_ref() == place && note.about == about && note.text == text);
        if is_told {
            return;
        }
        self.notes.push(Note { place: place.cloned(), kind, about: about.to_owned(), text: text.to_owned() });
    }

    /// A remark on a general key, given or not.
    pub(super) fn note_on(&mut self, key: &str, kind: Kind, text: &str) {
        let place = self.place(key);
        self.note(place.as_ref(), kind, key, text);
    }

    pub(super) fn place(&self, key: &str) -> Option<Place> {
        self.general.get(key).map(|given| given.place.clone())
    }

    /// A general value that is given and not empty.
    pub(super) fn given(&self, key: &str) -> Option<&str> {
        self.general.get(key).map(|given| given.value.as_str()).filter(|value| !value.is_empty())
    }

    /// A general value in force.
    pub(super) fn value(&self, key: &str) -> &str {
        let default = || DEFAULTS.iter().find(|(name, _)| *name == key).map_or("", |(_, default)| default);
        self.general.get(key).map_or_else(default, |given| given.value.as_str())
    }

    /// Whether PgBouncer would take the value as true.
    pub(super) fn is_on(&self, key: &str) -> bool {
        self.given(key).and_then(integer).is_some_and(|number| number != 0)
    }

    /// A comment: the key, and that nobody wrote it.
    pub(super) fn why(&self, key: &str) -> String {
        match self.general.contains_key(key) {
            true => key.to_owned(),
            false => format!("{key}, PgBouncer's default"),
        }
    }
}

/// As PgBouncer: of two lines of a name the later one holds.
fn replace(list: &mut Vec<Words>, words: Option<Words>) {
    if let Some(words) = words {
        list.retain(|other| other.name != words.name);
        list.push(words);
    }
}

/// A number as C writes it: PgBouncer reads general ones with strtol.
pub(super) fn integer(text: &str) -> Option<u32> {
    let radix = |digits, radix| u32::from_str_radix(digits, radix).ok();
    match (text.strip_prefix("0x"), text.strip_prefix('0')) {
        (Some(digits), _) => radix(digits, 16),
        (None, Some(digits)) if !digits.is_empty() => radix(digits, 8),
        _ => text.parse().ok(),
    }
}

/// Seconds, with a fraction, as pgweir writes them.
pub(super) fn seconds(text: &str) -> Option<String> {
    let duration = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
    let is_lost = duration.as_millis() == 0 && !duration.is_zero();
    Some(duration_text(if is_lost { Duration::from_millis(1) } else { duration }))
}

/// Names between commas.
pub(super) fn names(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
