//! A client whose transaction begins with a statement that an order is about: it is refused, or waits in a lane.

use std::task::Context;

use super::Client;
use crate::error::Fault;
use crate::session::ordered::{blocked, digests};
use crate::wire::message::Request;

impl Client {
    /// ## Idle => (Leased | Waiting), in the lane of the first statement. True if there is a backend now.
    #[cold]
    pub(super) fn ask_as_ordered(&mut self, request: Request<'_>, cx: &mut Context<'_>) -> Result<bool, Fault> {
        if let Some(fault) = blocked(&self.worker, &self.session, request) {
            return Err(fault);
        }
        let first = digests(&self.worker, &self.session, request).and_then(|all| all.first().copied());
        let order = first.and_then(|first| self.worker.proxy.orders_of_statements.find(first));
        self.ask_in(order, cx)
    }
}
