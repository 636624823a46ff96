//! Refusals for lack of capacity. Everything that the client sent before it can have seen the error is refused with it,
//! so that a transaction that was sent in one go runs as a whole or not at all.
//!
//! The error is held back while more of the client's messages are in hand: its socket is read until it is dry. For each
//! Query the client gets the error and a ReadyForQuery, in the extended protocol the error once up to Sync.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use super::{Client, End, Fed};
use crate::error::Fault;
use crate::error::sqlstate;
use crate::wire::build;
use crate::wire::frame::HEADER_LEN;
use crate::wire::message::is_cycle;
use crate::wire::tag::frontend as tag;

/// Longest wait for the rest of a message of which a part has come. A client that sends a long transaction is read to
/// its end; one that never ends its message gets its error all the same.
const PATIENCE: Duration = Duration::from_millis(100);

/// A refusal under way.
#[derive(Debug)]
pub(super) struct CapacityRefusal {
    /// The ErrorResponse that answers every message.
    error: Box<[u8]>,
    code: Cow<'static, str>,
    /// The client may have seen an error already, because too much was owed to it.
    is_told: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// More messages of the client may be in hand.
    Draining,
    /// The socket is dry in the middle of a message, and its rest is waited for.
    Partial(Pin<Box<Sleep>>),
    /// The client has its errors, and the next message had begun before.
    Last,
}

impl CapacityRefusal {
    /// True while nothing is written to the client.
    pub(super) fn is_held_back(&self) -> bool {
        !self.is_told
    }
}

impl Client {
    /// Answers a message with an error for lack of capacity, and begins to refuse everything behind it that is in hand.
    pub(super) fn begin_refusal(&mut self, tag: u8, fault: &Fault) {
        let report = sqlstate::report(fault);
        let mut error = Vec::new();
        build::error_response(&mut error, &report);
        self.refuse_in_hand(tag, error.into(), report.code);
    }

    /// Answers a message with the frame of an error of the server, and begins to refuse everything behind it.
    pub(super) fn begin_refusal_with(&mut self, tag: u8, error: Box<[u8]>) {
        let code = String::from_utf8_lossy(build::error_fields(&error[HEADER_LEN..]).code).into_owned();
        self.refuse_in_hand(tag, error, code.into());
    }

    fn refuse_in_hand(&mut self, tag: u8, error: Box<[u8]>, code: Cow<'static, str>) {
        self.refusal = Some(Box::new(CapacityRefusal { error, code, is_told: false, stage: Stage::Draining }));
        self.refuse(tag);
    }

    /// Refuses one more message, if a refusal is under way.
    pub(super) fn is_refused(&mut self, tag: u8) -> bool {
        let Some(refusal) = &self.refusal else { return false };
        let is_last = matches!(refusal.stage, Stage::Last);
        self.refuse(tag);
        if is_last {
            self.refusal = None;
        }
        true
    }

    fn refuse(&mut self, message: u8) {
        let status = self.status();
        let Some(refusal) = &self.refusal else { return };
        self.is_unsynced = false;
        let out = self.side.buffer.bytes();
        match message {
            tag::SYNC => build::ready_for_query(out, status),
            tag::FLUSH | tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => {}
            message => {
                self.worker.proxy.errors.count(&refusal.code);
                out.extend_from_slice(&refusal.error);
                if is_cycle(message) {
                    build::ready_for_query(out, status);
                } else {
                    self.is_discarding = true;
                }
            }
        }
    }

    /// Ends the refusal under way, or goes on with it, after a read from the client with this outcome. True if
    /// something moved.
    ///
    /// ## Draining => Partial => (Draining | Last)
    pub(super) fn drain(&mut self, fed: Fed, cx: &mut Context<'_>) -> Result<bool, End> {
        let (is_whole, is_inside) = (self.side.is_at_boundary(), self.side.is_inside());
        let Some(refusal) = &mut self.refusal else { return Ok(false) };
        match fed {
            Fed::Moved => {
                refusal.stage = Stage::Draining;
                return Ok(true);
            }
            // The client has to read before more of its messages are.
            Fed::Blocked => refusal.is_told = true,
            Fed::Dry if is_whole && self.stream.has_input() => {
                // The reactor has not seen it yet.
                cx.waker().wake_by_ref();
                return Ok(false);
            }
            Fed::Dry if is_whole => self.refusal = None,
            Fed::Dry => {
                if let Stage::Draining = refusal.stage {
                    refusal.stage = Stage::Partial(Box::pin(sleep(PATIENCE)));
                }
                if let Stage::Partial(patience) = &mut refusal.stage
                    && patience.as_mut().poll(cx).is_pending()
                {
                    return Ok(false);
                }
                if is_inside {
                    // Its head was refused, and its rest is left out.
                    self.refusal = None;
                } else {
                    refusal.is_told = true;
                    refusal.stage = Stage::Last;
                }
            }
        }
        self.flush(cx)?;
        // The backend was not read while the errors were held back.
        Ok(self.refusal.is_none())
    }
}
