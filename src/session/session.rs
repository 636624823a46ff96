//! What pgweir keeps of a client's session between its backends.

use std::sync::Arc;

use super::follow::{Follow, Outcome};
use super::note::{Note, Runs};
use super::pins::Pins;
use super::statements::{ClientStatements, Unnamed};
use crate::config::PoolMode;
use crate::pool::backend::Backend;
use crate::pool::pool::Pool;
use crate::sql::Value;
use crate::sql::{Context, Effect};
use crate::state::parameters::Parameters;
use crate::state::settings::{Settings, SettingsRegistry};

/// One client's session.
#[derive(Debug)]
pub struct Session {
    /// Where its backends come from.
    pub pool: Arc<Pool>,
    /// When they go back.
    pub mode: PoolMode,
    /// What the server reports to this client, apart from its own settings.
    pub told: Parameters,
    /// Settings it carries.
    pub settings: Settings,
    /// Settings of its StartupMessage: what RESET goes back to.
    pub startup: Settings,
    /// Its prepared statements.
    pub statements: ClientStatements,
    /// Changes of settings that are not final.
    pub follow: Option<Box<Follow>>,
    /// What ties it to its backend.
    pub pins: Pins,
    /// How its texts are read.
    pub lexer: Context,
}

/// Encodings in which the second byte of a character may look like ASCII (`pg_enc`, those that are client-only).
const UNSAFE_ENCODINGS: [&str; 7] = ["SJIS", "SHIFT_JIS_2004", "BIG5", "GBK", "UHC", "GB18030", "JOHAB"];

/// Aliases of them (`pg_encname_tbl`), folded and without punctuation.
const UNSAFE_ALIASES: [&str; 11] =
    ["sjis", "mskanji", "shiftjis", "win932", "windows932", "shiftjis2004", "big5", "win950", "gbk", "win936", "uhc"];

impl Session {
    /// The value a client has been told for a reported parameter, or would be.
    pub fn told_value(&self, name: &str) -> Option<String> {
        match self.settings.values().get(&name.to_ascii_lowercase()) {
            Some(Value::Text(text)) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => self.told.value(name).map(str::to_owned),
        }
    }

    /// Notifications reach a client that has its backend for itself; others never asked for any.
    pub fn hears_notifications(&self) -> bool {
        self.mode == PoolMode::Session || self.pins.may_listen()
    }

    /// Has the lexer read texts as the server will.
    pub fn update_lexer(&mut self) {
        let is_off =
            self.told_value("standard_conforming_strings").is_some_and(|value| value.eq_ignore_ascii_case("off"));
        let is_unsafe = self.told_value("client_encoding").is_some_and(|value| is_unsafe_encoding(&value));
        self.lexer = Context { standard_conforming_strings: !is_off, ascii_safe: !is_unsafe };
    }

    /// A message was dropped or failed: what its sending did to names and to the books of the backend is taken back.
    pub fn take_back(&mut self, note: Note, backend: &mut Backend) {
        match note {
            Note::Parses { statement, undo } => {
                match statement {
                    Some(statement) => {
                        backend.statements.pop(&statement.id);
                    }
                    None => self.statements.unnamed = Unnamed::None,
                }
                if let Some(undo) = undo {
                    self.statements.undo(*undo);
                }
            }
            Note::Answers { undo: Some(undo), .. } => self.statements.undo(*undo),
            Note::Evicts(id) => {
                backend.statements.put(id, ());
            }
            _ => {}
        }
    }

    /// One more statement of these has completed.
    pub fn completed(&mut self, runs: &mut Runs, tag: &[u8], backend: &mut Backend, registry: &SettingsRegistry) {
        let index = runs.completed;
        runs.completed += 1;
        let class = Arc::clone(&runs.class);
        if index + 1 == class.statements || class.statements == 0 {
            self.pins.suspect(class.may_begin, class.may_end);
        }
        let rolled_back = tag == b"ROLLBACK";
        for (_, effect) in class.effects.iter().filter(|(at, _)| *at == index) {
            match effect {
                Effect::Deallocate(name) => {
                    self.statements.remove(name);
                }
                Effect::DeallocateAll => self.deallocate_all(backend),
                Effect::DiscardAll => self.discard_all(backend, registry),
                effect => {
                    let outcome = self.follow.as_mut().map(|follow| follow.completed(effect, rolled_back));
                    if outcome == Some(Outcome::Committed) {
                        self.adopt(backend, registry);
                    }
                }
            }
        }
    }

    /// DEALLOCATE ALL took every statement off the backend, and this client's names with them.
    pub fn deallocate_all(&mut self, backend: &mut Backend) {
        self.statements.clear_named();
        backend.statements.clear();
        backend.stale.clear();
    }

    /// DISCARD ALL by the client itself: it is as after its login, the backend as after its own.
    pub fn discard_all(&mut self, backend: &mut Backend, registry: &SettingsRegistry) {
        self.deallocate_all(backend);
        self.statements.unnamed = Unnamed::None;
        self.settings = self.startup.clone();
        backend.applied = registry.none();
        backend.is_soiled = false;
        self.follow = None;
        self.pins.clear();
        self.update_lexer();
    }

    /// What was followed is final, for the client and for the backend that did it.
    pub fn adopt(&mut self, backend: &mut Backend, registry: &SettingsRegistry) {
        let Some(follow) = self.follow.as_mut().filter(|follow| !follow.is_empty()) else { return };
        let mut values = self.settings.values().clone();
        follow.adopt(&mut values, self.startup.values(), &backend.parameters);
        self.settings = registry.intern(values);
        let mut values = backend.applied.values().clone();
        follow.adopt(&mut values, registry.none().values(), &backend.parameters);
        backend.applied = registry.intern(values);
        if self.settings.is_same(&backend.applied) {
            self.settings.accept();
        }
        **follow = Follow::default();
        self.update_lexer();
    }

    /// The transaction that a cycle belonged to is over.
    pub fn finish_transaction(&mut self, has_failed: bool, backend: &mut Backend, registry: &SettingsRegistry) {
        self.statements.drop_portals();
        if self.follow.is_none() {
            return;
        }
        if has_failed && let Some(follow) = self.follow.as_mut() {
            follow.roll_back();
        }
        self.adopt(backend, registry);
        self.follow = None;
    }
}

fn is_unsafe_encoding(name: &str) -> bool {
    let folded: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    UNSAFE_ENCODINGS.iter().any(|known| known.eq_ignore_ascii_case(name))
        || UNSAFE_ALIASES.contains(&folded.as_str())
        || folded == "gb18030"
        || folded == "johab"
}
