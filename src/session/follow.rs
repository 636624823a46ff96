//! Follows what a client's statements do to its settings, until the transaction says whether it stays.
//!
//! Settings that the server reports are taken from its reports, canonical and final. The others are taken from the
//! statements, kept per savepoint, and adopted when the transaction commits. Postgres: `guc.c`, "GUC transaction support".

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::sql::Effect;
use crate::sql::{Scope, Setting, Value};
use crate::state::parameters::{Parameters, is_read_only};
use crate::state::settings::Values;

/// Changes of one transaction that are not final yet.
#[derive(Debug, Default)]
pub struct Follow {
    changes: Vec<Change>,
    /// Open savepoints and how many changes came before them.
    savepoints: Vec<(Bytes, usize)>,
    /// What the server reported, by folded name; the last word on these.
    reported: BTreeMap<String, String>,
}

#[derive(Debug)]
enum Change {
    Set(Setting),
    Reset(String),
    ResetAll,
}

/// `GUC_NO_RESET_ALL`: RESET ALL leaves it alone.
const NOT_RESET: &str = "role";

impl Follow {
    /// A statement with this effect has completed; `rolled_back`: its tag was ROLLBACK, whatever it said.
    pub fn completed(&mut self, effect: &Effect, rolled_back: bool) -> Outcome {
        match effect {
            Effect::Set { scope: Scope::Session, setting } => self.changes.push(Change::Set(setting.clone())),
            Effect::Reset(name) => self.changes.push(Change::Reset(name.clone())),
            Effect::ResetAll => self.changes.push(Change::ResetAll),
            Effect::Savepoint(name) => self.savepoints.push((name.clone(), self.changes.len())),
            Effect::RollbackTo(name) => {
                if let Some(at) = self.savepoints.iter().rposition(|(known, _)| known == name) {
                    self.changes.truncate(self.savepoints[at].1);
                    self.savepoints.truncate(at + 1);
                }
            }
            Effect::Release(name) => {
                if let Some(at) = self.savepoints.iter().rposition(|(known, _)| known == name) {
                    self.savepoints.truncate(at);
                }
            }
            Effect::Commit { .. } | Effect::PrepareTransaction if !rolled_back => return Outcome::Committed,
            Effect::Commit { .. } | Effect::Rollback { .. } | Effect::PrepareTransaction => self.roll_back(),
            _ => {}
        }
        Outcome::Open
    }

    /// The server reported a setting.
    pub fn report(&mut self, name: &str, value: &str) {
        if !is_read_only(name) {
            self.reported.insert(name.to_ascii_lowercase(), value.to_owned());
        }
    }

    /// The transaction was rolled back. Reports stay: the server reports the values it went back to.
    pub fn roll_back(&mut self) {
        self.changes.clear();
        self.savepoints.clear();
    }

    /// Nothing to adopt.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.reported.is_empty()
    }

    /// Applies committed changes to the values of a session that began with `startup` on a backend that began with `base`.
    pub fn adopt(&self, values: &mut Values, startup: &Values, base: &Parameters) {
        for (name, value) in &self.reported {
            if base.value(name) == Some(value.as_str()) {
                values.remove(name);
            } else {
                values.insert(name.clone(), Value::Text(Bytes::copy_from_slice(value.as_bytes())));
            }
        }
        for change in &self.changes {
            match change {
                Change::Set(Setting { name, .. }) if base.reports(name) => {}
                Change::Set(Setting { name, value: Value::Default }) | Change::Reset(name) => {
                    reset(values, startup, name)
                }
                Change::Set(Setting { name, value }) => {
                    values.insert(name.clone(), value.clone());
                }
                Change::ResetAll => {
                    let role = values.remove(NOT_RESET);
                    values.clone_from(startup);
                    values.extend(role.map(|role| (NOT_RESET.to_owned(), role)));
                }
            }
        }
    }
}

fn reset(values: &mut Values, startup: &Values, name: &str) {
    match startup.get(name) {
        Some(value) => values.insert(name.to_owned(), value.clone()),
        None => values.remove(name),
    };
}

/// What a completed effect means for what was followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The transaction goes on, or there is none.
    Open,
    /// What was followed so far is final.
    Committed,
}
