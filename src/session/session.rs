//! The state of a client's session that pgweir keeps between its backends.

use std::sync::Arc;

use bytes::Bytes;

use super::follow::{Follow, FollowOutcome};
use super::notifications::{Notifications, Party};
use super::pins::Pins;
use super::reply_action::{ReplyAction, Runs};
use super::statements::ClientStatements;
use super::unknown_settings::{self, KnownSetting, SettingSource, UnknownSettings};
use crate::clients::ClientEntry;
use crate::config::{PoolMode, ServerRole};
use crate::error::Fault;
use crate::lanes::ClientLanes;
use crate::notify::mailbox::Closing;
use crate::pool::backend::{Backend, Use};
use crate::pool::in_use::InUse;
use crate::pool::pool::Pool;
use crate::sql::{self, Argument, Context, Effect, Scope, StateFlags, Value};
use crate::state::parameters::Parameters;
use crate::state::settings::{ENCODING, Settings, SettingsRegistry};
use crate::state::timeout::Timeout;
use crate::wire::build::Report;

#[derive(Debug)]
pub(crate) struct Session {
    /// Pool that its backends come from.
    pub pool: InUse<Pool>,
    /// Pool mode: the point at which backends are released.
    pub mode: PoolMode,
    /// Parameters as the server reports them to this client, apart from its own settings.
    pub reported: Parameters,
    /// Settings that are replayed on its backends.
    pub settings: Settings,
    /// Settings of its StartupMessage: RESET goes back to them.
    pub startup: Settings,
    /// The epoch of its pool in which its own timeouts were judged.
    pub epoch: u32,
    pub statements: ClientStatements,
    /// Changes of settings that are not final.
    pub follow: Option<Box<Follow>>,
    /// All values that it got from sequences, and no others, are known in the session of its backend; `None` before it
    /// had one.
    pub knows_sequences: Option<bool>,
    /// Settings that its backend has to be asked about.
    pub unknown_settings: Option<Box<UnknownSettings>>,
    /// State that ties it to its backend.
    pub pins: Pins,
    /// Context for reading its texts.
    pub lexer: Context,
    /// The bit of its role among those that call a statement.
    pub role_bit: u64,
    /// The lanes that its transactions may be in, once it was looked at.
    pub lanes: Option<Arc<ClientLanes>>,
    /// Facts about the client that other tasks see.
    pub entry: Arc<ClientEntry>,
    /// State of its NOTIFY and LISTEN.
    pub notifications: Notifications,
}

/// No type, `text`, `unknown` and `varchar` of `pg_type.dat`: their bytes are the same in both formats.
const TEXT_OIDS: [u32; 4] = [0, 25, 705, 1043];

/// The setting behind SET ROLE; `none` is no role.
const ROLE: &str = "role";

impl Session {
    /// Bytes of memory that it takes, about.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        let follow = self.follow.as_ref().map_or(0, |follow| follow.bytes());
        self.statements.memory() + self.settings.bytes() + follow + self.notifications.memory()
    }

    /// The value of a reported parameter as the client knows it, or would.
    pub(crate) fn reported_value(&self, name: &str) -> Option<String> {
        match self.settings.values().get(&name.to_ascii_lowercase()) {
            Some(Value::Text(text)) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => self.reported.value(name).map(str::to_owned),
        }
    }

    /// True for a client that has its backend for itself; others never asked for any notifications.
    pub(crate) fn hears_notifications(&self) -> bool {
        self.mode == PoolMode::Session || self.pins.may_hold(StateFlags::LISTEN)
    }

    /// True if stand-ins replace its texts about channels, which are not for the server.
    pub(crate) fn intercepts(&self) -> bool {
        // A standby refuses them itself.
        let is_standby = || {
            self.pool.settings().endpoint.server_role == ServerRole::Standby
                || self.reported.value("in_hot_standby").is_some_and(|value| value == "on")
        };
        self.notifications.exchange().intercepts() && !self.pool.is_dedicated() && !is_standby()
    }

    /// True if a stand-in is sent for the statement with this effect; `types`: the parameter types that a Parse
    /// declares.
    pub(crate) fn wants(&self, effect: &Effect, types: &[u8]) -> bool {
        let reads_the_same = |text: &[u8]| text.is_ascii() || self.shares_encoding() && self.may_be_text(text);
        match effect {
            Effect::Listen(channel) | Effect::Unlisten(channel) => reads_the_same(channel),
            Effect::ListeningChannels => true,
            Effect::Notify { .. } if self.notifications.mixes() => false,
            Effect::Notify { channel, payload, .. } => [channel, payload].into_iter().all(|argument| match argument {
                Argument::Text(text) => reads_the_same(text),
                Argument::Null => true,
                Argument::Parameter(number) => is_text(types, *number) && self.shares_encoding(),
            }),
            _ => false,
        }
    }

    /// Appends notifications that have come for the client, in order, about `most` bytes. Returns their number, or the
    /// reason to close the client.
    pub(crate) fn take_mail(&self, out: &mut Vec<u8>, most: usize) -> Result<u32, Closing> {
        let Some(mailbox) = self.notifications.mailbox().filter(|mailbox| mailbox.has_mail()) else { return Ok(0) };
        let taken = mailbox.take(out, most, !self.shares_encoding())?;
        self.notifications.exchange().stats.delivered(taken as usize);
        Ok(taken)
    }

    /// True if the server converts nothing between the client's encoding and its own.
    pub(crate) fn shares_encoding(&self) -> bool {
        let (Some(client), Some(server)) = (self.value_in_force(ENCODING), self.reported.value("server_encoding"))
        else {
            return false;
        };
        let (client, server) = (sql::folded_encoding(&client), sql::folded_encoding(server));
        client == server || [&client, &server].iter().any(|name| *name == "sqlascii")
    }

    /// False for bytes that the server would refuse; a stand-in would hide them from it.
    fn may_be_text(&self, bytes: &[u8]) -> bool {
        self.reported.value("server_encoding") != Some("UTF8") || std::str::from_utf8(bytes).is_ok()
    }

    /// True for a text that the server refuses before it looks at anything else: it is none in UTF-8, which the client
    /// and the server speak. Other encodings are not judged.
    #[inline]
    pub(crate) fn is_unreadable(&self, text: &[u8]) -> bool {
        !text.is_ascii() && !self.may_be_text(text) && self.shares_encoding()
    }

    /// The value that the server reported last for a setting, committed or not.
    fn value_in_force(&self, name: &str) -> Option<String> {
        match self.follow.as_ref().and_then(|follow| follow.reported(name)) {
            Some(reported) => Some(reported.to_owned()),
            None => self.reported_value(name),
        }
    }

    /// It begins to use a backend that these used before.
    #[inline]
    pub(crate) fn begins_use(&mut self, before: Use) {
        self.knows_sequences = Some(match before {
            Use::First => self.knows_sequences.is_none(),
            Use::GoesOn => self.knows_sequences(),
            Use::BehindOthers => false,
        });
    }

    /// True if `lastval` at its backend is what it would be in a session of its own.
    #[inline]
    pub(crate) fn knows_sequences(&self) -> bool {
        self.knows_sequences == Some(true)
    }

    /// True if its statements have their own names at its backend, which is its own.
    #[inline]
    pub(crate) fn keeps_own_names(&self) -> bool {
        self.mode == PoolMode::Session
    }

    /// Settings in force for its next statement, and whether they differ from those it keeps in a way that an analysis
    /// depends on.
    pub(crate) fn settings_in_force(&self, registry: &SettingsRegistry) -> (Settings, bool) {
        let Some(follow) = &self.follow else { return (self.settings.clone(), false) };
        let in_force = registry.intern(follow.in_force(self.settings.values(), self.startup.values(), &self.reported));
        let is_alone = follow.is_unknown() || in_force.meaning() != self.settings.meaning();
        (in_force, is_alone)
    }

    /// State of its NOTIFY and LISTEN, and its identity there.
    pub(crate) fn notifications(&mut self) -> (&mut Notifications, Party<'_>) {
        let party = Party { pid: self.entry.pid, pool: &self.pool, entry: Some(&self.entry) };
        (&mut self.notifications, party)
    }

    /// Lets the lexer read texts as the server will.
    pub(crate) fn update_lexer(&mut self) {
        let in_force = |name| self.value_in_force(name);
        let is_off = in_force("standard_conforming_strings").is_some_and(|value| value.eq_ignore_ascii_case("off"));
        let encoding = in_force(ENCODING).map(|value| sql::encoding_family(&value)).unwrap_or_default();
        self.lexer = Context { standard_conforming_strings: !is_off, encoding };
    }

    /// Undoes the effects of sending a message that was dropped or failed, on names and on the backend's statements.
    pub(crate) fn take_back(&mut self, action: ReplyAction, backend: &mut Backend) {
        match action {
            ReplyAction::Parses { statement, undo } => {
                backend.statements.forget(statement.id);
                if let Some(undo) = undo {
                    self.statements.undo(*undo);
                }
            }
            ReplyAction::BringsUnnamed => self.statements.leave_unnamed(),
            ReplyAction::ParsesUnnamed(parse) => self.statements.unnamed_not_parsed(parse),
            ReplyAction::Answers { undo: Some(undo), .. } | ReplyAction::Renames(Some(undo)) => {
                self.statements.undo(*undo);
            }
            ReplyAction::Closes(number) => backend.statements.not_closed(number),
            _ => {}
        }
    }

    /// Handles statements that did not all complete. State that a completed one may have begun, or one that failed too
    /// late, is taken to stand.
    pub(crate) fn failed(&mut self, runs: &mut Runs) {
        if runs.completed > 0 && runs.completed >= runs.class.statements {
            return;
        }
        self.pins.suspect(runs.class.may_begin, runs.class.may_end.without(StateFlags::UNPROBED));
    }

    /// One more statement of `runs` has completed.
    pub(crate) fn completed(
        &mut self,
        runs: &mut Runs,
        tag: &[u8],
        backend: &mut Backend,
        registry: &SettingsRegistry,
    ) {
        if runs.class.may_begin.contains(StateFlags::UNCERTAIN) {
            // A statement of a text that was not read may have been a SET.
            self.pins.suspect(StateFlags::SETTINGS, StateFlags::NONE);
        }
        if runs.completed >= runs.class.statements {
            self.pins.suspect(runs.class.may_begin, runs.class.may_end);
        }
        let rolled_back = tag == b"ROLLBACK";
        for effect in runs.done() {
            match effect {
                Effect::Deallocate(name) => {
                    let statement = self.statements.find(name).filter(|_| !runs.class.stands_in);
                    statement.into_iter().for_each(|statement| backend.statements.forget(statement.id));
                    self.statements.remove(name);
                    self.statements.forget_of_sql(name);
                }
                Effect::Prepare(name) => self.statements.prepared_in_sql(name),
                // Only the client's names go if a stand-in ran.
                Effect::DeallocateAll if runs.class.stands_in => self.statements.clear_named(),
                Effect::DeallocateAll => self.deallocate_all(backend),
                Effect::DiscardAll => self.discard_all(backend, registry),
                Effect::Set { .. } | Effect::Reset(_) | Effect::ResetAll => {
                    if names_search_path(effect) {
                        self.pins.suspect(StateFlags::NONE, StateFlags::TEMP);
                    }
                    self.follow.get_or_insert_default().completed(effect, rolled_back);
                }
                Effect::Execute(_) => self.pins.suspect(StateFlags::EXECUTED, StateFlags::NONE),
                // The Bind was too long to be read.
                Effect::SetBound { .. } => self.pins.suspect(StateFlags::SETTINGS, StateFlags::NONE),
                Effect::SetUnknown { scope, name } => {
                    self.follow.get_or_insert_default().unknown();
                    if *scope == Scope::Session {
                        self.unknown_settings.get_or_insert_default().push(name);
                    }
                }
                Effect::SetAny { scope } => {
                    self.follow.get_or_insert_default().unknown();
                    if *scope == Scope::Session {
                        self.unknown_settings.get_or_insert_default().push_any();
                    }
                }
                effect => {
                    let outcome = self.follow.as_mut().map(|follow| follow.completed(effect, rolled_back));
                    if outcome == Some(FollowOutcome::Committed) {
                        self.adopt(backend, registry);
                    }
                }
            }
        }
    }

    /// DEALLOCATE ALL removed every statement from the backend, and this client's names with them.
    pub(crate) fn deallocate_all(&mut self, backend: &mut Backend) {
        self.statements.clear_named();
        backend.statements.clear();
    }

    /// DISCARD ALL by the client itself: the client is as after its login, the backend as after its own.
    pub(crate) fn discard_all(&mut self, backend: &mut Backend, registry: &SettingsRegistry) {
        self.statements.clear_named();
        // Its tag reports it a second time.
        let known = self.follow.take().map(|follow| follow.told_before()).filter(|told| !told.is_empty());
        let told = known.unwrap_or_else(|| {
            let reported = backend.parameters.iter();
            reported.filter_map(|(name, _)| Some((name.to_owned(), self.reported_value(name)?))).collect()
        });
        self.settings = self.startup.clone();
        // They are known again.
        self.unknown_settings = None;
        backend.forget_session(registry.none());
        backend.target.clock.set_own(self.settings.timeouts());
        self.follow = Some(Box::new(Follow::discarded(self.startup.values(), told)));
        self.pins.clear();
        self.suspect_startup();
        self.update_lexer();
    }

    /// A plain CREATE TABLE makes a temporary table if the `search_path` names temporary tables first.
    pub(crate) fn suspect_startup(&mut self) {
        if let Some(Value::Text(path)) = self.startup.values().get("search_path")
            && path.to_ascii_lowercase().windows(7).any(|part| part == b"pg_temp")
        {
            self.pins.suspect(StateFlags::TEMP, StateFlags::NONE);
        }
    }

    /// Adopts the changes followed so far, for the client and for the backend that made them.
    pub(crate) fn adopt(&mut self, backend: &mut Backend, registry: &SettingsRegistry) {
        let Some(follow) = self.follow.as_mut().filter(|follow| !follow.is_empty()) else { return };
        if follow.resets_all() {
            self.pins.end_settings();
        }
        let mut client = self.settings.values().clone();
        let mut applied = backend.applied.values().clone();
        if self.mode == PoolMode::Session {
            // Whatever set it, the backend is the client's own.
            follow.explain_all();
        }
        let encoding = client.get(ENCODING).cloned();
        let unexplained = follow.adopt(&mut client, self.startup.values(), &mut applied, &backend.parameters);
        // Values were written in the encoding of their time.
        let is_recoded = client.get(ENCODING) != encoding.as_ref();
        let recoded = client.iter().filter(|(_, value)| is_recoded && !value.is_ascii()).map(|(name, _)| name.clone());
        for name in unexplained.into_iter().chain(recoded) {
            self.unknown_settings.get_or_insert_default().push(&name);
        }
        self.pool.limits().judge(&mut client);
        self.settings = registry.intern(client);
        backend.applied = registry.intern(applied);
        self.update_lexer();
    }

    /// The transaction that a cycle belonged to is over. Reports again each parameter whose last report differs from
    /// the value the client goes on with.
    pub(crate) fn finish_transaction(
        &mut self,
        has_failed: bool,
        backend: &mut Backend,
        registry: &SettingsRegistry,
        mut tell: impl FnMut(&str, &str),
    ) {
        let Some(follow) = self.follow.as_mut() else { return };
        if has_failed {
            // A procedure among the statements may have committed what came before it.
            let names: Vec<_> = follow.changed().map(str::to_owned).collect();
            names.iter().for_each(|name| self.unknown_settings.get_or_insert_default().push(name));
            follow.roll_back();
        }
        if follow.may_have_lost_role() {
            self.unknown_settings.get_or_insert_default().push(ROLE);
        }
        let reported = follow.told();
        self.adopt(backend, registry);
        self.follow = None;
        if self.keeps_own_names() {
            // A backend that is the client's own is never asked.
            self.unknown_settings = None;
        }
        let unknown = self.unknown_settings.as_deref();
        for (name, reported) in reported.into_iter().filter(|(name, _)| !unknown.is_some_and(|of| of.contains(name))) {
            let Some((spelled, _)) = backend.parameters.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name))
            else {
                continue;
            };
            if let Some(value) = self.reported_value(&name).filter(|value| *value != reported) {
                tell(spelled, &value);
            }
        }
    }

    /// A procedure or DO has completed: it may have committed or rolled back what came before it.
    pub(crate) fn ran_procedure(&mut self) {
        let Some(follow) = &self.follow else { return };
        let unknown = self.unknown_settings.get_or_insert_default();
        follow.changed().for_each(|name| unknown.push(name));
    }

    /// The server's answer about settings that were unknown. Returns those that nobody set, with their values.
    pub(crate) fn settings_known(
        &mut self,
        rows: &[u8],
        backend: &mut Backend,
        registry: &SettingsRegistry,
    ) -> Vec<(String, String)> {
        let mut base = Vec::new();
        let Some(known) = unknown_settings::read(rows) else {
            self.pins.suspect(StateFlags::SETTINGS, StateFlags::NONE);
            return base;
        };
        let mut client = self.settings.values().clone();
        let mut applied = backend.applied.values().clone();
        for KnownSetting { name, value, source } in known {
            let is_empty = value.as_ref().is_none_or(Bytes::is_empty);
            let is_no_role = name == ROLE && value.as_deref() == Some(b"none");
            if source == SettingSource::Server
                || is_no_role
                || is_empty && source == SettingSource::Unlisted && !client.contains_key(&name)
            {
                client.remove(&name);
                applied.remove(&name);
                let spelled = backend.parameters.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
                if let Some(((spelled, _), value)) = spelled.zip(value) {
                    base.push((spelled.to_owned(), String::from_utf8_lossy(&value).into_owned()));
                }
                continue;
            }
            let value = Value::Text(value.unwrap_or_default());
            client.insert(name.clone(), value.clone());
            applied.insert(name, value);
        }
        self.pool.limits().judge(&mut client);
        self.settings = registry.intern(client);
        backend.applied = registry.intern(applied);
        base
    }

    /// The fault of a timeout that ended the client's transaction.
    pub(crate) fn expired(&self, timeout: Timeout) -> Fault {
        Fault::Expired { timeout, hint: self.hint(timeout), ends_session: self.ends_with_its_backend() }
    }

    /// The fault of a transaction that was ended because others waited for it.
    pub(crate) fn held_up(&self) -> Fault {
        Fault::HeldUp { ends_session: self.ends_with_its_backend() }
    }

    fn ends_with_its_backend(&self) -> bool {
        self.mode == PoolMode::Session || self.is_pinned()
    }

    /// Limits the client's own timeouts to those of its role: at its login, and when a reload has changed them. Returns
    /// the settings whose values were refused.
    pub(crate) fn begin_epoch(&mut self, registry: &SettingsRegistry) -> Vec<&'static str> {
        // The epoch is read before the limits: if it is too old, that is noticed again.
        self.epoch = self.pool.epoch();
        let limits = self.pool.limits();
        let judge = |settings: &mut Settings| {
            let mut values = settings.values().clone();
            let refused = limits.judge(&mut values);
            *settings = registry.intern(values);
            refused
        };
        judge(&mut self.startup);
        judge(&mut self.settings)
    }

    /// Warns the client of values that were replaced in the statement that has just completed.
    pub(crate) fn warn_of(&self, runs: &Runs, tell: impl FnMut(&Report)) {
        if !runs.class.replaced.is_empty() {
            let replaced = runs.class.replaced.iter().filter(|(number, _)| number + 1 == runs.completed);
            self.warn(replaced.map(|(_, setting)| setting.as_str()), tell);
        }
    }

    /// Warns the client of settings that its role may not have as it set them.
    pub(crate) fn warn<'a>(&self, refused: impl IntoIterator<Item = &'a str>, mut tell: impl FnMut(&Report)) {
        if self.wants_warnings() {
            let limits = self.pool.limits();
            refused.into_iter().for_each(|setting| tell(&limits.warning(setting, &self.pool.name.role)));
        }
    }

    /// True if `client_min_messages`, as far as it is known, lets warnings through.
    fn wants_warnings(&self) -> bool {
        let least = self.settings.values().get("client_min_messages").and_then(Value::plain);
        !least.is_some_and(|least| least.eq_ignore_ascii_case(b"error"))
    }

    /// A HINT that names the key that set a limit; a value of the client's own has none.
    pub(crate) fn hint(&self, timeout: Timeout) -> Option<String> {
        let is_own = self.settings.values().contains_key(timeout.setting());
        timeout.hint(&self.pool.name.role, &self.pool.settings().timeouts).filter(|_| !is_own)
    }

    /// True if the client may only go on with the backend it has.
    #[inline]
    pub(crate) fn is_pinned(&self) -> bool {
        !self.pins.is_empty() || self.statements.is_large()
    }

    /// True if state of the client's own may be gone with its backend.
    pub(crate) fn may_be_pinned(&self) -> bool {
        self.pins.may_be_held() || self.statements.is_large()
    }

    /// The reasons for a pin, for [`super::pins::names`].
    pub(crate) fn pin_bits(&self) -> u16 {
        self.pins.bits(self.statements.is_large())
    }
}

/// True if a Parse leaves the type of a parameter to Postgres, or declares it as a text.
pub(super) fn is_text(types: &[u8], number: u16) -> bool {
    let Some((count, types)) = types.split_first_chunk() else { return false };
    let declared = u16::from_be_bytes(*count);
    let at = usize::from(number).saturating_sub(1) * size_of::<u32>();
    let oid = types.get(at..).and_then(<[u8]>::first_chunk).map(|oid| u32::from_be_bytes(*oid));
    number > declared || oid.is_some_and(|oid| TEXT_OIDS.contains(&oid))
}

fn names_search_path(effect: &Effect) -> bool {
    match effect {
        Effect::Set { setting, .. } => setting.name == "search_path",
        Effect::Reset(name) => name == "search_path",
        _ => true,
    }
}
