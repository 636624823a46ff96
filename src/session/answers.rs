//! Handles the messages of a backend: each is forwarded, swallowed or replaced, or changes the session.
//!
//! Nothing here does I/O. The expected replies say which message an answer belongs to; this file acts on it.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::client_words::{self, Quoted};
use super::facts::LEXICAL;
use super::leased::Leased;
use super::reply_action::{Analyses, ReplyAction, Runs};
use super::running::StatementError;
use super::session::Session;
use super::transaction::TransactionFollower;
use crate::config::PoolMode;
use crate::error::{Fault, sqlstate};
use crate::metrics::PoolCounter;
use crate::pool::idle_check;
use crate::session::context::Worker;
use crate::sql::{StateFlags, Value};
use crate::state::settings::{Settings, SettingsRegistry};
use crate::state::timeout::Timeout;
use crate::wire::build::{self, error_fields};
use crate::wire::build::{ErrorFields, ServerError};
use crate::wire::expected::{Expect, ExpectedReply, Origin, TransactionStatus};
use crate::wire::frame::{FrameError, HEADER_LEN, Header, header};
use crate::wire::splice::Splice;
use crate::wire::tag::backend as tag;

/// Longest error or notice that is read whole; only the head of a longer one is read.
const REPORT_MAX: usize = 16 * 1024;

/// Longer than any description of parameters or rows: 65,535 types, 1,664 columns.
const DESCRIPTION_MAX: usize = 512 * 1024;

/// Bytes of a backend's frame that are needed before it can be handled.
pub(crate) fn want(header: Header) -> usize {
    match header.tag {
        // A frame that is too long is refused by its header: nobody waits for the rest, or keeps it.
        tag::COMMAND_COMPLETE | tag::READY_FOR_QUERY | tag::PARAMETER_STATUS | tag::NOTIFICATION_RESPONSE
            if header.body > REPORT_MAX =>
        {
            0
        }
        tag::COMMAND_COMPLETE | tag::READY_FOR_QUERY | tag::PARAMETER_STATUS | tag::NOTIFICATION_RESPONSE => {
            header.body
        }
        tag::ERROR_RESPONSE | tag::NOTICE_RESPONSE => REPORT_MAX,
        tag::ROW_DESCRIPTION | tag::PARAMETER_DESCRIPTION => DESCRIPTION_MAX,
        _ => 0,
    }
}

/// Messages that are kept until they are whole: anything longer is not Postgres.
pub(crate) fn check(header: Header) -> Result<(), FrameError> {
    let Header { tag, body } = header;
    if matches!(tag, tag::COMMAND_COMPLETE | tag::READY_FOR_QUERY | tag::PARAMETER_STATUS | tag::NOTIFICATION_RESPONSE)
        && body > REPORT_MAX
    {
        return Err(FrameError::Length { tag: char::from(tag), length: i32::try_from(body).unwrap_or(i32::MAX) });
    }
    Ok(())
}

/// A change that the caller has to act upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    None,
    /// A cycle of the client ended.
    Cycle(TransactionStatus),
    /// 25006, or 0A000 in recovery: the server may no longer be a primary.
    ReadOnly,
    /// The server goes down, or an administrator ended this connection.
    Stopped,
    /// The server refused to take the client's settings.
    SettingsRefused,
    /// The backend cannot be used any more.
    Ended,
}

/// A backend message on its way.
pub(crate) struct Answers<'a, 'b> {
    pub session: &'a mut Session,
    pub leased: &'a mut Leased,
    /// All sets of settings.
    pub registry: &'a SettingsRegistry,
    /// The thread's own state, and the state that all threads share.
    pub worker: &'a Worker,
    /// The tick under way.
    pub tick: u32,
    /// Output to the client.
    pub out: &'a mut Splice<'b>,
}

impl Answers<'_, '_> {
    /// Takes account of one message; `bytes` is its frame, or the head of a long one.
    #[inline]
    pub(crate) fn message(&mut self, tag: u8, bytes: &[u8], fresh: usize) -> Result<Event, Fault> {
        if tag == tag::ERROR_RESPONSE && is_fatal(bytes) {
            // The connection ends next, and the client gets that as an error of ours: for the client it is not fatal.
            self.leased.cycle.set_final_error(server_error(bytes));
            let code = error_fields(&bytes[HEADER_LEN..]).code;
            // In session mode the session ends with the backend, and the server says itself why.
            let forwards = passes_end(self.session.mode, code);
            self.leased.cycle.backend.set_forwarding(forwards);
            match forwards {
                true => self.out.pass(bytes, fresh),
                false => self.out.skip(fresh),
            }
            return Ok(if matches!(code, b"57P01" | b"57P02" | b"57P03") { Event::Stopped } else { Event::None });
        }
        let answer = self.leased.cycle.answer(tag, bytes)?;
        let is_own = answer.origin == Some(Origin::Own);
        let mut event = Event::None;
        let mut forwards = !is_own;
        match tag {
            tag::COMMAND_COMPLETE => return Ok(self.command_complete(bytes, fresh, is_own, answer.completed)),
            tag::READY_FOR_QUERY => event = self.ready(is_own, answer.completed)?,
            tag::ERROR_RESPONSE => return self.error(bytes, fresh, is_own, answer.origin),
            tag::PARAMETER_STATUS => forwards = self.parameter(bytes, is_own),
            tag::NOTIFICATION_RESPONSE => forwards = self.session.hears_notifications(),
            tag::DATA_ROW if is_own => self.leased.cycle.begin_row(bytes),
            // A suspended portal has rows left, but has already had its effect on the session.
            tag::PORTAL_SUSPENDED => {
                if let Some(ExpectedReply { action: Some(ReplyAction::Runs(mut runs)), .. }) = answer.completed {
                    self.log_statement(Some(&mut runs), b"");
                }
            }
            tag::NOTICE_RESPONSE => forwards &= !self.session.notifications.hear(&bytes[HEADER_LEN..]),
            tag::CLOSE_COMPLETE => match answer.completed.and_then(|completed| completed.action) {
                Some(ReplyAction::ClosesOfSql(name)) => self.session.statements.forget_of_sql(&name),
                Some(ReplyAction::Prepared(_)) => self.leased.cycle.hold_client(false),
                _ => {}
            },
            tag::PARAMETER_DESCRIPTION if is_own => self.leased.cycle.set_parameters(&bytes[HEADER_LEN..]),
            tag::ROW_DESCRIPTION | tag::NO_DATA if is_own => self.described(&bytes[HEADER_LEN..], answer.completed),
            _ => {}
        }
        self.leased.cycle.backend.set_forwarding(forwards);
        if forwards {
            self.out.pass(bytes, fresh);
        } else {
            self.out.skip(fresh);
        }
        self.own_answers();
        Ok(event)
    }

    /// A Describe of ours is answered, with these columns.
    fn described(&mut self, columns: &[u8], completed: Option<ExpectedReply<ReplyAction>>) {
        let analysis = self.leased.cycle.analysis(columns);
        match completed.and_then(|entry| entry.action) {
            Some(ReplyAction::Analyses(analyses)) => {
                let Analyses { draft, name, is_alone } = *analyses;
                if is_alone {
                    return draft.analysed_alone(analysis);
                }
                let (pool, now) = (self.session.pool.key(), self.worker.proxy.clock.second());
                let statements = &self.worker.proxy.statements;
                let statement = statements.analysed(&draft, pool, analysis);
                // What a transaction made, or a pinned session has of its own, is nobody else's.
                let is_outside = self.leased.cycle.replies().status() == TransactionStatus::Idle;
                if is_outside && !self.session.is_pinned() {
                    statements.is_recent(&statement, pool, now);
                }
                self.leased.lease.statements.is_now(draft.id, statement.id);
                self.session.statements.is_now(&name, &draft, statement);
            }
            Some(ReplyAction::Verifies(statement)) if statement.is_borrowed() => {
                let pool = self.session.pool.key();
                let now = self.worker.proxy.statements.analysed_after_all(&statement, pool, analysis);
                self.leased.lease.statements.is_now(statement.id, now.id);
                self.session.statements.replace(&statement, &now);
            }
            Some(ReplyAction::Verifies(statement))
                if !statement.analysis().is_some_and(|known| known.has_columns_of(&analysis)) =>
            {
                let mut error = Vec::new();
                build::error_response(&mut error, &sqlstate::report(&Fault::ResultChanged));
                self.leased.cycle.set_unprepared(statement.id, error.into());
                self.leased.lease.statements.reject(statement.id);
                self.worker.proxy.statements.outdated(&statement, self.session.pool.key());
            }
            _ => {}
        }
    }

    /// Sends answers of ours that are due.
    #[inline]
    pub(crate) fn own_answers(&mut self) {
        if self.leased.cycle.replies().has_synthetic_due() {
            self.send_own_answers();
        }
    }

    fn send_own_answers(&mut self) {
        while let Some(entry) = self.leased.cycle.pop_synthetic() {
            if let Some(ReplyAction::Answers { frames, .. }) = entry.action {
                self.out.insert(&frames);
            }
        }
    }

    fn command_complete(
        &mut self,
        bytes: &[u8],
        fresh: usize,
        is_own: bool,
        completed: Option<ExpectedReply<ReplyAction>>,
    ) -> Event {
        self.leased.cycle.backend.set_forwarding(!is_own);
        self.leased.lease.target.clock.complete(self.tick);
        if is_own {
            self.out.skip(fresh);
            self.own_answers();
            return Event::None;
        }
        let tag = bytes[HEADER_LEN..].strip_suffix(b"\0").unwrap_or_default();
        if changes_catalogue(tag) {
            self.worker.proxy.statements.none_is_recent();
        }
        let shown = match completed {
            Some(ExpectedReply { action: Some(ReplyAction::Runs(mut runs)), .. }) => {
                self.statement_completed(&mut runs, tag)
            }
            Some(_) => {
                self.log_statement(None, tag);
                None
            }
            None => self.query_goes_on(tag),
        };
        match shown {
            None => self.out.pass(bytes, fresh),
            Some(tag) => {
                self.out.skip(fresh);
                build::command_complete(self.out.buffer(), &tag);
            }
        }
        self.own_answers();
        Event::None
    }

    /// One statement of a Query has completed, and the Query goes on. Its action is taken out meanwhile.
    #[inline]
    fn query_goes_on(&mut self, tag: &[u8]) -> Option<Cow<'static, [u8]>> {
        let Some(mut action) = self.leased.cycle.head_mut().and_then(|head| head.action.take()) else {
            self.log_statement(None, tag);
            return None;
        };
        let shown = match &mut action {
            ReplyAction::Runs(runs) => self.statement_completed(runs, tag),
            _ => {
                self.log_statement(None, tag);
                None
            }
        };
        if let Some(head) = self.leased.cycle.head_mut() {
            head.action = Some(action);
        }
        shown
    }

    /// One more statement of `runs` has completed. Returns the tag to show instead of its own.
    fn statement_completed(&mut self, runs: &mut Runs, tag: &[u8]) -> Option<Cow<'static, [u8]>> {
        self.log_statement(Some(runs), tag);
        if runs.lists_channels() {
            return Some(self.list_channels().into());
        }
        runs.tag().map(Cow::Borrowed)
    }

    #[inline]
    fn log_statement(&mut self, runs: Option<&mut Runs>, tag: &[u8]) {
        let (log, status) = (self.leased.cycle.log(), self.leased.cycle.replies().status());
        log.statement(runs, tag, status, self);
    }

    /// Sends the rows that the stand-in left out. Returns their tag.
    fn list_channels(&mut self) -> Vec<u8> {
        let channels = self.session.notifications.channels();
        let count = channels.len();
        for channel in channels {
            build::data_row(self.out.buffer(), [Some(channel.into())]);
        }
        format!("SELECT {count}").into_bytes()
    }

    #[inline]
    fn ready(&mut self, is_own: bool, completed: Option<ExpectedReply<ReplyAction>>) -> Result<Event, Fault> {
        let replies = self.leased.cycle.replies();
        let status = replies.status();
        let clock = &self.leased.lease.target.clock;
        if replies.is_empty() {
            clock.end(self.tick, status);
        } else {
            clock.begin(self.tick, status == TransactionStatus::Idle);
        }
        if is_own { self.own_ready(completed) } else { Ok(self.cycle_ended(status, completed)) }
    }

    /// A cycle of the client has ended.
    #[inline]
    fn cycle_ended(&mut self, status: TransactionStatus, completed: Option<ExpectedReply<ReplyAction>>) -> Event {
        self.leased.cycle.cycle_ended();
        if let Some(ExpectedReply { action: Some(ReplyAction::Runs(mut runs)), .. }) = completed {
            self.session.failed(&mut runs);
        }
        let mut log = self.leased.cycle.log();
        log.ready(status, self);
        self.leased.cycle.set_log(log);
        if self.leased.cycle.replies().can_release() {
            self.session.statements.drop_portals();
            if self.leased.cycle.take_extended() {
                self.leased.lease.target.clock.set_own(self.session.settings.timeouts());
            }
        }
        Event::Cycle(status)
    }

    /// A query of ours has completed.
    fn own_ready(&mut self, completed: Option<ExpectedReply<ReplyAction>>) -> Result<Event, Fault> {
        let action = completed.and_then(|entry| entry.action);
        if let Some(ReplyAction::Assumes) = action {
            // What is assumed for an analysis is gone behind it.
            self.leased.cycle.take_reported();
            return Ok(Event::None);
        }
        let refusal = self.leased.cycle.take_refusal();
        let rows = self.leased.cycle.take_rows();
        match action {
            Some(ReplyAction::Applies(wanted)) => {
                if let Some(refusal) = refusal {
                    self.leased.lease.is_dirty = true;
                    self.leased.cycle.refused(refusal);
                    return Ok(if wanted.is_some() { Event::SettingsRefused } else { Event::None });
                }
                if let Some(wanted) = wanted {
                    self.applied(wanted);
                }
            }
            Some(ReplyAction::Prepared(statement)) => {
                if let Some(refusal) = refusal {
                    self.leased.cycle.set_unprepared(statement.id, refusal);
                }
                // Behind an analysis under other settings those of before are back.
                self.leased.cycle.take_reported();
                self.leased.cycle.hold_client(false);
            }
            Some(ReplyAction::Resets) => {
                if refusal.is_some() {
                    return Ok(Event::Ended);
                }
                let none = self.registry.none();
                let backend = self.leased.backend();
                backend.forget_session(none);
                let reported = self.leased.cycle.take_reported();
                self.base_reported(reported);
                self.leased.cycle.hold_client(false);
                self.session.statements.leave_backend();
            }
            // A cancel that came too late for the client's query may have hit the question.
            Some(ReplyAction::Probes(asked)) if refusal.is_some() => {
                self.session.pins.suspect(asked, StateFlags::NONE);
                return Ok(self.ask_again());
            }
            Some(ReplyAction::Probes(asked)) => {
                self.session.pins.answer(asked, &rows);
                self.reported_meanwhile();
            }
            // A value has no form in the client's encoding: it stays where it is.
            Some(ReplyAction::AsksSettings(_)) if refusal.as_deref().is_some_and(is_data_exception) => {
                self.session.pins.suspect(StateFlags::SETTINGS, StateFlags::NONE);
            }
            Some(ReplyAction::AsksSettings(unknown)) if refusal.is_some() => {
                self.session.unknown_settings = Some(unknown);
                return Ok(self.ask_again());
            }
            Some(ReplyAction::AsksSettings(_)) => {
                self.settings_known(&rows);
                self.reported_meanwhile();
            }

            _ => {}
        }
        Ok(Event::None)
    }

    fn ask_again(&mut self) -> Event {
        if self.leased.cycle.may_retry() { Event::None } else { Event::Ended }
    }

    fn error(&mut self, bytes: &[u8], fresh: usize, is_own: bool, origin: Option<Origin>) -> Result<Event, Fault> {
        let fields = error_fields(&bytes[HEADER_LEN..]);
        let (code, never_began) = (fields.code, never_began(&fields));
        let (timeout, hint) = self.expired(bytes);
        // A message of ours in a unit of the client stands for the client's own, which has to learn why the rest of the
        // unit is not answered.
        let forwards = !self.leased.cycle.is_own_error();
        let mut dropped = self.leased.cycle.take_dropped();
        // The failed message is the first of the dropped ones; a failed Query is still the head.
        let failed = match dropped.first_mut() {
            Some(entry) => Some((entry.expect, &mut entry.action)),
            None => self.leased.cycle.head_mut().map(|head| (head.expect, &mut head.action)),
        };
        let failed_query = failed.as_ref().is_some_and(|(expect, _)| *expect == Expect::Query);
        let (mut replacement, mut quoted) = (None, Quoted::Any);
        if let Some((expect, action)) = failed {
            match action {
                // A Parse in a failed transaction fails with 25P02, whatever its text.
                Some(ReplyAction::Refuses(error)) if code != b"25P02" => replacement = Some(error.clone()),
                Some(ReplyAction::Duplicates(error)) if code == b"42P05" => replacement = Some(error.clone()),
                Some(ReplyAction::Runs(runs)) if never_began && runs.completed == 0 => *action = None,
                Some(ReplyAction::Runs(runs)) if expect == Expect::Execute => {
                    quoted = Quoted::Executed(Arc::clone(&runs.class));
                    self.session.failed(runs);
                }
                Some(ReplyAction::Runs(runs)) => quoted = Quoted::Executed(Arc::clone(&runs.class)),
                Some(ReplyAction::ParsesUnnamed(parse)) => parse.has_failed = true,
                Some(ReplyAction::Uses { number, tag }) => {
                    quoted = Quoted::Tagged(*tag);
                    if code == b"26000" {
                        // Somebody's function has deallocated it.
                        self.leased.lease.statements.forget_number(*number);
                    }
                }
                _ => {}
            }
        }
        if !self.leased.cycle.running().is_empty() {
            let is_execute =
                |entry: &&ExpectedReply<ReplyAction>| entry.expect == Expect::Execute && entry.origin == Origin::Client;
            let executes = dropped.iter().filter(is_execute).count();
            if executes > 0 || failed_query {
                self.leased.cycle.running().failed(executes, &StatementError::new(code, timeout));
            }
        }
        // The unnamed statement is taken back in the order of its Parses, names in the other.
        for entry in &mut dropped {
            if let Some(ReplyAction::ParsesUnnamed(parse)) =
                entry.action.take_if(|action| matches!(action, ReplyAction::ParsesUnnamed(_)))
            {
                self.session.statements.unnamed_not_parsed(parse);
            }
        }
        while let Some(entry) = dropped.pop() {
            if let Some(action) = entry.action {
                self.session.take_back(action, &mut self.leased.lease);
            }
        }
        let replacement = replacement.or_else(|| {
            let (client, backend) = (&self.session.statements, &self.leased.lease.statements);
            let actions = self.leased.cycle.replies().iter().filter_map(|entry| entry.action.as_ref());
            let under_way = actions.filter_map(ReplyAction::undo);
            let translated = client_words::translated(bytes, &quoted, client, under_way, backend);
            translated.map(Vec::into_boxed_slice)
        });
        let cycle = &mut *self.leased.cycle;
        cycle.put_dropped(dropped);
        cycle.backend.set_forwarding(forwards);
        if forwards {
            cycle.error();
            if is_own {
                cycle.hold_client(false);
            }
            self.worker.proxy.errors.count_bytes(code);
            if let Some(timeout) = timeout {
                cycle.timeout_counted(timeout);
                self.session.pool.stats.worker(self.worker.id).add(PoolCounter::Timeouts(timeout));
            }
        } else {
            cycle.refused(build::whole_error(bytes));
        }
        match (replacement, hint) {
            _ if !forwards => self.out.skip(fresh),
            (None, None) => self.out.pass(bytes, fresh),
            (None, Some(hint)) => {
                self.out.skip(fresh);
                build::hinted(self.out.buffer(), bytes, &hint);
            }
            (Some(error), _) => {
                self.leased.cycle.backend.set_forwarding(false);
                self.out.skip(fresh);
                self.out.insert(&error);
            }
        }
        self.own_answers();
        let is_read_only = match code {
            b"25006" => true,
            // What recovery does not allow has the code of all that is not supported.
            b"0A000" => self.leased.lease.parameters.value("in_hot_standby") == Some("on"),
            _ => false,
        };
        Ok(if is_read_only && origin.is_some() { Event::ReadOnly } else { Event::None })
    }

    /// The timeout behind an error, and the key that set it; the key only for an error that has no HINT and is here
    /// whole.
    fn expired(&self, bytes: &[u8]) -> (Option<Timeout>, Option<String>) {
        let fields = error_fields(&bytes[HEADER_LEN..]);
        // Timeouts are raised where interrupts are processed, and only there: NOWAIT and a failed COPY have the same
        // SQLSTATEs.
        let is_interrupt = matches!(fields.routine, b"ProcessInterrupts" | b"");
        let Some(timeout) = Timeout::of_sqlstate(fields.code).filter(|_| is_interrupt) else { return (None, None) };
        let clock = &self.leased.lease.target.clock;
        if timeout == Timeout::Statement && clock.is_asked() {
            return (None, None);
        }
        // Our own clock had it cancelled; Postgres cannot tell that from a client's cancel.
        let ours = self.leased.cycle.cancelling().filter(|_| timeout == Timeout::Statement);
        let timeout = ours.unwrap_or(timeout);
        let limit = timeout.limit(&self.session.pool.settings().timeouts);
        let is_whole = header(bytes).is_ok_and(|head| head.is_some_and(|head| HEADER_LEN + head.body == bytes.len()));
        let is_due = ours.is_some()
            || limit.is_some_and(|limit| clock.may_have_run(limit, self.worker.proxy.clock.tick_at(Instant::now())));
        let wants_hint = is_whole && is_due && !fields.has_hint;
        let of_lane = ours.and_then(|timeout| self.leased.lane_hint(timeout));
        let hint = || of_lane.or_else(|| self.session.hint(timeout));
        (Some(timeout), wants_hint.then(hint).flatten())
    }

    /// Handles a ParameterStatus. True if it is forwarded to the client.
    fn parameter(&mut self, bytes: &[u8], is_own: bool) -> bool {
        let Some((name, value)) = idle_check::parameter(&bytes[HEADER_LEN..]) else { return !is_own };
        if is_own {
            self.leased.cycle.push_reported(name, value);
            return false;
        }
        // Behind a DISCARD ALL the backend reports its own values, and the client goes on with those it began with.
        if self.session.follow.as_ref().is_some_and(|follow| follow.is_reset(&name)) {
            return false;
        }
        self.session.follow.get_or_insert_default().report(&name, &value);
        if LEXICAL.iter().any(|lexical| *lexical == name) {
            self.session.update_lexer();
        }
        true
    }

    /// Our replay is done. The values as the server spells them are reported to the client and kept; otherwise they
    /// would be replayed for ever because `ISO` became `ISO, MDY`.
    fn applied(&mut self, wanted: Settings) {
        self.leased.cycle.hold_client(false);
        let reported = self.leased.cycle.take_reported();
        let backend = &mut *self.leased.lease;
        let mut values = wanted.values().clone();
        for (name, value) in &mut values {
            let Value::Text(text) = value else { continue };
            // A setting that is not reported now has the value reported before.
            let before = || match backend.applied.values().get(name) {
                Some(Value::Text(text)) => Some(&text[..]),
                _ => backend.parameters.value(name).map(str::as_bytes),
            };
            let now =
                reported.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes());
            let Some(now) = now.or_else(|| backend.parameters.reports(name).then(before).flatten()) else { continue };
            if now != text {
                *text = Bytes::copy_from_slice(now);
            }
        }
        let base: Vec<_> =
            reported.into_iter().filter(|(name, _)| !values.contains_key(&name.to_ascii_lowercase())).collect();
        // The role's timeouts are replayed with the client's own settings, but are not the client's.
        let mut own = values.clone();
        own.retain(|name, _| self.session.settings.values().contains_key(name));
        backend.applied = self.registry.intern(values);
        let own = self.registry.intern(own);
        self.base_reported(base);
        let backend = &*self.leased.lease;
        for (name, at_login) in backend.parameters.iter() {
            let value = match backend.applied.values().get(&name.to_ascii_lowercase()) {
                Some(Value::Text(text)) => String::from_utf8_lossy(text),
                _ => at_login.into(),
            };
            if self.session.reported_value(name).is_some_and(|told| told != value) {
                build::parameter_status(self.out.buffer(), name, &value);
            }
        }
        self.session.settings = own;
        self.session.reported = backend.parameters.clone();
        self.session.update_lexer();
    }

    /// The server reported values that no client gave: those that RESET comes back to have changed.
    fn base_reported(&mut self, changes: Vec<(String, String)>) {
        let backend = &mut *self.leased.lease;
        let changes: Vec<_> = changes
            .into_iter()
            .filter(|(name, value)| backend.parameters.value(name).is_none_or(|known| known != value))
            .collect();
        if !changes.is_empty() {
            backend.parameters = self.session.pool.parameters.share(backend.parameters.with(changes));
        }
    }

    /// The server told the values of settings that only it knew.
    fn settings_known(&mut self, rows: &[u8]) {
        let base = self.session.settings_known(rows, &mut self.leased.lease, self.registry);
        self.base_reported(base);
        // The client was told the new values when the server reported them.
        self.session.reported = self.leased.lease.parameters.clone();
        self.session.update_lexer();
    }

    /// Reports that came during a question of ours: only the server knows why.
    fn reported_meanwhile(&mut self) {
        for (name, value) in self.leased.cycle.take_reported() {
            self.session.unknown_settings.get_or_insert_default().push(&name);
            build::parameter_status(self.out.buffer(), &name, &value);
        }
    }
}

impl TransactionFollower for Answers<'_, '_> {
    fn completed(&mut self, runs: &mut Runs, tag: &[u8]) {
        self.session.completed(runs, tag, &mut self.leased.lease, self.registry);
        self.session.notifications.completed(runs, tag);
        self.session.warn_of(runs, |warning| build::notice_response(self.out.buffer(), warning));
    }

    fn tagged(&mut self, tag: &[u8], is_partial: bool) {
        if self.session.notifications.follows(tag) {
            let (notifications, party) = self.session.notifications();
            notifications.tagged(tag, is_partial, party);
        }
        let clock = &self.leased.lease.target.clock;
        match tag {
            b"DISCARD ALL" => self.session.discard_all(&mut self.leased.lease, self.registry),
            b"DEALLOCATE ALL" => self.session.deallocate_all(&mut self.leased.lease),
            b"CALL" | b"DO" => self.session.ran_procedure(),
            b"COMMIT" => clock.transact(self.tick),
            // Most likely ROLLBACK AND CHAIN; ROLLBACK TO a savepoint ends no transaction.
            b"ROLLBACK" if self.leased.cycle.pending_outcome() == Some(TransactionStatus::InTransaction) => {
                clock.transact(self.tick);
            }
            _ => {}
        }
    }

    fn ended(&mut self, has_failed: bool) {
        // Notifications that wait for the client go out before the end of the transaction.
        if !self.session.notifications.is_idle() {
            let (notifications, party) = self.session.notifications();
            notifications.ended(has_failed, party);
            if self.session.notifications.has_mail() {
                // An error is ignored here: the client's task finds the reason to close it by itself.
                let _ = self.session.take_mail(self.out.buffer(), usize::MAX);
            }
        }
        let out = &mut *self.out;
        let tell = |name: &str, value: &str| build::parameter_status(out.buffer(), name, value);
        self.session.finish_transaction(has_failed, &mut self.leased.lease, self.registry, tell);
    }
}

/// True if the FATAL error with which a server ends a backend goes to the client as it is: in session mode, and where
/// the client broke the protocol (08P01). Those of timeouts become errors of ours, which name the setting.
pub(crate) fn passes_end(mode: PoolMode, code: &[u8]) -> bool {
    code == b"08P01" || mode == PoolMode::Session && Timeout::of_sqlstate(code).is_none()
}

fn is_fatal(bytes: &[u8]) -> bool {
    matches!(error_fields(&bytes[HEADER_LEN..]).severity, b"FATAL" | b"PANIC")
}

/// True for the tags of statements that change a catalogue (`cmdtaglist.h`). That of a call or a block says nothing of
/// what it did.
#[inline]
fn changes_catalogue(tag: &[u8]) -> bool {
    matches!(tag.first(), Some(b'A' | b'C' | b'D'))
        && [&b"ALTER "[..], b"CREATE ", b"DROP "].iter().any(|words| tag.starts_with(words))
}

/// True for the error of a statement that has done nothing: the transaction had failed before, or there is no such
/// portal. Within a statement the same codes are of another routine.
fn never_began(fields: &ErrorFields<'_>) -> bool {
    matches!(fields.code, b"25P02" | b"34000")
        && matches!(fields.routine, b"exec_execute_message" | b"exec_simple_query")
}

/// True for the frame of an error of class 22.
fn is_data_exception(error: &[u8]) -> bool {
    error_fields(error.get(HEADER_LEN..).unwrap_or_default()).code.starts_with(b"22")
}

fn server_error(bytes: &[u8]) -> ServerError {
    let fields = error_fields(&bytes[HEADER_LEN..]);
    ServerError {
        code: String::from_utf8_lossy(fields.code).into_owned(),
        message: String::from_utf8_lossy(fields.message).into_owned(),
    }
}
