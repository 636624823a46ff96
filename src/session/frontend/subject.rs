//! Which statement a message runs, by digest, where statements are counted.

use super::Frontend;
use crate::session::running::Subject;
use crate::sql::{self, Digest};
use crate::workload::Glance;

/// Bytes of a text that the log of slow statements gets.
const LOGGED_MAX: usize = 2048;

impl Frontend<'_, '_> {
    /// The digest of a text that is prepared; [`Digest::NONE`] for one that was not read, and where none is counted.
    #[inline]
    pub(super) fn digest(&self, text: Option<&[u8]>) -> Digest {
        let (Some(recorder), Some(text)) = (&self.worker.recorder, text) else { return Digest::NONE };
        let glance = recorder.glance(text, self.session.lexer, self.worker.proxy.clock.second());
        glance.digests.first().copied().unwrap_or(Digest::NONE)
    }

    /// A Query of this text is about to be sent. True if it is known to be plain, see [`sql::is_plain`].
    #[inline]
    pub(super) fn begin_query(&mut self, text: Option<&[u8]>) -> bool {
        let Some(recorder) = &self.worker.recorder else { return false };
        let Some(text) = text else {
            self.session.entry.set_statement(Digest::NONE);
            self.leased.cycle.running().set_subject(None);
            return false;
        };
        let Glance { digests, is_plain } = recorder.glance(text, self.session.lexer, self.worker.proxy.clock.second());
        self.session.entry.set_statement(digests.first().copied().unwrap_or_default());
        let note = if recorder.logs_slow() { self.note(text) } else { None };
        self.leased.cycle.running().set_subject(Some(Subject { digests, note }));
        is_plain
    }

    /// An Execute of this portal is about to be sent.
    #[inline]
    pub(super) fn begin_execute(&mut self, portal: &[u8]) {
        if self.worker.recorder.is_none() {
            return;
        }
        let digest = self.session.statements.digest_of_portal(portal);
        self.session.entry.set_statement(digest);
        let digests = smallvec::smallvec![digest];
        self.leased.cycle.running().set_subject(Some(Subject { digests, note: None }));
    }

    /// A portal was bound to the statement of this name and digest.
    #[inline]
    pub(super) fn bind_digest(&mut self, portal: &[u8], name: &[u8], digest: Digest) {
        let Some(recorder) = &self.worker.recorder else { return };
        if digest != Digest::NONE && !recorder.knows(digest) {
            self.admit_again(name, digest);
        }
        self.session.statements.bind_digest(portal, digest);
    }

    /// The record of a statement may have gone since its Parse.
    #[cold]
    fn admit_again(&self, name: &[u8], digest: Digest) {
        let Some(recorder) = &self.worker.recorder else { return };
        let statements = &self.session.statements;
        let text = match name.is_empty() {
            true => statements.unnamed_text(),
            false => statements.find(name).map_or(&[][..], |found| &found.rest),
        };
        recorder.admit(digest, text, self.session.lexer, self.worker.proxy.clock.second());
    }

    /// The tags of a text for the log of slow statements, or all of it.
    #[cold]
    fn note(&self, text: &[u8]) -> Option<Box<str>> {
        if self.worker.proxy.config.load().statements.log_literals {
            return Some(String::from_utf8_lossy(&text[..text.len().min(LOGGED_MAX)]).into());
        }
        let tags = sql::tags(text);
        let words: Vec<String> = tags.iter().map(|tag| format!("{}={}", tag.key, tag.value)).collect();
        (!words.is_empty()).then(|| words.join(" ").into())
    }
}
