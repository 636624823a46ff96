//! Lanes and orders about single statements, as they hold for a client's messages.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::context::Worker;
use super::session::Session;
use crate::config::LaneMode;
use crate::error::{Fault, LaneRefusal, OrderRefusal};
use crate::lanes::orders::{OrderKind, StatementOrder};
use crate::lanes::{ClientLanes, LaneCaller, LaneOf, LaneSubject};
use crate::pool::core::RoleQueueId;
use crate::sql::Digests;
use crate::wire::message::Request;

/// The digests of the statements that a message brings or runs; `None`: it runs none, or nobody counts.
pub(super) fn digests(worker: &Worker, session: &Session, request: Request<'_>) -> Option<Digests> {
    let recorder = worker.recorder.as_ref()?;
    let digest = match request {
        Request::Query { text: Some(text) } | Request::Parse { text: Some(text), .. } => {
            return Some(recorder.glance(text, session.lexer, worker.proxy.clock.second()).digests);
        }
        Request::Bind { statement: b"", .. } => session.statements.unnamed_digest(),
        Request::Bind { statement, .. } => session.statements.find(statement)?.digest,
        _ => return None,
    };
    Some(Digests::from_elem(digest, 1))
}

/// The text of the statements that a message brings or runs.
fn text<'a>(session: &'a Session, request: Request<'a>) -> &'a [u8] {
    let text = match request {
        Request::Query { text: Some(text) } | Request::Parse { text: Some(text), .. } => text,
        Request::Bind { statement: b"", .. } => session.statements.unnamed_text(),
        Request::Bind { statement, .. } => session.statements.find(statement).map_or(&[][..], |found| &found.rest),
        _ => &[],
    };
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The lane of a transaction that begins with this message; the fault, if an order refuses it.
#[cold]
pub(super) fn lane_of(worker: &Worker, session: &mut Session, request: Request<'_>) -> Result<Option<LaneOf>, Fault> {
    let orders = &worker.proxy.lanes.orders;
    let mut all = None;
    if orders.is_any() {
        all = digests(worker, session, request);
        let digests = all.iter().flatten();
        if let Some(block) = digests.clone().filter_map(|digest| orders.find(*digest)).find(|order| is_block(order)) {
            return Err(order_fault(&block, OrderRefusal::Blocked));
        }
        if let Some(limit) = digests.take(1).find_map(|digest| orders.find(*digest)) {
            return Ok(Some(LaneOf::Order(limit)));
        }
    }
    let lanes = client_lanes(worker, session);
    if lanes.looks_at_statements() && all.is_none() {
        all = digests(worker, session, request);
    }
    let subject = LaneSubject { digests: all.as_deref().unwrap_or_default(), text: text(session, request) };
    Ok(lanes.find(&subject).map(|lane| LaneOf::File(Arc::clone(lane))))
}

/// The fault of a message with a statement that an order blocks, or a lane other than that of its transaction refuses.
#[cold]
pub(super) fn refused(
    worker: &Worker,
    session: &mut Session,
    own: Option<RoleQueueId>,
    request: Request<'_>,
) -> Option<Fault> {
    let orders = &worker.proxy.lanes.orders;
    let lanes = client_lanes(worker, session);
    let all = digests(worker, session, request);
    let block = all.iter().flatten().filter_map(|digest| orders.find(*digest)).find(|order| is_block(order));
    if let Some(block) = block {
        return Some(order_fault(&block, OrderRefusal::Blocked));
    }
    let text = text(session, request);
    if text.is_empty() {
        return None;
    }
    let lane = lanes.later(own, &LaneSubject { digests: all.as_deref().unwrap_or_default(), text })?;
    if worker.proxy.pools.core().has_room_in_lane(lane.id, tokio::time::Instant::now()) {
        return None;
    }
    lane.refused_later.fetch_add(1, Ordering::Relaxed);
    let fault = || Fault::Lane { refusal: LaneRefusal::Later, lane: Arc::clone(&lane.name), waiting: 0 };
    (lane.mode == LaneMode::Refuse).then(fault)
}

fn is_block(order: &StatementOrder) -> bool {
    matches!(order.kind, OrderKind::Block)
}

/// The fault of a statement that an order refuses.
pub(super) fn order_fault(order: &StatementOrder, refusal: OrderRefusal) -> Fault {
    order.refused.fetch_add(1, Ordering::Relaxed);
    Fault::Ordered { refusal, digest: order.digest, by: order.by.clone() }
}

/// The lanes that this client's transactions may be in, looked up once for each configuration.
fn client_lanes(worker: &Worker, session: &mut Session) -> Arc<ClientLanes> {
    let lanes = &worker.proxy.lanes;
    if let Some(known) = session.lanes.as_ref().filter(|known| lanes.is_current(known)) {
        return Arc::clone(known);
    }
    let entry = &session.entry;
    let caller = LaneCaller {
        role: &entry.role,
        database: &entry.database,
        application_name: &entry.application_name,
        address: entry.addr.parse::<SocketAddr>().ok().map(|address| address.ip()),
    };
    let found = Arc::new(lanes.of_client(&caller));
    session.lanes = Some(Arc::clone(&found));
    found
}
