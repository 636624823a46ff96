//! The messages of a lone statement outside a transaction, kept until it has been answered: what provably did not run
//! may be sent again, to another server.
//!
//! Nothing here does I/O. The log is closed, and says no, as soon as there is a doubt: a second statement, a message
//! that is not whole, a transaction, a byte of the answer that the client has.

use std::time::Duration;

use crate::wire::frame::{HEADER_LEN, header};
use crate::wire::tag::{backend, frontend as tag};

/// Longest cycle that is kept. Statements are shorter, and their values mostly.
const KEPT_MAX: usize = 64 * 1024;

/// Pauses before a statement that a server refused is sent again: for the first and the second look of a topology.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// The log of one client.
#[derive(Debug, Default)]
pub(super) struct ReplayLog {
    bytes: Vec<u8>,
    state: ReplayState,
    has_execute: bool,
    /// Bytes of its last message that are still to come.
    missing: usize,
    /// Times that this statement was sent again.
    repeats: usize,
}

/// How much of a cycle is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ReplayState {
    /// It may not be sent again.
    #[default]
    Closed,
    /// Its last message is to come.
    Open,
    /// It is here, and none of it has been written to the backend.
    Unsent,
    /// It is here, and some of it has been written.
    Sent,
}

impl ReplayLog {
    /// A message goes to the backend, or begins to: the rest of `length` bytes follows in [`Self::more`]. `begins`:
    /// outside a transaction, and nothing is outstanding.
    pub(super) fn add(&mut self, begins: bool, message: u8, frame: &[u8], length: usize) {
        if begins {
            self.bytes.clear();
            self.has_execute = false;
            self.state = ReplayState::Open;
        }
        self.state = match (self.state, message) {
            // ## Open => Closed
            _ if self.bytes.len() + length > KEPT_MAX => ReplayState::Closed,
            // ## Open => Unsent
            (ReplayState::Open, tag::QUERY) if self.bytes.is_empty() => ReplayState::Unsent,
            (ReplayState::Open, tag::SYNC) if self.has_execute => ReplayState::Unsent,
            (ReplayState::Open, tag::PARSE | tag::BIND | tag::DESCRIBE) => ReplayState::Open,
            (ReplayState::Open, tag::EXECUTE) if !self.has_execute => ReplayState::Open,
            // ## (Unsent | Sent) => Closed: more than one statement
            _ => ReplayState::Closed,
        };
        match self.state {
            ReplayState::Closed => self.bytes.clear(),
            _ => self.bytes.extend_from_slice(frame),
        }
        self.has_execute |= message == tag::EXECUTE;
        self.missing = length.saturating_sub(frame.len());
    }

    /// More of the message added last.
    pub(super) fn more(&mut self, bytes: &[u8]) {
        self.missing = self.missing.saturating_sub(bytes.len());
        if self.state != ReplayState::Closed {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Bytes went to the backend.
    ///
    /// ## Unsent => Sent; Open => Closed: its first half may run before the other is here.
    pub(super) fn sent(&mut self) {
        self.state = match self.state {
            ReplayState::Unsent | ReplayState::Sent if self.missing == 0 => ReplayState::Sent,
            _ => ReplayState::Closed,
        };
    }

    /// The client has got something of the answer: it is not sent again, and the next statement is another.
    pub(super) fn told(&mut self) {
        self.state = ReplayState::Closed;
        self.repeats = 0;
        if self.bytes.capacity() > KEPT_MAX / 8 {
            self.bytes = Vec::new();
        }
    }

    /// The server refused the statement before it ran, and may be asked to do so again.
    pub(super) fn is_refused_whole(&self) -> bool {
        self.state == ReplayState::Sent && self.repeats < PAUSES.len()
    }

    /// Not a byte of the statement has left.
    pub(super) fn is_unsent(&self) -> bool {
        self.state == ReplayState::Unsent && self.missing == 0
    }

    /// The messages, to be sent again.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.state = ReplayState::Closed;
        std::mem::take(&mut self.bytes)
    }

    /// The pause before they are, where a server has refused them.
    pub(super) fn next_pause(&mut self) -> Duration {
        let pause = PAUSES[self.repeats.min(PAUSES.len() - 1)];
        self.repeats += 1;
        pause
    }

    /// Bytes of memory that it takes, about.
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity()
    }
}

/// The answer to a statement, as far as it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstAnswer {
    /// An error before anything came of it, and its ReadyForQuery.
    Error,
    /// The same, and the ReadyForQuery is to come: Postgres sends it apart.
    ErrorOnly,
    Other,
}

/// Judges whole messages.
pub(super) fn first_answer(mut frames: &[u8]) -> FirstAnswer {
    let mut has_failed = false;
    while let Ok(Some(head)) = header(frames) {
        let length = HEADER_LEN + head.body;
        match (head.tag, has_failed) {
            (backend::READY_FOR_QUERY, true) if frames.len() == length => return FirstAnswer::Error,
            (backend::ERROR_RESPONSE, false) => has_failed = true,
            (
                backend::PARSE_COMPLETE
                | backend::BIND_COMPLETE
                | backend::PARAMETER_DESCRIPTION
                | backend::ROW_DESCRIPTION
                | backend::NO_DATA,
                false,
            ) => {}
            _ => return FirstAnswer::Other,
        }
        let Some(rest) = frames.get(length..) else { return FirstAnswer::Other };
        frames = rest;
    }
    if has_failed && frames.is_empty() { FirstAnswer::ErrorOnly } else { FirstAnswer::Other }
}

/// The names under which these messages parse statements.
pub(super) fn names(mut frames: &[u8]) -> Vec<&[u8]> {
    let mut names = Vec::new();
    while let Ok(Some(head)) = header(frames) {
        let Some(body) = frames.get(HEADER_LEN..HEADER_LEN + head.body) else { break };
        if head.tag == tag::PARSE
            && let Some(name) = body.split(|byte| *byte == 0).next()
            && !name.is_empty()
        {
            names.push(name);
        }
        frames = &frames[HEADER_LEN + head.body..];
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(messages: &[u8]) -> ReplayLog {
        let mut log = ReplayLog::default();
        for (at, message) in messages.iter().enumerate() {
            log.add(at == 0, *message, &[*message, 0, 0, 0, 4], 5);
        }
        log
    }

    #[test]
    fn a_lone_statement_is_kept_in_either_protocol() {
        for messages in [&b"Q"[..], b"BES", b"PBES", b"PBDES"] {
            let mut log = log(messages);
            assert!(log.is_unsent() && !log.is_refused_whole());
            log.sent();
            assert!(!log.is_unsent() && log.is_refused_whole());
            assert_eq!(log.take().len(), 5 * messages.len());
            assert!(!log.is_refused_whole());
        }
    }

    #[test]
    fn anything_else_is_not_sent_again() {
        for messages in [&b"QQ"[..], b"BESQ", b"PBEBES", b"PBE", b"PS", b"S", b"PCBES", b"PHBES", b"F"] {
            let mut log = log(messages);
            log.sent();
            assert!(!log.is_refused_whole(), "{messages:?}");
        }
        let mut halves = log(b"PB");
        halves.sent();
        halves.add(false, tag::EXECUTE, b"E", 1);
        halves.add(false, tag::SYNC, b"S", 1);
        halves.sent();
        assert!(!halves.is_refused_whole(), "its first half was on its way before");
        let mut large = ReplayLog::default();
        large.add(true, tag::QUERY, b"Q", KEPT_MAX + 1);
        assert!(!large.is_unsent());
        large.add(true, tag::QUERY, b"Q", 3);
        assert!(!large.is_unsent());
        large.more(b"ue");
        assert!(large.is_unsent());
        assert_eq!(large.take(), b"Que");
    }

    #[test]
    fn an_answer_the_client_has_is_the_last_and_repeats_end() {
        let mut told = log(b"Q");
        told.sent();
        told.told();
        assert!(!told.is_refused_whole());
        let mut log = ReplayLog::default();
        for _ in PAUSES {
            log.add(true, tag::QUERY, b"Q", 1);
            log.sent();
            assert!(log.is_refused_whole());
            log.take();
            log.next_pause();
        }
        log.add(true, tag::QUERY, b"Q", 1);
        log.sent();
        assert!(!log.is_refused_whole(), "the client gets the error");
    }

    #[test]
    fn an_error_is_first_if_nothing_came_before_it_but_the_shape_of_an_answer() {
        let answer = |tags: &[u8]| -> Vec<u8> { tags.iter().flat_map(|tag| [*tag, 0, 0, 0, 4]).collect() };
        for tags in [&b"EZ"[..], b"12EZ", b"1tTEZ", b"2nEZ"] {
            assert_eq!(first_answer(&answer(tags)), FirstAnswer::Error, "{tags:?}");
            assert_eq!(first_answer(&answer(&tags[..tags.len() - 1])), FirstAnswer::ErrorOnly, "{tags:?}");
        }
        for tags in [&b"Z"[..], b"TDEZ", b"CEZ", b"EZEZ", b"NEZ", b"EE", b""] {
            assert_eq!(first_answer(&answer(tags)), FirstAnswer::Other, "{tags:?}");
        }
    }

    #[test]
    fn names_are_those_of_parse() {
        assert_eq!(names(b"P\0\0\0\x0aab\0\0\0\0S\0\0\0\x04"), [b"ab"]);
        assert_eq!(names(b"P\0\0\0\x08\0\0\0\0"), Vec::<&[u8]>::new());
        assert_eq!(names(b"P\0\0\0"), Vec::<&[u8]>::new());
    }
}
