//! A text with other bytes in some of its places.

use std::ops::Range;

/// The text spliced so far.
pub(super) struct TextSplice<'a> {
    text: &'a [u8],
    spliced: Vec<u8>,
    copied: usize,
}

impl<'a> TextSplice<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, spliced: Vec::new(), copied: 0 }
    }

    /// Puts `bytes` in the place of `span`, which is behind every span before it.
    pub(super) fn put(&mut self, span: Range<usize>, bytes: &[u8]) {
        self.spliced.extend_from_slice(&self.text[self.copied..span.start]);
        self.spliced.extend_from_slice(bytes);
        self.copied = span.end;
    }

    /// The whole text; `None` if nothing was put in.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        if self.copied == 0 {
            return None;
        }
        self.spliced.extend_from_slice(&self.text[self.copied..]);
        Some(self.spliced)
    }
}
