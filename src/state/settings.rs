//! The settings a client carries from backend to backend, interned: equal sets are one allocation.
//!
//! A backend remembers which set it has; a lease compares two pointers. Values a client gave as text are replayed
//! through `set_config`, which reads them as a StartupMessage would (a `search_path` of `a, b` is two schemas, not
//! one); values that are known as SQL only are replayed as they were written.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::parameters::Parameters;
use super::timeout::{OwnTimeouts, Timeout};
use crate::sql::{self, Milliseconds, Value, milliseconds};

/// Settings by folded name.
pub(crate) type Values = BTreeMap<String, Value>;

#[derive(Debug, Clone)]
pub struct Settings(Arc<Set>);

#[derive(Debug)]
struct Set {
    values: Values,
    /// Hash of the settings that change the meaning of a prepared statement.
    meaning: u64,
    /// Timeouts among the values.
    timeouts: OwnTimeouts,
    /// Bytes that the values take, about.
    bytes: usize,
}

/// Settings that change neither how a statement is read nor how it is planned.
const HARMLESS: [&str; 10] = [
    "application_name",
    "client_min_messages",
    "extra_float_digits",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "transaction_timeout",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "default_transaction_deferrable",
];

/// True for a setting that no analysis and no plan depends on.
pub(crate) fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name)
}

impl Settings {
    #[inline]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub fn values(&self) -> &Values {
        &self.0.values
    }

    /// The timeouts among them.
    pub fn timeouts(&self) -> &OwnTimeouts {
        &self.0.timeouts
    }

    /// Bytes that they take, about.
    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// Differs when a prepared statement could mean something else.
    pub fn meaning(&self) -> u64 {
        self.0.meaning
    }

    /// Queries that turn a backend that reported `base` at its login and has `self` into one with `wanted`.
    pub fn replay(&self, wanted: &Self, base: &Parameters) -> Replay {
        let (have, want) = (self.values(), wanted.values());
        let gone = have.keys().filter(|name| !want.contains_key(*name));
        let gone = gone.map(|name| (name.as_str(), &Value::Default));
        // A value that equals that of the login is set all the same: the login's may change at any moment.
        let changed = want.iter().filter(|(name, value)| have.get(*name) != Some(*value)).map(|(n, v)| (n.as_str(), v));
        let mut changes: Vec<_> = gone.chain(changed).collect();
        // The role may lack the right to set values that the login may set.
        if let Some(role) =
            want.get(ROLE).filter(|_| !changes.is_empty() && changes.iter().all(|(name, _)| *name != ROLE))
        {
            changes.push((ROLE, role));
        }
        if changes.is_empty() {
            return Replay { encoding: Vec::new(), rest: Vec::new() };
        }
        // Transactions of the last client may begin as ones that wait for others at their first snapshot.
        let prefix: &[u8] = if have.contains_key(DEFERRABLE) { AT_ONCE } else { b"" };
        let sql = sql::replay(changes.iter().copied());
        if sql.is_ascii() {
            return Replay { encoding: Vec::new(), rest: [prefix, &sql].concat() };
        }
        let name = want.get(ENCODING).and_then(Value::plain);
        let name = name.as_deref().or_else(|| base.value(ENCODING).map(str::as_bytes)).unwrap_or_default();
        let family = sql::encoding_family(&String::from_utf8_lossy(name));
        // Each Query is read in the encoding that is in force when it arrives.
        let (encoding, rest): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(name, _)| *name == ENCODING);
        let encoding = sql::replay(encoding);
        Replay { encoding, rest: [prefix, &sql::replay_in(family, rest)].concat() }
    }
}

/// Queries that bring settings back; an empty one is not needed.
#[derive(Debug, PartialEq, Eq)]
pub struct Replay {
    /// First, the encoding, if the rest depends on it.
    pub encoding: Vec<u8>,
    pub rest: Vec<u8>,
}

/// A transaction under this default may wait at its first snapshot, with isolation level serializable and read only.
pub(crate) const DEFERRABLE: &str = "default_transaction_deferrable";

/// The first statement of a Query whose transaction must not wait so.
pub(crate) const AT_ONCE: &[u8] = b"SET TRANSACTION ISOLATION LEVEL READ COMMITTED, NOT DEFERRABLE;";

const ROLE: &str = "role";
/// The setting that says how the bytes of all others are read.
pub(crate) const ENCODING: &str = "client_encoding";

/// All sets of the process.
#[derive(Debug)]
pub struct SettingsRegistry {
    none: Settings,
    hashing: RandomState,
    /// Sets by the hash of their values.
    sets: Mutex<HashMap<u64, Vec<Weak<Set>>>>,
}

impl Default for SettingsRegistry {
    fn default() -> Self {
        let none = Settings(Arc::new(Set::new(Values::new())));
        Self { none, hashing: RandomState::new(), sets: Mutex::default() }
    }
}

/// Dead entries are looked for whenever the registry grew to a multiple of this.
const SWEEP_EVERY: usize = 256;

impl SettingsRegistry {
    /// The empty set: a backend as it logged in.
    pub fn none(&self) -> Settings {
        self.none.clone()
    }

    /// The set with these values.
    pub fn intern(&self, values: Values) -> Settings {
        if values.is_empty() {
            return self.none();
        }
        // Nothing that grows with the values is done under the lock: hashing, comparing and copying.
        let hash = self.hashing.hash_one(&values);
        let known = self.sets().get(&hash).cloned().unwrap_or_default();
        if let Some(set) = known.iter().filter_map(Weak::upgrade).find(|set| set.values == values) {
            return Settings(set);
        }
        // Two clients may come to the same values at the same moment: a set too many costs a round trip at most.
        let set = Arc::new(Set::new(values));
        let mut sets = self.sets();
        if sets.len() % SWEEP_EVERY == SWEEP_EVERY - 1 {
            sets.retain(|_, sets| sets.iter().any(|set| set.strong_count() > 0));
        }
        let alike = sets.entry(hash).or_default();
        alike.retain(|set| set.strong_count() > 0);
        alike.push(Arc::downgrade(&set));
        Settings(set)
    }

    fn sets(&self) -> MutexGuard<'_, HashMap<u64, Vec<Weak<Set>>>> {
        self.sets.lock().expect("no panic while held")
    }
}

/// Bytes of a setting besides its name and value, about.
const SETTING_OVERHEAD: usize = 96;

/// Bytes that a setting takes, about.
pub(crate) fn cost(name: &str, value: &Value) -> usize {
    SETTING_OVERHEAD + name.len() + value.text_len()
}

impl Set {
    fn new(values: Values) -> Self {
        let mut hasher = DefaultHasher::new();
        for (name, value) in values.iter().filter(|(name, _)| !HARMLESS.contains(&name.as_str())) {
            (name, value).hash(&mut hasher);
        }
        // Sets without any meaningful setting share the statements of those without any setting.
        let meaning = hasher.finish();
        let timeouts = Timeout::ALL.map(|timeout| match milliseconds(values.get(timeout.setting())?) {
            Milliseconds::Known(own) => Some(own),
            Milliseconds::Unread => Some(0),
            Milliseconds::Refused => None,
        });
        let bytes = values.iter().map(|(name, value)| cost(name, value)).sum();
        Self { values, meaning, timeouts, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &[(&str, &'static str)]) -> Settings {
        let values =
            values.iter().map(|(name, value)| ((*name).to_owned(), Value::Text(value.as_bytes().into()))).collect();
        SettingsRegistry::default().intern(values)
    }

    fn replay(have: &[(&str, &'static str)], want: &[(&str, &'static str)]) -> (String, String) {
        let Replay { encoding, rest } = set(have).replay(&set(want), &Parameters::default());
        (String::from_utf8(encoding).unwrap(), String::from_utf8(rest).unwrap())
    }

    #[test]
    fn a_value_that_equals_that_of_the_login_is_replayed_all_the_same() {
        assert_eq!(replay(&[], &[("timezone", "UTC")]).1, "SELECT pg_catalog.set_config('timezone','UTC',false);");
        assert_eq!(replay(&[("timezone", "UTC")], &[]).1, "RESET \"timezone\";");
        assert_eq!(replay(&[("timezone", "UTC")], &[("timezone", "UTC")]), Default::default());
    }

    #[test]
    fn a_replay_never_waits_for_a_safe_snapshot() {
        let (_, sql) = replay(&[("default_transaction_deferrable", "on")], &[]);
        assert!(sql.starts_with("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, NOT DEFERRABLE;RESET "), "{sql}");
    }

    // `sql::replay`: one Query is read in one encoding
    #[test]
    fn an_encoding_goes_before_values_written_in_it() {
        let (encoding, rest) =
            replay(&[("client_encoding", "LATIN1")], &[("client_encoding", "WIN1252"), ("app.name", "é")]);
        assert_eq!(encoding, "SELECT pg_catalog.set_config('client_encoding','WIN1252',false);");
        assert_eq!(rest, "SELECT pg_catalog.set_config('app.name','é',false);");
        assert_eq!(replay(&[], &[("client_encoding", "LATIN1"), ("app.name", "e")]).0, "");
    }

    #[test]
    fn a_role_is_left_for_other_settings_and_taken_again() {
        let (_, sql) = replay(&[("role", "web")], &[("role", "web"), ("work_mem", "8MB")]);
        assert!(sql.starts_with("RESET ROLE;") && sql.ends_with("set_config('role','web',false);"), "{sql}");
    }

    #[test]
    fn equal_sets_are_one() {
        let registry = SettingsRegistry::default();
        let values: Values = [("a".to_owned(), Value::Default)].into();
        let first = registry.intern(values.clone());
        assert!(first.is_same(&registry.intern(values)));
        assert!(registry.none().is_same(&registry.intern(Values::new())));
    }
}
