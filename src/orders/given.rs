//! The authors of orders that may be in force: who gave each, from where and when. Whether one is in force is said by
//! what it is about: a limiter, a pause.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

/// The part of the process that an order changes until another one comes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OrderTarget {
    /// The limit of a role.
    Limit(String),
    /// The leases of a database, or of all.
    Pause(Option<String>),
    /// New clients of a database.
    Disable(String),
}

/// The effect of a command on the orders in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OrderMark {
    Begins(OrderTarget),
    Ends(OrderTarget),
}

/// An order, and its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GivenOrder {
    /// As it was typed.
    pub(crate) typed: String,
    pub(crate) by: String,
    pub(crate) from: String,
    pub(crate) at: SystemTime,
}

/// The last order about each target. Names in it exist, so there are no more than of these.
#[derive(Debug, Default)]
pub(crate) struct GivenOrders(Mutex<BTreeMap<OrderTarget, GivenOrder>>);

impl GivenOrders {
    pub(crate) fn mark(&self, mark: OrderMark, order: GivenOrder) {
        let mut given = self.given();
        match mark {
            OrderMark::Begins(target) => drop(given.insert(target, order)),
            OrderMark::Ends(OrderTarget::Pause(None)) => {
                given.retain(|target, _| !matches!(target, OrderTarget::Pause(_)));
            }
            OrderMark::Ends(target) => drop(given.remove(&target)),
        }
    }

    /// The author of the pause of a database: of its own, or of that of all.
    pub(crate) fn pause(&self, database: &str) -> Option<GivenOrder> {
        let own = self.of(&OrderTarget::Pause(Some(database.to_owned())));
        own.or_else(|| self.of(&OrderTarget::Pause(None)))
    }

    pub(crate) fn of(&self, target: &OrderTarget) -> Option<GivenOrder> {
        self.given().get(target).cloned()
    }

    fn given(&self) -> MutexGuard<'_, BTreeMap<OrderTarget, GivenOrder>> {
        self.0.lock().expect("no panic while held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(by: &str) -> GivenOrder {
        GivenOrder { typed: String::new(), by: by.to_owned(), from: String::new(), at: SystemTime::UNIX_EPOCH }
    }

    #[test]
    fn the_last_order_about_a_target_counts_until_one_ends_it() {
        let given = GivenOrders::default();
        let limit = || OrderTarget::Limit("web".to_owned());
        given.mark(OrderMark::Begins(limit()), order("anna"));
        given.mark(OrderMark::Begins(limit()), order("ben"));
        assert_eq!(given.of(&limit()).map(|order| order.by), Some("ben".to_owned()));
        given.mark(OrderMark::Ends(limit()), order("anna"));
        assert_eq!(given.of(&limit()), None);
    }

    #[test]
    fn a_pause_of_all_is_that_of_each_and_its_end_the_end_of_all() {
        let given = GivenOrders::default();
        let by = |database: &str| given.pause(database).map(|order| order.by);
        given.mark(OrderMark::Begins(OrderTarget::Pause(None)), order("anna"));
        given.mark(OrderMark::Begins(OrderTarget::Pause(Some("app".to_owned()))), order("ben"));
        assert_eq!((by("app").as_deref(), by("other").as_deref()), (Some("ben"), Some("anna")));
        given.mark(OrderMark::Ends(OrderTarget::Pause(None)), order("ben"));
        assert_eq!((by("app"), by("other")), (None, None));
    }
}
