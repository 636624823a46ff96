//! The orders of operators that are in force: limits that differ from the file's, pauses, databases that take no
//! clients; each with its author, if it is known. For SHOW ORDERS, SHOW CONFIG and the status page.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::group;
use crate::orders::given::{GivenOrder, OrderTarget};
use crate::pool::core::RoleQueueView;
use crate::proxy::Proxy;

/// An order in force.
pub(super) struct OrderInForce {
    pub(super) target: OrderTarget,
    /// What it says, such as `LIMIT 10`.
    pub(super) order: String,
    /// The limit of the file, where the order is about one.
    pub(super) file: Option<Option<u32>>,
    /// `None`: nobody of whom this process knows.
    pub(super) given: Option<GivenOrder>,
    /// When a ramp will have arrived.
    pub(super) until: Option<SystemTime>,
}

impl OrderInForce {
    /// The name of the role or the database that it is about.
    pub(super) fn name(&self) -> &str {
        match &self.target {
            OrderTarget::Limit(name) | OrderTarget::Pause(Some(name)) | OrderTarget::Disable(name) => name,
            OrderTarget::Pause(None) => "*",
        }
    }
}

/// All of them, by role and database.
pub(super) fn all(proxy: &Proxy) -> Vec<OrderInForce> {
    let mut orders = limits(proxy);
    orders.extend(databases(proxy));
    orders
}

fn limits(proxy: &Proxy) -> Vec<OrderInForce> {
    let (config, now) = (proxy.config.load(), Instant::now());
    let of_role = |(role, view): (Arc<str>, RoleQueueView)| {
        let file = config.role(&role)?.limits.admission.transactions_max;
        let shown = view.observed.as_ref().map_or(&view.limiter, |(shown, _)| shown);
        let limit = shown.limit.filter(|limit| Some(*limit) != file)?;
        let target = OrderTarget::Limit(role.to_string());
        let until = shown.moves_until.map(|end| SystemTime::now() + end.saturating_duration_since(now));
        let given = proxy.given_orders.of(&target);
        Some(OrderInForce { target, order: format!("LIMIT {limit}"), file: Some(file), given, until })
    };
    group::role_queues(proxy, now).into_iter().filter_map(of_role).collect()
}

fn databases(proxy: &Proxy) -> Vec<OrderInForce> {
    let mut orders = Vec::new();
    for (name, id) in proxy.directory.all_databases() {
        let is_paused = proxy.pools.core().database(id).is_some_and(|view| view.is_paused);
        if is_paused {
            let (target, given) = (OrderTarget::Pause(Some(name.to_string())), proxy.given_orders.pause(&name));
            orders.push(OrderInForce { target, order: "PAUSE".to_owned(), file: None, given, until: None });
        }
        if proxy.directory.is_disabled(&name) {
            let target = OrderTarget::Disable(name.to_string());
            let given = proxy.given_orders.of(&target);
            orders.push(OrderInForce { target, order: "DISABLE".to_owned(), file: None, given, until: None });
        }
    }
    orders
}
