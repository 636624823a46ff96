//! Walks frames in a byte stream without copying the bytes that nobody needs to look at.
//!
//! There is one [`Walker`] per direction. It takes the bytes of each read and yields [`Piece`]s: frames of interest
//! whole, everything else as it comes. Between reads it keeps at most an incomplete header or one incomplete frame of
//! interest.

use thiserror::Error;

/// Tag and length.
pub(crate) const HEADER_LEN: usize = 5;

/// Longest body Postgres itself accepts (`PQ_LARGE_MESSAGE_LIMIT`, `MaxAllocSize - 1`), in bytes.
pub(crate) const BODY_MAX: usize = 0x3fff_ffff - 4;

/// A frame that cannot be part of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum FrameError {
    /// The length field is below 4 or above what Postgres accepts.
    #[error("invalid length {length} in a frame with tag {tag:?}")]
    Length {
        /// First byte of the frame.
        tag: char,
        /// The length field as read.
        length: i32,
    },
}

/// The contents of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Message type byte.
    pub tag: u8,
    /// Bytes behind the header.
    pub body: usize,
}

/// Reads the header at the start of `bytes`; `None` while it is incomplete.
#[inline]
pub(crate) fn header(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes([a, b, c, d]);
    // Checked as signed before anything is widened: 0xffffffff must not become a huge reservation.
    match usize::try_from(length) {
        Ok(n) if (4..=BODY_MAX + 4).contains(&n) => Ok(Some(Header { tag, body: n - 4 })),
        _ => Err(FrameError::Length { tag: char::from(tag), length }),
    }
}

/// A part of the stream, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// A frame begins; nothing of it was yielded before.
    Head {
        /// Message type byte.
        tag: u8,
        /// Length of the body, in bytes.
        body: usize,
        /// Header and at least as much of the body as was wanted.
        bytes: &'a [u8],
        /// Number of bytes at the front of the current read; the others came earlier and were `Kept`.
        fresh: usize,
    },
    /// More of the frame last begun.
    More {
        /// The bytes, all of the current read.
        bytes: &'a [u8],
    },
    /// The read ends in a frame that cannot be yielded yet: these bytes come again in its `Head`.
    Kept {
        /// Bytes taken from the current read.
        fresh: usize,
    },
}

/// Number of bytes of a frame's body that are wanted before it is yielded; more than the body means all of it.
pub(crate) type Want = fn(Header) -> usize;

/// Position in one direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Walker {
    /// Bytes of a begun frame still to come.
    ahead: usize,
    /// An incomplete header or head.
    kept: Vec<u8>,
    /// `kept` was yielded and is to be forgotten.
    spent: bool,
}

/// A larger buffer is freed once its frame was handled.
const KEPT_CAPACITY: usize = 4096;

impl Walker {
    /// True if nothing is half-received: the next byte starts a frame.
    #[inline]
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.ahead == 0 && (self.spent || self.kept.is_empty())
    }

    /// True if a frame was begun and passed on, and its end was not seen yet.
    #[inline]
    pub(crate) fn is_inside(&self) -> bool {
        self.ahead > 0
    }

    /// Takes the next piece off `input`; `None` when it is used up.
    #[inline]
    pub(crate) fn next<'a, 'b: 'a>(
        &'a mut self,
        input: &mut &'b [u8],
        want: Want,
    ) -> Result<Option<Piece<'a>>, FrameError> {
        // A whole frame, and nothing left over from before: almost always.
        if self.ahead == 0
            && self.kept.is_empty()
            && let Some(&[tag, a, b, c, d]) = input.first_chunk::<HEADER_LEN>()
        {
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            if length >= 4 && length < input.len() {
                let (bytes, rest) = input.split_at(length + 1);
                *input = rest;
                return Ok(Some(Piece::Head { tag, body: length - 4, bytes, fresh: length + 1 }));
            }
        }
        self.next_slowly(input, want)
    }

    fn next_slowly<'a, 'b: 'a>(
        &'a mut self,
        input: &mut &'b [u8],
        want: Want,
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
            return self.complete(input, want).map(Some);
        }
        let Some(header) = header(input)? else {
            return Ok(Some(self.keep(input)));
        };
        let total = HEADER_LEN + header.body;
        if input.len() < total && input.len() < HEADER_LEN.saturating_add(want(header)) {
            return Ok(Some(self.keep(input)));
        }
        let bytes = take(input, total);
        self.ahead = total - bytes.len();
        Ok(Some(Piece::Head { tag: header.tag, body: header.body, bytes, fresh: bytes.len() }))
    }

    fn keep<'a>(&'a mut self, input: &mut &[u8]) -> Piece<'a> {
        let fresh = input.len();
        self.kept.extend_from_slice(take(input, fresh));
        Piece::Kept { fresh }
    }

    /// Completes a frame that an earlier read left incomplete.
    fn complete<'a, 'b: 'a>(&'a mut self, input: &mut &'b [u8], want: Want) -> Result<Piece<'a>, FrameError> {
        let before = self.kept.len();
        let part = take(input, HEADER_LEN.saturating_sub(before));
        self.kept.extend_from_slice(part);
        let Some(header) = header(&self.kept)? else {
            return Ok(Piece::Kept { fresh: part.len() });
        };
        let total = HEADER_LEN + header.body;
        let wanted = total.min(HEADER_LEN.saturating_add(want(header)));
        let rest = take(input, wanted.saturating_sub(self.kept.len()));
        self.kept.extend_from_slice(rest);
        let fresh = self.kept.len() - before;
        if self.kept.len() < wanted {
            return Ok(Piece::Kept { fresh });
        }
        self.spent = true;
        self.ahead = total - self.kept.len();
        Ok(Piece::Head { tag: header.tag, body: header.body, bytes: &self.kept, fresh })
    }

    /// Forgets the frame last begun: the caller has its bytes and will feed them again.
    pub(crate) fn rewind(&mut self) {
        self.ahead = 0;
        self.forget();
    }

    fn forget(&mut self) {
        self.spent = false;
        if self.kept.capacity() > KEPT_CAPACITY {
            self.kept = Vec::new();
        } else {
            self.kept.clear();
        }
    }

    /// Bytes of memory that it takes.
    pub(crate) fn memory(&self) -> usize {
        self.kept.capacity()
    }

    /// Frees idle memory; the position is kept.
    pub(crate) fn shrink(&mut self) {
        if self.is_at_boundary() && self.kept.capacity() > 0 {
            self.spent = false;
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

    /// Upper-case frames whole up to 64 bytes of body, else 16 bytes of them; the others as they come.
    fn upper(header: Header) -> usize {
        match header.tag.is_ascii_uppercase() {
            true if header.body < 64 => usize::MAX,
            true => 16,
            false => 0,
        }
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
        for expected in [b'Q', b'd'] {
            let piece = walker.next(&mut input, upper).unwrap();
            assert!(matches!(piece, Some(Piece::Head { tag, body: 1, .. }) if tag == expected));
        }
        assert_eq!(walker.next(&mut input, upper), Ok(None));
        assert!(walker.is_at_boundary());
    }

    #[test]
    fn a_rewound_frame_can_be_fed_again() {
        let bytes = frame(b'd', b"abcdef");
        let mut walker = Walker::default();
        let mut input = &bytes[..7];
        assert!(matches!(walker.next(&mut input, upper), Ok(Some(Piece::Head { tag: b'd', .. }))));
        walker.rewind();
        let mut input = &bytes[..];
        let piece = walker.next(&mut input, upper).unwrap();
        assert_eq!(piece, Some(Piece::Head { tag: b'd', body: 6, bytes: &bytes, fresh: bytes.len() }));
    }

    proptest! {
        /// The pieces put together are the stream, however it is cut, and each frame begins once.
        #[test]
        fn any_cut_yields_the_same_stream(
            frames in prop::collection::vec(
                (prop::sample::select(b"QPdDzZ".to_vec()), prop::collection::vec(any::<u8>(), 0..150)),
                1..20,
            ),
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
                        Piece::Head { tag, body, bytes, fresh } => {
                            let wanted = upper(Header { tag, body }).min(body);
                            prop_assert!(bytes.len() >= HEADER_LEN + wanted);
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
