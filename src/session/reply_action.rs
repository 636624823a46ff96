//! Actions to take on the answers to outstanding messages, kept beside the expected replies.

use std::sync::Arc;

use super::statements::Undo;
use crate::notify::notification::Notification;
use crate::sql::{Effect, StateFlags, StatementEffects};
use crate::state::settings::Settings;
use crate::state::statements::Statement;

/// The action to take on the answer to one outstanding message.
#[derive(Debug)]
pub(crate) enum ReplyAction {
    /// A Query or Execute whose statements change the session.
    Runs(Box<Runs>),
    /// A Query of this many statements that do not change the session.
    Several(u32),
    /// A Parse: the backend has the statement unless it fails or is dropped.
    Parses {
        /// The shared statement; `None` for the unnamed one.
        statement: Option<Arc<Statement>>,
        /// Undoes the client's new name.
        undo: Option<Box<Undo>>,
    },
    /// Our Close of a statement that had to make room.
    Evicts(u32),
    /// Our Close of a statement that must be parsed afresh.
    Outdated(u32),
    /// An answer of ours.
    Answers {
        /// Frames to send.
        frames: &'static [u8],
        /// Undoes the client's change of names.
        undo: Option<Box<Undo>>,
    },
    /// The message was sent to fail; the client gets this error instead of the backend's.
    Refuses(Box<[u8]>),
    /// A Bind or Describe of this shared statement.
    Uses(u32),
    /// Our replay of settings; `None` for the encoding that the rest of it is written in.
    Applies(Option<Settings>),
    /// Our probe for state that a session left behind.
    Probes(StateFlags),
    /// Our DISCARD ALL.
    Resets,
}

/// Statements under way.
#[derive(Debug)]
pub(crate) struct Runs {
    pub class: Arc<StatementEffects>,
    /// Number of statements that have completed.
    pub completed: u32,
    /// Undoes a DEALLOCATE of the client's own names, for which a stand-in was sent.
    pub undo: Option<Box<Undo>>,
    /// The arguments that a `pg_notify` with parameters was given.
    pub given: Option<Notification>,
}

impl Runs {
    /// None of them has completed yet.
    pub(crate) fn new(class: Arc<StatementEffects>) -> Self {
        Self { class, completed: 0, undo: None, given: None }
    }

    /// One more of them has completed.
    pub(crate) fn advance(&mut self) {
        self.completed += 1;
    }

    /// Effects of the statement that completed last.
    pub(crate) fn done(&self) -> impl Iterator<Item = &Effect> {
        self.class.effects.iter().filter(|(at, _)| at + 1 == self.completed).map(|(_, effect)| effect)
    }

    /// True if the statement that completed last was a ROLLBACK TO, whose tag is that of a ROLLBACK.
    pub(crate) fn is_partial(&self) -> bool {
        self.done().any(|effect| matches!(effect, Effect::RollbackTo(_)))
    }

    /// True if the statement that completed last was a stand-in for one that lists the channels listened to.
    pub(crate) fn lists_channels(&self) -> bool {
        self.class.stands_in && self.done().any(|effect| matches!(effect, Effect::ListeningChannels))
    }

    /// The CommandComplete to show for the statement that completed last, if a stand-in ran with another.
    pub(crate) fn tag(&self) -> Option<&'static [u8]> {
        if let Some((_, tag)) = self.class.tags.iter().find(|(at, _)| at + 1 == self.completed) {
            return Some(tag);
        }
        if !self.class.stands_in && self.undo.is_none() {
            return None;
        }
        self.done().find_map(Effect::stand_in_tag)
    }
}
