//! State that ties a client to its backend because pgweir cannot carry it to another.
//!
//! The lexer only suspects; the server knows. After a statement that may have begun or ended such state the backend is
//! asked about it before a release, in a gap where nothing is outstanding. A suspicion costs one round trip that no
//! client waits for; a pin lasts exactly as long as its reason.

use crate::sql::{KINDS, StateFlags};
use crate::wire::frame::HEADER_LEN;

/// State that a client holds at its backend, and state that has to be asked about.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    held: StateFlags,
    /// Possibly begun since the last question.
    begun: StateFlags,
    /// Possibly ended since then.
    ended: StateFlags,
    /// The question under way.
    asked: StateFlags,
}

/// Names of all reasons in the order of their bits; the last is of the statements, not of the server's state.
pub(crate) use crate::sql::PIN_REASONS as NAMES;

/// Names of the reasons in [`Pins::bits`].
pub(crate) fn names(bits: u16) -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().enumerate().filter(move |(index, _)| bits & 1 << index != 0).map(|(_, name)| name)
}

/// Kinds that the server can be asked about, with the expression to ask with, in the order of the columns.
fn probes() -> impl Iterator<Item = (StateFlags, &'static str)> {
    KINDS.iter().filter_map(|kind| Some((kind.flag, kind.probe?)))
}

impl Pins {
    /// True if nothing ties the client to its backend.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// True if something ties the client to its backend, or may until the question under way is answered.
    pub(crate) fn may_be_held(&self) -> bool {
        !(self.held | self.begun.without(StateFlags::UNCERTAIN) | self.asked).is_empty()
    }

    /// True if nothing has to be asked.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        (self.begun | self.ended).is_empty()
    }

    /// True if a text ran that could not be read: it may have changed anything.
    pub(crate) fn is_uncertain(&self) -> bool {
        self.begun.intersects(StateFlags::UNCERTAIN)
    }

    /// True if the client holds state of this kind, or may.
    pub(crate) fn may_hold(&self, kind: StateFlags) -> bool {
        (self.held | self.begun | self.asked).intersects(kind)
    }

    /// The reasons as one number, for other threads to read with [`names`]. `large_statement`: the client holds a
    /// statement that is too large to move.
    pub(crate) fn bits(&self, large_statement: bool) -> u16 {
        let kinds = KINDS.iter().enumerate().filter(|(_, kind)| self.held.intersects(kind.flag));
        let large = u16::from(large_statement) << KINDS.len();
        kinds.fold(large, |bits, (index, _)| bits | 1 << index)
    }

    /// A statement ran that may begin `may_begin` or end `may_end`.
    pub(crate) fn suspect(&mut self, may_begin: StateFlags, may_end: StateFlags) {
        self.begun |= may_begin;
        self.ended |= self.held.and(may_end);
    }

    /// RESET ALL: settings that could not be read are gone, unless more of them came meanwhile.
    pub(crate) fn end_settings(&mut self) {
        if !self.begun.intersects(StateFlags::SETTINGS) {
            self.held = self.held.without(StateFlags::SETTINGS);
        }
    }

    /// DISCARD ALL, or another backend: nothing is left but loaded libraries and their like.
    pub(crate) fn clear(&mut self) {
        let held = (self.held | self.begun.and(StateFlags::UNPROBED)).and(StateFlags::KEPT);
        let begun = self.begun.and(StateFlags::KEPT).without(StateFlags::UNPROBED);
        *self = Self { held, begun, ..Self::default() };
    }

    /// The question for the server and the kinds it covers; `UNCERTAIN` means any kind. Nothing is suspected from here
    /// on.
    pub(crate) fn question(&mut self) -> Option<(StateFlags, Vec<u8>)> {
        self.held = self.held.without(self.ended.and(StateFlags::ENDED_BY_CALL));
        self.held |= self.begun.and(StateFlags::UNPROBED);
        let open = std::mem::take(&mut self.begun) | std::mem::take(&mut self.ended);
        let is_uncertain = open.intersects(StateFlags::UNCERTAIN);
        let mut columns = Vec::new();
        for (kind, column) in probes() {
            if is_uncertain || open.intersects(kind) {
                self.asked |= kind;
                columns.push(column);
            }
        }
        (!columns.is_empty()).then(|| (self.asked, format!("SELECT {}", columns.join(", ")).into_bytes()))
    }

    /// The server's row for a question about `asked`: one `t` or `f` for each.
    pub(crate) fn answer(&mut self, asked: StateFlags, row: &[u8]) {
        let mut values = row.get(HEADER_LEN + 2..).unwrap_or_default();
        for (kind, _) in probes().filter(|(kind, _)| asked.intersects(*kind)) {
            // Any value but a clear "f" counts as a yes: a pin too many wastes a backend, one too few leaks state.
            let is_free = values.get(..5) == Some(&[0, 0, 0, 1, b'f']);
            self.held = if is_free { self.held.without(kind) } else { self.held | kind };
            values = values.get(5..).unwrap_or_default();
        }
        self.asked = StateFlags::NONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(pins: &Pins) -> Vec<&'static str> {
        names(pins.bits(false)).collect()
    }

    fn ask(pins: &mut Pins, values: &[u8]) {
        let (asked, _) = pins.question().expect("something to ask");
        let columns: Vec<u8> = values.iter().flat_map(|value| [0, 0, 0, 1, *value]).collect();
        pins.answer(asked, &[&[b'D', 0, 0, 0, 0, 0, 0][..], &columns].concat());
    }

    #[test]
    fn what_the_server_cannot_tell_stands_however_often_it_is_begun() {
        let mut pins = Pins::default();
        for _ in 0..2 {
            pins.suspect(StateFlags::SETTINGS, StateFlags::NONE);
            assert!(pins.question().is_none());
            assert_eq!(reasons(&pins), ["settings"]);
        }
        pins.end_settings();
        assert!(pins.is_empty());
    }

    #[test]
    fn a_pin_ends_when_the_server_says_so() {
        let mut pins = Pins::default();
        pins.suspect(StateFlags::TEMP | StateFlags::LISTEN, StateFlags::NONE);
        ask(&mut pins, b"tf");
        assert_eq!(reasons(&pins), ["temp"]);
        pins.suspect(StateFlags::NONE, StateFlags::LISTEN);
        assert!(pins.is_settled(), "it holds none");
        pins.suspect(StateFlags::NONE, StateFlags::TEMP);
        ask(&mut pins, b"f");
        assert!(pins.is_empty() && pins.is_settled());
    }

    #[test]
    fn a_notification_during_the_question_is_heard() {
        let mut pins = Pins::default();
        pins.suspect(StateFlags::LISTEN, StateFlags::NONE);
        pins.question();
        assert!(pins.may_hold(StateFlags::LISTEN));
    }

    #[test]
    fn a_backup_ends_with_the_call_that_ends_it() {
        let mut pins = Pins::default();
        pins.suspect(StateFlags::BACKUP | StateFlags::SEED, StateFlags::NONE);
        assert!(pins.question().is_none());
        pins.suspect(StateFlags::NONE, StateFlags::BACKUP | StateFlags::SEED);
        assert!(pins.question().is_none());
        assert_eq!(reasons(&pins), ["seed"]);
    }

    #[test]
    fn a_library_outlives_discard_all() {
        let mut pins = Pins::default();
        pins.suspect(StateFlags::LOAD | StateFlags::TEMP, StateFlags::NONE);
        pins.clear();
        assert_eq!(reasons(&pins), ["load"]);
    }
}
