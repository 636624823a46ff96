//! Actions to take on the answers to outstanding messages, kept beside the expected replies.

use std::borrow::Cow;
use std::sync::Arc;

use super::statements::{Undo, UnnamedParse};
use super::unknown_settings::UnknownSettings;
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
        statement: Arc<Statement>,
        /// Undoes the client's new name.
        undo: Option<Box<Undo>>,
    },
    /// A Parse of the unnamed statement.
    ParsesUnnamed(UnnamedParse),
    /// Our Parse of the client's unnamed statement.
    BringsUnnamed,
    /// Our Describe of a statement that the client has just parsed under this name.
    Analyses(Box<Analyses>),
    /// Our Describe of a statement that the client parsed elsewhere.
    Verifies(Arc<Statement>),
    /// A query of ours around that Describe, which lets it happen under the settings of the client's Parse.
    Assumes,
    /// The last message of ours about that statement: the client goes on.
    Prepared(Arc<Statement>),
    /// A Parse or Close of the client under its own name; undone if it is dropped.
    Renames(Option<Box<Undo>>),
    /// A Close of a statement of SQL PREPARE with this name.
    ClosesOfSql(Box<[u8]>),
    /// Our Close of the backend's statement of this number.
    Closes(u64),
    /// An answer of ours.
    Answers {
        /// Frames to send.
        frames: Cow<'static, [u8]>,
        /// Undoes the client's change of names.
        undo: Option<Box<Undo>>,
    },
    /// The message was sent to fail; the client gets this error instead of the backend's.
    Refuses(Box<[u8]>),
    /// A Parse under a name that the client has given already: it was sent to fail for that.
    Duplicates(Box<[u8]>),
    /// A Bind or Describe of the backend's statement of this number.
    Uses {
        number: u64,
        /// Of the client's name for it.
        tag: u32,
    },
    /// Our replay of settings; `None` for the encoding that the rest of it is written in.
    Applies(Option<Settings>),
    /// Our question for state that a session left behind.
    Probes(StateFlags),
    /// Our question for settings whose values only the server knows.
    AsksSettings(Box<UnknownSettings>),
    /// Our DISCARD ALL.
    Resets,
}

impl ReplyAction {
    /// The change of names that is undone if the message is dropped.
    pub(super) fn undo(&self) -> Option<&Undo> {
        match self {
            Self::Parses { undo, .. } | Self::Renames(undo) | Self::Answers { undo, .. } => undo.as_deref(),
            _ => None,
        }
    }
}

/// A statement that waits for its analysis.
#[derive(Debug)]
pub(crate) struct Analyses {
    pub draft: Arc<Statement>,
    /// The client's name for it.
    pub name: Box<[u8]>,
    /// Settings of its transaction were in force, so nobody else may share it.
    pub is_alone: bool,
}

/// Statements under way.
#[derive(Debug)]
pub(crate) struct Runs {
    pub class: Arc<StatementEffects>,
    /// Number of statements that have completed.
    pub completed: u32,
    /// The arguments that a `pg_notify` with parameters was given.
    pub given: Option<Notification>,
}

impl Runs {
    /// None of them has completed yet.
    pub(crate) fn new(class: Arc<StatementEffects>) -> Self {
        Self { class, completed: 0, given: None }
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

    /// True if the statement that completed last was a PREPARE TRANSACTION.
    pub(crate) fn prepares_transaction(&self) -> bool {
        self.done().any(|effect| matches!(effect, Effect::PrepareTransaction))
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
        if !self.class.stands_in {
            return None;
        }
        self.done().find_map(Effect::stand_in_tag)
    }
}
