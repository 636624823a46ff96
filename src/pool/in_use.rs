//! Whether anybody uses a shared thing, counted where a use begins and ends.
//!
//! A thing that clients make by asking for it is forgotten when nobody uses it. References say nothing about that:
//! lists, backends and background tasks have some, too, and their number changes with the code.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of uses of one thing.
#[derive(Debug, Default)]
pub struct Uses(AtomicUsize);

impl Uses {
    /// Whether nobody uses it. Stays so as long as uses begin only under a lock that the caller holds.
    pub fn is_none(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

/// A thing that knows its uses.
pub trait CountUses {
    fn uses(&self) -> &Uses;
}

/// A reference to a thing that counts as a use of it until it is dropped.
#[derive(Debug)]
pub struct InUse<T: CountUses>(Arc<T>);

impl<T: CountUses> InUse<T> {
    /// One more use.
    pub fn new(thing: Arc<T>) -> Self {
        thing.uses().0.fetch_add(1, Ordering::Relaxed);
        Self(thing)
    }
}

impl<T: CountUses> Clone for InUse<T> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.0))
    }
}

impl<T: CountUses> Drop for InUse<T> {
    fn drop(&mut self) {
        self.0.uses().0.fetch_sub(1, Ordering::Release);
    }
}

/// The reference itself: a clone of it does not count as a use.
impl<T: CountUses> Deref for InUse<T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Thing(Uses);

    impl CountUses for Thing {
        fn uses(&self) -> &Uses {
            &self.0
        }
    }

    #[test]
    fn thing_is_used_until_the_last_use_ends_whatever_references_there_are() {
        let thing = Arc::<Thing>::default();
        assert!(thing.uses().is_none());
        let first = InUse::new(Arc::clone(&thing));
        let second = first.clone();
        let reference = Arc::clone(&first);
        drop(first);
        assert!(!thing.uses().is_none());
        drop(second);
        assert!(thing.uses().is_none() && Arc::strong_count(&reference) == 2);
    }
}
