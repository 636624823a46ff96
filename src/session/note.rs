//! What the ring keeps beside a message until Postgres has answered it.

use std::sync::Arc;

use super::statements::Undo;
use crate::sql::{Class, Suspects};
use crate::state::settings::Settings;
use crate::state::statements::Statement;

/// A note on one outstanding message.
#[derive(Debug)]
pub enum Note {
    /// A Query or Execute whose statements do something to the session.
    Runs(Box<Runs>),
    /// A Query of so many statements that do nothing to the session.
    Several(u32),
    /// A Parse: the backend has the statement unless it fails or is dropped.
    Parses {
        /// The shared statement; `None` for the unnamed one.
        statement: Option<Arc<Statement>>,
        /// How to take the client's new name back.
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
        /// How to take the client's change of names back.
        undo: Option<Box<Undo>>,
    },
    /// The message was sent to fail; the client gets this error instead of the backend's.
    Refuses(Box<[u8]>),
    /// A Bind or Describe of this shared statement.
    Uses(u32),
    /// Our replay of settings; `None` for the encoding that the rest of it is written in.
    Applies(Option<Settings>),
    /// Our question what state a session left behind.
    Probes(Suspects),
    /// Our DISCARD ALL.
    Resets,
}

/// Statements under way.
#[derive(Debug)]
pub struct Runs {
    /// What they do.
    pub class: Arc<Class>,
    /// How many of them have completed.
    pub completed: u32,
    /// It is a DEALLOCATE of the client's own names, for which a stand-in was sent.
    pub stands_in: Option<StandIn>,
}

/// What a stand-in stands for.
#[derive(Debug)]
pub struct StandIn {
    /// CommandComplete to show instead of the stand-in's.
    pub tag: &'static [u8],
    /// How to take the client's change of names back.
    pub undo: Option<Box<Undo>>,
}
