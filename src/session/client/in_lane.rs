//! A client whose transaction may belong to a lane, or begin with a statement that an order is about.

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use super::Client;
use crate::error::{Fault, LaneRefusal, OrderRefusal};
use crate::lanes::LaneOf;
use crate::pool::core::Bottleneck;
use crate::pool::lease::LeaseError;
use crate::session::lanes::{lane_of, order_fault};
use crate::wire::message::Request;

impl Client {
    /// ## Idle => (Leased | Waiting), in the lane of the first statement. True if there is a backend now.
    #[cold]
    pub(super) fn ask_in_lane(&mut self, request: Request<'_>, cx: &mut Context<'_>) -> Result<bool, Fault> {
        let lane = lane_of(&self.worker, &mut self.session, request)?;
        self.ask_in(lane, cx)
    }
}

/// The fault of a transaction that its lane holds back for good; `None`: it is not the lane that does.
pub(super) fn lane_fault(lane: &LaneOf, error: &LeaseError, waited: Duration) -> Option<Fault> {
    let (waiting, refusal, by_order) = match error {
        LeaseError::LaneFull { waiting } => (*waiting, LaneRefusal::Full, OrderRefusal::QueueFull),
        LeaseError::Shed { waiting, .. } => (*waiting, LaneRefusal::Slow, OrderRefusal::QueueFull),
        LeaseError::TimedOut(Bottleneck::Lane) => (0, LaneRefusal::InVain(waited), OrderRefusal::WaitedInVain),
        _ => return None,
    };
    Some(match lane {
        LaneOf::Order(order) => order_fault(order, by_order),
        LaneOf::File(lane) => Fault::Lane { refusal, lane: Arc::clone(&lane.name), waiting },
    })
}
