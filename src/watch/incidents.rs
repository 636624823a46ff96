//! Incidents: each opens once, and closes once.
//!
//! A look reports every value that is not fine, with its level. Between the level that opens an incident and the one
//! below which nothing is reported lies a band in which open incidents stay open and no other opens, so that a value at
//! the edge does not come and go.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// How bad something is at one look; if it is fine, it has no level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IncidentLevel {
    /// Bad enough to open.
    Above,
    /// Too good to open, too bad to close.
    Between,
}

impl IncidentLevel {
    /// The level of a value that opens at `opens` and closes below half of it; `None`: it is fine.
    pub(crate) fn of<T: PartialOrd + std::ops::Div<u32, Output = T>>(value: T, opens: T) -> Option<Self> {
        if value >= opens {
            return Some(Self::Above);
        }
        (value >= opens / 2).then_some(Self::Between)
    }
}

/// A change that a look brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IncidentChange<V> {
    /// It began between the look before and this one.
    Opened(V),
    /// It ended after so long; the value is the last one seen.
    Closed(V, Duration),
}

impl<V> IncidentChange<V> {
    /// The same change, its value shown otherwise.
    pub(super) fn map<U>(self, show: impl FnOnce(V) -> U) -> IncidentChange<U> {
        match self {
            Self::Opened(value) => IncidentChange::Opened(show(value)),
            Self::Closed(value, lasted) => IncidentChange::Closed(show(value), lasted),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident<V> {
    pub since: Instant,
    /// As last seen.
    pub value: V,
}

/// All open incidents, by the key that makes each the same from look to look.
#[derive(Debug)]
pub(crate) struct Incidents<K, V>(BTreeMap<K, Incident<V>>);

impl<V: Clone> Incident<V> {
    /// The same incident, its value shown otherwise.
    pub(super) fn map<U>(&self, show: impl FnOnce(V) -> U) -> Incident<U> {
        Incident { since: self.since, value: show(self.value.clone()) }
    }
}

impl<K, V> Default for Incidents<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, V: Clone> Incidents<K, V> {
    /// Takes everything one look saw. Of two with the same key the first counts.
    pub(crate) fn look(
        &mut self,
        seen: impl IntoIterator<Item = (K, IncidentLevel, V)>,
        now: Instant,
    ) -> Vec<IncidentChange<V>> {
        let mut before = std::mem::take(&mut self.0);
        let mut opened = Vec::new();
        for (key, level, value) in seen {
            if self.0.contains_key(&key) {
                continue;
            }
            let since = match (before.remove(&key), level) {
                (Some(open), _) => open.since,
                (None, IncidentLevel::Above) => {
                    opened.push(IncidentChange::Opened(value.clone()));
                    now
                }
                (None, IncidentLevel::Between) => continue,
            };
            self.0.insert(key, Incident { since, value });
        }
        let mut changes = closed(before, now);
        changes.append(&mut opened);
        changes
    }

    /// Closes everything: nobody looks any more.
    pub(crate) fn clear(&mut self, now: Instant) -> Vec<IncidentChange<V>> {
        closed(std::mem::take(&mut self.0), now)
    }

    /// Open incidents, in order of their keys.
    pub(crate) fn open(&self) -> impl Iterator<Item = (&K, &Incident<V>)> {
        self.0.iter()
    }

    /// Whether this is open.
    #[cfg(test)]
    pub(crate) fn is_open(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    /// No incident is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn closed<K, V>(open: BTreeMap<K, Incident<V>>, now: Instant) -> Vec<IncidentChange<V>> {
    let close = |Incident { since, value }| IncidentChange::Closed(value, now.saturating_duration_since(since));
    open.into_values().map(close).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_above_opens_and_what_is_gone_closes_with_its_last_value() {
        let (mut incidents, start) = (Incidents::default(), Instant::now());
        assert_eq!(incidents.look([("a", IncidentLevel::Above, 1)], start), [IncidentChange::Opened(1)]);
        assert_eq!(incidents.look([("a", IncidentLevel::Above, 2)], start + s(5)), []);
        assert_eq!(incidents.look([], start + s(10)), [IncidentChange::Closed(2, s(10))]);
        assert_eq!(incidents.look([], start + s(15)), []);
    }

    #[test]
    fn what_is_between_neither_opens_nor_closes() {
        let (mut incidents, now) = (Incidents::default(), Instant::now());
        assert_eq!(incidents.look([("a", IncidentLevel::Between, 1)], now), []);
        incidents.look([("a", IncidentLevel::Above, 2)], now);
        assert_eq!(incidents.look([("a", IncidentLevel::Between, 1)], now), []);
        assert!(incidents.is_open(&"a"));
    }

    #[test]
    fn another_one_in_its_place_is_told_of_after_the_end_of_the_first() {
        let (mut incidents, now) = (Incidents::default(), Instant::now());
        incidents.look([("a", IncidentLevel::Above, 1)], now);
        let changes = incidents.look([("b", IncidentLevel::Above, 2)], now);
        assert_eq!(changes, [IncidentChange::Closed(1, s(0)), IncidentChange::Opened(2)]);
    }

    #[test]
    fn levels_have_a_band_of_half_the_opening_value() {
        let of = |seconds| IncidentLevel::of(s(seconds), s(300));
        assert_eq!([149, 150, 299].map(of), [None, Some(IncidentLevel::Between), Some(IncidentLevel::Between)]);
        assert_eq!(of(300), Some(IncidentLevel::Above));
    }

    proptest! {
        #[test]
        fn each_opens_once_and_closes_once_and_only_what_was_above_ever_opened(
            looks in prop::collection::vec(prop::collection::vec((0_u8..4, any::<bool>()), 0..6), 0..60)
        ) {
            let (mut incidents, mut now) = (Incidents::default(), Instant::now());
            let mut open = BTreeMap::new();
            for look in looks {
                now += s(1);
                let level = |is_above| if is_above { IncidentLevel::Above } else { IncidentLevel::Between };
                let changes = incidents.look(look.iter().map(|(key, above)| (*key, level(*above), *key)), now);
                for change in changes {
                    match change {
                        IncidentChange::Opened(key) => {
                            prop_assert!(look.contains(&(key, true)));
                            prop_assert_eq!(open.insert(key, now), None, "opened twice");
                        }
                        IncidentChange::Closed(key, lasted) => {
                            prop_assert!(look.iter().all(|(seen, _)| *seen != key), "closed while it was there");
                            prop_assert_eq!(open.remove(&key).map(|since| now - since), Some(lasted));
                        }
                    }
                }
                prop_assert!(incidents.open().map(|(key, open)| (*key, open.since)).eq(open.clone()));
            }
            let cleared = incidents.clear(now).len();
            prop_assert_eq!(cleared, open.len());
            prop_assert!(incidents.is_empty());
        }
    }
}
