//! SHOW ORDERS: orders that are in force, about single statements, roles and databases.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tokio::time::Instant;

use crate::admin::in_force::{self, OrderInForce};
use crate::admin::table::{ConsoleTable, columns, table};
use crate::admission::limiter::LimiterView;
use crate::lanes::orders::{OrderKind, StatementOrder};
use crate::proxy::Proxy;

pub(in crate::admin) const TABLE: ConsoleTable =
    table!("ORDERS", "orders in force about statements, roles and databases: who gave them, and when they end", lines,);

#[derive(Default)]
struct OrderLine {
    /// `None`: it is about no statement.
    digest: Option<String>,
    order: String,
    by: Option<String>,
    since: Option<u64>,
    /// `None`: until another order, or another value in the file.
    left: Option<u64>,
    lane: Option<LimiterView>,
    refused: Option<u64>,
    text: Option<String>,
    /// The role or database that it is about.
    target: Option<String>,
    addr: Option<String>,
}

columns! { OrderLine;
    "digest" text = |it| it.digest.as_ref(),
    "order" text = |it| &it.order,
    "by" text = |it| it.by.as_ref(),
    "since_seconds" long = |it| it.since,
    "left_seconds" long = |it| it.left,
    "active" int = |it| it.lane.as_ref().map(|lane| lane.active),
    "waiting" int = |it| it.lane.as_ref().map(|lane| lane.waiting),
    "refused" long = |it| it.refused,
    "statement" text = |it| it.text.as_ref(),
    "target" text = |it| it.target.as_ref(),
    "addr" text = |it| it.addr.as_ref(),
}

fn lines(proxy: &Proxy) -> Vec<OrderLine> {
    let now = Instant::now();
    let of_statements = proxy.lanes.orders.all().into_iter().map(|order| of_statement(proxy, &order, now));
    of_statements.chain(in_force::all(proxy).into_iter().map(in_general)).collect()
}

fn of_statement(proxy: &Proxy, order: &Arc<StatementOrder>, now: Instant) -> OrderLine {
    let (kind, lane) = match &order.kind {
        OrderKind::Block => ("block".to_owned(), None),
        OrderKind::Limit(most, lane) => (format!("limit {most}"), Some(*lane)),
    };
    OrderLine {
        digest: Some(order.digest.to_string()),
        order: kind,
        by: Some(order.by.to_string()),
        since: Some(now.saturating_duration_since(order.given).as_secs()),
        left: Some(order.until.saturating_duration_since(now).as_secs()),
        lane: lane.and_then(|lane| proxy.pools.core().role_queue(lane, now)).map(|lane| lane.limiter),
        refused: Some(order.refused.load(Ordering::Relaxed)),
        text: proxy.workload.as_ref().and_then(|workload| workload.text(order.digest)),
        ..OrderLine::default()
    }
}

fn in_general(order: OrderInForce) -> OrderLine {
    let now = SystemTime::now();
    let target = Some(order.name().to_owned());
    let (by, since, addr) = match order.given {
        Some(given) => {
            (Some(given.by), now.duration_since(given.at).ok().map(|since| since.as_secs()), Some(given.from))
        }
        None => (None, None, None),
    };
    let left = order.until.and_then(|until| until.duration_since(now).ok()).map(|left| left.as_secs());
    OrderLine { order: order.order, by, since, left, target, addr, ..OrderLine::default() }
}
