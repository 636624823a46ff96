//! Differences between two configurations, and whether the file has changed.
//!
//! [`diff`] is pure. [`Watcher`] looks at the file when it is asked, about once a second; whoever owns it decides what
//! to do with a new configuration. An invalid file yields its mistakes and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::raw::read_file;
use super::show::{ConfigSetting, entries};
use super::{Config, Mistakes, load};

/// The settings that a reload changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Every setting that differs, by key path.
    pub changed: Vec<ConfigChange>,
    /// Key paths among them that take effect at the next start only.
    pub needs_restart: Vec<String>,
}

/// One setting that differs. Displayed as `roles.web.size: 10 -> 20`, secrets as `***`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// The key path.
    pub key: String,
    /// The value so far; `None`: unset.
    pub old: Option<ConfigSetting>,
    /// The new value; `None`: unset.
    pub new: Option<ConfigSetting>,
}

impl fmt::Display for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.values())
    }
}

/// So many databases or roles that change alike are told in one line.
const ALIKE_MIN: usize = 3;

/// A change of a database or role without its name, and the name.
type OfMany<'a> = ((&'a str, &'a str, String), &'a str);

impl Changes {
    /// Lines for the log and RELOAD: databases and roles that come, go or change alike share one.
    pub fn told(&self) -> Vec<String> {
        let mut alike: BTreeMap<(&str, &str, String), Vec<&str>> = BTreeMap::new();
        for (change, name) in self.changed.iter().filter_map(ConfigChange::of_many) {
            alike.entry(change).or_default().push(name);
        }
        let is_alike =
            |change: &ConfigChange| change.of_many().is_some_and(|(change, _)| alike[&change].len() >= ALIKE_MIN);
        let mut lines: Vec<String> =
            self.changed.iter().filter(|change| !is_alike(change)).map(ToString::to_string).collect();
        for ((section, key, values), names) in alike.iter().filter(|(_, names)| names.len() >= ALIKE_MIN) {
            let shown = names.iter().take(ALIKE_MIN).copied().collect::<Vec<_>>().join(", ");
            let more = if names.len() > ALIKE_MIN { ", …" } else { "" };
            lines.push(format!("{} {section} ({shown}{more}): {key}: {values}", names.len()));
        }
        lines.extend(self.needs_restart.iter().map(|key| format!("{key} takes effect after a restart")));
        lines
    }
}

impl ConfigChange {
    /// Section, key and values apart from the name, if it is of a database or a role.
    fn of_many(&self) -> Option<OfMany<'_>> {
        let (section, rest) =
            self.key.split_once('.').filter(|(section, _)| matches!(*section, "databases" | "roles"))?;
        let end = match rest.strip_prefix('"') {
            Some(quoted) => quoted.find("\".")? + 2,
            None => rest.find('.')?,
        };
        let values = self.values();
        Some(((section, &rest[end + 1..], values), &rest[..end]))
    }

    fn values(&self) -> String {
        let shown = |value: &Option<ConfigSetting>| {
            value.as_ref().map_or_else(|| "(unset)".to_owned(), ConfigSetting::to_string)
        };
        format!("{} -> {}", shown(&self.old), shown(&self.new))
    }
}

/// Every setting that differs. Whole databases and roles that come or go differ in every key they have.
pub fn diff(old: &Config, new: &Config) -> Changes {
    let (mut old, mut new) = (entries(old), entries(new));
    let keys: BTreeSet<String> = old.keys().chain(new.keys()).cloned().collect();
    let changed: Vec<ConfigChange> = keys
        .into_iter()
        .map(|key| ConfigChange { old: old.remove(&key), new: new.remove(&key), key })
        .filter(|change| change.old != change.new)
        .collect();
    let needs_restart =
        |change: &&ConfigChange| change.old.iter().chain(&change.new).any(|setting| setting.needs_restart);
    let needs_restart = changed.iter().filter(needs_restart).map(|change| change.key.clone()).collect();
    Changes { changed, needs_restart }
}

/// Watches the configuration file and the files it names.
///
/// Paths are followed anew at each look, so a file replaced by rename and a symlink pointed elsewhere (as ConfigMaps
/// do) count as changes. A change is read once the files have held still from one look to the next: nobody gets half
/// a file, and the moment between an editor's unlink and create passes unnoticed.
#[derive(Debug)]
pub struct Watcher {
    path: PathBuf,
    named: Vec<PathBuf>,
    read: Stamps,
    moving: Option<Stamps>,
    contents: BTreeMap<PathBuf, Option<Vec<u8>>>,
}

/// The facts of `stat` for each file; `None` for one that is not there.
type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl From<Metadata> for Stamp {
    fn from(metadata: Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Watcher {
    /// Watches the file that `config` was loaded from.
    pub fn new(path: &Path, config: &Config) -> Self {
        let mut watcher = Self {
            path: path.to_path_buf(),
            named: config.files.clone(),
            read: Stamps::new(),
            moving: None,
            contents: BTreeMap::new(),
        };
        watcher.read = watcher.stamps();
        watcher.contents = watcher.contents();
        watcher
    }

    /// The new configuration, or its mistakes, if the files changed and hold still; once per change.
    pub fn check(&mut self) -> Option<Result<Config, Mistakes>> {
        let stamps = self.stamps();
        if stamps == self.read {
            self.moving = None;
            return None;
        }
        if self.moving.as_ref() != Some(&stamps) {
            self.moving = Some(stamps);
            return None;
        }
        let contents = self.contents();
        if contents == self.contents {
            self.read = stamps;
            self.moving = None;
            return None;
        }
        Some(self.reload())
    }

    /// Reads the files now, changed or not: what SIGHUP and `RELOAD` ask for.
    pub fn reload(&mut self) -> Result<Config, Mistakes> {
        // Stamps and contents before the load: a change in between is seen at the next look.
        self.moving = None;
        self.read = self.stamps();
        self.contents = self.contents();
        let loaded = load(&self.path);
        let named = match &loaded {
            Ok(config) => &config.files,
            Err(mistakes) => &mistakes.files,
        };
        if self.named != *named {
            // Files named for the first time: looked at right after the load that named them.
            self.named.clone_from(named);
            self.read = self.stamps();
            self.contents = self.contents();
        }
        loaded
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.path).chain(&self.named)
    }

    fn stamps(&self) -> Stamps {
        self.files().map(|path| (path.clone(), fs::metadata(path).ok().map(Stamp::from))).collect()
    }

    fn contents(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        self.files().map(|path| (path.clone(), read_file(path).ok())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    const BASE: &str = "[databases.app]\nhost = \"h\"\n[roles.web]\npassword = \"one\"\n";

    fn parse(text: &str) -> Config {
        crate::config::parse(text, Path::new("proxy.toml"), &|_| None).expect("valid")
    }

    /// A directory with a valid `proxy.toml` under watch.
    fn watched(text: &str) -> (TempDir, Watcher) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("proxy.toml");
        fs::write(dir.path().join("web.password"), "one").expect("written");
        fs::write(&path, text).expect("written");
        let config = load(&path).expect("valid");
        (dir, Watcher::new(&path, &config))
    }

    /// The answer of two looks: the first sees the change, the second that it holds still.
    fn look_twice(watcher: &mut Watcher) -> Option<Result<Config, Mistakes>> {
        assert!(watcher.check().is_none(), "a change is read only when it holds still");
        watcher.check()
    }

    fn write(dir: &TempDir, name: &str, text: &str) {
        fs::write(dir.path().join(name), text).expect("written");
    }

    #[test]
    fn equal_configurations_do_not_differ() {
        assert_eq!(diff(&parse(BASE), &parse(BASE)), Changes::default());
    }

    #[test]
    fn changes_are_told_with_secrets_masked() {
        let new = format!("[pool]\nsize = 5\n{}statement_timeout = \"5s\"\n", BASE.replace("one", "two"));
        let changes = diff(&parse(BASE), &parse(&new));
        let shown: Vec<String> = changes.changed.iter().map(ConfigChange::to_string).collect();
        assert_eq!(
            shown,
            [
                "databases.app.size: 20 -> 5",
                "roles.web.password: *** -> ***",
                "roles.web.statement_timeout: (unset) -> 5s",
            ]
        );
        assert!(changes.needs_restart.is_empty());
        assert!(!format!("{changes:?}").contains("two"));
    }

    #[test]
    fn databases_that_change_alike_share_a_line() {
        let with = |size: u32| {
            let many = (1..=2000).map(|n| format!("[databases.\"d.{n:04}\"]\nhost = \"h\"\nsize = {size}\n"));
            parse(&format!("{BASE}{}", many.collect::<String>()))
        };
        let told = diff(&with(5), &with(6)).told();
        assert_eq!(told, ["2000 databases (\"d.0001\", \"d.0002\", \"d.0003\", …): size: 5 -> 6"]);
        let came = diff(&parse(BASE), &with(5)).told();
        assert!(came.len() < 40, "a line for each key of a database: {came:?}");
        assert!(
            came.contains(&"2000 databases (\"d.0001\", \"d.0002\", \"d.0003\", …): host: (unset) -> h".to_owned())
        );
    }

    #[test]
    fn addresses_and_workers_need_a_restart() {
        let old = format!("[listen]\nworkers = 1\n{BASE}");
        let new =
            format!("[listen]\naddr = \"127.0.0.1:1\"\nworkers = 2\nclients_max = 3\n[admin]\naddr = \"off\"\n{BASE}");
        let changes = diff(&parse(&old), &parse(&new));
        assert_eq!(changes.changed.len(), 4);
        assert_eq!(changes.needs_restart, ["admin.addr", "listen.addr", "listen.workers"]);
    }

    #[test]
    fn file_left_alone_is_no_change() {
        let (_dir, mut watcher) = watched(BASE);
        assert!(watcher.check().is_none());
        assert!(watcher.check().is_none());
    }

    #[test]
    fn file_written_in_place_is_one_change() {
        let (dir, mut watcher) = watched(BASE);
        write(&dir, "proxy.toml", &format!("{BASE}size = 7\n"));
        let config = look_twice(&mut watcher).expect("changed").expect("valid");
        assert_eq!(config.roles["web"].limits.size, Some(7));
        assert!(watcher.check().is_none());
    }

    #[test]
    fn file_still_being_written_is_not_read() {
        let (dir, mut watcher) = watched(BASE);
        for size in [7, 70, 700] {
            write(&dir, "proxy.toml", &format!("{BASE}size = {size}\n"));
            assert!(watcher.check().is_none());
        }
        let config = watcher.check().expect("changed").expect("valid");
        assert_eq!(config.roles["web"].limits.size, Some(700));
    }

    #[test]
    fn file_replaced_by_rename_is_a_change() {
        let (dir, mut watcher) = watched(BASE);
        write(&dir, "proxy.toml.new", &BASE.replace("one", "two"));
        fs::rename(dir.path().join("proxy.toml.new"), dir.path().join("proxy.toml")).expect("renamed");
        assert!(look_twice(&mut watcher).expect("changed").is_ok());
    }

    #[test]
    fn symlink_pointed_elsewhere_is_a_change() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for (version, password) in [("..v1", "one"), ("..v2", "two")] {
            fs::create_dir(at(version)).expect("created");
            fs::write(at(version).join("proxy.toml"), BASE.replace("one", password)).expect("written");
        }
        symlink("..v1", at("..data")).expect("linked");
        symlink("..data/proxy.toml", at("proxy.toml")).expect("linked");
        let config = load(&at("proxy.toml")).expect("valid");
        let mut watcher = Watcher::new(&at("proxy.toml"), &config);

        symlink("..v2", at("..data_tmp")).expect("linked");
        fs::rename(at("..data_tmp"), at("..data")).expect("renamed");
        assert_ne!(look_twice(&mut watcher).expect("changed").expect("valid"), config);
    }

    #[test]
    fn same_content_again_is_no_change() {
        let (dir, mut watcher) = watched(BASE);
        write(&dir, "proxy.toml.new", BASE);
        fs::rename(dir.path().join("proxy.toml.new"), dir.path().join("proxy.toml")).expect("renamed");
        assert!(look_twice(&mut watcher).is_none());
        assert!(watcher.check().is_none());
    }

    #[test]
    fn file_away_for_one_look_is_no_change() {
        let (dir, mut watcher) = watched(BASE);
        fs::remove_file(dir.path().join("proxy.toml")).expect("removed");
        assert!(watcher.check().is_none());
        write(&dir, "proxy.toml", BASE);
        assert!(look_twice(&mut watcher).is_none());
    }

    #[test]
    fn invalid_file_yields_its_mistakes_once_and_the_next_valid_one_is_read() {
        let (dir, mut watcher) = watched(BASE);
        write(&dir, "proxy.toml", &format!("{BASE}size = 0\n"));
        let mistakes = look_twice(&mut watcher).expect("changed").expect_err("invalid");
        assert_eq!(mistakes.list[0].key, "roles.web.size");
        assert!(watcher.check().is_none());
        write(&dir, "proxy.toml", &format!("{BASE}size = 10\n"));
        assert!(look_twice(&mut watcher).expect("changed").is_ok());
    }

    #[test]
    fn secret_file_that_changes_is_a_change() {
        let (dir, mut watcher) = watched(&BASE.replace("\"one\"", "{ file = \"web.password\" }"));
        write(&dir, "web.password", "another");
        let config = look_twice(&mut watcher).expect("changed").expect("valid");
        assert!(diff(&parse(BASE), &config).changed.iter().any(|change| change.key == "roles.web.password"));
    }

    #[test]
    fn secret_file_that_was_missing_is_waited_for() {
        let (dir, mut watcher) = watched(BASE);
        write(&dir, "proxy.toml", &BASE.replace("\"one\"", "{ file = \"late.password\" }"));
        assert!(look_twice(&mut watcher).expect("changed").is_err());
        write(&dir, "late.password", "here now");
        assert!(look_twice(&mut watcher).expect("changed").is_ok());
    }

    #[test]
    fn reload_reads_at_once_and_check_not_again() {
        let (dir, mut watcher) = watched(BASE);
        write(&dir, "proxy.toml", &format!("{BASE}size = 7\n"));
        assert_eq!(watcher.reload().expect("valid").roles["web"].limits.size, Some(7));
        assert!(watcher.check().is_none());
        assert!(watcher.check().is_none());
    }
}
