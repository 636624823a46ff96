//! Statements of ours in front of one of the client.

use std::sync::atomic::Ordering;

use super::{DISCARD_SEQUENCES, FAILING_NOTIFY, Frontend};
use crate::error::{Fault, Holding};
use crate::pool::backend::SequenceUser;
use crate::session::prepare::execute_own;
use crate::session::reply_action::ReplyAction;
use crate::sql::{Effect, StatementEffects};
use crate::state::settings::cost;
use crate::wire::build;
use crate::wire::expected::{Expect, TransactionStatus};

/// Bytes that the settings of one client may take, those of the transaction under way included: each change costs time
/// in proportion.
const SETTINGS_BYTES_MAX: usize = 256 * 1024;

impl Frontend<'_, '_> {
    /// `lastval` and `currval` answer with values of this client, or as in a session that has called no `nextval`.
    pub(super) fn leave_sequences(&mut self, class: &StatementEffects, is_query: bool) {
        if !class.reads_sequence || self.session.keeps_own_names() {
            return;
        }
        self.session.pool.reads_sequences.store(true, Ordering::Relaxed);
        if self.session.knows_sequences() {
            return;
        }
        self.leased.lease.sequences = SequenceUser::One(self.session.entry.pid);
        self.session.knows_sequences = Some(true);
        if is_query {
            self.leased.cycle.query(self.out.buffer(), DISCARD_SEQUENCES, ReplyAction::Assumes);
        } else {
            execute_own(DISCARD_SEQUENCES, self.leased, self.out);
        }
    }

    /// Reason why a text with stand-ins for notifications cannot run now.
    pub(super) fn unnotifiable(&self, class: &StatementEffects) -> Option<Fault> {
        let notifications = &self.session.notifications;
        if class.stands_in && class.listens() && notifications.has_too_many_channels() {
            return Some(Fault::HoldsTooMuch(Holding::Channels));
        }
        (class.stands_in && class.notifies() && (notifications.is_full() || notifications.exchange().refuses()))
            .then_some(Fault::TooManyNotifications)
    }

    /// Reason why a text may change no more settings.
    pub(super) fn oversized(&self, class: &StatementEffects) -> Option<Fault> {
        let cost = |(_, effect): &(u32, Effect)| match effect {
            Effect::Set { setting, .. } => cost(&setting.name, &setting.value),
            _ => 0,
        };
        let more: usize = class.effects.iter().map(cost).sum();
        let held = || self.session.settings.bytes() + self.session.follow.as_ref().map_or(0, |follow| follow.bytes());
        (more > 0 && held() + more > SETTINGS_BYTES_MAX).then_some(Fault::HoldsTooMuch(Holding::Settings))
    }

    /// PREPARE TRANSACTION must fail after statements that the backend never saw: the backend gets a NOTIFY of ours
    /// then.
    pub(super) fn fail_prepare(&mut self, class: &StatementEffects) {
        if self.must_fail(class) {
            self.leased.cycle.expect_own(Expect::Query, None);
            build::query(self.out.buffer(), FAILING_NOTIFY);
        }
    }

    /// The same as [`Self::fail_prepare`], within the extended protocol.
    pub(super) fn fail_unit(&mut self, class: &StatementEffects) {
        if !self.must_fail(class) {
            return;
        }
        execute_own(FAILING_NOTIFY, self.leased, self.out);
    }

    fn must_fail(&self, class: &StatementEffects) -> bool {
        class.prepares_transaction()
            && self.leased.cycle.status_under_way() != TransactionStatus::Failed
            && self.session.notifications.has_pending()
    }

    /// True if a PREPARE TRANSACTION has to wait: whether the transaction has notified is known once everything in
    /// front of it is answered.
    pub(super) fn waits_to_prepare(&self, class: &StatementEffects) -> bool {
        let replies = self.leased.cycle.replies();
        class.prepares_transaction() && !replies.is_empty() && !replies.is_copying_in() && !replies.is_skipping()
    }
}
