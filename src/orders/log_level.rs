//! The level of the log, which the console may change. The log itself is started by the program, which knows its form.

use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex};

/// Puts a level into force, or says why it cannot be read.
type SetLevel = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// The level in force, and the way to another.
#[derive(Clone)]
pub struct LogLevel {
    in_force: Arc<Mutex<String>>,
    set: Arc<SetLevel>,
}

impl LogLevel {
    /// Of a log that was started with `level`.
    pub fn new(level: &str, set: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { in_force: Arc::new(Mutex::new(level.to_owned())), set: Arc::new(set) }
    }

    pub(crate) fn in_force(&self) -> String {
        self.in_force.lock().expect("no panic while held").clone()
    }

    pub(crate) fn set(&self, level: &str) -> Result<(), String> {
        let mut in_force = self.in_force.lock().expect("no panic while held");
        (self.set)(level)?;
        level.clone_into(&mut in_force);
        Ok(())
    }
}

/// Of a process that has no log.
impl Default for LogLevel {
    fn default() -> Self {
        Self::new("off", |_| Err("there is no log".to_owned()))
    }
}

impl Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogLevel").field(&self.in_force()).finish()
    }
}
