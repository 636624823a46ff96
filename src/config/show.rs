//! A configuration as rows of key path and value: for SHOW CONFIG, for the diff of a reload, and for the reference.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::database::PoolSection;
use super::form::KeyForm;
use super::raw::join;
use super::raw::{KeyTable, KeyVisitor, Nature, Shape};
use super::role::RoleKeys;
use super::{Config, Database, LaneKeys, PasswordCommand, PasswordSource, Secret};

/// A setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSetting {
    /// Its value.
    pub value: SettingValue,
    /// It is read at start only.
    pub needs_restart: bool,
}

/// A value to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingValue {
    /// As the file would say it, without quotes.
    Plain(String),
    /// Shows as `***`, compares by what it is.
    Secret(Secret),
    /// Shows as `***`, or the program that prints it; compares by what it is.
    Password(PasswordSource),
}

impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => f.write_str(text),
            Self::Secret(secret) => fmt::Debug::fmt(secret, f),
            Self::Password(password) => password.fmt(f),
        }
    }
}

impl fmt::Display for ConfigSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// Every setting in force by its key path, such as `roles.web.statement_timeout`; what is unset is absent.
pub fn entries(config: &Config) -> BTreeMap<String, ConfigSetting> {
    let mut rows = Rows::of(Shown::InForce);
    sections(&mut rows, config);
    for (name, database) in &config.databases {
        rows.table_at(join("databases", name), &mut database.clone());
    }
    for (name, role) in &config.roles {
        rows.table_at(join("roles", name), &mut role.parts());
    }
    for lane in &config.lanes {
        rows.table_at(join("lanes", &lane.name), &mut lane.clone());
    }
    if !config.lanes.is_empty() {
        // Their order decides which one a transaction belongs to.
        let order = config.lanes.iter().map(|lane| lane.name.clone()).collect::<Vec<_>>().join(", ");
        let setting = ConfigSetting { value: SettingValue::Plain(order), needs_restart: false };
        rows.settings.insert("lanes".to_owned(), setting);
    }
    rows.settings
}

/// Every command that prints a password; some stand in several places.
pub fn password_commands(config: &Config) -> impl Iterator<Item = PasswordCommand> {
    entries(config).into_values().filter_map(|setting| match setting.value {
        SettingValue::Password(PasswordSource::Command(command)) => Some(command),
        _ => None,
    })
}

/// The default of every setting that has one, for the databases and roles that `config` names.
pub fn defaults(config: &Config) -> BTreeMap<String, ConfigSetting> {
    let databases = config.databases.keys().map(String::as_str);
    let lanes = config.lanes.iter().map(|lane| lane.name.as_str());
    default_rows(databases, config.roles.keys().map(String::as_str), lanes).settings
}

pub(super) fn default_rows<'a>(
    databases: impl Iterator<Item = &'a str>,
    roles: impl Iterator<Item = &'a str>,
    lanes: impl Iterator<Item = &'a str>,
) -> Rows {
    let mut rows = Rows::of(Shown::Defaults);
    sections(&mut rows, &Config::default());
    for name in databases {
        rows.table_at(join("databases", name), &mut Database::default());
    }
    for name in roles {
        rows.table_at(join("roles", name), &mut RoleKeys::default());
    }
    for name in lanes {
        rows.table_at(join("lanes", name), &mut LaneKeys::default());
    }
    rows
}

/// Visits every section but those that have names: databases, roles, lanes.
pub(super) fn sections(keys: &mut impl KeyVisitor, config: &Config) {
    let Config {
        mut listen,
        mut admin,
        backends_total_max,
        databases: _,
        roles: _,
        lanes: _,
        mut admission,
        mut notify,
        mut watch,
        mut fleet,
        mut statements,
        mut recorder,
        mut metrics,
        files: _,
        secret_files: _,
    } = config.clone();
    keys.table("listen", &mut listen);
    keys.table("admin", &mut admin);
    keys.table("pool", &mut PoolSection { backends_total_max, ..PoolSection::default() });
    keys.table("admission", &mut admission);
    keys.table("notify", &mut notify);
    keys.table("watch", &mut watch);
    keys.table("fleet", &mut fleet);
    keys.table("statements", &mut statements);
    keys.table("recorder", &mut recorder);
    keys.table("metrics", &mut metrics);
}

/// Which values become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    InForce,
    NotInForce,
    Defaults,
}

/// The visitor that makes rows of keys.
pub(super) struct Rows {
    at: String,
    shown: Shown,
    settings: BTreeMap<String, ConfigSetting>,
    /// Every key with what it allows and whether it needs a restart.
    #[cfg(test)]
    pub(super) keys: Vec<KeyFacts>,
}

/// A key for the reference.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct KeyFacts {
    pub(super) path: String,
    pub(super) name: &'static str,
    pub(super) allowed: String,
    pub(super) default: Option<String>,
    pub(super) needs_restart: bool,
}

impl Rows {
    fn of(shown: Shown) -> Self {
        Self {
            at: String::new(),
            shown,
            settings: BTreeMap::new(),
            #[cfg(test)]
            keys: Vec::new(),
        }
    }

    fn table_at(&mut self, at: String, table: &mut impl KeyTable) {
        let before = std::mem::replace(&mut self.at, at);
        table.keys(self);
        self.at = before;
    }

    fn row(&mut self, name: &'static str, value: Option<SettingValue>, allowed: impl Fn() -> String, nature: Nature) {
        let path = join(&self.at, name);
        let needs_restart = nature == Nature::Restart;
        let is_shown = match self.shown {
            Shown::InForce => true,
            Shown::NotInForce => false,
            Shown::Defaults => nature != Nature::Required,
        };
        let value = value.filter(|_| is_shown);
        #[cfg(test)]
        self.keys.push(KeyFacts {
            path: path.clone(),
            name,
            allowed: allowed(),
            default: value.as_ref().map(SettingValue::to_string),
            needs_restart,
        });
        let _ = allowed;
        if let Some(value) = value {
            self.settings.insert(path, ConfigSetting { value, needs_restart });
        }
    }
}

impl KeyVisitor for Rows {
    fn value<T>(&mut self, name: &'static str, value: &mut T, form: impl KeyForm<T>, nature: Nature) {
        self.row(name, Some(SettingValue::Plain(form.text(value))), || form.allowed(), nature);
    }

    fn maybe<T>(&mut self, name: &'static str, value: &mut Option<T>, form: impl KeyForm<T>) {
        let text = value.as_ref().map(|value| SettingValue::Plain(form.text(value)));
        self.row(name, text, || form.allowed(), Nature::Usual);
    }

    fn secret(&mut self, name: &'static str, value: &mut Option<Secret>) {
        self.row(name, value.clone().map(SettingValue::Secret), || "a secret".to_owned(), Nature::Usual);
    }

    fn password(&mut self, name: &'static str, value: &mut Option<PasswordSource>) {
        let allowed = || "a secret, or a command that prints it".to_owned();
        self.row(name, value.clone().map(SettingValue::Password), allowed, Nature::Usual);
    }

    fn file(&mut self, name: &'static str, value: &mut Option<PathBuf>) {
        let text = value.as_ref().map(|path| SettingValue::Plain(path.display().to_string()));
        self.row(name, text, || "a file".to_owned(), Nature::Usual);
    }

    fn table(&mut self, name: &'static str, table: &mut impl KeyTable) {
        self.table_at(join(&self.at, name), table);
    }

    fn maybe_table<T: KeyTable + Default>(&mut self, name: &'static str, table: &mut Option<T>) {
        match table {
            Some(table) => self.table(name, table),
            None => self.group(false, |rows| rows.table(name, &mut T::default())),
        }
    }

    fn group(&mut self, is_in_force: bool, keys: impl FnOnce(&mut Self)) {
        let before = self.shown;
        if before == Shown::InForce && !is_in_force {
            self.shown = Shown::NotInForce;
        }
        keys(self);
        self.shown = before;
    }
}
