//! Parameters that a backend reported at its login (ParameterStatus), before any client changed them.
//!
//! Backends of one pool report the same, so equal sets share one allocation and are compared by pointer.

use std::sync::{Arc, Mutex};

/// Reported names and values in the order they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters(Arc<Vec<(String, String)>>);

/// Reported, but not settings a client could carry from backend to backend.
const READ_ONLY: [&str; 6] = [
    "server_version",
    "server_encoding",
    "is_superuser",
    "session_authorization",
    "integer_datetimes",
    "in_hot_standby",
];

impl Parameters {
    /// A set of its own.
    pub fn new(pairs: Vec<(String, String)>) -> Self {
        Self(Arc::new(pairs))
    }

    /// The same allocation: values of the one that were reported to a client hold for the other.
    #[inline]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of one, by its name in any case.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The same with other values.
    pub(crate) fn with(&self, changes: Vec<(String, String)>) -> Self {
        let mut pairs = self.0.to_vec();
        for (name, value) in changes {
            match pairs.iter_mut().find(|(known, _)| *known == name) {
                Some(pair) => pair.1 = value,
                None => pairs.push((name, value)),
            }
        }
        Self::new(pairs)
    }

    /// The server reports this setting, so its value is known without looking at statements.
    pub fn reports(&self, name: &str) -> bool {
        self.value(name).is_some()
    }
}

/// Reports a state of the server or session, not a setting that `SET` could replay.
pub(crate) fn is_read_only(name: &str) -> bool {
    READ_ONLY.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The latest set of a pool, shared by all backends that reported the same.
#[derive(Debug, Default)]
pub struct Latest(Mutex<Option<Parameters>>);

impl Latest {
    /// The set that the last backend reported; `None` before the first login.
    pub fn current(&self) -> Option<Parameters> {
        self.0.lock().expect("no panic while held").clone()
    }

    /// Takes the set that a new backend reported; gives the shared set back when it is equal.
    pub fn share(&self, reported: Parameters) -> Parameters {
        let mut current = self.0.lock().expect("no panic while held");
        match &*current {
            Some(known) if *known == reported => known.clone(),
            _ => {
                *current = Some(reported.clone());
                reported
            }
        }
    }
}
