//! Combinations of startup parameters that the backends of a pool have taken.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard};

use lru::LruCache;

use crate::state::settings::{Settings, Values};

/// Combinations remembered for a pool. A program has one; one that puts a value of its own into each connection gives
/// each login a backend for a moment, as the first.
const COMBINATIONS_MAX: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// Each combination as clients gave it, and as the server spells it.
#[derive(Debug)]
pub struct Confirmed(Mutex<LruCache<Values, Settings>>);

impl Default for Confirmed {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(COMBINATIONS_MAX)))
    }
}

impl Confirmed {
    /// The server's spelling of this combination, if a backend has taken it.
    pub(crate) fn find(&self, given: &Values) -> Option<Settings> {
        self.combinations().get(given).cloned()
    }

    /// A backend took this combination.
    pub(crate) fn remember(&self, given: Values, spelled: Settings) {
        self.combinations().put(given, spelled);
    }

    /// A server may have other rules now.
    pub(crate) fn forget(&self) {
        self.combinations().clear();
    }

    fn combinations(&self) -> MutexGuard<'_, LruCache<Values, Settings>> {
        self.0.lock().expect("no panic while held")
    }
}
