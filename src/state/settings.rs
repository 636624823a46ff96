//! The settings a client carries from backend to backend, interned: equal sets are one allocation.
//!
//! A backend remembers which set it has; a lease compares two pointers. Values a client gave as text are replayed through
//! `set_config`, which reads them as a StartupMessage would (a `search_path` of `a, b` is two schemas, not one); values
//! that are known as SQL only are replayed as they were written.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::sql::{self, Value};

/// Settings by folded name.
pub type Values = BTreeMap<String, Value>;

/// An interned set.
#[derive(Debug, Clone)]
pub struct Settings(Arc<Set>);

#[derive(Debug)]
struct Set {
    values: Values,
    /// A backend took all of it once, so it may be replayed without waiting for the answer.
    accepted: AtomicBool,
    /// Hash of what changes the meaning of a prepared statement.
    meaning: u64,
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

impl Settings {
    /// The same allocation.
    #[inline]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The values.
    pub fn values(&self) -> &Values {
        &self.0.values
    }

    /// A backend has taken it before.
    pub fn is_accepted(&self) -> bool {
        self.0.accepted.load(Ordering::Relaxed)
    }

    /// A backend has taken it.
    pub fn accept(&self) {
        self.0.accepted.store(true, Ordering::Relaxed);
    }

    /// Differs when a prepared statement could mean something else.
    pub fn meaning(&self) -> u64 {
        self.0.meaning
    }

    /// SQL that turns a backend with `self` into one with `wanted`; empty if they say the same.
    pub fn replay(&self, wanted: &Self) -> Vec<u8> {
        let (have, want) = (self.values(), wanted.values());
        let gone = have.keys().filter(|name| !want.contains_key(*name)).map(|name| (name.as_str(), &Value::Default));
        let changed = want.iter().filter(|(name, value)| have.get(*name) != Some(*value)).map(|(n, v)| (n.as_str(), v));
        sql::replay(gone.chain(changed))
    }
}

/// All sets of the process.
#[derive(Debug)]
pub struct SettingsRegistry {
    none: Settings,
    sets: Mutex<HashMap<Values, Weak<Set>>>,
}

impl Default for SettingsRegistry {
    fn default() -> Self {
        let none = Settings(Arc::new(Set::new(Values::new())));
        none.accept();
        Self { none, sets: Mutex::default() }
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
        let mut sets = self.sets.lock().expect("no panic while held");
        if let Some(set) = sets.get(&values).and_then(Weak::upgrade) {
            return Settings(set);
        }
        if sets.len() % SWEEP_EVERY == SWEEP_EVERY - 1 {
            sets.retain(|_, set| set.strong_count() > 0);
        }
        let set = Arc::new(Set::new(values.clone()));
        sets.insert(values, Arc::downgrade(&set));
        Settings(set)
    }
}

impl Set {
    fn new(values: Values) -> Self {
        let mut hasher = DefaultHasher::new();
        for (name, value) in values.iter().filter(|(name, _)| !HARMLESS.contains(&name.as_str())) {
            (name, value).hash(&mut hasher);
        }
        // Sets without any meaningful setting share the statements of those without any setting.
        let meaning = hasher.finish();
        Self { values, accepted: AtomicBool::new(false), meaning }
    }
}
