//! The log of a transaction: it gets the server's answers in order, and reports the statements and the outcome of the
//! transaction to those that follow it.
//!
//! [`super::answers`] feeds it for a client and passes the events on to settings, pins, names and notifications;
//! [`super::cleanup`] feeds it for a client that has gone, of which only the notifications are left.

use super::reply_action::Runs;
use crate::wire::expected::TransactionStatus;

/// Tags of statements that cannot run in a transaction block. In a pipeline they commit what stands in front of them,
/// whatever fails behind. (`xact.c`, `PreventInTransactionBlock`.)
const COMMIT_AT_ONCE: [&[u8]; 9] = [
    b"ALTER SYSTEM",
    b"COMMIT PREPARED",
    b"CREATE DATABASE",
    b"CREATE TABLESPACE",
    b"DISCARD ALL",
    b"DROP DATABASE",
    b"DROP TABLESPACE",
    b"ROLLBACK PREPARED",
    b"VACUUM",
];

/// A follower of a transaction.
pub(super) trait TransactionFollower {
    /// One more statement of a text that was read has completed, with this tag; a suspended portal has an empty one.
    fn completed(&mut self, runs: &mut Runs, tag: &[u8]);

    /// A statement has completed with this tag, perhaps one of a text that was not read. `is_partial`: it was a
    /// ROLLBACK TO, whose tag is that of a ROLLBACK.
    fn tagged(&mut self, tag: &[u8], is_partial: bool);

    /// A cycle has ended outside a transaction: uncommitted changes are rolled back if `has_failed`, else committed.
    fn ended(&mut self, has_failed: bool);
}

/// State of the cycle under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum TransactionLog {
    /// No error was seen in it.
    #[default]
    Clean,
    /// The server answered it with an error.
    Failed,
}

impl TransactionLog {
    /// A statement has completed; `runs` are those of its text, if that was read and has effects.
    /// `status`: at the last ReadyForQuery.
    #[inline]
    pub(super) fn statement(
        self,
        runs: Option<&mut Runs>,
        tag: &[u8],
        status: TransactionStatus,
        follower: &mut impl TransactionFollower,
    ) {
        let (mut tag, mut is_partial) = (tag, false);
        if let Some(runs) = runs {
            runs.advance();
            if tag == b"ROLLBACK" && status != TransactionStatus::Failed && runs.prepares_transaction() {
                // There was no block: a warning, and the statements in front of it in the pipeline are committed.
                tag = b"COMMIT";
            }
            follower.completed(runs, tag);
            is_partial = runs.is_partial();
        }
        // ALTER SYSTEM, COMMIT, DEALLOCATE ALL, DISCARD ALL, ROLLBACK, VACUUM.
        if matches!(tag.first(), Some(b'A' | b'C' | b'D' | b'R' | b'V')) {
            follower.tagged(tag, is_partial);
            if COMMIT_AT_ONCE.contains(&tag) {
                follower.tagged(b"COMMIT", false);
            }
        }
    }

    /// ## Clean => Failed
    pub(super) fn error(&mut self) {
        *self = Self::Failed;
    }

    /// ## Failed => Clean: the cycle has ended, with this status.
    #[inline]
    pub(super) fn ready(&mut self, status: TransactionStatus, follower: &mut impl TransactionFollower) {
        let cycle = std::mem::take(self);
        if status == TransactionStatus::Idle {
            follower.ended(cycle == Self::Failed);
        }
    }
}
