//! Parse: what is prepared under which name, and for whom.

use std::sync::Arc;

use super::names::duplicate_error;
use super::{Frontend, Rest, rename, uncertain};
use crate::config::Comments;
use crate::error::Fault;
use crate::session::facts::Facts;
use crate::session::prepare::{self, EMPTY_TEXT, FAILING_NAME};
use crate::session::reply_action::{Analyses, ReplyAction};
use crate::session::rewrite::rewrite;
use crate::session::session;
use crate::session::statements::Unnamed;
use crate::sql;
use crate::sql::{Argument, BoundText, Effect, STAND_IN, Scope, StateFlags, StatementEffects, classify};
use crate::state::statements;
use crate::wire::build;
use crate::wire::expected::{Expect, TransactionStatus};
use crate::wire::message::Message;

impl Frontend<'_, '_> {
    #[inline]
    pub(super) fn parse_unnamed(&mut self, message: Message<'_>, rest: &[u8], text: Option<&[u8]>) -> Rest {
        let Some(text) = text else {
            let action = self.begin_unnamed(b"");
            self.session.statements.unnamed = Unnamed::Large { class: Some(Arc::new(uncertain())) };
            return self.pass(message, Some(Expect::Parse), Some(action));
        };
        let digest = self.digest(Some(text));
        let class = classify(text, self.session.lexer);
        if class.is_ordinary() {
            let action = self.begin_unnamed(text);
            self.session.statements.keep_unnamed(rest, None, digest);
            return self.pass(message, Some(Expect::Parse), Some(action));
        }
        if let Some(fault) = self.forbidden(&class) {
            return self.refuse(message, &fault);
        }
        let own = class.executes().then(|| class.clone());
        let Resolved { class, kept, renamed } = match self.resolve(message, rest, text, class) {
            Err(outcome) => return outcome,
            Ok(resolved) => resolved,
        };
        let action = self.begin_unnamed(text);
        // Another backend has other names for the statements in it, and an EXECUTE means what has its name then.
        let then = if own.is_some() { rest } else { kept.as_deref().unwrap_or(rest) };
        self.session.statements.keep_unnamed(then, Some(Arc::new(own.unwrap_or(class))), digest);
        let Some(rest) = renamed.or(kept) else {
            return self.pass(message, Some(Expect::Parse), Some(action));
        };
        self.push(Expect::Parse, Some(action));
        self.out.skip(message.fresh);
        build::parse(self.out.buffer(), b"", &rest);
        Rest::Discard
    }

    /// What a text that is not ordinary comes to now; an error is the outcome of a message that has to wait for the
    /// names in it.
    fn resolve(
        &mut self,
        message: Message<'_>,
        rest: &[u8],
        text: &[u8],
        class: StatementEffects,
    ) -> Result<Resolved, Rest> {
        let executed = self.executed_in_parse(rest, &class)?;
        let (rest, text, class) = self.read_again(executed.as_deref(), rest, text, class);
        let (mut class, instead) = self.to_parse(text, rest, class);
        let renamed = self.rename_in_parse(message, instead.as_deref().unwrap_or(rest), &mut class)?;
        Ok(Resolved { class, kept: instead.or(executed), renamed })
    }

    /// Lets the backend prepare a statement again that executes others by their names, which may be other ones by now.
    /// Returns its effects; an error is the outcome of a Bind that has to wait. `rest`: the client's own Parse, behind
    /// the name; `server_name`: the backend's.
    pub(super) fn execute_anew(
        &mut self,
        message: Message<'_>,
        rest: &[u8],
        server_name: &[u8],
    ) -> Result<Option<StatementEffects>, Rest> {
        let replies = self.leased.cycle.replies();
        let skips = replies.is_skipping() || replies.is_copying_in();
        if !replies.is_empty() && !skips {
            return Err(self.hold());
        }
        let Some((text, _)) = build::split_cstring(rest) else { return Ok(None) };
        if skips || self.leased.cycle.status_under_way() == TransactionStatus::Failed {
            return Ok(None);
        }
        let class = classify(text, self.session.lexer);
        let Resolved { class, kept, renamed } = self.resolve(message, rest, text, class)?;
        if !server_name.is_empty() {
            self.leased.cycle.expect_own(Expect::Close, None);
            build::close_statement(self.out.buffer(), server_name);
        }
        self.leased.cycle.expect_own(Expect::Parse, server_name.is_empty().then_some(ReplyAction::BringsUnnamed));
        build::parse(self.out.buffer(), server_name, renamed.as_deref().or(kept.as_deref()).unwrap_or(rest));
        Ok(Some(class))
    }

    /// A body of a Parse behind its name, its text and that text's effects, if another takes its place.
    fn read_again<'t>(
        &self,
        other: Option<&'t [u8]>,
        rest: &'t [u8],
        text: &'t [u8],
        class: StatementEffects,
    ) -> (&'t [u8], &'t [u8], StatementEffects) {
        match other.and_then(|other| Some((other, build::split_cstring(other)?.0))) {
            Some((rest, text)) => (rest, text, classify(text, self.session.lexer)),
            None => (rest, text, class),
        }
    }

    #[inline]
    fn begin_unnamed(&mut self, text: &[u8]) -> ReplyAction {
        let replies = self.leased.cycle.replies();
        let may_be_dropped = !replies.is_empty() || replies.is_skipping();
        let is_unreadable = self.session.is_unreadable(text);
        if may_be_dropped {
            self.leased.cycle.changes_unnamed();
        }
        ReplyAction::ParsesUnnamed(self.session.statements.begin_unnamed(may_be_dropped, is_unreadable))
    }

    /// The effects of a text that is not ordinary, and what is parsed instead of it: behind the name, with its types.
    pub(super) fn to_parse(
        &self,
        text: &[u8],
        rest: &[u8],
        class: StatementEffects,
    ) -> (StatementEffects, Option<Vec<u8>>) {
        if class.is_lone_deallocate() && !self.session.keeps_own_names() {
            return (StatementEffects { stands_in: true, ..class }, Some([STAND_IN, EMPTY_TEXT].concat()));
        }
        let types = &rest[text.len() + 1..];
        match rewrite(self.session, text, types, &class) {
            Some((other, class)) => (with_types(class, types), Some([&other, &rest[text.len()..]].concat())),
            None => (with_types(class, types), None),
        }
    }

    pub(super) fn parse_named(&mut self, message: Message<'_>, name: &[u8], rest: &[u8], text: Option<&[u8]>) -> Rest {
        if self.session.statements.is_full() {
            return self.refuse(message, &Fault::TooManyStatements);
        }
        if self.may_be_of_sql(name) && self.leased.cycle.must_wait_for(Facts::NAMES.or(Facts::UNIT_NAMES)) {
            return self.hold();
        }
        let stripped = text.and_then(|text| self.without_trace(text, rest));
        let (rest, text) = match &stripped {
            Some(stripped) => (&stripped[..], build::split_cstring(stripped).map(|(text, _)| text)),
            None => (rest, text),
        };
        let class = text.map_or_else(uncertain, |text| classify(text, self.session.lexer));
        if let Some(fault) = self.forbidden(&class) {
            return self.refuse(message, &fault);
        }
        let executes = class.executes().then(|| (rest, class.clone()));
        let executed = match self.executed_in_parse(rest, &class) {
            Err(outcome) => return outcome,
            Ok(executed) => executed,
        };
        let (rest, text, class) = match text {
            Some(text) => {
                let (rest, text, class) = self.read_again(executed.as_deref(), rest, text, class);
                (rest, Some(text), class)
            }
            None => (rest, text, class),
        };
        let is_ordinary = class.is_ordinary();
        let (mut class, instead) = match text {
            Some(text) if !is_ordinary => self.to_parse(text, rest, class),
            _ => (class, None),
        };
        // A text with the backend's names in it is good for this backend alone.
        let renamed = match self.rename_in_parse(message, instead.as_deref().unwrap_or(rest), &mut class) {
            Err(outcome) => return outcome,
            Ok(renamed) => renamed,
        };
        let is_tied = text.is_none() || renamed.is_some();
        let instead = renamed.or(instead);
        let is_taken = self.session.statements.find(name).is_some();
        let (settings, is_alone) = self.session.settings_in_force(self.registry);
        // Whatever it executes is the client's own.
        let is_alone = is_alone || executes.is_some();
        let kept = if is_tied { &[][..] } else { instead.as_deref().unwrap_or(rest) };
        let original = if instead.is_some() { rest } else { &[] };
        let (kept, original, class) = match executes {
            Some((rest, class)) => (rest, &[][..], class),
            None => (kept, original, class),
        };
        let class = (!is_ordinary).then(|| Arc::new(class));
        let draft = self.statements.draft(kept, original, class, settings, self.digest(text));
        let instead = instead.or_else(|| executed.clone()).or_else(|| stripped.clone());
        let action = if self.session.keeps_own_names() {
            // A Parse under a name that is taken fails, and the name stays as it is.
            let undo = Some(self.session.statements.insert(name, draft));
            self.leased.cycle.changes_names();
            self.push(Expect::Parse, Some(ReplyAction::Renames(undo)));
            return self.send_parse(message, name, name, instead.as_deref());
        } else if self.session.statements.is_of_sql(name) {
            // The backend has it under this very name.
            self.push(Expect::Parse, None);
            return self.send_parse(message, name, name, instead.as_deref());
        } else if is_taken {
            return self.parse_taken(message, name, instead.as_deref());
        } else {
            let number = prepare::admit(&draft, self.session, self.leased, self.out);
            let undo = Some(self.session.statements.insert(name, Arc::clone(&draft)));
            self.leased.cycle.changes_names();
            self.push(Expect::Parse, Some(ReplyAction::Parses { statement: Arc::clone(&draft), undo }));
            let server_name = statements::name(number);
            let rest = self.send_parse(message, name, &server_name, instead.as_deref());
            if draft.is_large() {
                return rest;
            }
            (server_name, Analyses { draft, name: name.into(), is_alone })
        };
        let (server_name, analyses) = action;
        self.leased.cycle.expect_own(Expect::DescribeStatement, Some(ReplyAction::Analyses(Box::new(analyses))));
        build::describe_statement(self.out.buffer(), &server_name);
        Rest::Discard
    }

    /// A PREPARE in SQL may have this name, or have had it: what is unanswered decides that.
    #[inline]
    pub(super) fn may_be_of_sql(&self, name: &[u8]) -> bool {
        self.session.pins.may_hold(StateFlags::PREPARE) && self.session.statements.find(name).is_none()
    }

    /// The body of a Parse behind its name without the tags of tracing, if it has any and they are left out.
    #[inline]
    fn without_trace(&self, text: &[u8], rest: &[u8]) -> Option<Vec<u8>> {
        if !text.ends_with(b"*/") && !text.starts_with(b"/*") {
            return None;
        }
        let strips = self.worker.proxy.config.load().statements.comments == Comments::StripTrace;
        let other = strips.then(|| sql::without_trace(text)).flatten()?;
        Some([&other, &rest[text.len()..]].concat())
    }

    /// Sends a Parse under the backend's name, perhaps of another text.
    pub(super) fn send_parse(
        &mut self,
        message: Message<'_>,
        name: &[u8],
        server_name: &[u8],
        instead: Option<&[u8]>,
    ) -> Rest {
        match instead {
            Some(rest) => {
                self.out.skip(message.fresh);
                build::parse(self.out.buffer(), server_name, rest);
                Rest::Discard
            }
            None => {
                rename(self.out, message, &[], name, server_name);
                Rest::Forward
            }
        }
    }

    /// A Parse under a name that the client has given already. The server judges the text first, and then finds a name
    /// of ours taken.
    pub(super) fn parse_taken(&mut self, message: Message<'_>, name: &[u8], instead: Option<&[u8]>) -> Rest {
        let error = duplicate_error(name);
        for expect in [Expect::Close, Expect::Parse] {
            self.leased.cycle.expect_own(expect, None);
        }
        build::close_statement(self.out.buffer(), FAILING_NAME);
        build::parse(self.out.buffer(), FAILING_NAME, EMPTY_TEXT);
        self.push(Expect::Parse, Some(ReplyAction::Duplicates(error)));
        self.send_parse(message, name, FAILING_NAME, instead)
    }
}

/// A text in which names of statements stand for something, at this moment and on this backend.
struct Resolved {
    /// Its effects with those of what it executes.
    class: StatementEffects,
    /// What is parsed instead of it, in the client's names.
    kept: Option<Vec<u8>>,
    /// The same in the backend's.
    renamed: Option<Vec<u8>>,
}

/// The effects of a statement once the types of its parameters are known: the bytes of some are not those of a text.
pub(super) fn with_types(mut class: StatementEffects, types: &[u8]) -> StatementEffects {
    for (_, effect) in &mut class.effects {
        let Effect::SetBound { name, value, .. } = effect else { continue };
        let is_text = |argument: &Argument| match argument {
            Argument::Parameter(number) => session::is_text(types, *number),
            _ => true,
        };
        if !is_text(name) || !value.as_ref().is_none_or(is_text) {
            let effects = effect.bound(|_| BoundText::Unknown);
            *effect = effects.into_iter().next().unwrap_or(Effect::SetAny { scope: Scope::Session });
        }
    }
    class
}
