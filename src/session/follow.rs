//! Follows the effects of a client's statements on its settings, until the transaction decides whether they stay.
//!
//! Settings that the server reports are taken from its reports, canonical and final. The others are taken from the
//! statements, kept per savepoint, and adopted when the transaction commits. Postgres: `guc.c`, "GUC transaction
//! support".

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::sql::Effect;
use crate::sql::{Scope, Setting, Value};
use crate::state::parameters::{Parameters, is_read_only};
use crate::state::settings::{Values, cost};
use crate::state::tentative::Tentative;

/// Changes that are not final yet.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    changes: Tentative<SettingChange>,
    /// Bytes that changes took since the last adoption, those rolled back included.
    bytes: usize,
    /// Values that the server reported, by folded name; they override the changes.
    reported: BTreeMap<String, String>,
    /// Settings that are back at the value the client began with. The backend does not know that value, so its reports
    /// on these are not the client's value.
    reset: BTreeSet<String>,
    /// Settings that statements of the transaction are about; reports on others have another cause.
    explained: BTreeSet<String>,
    /// A statement was about all settings.
    explains_all: bool,
    /// Values that the client knew before a DISCARD ALL.
    told: Vec<(String, String)>,
    /// Values were given that only the server knows.
    is_unknown: bool,
    /// Changes were rolled back.
    is_rolled_back: bool,
}

#[derive(Debug)]
enum SettingChange {
    Set(Setting),
    /// To the end of the transaction.
    SetLocal(Setting),
    Reset(String),
    ResetAll,
}

/// Bytes of a change without a value, about.
const CHANGE_OVERHEAD: usize = 64;

/// `GUC_NO_RESET_ALL`: RESET ALL leaves it alone.
const NOT_RESET: &str = "role";

impl Follow {
    /// A DISCARD ALL has completed: the client is back at `startup`, and the reports to come are of the backend alone.
    /// `told`: the values of reported parameters that the client knows.
    pub(crate) fn discarded(startup: &Values, told: Vec<(String, String)>) -> Self {
        Self { reset: startup.keys().cloned().collect(), explains_all: true, told, ..Self::default() }
    }

    /// A statement with this effect has completed; `rolled_back`: its tag was ROLLBACK, whatever its text.
    pub(crate) fn completed(&mut self, effect: &Effect, rolled_back: bool) -> FollowOutcome {
        match effect {
            Effect::Set { setting, .. } => drop(self.explained.insert(setting.name.clone())),
            Effect::Reset(name) => drop(self.explained.insert(name.clone())),
            Effect::ResetAll => self.explains_all = true,
            _ => {}
        }
        if let Effect::Set { setting, .. } = effect {
            self.bytes += cost(&setting.name, &setting.value);
        } else if effect.controls_transaction() || matches!(effect, Effect::Reset(_) | Effect::ResetAll) {
            self.bytes += CHANGE_OVERHEAD;
        }
        match effect {
            Effect::Set { scope: Scope::Session, setting } => self.changes.push(SettingChange::Set(setting.clone())),
            Effect::Set { scope: Scope::Local, setting } => self.changes.push(SettingChange::SetLocal(setting.clone())),
            Effect::Reset(name) => self.changes.push(SettingChange::Reset(name.clone())),
            Effect::ResetAll => self.changes.push(SettingChange::ResetAll),
            Effect::Savepoint(name) => self.changes.savepoint(name),
            Effect::RollbackTo(name) => drop(self.changes.roll_back_to(name)),
            Effect::Release(name) => self.changes.release(name),
            Effect::Commit { .. } | Effect::PrepareTransaction if !rolled_back => return FollowOutcome::Committed,
            Effect::Commit { .. } | Effect::Rollback { .. } | Effect::PrepareTransaction => self.roll_back(),
            _ => {}
        }
        FollowOutcome::Open
    }

    /// True if a DISCARD ALL took the setting back to the value that the client began with.
    pub(crate) fn is_reset(&self, name: &str) -> bool {
        !self.told.is_empty() && self.reset.contains(&name.to_ascii_lowercase())
    }

    /// Bytes that the changes take, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Every report is taken for the client's.
    pub(crate) fn explain_all(&mut self) {
        self.explains_all = true;
    }

    /// A statement gave a value that only the server knows.
    pub(crate) fn unknown(&mut self) {
        self.is_unknown = true;
    }

    /// True if values are in force that only the server knows.
    pub(crate) fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    /// The server reported a setting.
    pub(crate) fn report(&mut self, name: &str, value: &str) {
        if !is_read_only(name) {
            self.reported.insert(name.to_ascii_lowercase(), value.to_owned());
        }
    }

    /// The value that the server reported for a setting since the last adoption.
    pub(crate) fn reported(&self, name: &str) -> Option<&str> {
        self.reported.get(name).map(String::as_str)
    }

    /// All values that the server reported.
    pub(crate) fn reports(&self) -> impl Iterator<Item = (&str, &str)> {
        self.reported.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Names of the settings that were changed for the session, by any statement so far.
    pub(crate) fn changed(&self) -> impl Iterator<Item = &str> {
        self.changes.iter().filter_map(|change| match change {
            SettingChange::Set(setting) => Some(setting.name.as_str()),
            SettingChange::Reset(name) => Some(name.as_str()),
            SettingChange::SetLocal(_) | SettingChange::ResetAll => None,
        })
    }

    /// The values that the client knew before its DISCARD ALL.
    pub(crate) fn told_before(self) -> Vec<(String, String)> {
        self.told
    }

    /// The values that the client was told last.
    pub(crate) fn told(&self) -> Vec<(String, String)> {
        let before = self.told.iter().filter(|(name, _)| self.reported(&name.to_ascii_lowercase()).is_none()).cloned();
        before.chain(self.reports().map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
    }

    /// The transaction was rolled back. Reports stay: the server reports the values it went back to.
    pub(crate) fn roll_back(&mut self) {
        self.is_rolled_back = true;
        self.changes.take();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.reported.is_empty()
    }

    /// True if a change of the role was rolled back. SET SESSION AUTHORIZATION changes it, too, and versions differ in
    /// what is left of that.
    pub(crate) fn may_have_lost_role(&self) -> bool {
        self.is_rolled_back && self.explained.contains("role")
    }

    /// RESET ALL is among the changes.
    pub(crate) fn resets_all(&self) -> bool {
        self.changes.iter().any(|change| matches!(change, SettingChange::ResetAll))
    }

    /// The values in force in the transaction of a client that keeps `client` so far, began with `startup` and was
    /// told of `reported`.
    pub(crate) fn in_force(&self, client: &Values, startup: &Values, reported: &Parameters) -> Values {
        let mut values = client.clone();
        let back = |values: &mut Values, name: &str| match startup.get(name) {
            Some(value) => drop(values.insert(name.to_owned(), value.clone())),
            None => drop(values.remove(name)),
        };
        for change in self.changes.iter() {
            match change {
                // The server's report gives the value.
                SettingChange::Set(setting) | SettingChange::SetLocal(setting) if reported.reports(&setting.name) => {}
                SettingChange::Set(setting) | SettingChange::SetLocal(setting) => match setting.value {
                    Value::Default => back(&mut values, &setting.name),
                    _ => drop(values.insert(setting.name.clone(), setting.value.clone())),
                },
                SettingChange::Reset(name) => back(&mut values, name),
                SettingChange::ResetAll => {
                    let role = values.remove(NOT_RESET);
                    values.clone_from(startup);
                    values.remove(NOT_RESET);
                    values.extend(role.map(|role| (NOT_RESET.to_owned(), role)));
                }
            }
        }
        for (name, value) in &self.reported {
            let value = Value::Text(Bytes::copy_from_slice(value.as_bytes()));
            if current(&values, name, reported).as_ref() != Some(&value) {
                values.insert(name.clone(), value);
            }
        }
        values
    }

    /// Applies the final changes to the values of the client, which began with `startup`, and to those applied to its
    /// backend, which reported `base` at its login. Returns the settings that were reported without a statement that
    /// is about them: a function may have set them, or the server's configuration changed.
    pub(crate) fn adopt(
        &mut self,
        client: &mut Values,
        startup: &Values,
        backend: &mut Values,
        base: &Parameters,
    ) -> Vec<String> {
        let mut unexplained = Vec::new();
        self.bytes = 0;
        let before = backend.clone();
        for change in self.changes.take() {
            match change {
                SettingChange::SetLocal(_) => {}
                // The server's report gives the value; without a report it is the value from before.
                SettingChange::Set(Setting { name, .. }) if base.reports(&name) => {
                    self.reset.remove(&name);
                    let value = current(&before, &name, base);
                    client.extend(value.clone().map(|value| (name.clone(), value)));
                    backend.extend(value.map(|value| (name, value)));
                }
                SettingChange::Set(Setting { name, value: Value::Default }) | SettingChange::Reset(name) => {
                    backend.remove(&name);
                    match startup.get(&name) {
                        Some(value) => {
                            client.insert(name.clone(), value.clone());
                            self.reset.insert(name);
                        }
                        None => drop(client.remove(&name)),
                    }
                }
                SettingChange::Set(Setting { name, value }) => {
                    client.insert(name.clone(), value.clone());
                    backend.insert(name, value);
                }
                SettingChange::ResetAll => {
                    let role = client.remove(NOT_RESET);
                    client.clone_from(startup);
                    client.remove(NOT_RESET);
                    client.extend(role.map(|role| (NOT_RESET.to_owned(), role)));
                    backend.retain(|name, _| name == NOT_RESET);
                    self.reset.extend(startup.keys().cloned());
                }
            }
        }
        for (name, value) in std::mem::take(&mut self.reported) {
            let value = Value::Text(value.into_bytes().into());
            if !self.explains_all && !self.explained.contains(&name) {
                if current(client, &name, base).as_ref() != Some(&value) {
                    unexplained.push(name);
                }
                continue;
            }
            if current(backend, &name, base).as_ref() != Some(&value) {
                backend.insert(name.clone(), value.clone());
            }
            if !self.reset.contains(&name) && current(client, &name, base).as_ref() != Some(&value) {
                client.insert(name, value);
            }
        }
        unexplained
    }
}

/// The value in force of a setting that the server reports.
fn current(values: &Values, name: &str, base: &Parameters) -> Option<Value> {
    let at_login = || base.value(name).map(|value| Value::Text(Bytes::copy_from_slice(value.as_bytes())));
    values.get(name).cloned().or_else(at_login)
}

/// Meaning of a completed effect for the changes followed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FollowOutcome {
    /// The transaction goes on, or there is none.
    Open,
    /// The changes followed so far are final.
    Committed,
}
