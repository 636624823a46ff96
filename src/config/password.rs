//! A password that pgweir shows to a server or a service: known, or printed by a command.
//!
//! Which command is run when is decided by [`pool::passwords`](crate::pool::passwords); nothing is run here.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use toml::de::DeValue;

use super::Secret;
use super::form::{Checked, KeyForm, duration_text, kind};

/// The origin of a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// Written in the file, or read from the environment or another file.
    Known(Secret),
    /// Printed by a command, and good for some time.
    Command(PasswordCommand),
}

impl PasswordSource {
    /// The password, if no command has to be run for it.
    pub fn known(&self) -> Option<&Secret> {
        match self {
            Self::Known(secret) => Some(secret),
            Self::Command(_) => None,
        }
    }
}

/// As SHOW CONFIG has it.
impl fmt::Display for PasswordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(secret) => fmt::Debug::fmt(secret, f),
            Self::Command(command) => fmt::Debug::fmt(command, f),
        }
    }
}

/// The keys of a command, by the names of its fields.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct CommandKeys {
    /// The program and its arguments.
    pub(super) command: Vec<String>,
    /// How long what it prints is good.
    pub(super) refresh: Duration,
    /// How long it may run.
    pub(super) timeout: Duration,
}

impl Default for CommandKeys {
    fn default() -> Self {
        Self { command: Vec::new(), refresh: Duration::from_secs(10 * 60), timeout: Duration::from_secs(5) }
    }
}

/// A program and its arguments.
pub(super) struct ProgramForm;

impl KeyForm<Vec<String>> for ProgramForm {
    /// Mistakes name the place of an argument: it may hold a secret.
    fn read(&self, value: &DeValue<'_>) -> Checked<Vec<String>> {
        let DeValue::Array(items) = value else {
            return Err(format!("is {}; write a list, the program first: [\"program\", \"argument\"]", kind(value)));
        };
        if items.is_empty() {
            return Err("is an empty list; it needs a program".to_owned());
        }
        let (mut arguments, mut wrong) = (Vec::new(), Vec::new());
        for (number, item) in (1..).zip(items) {
            match item.get_ref() {
                DeValue::String(text) if text.is_empty() && number == 1 => {
                    wrong.push("the program is empty".to_owned())
                }
                DeValue::String(text) if text.contains('\0') => wrong.push(format!("entry {number} holds a zero byte")),
                DeValue::String(text) => arguments.push(text.to_string()),
                other => wrong.push(format!("entry {number} is {}, not a string", kind(other))),
            }
        }
        if wrong.is_empty() { Ok(arguments) } else { Err(wrong.join("; ")) }
    }

    fn text(&self, value: &Vec<String>) -> String {
        value.first().cloned().unwrap_or_default()
    }

    fn allowed(&self) -> String {
        "a list of strings: a program and its arguments".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 })
    }
}

/// A command that prints a password. Two are the same if they run the same, wherever they stand.
#[derive(Clone)]
pub struct PasswordCommand {
    key: Arc<str>,
    keys: Arc<CommandKeys>,
}

impl PasswordCommand {
    pub(super) fn new(key: String, keys: CommandKeys) -> Self {
        Self { key: key.into(), keys: Arc::new(keys) }
    }

    /// The key of the configuration where it stands.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// The program, and its arguments, which may hold secrets.
    pub fn program(&self) -> (&str, &[String]) {
        let (program, arguments) = self.keys.command.split_first().expect("a command without a program is refused");
        (program, arguments)
    }

    /// How long what it printed is good.
    pub fn refresh(&self) -> Duration {
        self.keys.refresh
    }

    /// How long it may run.
    pub fn timeout(&self) -> Duration {
        self.keys.timeout
    }
}

impl PartialEq for PasswordCommand {
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys
    }
}

impl Eq for PasswordCommand {}

impl Hash for PasswordCommand {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.keys.hash(state);
    }
}

/// Its arguments are not shown: some programs take secrets that way.
impl fmt::Debug for PasswordCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (refresh, timeout) = (duration_text(self.refresh()), duration_text(self.timeout()));
        write!(f, "command {:?}, refresh {refresh}, timeout {timeout}", self.program().0)
    }
}
