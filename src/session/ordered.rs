//! Orders about single statements, as they hold for a client's messages.

use std::sync::atomic::Ordering;

use super::context::Worker;
use super::session::Session;
use crate::error::{Fault, OrderRefusal};
use crate::lanes::orders::{OrderKind, StatementOrder};
use crate::sql::Digests;
use crate::wire::message::Request;

/// The digests of the statements that a message brings or runs; `None`: it runs none, or nobody counts.
pub(super) fn digests(worker: &Worker, session: &Session, request: Request<'_>) -> Option<Digests> {
    let recorder = worker.recorder.as_ref()?;
    let digest = match request {
        Request::Query { text: Some(text) } | Request::Parse { text: Some(text), .. } => {
            return Some(recorder.digests(text, session.lexer, worker.proxy.clock.second()));
        }
        Request::Bind { statement: b"", .. } => session.statements.unnamed_digest(),
        Request::Bind { statement, .. } => session.statements.find(statement)?.digest,
        _ => return None,
    };
    Some(Digests::from_elem(digest, 1))
}

/// The fault of a message with a statement that is blocked.
#[cold]
pub(super) fn blocked(worker: &Worker, session: &Session, request: Request<'_>) -> Option<Fault> {
    let orders = digests(worker, session, request)?
        .into_iter()
        .filter_map(|digest| worker.proxy.orders_of_statements.find(digest));
    let block = orders.into_iter().find(|order| matches!(order.kind, OrderKind::Block))?;
    Some(refused(&block, OrderRefusal::Blocked))
}

/// The fault of a statement that an order refuses.
pub(super) fn refused(order: &StatementOrder, refusal: OrderRefusal) -> Fault {
    order.refused.fetch_add(1, Ordering::Relaxed);
    Fault::Ordered { refusal, digest: order.digest, by: order.by.clone() }
}
