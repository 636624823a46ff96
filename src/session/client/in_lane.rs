//! A client whose transaction may belong to a lane, or begin with a statement that an order is about.

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use super::{Client, End, Phase};
use crate::error::{Fault, LaneRefusal, OrderRefusal};
use crate::lanes::LaneOf;
use crate::pool::core::Bottleneck;
use crate::pool::lease::LeaseError;
use crate::session::frontend;
use crate::session::lanes::{lane_of, order_fault};
use crate::wire::frame::{Piece, Walker};
use crate::wire::message::{Message, Request};

impl Client {
    /// ## Idle => (Leased | Waiting), in the lane of the first statement. True if there is a backend now.
    #[cold]
    pub(super) fn ask_in_lane(&mut self, request: Request<'_>, cx: &mut Context<'_>) -> Result<bool, Fault> {
        let lane = lane_of(&self.worker, &mut self.session, request)?;
        self.ask_in(lane, cx)
    }

    /// ## Waiting => (Waiting | Leased | Idle): an order came while it waited, and may be about its statement. True if
    /// it waits no longer as it did.
    ///
    /// Such clients were many when the order was given: all who ran into the statement before. A backend that was
    /// handed to one of them goes to the next in the queue.
    #[cold]
    pub(super) fn obey_new_order(&mut self, cx: &mut Context<'_>, copy: &mut Vec<u8>) -> Result<bool, End> {
        let Phase::Waiting(waiting) = &self.phase else { return Ok(false) };
        let since = waiting.since;
        let mut input = &self.held[..];
        let mut walker = Walker::default();
        let head = walker.next(&mut input, frontend::want)?;
        let Some(Piece::Head { tag, body, bytes, fresh }) = head else { return Ok(false) };
        let lane = match lane_of(&self.worker, &mut self.session, Message { tag, body, bytes, fresh }.request()?) {
            Ok(Some(lane @ LaneOf::Order(_))) => lane,
            Ok(_) => return Ok(false),
            Err(fault) => return self.fail_waiting(&fault, cx).map(|()| true),
        };
        self.phase = Phase::Idle;
        match self.ask_in(Some(lane), cx) {
            Ok(true) => {
                let held = std::mem::take(&mut self.held);
                self.take_in(&held, copy, cx)?;
            }
            Ok(false) => {
                if let Phase::Waiting(waiting) = &mut self.phase {
                    waiting.since = since;
                }
            }
            Err(fault) => self.fail_waiting(&fault, cx)?,
        }
        Ok(true)
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
