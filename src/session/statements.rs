//! The prepared statements of one client, under the names it gave them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::notify::notification::{Notification, Unnotifiable};
use crate::sql::StatementEffects;
use crate::state::statements::Statement;

/// Named statements one client may hold; a client that never closes any gets an error here.
pub(crate) const NAMES_MAX: usize = 10_000;

/// Names and the unnamed statement.
#[derive(Debug, Default)]
pub(crate) struct ClientStatements {
    named: HashMap<Box<[u8]>, Arc<Statement>>,
    /// Number of named statements that are too large to be parsed again elsewhere.
    large: usize,
    /// Text and types of the last unnamed Parse; meaningful while `unnamed` is not `None`.
    text: Vec<u8>,
    /// State of the unnamed statement.
    pub unnamed: Unnamed,
    /// Portals whose statement changes the session. The unnamed one has an empty name.
    portals: Vec<(Box<[u8]>, Portal)>,
}

/// Effect of executing a portal.
#[derive(Debug, Clone)]
pub(crate) struct Portal {
    /// Effects of its statement.
    pub class: Arc<StatementEffects>,
    /// Arguments that its Bind gave to a `pg_notify`; an error is one of its execution.
    pub given: Option<Result<Notification, Unnotifiable>>,
}

impl From<Arc<StatementEffects>> for Portal {
    fn from(class: Arc<StatementEffects>) -> Self {
        Self { class, given: None }
    }
}

/// The unnamed statement of a client.
#[derive(Debug, Default)]
pub(crate) enum Unnamed {
    /// Never parsed, or destroyed by a Query.
    #[default]
    None,
    /// Parsed; kept as text, and on the backend of the current lease if `here`.
    Kept {
        /// The current backend has it.
        here: bool,
        /// Its effects, if any.
        class: Option<Arc<StatementEffects>>,
    },
    /// Parsed and too large to be kept: only the current backend has it.
    Large {
        /// Its effects, if any.
        class: Option<Arc<StatementEffects>>,
    },
}

/// A change of names that a failed or dropped message takes back.
#[derive(Debug)]
pub(crate) enum Undo {
    /// The previous meaning of one name.
    One(Box<[u8]>, Option<Arc<Statement>>),
    All(HashMap<Box<[u8]>, Arc<Statement>>),
}

impl ClientStatements {
    /// The statement under a name.
    #[inline]
    pub(crate) fn find(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.named.get(name)
    }

    /// Gives a statement a name.
    pub(crate) fn insert(&mut self, name: &[u8], statement: Arc<Statement>) -> Box<Undo> {
        self.large += usize::from(statement.is_large());
        let before = self.named.insert(name.into(), statement);
        self.large -= before.as_ref().map_or(0, |before| usize::from(before.is_large()));
        Box::new(Undo::One(name.into(), before))
    }

    /// Forgets a name.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<Box<Undo>> {
        let (name, statement) = self.named.remove_entry(name)?;
        self.large -= usize::from(statement.is_large());
        Some(Box::new(Undo::One(name, Some(statement))))
    }

    /// Undoes a change.
    pub(crate) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::One(name, Some(statement)) => drop(self.insert(&name, statement)),
            Undo::One(name, None) => drop(self.remove(&name)),
            Undo::All(named) => {
                self.large = named.values().filter(|statement| statement.is_large()).count();
                self.named = named;
            }
        }
    }

    /// Number of named statements held.
    pub(crate) fn len(&self) -> usize {
        self.named.len()
    }

    /// DEALLOCATE ALL.
    pub(crate) fn clear_named(&mut self) -> Box<Undo> {
        self.large = 0;
        Box::new(Undo::All(std::mem::take(&mut self.named)))
    }

    /// True if a statement is too large to be parsed again elsewhere.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        self.large > 0 || matches!(self.unnamed, Unnamed::Large { .. })
    }

    /// An unnamed Parse: its text is kept, because its Bind may come in another lease.
    #[inline]
    pub(crate) fn keep_unnamed(&mut self, rest: &[u8], class: Option<Arc<StatementEffects>>) {
        self.text.clear();
        self.text.extend_from_slice(rest);
        self.unnamed = Unnamed::Kept { here: true, class };
    }

    /// Text and types of the unnamed statement.
    pub(crate) fn unnamed_text(&self) -> &[u8] {
        &self.text
    }

    /// The backend's unnamed statement is no longer this client's.
    #[inline]
    pub(crate) fn leave_unnamed(&mut self) {
        match &mut self.unnamed {
            Unnamed::None => {}
            Unnamed::Kept { here, .. } => *here = false,
            Unnamed::Large { .. } => self.unnamed = Unnamed::None,
        }
    }

    /// Another backend: the unnamed statement is not there yet.
    #[inline]
    pub(crate) fn leave_backend(&mut self) {
        self.leave_unnamed();
        self.portals.clear();
    }

    /// Effects of the unnamed statement.
    pub(crate) fn unnamed_class(&self) -> Option<Arc<StatementEffects>> {
        match &self.unnamed {
            Unnamed::None => None,
            Unnamed::Kept { class, .. } | Unnamed::Large { class } => class.clone(),
        }
    }

    /// Records the effect of executing this portal from now on.
    #[inline]
    pub(crate) fn bind(&mut self, name: &[u8], portal: Option<Portal>) {
        if portal.is_none() && self.portals.is_empty() {
            return;
        }
        self.portals.retain(|(known, _)| **known != *name);
        if let Some(portal) = portal {
            self.portals.push((name.into(), portal));
        }
    }

    /// Effect of executing a portal.
    #[inline]
    pub(crate) fn portal(&self, name: &[u8]) -> Option<Portal> {
        self.portals.iter().find(|(known, _)| **known == *name).map(|(_, portal)| portal.clone())
    }

    /// The transaction is over: its portals are gone.
    #[inline]
    pub(crate) fn drop_portals(&mut self) {
        self.portals.clear();
    }
}
