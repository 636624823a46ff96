//! Prepared statements as clients and backends share them.
//!
//! A Parse means an analysis now: its literals are read, its names looked up and its types chosen by the catalogue and
//! the settings of that moment, and stay so (`plancache.c`). So every Parse of a client goes to a backend, and clients
//! share a statement only when their analyses came out the same: the same text, types of parameters and columns, under
//! the same settings. A backend that lacks a statement prepares it with the types that were chosen then, and is
//! believed only if the columns come out the same.

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use lru::LruCache;
use smallvec::SmallVec;

use super::settings::Settings;
use crate::sql::{Context, Digest, StatementEffects, classify};
use crate::wire::build::split_cstring;

/// Prefix of the names we use towards Postgres.
pub(crate) const NAME_PREFIX: &[u8] = b"pgweir_";

/// A statement that a client has prepared.
#[derive(Debug)]
pub(crate) struct Statement {
    /// Unique in this process: two analyses never share one.
    pub id: u64,
    /// The body of its Parse behind the name: text and parameter types as the client gave them. Empty for a text too
    /// large to be kept: only the backend that parsed it has it.
    pub rest: Box<[u8]>,
    /// Its effects on the session when executed; `None`: none.
    pub class: Option<Arc<StatementEffects>>,
    /// Settings in force at its analysis.
    pub settings: Settings,
    /// Digest of its text, where statements are counted.
    pub digest: Digest,
    /// The text and types that the client sent, if others are parsed instead.
    original: Box<[u8]>,
    /// No backend has analysed it for its client yet: the analysis is that of another Parse of the same text.
    is_borrowed: bool,
    analysis: OnceLock<Analysis>,
}

/// The outcome of an analysis, as Describe tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Analysis {
    /// Body of the ParameterDescription: a count and the types.
    parameters: Box<[u8]>,
    /// Hash of the RowDescription: names and types.
    columns: u64,
}

/// Bytes of a column of RowDescription behind its name: table, number in it, type, size, modifier, format.
const COLUMN_LEN: usize = 18;
/// Bytes of the first two.
const TABLE_LEN: usize = 6;

impl Analysis {
    /// From the bodies of ParameterDescription and RowDescription; the latter is empty for a statement without rows.
    pub(crate) fn new(parameters: &[u8], columns: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        let (count, mut rest) = columns.split_at(columns.len().min(2));
        hasher.write(count);
        while let Some((name, column)) = split_cstring(rest) {
            let Some((column, next)) = column.split_at_checked(COLUMN_LEN) else { break };
            hasher.write(name);
            // Not the table and the number in it: Postgres compares neither (`equalTupleDescs` of `tupdesc.c`).
            hasher.write(&column[TABLE_LEN..]);
            rest = next;
        }
        Self { parameters: parameters.into(), columns: hasher.finish() }
    }

    /// Body of its ParameterDescription.
    pub(crate) fn parameters(&self) -> &[u8] {
        &self.parameters
    }

    /// Body of its ParameterDescription, if it has no rows.
    pub(crate) fn parameters_without_rows(&self) -> Option<&[u8]> {
        (self.columns == Self::new(&[], &[]).columns).then_some(&self.parameters)
    }

    /// Number of its parameters.
    pub(crate) fn parameter_count(&self) -> u16 {
        self.parameters.first_chunk().map_or(0, |count| u16::from_be_bytes(*count))
    }

    /// True if the columns are those of the other: Postgres accepts nothing else when it plans a statement anew.
    pub(crate) fn has_columns_of(&self, other: &Self) -> bool {
        self.columns == other.columns
    }
}

impl Statement {
    /// The body of its Parse behind the name; empty if it is too large.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// The text that the client sent, if another is parsed instead.
    pub(crate) fn original_text(&self) -> Option<&[u8]> {
        self.original.iter().position(|byte| *byte == 0).map(|end| &self.original[..end])
    }

    /// The outcome of its analysis; `None`: not answered yet, or its text is too large.
    pub(crate) fn analysis(&self) -> Option<&Analysis> {
        self.analysis.get()
    }

    /// The outcome of an analysis under settings of its transaction alone: nobody else shares the statement.
    pub(crate) fn analysed_alone(&self, analysis: Analysis) {
        drop(self.analysis.set(analysis));
    }

    /// Analysed for another client so far: the first backend that prepares it decides what it means.
    #[inline]
    pub(crate) fn is_borrowed(&self) -> bool {
        self.is_borrowed
    }

    /// Bytes of its texts.
    pub(crate) fn len(&self) -> usize {
        self.rest.len() + self.original.len()
    }

    /// Its text was too large to be kept.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        self.rest.is_empty()
    }

    /// True if Postgres prepares it in a failed transaction, too: it ends the transaction or a part of it, or is empty.
    pub(crate) fn is_taken_when_failed(&self, lexer: Context) -> bool {
        match &self.class {
            Some(class) => class.leaves_failed_transaction(),
            None => split_cstring(&self.rest).is_some_and(|(text, _)| classify(text, lexer).statements == 0),
        }
    }

    /// The body of a Parse that leaves Postgres no choice of types, behind the name.
    pub(crate) fn rest_with_types(&self) -> Vec<u8> {
        match (self.analysis.get(), split_cstring(&self.rest)) {
            (Some(analysis), Some((text, _))) => [text, b"\0", &analysis.parameters].concat(),
            _ => self.rest.to_vec(),
        }
    }
}

/// A name towards Postgres.
pub(crate) type Name = SmallVec<[u8; 24]>;

/// The name of a backend's `number`th statement, without the terminator.
pub(crate) fn name(number: u64) -> Name {
    let mut name = Name::from_slice(NAME_PREFIX);
    write!(name, "{number:x}").expect("writing to memory cannot fail");
    name
}

/// A statement's name at a backend.
#[derive(Debug, Clone)]
pub(crate) struct BackendName {
    pub number: u64,
    pub name: Name,
}

impl BackendName {
    fn new(number: u64) -> Self {
        Self { number, name: name(number) }
    }
}

/// The statements that one backend has, each under a number of its own that is never used again.
#[derive(Debug)]
pub struct PreparedStatements {
    /// Numbers by the ids of statements, the one used longest ago first to go.
    numbers: LruCache<u64, BackendName>,
    next: u64,
    /// Numbers that nobody uses any more: closed in front of the next Parse.
    outdated: Vec<u64>,
}

impl Default for PreparedStatements {
    fn default() -> Self {
        // Unbounded: the code that adds a statement also sends the Close of the one that makes room, and the bound may
        // change.
        Self { numbers: LruCache::unbounded(), next: 0, outdated: Vec::new() }
    }
}

impl PreparedStatements {
    /// The number and name of a statement that the backend has, or will have once it is there.
    #[inline]
    pub(crate) fn find(&mut self, id: u64) -> Option<&BackendName> {
        self.numbers.get(&id)
    }

    /// A new number for a statement that is about to be parsed.
    pub(crate) fn prepare(&mut self, id: u64) -> u64 {
        let number = self.next;
        self.next += 1;
        self.outdated.extend(self.numbers.put(id, BackendName::new(number)).map(|before| before.number));
        number
    }

    /// The Parse of a statement failed, or was never read.
    pub(crate) fn forget(&mut self, id: u64) {
        self.numbers.pop(&id);
    }

    /// What the backend prepared is not the statement.
    pub(crate) fn reject(&mut self, id: u64) {
        self.outdated.extend(self.numbers.pop(&id).map(|name| name.number));
    }

    /// The id of the statement of this number.
    pub(crate) fn id_of(&self, number: u64) -> Option<u64> {
        self.numbers.iter().find(|(_, known)| known.number == number).map(|(id, _)| *id)
    }

    /// The backend has no statement of this number after all.
    pub(crate) fn forget_number(&mut self, number: u64) {
        let id = self.id_of(number);
        id.into_iter().for_each(|id| self.forget(id));
    }

    /// A draft turned out to be the statement `id`.
    pub(crate) fn is_now(&mut self, draft: u64, id: u64) {
        if draft != id
            && let Some(name) = self.numbers.pop(&draft)
        {
            self.outdated.extend(self.numbers.put(id, name).map(|before| before.number));
        }
    }

    /// The next number to close: outdated ones, and those used longest ago while there are `most` or more.
    pub(crate) fn next_to_close(&mut self, most: usize) -> Option<u64> {
        self.outdated.pop().or_else(|| {
            let is_full = self.numbers.len() >= most;
            is_full.then(|| self.numbers.pop_lru()).flatten().map(|(_, name)| name.number)
        })
    }

    /// A Close was never read.
    pub(crate) fn not_closed(&mut self, number: u64) {
        self.outdated.push(number);
    }

    /// The backend has dropped all of them.
    pub(crate) fn clear(&mut self) {
        self.numbers.clear();
        self.outdated.clear();
    }
}

/// All statements of the process that some client holds.
#[derive(Debug, Default)]
pub(crate) struct Statements {
    known: Mutex<KnownStatements>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct KnownStatements {
    by_key: HashMap<Box<[u8]>, Weak<Statement>>,
    /// The last analysis of each text, by the hash of [`KnownStatements::text_key`].
    recent: HashMap<u64, RecentAnalysis>,
    hashing: RandomState,
    /// Entries at which dead ones are looked for.
    sweep_at: usize,
}

/// The outcome of the last analysis of a text.
#[derive(Debug)]
struct RecentAnalysis {
    statement: Weak<Statement>,
    pool: u64,
    /// When it was analysed, in seconds of the process.
    second: u32,
}

/// Seconds that an analysis counts as recent.
const RECENT: u32 = 10;

/// Fewest entries at which a sweep is worth it.
const SWEEP_MIN: usize = 1024;

impl Statements {
    /// A statement that is being parsed. `rest`: the body of its Parse behind the name; empty if it is too large.
    /// `original`: the one that the client sent, if another is parsed instead.
    pub(crate) fn draft(
        &self,
        rest: &[u8],
        original: &[u8],
        class: Option<Arc<StatementEffects>>,
        settings: Settings,
        digest: Digest,
    ) -> Arc<Statement> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (rest, original) = (rest.into(), original.into());
        let analysis = OnceLock::new();
        Arc::new(Statement { id, rest, class, settings, digest, original, is_borrowed: false, analysis })
    }

    /// A statement of the same text and settings that is still to be analysed.
    fn draft_like(&self, other: &Statement) -> Arc<Statement> {
        let (class, settings) = (other.class.clone(), other.settings.clone());
        self.draft(&other.rest, &other.original, class, settings, other.digest)
    }

    /// A statement of a client whose text no backend has read, with the analysis of another meanwhile.
    fn borrowed(&self, other: &Statement) -> Arc<Statement> {
        let mut statement = self.draft_like(other);
        let draft = Arc::get_mut(&mut statement).expect("nobody else has it yet");
        draft.is_borrowed = true;
        draft.analysis = other.analysis.clone();
        statement
    }

    /// What a borrowed statement turns out to be, as with [`Self::analysed`].
    pub(crate) fn analysed_after_all(&self, borrowed: &Statement, pool: u64, analysis: Analysis) -> Arc<Statement> {
        self.analysed(&self.draft_like(borrowed), pool, analysis)
    }

    /// The statement that a draft turns out to be: itself, or one of the same pool whose analysis came out the same.
    pub(crate) fn analysed(&self, draft: &Arc<Statement>, pool: u64, analysis: Analysis) -> Arc<Statement> {
        let scope = [pool, draft.settings.meaning(), analysis.columns].map(u64::to_be_bytes).concat();
        let key: Box<[u8]> = [&draft.rest, &scope[..], &analysis.parameters, &draft.original].concat().into();
        drop(draft.analysis.set(analysis));
        let mut known = self.known.lock().expect("no panic while held");
        if let Some(statement) = known.by_key.get(&key).and_then(Weak::upgrade) {
            return statement;
        }
        if known.by_key.len() >= known.sweep_at {
            known.by_key.retain(|_, statement| statement.strong_count() > 0);
            known.recent.retain(|_, recent| recent.statement.strong_count() > 0);
            known.sweep_at = SWEEP_MIN.max(known.by_key.len() * 2);
        }
        known.by_key.insert(key, Arc::downgrade(draft));
        Arc::clone(draft)
    }

    /// A backend analysed the text of this statement now, at this second of the process.
    pub(crate) fn is_recent(&self, statement: &Arc<Statement>, pool: u64, second: u32) {
        // Another text was analysed than the one that clients send.
        if !statement.original.is_empty() || statement.is_large() {
            return;
        }
        let mut known = self.known.lock().expect("no panic while held");
        let key = known.text_key(&statement.rest, pool, statement.settings.meaning());
        known.recent.insert(key, RecentAnalysis { statement: Arc::downgrade(statement), pool, second });
    }

    /// The statement of a Parse that no backend reads now: it borrows the analysis that the same Parse got last, if
    /// that was moments before this second. `rest`: the body of the Parse behind the name. `meaning`: that of the
    /// settings in force.
    pub(crate) fn recent(&self, rest: &[u8], pool: u64, meaning: u64, second: u32) -> Option<Arc<Statement>> {
        let known = self.known.lock().expect("no panic while held");
        let recent = known.recent.get(&known.text_key(rest, pool, meaning))?;
        let statement = recent.statement.upgrade()?;
        let is_same = *statement.rest == *rest && statement.settings.meaning() == meaning && recent.pool == pool;
        (is_same && second.saturating_sub(recent.second) < RECENT).then(|| self.borrowed(&statement))
    }

    /// A catalogue has changed: no text is known to mean what it meant.
    pub(crate) fn none_is_recent(&self) {
        self.known.lock().expect("no panic while held").recent.clear();
    }

    /// The statement is no longer what its text means.
    pub(crate) fn outdated(&self, statement: &Statement, pool: u64) {
        let mut known = self.known.lock().expect("no panic while held");
        let key = known.text_key(&statement.rest, pool, statement.settings.meaning());
        known.recent.remove(&key);
    }
}

impl KnownStatements {
    fn text_key(&self, rest: &[u8], pool: u64, meaning: u64) -> u64 {
        self.hashing.hash_one((rest, pool, meaning))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::settings::SettingsRegistry;

    #[test]
    fn statements_are_shared_only_if_their_analyses_came_out_the_same() {
        let (statements, none) = (Statements::default(), SettingsRegistry::default().none());
        let parse = |pool, parameters: &[u8], columns: &[u8]| {
            let draft = statements.draft(b"SELECT $1\0\0\0", b"", None, none.clone(), Digest::NONE);
            statements.analysed(&draft, pool, Analysis::new(parameters, columns))
        };
        let column = |name: &str, table: u8, kind: u8| {
            [b"\0\x01", name.as_bytes(), &[0, 0, 0, 0, table, 0, 1, 0, 0, 0, kind, 0, 4, 255, 255, 255, 255, 0, 0]]
                .concat()
        };
        let first = parse(1, b"\0\x01\0\0\0\x17", &column("a", 7, 23));
        assert!(Arc::ptr_eq(&first, &parse(1, b"\0\x01\0\0\0\x17", &column("a", 7, 23))));
        // Of a table that was made again.
        assert!(Arc::ptr_eq(&first, &parse(1, b"\0\x01\0\0\0\x17", &column("a", 8, 23))));
        for other in [
            parse(2, b"\0\x01\0\0\0\x17", &column("a", 7, 23)),
            parse(1, b"\0\x01\0\0\0\x14", &column("a", 7, 23)),
            parse(1, b"\0\x01\0\0\0\x17", &column("a", 7, 20)),
            parse(1, b"\0\x01\0\0\0\x17", &column("b", 7, 23)),
        ] {
            assert!(!Arc::ptr_eq(&first, &other));
        }
    }

    #[test]
    fn a_text_is_known_for_a_while_after_its_analysis() {
        let (statements, none) = (Statements::default(), SettingsRegistry::default().none());
        let draft = statements.draft(b"SELECT $1\0\0\0", b"", None, none.clone(), Digest::NONE);
        let statement = statements.analysed(&draft, 1, Analysis::new(b"\0\x01\0\0\0\x17", b""));
        statements.is_recent(&statement, 1, 100);
        let recent = |rest: &[u8], pool, second| statements.recent(rest, pool, none.meaning(), second);
        assert!(recent(b"SELECT $1\0\0\0", 1, 100 + RECENT - 1).is_some_and(|known| known.is_borrowed()
            && known.id != statement.id
            && known.analysis() == statement.analysis()));
        assert!(recent(b"SELECT $1\0\0\0", 1, 100 + RECENT).is_none());
        assert!(recent(b"SELECT $1\0\0\0", 2, 100).is_none());
        assert!(recent(b"SELECT 1\0\0\0", 1, 100).is_none());
        statements.outdated(&statement, 1);
        assert!(recent(b"SELECT $1\0\0\0", 1, 100).is_none());
    }

    #[test]
    fn a_statement_is_prepared_again_with_the_types_that_were_chosen() {
        let (statements, none) = (Statements::default(), SettingsRegistry::default().none());
        let draft = statements.draft(b"SELECT $1\0\0\0", b"", None, none, Digest::NONE);
        assert_eq!(draft.rest_with_types(), b"SELECT $1\0\0\0");
        statements.analysed(&draft, 1, Analysis::new(b"\0\x01\0\0\0\x17", b""));
        assert_eq!(draft.rest_with_types(), b"SELECT $1\0\0\x01\0\0\0\x17");
    }

    fn number(prepared: &mut PreparedStatements, id: u64) -> Option<u64> {
        prepared.find(id).map(|name| name.number)
    }

    #[test]
    fn a_number_is_never_used_again() {
        let mut prepared = PreparedStatements::default();
        assert_eq!((prepared.prepare(7), number(&mut prepared, 7)), (0, Some(0)));
        prepared.forget(7);
        assert_eq!((prepared.prepare(7), prepared.prepare(8)), (1, 2));
        prepared.is_now(8, 7);
        assert_eq!((number(&mut prepared, 8), number(&mut prepared, 7)), (None, Some(2)));
        assert_eq!(
            (prepared.next_to_close(9), prepared.next_to_close(9), prepared.next_to_close(1)),
            (Some(1), None, Some(2))
        );
        prepared.clear();
        assert_eq!(prepared.prepare(7), 3);
    }

    #[test]
    fn names_never_end() {
        assert_eq!(&name(u64::MAX)[..], b"pgweir_ffffffffffffffff");
    }
}
