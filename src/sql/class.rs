//! What a text does to its session: the types, and [`classify`], the one pass that fills them.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use bytes::Bytes;
use smallvec::SmallVec;

use super::keyword::*;
use super::notify;
use super::quick;
use super::read;
use super::scan::{Scanner, Settings, Statement};
use super::set::{self, Scope, Setting};

/// What the lexer must know about the session that the text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The setting of that name: on, a backslash in a plain literal is a backslash.
    pub standard_conforming_strings: bool,
    /// Every byte below 0x80 in the client's encoding is the ASCII character. False for SJIS, SHIFT_JIS_2004, BIG5, GBK, UHC, GB18030
    /// and JOHAB, whose second bytes may look like one.
    pub ascii_safe: bool,
}

impl Context {
    /// What `client_encoding` and `standard_conforming_strings` are, as their ParameterStatus reports them.
    pub fn new(client_encoding: &str, standard_conforming_strings: bool) -> Self {
        let is_unsafe = ["SJIS", "SHIFT_JIS_2004", "BIG5", "GBK", "UHC", "GB18030", "JOHAB"].contains(&client_encoding);
        Self { standard_conforming_strings, ascii_safe: !is_unsafe }
    }
}

impl Default for Context {
    fn default() -> Self {
        Self { standard_conforming_strings: true, ascii_safe: true }
    }
}

/// What one text does. Kept with a prepared statement, so that it is asked once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Class {
    /// Statements that are not empty: as many as CommandCompletes to expect if none fails.
    pub statements: u32,
    /// State that the text may create.
    pub may_begin: Suspects,
    /// State that the text may end. Nothing to ask about while the client has none.
    pub may_end: Suspects,
    /// What was read exactly, in order of execution; nothing for an ordinary statement.
    pub effects: Effects,
    /// Settings get values in it, by a SET or a call of `set_config`: [`replace_values`](super::replace_values) may find them.
    pub assigns: bool,
    /// Settings whose values were replaced in the text as it was sent, each with the number of its statement.
    pub replaced: Vec<(u32, String)>,
    /// Statements of the text were replaced by [`stand_ins`](super::stand_ins).
    pub stands_in: bool,
}

impl Class {
    /// Whether the text leaves the session as it was, so that nothing has to be followed or asked.
    pub fn is_ordinary(&self) -> bool {
        self.effects.is_empty() && (self.may_begin | self.may_end).is_empty() && !self.assigns
    }

    /// Whether [`stand_ins`](super::stand_ins) may find something in the text.
    pub fn concerns_channels(&self) -> bool {
        self.effects.iter().any(|(_, effect)| effect.concerns_channels())
    }

    /// Whether a statement of the text begins or ends a transaction block or a savepoint.
    pub fn controls_transaction(&self) -> bool {
        self.effects.iter().any(|(_, effect)| effect.controls_transaction())
    }
}

/// Effects, each with the number of its statement among those not empty, from zero. One fits without an allocation.
pub type Effects = SmallVec<[(u32, Effect); 1]>;

/// What a statement does to its session if it succeeds. Names are folded and cut to 63 bytes as Postgres does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// BEGIN, START TRANSACTION.
    Begin,
    /// COMMIT, END.
    Commit {
        /// AND CHAIN: another transaction begins at once.
        chain: bool,
    },
    /// ROLLBACK, ABORT.
    Rollback {
        /// AND CHAIN: another transaction begins at once.
        chain: bool,
    },
    /// SAVEPOINT.
    Savepoint(Bytes),
    /// RELEASE \[SAVEPOINT\].
    Release(Bytes),
    /// ROLLBACK TO \[SAVEPOINT\].
    RollbackTo(Bytes),
    /// PREPARE TRANSACTION: the block ends, its settings are kept as after a COMMIT.
    PrepareTransaction,
    /// SET, `set_config` with literals, and every special form of SET that is a setting underneath.
    Set {
        /// How long it lasts.
        scope: Scope,
        /// Name and value.
        setting: Setting,
    },
    /// RESET, and SET … TO DEFAULT for the session.
    Reset(String),
    /// RESET ALL: every setting but `role`, `session_authorization` and those of the transaction (`GUC_NO_RESET_ALL`).
    ResetAll,
    /// SET SESSION AUTHORIZATION, in any form; never followed, so the suspect says whether it begins or ends.
    SetSessionAuthorization {
        /// Back to the role of the login.
        to_default: bool,
    },
    /// SET TRANSACTION, SET CONSTRAINTS and settings of the transaction: over with it.
    SetTransaction,
    /// DISCARD ALL.
    DiscardAll,
    /// DISCARD of one kind.
    Discard(Discarded),
    /// PREPARE name AS.
    Prepare(Bytes),
    /// DEALLOCATE name.
    Deallocate(Bytes),
    /// DEALLOCATE ALL.
    DeallocateAll,
    /// LISTEN channel.
    Listen(Bytes),
    /// UNLISTEN channel.
    Unlisten(Bytes),
    /// UNLISTEN *.
    UnlistenAll,
    /// NOTIFY, and a SELECT of one `pg_notify`.
    Notify {
        /// Which of the two.
        form: Form,
        /// The channel.
        channel: Argument,
        /// Empty if a NOTIFY gives none.
        payload: Argument,
    },
    /// A SELECT of `pg_listening_channels()` and nothing else.
    ListeningChannels,
}

/// How a notification is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `NOTIFY`, whose arguments are texts.
    Command,
    /// `SELECT pg_notify(…)`, whose channel is neither folded nor cut.
    Call,
}

/// What is given to `pg_notify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A literal, decoded, in the client's encoding.
    Text(Bytes),
    /// NULL: an empty payload, or a channel that Postgres refuses.
    Null,
    /// `$1` and so on: its number, and its type is text if nothing else was declared.
    Parameter(u16),
}

impl Effect {
    /// Whether it begins or ends a transaction block or a savepoint.
    pub fn controls_transaction(&self) -> bool {
        matches!(
            self,
            Self::Begin
                | Self::Commit { .. }
                | Self::Rollback { .. }
                | Self::Savepoint(_)
                | Self::Release(_)
                | Self::RollbackTo(_)
                | Self::PrepareTransaction
        )
    }

    /// Whether it is one that [`stand_ins`](super::stand_ins) may be asked about.
    pub fn concerns_channels(&self) -> bool {
        matches!(self, Self::Listen(_) | Self::Notify { .. } | Self::ListeningChannels)
    }
}

/// What DISCARD throws away, ALL aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    /// Cached plans.
    Plans,
    /// Cached sequence values and `lastval`.
    Sequences,
    /// Temporary tables.
    Temp,
}

/// Kinds of session state that a text may touch in ways only the server can tell.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Suspects(u16);

impl Suspects {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Temporary tables, views, sequences and functions.
    pub const TEMP: Self = Self(1);
    /// Cursors WITH HOLD.
    pub const HOLD: Self = Self(1 << 1);
    /// Session-level advisory locks.
    pub const ADVISORY: Self = Self(1 << 2);
    /// Statements of SQL PREPARE.
    pub const PREPARE: Self = Self(1 << 3);
    /// Channels listened to.
    pub const LISTEN: Self = Self(1 << 4);
    /// Settings changed in a form that could not be read.
    pub const SETTINGS: Self = Self(1 << 5);
    /// SET SESSION AUTHORIZATION.
    pub const AUTHORIZATION: Self = Self(1 << 6);
    /// A loaded library.
    pub const LOAD: Self = Self(1 << 7);
    /// The text could not be cut or read: it may do anything, and its count and effects mean nothing.
    pub const UNCERTAIN: Self = Self(1 << 8);

    /// What a statement of SQL PREPARE may do when it is executed; settings were suspected when it was prepared.
    pub(super) const EXECUTED: Self = Self(Self::TEMP.0 | Self::ADVISORY.0);
    /// What a name written as `U&""` may hide.
    pub(super) const HIDDEN: Self = Self(Self::TEMP.0 | Self::ADVISORY.0 | Self::SETTINGS.0);
    /// What DISCARD ALL ends.
    const DISCARDED: Self = Self(
        Self::TEMP.0
            | Self::HOLD.0
            | Self::ADVISORY.0
            | Self::PREPARE.0
            | Self::LISTEN.0
            | Self::SETTINGS.0
            | Self::AUTHORIZATION.0,
    );

    const NAMES: [(&str, Self); 9] = [
        ("TEMP", Self::TEMP),
        ("HOLD", Self::HOLD),
        ("ADVISORY", Self::ADVISORY),
        ("PREPARE", Self::PREPARE),
        ("LISTEN", Self::LISTEN),
        ("SETTINGS", Self::SETTINGS),
        ("AUTHORIZATION", Self::AUTHORIZATION),
        ("LOAD", Self::LOAD),
        ("UNCERTAIN", Self::UNCERTAIN),
    ];

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is among these.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// All of both.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are in both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// These without `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Suspects {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Suspects {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Suspects {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::NAMES.iter().filter(|(_, one)| self.contains(*one)).map(|(name, _)| *name);
        write!(formatter, "Suspects({})", names.collect::<Vec<_>>().join(" | "))
    }
}

/// What `text` does to its session.
#[inline]
pub fn classify(text: &[u8], context: Context) -> Class {
    if context.ascii_safe && quick::is_ordinary(text) {
        return Class { statements: 1, ..Class::default() };
    }
    classify_slowly(text, context)
}

/// One pass; a second one over the few statements that have an effect.
pub(super) fn classify_slowly(text: &[u8], context: Context) -> Class {
    let mut class = Class::default();
    if !context.ascii_safe && !text.is_ascii() {
        class.may_begin = Suspects::UNCERTAIN;
        return class;
    }
    let mut scanner = Scanner::new(text, context);
    while let Some(statement) = scanner.statement() {
        class.add(text, context, &statement);
        class.statements += 1;
    }
    if class.may_begin.contains(Suspects::UNCERTAIN) {
        class.effects.clear();
    }
    class
}

impl Class {
    fn add(&mut self, text: &[u8], context: Context, statement: &Statement) {
        self.may_begin |= statement.may_begin;
        self.may_end |= statement.may_end;
        self.assigns |= statement.head == SET || statement.settings != Settings::Untouched;
        let text = &text[statement.span.clone()];
        match statement.head {
            SELECT if statement.settings != Settings::Untouched => match set::read_select(text, context) {
                Some(effects) => effects.into_iter().for_each(|effect| self.push(effect)),
                None if statement.settings == Settings::Session => self.may_begin |= Suspects::SETTINGS,
                None => {}
            },
            SELECT if statement.names_channels => {
                if let Some(effect) = notify::read_select(text, context) {
                    self.push(effect);
                }
            }
            SELECT => {}
            SET => match set::read_set(text, context) {
                Some(effects) => effects.into_iter().for_each(|effect| self.push(effect)),
                None => self.may_begin |= Suspects::SETTINGS,
            },
            RESET => match set::read_reset(text, context) {
                Some(effect) => self.push(effect),
                None => self.may_begin |= Suspects::SETTINGS,
            },
            PREPARE if statement.settings == Settings::Session => {
                self.may_begin |= Suspects::PREPARE | Suspects::SETTINGS
            }
            BEGIN | START | COMMIT | END | ROLLBACK | ABORT | SAVEPOINT | RELEASE | PREPARE | DEALLOCATE | LISTEN
            | UNLISTEN | NOTIFY | DISCARD => match read::read(text, context, statement.head) {
                Some(Some(effect)) => self.push(effect),
                Some(None) => {}
                None => self.may_begin |= Suspects::UNCERTAIN,
            },
            CLOSE => self.may_end |= Suspects::HOLD,
            DROP => self.may_end |= Suspects::TEMP,
            LOAD => self.may_begin |= Suspects::LOAD,
            _ if statement.settings == Settings::Session => self.may_begin |= Suspects::SETTINGS,
            _ => {}
        }
    }

    fn push(&mut self, effect: Effect) {
        let (begin, end) = effect.suspects();
        self.may_begin |= begin;
        self.may_end |= end;
        self.effects.push((self.statements, effect));
    }
}

impl Effect {
    /// What an effect may begin and end that is worth asking about.
    fn suspects(&self) -> (Suspects, Suspects) {
        use Suspects as S;
        match self {
            // A table created without TEMP is temporary if pg_temp comes first.
            Self::Set { setting, .. } if setting.names_pg_temp() => (S::TEMP, S::NONE),
            Self::SetSessionAuthorization { to_default: false } => (S::AUTHORIZATION, S::NONE),
            Self::SetSessionAuthorization { to_default: true } => (S::NONE, S::AUTHORIZATION),
            Self::DiscardAll => (S::NONE, S::DISCARDED),
            Self::Discard(Discarded::Temp) => (S::NONE, S::TEMP),
            Self::Prepare(_) => (S::PREPARE, S::NONE),
            Self::Deallocate(_) | Self::DeallocateAll => (S::NONE, S::PREPARE),
            Self::Listen(_) => (S::LISTEN, S::NONE),
            Self::Unlisten(_) | Self::UnlistenAll => (S::NONE, S::LISTEN),
            _ => (S::NONE, S::NONE),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn class(text: &str) -> Class {
        classify(text.as_bytes(), Context::default())
    }

    #[test]
    fn ordinary_statements_have_no_effect_and_no_suspect() {
        for text in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = 1;",
            "SELECT temp, hold FROM sensors WHERE pg_advisory_lock = 'pg_advisory_lock(1)'",
            "INSERT INTO temp VALUES ('pg_temp')",
            "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(2)",
            "DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$",
            "DECLARE hold CURSOR FOR SELECT 1",
            "SELECT set_config FROM t",
        ] {
            assert!(class(text).is_ordinary(), "{text}: {:?}", class(text));
        }
    }

    #[test]
    fn state_that_may_begin_is_suspected() {
        for (text, suspects) in [
            ("CREATE TEMP TABLE t (a int)", Suspects::TEMP),
            ("CREATE OR REPLACE LOCAL TEMPORARY VIEW v AS SELECT 1", Suspects::TEMP),
            ("SELECT 1 INTO TEMP x", Suspects::TEMP),
            ("EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1", Suspects::TEMP),
            ("CREATE TABLE \"pg_temp\".t (a int)", Suspects::TEMP),
            ("SET search_path = 'pg_temp'", Suspects::TEMP),
            ("DECLARE c CURSOR /* ; */ WITH HOLD FOR SELECT 1", Suspects::HOLD),
            ("SELECT PG_Advisory_Lock /* x */ (1)", Suspects::ADVISORY),
            ("WITH x AS (SELECT \"pg_try_advisory_lock_shared\"(1)) SELECT 1", Suspects::ADVISORY),
            ("PREPARE p AS SELECT 1", Suspects::PREPARE),
            ("LISTEN a", Suspects::LISTEN),
            ("SET SESSION AUTHORIZATION x", Suspects::AUTHORIZATION),
            ("SET session_authorization = 'x'", Suspects::AUTHORIZATION),
            ("LOAD 'x'", Suspects::LOAD),
            ("EXECUTE p", Suspects::EXECUTED),
            ("PREPARE p AS SELECT set_config($1, $2, false)", Suspects::PREPARE | Suspects::SETTINGS),
            ("SELECT U&\"pg_advisory\\005flock\"(1)", Suspects::HIDDEN),
        ] {
            let class = class(text);
            assert_eq!((class.may_begin, class.may_end), (suspects, Suspects::NONE), "{text}");
        }
    }

    #[test]
    fn driver_boilerplate_can_only_end_state() {
        let asyncpg = class("SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;");
        assert_eq!(asyncpg.statements, 4);
        assert_eq!(asyncpg.may_begin, Suspects::NONE);
        assert_eq!(asyncpg.may_end, Suspects::ADVISORY | Suspects::HOLD | Suspects::LISTEN);
        assert_eq!(asyncpg.effects[..], [(2, Effect::UnlistenAll), (3, Effect::ResetAll)]);
        for text in ["DISCARD ALL", "DEALLOCATE ALL", "SET SESSION AUTHORIZATION DEFAULT", "DROP TABLE t"] {
            let class = class(text);
            assert!(class.may_begin.is_empty() && !class.may_end.is_empty(), "{text}");
        }
    }

    #[test]
    fn effects_carry_the_number_of_their_statement() {
        let class = class("BEGIN;; SELECT 1; SET LOCAL a = 1; COMMIT");
        assert_eq!(class.effects.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 2, 3]);
        assert!(class.controls_transaction());
    }

    #[test]
    fn what_does_not_end_is_uncertain_and_has_no_effect() {
        for text in ["SET x = 'a", "BEGIN; SELECT \"a", "BEGIN; /* ", "SET a = $x$"] {
            let class = class(text);
            assert!(class.may_begin.contains(Suspects::UNCERTAIN), "{text}");
            assert!(class.effects.is_empty(), "{text}");
        }
    }

    #[test]
    fn encodings_whose_second_bytes_look_like_ascii_are_uncertain() {
        let context = Context::new("SJIS", true);
        assert_eq!(classify("SELECT 'é'".as_bytes(), context).may_begin, Suspects::UNCERTAIN);
        assert!(classify(b"SELECT 1", context).is_ordinary());
        assert!(classify("SELECT 'é'".as_bytes(), Context::new("UTF8", true)).is_ordinary());
    }

    #[test]
    fn nested_calls_cost_no_more_than_their_length() {
        let text = "SELECT ".to_owned() + &"set_config(".repeat(200_000);
        assert_eq!(class(&text).may_begin, Suspects::SETTINGS);
    }

    #[test]
    fn suspects_print_their_names() {
        assert_eq!(format!("{:?}", Suspects::TEMP | Suspects::LOAD), "Suspects(TEMP | LOAD)");
    }

    proptest! {
        #[test]
        fn any_bytes_are_classified(text: Vec<u8>, standard_conforming_strings: bool, ascii_safe: bool) {
            classify(&text, Context { standard_conforming_strings, ascii_safe });
        }

        #[test]
        fn any_mix_of_hard_words_is_classified(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "SET ", "LOCAL ", "SESSION ", "a", " TO ", "'", "\"", "E'", "\\", "$$", "$a$", "(", ")", ";", "/*", "*/", "--", "\n",
                    "SELECT ", "set_config(", "true", ",", "BEGIN ", "ATOMIC ", "END", "CREATE ", "FUNCTION ", "U&\"", "1", ".", "=",
                    "NOTIFY ", "PREPARE ", "TIME ZONE ", "DEFAULT", "ROLE ", "é",
                ]),
                0..24,
            ),
        ) {
            class(&parts.concat());
        }
    }
}
