//! SHOW ORDERS: orders about single statements that are in force.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::admin::table::{ConsoleTable, columns, table};
use crate::admission::limiter::LimiterView;
use crate::lanes::orders::{OrderKind, StatementOrder};
use crate::proxy::Proxy;

pub(super) const TABLE: ConsoleTable =
    table!("ORDERS", "orders about single statements: who gave them, and when they end", lines,);

struct OrderLine {
    order: Arc<StatementOrder>,
    lane: Option<LimiterView>,
    since: u64,
    left: u64,
    text: Option<String>,
}

columns! { OrderLine;
    "digest" text = |it| it.order.digest.to_string(),
    "order" text = |it| kind(&it.order),
    "by" text = |it| &*it.order.by,
    "since_seconds" long = |it| it.since,
    "left_seconds" long = |it| it.left,
    "active" int = |it| it.lane.as_ref().map(|lane| lane.active),
    "waiting" int = |it| it.lane.as_ref().map(|lane| lane.waiting),
    "refused" long = |it| it.order.refused.load(Ordering::Relaxed),
    "statement" text = |it| it.text.as_ref(),
}

fn kind(order: &StatementOrder) -> String {
    match &order.kind {
        OrderKind::Block => "block".to_owned(),
        OrderKind::Limit(most, _) => format!("limit {most}"),
    }
}

fn lines(proxy: &Proxy) -> Vec<OrderLine> {
    let now = Instant::now();
    let line = |order: Arc<StatementOrder>| OrderLine {
        lane: match order.kind {
            OrderKind::Block => None,
            OrderKind::Limit(_, lane) => proxy.pools.core().role_queue(lane, now).map(|lane| lane.limiter),
        },
        since: now.saturating_duration_since(order.given).as_secs(),
        left: order.until.saturating_duration_since(now).as_secs(),
        text: proxy.workload.as_ref().and_then(|workload| workload.text(order.digest)),
        order,
    };
    proxy.lanes.orders.all().into_iter().map(line).collect()
}
