//! Any bytes from both sides, in any pieces: the walkers yield what came in, whatever the cuts, and the ring never
//! loses a note and never calls a backend free that owes an answer.

use crate::wire::frame::{FrameError, HEADER_LEN, Header, Piece, Walker};
use crate::wire::expected::{Entry, Expect, Origin, Ring, TransactionStatus};

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
    let (mut ring, mut notes) = (Ring::<u32>::default(), Notes::default());
    let mut rest = bytes;
    // Each read: whose it is in the top bit, its length below, its bytes.
    while let Some((&control, tail)) = rest.split_first() {
        let (read, tail) = tail.split_at(usize::from(control & 0x7f).min(tail.len()));
        rest = tail;
        if control & 0x80 == 0 {
            for (tag, _, body) in frontend.feed(read) {
                notes.send(&mut ring, tag, &body);
            }
        } else {
            for (tag, _, body) in backend.feed(read) {
                if !notes.answer(&mut ring, tag, &body) {
                    return;
                }
            }
        }
    }
    notes.end(ring);
    for side in [frontend, backend] {
        let mut whole = Side::default();
        whole.feed(&side.fed);
        assert_eq!((whole.heads, whole.error), (side.heads, side.error), "the cuts changed what was seen");
    }
}

/// Which notes the ring holds.
#[derive(Default)]
struct Notes {
    next: u32,
    out: std::collections::BTreeSet<u32>,
}

impl Notes {
    fn send(&mut self, ring: &mut Ring<u32>, tag: u8, body: &[u8]) {
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
        if let Some(refused) = ring.push(expect, origin, note) {
            assert_eq!(Some(refused), note);
            self.out.remove(&refused);
        }
        self.hold(ring);
    }

    /// Answers whether the connection goes on.
    fn answer(&mut self, ring: &mut Ring<u32>, tag: u8, body: &[u8]) -> bool {
        while ring.has_synthetic_due() {
            let entry = ring.pop_synthetic().expect("it is due");
            self.returned(&entry);
        }
        let status = body.first().copied().and_then(TransactionStatus::from_byte);
        let (head, before) = (ring.iter().next().map(|entry| entry.note), ring.len());
        let mut dropped = Vec::new();
        let answer = ring.answer(tag, status, &mut dropped);
        dropped.iter().for_each(|entry| self.returned(entry));
        if let Ok(answer) = &answer
            && let Some(entry) = &answer.completed
        {
            assert_eq!(Some(entry.note), head, "answers complete the oldest entry");
            self.returned(entry);
        }
        assert!(ring.len() <= before);
        self.hold(ring);
        answer.is_ok()
    }

    fn returned(&mut self, entry: &Entry<u32>) {
        if let Some(note) = entry.note {
            assert!(self.out.remove(&note), "note {note} came back twice");
        }
    }

    /// What is true after every step.
    fn hold(&self, ring: &Ring<u32>) {
        let held: Vec<_> = ring.iter().filter_map(|entry| entry.note).collect();
        assert!(held.iter().eq(self.out.iter()), "{held:?} are held of {:?}", self.out);
        assert!(!ring.is_quiet() || ring.is_empty());
        assert!(!ring.is_at_rest() || (ring.is_quiet() && ring.status() == TransactionStatus::Idle));
        assert!(!(ring.is_quiet() && (ring.is_copying_in() || ring.is_skipping() || ring.is_unsynced())));
    }

    fn end(mut self, mut ring: Ring<u32>) {
        let left: Vec<_> = ring.drain().collect();
        left.iter().for_each(|entry| self.returned(entry));
        assert!(self.out.is_empty(), "lost: {:?}", self.out);
    }
}
