//! Walks frames in a byte stream without copying what nobody needs to look at.
//!
//! A [`Walker`] is one per direction. It is fed whatever a read returned and yields [`Piece`]s: frames of interest whole,
//! everything else as it comes. Between reads it keeps at most an incomplete header or one incomplete frame of interest.

use thiserror::Error;

/// Tag and length.
pub const HEADER_LEN: usize = 5;

/// Longest body Postgres itself accepts (`PQ_LARGE_MESSAGE_LIMIT`, `MaxAllocSize - 1`), in bytes.
pub const BODY_MAX: usize = 0x3fff_ffff - 4;

/// A frame that cannot be part of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length field is below 4 or above what Postgres accepts.
    #[error("invalid length {length} in a frame with tag {tag:?}")]
    Length {
        /// First byte of the frame.
        tag: char,
        /// The length field as read.
        length: i32,
    },
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Message type byte.
    pub tag: u8,
    /// Bytes behind the header.
    pub body: usize,
}

/// Reads the header at the start of `bytes`; `None` while it is incomplete.
#[inline]
pub fn header(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes([a, b, c, d]);
    // Checked as signed before anything is widened: 0xffffffff must not become a huge reservation.
    match usize::try_from(length) {
        Ok(n) if (4..=BODY_MAX + 4).contains(&n) => Ok(Some(Header { tag, body: n - 4 })),
        _ => Err(FrameError::Length {
            tag: char::from(tag),
            length,
        }),
    }
}

/// A part of the stream, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A frame of interest, header included; `fresh` bytes of it are at the front of what was fed, the rest came before.
    Whole {
        /// Message type byte.
        tag: u8,
        /// Header and body.
        frame: &'a [u8],
        /// How many of the bytes belong to the current read.
        fresh: usize,
    },
    /// The start of a frame that is passed through as it comes; nothing of it was yielded before.
    Start {
        /// Message type byte.
        tag: u8,
        /// Length of the body, in bytes.
        body: usize,
        /// Header and as much of the body as is there.
        bytes: &'a [u8],
        /// How many of the bytes belong to the current read.
        fresh: usize,
    },
    /// More of the frame last started.
    More {
        /// The bytes, all of the current read.
        bytes: &'a [u8],
    },
    /// The read ends in a frame that was kept back: drop this many bytes from it, they come again with the rest.
    Kept {
        /// Bytes taken from the current read.
        fresh: usize,
    },
}

/// Says for a header whether the whole frame is wanted.
pub type Interest = fn(Header) -> bool;

/// Position in one direction of a connection.
#[derive(Debug, Default)]
pub struct Walker {
    /// Bytes of a started frame still to come.
    ahead: usize,
    /// An incomplete header or frame of interest.
    kept: Vec<u8>,
    /// `kept` was yielded whole and is to be forgotten.
    spent: bool,
}

/// A kept buffer larger than this is given back once its frame was handled.
const KEPT_CAPACITY: usize = 4096;

impl Walker {
    /// Nothing half-received: the next byte starts a frame.
    #[inline]
    pub fn is_at_boundary(&self) -> bool {
        self.ahead == 0 && (self.spent || self.kept.is_empty())
    }

    /// A frame was started and passed on, and not all of it was seen yet.
    #[inline]
    pub fn is_inside(&self) -> bool {
        self.ahead > 0
    }

    /// Heap bytes held, for the books.
    pub fn held(&self) -> usize {
        self.kept.capacity()
    }

    /// Takes the next piece off `input`; `None` when it is used up.
    #[inline]
    pub fn next<'a, 'b: 'a>(
        &'a mut self,
        input: &mut &'b [u8],
        interest: Interest,
    ) -> Result<Option<Piece<'a>>, FrameError> {
        if self.ahead > 0 {
            if input.is_empty() {
                return Ok(None);
            }
            let bytes = take(input, self.ahead);
            self.ahead -= bytes.len();
            return Ok(Some(Piece::More { bytes }));
        }
        if self.spent {
            self.forget();
        }
        if input.is_empty() {
            return Ok(None);
        }
        if !self.kept.is_empty() {
            return self.complete(input, interest).map(Some);
        }
        let Some(header) = header(input)? else {
            let fresh = input.len();
            self.kept.extend_from_slice(take(input, fresh));
            return Ok(Some(Piece::Kept { fresh }));
        };
        let total = HEADER_LEN + header.body;
        if total <= input.len() {
            let frame = take(input, total);
            let (tag, fresh) = (header.tag, total);
            return Ok(Some(if interest(header) {
                Piece::Whole { tag, frame, fresh }
            } else {
                Piece::Start {
                    tag,
                    body: header.body,
                    bytes: frame,
                    fresh,
                }
            }));
        }
        let fresh = input.len();
        let bytes = take(input, fresh);
        if interest(header) {
            self.kept.reserve_exact(total.min(KEPT_CAPACITY).max(fresh));
            self.kept.extend_from_slice(bytes);
            return Ok(Some(Piece::Kept { fresh }));
        }
        self.ahead = total - fresh;
        Ok(Some(Piece::Start {
            tag: header.tag,
            body: header.body,
            bytes,
            fresh,
        }))
    }

    /// Goes on with what an earlier read left behind.
    fn complete<'a, 'b: 'a>(
        &'a mut self,
        input: &mut &'b [u8],
        interest: Interest,
    ) -> Result<Piece<'a>, FrameError> {
        let mut fresh = 0;
        if self.kept.len() < HEADER_LEN {
            let part = take(input, HEADER_LEN - self.kept.len());
            fresh += part.len();
            self.kept.extend_from_slice(part);
        }
        let Some(header) = header(&self.kept)? else {
            return Ok(Piece::Kept { fresh });
        };
        let total = HEADER_LEN + header.body;
        let rest = take(input, total - self.kept.len());
        fresh += rest.len();
        self.kept.extend_from_slice(rest);
        let tag = header.tag;
        if interest(header) && self.kept.len() < total {
            return Ok(Piece::Kept { fresh });
        }
        self.spent = true;
        self.ahead = total - self.kept.len();
        Ok(if interest(header) {
            Piece::Whole {
                tag,
                frame: &self.kept,
                fresh,
            }
        } else {
            Piece::Start {
                tag,
                body: header.body,
                bytes: &self.kept,
                fresh,
            }
        })
    }

    fn forget(&mut self) {
        self.spent = false;
        if self.kept.capacity() > KEPT_CAPACITY {
            self.kept = Vec::new();
        } else {
            self.kept.clear();
        }
    }

    /// Gives idle memory back; the position is kept.
    pub fn shrink(&mut self) {
        if self.spent {
            self.spent = false;
            self.kept = Vec::new();
        } else if self.kept.is_empty() {
            self.kept = Vec::new();
        }
    }
}

#[inline]
fn take<'b>(input: &mut &'b [u8], most: usize) -> &'b [u8] {
    let (head, tail) = input.split_at(most.min(input.len()));
    *input = tail;
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        out.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    /// Interest in upper-case tags with bodies below 64 bytes.
    fn upper(header: Header) -> bool {
        header.tag.is_ascii_uppercase() && header.body < 64
    }

    #[test]
    fn lengths_below_four_and_above_a_gigabyte_are_refused() {
        for length in [-1i32, 0, 3, i32::MIN, 0x4000_0000] {
            let mut bytes = vec![b'Q'];
            bytes.extend_from_slice(&length.to_be_bytes());
            assert_eq!(header(&bytes), Err(FrameError::Length { tag: 'Q', length }));
        }
    }

    #[test]
    fn an_incomplete_header_asks_for_more() {
        assert_eq!(header(b"Q\0\0\0"), Ok(None));
    }

    #[test]
    fn two_frames_in_one_read_are_two_pieces() {
        let bytes = [frame(b'Q', b"a"), frame(b'd', b"b")].concat();
        let (mut walker, mut input) = (Walker::default(), &bytes[..]);
        assert!(matches!(
            walker.next(&mut input, upper),
            Ok(Some(Piece::Whole { tag: b'Q', .. }))
        ));
        assert!(matches!(
            walker.next(&mut input, upper),
            Ok(Some(Piece::Start {
                tag: b'd',
                body: 1,
                ..
            }))
        ));
        assert!(matches!(walker.next(&mut input, upper), Ok(None)));
        assert!(walker.is_at_boundary());
    }

    proptest! {
        /// However the stream is cut, the pieces put together are the stream, and each frame starts once.
        #[test]
        fn any_cut_yields_the_same_stream(
            frames in prop::collection::vec((prop::sample::select(b"QPdDzZ".to_vec()), prop::collection::vec(any::<u8>(), 0..150)), 1..20),
            cuts in prop::collection::vec(1usize..40, 1..200),
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(|(tag, body)| frame(*tag, body)).collect();
            let mut walker = Walker::default();
            let (mut out, mut tags) = (Vec::new(), Vec::new());
            let mut rest = &stream[..];
            let mut cuts = cuts.into_iter().cycle();
            while !rest.is_empty() {
                let (mut read, tail) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                rest = tail;
                let mut left = read.len();
                while let Some(piece) = walker.next(&mut read, upper).unwrap() {
                    match piece {
                        Piece::Whole { tag, frame, fresh } => {
                            prop_assert_eq!(header(frame).unwrap().unwrap().body + HEADER_LEN, frame.len());
                            out.extend_from_slice(frame);
                            tags.push(tag);
                            left -= fresh;
                        }
                        Piece::Start { tag, bytes, fresh, .. } => {
                            out.extend_from_slice(bytes);
                            tags.push(tag);
                            left -= fresh;
                        }
                        Piece::More { bytes } => {
                            out.extend_from_slice(bytes);
                            left -= bytes.len();
                        }
                        Piece::Kept { fresh } => left -= fresh,
                    }
                }
                prop_assert_eq!(left, 0);
            }
            prop_assert_eq!(out, stream);
            prop_assert_eq!(tags, frames.iter().map(|f| f.0).collect::<Vec<_>>());
            prop_assert!(walker.is_at_boundary());
        }
    }
}
