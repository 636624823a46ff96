//! Results of reading a text: its effects one by one, the settings they give, and the kinds of state it may touch.

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::encoding::EncodingFamily;
use super::state_flags::StateFlags;

/// Facts about the session that the lexer needs to read its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The setting of that name: on, a backslash in a plain literal is a backslash.
    pub standard_conforming_strings: bool,
    /// Of the client's encoding.
    pub encoding: EncodingFamily,
}

impl Default for Context {
    fn default() -> Self {
        Self { standard_conforming_strings: true, encoding: EncodingFamily::AsciiSafe }
    }
}

impl Context {
    /// For a text that the lexer may read.
    pub(super) fn readable(self) -> Self {
        Self { encoding: EncodingFamily::AsciiSafe, ..self }
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
    /// It may move a sequence: INSERT, MERGE, COPY, CALL, DO, EXECUTE, `nextval` or `setval`. Ordinary texts may, too.
    pub moves_sequence: bool,
    /// It asks for a value that this session got from a sequence: `lastval` or `currval`.
    pub reads_sequence: bool,
    /// Settings get values in it, by a SET or a call of `set_config`: [`replace_values`](super::replace_values) may
    /// find them.
    pub assigns: bool,
    /// Settings whose values were replaced in the text as it was sent, each with the number of its statement.
    pub replaced: Vec<(u32, String)>,
    /// The CommandComplete tags to show for statements, each with its number, in whose place others with other tags
    /// were sent by [`restore_startup`](super::restore_startup).
    pub tags: Vec<(u32, &'static [u8])>,
    /// Statements of the text were replaced by [`stand_ins`](super::stand_ins).
    pub stands_in: bool,
}

impl StatementEffects {
    /// Whether the text leaves the session as it was, so that nothing has to be followed or asked; sequences aside.
    pub fn is_ordinary(&self) -> bool {
        self.effects.is_empty() && (self.may_begin | self.may_end).is_empty() && !self.assigns && !self.reads_sequence
    }

    /// Whether [`stand_ins`](super::stand_ins) may find something in the text.
    pub fn concerns_channels(&self) -> bool {
        self.effects.iter().any(|(_, effect)| effect.concerns_channels())
    }

    /// Whether the text leaves alone all that differs between two sessions of the same settings: it is ordinary, or
    /// controls a transaction and does no more.
    pub fn means_the_same_everywhere(&self) -> bool {
        let is_control = !self.assigns && !self.reads_sequence && (self.may_begin | self.may_end).is_empty();
        self.is_ordinary() || is_control && self.effects.iter().all(|(_, effect)| effect.controls_transaction())
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

    /// Whether Postgres prepares the text in a failed transaction: `IsTransactionExitStmt`.
    pub fn leaves_failed_transaction(&self) -> bool {
        self.ends_transaction() || self.has(|effect| matches!(effect, Effect::RollbackTo(_)))
    }

    /// PREPARE TRANSACTION.
    pub fn prepares_transaction(&self) -> bool {
        self.has(|effect| matches!(effect, Effect::PrepareTransaction))
    }

    /// PREPARE, EXECUTE or DEALLOCATE of a name.
    pub fn names_statements(&self) -> bool {
        self.has(|effect| matches!(effect, Effect::Prepare(_) | Effect::Execute(_) | Effect::Deallocate(_)))
    }

    /// NOTIFY, or a SELECT of one `pg_notify`.
    pub fn notifies(&self) -> bool {
        self.has(|effect| matches!(effect, Effect::Notify { .. }))
    }

    /// LISTEN.
    pub fn listens(&self) -> bool {
        self.has(|effect| matches!(effect, Effect::Listen(_)))
    }

    /// SET, RESET and their like, for the session.
    pub fn changes_settings(&self) -> bool {
        self.has(|effect| {
            matches!(
                effect,
                Effect::Set { .. }
                    | Effect::SetBound { .. }
                    | Effect::SetUnknown { .. }
                    | Effect::SetAny { .. }
                    | Effect::Reset(_)
                    | Effect::ResetAll
            )
        })
    }

    /// Whether a statement of the text begins or ends a transaction block or a savepoint.
    pub fn controls_transaction(&self) -> bool {
        self.effects.iter().any(|(_, effect)| effect.controls_transaction())
    }

    /// Whether all that the text does is to control transactions, or to set the modes of one.
    pub fn controls_transactions_only(&self) -> bool {
        let is_control = |effect: &Effect| effect.controls_transaction() || *effect == Effect::SetTransaction;
        !self.effects.is_empty() && self.effects.iter().all(|(_, effect)| is_control(effect))
    }

    /// Whether the text is one DEALLOCATE. Which names it means is known when it is executed.
    pub(crate) fn is_lone_deallocate(&self) -> bool {
        self.statements == 1 && matches!(self.effects.as_slice(), [(_, Effect::Deallocate(_) | Effect::DeallocateAll)])
    }

    /// The names that it executes or prepares.
    pub(crate) fn executed(&self) -> impl Iterator<Item = &[u8]> {
        self.effects.iter().filter_map(|(_, effect)| match effect {
            Effect::Execute(name) | Effect::Prepare(name) => Some(&name[..]),
            _ => None,
        })
    }

    /// EXECUTE of a name.
    pub fn executes(&self) -> bool {
        self.has(|effect| matches!(effect, Effect::Execute(_)))
    }

    /// A SELECT of one `pg_notify` or of `pg_listening_channels`.
    pub fn calls_of_channels(&self) -> bool {
        self.has(|effect| matches!(effect, Effect::Notify { form: Form::Call, .. } | Effect::ListeningChannels))
    }

    /// Statement `number` executes a prepared one with the effects `prepared`, of whose arguments nothing is known.
    /// `is_direct`: by EXECUTE itself. Within EXPLAIN and CREATE TABLE … AS only a query runs, if at all.
    pub(crate) fn execute(&mut self, number: u32, prepared: &Self, is_direct: bool) {
        self.may_begin |= prepared.may_begin;
        self.may_end |= prepared.may_end;
        self.reads_sequence |= prepared.reads_sequence;
        if is_direct {
            self.replaced.extend(prepared.replaced.iter().map(|(_, setting)| (number, setting.clone())));
            self.tags.extend(prepared.tags.iter().map(|(_, tag)| (number, *tag)));
        }
        for (_, effect) in &prepared.effects {
            let effects = match effect {
                Effect::SetBound { .. } => effect.bound(|_| BoundText::Unknown),
                Effect::Set { scope, setting } if !is_direct => Effect::set_unknown(*scope, setting.name.clone()),
                Effect::SetUnknown { .. } | Effect::SetAny { .. } => smallvec![effect.clone()],
                // Its text is executed, or Postgres refuses it.
                effect if prepared.stands_in && effect.concerns_channels() => continue,
                effect if is_direct => smallvec![effect.clone()],
                _ => continue,
            };
            // Any setting, of which the server lists not all.
            let is_hidden = |it: &Effect| matches!((effect, it), (Effect::SetBound { .. }, Effect::SetAny { .. }));
            for effect in effects {
                match is_hidden(&effect) {
                    true => self.may_begin |= StateFlags::SETTINGS,
                    false => self.push_at(number, effect),
                }
            }
        }
    }

    /// Adds an effect of the statement now counted, and what it may begin and end.
    pub(super) fn push(&mut self, effect: Effect) {
        self.push_at(self.statements, effect);
    }

    fn push_at(&mut self, number: u32, effect: Effect) {
        let (begin, end) = effect.flags();
        self.may_begin |= begin;
        self.may_end |= end;
        self.effects.push((number, effect));
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
    /// `set_config` with an argument that stands in the Bind, which [`bound`](Effect::bound) reads.
    SetBound {
        /// A literal is in lower case.
        name: Argument,
        /// `None`: an expression.
        value: Option<Argument>,
        is_local: IsLocal,
    },
    /// A setting gets a value that only the server knows, or may get it: by `set_config` of an expression, or anywhere
    /// but in the list of a plain SELECT.
    SetUnknown {
        scope: Scope,
        /// As in [`Setting`].
        name: String,
    },
    /// Any setting may get a value: UPDATE of `pg_settings`, or a transaction-local `set_config` of an unknown name.
    SetAny { scope: Scope },
    /// SET of `seed`, which is a call of `setseed`.
    SetSeed,
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
    /// EXECUTE name, and EXPLAIN and CREATE TABLE … AS of it. If the statement is one of SQL PREPARE, its state was
    /// suspected at the PREPARE, and [`StateFlags::EXECUTED`] may begin now.
    Execute(Bytes),
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

/// An argument of `pg_notify` or `set_config`.
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

    /// The effects of giving a setting this value. Some names are not settings that a session keeps.
    pub(super) fn set(scope: Scope, setting: Setting) -> EffectList {
        let to_default = setting.value == Value::Default;
        if let Some(effects) = Self::special(scope, &setting.name, to_default) {
            return effects;
        }
        smallvec![match scope {
            Scope::Session if to_default => Self::Reset(setting.name),
            _ => Self::Set { scope, setting },
        }]
    }

    /// The effects of giving a setting a value that is not known.
    pub(super) fn set_unknown(scope: Scope, name: String) -> EffectList {
        match Self::special(scope, &name, false) {
            Some(mut effects) if name == "session_authorization" => {
                effects[1] = Self::SetUnknown { scope, name: "role".to_owned() };
                effects
            }
            Some(effects) => effects,
            None => smallvec![Self::SetUnknown { scope, name }],
        }
    }

    /// The effects of setting what is no setting that a session keeps.
    fn special(scope: Scope, name: &str, to_default: bool) -> Option<EffectList> {
        match name {
            "transaction_isolation" | "transaction_read_only" | "transaction_deferrable" => {
                Some(smallvec![Self::SetTransaction])
            }
            "seed" => Some(smallvec![Self::SetSeed]),
            "session_authorization" => Some(Self::set_session_authorization(scope, to_default)),
            _ => None,
        }
    }

    /// The effects of SET SESSION AUTHORIZATION: whatever the role was, it is gone (`set_config_with_handle`).
    pub(super) fn set_session_authorization(scope: Scope, to_default: bool) -> EffectList {
        let authorization = match scope {
            Scope::Local => Self::SetTransaction,
            Scope::Session => Self::SetSessionAuthorization { to_default },
        };
        let value = if to_default { Value::Default } else { Value::Text(Bytes::from_static(b"none")) };
        let mut effects = Self::set(scope, Setting { name: "role".to_owned(), value });
        effects.insert(0, authorization);
        effects
    }

    /// The effects of a [`SetBound`](Self::SetBound), given the parameters; none for any other.
    pub(crate) fn bound<'b>(&self, parameter: impl Fn(u16) -> BoundText<'b>) -> EffectList {
        let Self::SetBound { name, value, is_local } = self else { return EffectList::new() };
        let text = |argument: &Argument| match argument {
            Argument::Text(text) => ArgumentValue::Known(Some(text.clone())),
            Argument::Null => ArgumentValue::Known(None),
            Argument::Parameter(number) => match parameter(*number) {
                BoundText::Null => ArgumentValue::Known(None),
                BoundText::Text(text) => ArgumentValue::Known(Some(Bytes::copy_from_slice(text))),
                BoundText::Unknown => ArgumentValue::Unknown,
            },
        };
        // An expression, or a parameter that is not there, may be either; what the server says then holds.
        let scope = match is_local {
            IsLocal::Known(scope) => Some(*scope),
            IsLocal::Unknown => None,
            IsLocal::Parameter(number) => match parameter(*number) {
                BoundText::Null => Some(Scope::Session),
                BoundText::Text(flag) => match Scope::of_flag(flag) {
                    Some(scope) => Some(scope),
                    // Postgres refuses it.
                    None => return EffectList::new(),
                },
                BoundText::Unknown => None,
            },
        };
        let name = match text(name) {
            ArgumentValue::Known(Some(name)) => String::from_utf8(name.to_ascii_lowercase()).ok(),
            ArgumentValue::Known(None) => return EffectList::new(),
            ArgumentValue::Unknown => None,
        };
        let Some(name) = name else { return smallvec![Self::SetAny { scope: scope.unwrap_or(Scope::Session) }] };
        match (scope, value.as_ref().map(text)) {
            (Some(scope), Some(ArgumentValue::Known(value))) => {
                Self::set(scope, Setting { name, value: value.map_or(Value::Default, Value::Text) })
            }
            (scope, _) => Self::set_unknown(scope.unwrap_or(Scope::Session), name),
        }
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
    pub(crate) fn flags(&self) -> (StateFlags, StateFlags) {
        use StateFlags as S;
        match self {
            // A table created without TEMP is temporary if pg_temp comes first.
            Self::Set { setting, .. } if setting.names_pg_temp() => (S::TEMP, S::NONE),
            Self::SetUnknown { name, .. } if name == "search_path" => (S::TEMP, S::NONE),
            Self::SetAny { .. } => (S::TEMP, S::NONE),
            Self::SetSessionAuthorization { to_default: false } => (S::AUTHORIZATION, S::NONE),
            Self::SetSessionAuthorization { to_default: true } => (S::NONE, S::AUTHORIZATION),
            Self::SetSeed => (S::SEED, S::NONE),
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

/// The effects of one statement or of a part of it; almost always one.
pub(crate) type EffectList = SmallVec<[Effect; 1]>;

/// The third argument of `set_config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsLocal {
    Known(Scope),
    Parameter(u16),
    /// An expression.
    Unknown,
}

/// A parameter as a Bind gives it. The types that `set_config` takes have the same bytes in text and in binary, but for
/// a boolean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BoundText<'a> {
    Null,
    Text(&'a [u8]),
    /// It is not all there, or of a type whose bytes may not be the text.
    Unknown,
}

/// An argument once the parameters are known; NULL is `None`.
enum ArgumentValue {
    Known(Option<Bytes>),
    Unknown,
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

impl Scope {
    /// The scope that `set_config` gives a setting by its third argument: a boolean as text (`parse_bool_with_len`) or
    /// in binary. `None`: Postgres refuses it.
    pub(super) fn of_flag(flag: &[u8]) -> Option<Self> {
        let word = flag.trim_ascii().to_ascii_lowercase();
        let begins = |full: &[u8], least: usize| word.len() >= least && full.starts_with(&word);
        match () {
            () if word == b"1" || flag == [1] => Some(Self::Local),
            () if word == b"0" || flag == [0] => Some(Self::Session),
            () if begins(b"true", 1) || begins(b"yes", 1) || begins(b"on", 2) => Some(Self::Local),
            () if begins(b"false", 1) || begins(b"no", 1) || begins(b"off", 2) => Some(Self::Session),
            () => None,
        }
    }
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
        let (value, may_hide) = match &self.value {
            Value::Default => return false,
            Value::Text(bytes) => (bytes.to_ascii_lowercase(), false),
            Value::Raw(bytes) => (bytes.to_ascii_lowercase(), true),
        };
        let contains = |part: &[u8]| value.windows(part.len()).any(|window| window == part);
        self.name == "search_path" && (contains(b"pg_temp") || may_hide && contains(b"u&"))
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
