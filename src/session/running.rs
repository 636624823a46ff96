//! The statements of a client that are under way at its backend, by digest, oldest first, and those that have ended
//! since they were counted last.
//!
//! [`super::cycle`] feeds it: each Query and Execute that is sent brings its statements, each answer ends some. No I/O,
//! no time: the caller says how much passed since it took the ended ones. Empty, and so without cost, where statements
//! are not counted.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::sql::{Digest, Digests};
use crate::state::timeout::Timeout;
use crate::wire::build::ServerError;
use crate::wire::expected::Expect;

/// The statements of the client's message that is being handled.
#[derive(Debug, Default)]
pub(crate) struct Subject {
    pub digests: Digests,
    /// More of its text, for the log of slow statements.
    pub note: Option<Box<str>>,
}

/// A statement under way.
#[derive(Debug)]
struct RunningStatement {
    digest: Digest,
    place: EndMark,
    note: Option<Box<str>>,
}

/// How its end shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndMark {
    /// Of an Execute: by an answer of its own.
    Execute,
    /// Of a Query that goes on with another.
    Within,
    /// The last of a Query: ReadyForQuery follows.
    Last,
    /// The same, and its answer has come.
    Answered,
}

/// A statement that has ended.
#[derive(Debug)]
pub(crate) struct EndedStatement {
    pub digest: Digest,
    pub rows: u64,
    pub error: Option<StatementError>,
    pub note: Option<Box<str>>,
}

/// The error it ended in.
#[derive(Debug, Clone)]
pub(crate) struct StatementError {
    pub code: [u8; 5],
    pub timeout: Option<Timeout>,
}

impl StatementError {
    pub(crate) fn new(code: &[u8], timeout: Option<Timeout>) -> Self {
        Self { code: code.first_chunk().copied().unwrap_or(*b"XX000"), timeout }
    }
}

/// The statements of one lease.
#[derive(Debug, Default)]
pub(crate) struct RunningStatements {
    /// Of the message that is being handled, if it brings any.
    subject: Option<Subject>,
    queue: VecDeque<RunningStatement>,
    ended: SmallVec<[EndedStatement; 1]>,
}

impl RunningStatements {
    /// The message that comes next brings these.
    #[inline]
    pub(super) fn set_subject(&mut self, subject: Option<Subject>) {
        self.subject = subject;
    }

    #[inline]
    pub(super) fn has_subject(&self) -> bool {
        self.subject.is_some()
    }

    /// That message is sent.
    #[inline]
    pub(super) fn sent(&mut self, expect: Expect) {
        if self.subject.is_none() || !matches!(expect, Expect::Query | Expect::Execute) {
            return;
        }
        let Some(Subject { digests, mut note }) = self.subject.take() else { return };
        let (last, is_query) = (digests.len().saturating_sub(1), expect == Expect::Query);
        for (n, digest) in digests.into_iter().enumerate() {
            let place = match is_query {
                false => EndMark::Execute,
                true if n < last => EndMark::Within,
                true => EndMark::Last,
            };
            self.queue.push_back(RunningStatement { digest, place, note: note.take() });
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// A statement has completed with this tag; of an Execute if `is_execute`.
    #[inline]
    pub(super) fn completed(&mut self, is_execute: bool, tag: &[u8]) {
        self.end(is_execute, rows(tag), None);
    }

    #[inline]
    fn end(&mut self, is_execute: bool, rows: u64, error: Option<StatementError>) {
        let Some(front) = self.queue.front_mut() else { return };
        // A Query whose text was not read to its end has more answers than statements.
        if (front.place == EndMark::Execute) != is_execute || front.place == EndMark::Answered {
            return;
        }
        self.ended.push(EndedStatement { digest: front.digest, rows, error, note: front.note.take() });
        match front.place {
            EndMark::Last => front.place = EndMark::Answered,
            _ => drop(self.queue.pop_front()),
        }
    }

    /// The server sent an error, and dropped so many Executes, the failed one among them; none: a Query failed, or a
    /// message that is no statement.
    pub(super) fn failed(&mut self, executes: usize, error: &StatementError) {
        for n in 0..executes {
            match n {
                0 => self.end(true, 0, Some(error.clone())),
                _ if self.queue.front().is_some_and(|front| front.place == EndMark::Execute) => {
                    self.queue.pop_front();
                }
                _ => {}
            }
        }
        if executes == 0 {
            self.end(false, 0, Some(error.clone()));
            while self.queue.front().is_some_and(|front| front.place == EndMark::Within) {
                self.queue.pop_front();
            }
            if let Some(front) = self.queue.front_mut().filter(|front| front.place == EndMark::Last) {
                front.place = EndMark::Answered;
            }
        }
    }

    /// The answer to a Query has ended.
    #[inline]
    pub(super) fn query_ended(&mut self) {
        while let Some(front) = self.queue.front() {
            match front.place {
                EndMark::Execute => return,
                EndMark::Within => drop(self.queue.pop_front()),
                EndMark::Last | EndMark::Answered => {
                    self.queue.pop_front();
                    return;
                }
            }
        }
    }

    /// The backend is gone: the first statement ended with this, the others never ran.
    pub(super) fn lost(&mut self, error: &StatementError) {
        if let Some(front) = self.queue.front_mut().filter(|front| front.place != EndMark::Answered) {
            let (digest, note) = (front.digest, front.note.take());
            self.ended.push(EndedStatement { digest, rows: 0, error: Some(error.clone()), note });
        }
        self.queue.clear();
    }

    /// Those that have ended since the last call.
    #[inline]
    pub(super) fn take_ended(&mut self) -> SmallVec<[EndedStatement; 1]> {
        std::mem::take(&mut self.ended)
    }

    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Forgets everything, for another lease.
    pub(super) fn clear(&mut self) {
        self.subject = None;
        self.queue.clear();
        self.ended.clear();
    }
}

impl From<&ServerError> for StatementError {
    fn from(error: &ServerError) -> Self {
        Self::new(error.code.as_bytes(), Timeout::of_sqlstate(error.code.as_bytes()))
    }
}

/// The number that a tag ends with: rows read or changed.
#[inline]
fn rows(tag: &[u8]) -> u64 {
    let digits = tag.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    tag[tag.len() - digits..].iter().fold(0u64, |rows, byte| rows.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn send(running: &mut RunningStatements, expect: Expect, digests: &[u64]) {
        let digests = digests.iter().map(|digest| Digest(*digest)).collect();
        running.set_subject(Some(Subject { digests, note: None }));
        running.sent(expect);
    }

    fn ended(running: &mut RunningStatements) -> Vec<(u64, u64, bool)> {
        running.take_ended().iter().map(|ended| (ended.digest.0, ended.rows, ended.error.is_some())).collect()
    }

    fn error() -> StatementError {
        StatementError::new(b"22012", None)
    }

    #[test]
    fn rows_are_the_last_number_of_a_tag() {
        for (tag, wanted) in [("INSERT 0 5", 5), ("SELECT 12", 12), ("BEGIN", 0), ("", 0)] {
            assert_eq!(rows(tag.as_bytes()), wanted, "{tag}");
        }
    }

    #[test]
    fn the_statements_of_a_query_end_one_by_one() {
        let mut running = RunningStatements::default();
        send(&mut running, Expect::Query, &[1, 2]);
        running.completed(false, b"SELECT 3");
        running.completed(false, b"SELECT 4");
        running.completed(false, b"SELECT 5");
        running.query_ended();
        assert_eq!(ended(&mut running), [(1, 3, false), (2, 4, false)]);
        assert!(running.is_empty());
    }

    #[test]
    fn what_stands_behind_an_error_never_ran() {
        let mut running = RunningStatements::default();
        send(&mut running, Expect::Query, &[1, 2, 3]);
        running.completed(false, b"");
        running.failed(0, &error());
        running.query_ended();
        for digest in [4, 5] {
            send(&mut running, Expect::Execute, &[digest]);
        }
        send(&mut running, Expect::Query, &[6]);
        running.failed(2, &error());
        running.completed(false, b"");
        running.query_ended();
        assert_eq!(ended(&mut running), [(1, 0, false), (2, 0, true), (4, 0, true), (6, 0, false)]);
        assert!(running.is_empty());
    }

    #[test]
    fn a_lost_backend_ends_the_statement_that_ran() {
        let mut running = RunningStatements::default();
        send(&mut running, Expect::Execute, &[1]);
        send(&mut running, Expect::Execute, &[2]);
        running.lost(&error());
        assert_eq!(ended(&mut running), [(1, 0, true)]);
        assert!(running.is_empty());
    }

    proptest! {
        /// Each statement ends once at most, in the order in which they were sent.
        #[test]
        fn statements_end_once_and_in_order(operations in prop::collection::vec(0u8..6, 0..60)) {
            let mut running = RunningStatements::default();
            let (mut next, mut last) = (0, 0);
            for operation in operations {
                match operation {
                    0 => {
                        send(&mut running, Expect::Query, &[next + 1, next + 2]);
                        next += 2;
                    }
                    1 => {
                        send(&mut running, Expect::Execute, &[next + 1]);
                        next += 1;
                    }
                    2 => running.completed(true, b"SELECT 1"),
                    3 => running.completed(false, b"SELECT 1"),
                    4 => running.failed(usize::from(next % 3 == 0), &error()),
                    _ => running.query_ended(),
                }
                for (digest, ..) in ended(&mut running) {
                    prop_assert!(digest > last && digest <= next);
                    last = digest;
                }
            }
        }
    }
}
