//! A client whose transaction begins with a statement that an order is about: it is refused, or passes a lane.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::{Client, End, Phase, Waiting, WaitingFor};
use crate::admission::lane_gate::LaneEntry;
use crate::error::{Fault, OrderRefusal};
use crate::lanes::orders::OrderKind;
use crate::metrics::PoolHistogram;
use crate::pool::lease::Ask;
use crate::session::context::Buffers;
use crate::session::ordered::{blocked, digests, refused};
use crate::wire::message::Request;

impl Client {
    /// ## Idle => Waiting, where the lane of the first statement is full. True if the client may ask for a backend.
    #[cold]
    pub(super) fn pass_orders(&mut self, request: Request<'_>, cx: &mut Context<'_>) -> Result<bool, Fault> {
        if let Some(fault) = blocked(&self.worker, &self.session, request) {
            return Err(fault);
        }
        let Some(first) = digests(&self.worker, &self.session, request).and_then(|all| all.first().copied()) else {
            return Ok(true);
        };
        let Some(order) = self.worker.proxy.orders_of_statements.find(first) else { return Ok(true) };
        let OrderKind::Limit(_, gate) = &order.kind else { return Ok(true) };
        let now = Instant::now();
        match gate.enter(now, cx) {
            LaneEntry::Starts(permit) => {
                self.permit = Some(permit);
                Ok(true)
            }
            LaneEntry::Waits(ticket) => {
                let place = WaitingFor::Lane(ticket, Arc::clone(&order));
                self.phase = Phase::Waiting(Waiting { place, since: now });
                self.handle.set_waiting();
                Ok(false)
            }
            LaneEntry::Full => Err(refused(&order, OrderRefusal::QueueFull)),
        }
    }

    /// ## Waiting => (Waiting | Leased | Idle): the lane lets it in, and it asks for a backend.
    pub(super) fn wait_in_lane(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Result<(), End> {
        let Phase::Waiting(Waiting { place: WaitingFor::Lane(ticket, order), since }) = &mut self.phase else {
            return Ok(());
        };
        let since = *since;
        match ticket.poll(cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(None) => {
                let fault = refused(order, OrderRefusal::WaitedInVain);
                return self.fail_waiting(&fault, cx);
            }
            Poll::Ready(Some(permit)) => self.permit = Some(permit),
        }
        let now = Instant::now();
        match self.worker.proxy.pools.lease(&self.session.pool, self.worker.id, now, cx) {
            Ok(Ask::Leased(lease)) => {
                self.session.pool.stats.worker(self.worker.id).record(PoolHistogram::Wait, now - since);
                self.begin_lease(lease, now, now - since);
                let held = std::mem::take(&mut self.held);
                self.take_in(&held, &mut buffers.copy, cx)
            }
            Ok(Ask::Waits(waiter)) => {
                self.phase = Phase::Waiting(Waiting { place: WaitingFor::Backend(waiter), since });
                Ok(())
            }
            Err(error) => {
                let fault = self.lease_fault(error, now - since);
                self.fail_waiting(&fault, cx)
            }
        }
    }
}
