//! A backend in the hands of one client: the lease, and all accounting that ends with it.

use std::io;
use std::sync::Arc;
use std::task::Context;

use super::cycle::CycleState;
use super::reply_action::ReplyAction;
use super::statements::ClientStatements;
use crate::clients::PinSlot;
use crate::config::duration_text;
use crate::lanes::LaneOf;
use crate::pool::backend::{Backend, BackendHandle};
use crate::pool::core::RoleQueueId;
use crate::pool::lease::Lease;
use crate::state::settings::{AT_ONCE, DEFERRABLE};
use crate::state::timeout::Timeout;

/// Takes a session back to what it was after login.
pub(crate) const RESET: &[u8] = b"DISCARD ALL";

/// Ends the state that `DISCARD ALL` leaves and that can be ended: the sequence of `random()`, connections of `dblink`
/// wherever it is installed, temporary replication slots.
pub(crate) const END_KEPT: &[u8] = b"DO $pgweir$
DECLARE home text; name text;
BEGIN
    PERFORM pg_catalog.setseed(pg_catalog.date_part('microseconds', pg_catalog.clock_timestamp()) \
        OPERATOR(pg_catalog./) 60000000::pg_catalog.float8);
    PERFORM pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_get_replication_slots()
        WHERE temporary AND active_pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid();
    SELECT extnamespace::pg_catalog.regnamespace::pg_catalog.text INTO home FROM pg_catalog.pg_extension
        WHERE extname OPERATOR(pg_catalog.=) 'dblink'::pg_catalog.name;
    IF home IS NOT NULL THEN
        FOR name IN EXECUTE pg_catalog.format('SELECT pg_catalog.unnest(%s.dblink_get_connections())', home) LOOP
            EXECUTE pg_catalog.format('SELECT %s.dblink_disconnect(%L)', home, name);
        END LOOP;
        BEGIN
            EXECUTE pg_catalog.format('SELECT %s.dblink_disconnect()', home);
        EXCEPTION WHEN connection_does_not_exist THEN
            NULL;
        END;
    END IF;
END $pgweir$";

/// See [`DEFERRABLE`].
const RESET_DEFERRABLE: &[u8] = b"RESET default_transaction_deferrable";

/// A transaction's membership of a lane, for as long as the lease lasts.
#[derive(Debug)]
pub(crate) struct InLane {
    of: LaneOf,
    /// Whose clock keeps the time of the lane's statements.
    target: Arc<BackendHandle>,
}

impl InLane {
    pub(super) fn begin(of: LaneOf, target: &Arc<BackendHandle>) -> Self {
        target.clock.set_lane(of.statement_timeout());
        Self { of, target: Arc::clone(target) }
    }
}

impl Drop for InLane {
    fn drop(&mut self) {
        self.target.clock.set_lane(None);
    }
}

/// State of a client that holds a backend, with the backend itself.
#[derive(Debug)]
pub(crate) struct Leased {
    pub lease: Lease,
    /// Outstanding answers, and the position in the backend's messages.
    pub(super) cycle: Box<CycleState>,
    /// Its place among the pinned clients of its role, while it keeps the backend between transactions.
    pub(super) pin: Option<Box<PinSlot>>,
    /// The lane of its transaction.
    pub lane: Option<Box<InLane>>,
}

impl Leased {
    /// Nothing is under way between the backend and its client, and no transaction is open.
    pub(super) fn is_at_rest(&self) -> bool {
        self.cycle.can_release()
            && !self.cycle.holds_client()
            && self.cycle.backend.is_at_rest()
            && !self.cycle.is_throttled
    }

    #[inline]
    pub(crate) fn backend(&mut self) -> &mut Backend {
        &mut self.lease
    }

    /// The name of that lane in a recording.
    pub(super) fn lane_name(&self) -> Option<&str> {
        match &self.lane.as_ref()?.of {
            LaneOf::File(lane) => Some(&lane.name),
            LaneOf::Order(_) => None,
        }
    }

    /// The lane of its transaction.
    pub(super) fn lane_id(&self) -> Option<RoleQueueId> {
        self.lane.as_ref()?.of.id()
    }

    /// A HINT that names the lane that bounds a statement, if one does.
    pub(super) fn lane_hint(&self, timeout: Timeout) -> Option<String> {
        let LaneOf::File(lane) = &self.lane.as_ref()?.of else { return None };
        let limit = lane.statement_timeout.filter(|_| timeout == Timeout::Statement)?;
        Some(format!("lanes.{}.statement_timeout = {} in pgweir's configuration.", lane.name, duration_text(limit)))
    }

    /// Sends to the backend, behind the bytes that wait already.
    #[inline]
    pub(crate) fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        self.cycle.backend.buffer.send(cx, &mut self.lease.stream, bytes)
    }

    /// Sends a Query of ours.
    pub(crate) fn ask(&mut self, cx: &mut Context<'_>, sql: &[u8], action: ReplyAction) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.cycle.query(&mut bytes, sql, action);
        self.send(cx, &bytes)
    }

    /// Sends what takes the session back to its login. No statement runs with it, so a default that would make it wait
    /// is reset before it. `ends_kept`: so is the state that it leaves.
    pub(crate) fn reset(&mut self, cx: &mut Context<'_>, ends_kept: bool) -> io::Result<()> {
        if self.may_wait_for_snapshot() {
            self.ask(cx, RESET_DEFERRABLE, ReplyAction::Applies(None))?;
        }
        if ends_kept {
            // A refusal of it counts against the reset.
            self.ask(cx, RESET, ReplyAction::Applies(None))?;
            return self.ask(cx, END_KEPT, ReplyAction::Resets);
        }
        self.ask(cx, RESET, ReplyAction::Resets)
    }

    /// True if a transaction begun by default may wait for others at its first snapshot.
    fn may_wait_for_snapshot(&self) -> bool {
        self.lease.applied.values().contains_key(DEFERRABLE)
    }

    /// Sends a question of ours to the backend of the client that has these statements.
    pub(crate) fn question(
        &mut self,
        cx: &mut Context<'_>,
        statements: &mut ClientStatements,
        sql: &[u8],
        action: ReplyAction,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        if self.may_wait_for_snapshot() {
            statements.leave_unnamed();
            self.cycle.query(&mut bytes, &[AT_ONCE, sql].concat(), action);
        } else {
            self.cycle.question(&mut bytes, sql, action);
        }
        self.send(cx, &bytes)
    }

    /// Sends the bytes that the backend's socket did not take.
    #[inline]
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.cycle.backend.buffer.flush(cx, &mut self.lease.stream)
    }
}
