//! Prepared statements as clients and backends share them.
//!
//! A statement is one (pool, text, parameter types, settings that change its meaning). Clients hold it under names of
//! their own, backends under `pgweir_<id>`. Ids are never used twice, so a name means the same statement on every
//! backend.

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use smallvec::SmallVec;

use crate::sql::StatementEffects;

/// Prefix of the names we use towards Postgres.
pub(crate) const NAME_PREFIX: &[u8] = b"pgweir_";

#[derive(Debug)]
pub(crate) struct Statement {
    /// Unique in this process.
    pub id: u32,
    /// The body of its Parse behind the name: text and parameter types.
    pub rest: Box<[u8]>,
    /// Its effects on the session when executed; `None`: none.
    pub class: Option<Arc<StatementEffects>>,
    name: Name,
    accepted: AtomicBool,
}

/// A name towards Postgres, at most `pgweir_ffffffff`.
pub(crate) type Name = SmallVec<[u8; 16]>;

impl Statement {
    /// A backend of its pool has parsed it, so another client's Parse of it needs none.
    pub(crate) fn is_accepted(&self) -> bool {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Remembers whether a backend accepted its Parse.
    pub(crate) fn set_accepted(&self, accepted: bool) {
        self.accepted.store(accepted, Ordering::Relaxed);
    }

    fn new(id: u32, rest: Box<[u8]>, class: StatementEffects) -> Self {
        let class = (!class.is_ordinary()).then(|| Arc::new(class));
        Self { id, rest, class, name: name(id), accepted: AtomicBool::new(false) }
    }

    /// Its name towards Postgres, without the terminator.
    #[inline]
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Its text was too large to be kept: only the backend that parsed it has it.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        self.rest.is_empty()
    }
}

/// The name of statement `id` towards Postgres, without the terminator.
pub(crate) fn name(id: u32) -> Name {
    let mut name = Name::from_slice(NAME_PREFIX);
    write!(name, "{id:x}").expect("writing to memory cannot fail");
    name
}

/// All statements of the process that some client holds.
#[derive(Debug, Default)]
pub(crate) struct Statements {
    known: Mutex<KnownStatements>,
    next: AtomicU32,
}

#[derive(Debug, Default)]
struct KnownStatements {
    by_key: HashMap<Box<[u8]>, Weak<Statement>>,
    /// Entries at which dead ones are looked for.
    sweep_at: usize,
}

/// Fewest entries at which a sweep is worth it.
const SWEEP_MIN: usize = 1024;

impl Statements {
    /// The statement with this text and types (`rest`, as in Parse) in `scope`: a pool, and the meaning of a client's
    /// settings.
    pub(crate) fn intern(
        &self,
        rest: &[u8],
        scope: (u64, u64),
        classify: impl FnOnce() -> StatementEffects,
    ) -> Arc<Statement> {
        self.intern_instead(rest, scope, || (rest.into(), classify()))
    }

    /// The statement that is run instead of this one in `scope`: its `rest` and its class.
    pub(crate) fn intern_instead(
        &self,
        rest: &[u8],
        scope: (u64, u64),
        instead: impl FnOnce() -> (Box<[u8]>, StatementEffects),
    ) -> Arc<Statement> {
        let key: Box<[u8]> = [rest, &scope.0.to_be_bytes(), &scope.1.to_be_bytes()].concat().into();
        let mut known = self.known.lock().expect("no panic while held");
        if let Some(statement) = known.by_key.get(&key).and_then(Weak::upgrade) {
            return statement;
        }
        if known.by_key.len() >= known.sweep_at {
            known.by_key.retain(|_, statement| statement.strong_count() > 0);
            known.sweep_at = SWEEP_MIN.max(known.by_key.len() * 2);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (rest, class) = instead();
        let statement = Arc::new(Statement::new(id, rest, class));
        known.by_key.insert(key, Arc::downgrade(&statement));
        statement
    }

    /// A statement whose text is too large to be kept.
    pub(crate) fn large(&self, class: StatementEffects) -> Arc<Statement> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        Arc::new(Statement::new(id, Box::default(), class))
    }
}
