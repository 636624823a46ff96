//! SHOW FLEET_ORDERS: what LIMIT and RAMP have set over the fleet.

use std::time::{Duration, SystemTime};

use super::format::time;
use crate::admin::table::{ConsoleTable, columns, table};
use crate::fleet::lease::engine::KeptOrder;
use crate::fleet::lease::order::RoleOrder;
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable =
    table!("FLEET_ORDERS", "the last LIMIT or RAMP of each role over the fleet: who gave it, and when", lines);

struct FleetOrderLine {
    role: String,
    order: RoleOrder,
    since: SystemTime,
}

columns! { FleetOrderLine;
    "role" text = |it| &it.role,
    "order" text = |it| it.order.change.to_string(),
    "user" text = |it| &it.order.by,
    "addr" text = |it| &it.order.from,
    "instance_addr" text = |it| &it.order.at,
    "since" text = |it| time(it.since),
    "until" text = |it| Some(it.order.change.over()).filter(|over| !over.is_zero()).map(|over| time(it.since + over)),
}

fn lines(proxy: &Proxy) -> Vec<FleetOrderLine> {
    let orders = proxy.leases.as_ref().map(|leases| leases.orders()).unwrap_or_default();
    let line = |(role, kept): (String, KeptOrder)| {
        let since = SystemTime::UNIX_EPOCH + Duration::from_millis(kept.since);
        Some(FleetOrderLine { role, order: RoleOrder::read(&kept.text)?, since })
    };
    orders.into_iter().filter_map(line).collect()
}
