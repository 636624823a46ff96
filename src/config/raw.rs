//! The file as written: a TOML tree with positions, read key by key.
//!
//! A [`SectionReader`] is one table of the file. It visits the keys of a [`KeyTable`], each through its [`KeyForm`],
//! and refuses every key that was not visited. A value of the wrong form becomes a [`Mistake`] and reads as absent, so
//! that one run finds them all; serde would stop at the first, which is why it is not used here.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::form::{KeyForm, duration_from, duration_text, kind, read_secret, read_text};
use super::mistake::{FilePosition, Mistake, Mistakes};
use super::password::{CommandKeys, ProgramForm};
use super::{PasswordCommand, PasswordSource, Secret};

/// Keys that have changed their name, and the former one, which this release still takes.
pub(super) const FORMER_NAMES: [(&str, &str); 1] = [("server_role", "standing")];

fn former_name(key: &str) -> Option<&'static str> {
    FORMER_NAMES.iter().find(|(now, _)| *now == key).map(|(_, former)| *former)
}

/// Traits of a key besides its [`KeyForm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// It has a default, and a reload changes it.
    Usual,
    /// It has a default, and a change needs a restart.
    Restart,
    /// It has no default: where its table is written, it must be, too.
    Required,
}

/// A visitor of keys.
pub(super) trait KeyVisitor: Sized {
    /// A key whose value is always there.
    fn value<T>(&mut self, name: &'static str, value: &mut T, form: impl KeyForm<T>, nature: Nature);

    /// A key that may be unset.
    fn maybe<T>(&mut self, name: &'static str, value: &mut Option<T>, form: impl KeyForm<T>);

    /// `"text"`, `{ env = "NAME" }` or `{ file = "path" }`.
    fn secret(&mut self, name: &'static str, value: &mut Option<Secret>);

    /// As [`secret`](Self::secret) for one that is shown to a server, or `{ command = ["program"] }`.
    fn password(&mut self, name: &'static str, value: &mut Option<PasswordSource>);

    /// The path of a file that must be readable.
    fn file(&mut self, name: &'static str, value: &mut Option<PathBuf>);

    /// As [`file`](Self::file), for one that nobody else may read.
    fn secret_file(&mut self, name: &'static str, value: &mut Option<PathBuf>) {
        self.file(name, value);
    }

    /// A table within this one.
    fn table(&mut self, name: &'static str, table: &mut impl KeyTable);

    /// As [`table`](Self::table), for one that may be absent.
    fn maybe_table<T: KeyTable + Default>(&mut self, name: &'static str, table: &mut Option<T>);

    /// The keys of another struct, in this table.
    fn inline(&mut self, _field: &'static str, table: &mut impl KeyTable) {
        table.keys(self);
    }

    /// Keys that hold only where `is_in_force`.
    fn group(&mut self, is_in_force: bool, keys: impl FnOnce(&mut Self));

    /// A key that has a default, and that a reload changes.
    fn key<T>(&mut self, name: &'static str, value: &mut T, form: impl KeyForm<T>) {
        self.value(name, value, form, Nature::Usual);
    }

    /// A key that is read at start only.
    fn at_start<T>(&mut self, name: &'static str, value: &mut T, form: impl KeyForm<T>) {
        self.value(name, value, form, Nature::Restart);
    }

    /// A key without a default.
    fn required<T>(&mut self, name: &'static str, value: &mut T, form: impl KeyForm<T>) {
        self.value(name, value, form, Nature::Required);
    }

    /// As [`inline`](Self::inline), for keys that other tables begin with and that show there.
    fn template(&mut self, field: &'static str, table: &mut impl KeyTable) {
        self.group(false, |keys| keys.inline(field, table));
    }

    /// A value of several keys, in this table.
    fn shaped(&mut self, field: &'static str, value: &mut impl Shape) {
        let mut parts = value.parts();
        self.inline(field, &mut parts);
        value.set(parts);
    }

    /// A value of several keys, in a table of its own.
    fn shaped_table(&mut self, name: &'static str, value: &mut impl Shape) {
        let mut parts = value.parts();
        self.table(name, &mut parts);
        value.set(parts);
    }
}

/// The keys of one table of the file, and the rules between them.
pub(super) trait KeyTable {
    /// Visits every key.
    fn keys(&mut self, keys: &mut impl KeyVisitor);

    /// Blames keys that contradict each other, or lack another.
    fn rules(&self, _section: &SectionReader<'_>) {}
}

/// A value that the file spreads over several keys.
pub(super) trait Shape: Sized {
    /// The keys one by one.
    type Parts: KeyTable;

    /// The keys of this value.
    fn parts(&self) -> Self::Parts;

    /// The value of these keys; `None` where [`KeyTable::rules`] had something to blame.
    fn whole(parts: Self::Parts) -> Option<Self>;

    /// Takes the value of these keys, if it is one.
    fn set(&mut self, parts: Self::Parts) {
        if let Some(whole) = Self::whole(parts) {
            *self = whole;
        }
    }
}

/// Running a program more often is no way to have a password.
const REFRESH_MIN: Duration = Duration::from_secs(1);

/// A program that is asked for less has hardly been started.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);

impl KeyTable for CommandKeys {
    fn keys(&mut self, keys: &mut impl KeyVisitor) {
        keys.required("command", &mut self.command, ProgramForm);
        keys.key("refresh", &mut self.refresh, duration_from(REFRESH_MIN));
        keys.key("timeout", &mut self.timeout, duration_from(TIMEOUT_MIN));
    }

    fn rules(&self, section: &SectionReader<'_>) {
        if self.timeout < self.refresh || section.is_blamed("timeout") || section.is_blamed("refresh") {
            return;
        }
        let (timeout, refresh) = (duration_text(self.timeout), duration_text(self.refresh));
        match section.has("timeout") {
            true => section.blame("timeout", format!("{timeout:?} is not shorter than refresh, {refresh:?}")),
            false => section.blame("refresh", format!("{refresh:?} is not longer than timeout, {timeout:?}")),
        }
    }
}

/// A configuration, secret or certificate larger than this is something else, such as a device.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// One configuration text, what it may ask of its surroundings, and what was found wrong with it.
pub(super) struct Source<'a> {
    path: &'a Path,
    text: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
    mistakes: RefCell<Vec<(usize, Mistake)>>,
    files: RefCell<BTreeSet<PathBuf>>,
    secret_files: RefCell<BTreeSet<PathBuf>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            path,
            text,
            env,
            mistakes: RefCell::default(),
            files: RefCell::default(),
            secret_files: RefCell::default(),
        }
    }

    /// The tree, or the first error of syntax: what follows one is guesswork.
    pub(super) fn table(&self) -> Result<DeTable<'a>, Mistakes> {
        let error = match DeTable::parse(self.text) {
            Ok(table) => return Ok(table.into_inner()),
            Err(error) => error,
        };
        let start = error.span().map_or(0, |span| span.start);
        let before = self.text.get(..start).unwrap_or(self.text);
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        let position = FilePosition { line: self.line(start), column: Some(column) };
        // The message alone: the error's own Display quotes the line, which may hold a password.
        let text = error.message().trim().replace('\n', ", ");
        self.push(start, Some(position), String::new(), text);
        Err(self.mistakes())
    }

    /// The top of the tree.
    pub(super) fn root<'s>(&'s self, table: &'s DeTable<'s>) -> SectionReader<'s> {
        SectionReader { source: self, path: String::new(), start: 0, table: Some(table), known: BTreeSet::new() }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.mistakes.borrow().is_empty()
    }

    /// Everything found wrong, in the order of the file.
    pub(super) fn mistakes(&self) -> Mistakes {
        let mut list = self.mistakes.borrow().clone();
        list.sort_by(|(a, x), (b, y)| (a, &x.key).cmp(&(b, &y.key)));
        Mistakes { list: list.into_iter().map(|(_, mistake)| mistake).collect(), files: self.files() }
    }

    /// Every other file the text named.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.files.borrow().iter().cloned().collect()
    }

    /// The files with secrets in them, this one included.
    pub(super) fn secret_files(&self) -> Vec<PathBuf> {
        self.secret_files.borrow().iter().cloned().collect()
    }

    /// Whether anything at this path or below it was blamed so far.
    pub(super) fn is_blamed(&self, path: &str) -> bool {
        let is_below = |key: &str| key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.mistakes.borrow().iter().any(|(_, mistake)| is_below(&mistake.key))
    }

    fn line(&self, start: usize) -> usize {
        let before = self.text.get(..start).unwrap_or(self.text);
        before.matches('\n').count() + 1
    }

    fn push(&self, start: usize, position: Option<FilePosition>, key: String, text: String) {
        let file = self.path.to_path_buf();
        self.mistakes.borrow_mut().push((start, Mistake { file, position, key, text }));
    }

    /// The bytes of a file named in the text; relative to the directory of the configuration.
    fn read(&self, named: &str, has_secrets: bool) -> Result<(PathBuf, Vec<u8>), String> {
        let path = self.path.parent().unwrap_or_else(|| Path::new("")).join(named);
        self.files.borrow_mut().insert(path.clone());
        if has_secrets {
            self.secret_files.borrow_mut().insert(path.clone());
        }
        match read_file(&path) {
            Ok(bytes) => Ok((path, bytes)),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        }
    }
}

/// One table of the file; an absent one reads as empty.
pub(super) struct SectionReader<'a> {
    source: &'a Source<'a>,
    path: String,
    start: usize,
    table: Option<&'a DeTable<'a>>,
    known: BTreeSet<&'static str>,
}

impl<'a> SectionReader<'a> {
    /// Whether the key is written here, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    fn is_table(&self, key: &str) -> bool {
        matches!(self.entry(key), Some((_, value)) if value.get_ref().is_table())
    }

    /// Whether the key is written here and nothing at it or below it was blamed so far.
    pub(super) fn is_sound(&self, key: &str) -> bool {
        self.has(key) && !self.is_blamed(key)
    }

    /// A password for the server.
    pub(super) fn needs_password(&self, key: &str, password: Option<&PasswordSource>) {
        if password.and_then(PasswordSource::known).is_some_and(Secret::looks_like_verifier) {
            self.blame(key, "is a SCRAM verifier, which opens nothing; write the password itself");
        }
    }

    /// Blames a key that is not written.
    pub(super) fn needs(&self, key: &str) {
        if !self.has(key) {
            self.blame(key, "is missing");
        }
    }

    /// The table under `key`, for rules over several tables.
    pub(super) fn view(&self, key: &str) -> Self {
        let entry = self.entry(key).map(|(start, value)| (start, value.get_ref().as_table()));
        let (start, table) = entry.unwrap_or((self.start, None));
        SectionReader { source: self.source, path: join(&self.path, key), start, table, known: BTreeSet::new() }
    }

    /// Whether anything at `key` or below it was blamed so far.
    pub(super) fn is_blamed(&self, key: &str) -> bool {
        self.source.is_blamed(&join(&self.path, key))
    }

    /// Fills a table of keys.
    pub(super) fn visit(&mut self, table: &mut impl KeyTable) {
        self.inline("", table);
    }

    /// Fills a table of keys and refuses every key that is not in it.
    pub(super) fn read(mut self, table: &mut impl KeyTable) {
        self.visit(table);
        self.finish();
    }

    /// The value of `key` if it is written and passes `check`; what fails becomes a mistake.
    fn take<T>(&mut self, key: &'static str, check: impl FnOnce(&DeValue<'_>) -> Result<T, String>) -> Option<T> {
        self.known.insert(key);
        let (_, value) = self.entry(key)?;
        check(value.get_ref()).map_err(|text| self.blame(key, text)).ok()
    }

    /// The text of a file, without the newline at its end.
    fn file_text(&mut self, key: &'static str) -> Option<String> {
        let source = self.source;
        self.take(key, |value| {
            let (path, bytes) = source.read(&read_text(value)?, true)?;
            let text = String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            if text.is_empty() {
                return Err(format!("{} is empty", path.display()));
            }
            Ok(text.to_owned())
        })
    }

    /// The text of an environment variable.
    fn env_text(&mut self, key: &'static str) -> Option<String> {
        let source = self.source;
        self.take(key, |value| {
            let name = read_text(value)?;
            (source.env)(&name)
                .filter(|text| !text.is_empty())
                .ok_or_else(|| format!("{name:?} is not set in the environment, or is empty"))
        })
    }

    fn path(&mut self, key: &'static str, value: &mut Option<PathBuf>, has_secrets: bool) {
        let source = self.source;
        let read = self.take(key, |value| source.read(&read_text(value)?, has_secrets).map(|(path, _)| path));
        if let Some(path) = read {
            *value = Some(path);
        }
    }

    /// A secret that stands in the environment or in a file.
    fn secret_elsewhere(mut self) -> Option<String> {
        if self.has("command") {
            self.blame("command", "is for passwords that are shown to servers; use env = \"NAME\" or file = \"path\"");
            return None;
        }
        let env = self.env_text("env");
        let file = self.file_text("file");
        if self.has("env") == self.has("file") {
            self.blame_all("needs one of env = \"NAME\" and file = \"path\"");
        }
        self.finish();
        env.or(file)
    }

    /// The table under `key`, if it is written and a table.
    fn section(&mut self, key: &'static str) -> Option<Self> {
        self.known.insert(key);
        let (start, value) = self.entry(key)?;
        self.child(key, start, value)
    }

    /// The tables under `key` by name, as in `[roles.web]`; `None` for one that is no table.
    pub(super) fn children(&mut self, key: &'static str) -> Vec<(String, Option<Self>)> {
        let Some(parent) = self.section(key) else {
            return Vec::new();
        };
        let Some(table) = parent.table else {
            return Vec::new();
        };
        table
            .iter()
            .map(|(name, value)| {
                let start = name.span().start;
                let section = parent.child(name.get_ref(), start, value);
                (name.get_ref().to_string(), section)
            })
            .collect()
    }

    /// The tables of the list under `key`, as of `[[lanes]]`. Mistakes call each by its `name`, or by its number.
    pub(super) fn entries(&mut self, key: &'static str) -> Vec<Self> {
        self.known.insert(key);
        let Some((start, value)) = self.entry(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            self.blame_at(
                start,
                join(&self.path, key),
                format!("is {}, not a list of tables such as [[{key}]]", kind(value.get_ref())),
            );
            return Vec::new();
        };
        let list = join(&self.path, key);
        let mut entries = Vec::new();
        for (number, item) in items.iter().enumerate() {
            let DeValue::Table(table) = item.get_ref() else {
                self.blame_at(start, list.clone(), format!("holds {}, not only tables", kind(item.get_ref())));
                continue;
            };
            let name = table.get("name").and_then(|name| name.get_ref().as_str()).filter(|name| !name.is_empty());
            let path = name.map_or_else(|| format!("{list}[{number}]"), |name| join(&list, name));
            let (source, start) = (self.source, item.span().start);
            entries.push(SectionReader { source, path, start, table: Some(table), known: BTreeSet::new() });
        }
        entries
    }

    /// Records a mistake at `key`, or at the section when `key` is not written.
    pub(super) fn blame(&self, key: &str, text: impl Into<String>) {
        let start = self.entry(key).map_or(self.start, |(start, _)| start);
        self.blame_at(start, join(&self.path, key), text.into());
    }

    /// Records a mistake of the whole section.
    pub(super) fn blame_all(&self, text: impl Into<String>) {
        self.blame_at(self.start, self.path.clone(), text.into());
    }

    /// Refuses every key that was not taken.
    pub(super) fn finish(self) {
        for (name, _) in self.table.into_iter().flat_map(DeTable::iter) {
            let key = name.get_ref().as_ref();
            if self.known.contains(key) {
                continue;
            }
            if let Some(now) = self.known.iter().find(|known| former_name(known) == Some(key)) {
                if self.table.is_some_and(|table| table.contains_key(*now)) {
                    let text = format!("is the former name of {now}, which is written, too");
                    self.blame_at(name.span().start, join(&self.path, key), text);
                }
                continue;
            }
            self.blame_at(name.span().start, join(&self.path, key), self.unknown(key));
        }
    }

    fn unknown(&self, key: &str) -> String {
        let likeness = |known: &str| strsim::jaro_winkler(key, known);
        let near =
            self.known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|known| likeness(known) > 0.8);
        match near {
            Some(near) => format!("unknown key; did you mean {near:?}?"),
            None => {
                let known: Vec<&str> = self.known.iter().copied().collect();
                format!("unknown key; allowed here: {}", known.join(", "))
            }
        }
    }

    fn child(&self, name: &str, start: usize, value: &'a Spanned<DeValue<'a>>) -> Option<Self> {
        let path = join(&self.path, name);
        let DeValue::Table(table) = value.get_ref() else {
            let text = format!("is {}, not a table such as [{path}]", kind(value.get_ref()));
            self.blame_at(start, path, text);
            return None;
        };
        Some(SectionReader { source: self.source, path, start, table: Some(table), known: BTreeSet::new() })
    }

    /// What is written under `key`, or under its former name.
    fn entry(&self, key: &str) -> Option<(usize, &'a Spanned<DeValue<'a>>)> {
        let table = self.table?;
        let (name, value) = table.get_key_value(key).or_else(|| table.get_key_value(former_name(key)?))?;
        Some((name.span().start, value))
    }

    fn blame_at(&self, start: usize, key: String, text: String) {
        let position = FilePosition { line: self.source.line(start), column: None };
        self.source.push(start, Some(position), key, text);
    }
}

impl KeyVisitor for SectionReader<'_> {
    fn value<T>(&mut self, name: &'static str, value: &mut T, form: impl KeyForm<T>, nature: Nature) {
        if nature == Nature::Required && !self.has(name) {
            self.blame(name, "is missing");
        }
        if let Some(read) = self.take(name, |value| form.read(value)) {
            *value = read;
        }
    }

    fn maybe<T>(&mut self, name: &'static str, value: &mut Option<T>, form: impl KeyForm<T>) {
        if let Some(read) = self.take(name, |value| form.read(value)) {
            *value = Some(read);
        }
    }

    fn secret(&mut self, name: &'static str, value: &mut Option<Secret>) {
        let read = match self.is_table(name) {
            true => self.section(name).and_then(SectionReader::secret_elsewhere),
            false => self.take(name, read_secret).inspect(|_| {
                self.source.secret_files.borrow_mut().insert(self.source.path.to_owned());
            }),
        };
        if let Some(read) = read {
            *value = Some(Secret::new(read));
        }
    }

    fn password(&mut self, name: &'static str, value: &mut Option<PasswordSource>) {
        if !self.view(name).has("command") {
            let mut secret = None;
            self.secret(name, &mut secret);
            if let Some(secret) = secret {
                *value = Some(PasswordSource::Known(secret));
            }
            return;
        }
        let mut keys = CommandKeys::default();
        self.table(name, &mut keys);
        if !self.is_blamed(name) {
            *value = Some(PasswordSource::Command(PasswordCommand::new(join(&self.path, name), keys)));
        }
    }

    fn file(&mut self, name: &'static str, value: &mut Option<PathBuf>) {
        self.path(name, value, false);
    }

    fn secret_file(&mut self, name: &'static str, value: &mut Option<PathBuf>) {
        self.path(name, value, true);
    }

    fn table(&mut self, name: &'static str, table: &mut impl KeyTable) {
        if let Some(section) = self.section(name) {
            section.read(table);
        }
    }

    fn maybe_table<T: KeyTable + Default>(&mut self, name: &'static str, table: &mut Option<T>) {
        if let Some(section) = self.section(name) {
            section.read(table.insert(T::default()));
        }
    }

    fn inline(&mut self, _field: &'static str, table: &mut impl KeyTable) {
        table.keys(self);
        table.rules(self);
    }

    fn group(&mut self, _is_in_force: bool, keys: impl FnOnce(&mut Self)) {
        keys(self);
    }
}

/// The bytes of a file, no more than a configuration can use.
pub(super) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB")),
        false => Ok(bytes),
    }
}

/// The path of a key by its parts.
pub fn key_path(parts: &[&str]) -> String {
    parts.iter().fold(String::new(), |path, part| join(&path, part))
}

/// A key path as it would be written in TOML: names that are no bare keys are quoted.
pub(super) fn join(path: &str, key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let quoted = match key.is_empty() || !key.chars().all(is_bare) {
        true => format!("{key:?}"),
        false => key.to_owned(),
    };
    match path {
        "" => quoted,
        path => format!("{path}.{quoted}"),
    }
}
