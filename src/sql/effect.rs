//! Results of reading a text: its effects one by one, the settings they give, and the kinds of state it may touch.

use bytes::Bytes;
use smallvec::SmallVec;

use super::state_flags::StateFlags;

/// Facts about the session that the lexer needs to read its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The setting of that name: on, a backslash in a plain literal is a backslash.
    pub standard_conforming_strings: bool,
    /// The client's encoding [is safe](super::is_ascii_safe): every byte below 0x80 is the ASCII character.
    pub ascii_safe: bool,
}

impl Default for Context {
    fn default() -> Self {
        Self { standard_conforming_strings: true, ascii_safe: true }
    }
}

/// The effects of one text. Kept with a prepared statement, so that its text is read once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatementEffects {
    /// Statements that are not empty: as many as CommandCompletes to expect if none fails.
    pub statements: u32,
    /// State that the text may create.
    pub may_begin: StateFlags,
    /// State that the text may end. Nothing to ask about while the client has none.
    pub may_end: StateFlags,
    /// Effects that were read exactly, in order of execution; none for an ordinary statement.
    pub effects: Effects,
    /// Settings get values in it, by a SET or a call of `set_config`: [`replace_values`](super::replace_values) may
    /// find them.
    pub assigns: bool,
    /// Settings whose values were replaced in the text as it was sent, each with the number of its statement.
    pub replaced: Vec<(u32, String)>,
    /// Statements of the text were replaced by [`stand_ins`](super::stand_ins).
    pub stands_in: bool,
}

impl StatementEffects {
    /// Whether the text leaves the session as it was, so that nothing has to be followed or asked.
    pub fn is_ordinary(&self) -> bool {
        self.effects.is_empty() && (self.may_begin | self.may_end).is_empty() && !self.assigns
    }

    /// Whether [`stand_ins`](super::stand_ins) may find something in the text.
    pub fn concerns_channels(&self) -> bool {
        self.effects.iter().any(|(_, effect)| effect.concerns_channels())
    }

    /// Whether any of the effects is one of these.
    fn has(&self, is_one: impl Fn(&Effect) -> bool) -> bool {
        self.effects.iter().any(|(_, effect)| is_one(effect))
    }

    /// BEGIN or START TRANSACTION.
    pub fn begins_transaction(&self) -> bool {
        self.has(|effect| matches!(effect, Effect::Begin))
    }

    /// COMMIT, ROLLBACK or PREPARE TRANSACTION.
    pub fn ends_transaction(&self) -> bool {
        self.has(|effect| {
            matches!(effect, Effect::Commit { .. } | Effect::Rollback { .. } | Effect::PrepareTransaction)
        })
    }

    /// PREPARE TRANSACTION.
    pub fn prepares_transaction(&self) -> bool {
        self.has(|effect| matches!(effect, Effect::PrepareTransaction))
    }

    /// NOTIFY, or a SELECT of one `pg_notify`.
    pub fn notifies(&self) -> bool {
        self.has(|effect| matches!(effect, Effect::Notify { .. }))
    }

    /// SET, RESET and their like, for the session.
    pub fn changes_settings(&self) -> bool {
        self.has(|effect| matches!(effect, Effect::Set { .. } | Effect::Reset(_) | Effect::ResetAll))
    }

    /// Whether a statement of the text begins or ends a transaction block or a savepoint.
    pub fn controls_transaction(&self) -> bool {
        self.effects.iter().any(|(_, effect)| effect.controls_transaction())
    }

    /// Adds an effect of the statement now counted, and what it may begin and end.
    pub(super) fn push(&mut self, effect: Effect) {
        let (begin, end) = effect.flags();
        self.may_begin |= begin;
        self.may_end |= end;
        self.effects.push((self.statements, effect));
    }
}

/// Effects, each with the number of its statement among those not empty, from zero. One fits without an allocation.
pub(crate) type Effects = SmallVec<[(u32, Effect); 1]>;

/// The effect of a statement on its session if it succeeds. Names are folded and cut to 63 bytes as Postgres does.
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
    /// SET SESSION AUTHORIZATION, in any form; never followed, so the flag says whether it begins or ends.
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
        /// NOTIFY or the SELECT.
        form: Form,
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

/// An argument of `pg_notify`.
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

    /// The CommandComplete tag of its statement, if its stand-in has another one; `None`: the same.
    pub fn stand_in_tag(&self) -> Option<&'static [u8]> {
        match self {
            Self::Notify { form: Form::Command, .. } => Some(b"NOTIFY"),
            Self::Listen(_) => Some(b"LISTEN"),
            Self::Deallocate(_) => Some(b"DEALLOCATE"),
            Self::DeallocateAll => Some(b"DEALLOCATE ALL"),
            _ => None,
        }
    }

    /// State that the effect may begin and state that it may end, if worth asking the server about.
    fn flags(&self) -> (StateFlags, StateFlags) {
        use StateFlags as S;
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

/// The state that DISCARD throws away, ALL aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    /// Cached plans.
    Plans,
    /// Cached sequence values and `lastval`.
    Sequences,
    /// Temporary tables.
    Temp,
}

/// How long a setting lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// For the session, if the transaction commits.
    Session,
    /// SET LOCAL: to the end of the transaction.
    Local,
}

/// A setting and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// In lower case, with its dot if it is custom.
    pub name: String,
    pub value: Value,
}

impl Setting {
    /// A value as StartupMessage and `set_config` carry it.
    pub(super) fn text(name: &str, value: impl Into<Bytes>) -> Self {
        Self { name: name.to_owned(), value: Value::Text(value.into()) }
    }

    /// A `search_path` with the session's temporary schema in it.
    pub(super) fn names_pg_temp(&self) -> bool {
        let value = match &self.value {
            Value::Default => return false,
            Value::Text(bytes) | Value::Raw(bytes) => bytes,
        };
        self.name == "search_path" && value.to_ascii_lowercase().windows(7).any(|part| part == b"pg_temp")
    }
}

/// The value of a setting, in the client's encoding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// The value that the session began with.
    Default,
    /// One string, as StartupMessage and `set_config` carry it; a list in it is not yet split.
    Text(Bytes),
    /// SQL as it stood behind TO. Lists of quoted names (`search_path TO 'a, b'`) mean something else as
    /// [`Value::Text`]. Literals with a backslash are spelled so that both settings of `standard_conforming_strings`
    /// read them alike.
    Raw(Bytes),
}
