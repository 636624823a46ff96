//! Notifications on their way to a client, and the answer to its LISTEN, which waits until they can come.
//!
//! A client gets notifications when Postgres would send them: while it is idle outside a transaction, never between the
//! messages of an answer. Notifications wake it however long it has been silent. A client that does not read gets none
//! here: its mailbox fills, and then it gets an error.

use std::pin::Pin;
use std::task::Context;

use tokio::time::{Sleep, sleep};

use super::{Client, End, Phase};
use crate::error::Fault;
use crate::error::sqlstate;
use crate::notify::mailbox::Closing;

/// Bytes of notifications that are moved at once: the socket takes them before more are moved.
const MOVED_AT_ONCE: usize = 64 * 1024;

/// An answer that is held back.
#[derive(Debug)]
pub(super) struct Withheld {
    /// Latest time for the channel to be in place.
    deadline: Pin<Box<Sleep>>,
    /// Start of the answer in the write buffer, if it answers the LISTEN alone: it is taken out again if the LISTEN
    /// fails.
    answer: Option<usize>,
}

impl Client {
    /// Sends the client's notifications, if they may be sent now. True if there were any.
    #[inline]
    pub(super) fn deliver(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        match self.session.notifications.mailbox() {
            Some(mailbox) if mailbox.has_mail() => self.deliver_now(cx),
            _ => Ok(false),
        }
    }

    fn deliver_now(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if !self.is_between_cycles() {
            return Ok(false);
        }
        let closing = self.session.notifications.mailbox().and_then(|mailbox| mailbox.closing());
        if let Some(closing) = closing {
            return Err(self.closed(closing));
        }
        if self.withheld.is_some() || !self.side.buffer.is_empty() {
            return Ok(false);
        }
        match self.session.take_mail(self.side.buffer.bytes(), MOVED_AT_ONCE) {
            Ok(0) => Ok(false),
            Ok(_) => self.flush(cx).map(|()| true),
            Err(closing) => Err(self.closed(closing)),
        }
    }

    /// True when Postgres would be waiting for a command, with no transaction open.
    fn is_between_cycles(&self) -> bool {
        match &self.phase {
            Phase::Idle => !self.is_discarding && !self.is_unsynced && self.refusal.is_none(),
            // Pinned, or in session mode.
            Phase::Leased(leased) => leased.cycle.can_release(),
            Phase::Waiting(_) | Phase::Orphaned(_) => false,
        }
    }

    fn closed(&self, closing: Closing) -> End {
        let fault = match closing {
            Closing::Overflow => Fault::ListenerFull,
            Closing::Gap(gap) => Fault::NotificationGap(gap),
            Closing::Untranslatable => Fault::NotificationEncoding,
        };
        self.counted(fault)
    }

    fn counted(&self, fault: Fault) -> End {
        self.worker.proxy.errors.count(sqlstate::report(&fault).code);
        fault.into()
    }

    /// Sends the bytes that the client's socket did not take, unless they have to wait.
    #[inline]
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if self.withholds(cx)? {
            return Ok(());
        }
        Ok(self.side.buffer.flush(cx, &mut self.stream)?)
    }

    /// Sends to the client, behind the bytes that wait already.
    #[inline]
    pub(super) fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), End> {
        if self.withholds(cx)? {
            self.side.buffer.bytes().extend_from_slice(bytes);
            return Ok(());
        }
        Ok(self.side.buffer.send(cx, &mut self.stream, bytes)?)
    }

    /// The write buffer has an answer from `from` on; the answer to a LISTEN that is not in place yet is held back.
    pub(super) fn answered(&mut self, from: usize) {
        if self.withheld.is_none() && self.is_listening_in_vain() {
            self.withheld = Some(self.withhold(Some(from)));
        }
    }

    /// True while a channel that the client listens to is not in place yet: the answer waits.
    #[inline]
    fn withholds(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let notifications = &self.session.notifications;
        if notifications.mailbox().is_none()
            && self.withheld.is_none()
            && self.refusal.is_none()
            && !notifications.awaits_server()
        {
            return Ok(false);
        }
        self.still_withholds(cx)
    }

    fn still_withholds(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.refusal.as_ref().is_some_and(|refusal| refusal.is_held_back())
            || self.session.notifications.awaits_server()
        {
            return Ok(true);
        }
        if !self.is_listening_in_vain() {
            self.withheld = None;
            return Ok(false);
        }
        let mut withheld = self.withheld.take().unwrap_or_else(|| self.withhold(None));
        if withheld.deadline.as_mut().poll(cx).is_pending() {
            self.withheld = Some(withheld);
            return Ok(true);
        }
        let missing = self
            .session
            .notifications
            .mailbox()
            .and_then(|mailbox| self.session.notifications.exchange().missing(mailbox));
        // The channel came into place at the very last moment: the answer goes out after all.
        let Some(missing) = missing else { return Ok(false) };
        if let Some(answer) = withheld.answer {
            self.side.buffer.bytes().truncate(answer);
        }
        Err(self.counted(Fault::ListenFailed(missing)))
    }

    fn is_listening_in_vain(&self) -> bool {
        self.session.notifications.mailbox().is_some_and(|mailbox| !mailbox.is_in_place())
    }

    fn withhold(&self, answer: Option<usize>) -> Box<Withheld> {
        let patience = self.session.pool.settings().pool.connect_timeout;
        Box::new(Withheld { deadline: Box::pin(sleep(patience)), answer })
    }
}
