//! Any bytes from both sides, in any pieces: the walkers yield what came in, whatever the cuts. The expected replies
//! never lose a note and never call a backend free that owes an answer.

use crate::wire::expected::{Expect, ExpectedReplies, ExpectedReply, Origin, TransactionStatus};
use crate::wire::frame::{FrameError, HEADER_LEN, Header, Piece, Walker};

/// Bytes of a body that are waited for.
const WANTED: usize = 6;

fn want(header: Header) -> usize {
    match header.tag {
        b'B' => usize::MAX,
        b'd' | b'D' => 0,
        _ => WANTED,
    }
}

/// A frame that began: its tag, its length, and the first bytes of its body.
type Head = (u8, usize, Vec<u8>);

/// One direction, and what must come of it.
#[derive(Default)]
struct Side {
    walker: Walker,
    fed: Vec<u8>,
    yielded: Vec<u8>,
    heads: Vec<Head>,
    error: Option<FrameError>,
}

impl Side {
    /// Feeds a read, and answers with the frames that began in it.
    fn feed(&mut self, mut read: &[u8]) -> Vec<Head> {
        let known = self.heads.len();
        if self.error.is_some() {
            return Vec::new();
        }
        self.fed.extend_from_slice(read);
        loop {
            let before = read.len();
            match self.walker.next(&mut read, want) {
                Ok(Some(Piece::Head { tag, body, bytes, fresh })) => {
                    assert_eq!(fresh, before - read.len());
                    let wanted = want(Header { tag, body }).min(body);
                    assert!((HEADER_LEN + wanted..=HEADER_LEN + body).contains(&bytes.len()));
                    self.yielded.extend_from_slice(bytes);
                    self.heads.push((tag, body, bytes[HEADER_LEN..HEADER_LEN + wanted].to_vec()));
                }
                Ok(Some(Piece::More { bytes })) => {
                    assert_eq!(bytes.len(), before - read.len());
                    self.yielded.extend_from_slice(bytes);
                }
                Ok(Some(Piece::Kept { fresh })) => assert_eq!(fresh, before - read.len()),
                Ok(None) => break,
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            }
        }
        assert!(self.fed.starts_with(&self.yielded));
        if self.error.is_none() {
            assert!(read.is_empty());
            let at_boundary = self.yielded.len() == self.fed.len() && !self.walker.is_inside();
            assert_eq!(self.walker.is_at_boundary(), at_boundary);
        }
        self.heads[known..].to_vec()
    }
}

/// Panics if it does not hold for `bytes`, a list of reads.
pub fn check(bytes: &[u8]) {
    let (mut frontend, mut backend) = (Side::default(), Side::default());
    let (mut replies, mut notes) = (ExpectedReplies::<u32>::default(), Notes::default());
    let mut rest = bytes;
    // Each read: whose it is in the top bit, its length below, its bytes.
    while let Some((&control, tail)) = rest.split_first() {
        let (read, tail) = tail.split_at(usize::from(control & 0x7f).min(tail.len()));
        rest = tail;
        if control & 0x80 == 0 {
            for (tag, _, body) in frontend.feed(read) {
                notes.send(&mut replies, tag, &body);
            }
        } else {
            for (tag, _, body) in backend.feed(read) {
                if !notes.answer(&mut replies, tag, &body) {
                    return;
                }
            }
        }
    }
    notes.end(replies);
    for side in [frontend, backend] {
        let mut whole = Side::default();
        whole.feed(&side.fed);
        assert_eq!((whole.heads, whole.error), (side.heads, side.error), "the cuts changed what was seen");
    }
}

/// Which notes the replies holds.
#[derive(Default)]
struct Notes {
    next: u32,
    out: std::collections::BTreeSet<u32>,
}

impl Notes {
    fn send(&mut self, replies: &mut ExpectedReplies<u32>, tag: u8, body: &[u8]) {
        let expect = match (tag, body.first()) {
            (b'Q', _) => Expect::Query,
            (b'F', _) => Expect::FunctionCall,
            (b'P', _) => Expect::Parse,
            (b'B', _) => Expect::Bind,
            (b'D', Some(b'S')) => Expect::DescribeStatement,
            (b'D', _) => Expect::DescribePortal,
            (b'E', _) => Expect::Execute,
            (b'C', _) => Expect::Close,
            (b'S', _) => Expect::Sync,
            (b'c' | b'f', _) => Expect::CopyEnd,
            (b'!', _) => Expect::Synthetic,
            _ => return,
        };
        // Nobody answers a CopyEnd, so none carries a note.
        let note = (expect != Expect::CopyEnd).then_some(self.next);
        self.next += 1;
        self.out.extend(note);
        let origin = if body.last() == Some(&b'o') { Origin::Own } else { Origin::Client };
        if let Some(refused) = replies.push(expect, origin, note) {
            assert_eq!(Some(refused), note);
            self.out.remove(&refused);
        }
        self.hold(replies);
    }

    /// Answers whether the connection goes on.
    fn answer(&mut self, replies: &mut ExpectedReplies<u32>, tag: u8, body: &[u8]) -> bool {
        while replies.has_synthetic_due() {
            let entry = replies.pop_synthetic().expect("it is due");
            self.returned(&entry);
        }
        let status = body.first().copied().and_then(TransactionStatus::from_byte);
        let (head, before) = (replies.iter().next().map(|entry| entry.action), replies.len());
        let mut dropped = Vec::new();
        let answer = replies.answer(tag, status, &mut dropped);
        dropped.iter().for_each(|entry| self.returned(entry));
        if let Ok(answer) = &answer
            && let Some(entry) = &answer.completed
        {
            assert_eq!(Some(entry.action), head, "answers complete the oldest entry");
            self.returned(entry);
        }
        assert!(replies.len() <= before);
        self.hold(replies);
        answer.is_ok()
    }

    fn returned(&mut self, entry: &ExpectedReply<u32>) {
        if let Some(note) = entry.action {
            assert!(self.out.remove(&note), "note {note} came back twice");
        }
    }

    /// What is true after every step.
    fn hold(&self, replies: &ExpectedReplies<u32>) {
        let held: Vec<_> = replies.iter().filter_map(|entry| entry.action).collect();
        assert!(held.iter().eq(self.out.iter()), "{held:?} are held of {:?}", self.out);
        assert!(!replies.is_quiet() || replies.is_empty());
        assert!(!replies.can_release() || (replies.is_quiet() && replies.status() == TransactionStatus::Idle));
        assert!(!(replies.is_quiet() && (replies.is_copying_in() || replies.is_skipping() || replies.is_unsynced())));
    }

    fn end(mut self, replies: ExpectedReplies<u32>) {
        let left: Vec<_> = replies.iter().collect();
        left.iter().for_each(|entry| self.returned(entry));
        assert!(self.out.is_empty(), "lost: {:?}", self.out);
    }
}
