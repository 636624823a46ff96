//! How many each key has, and which has the most. Pure.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// Counts by key; a key that has none is forgotten.
#[derive(Debug)]
pub(super) struct Loads<K> {
    counts: HashMap<K, usize>,
    by_count: BTreeSet<(usize, K)>,
}

impl<K> Default for Loads<K> {
    fn default() -> Self {
        Self { counts: HashMap::new(), by_count: BTreeSet::new() }
    }
}

impl<K: Copy + Eq + Hash + Ord> Loads<K> {
    pub(super) fn add(&mut self, key: K) {
        self.change(key, |count| count + 1);
    }

    pub(super) fn sub(&mut self, key: K) {
        self.change(key, |count| count.saturating_sub(1));
    }

    pub(super) fn count(&self, key: K) -> usize {
        self.counts.get(&key).copied().unwrap_or(0)
    }

    /// The key that has the most, and how many that is.
    pub(super) fn heaviest(&self) -> Option<(K, usize)> {
        self.by_count.last().map(|(count, key)| (*key, *count))
    }

    fn change(&mut self, key: K, change: impl FnOnce(usize) -> usize) {
        let before = self.count(key);
        self.by_count.remove(&(before, key));
        match change(before) {
            0 => {
                self.counts.remove(&key);
            }
            count => {
                self.counts.insert(key, count);
                self.by_count.insert((count, key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_is_the_one_with_most_and_nothing_is_left_of_those_that_are_gone() {
        let mut loads = Loads::default();
        assert_eq!(loads.heaviest(), None);
        for key in ["a", "b", "b", "c", "b"] {
            loads.add(key);
        }
        assert_eq!(loads.heaviest(), Some(("b", 3)));
        for _ in 0..5 {
            loads.sub("b");
        }
        assert_eq!(loads.heaviest(), Some(("c", 1)));
        loads.sub("a");
        loads.sub("c");
        assert_eq!((loads.heaviest(), loads.counts.len(), loads.by_count.len()), (None, 0, 0));
    }
}
