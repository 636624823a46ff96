//! NOTIFY and LISTEN of one client, from the statement to the end of its transaction.
//!
//! A stand-in runs at the server in the place of such a statement, so that order, errors and aborted transactions stay
//! the server's business. The notification or change is kept here: COMMIT hands it to the [`Exchange`] before its
//! answer is forwarded, any other end of a transaction drops it. [`super::answers`] follows the backend of a client,
//! [`super::cleanup`] that of a client that has gone.

use std::sync::Arc;

use bytes::Bytes;

use super::reply_action::Runs;
use crate::clients::ClientEntry;
use crate::notify::exchange::{Delivery, Exchange};
use crate::notify::mailbox::Mailbox;
use crate::notify::notification::{Notification, RefusedNotification};
use crate::notify::pending::{Change, Pending};
use crate::notify::stats::Dropped;
use crate::pool::in_use::InUse;
use crate::pool::pool::Pool;
use crate::sql::{Argument, Effect, StatementEffects};
use crate::wire::bind;
use crate::wire::build::error_fields;

/// SQLSTATE of the INFO by which the functions of `pgweir notify-sql` report a notification.
const PRIVATE: &[u8] = b"PW001";

/// Channels that one client may listen to: what it leaves behind when it goes takes time in proportion.
const CHANNELS_MAX: usize = 10_000;

/// State of one client's NOTIFY and LISTEN.
#[derive(Debug)]
pub(crate) struct Notifications {
    exchange: InUse<Exchange>,
    /// `None` for most clients, which use neither.
    open: Option<Box<Open>>,
    /// Notifications of its own at the server.
    server: AtServer,
    /// Notifications of its last transaction, while they wait behind the server's.
    awaited: Option<Arc<Delivery>>,
    /// A LISTEN of the client was committed. From then on each UNLISTEN is a part of its transaction, which PREPARE
    /// TRANSACTION refuses (`unlistenExitRegistered` of `async.c`).
    has_listened: bool,
}

/// Notifications of a client at the server, by a DO, a CALL or a NOTIFY that was not intercepted; each may be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct AtServer {
    /// In an earlier transaction: the client's next notification here is told behind it.
    before: bool,
    /// In the transaction under way: what it notifies of now goes to the server, too, which orders and folds. So many
    /// notifications here came before.
    now: Option<usize>,
}

#[derive(Debug, Default)]
struct Open {
    /// Notifications and changes that are not committed.
    pending: Pending,
    /// Mailbox; `Some` while the client listens to something.
    mailbox: Option<Arc<Mailbox>>,
}

/// The client that notifies or listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Party<'a> {
    pub pid: i32,
    /// Pool that its backends come from.
    pub pool: &'a InUse<Pool>,
    /// The client's entry; `None`: it has gone, and gets no notifications any more.
    pub entry: Option<&'a Arc<ClientEntry>>,
}

impl Notifications {
    /// State of a new client of this exchange's database.
    pub(crate) fn new(exchange: InUse<Exchange>) -> Self {
        Self { exchange, open: None, server: AtServer::default(), awaited: None, has_listened: false }
    }

    /// The exchange that notifications go to and come from.
    pub(crate) fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    /// True if the client does not listen and has nothing uncommitted, here or at the server.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_none() && !self.mixes()
    }

    /// True if a statement with this tag is followed.
    pub(crate) fn follows(&self, tag: &[u8]) -> bool {
        !self.is_idle() || matches!(tag, b"DO" | b"CALL")
    }

    /// True while the client's notifications wait behind the server's: its answer waits with them.
    #[inline]
    pub(crate) fn awaits_server(&self) -> bool {
        self.awaited.as_ref().is_some_and(|delivery| !delivery.is_done())
    }

    /// True if the transaction under way may have notified at the server: the rest of its notifications go there, too.
    pub(crate) fn mixes(&self) -> bool {
        self.server.now.is_some()
    }

    /// Mailbox of the notifications that wait for the client.
    #[inline]
    pub(crate) fn mailbox(&self) -> Option<&Arc<Mailbox>> {
        self.open.as_ref().and_then(|open| open.mailbox.as_ref())
    }

    /// True if the transaction has notified, or changes the channels listened to.
    pub(crate) fn has_pending(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.pending.is_empty())
    }

    /// True if the transaction must not notify any more.
    pub(crate) fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.pending.is_full())
    }

    /// Bytes of memory that its transaction takes, about.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.pending.memory())
    }

    /// True if the client must not listen to any more channels.
    pub(crate) fn has_too_many_channels(&self) -> bool {
        let Some(open) = &self.open else { return false };
        let listening = open.mailbox.as_ref().map_or(0, |mailbox| self.exchange.channel_count(mailbox));
        listening + open.pending.changes() >= CHANNELS_MAX
    }

    /// True if notifications wait for the client.
    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.mailbox().is_some_and(|mailbox| mailbox.has_mail())
    }

    /// Channels the client listens to.
    pub(crate) fn channels(&self) -> Vec<Bytes> {
        self.mailbox().map(|mailbox| self.exchange.channels_of(mailbox)).unwrap_or_default()
    }

    /// One more statement of `runs` has completed, with this tag; a portal that was suspended has an empty one.
    pub(crate) fn completed(&mut self, runs: &Runs, tag: &[u8]) {
        let stands_in = runs.class.stands_in;
        for effect in runs.done() {
            match effect {
                // Resuming a suspended portal does not call the function again.
                Effect::Notify { .. } if stands_in && tag != b"SELECT 0" => {
                    if let Some(notification) = runs.given.clone().or_else(|| literal(effect)) {
                        self.notify(notification);
                    }
                }
                Effect::Notify { .. } if !stands_in => self.at_server(),
                Effect::Listen(channel) if stands_in => self.open().pending.change(Change::Listen(channel.clone())),
                Effect::Unlisten(channel) => self.end(|| Change::Unlisten(channel.clone())),
                Effect::UnlistenAll | Effect::DiscardAll => self.end(|| Change::UnlistenAll),
                // The change need not be recorded if nothing came before it.
                effect => {
                    let Some(open) = &mut self.open else { continue };
                    match effect {
                        Effect::Savepoint(name) => open.pending.savepoint(name),
                        Effect::Release(name) => open.pending.release(name),
                        Effect::RollbackTo(name) => open.pending.roll_back_to(name),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Handles a statement by its tag alone, which may be that of a text that was not read. `is_partial`: it was a
    /// ROLLBACK TO.
    pub(crate) fn tagged(&mut self, tag: &[u8], is_partial: bool, party: Party<'_>) {
        match tag {
            b"COMMIT" => self.commit(party),
            b"ROLLBACK" if !is_partial => self.roll_back(),
            b"DO" | b"CALL" => self.at_server(),
            _ => {}
        }
    }

    /// A statement has completed that may have notified at the server.
    fn at_server(&mut self) {
        if !self.mixes() {
            let ahead = self.open.as_ref().map_or(0, |open| open.pending.notifications());
            self.server.now = Some(ahead);
        }
    }

    /// A cycle has ended outside a transaction.
    pub(crate) fn ended(&mut self, has_failed: bool, party: Party<'_>) {
        match has_failed {
            true => self.roll_back(),
            false => self.commit(party),
        }
    }

    /// The transaction was rolled back.
    pub(crate) fn roll_back(&mut self) {
        self.server.now = None;
        if let Some(open) = &mut self.open {
            open.pending.roll_back();
            self.close();
        }
    }

    /// The backend is lost.
    pub(crate) fn lost(&mut self, in_commit: bool) {
        if let Some(open) = self.open.as_mut().filter(|_| in_commit) {
            self.exchange.stats.dropped(Dropped::Commit, open.pending.commit().notifications.len());
        }
        self.roll_back();
    }

    /// True if this NoticeResponse is private. The notification in it is kept.
    pub(crate) fn hear(&mut self, body: &[u8]) -> bool {
        let fields = error_fields(body);
        let is_private = fields.code == PRIVATE;
        if is_private
            && let Ok(notification) =
                Notification::new(Bytes::copy_from_slice(fields.column), Bytes::copy_from_slice(fields.message))
        {
            self.notify(notification);
        }
        is_private
    }

    /// Runs a statement that needs no transaction but its own, and was not sent to a server.
    pub(crate) fn run_alone(&mut self, effect: &Effect, party: Party<'_>) {
        let class = StatementEffects {
            statements: 1,
            effects: [(0, effect.clone())].into_iter().collect(),
            stands_in: true,
            ..StatementEffects::default()
        };
        self.completed(&Runs { completed: 1, ..Runs::new(Arc::new(class)) }, b"");
        self.commit(party);
    }

    /// Takes the uncommitted part of a client whose backend is followed without it from now on.
    pub(crate) fn part(&mut self) -> Self {
        let mut parted = Self::new(self.exchange.clone());
        (parted.server, parted.awaited) = (self.server, self.awaited.take());
        if let Some(open) = &mut self.open {
            parted.open = Some(Box::new(Open { pending: std::mem::take(&mut open.pending), mailbox: None }));
            self.close();
        }
        parted
    }

    /// The client listens to nothing any more.
    pub(crate) fn leave(&mut self) {
        if let Some(mailbox) = self.open.as_mut().and_then(|open| open.mailbox.take()) {
            self.exchange.leave(&mailbox);
        }
    }

    fn open(&mut self) -> &mut Open {
        self.open.get_or_insert_default()
    }

    fn notify(&mut self, notification: Notification) {
        self.exchange.stats.intercepted(1);
        self.open().pending.notify(notification);
    }

    /// Records that listening ends; a client that has not listened may have nothing to end.
    fn end(&mut self, change: impl FnOnce() -> Change) {
        if self.has_listened || self.open.is_some() {
            self.open().pending.change(change());
        }
    }

    fn commit(&mut self, party: Party<'_>) {
        let now = self.server.now.take();
        let waits = self.server.before || self.awaits_server();
        self.server.before |= now.is_some();
        let Some(open) = &mut self.open else { return };
        let committed = open.pending.commit();
        if !(committed.changes.is_empty() && committed.notifications.is_empty()) {
            self.exchange.use_login(party.pool);
        }
        for change in &committed.changes {
            self.has_listened |= matches!(change, Change::Listen(_));
            if let (Change::Listen(_), Some(entry)) = (change, party.entry) {
                open.mailbox.get_or_insert_with(|| Mailbox::new(party.pid, Arc::clone(entry).into()));
            }
            if let Some(mailbox) = &open.mailbox {
                self.exchange.change(mailbox, change);
            }
        }
        let exchange = &self.exchange;
        if !committed.changes.is_empty() {
            open.mailbox = open.mailbox.take().filter(|mailbox| exchange.channel_count(mailbox) > 0);
        }
        self.exchange.stats.folded(committed.folded as usize);
        let count = committed.notifications.len();
        let ahead = now.unwrap_or(if waits { 0 } else { count });
        let (first, behind) = committed.notifications.split_at(ahead.min(count));
        self.exchange.publish(party.pid, first);
        if !behind.is_empty() {
            let waker = party.entry.map(|entry| Arc::clone(entry).into());
            self.awaited = self.exchange.publish_behind(party.pid, behind, waker);
            // The client waits for them: the next ones come behind.
            self.server.before = false;
        }
        self.close();
    }

    /// Drops the open state when nothing is left in it.
    fn close(&mut self) {
        if self.open.as_ref().is_some_and(|open| open.mailbox.is_none() && open.pending.is_empty()) {
            self.open = None;
        }
    }
}

impl Drop for Notifications {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The notification of a statement whose arguments are all literal.
fn literal(effect: &Effect) -> Option<Notification> {
    let text = |argument: &Argument| match argument {
        Argument::Text(text) => Some(text.clone()),
        Argument::Null => Some(Bytes::new()),
        Argument::Parameter(_) => None,
    };
    let Effect::Notify { channel, payload, .. } = effect else { return None };
    Notification::new(text(channel)?, text(payload)?).ok()
}

/// Arguments that a Bind gives to the `pg_notify` of its statement. `None`: Postgres would not accept them.
pub(crate) fn given(class: &StatementEffects, bind: &[u8]) -> Option<Result<Notification, RefusedNotification>> {
    let [(_, Effect::Notify { channel, payload, .. })] = class.effects.as_slice() else { return None };
    let text = |argument: &Argument| {
        Some(match argument {
            Argument::Text(text) => Some(text.clone()),
            Argument::Null => Some(Bytes::new()),
            Argument::Parameter(number) => match bind::value(bind, *number)? {
                bind::BindValue::Null => Some(Bytes::new()),
                bind::BindValue::Whole(text) => Some(Bytes::copy_from_slice(text)),
                bind::BindValue::Cut => None,
            },
        })
    };
    Some(match (text(channel)?, text(payload)?) {
        (Some(channel), Some(payload)) => Notification::new(channel, payload),
        (Some(channel), None) => Notification::new(channel, Bytes::new()).and(Err(RefusedNotification::PayloadTooLong)),
        (None, _) => Err(RefusedNotification::ChannelTooLong),
    })
}
