//! The prepared statements of one client, under the names it gave them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::notify::notification::{Notification, Unnotifiable};
use crate::sql::{Digest, StatementEffects};
use crate::state::statements::Statement;

/// Bytes that the named statements of one client may take; a client that never closes any gets an error here.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of a named statement besides its text and name, about.
const OVERHEAD: usize = 512;

/// Bytes that the portals of one client may take here; only those are kept that change its session.
const PORTAL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// TaggedStatement portals of one transaction whose statements are told apart.
const PORTAL_DIGESTS_MAX: usize = 64;

/// Bytes that stay allocated for the next unnamed statement.
const CAPACITY_KEPT: usize = 4096;

/// Bytes of a name that Postgres tells apart: `NAMEDATALEN` − 1 (`prepare.c`, `portalmem.c`).
const NAME_MAX: usize = 63;

/// The part of a name that counts.
fn key(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME_MAX)]
}

/// Names and the unnamed statement.
#[derive(Debug, Default)]
pub(crate) struct ClientStatements {
    named: BTreeMap<Box<[u8]>, TaggedStatement>,
    /// Of the last name.
    last_tag: u32,
    /// Names of statements of SQL PREPARE, which its backend has under the same names.
    of_sql: BTreeSet<Box<[u8]>>,
    /// Bytes that they take.
    bytes: usize,
    /// Number of named statements that are too large to be parsed again elsewhere.
    large: usize,
    /// Text and types of the last unnamed Parse; meaningful while `unnamed` is not `None`.
    text: Vec<u8>,
    /// State of the unnamed statement.
    pub unnamed: Unnamed,
    /// Number of the last unnamed Parse.
    parse: u32,
    /// Digest of the statement of the unnamed portal.
    unnamed_portal_digest: Digest,
    /// The portals of the transaction, if more than that is to be known of any.
    portals: Option<Box<OpenPortals>>,
}

#[derive(Debug, Default)]
struct OpenPortals {
    /// The unnamed one, if its statement changes the session.
    unnamed: Option<Portal>,
    /// TaggedStatement ones whose statement changes the session.
    named: BTreeMap<Box<[u8]>, Portal>,
    /// Bytes that they take.
    bytes: usize,
    /// Digests of the statements of named ones.
    digests: BTreeMap<Box<[u8]>, Digest>,
    /// The last unnamed Parses that came to nothing while another one is under way behind them.
    undone: Option<UndoneParses>,
}

/// Effect of executing a portal.
#[derive(Debug, Clone)]
pub(crate) struct Portal {
    /// Effects of its statement.
    pub class: Arc<StatementEffects>,
    /// Arguments that its Bind gave to a `pg_notify`; an error is one of its execution.
    pub given: Option<Result<Notification, Unnotifiable>>,
}

impl Portal {
    /// Bytes that it takes under this name, about.
    fn cost(&self, name: &[u8]) -> usize {
        let given = self.given.as_ref().and_then(|given| given.as_ref().ok());
        OVERHEAD + name.len() + given.map_or(0, Notification::len)
    }
}

impl From<Arc<StatementEffects>> for Portal {
    fn from(class: Arc<StatementEffects>) -> Self {
        Self { class, given: None }
    }
}

/// The unnamed statement of a client.
#[derive(Debug, Default)]
pub(crate) enum Unnamed {
    /// Never parsed, or destroyed by a Query.
    #[default]
    None,
    /// Parsed; kept as text, and on the backend of the current lease if `here`.
    Kept {
        /// The current backend has it.
        here: bool,
        /// Its effects, if any.
        class: Option<Arc<StatementEffects>>,
        digest: Digest,
    },
    /// Parsed and too large to be kept: only the current backend has it.
    Large {
        /// Its effects, if any.
        class: Option<Arc<StatementEffects>>,
    },
}

/// A statement under a name.
#[derive(Debug)]
struct TaggedStatement {
    statement: Arc<Statement>,
    /// Tells the name from the client's others, of the same statement, too.
    tag: u32,
}

/// An unnamed Parse under way.
#[derive(Debug)]
pub(crate) struct UnnamedParse {
    number: u32,
    /// The statement before it, if the Parse may be dropped unread.
    before: KeptUnnamed,
    /// The Parse was read, and failed.
    pub has_failed: bool,
    /// Its text is none in the client's encoding: it fails before it destroys the statement before it.
    is_unreadable: bool,
}

/// The unnamed statement and its text.
type KeptUnnamed = Option<Box<(Unnamed, Vec<u8>)>>;

/// Unnamed Parses one behind the other that all came to nothing.
#[derive(Debug)]
struct UndoneParses {
    /// Number of the last.
    last: u32,
    /// The statement that is there behind them, if any.
    left: KeptUnnamed,
}

/// A change of names that a failed or dropped message takes back: a name and its meaning before.
#[derive(Debug)]
pub(crate) struct Undo(Box<[u8]>, Option<TaggedStatement>);

impl Undo {
    /// The name, if what it meant before has this tag.
    pub(super) fn name_tagged(&self, tag: u32) -> Option<&[u8]> {
        self.1.as_ref().is_some_and(|named| named.tag == tag).then_some(&self.0)
    }
}

/// Bytes that a named statement takes, its shared text included: that is there twice, the second time as the key by
/// which other clients find it.
fn cost(name: &[u8], statement: &Statement) -> usize {
    OVERHEAD + name.len() + 2 * statement.len()
}

impl ClientStatements {
    /// The statement under a name.
    #[inline]
    pub(crate) fn find(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.named.get(key(name)).map(|named| &named.statement)
    }

    /// The same with the tag of the name.
    #[inline]
    pub(super) fn find_tagged(&self, name: &[u8]) -> Option<(&Arc<Statement>, u32)> {
        self.named.get(key(name)).map(|named| (&named.statement, named.tag))
    }

    /// The name with this tag.
    pub(super) fn name_tagged(&self, tag: u32) -> Option<&[u8]> {
        self.named.iter().find(|(_, named)| named.tag == tag).map(|(name, _)| &name[..])
    }

    /// The name of the statement of this id.
    pub(super) fn name_of(&self, id: u64) -> Option<&[u8]> {
        self.named.iter().find(|(_, named)| named.statement.id == id).map(|(name, _)| &name[..])
    }

    /// Gives a statement a name.
    pub(crate) fn insert(&mut self, name: &[u8], statement: Arc<Statement>) -> Box<Undo> {
        self.last_tag = self.last_tag.wrapping_add(1);
        let named = TaggedStatement { statement, tag: self.last_tag };
        Box::new(Undo(key(name).into(), self.put(key(name), named)))
    }

    /// Forgets a name.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<Box<Undo>> {
        let before = self.take(key(name))?;
        Some(Box::new(Undo(key(name).into(), Some(before))))
    }

    /// Undoes a change.
    pub(crate) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo(name, Some(named)) => drop(self.put(&name, named)),
            Undo(name, None) => drop(self.take(&name)),
        }
    }

    /// A draft turned out to be this statement.
    pub(crate) fn is_now(&mut self, name: &[u8], draft: &Arc<Statement>, statement: Arc<Statement>) {
        if let Some(known) = self.named.get_mut(key(name)).filter(|known| Arc::ptr_eq(&known.statement, draft)) {
            known.statement = statement;
        }
    }

    /// A borrowed statement turned out to be this one.
    pub(crate) fn replace(&mut self, borrowed: &Arc<Statement>, statement: &Arc<Statement>) {
        for named in self.named.values_mut().filter(|named| Arc::ptr_eq(&named.statement, borrowed)) {
            named.statement = Arc::clone(statement);
        }
    }

    /// PREPARE of a name.
    pub(crate) fn prepared_in_sql(&mut self, name: &[u8]) {
        self.of_sql.insert(key(name).into());
    }

    /// True if the name is that of a statement of SQL PREPARE.
    #[inline]
    pub(crate) fn is_of_sql(&self, name: &[u8]) -> bool {
        !self.of_sql.is_empty() && self.of_sql.contains(key(name))
    }

    /// DEALLOCATE of a statement of SQL PREPARE.
    pub(crate) fn forget_of_sql(&mut self, name: &[u8]) {
        self.of_sql.remove(key(name));
    }

    /// True if it takes no more.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= BYTES_MAX
    }

    /// Bytes of memory that all of them take, about.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        self.bytes + self.text.capacity() + self.portal_bytes()
    }

    /// DEALLOCATE ALL.
    pub(crate) fn clear_named(&mut self) {
        (self.large, self.bytes) = (0, 0);
        self.named.clear();
        self.of_sql.clear();
    }

    /// What was under the name is returned.
    fn put(&mut self, name: &[u8], named: TaggedStatement) -> Option<TaggedStatement> {
        let before = self.take(name);
        self.large += usize::from(named.statement.is_large());
        self.bytes += cost(name, &named.statement);
        self.named.insert(name.into(), named);
        before
    }

    fn take(&mut self, name: &[u8]) -> Option<TaggedStatement> {
        let before = self.named.remove(name)?;
        self.large -= usize::from(before.statement.is_large());
        self.bytes = self.bytes.saturating_sub(cost(name, &before.statement));
        Some(before)
    }

    /// True if a statement is too large to be parsed again elsewhere.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        self.large > 0 || matches!(self.unnamed, Unnamed::Large { .. })
    }

    /// An unnamed Parse is about to be sent. `may_be_dropped`: behind messages that may fail. `is_unreadable`: its text
    /// is none in the client's encoding.
    pub(crate) fn begin_unnamed(&mut self, may_be_dropped: bool, is_unreadable: bool) -> UnnamedParse {
        let before = (may_be_dropped || is_unreadable).then(|| {
            let text = std::mem::take(&mut self.text);
            Box::new((std::mem::take(&mut self.unnamed), text))
        });
        let number = self.parse;
        self.parse = self.parse.wrapping_add(1);
        UnnamedParse { number, before, has_failed: false, is_unreadable }
    }

    /// A Query that the server will run: it destroys the unnamed statement, whatever becomes of what is in front of it.
    #[inline]
    pub(crate) fn drop_unnamed(&mut self) {
        self.unnamed = Unnamed::None;
        self.parse = self.parse.wrapping_add(1);
    }

    /// An unnamed Parse failed, or was dropped; those in front of it were answered before. Unless it destroyed the
    /// statement before it, that is still there.
    pub(crate) fn unnamed_not_parsed(&mut self, parse: UnnamedParse) {
        let destroyed = parse.has_failed && !parse.is_unreadable;
        let earlier = self.portals.as_mut().and_then(|portals| portals.undone.take());
        // What was there when it was sent may have come to nothing itself.
        let left = match earlier.filter(|earlier| earlier.last.wrapping_add(1) == parse.number) {
            _ if destroyed => None,
            Some(earlier) => earlier.left,
            None => parse.before,
        };
        if self.parse == parse.number.wrapping_add(1) {
            self.unnamed = Unnamed::None;
            if let Some(left) = left {
                (self.unnamed, self.text) = *left;
            }
        } else {
            self.portals.get_or_insert_default().undone = Some(UndoneParses { last: parse.number, left });
        }
    }

    /// An unnamed Parse: its text is kept, because its Bind may come in another lease.
    #[inline]
    pub(crate) fn keep_unnamed(&mut self, rest: &[u8], class: Option<Arc<StatementEffects>>, digest: Digest) {
        if self.text.capacity() > CAPACITY_KEPT && rest.len() <= CAPACITY_KEPT {
            self.text = Vec::new();
        }
        self.text.clear();
        self.text.extend_from_slice(rest);
        self.unnamed = Unnamed::Kept { here: true, class, digest };
    }

    /// Frees memory that nothing needs.
    #[inline]
    pub(crate) fn shrink(&mut self) {
        if self.text.capacity() > CAPACITY_KEPT && !matches!(self.unnamed, Unnamed::Kept { .. }) {
            self.text = Vec::new();
        }
    }

    /// Text and types of the unnamed statement.
    pub(crate) fn unnamed_text(&self) -> &[u8] {
        &self.text
    }

    /// The backend's unnamed statement is no longer this client's.
    #[inline]
    pub(crate) fn leave_unnamed(&mut self) {
        match &mut self.unnamed {
            Unnamed::None => {}
            Unnamed::Kept { here, .. } => *here = false,
            Unnamed::Large { .. } => self.unnamed = Unnamed::None,
        }
    }

    /// Another backend: the unnamed statement is not there yet.
    #[inline]
    pub(crate) fn leave_backend(&mut self) {
        self.leave_unnamed();
        self.drop_portals();
    }

    /// Effects of the unnamed statement.
    pub(crate) fn unnamed_class(&self) -> Option<Arc<StatementEffects>> {
        match &self.unnamed {
            Unnamed::None => None,
            Unnamed::Kept { class, .. } | Unnamed::Large { class } => class.clone(),
        }
    }

    /// Digest of the unnamed statement.
    #[inline]
    pub(crate) fn unnamed_digest(&self) -> Digest {
        match self.unnamed {
            Unnamed::Kept { digest, .. } => digest,
            Unnamed::None | Unnamed::Large { .. } => Digest::NONE,
        }
    }

    /// Executing this portal runs the statement of this digest from now on.
    #[inline]
    pub(crate) fn bind_digest(&mut self, name: &[u8], digest: Digest) {
        if name.is_empty() {
            self.unnamed_portal_digest = digest;
            return;
        }
        let digests = &mut self.portals.get_or_insert_default().digests;
        if digests.len() < PORTAL_DIGESTS_MAX {
            digests.insert(key(name).into(), digest);
        }
    }

    /// Digest of the statement that executing a portal runs.
    #[inline]
    pub(crate) fn digest_of_portal(&self, name: &[u8]) -> Digest {
        if name.is_empty() {
            return self.unnamed_portal_digest;
        }
        let known = self.portals.as_ref().and_then(|portals| portals.digests.get(key(name)));
        known.copied().unwrap_or(Digest::NONE)
    }

    /// Records the effect of executing this portal from now on.
    #[inline]
    pub(crate) fn bind(&mut self, name: &[u8], portal: Option<Portal>) {
        if portal.is_none() && self.portals.is_none() {
            return;
        }
        let portals = self.portals.get_or_insert_default();
        if name.is_empty() {
            portals.unnamed = portal;
            return;
        }
        let name = key(name);
        if let Some(before) = portals.named.remove(name) {
            portals.bytes -= before.cost(name);
        }
        if let Some(portal) = portal {
            portals.bytes += portal.cost(name);
            portals.named.insert(name.into(), portal);
        }
    }

    #[inline]
    fn portal_bytes(&self) -> usize {
        self.portals.as_ref().map_or(0, |portals| portals.bytes)
    }

    /// True if it takes no more portals.
    #[inline]
    pub(crate) fn has_too_many_portals(&self) -> bool {
        self.portal_bytes() >= PORTAL_BYTES_MAX
    }

    /// Effect of executing a portal.
    #[inline]
    pub(crate) fn portal(&self, name: &[u8]) -> Option<Portal> {
        let portals = self.portals.as_ref()?;
        if name.is_empty() {
            return portals.unnamed.clone();
        }
        portals.named.get(key(name)).cloned()
    }

    /// The transaction is over: its portals are gone.
    #[inline]
    pub(crate) fn drop_portals(&mut self) {
        self.portals = None;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum SentMessage {
        Parses,
        FailsToParse,
        IsUnreadable,
        /// Any other message.
        Fails,
    }

    #[derive(Debug, Clone)]
    enum Cycle {
        Unit(Vec<SentMessage>),
        Query,
    }

    fn cycle() -> impl Strategy<Value = Cycle> {
        let sent = prop_oneof![
            4 => Just(SentMessage::Parses), 1 => Just(SentMessage::FailsToParse),
            1 => Just(SentMessage::IsUnreadable), 2 => Just(SentMessage::Fails),
        ];
        prop_oneof![6 => prop::collection::vec(sent, 1..4).prop_map(Cycle::Unit), 1 => Just(Cycle::Query)]
    }

    /// What of a cycle is under way: each text with its Parse.
    type UnderWay = Vec<(SentMessage, u8, Option<UnnamedParse>)>;

    /// The server gets to a cycle; `at_server` is its unnamed statement.
    fn answer(statements: &mut ClientStatements, at_server: &mut Option<u8>, cycle: Option<UnderWay>) {
        let Some(mut sent) = cycle else {
            *at_server = None;
            return;
        };
        let fails = sent.iter().position(|(sent, ..)| *sent != SentMessage::Parses);
        let mut dropped = fails.map(|at| sent.split_off(at)).unwrap_or_default();
        if let Some((_, text, _)) = sent.last() {
            *at_server = Some(*text);
        }
        if let Some((sent, _, parse)) = dropped.first_mut() {
            if *sent == SentMessage::FailsToParse {
                *at_server = None;
            }
            if let Some(parse) = parse {
                parse.has_failed = true;
            }
        }
        for parse in dropped.into_iter().filter_map(|(.., parse)| parse) {
            statements.unnamed_not_parsed(parse);
        }
    }

    proptest! {
        #[test]
        fn behind_all_answers_the_unnamed_statement_is_the_servers(
            cycles in prop::collection::vec((cycle(), 0..4_usize), 1..12),
        ) {
            let (mut statements, mut at_server) = (ClientStatements::default(), None);
            let (mut under_way, mut text) = (VecDeque::<Option<UnderWay>>::new(), 0);
            for (cycle, answered) in cycles {
                under_way.push_back(match cycle {
                    Cycle::Query => {
                        statements.drop_unnamed();
                        None
                    }
                    Cycle::Unit(sent) => Some(sent.into_iter().enumerate().map(|(at, sent)| {
                        text += 1;
                        let parse = (sent != SentMessage::Fails).then(|| {
                            let may_be_dropped = at > 0 || !under_way.is_empty();
                            let parse = statements.begin_unnamed(may_be_dropped, sent == SentMessage::IsUnreadable);
                            statements.keep_unnamed(&[text], None, Digest::NONE);
                            parse
                        });
                        (sent, text, parse)
                    }).collect()),
                });
                for _ in 0..answered {
                    let Some(cycle) = under_way.pop_front() else { break };
                    answer(&mut statements, &mut at_server, cycle);
                }
            }
            for cycle in under_way {
                answer(&mut statements, &mut at_server, cycle);
            }
            let known = matches!(statements.unnamed, Unnamed::Kept { .. }).then(|| statements.unnamed_text()[0]);
            prop_assert_eq!(known, at_server);
        }
    }
}
