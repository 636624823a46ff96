//! Output for one read: the read itself while nothing is changed, a copy from the first change on.

/// Collects the output for one read. `source` is the read, `copy` a buffer that is reused.
#[derive(Debug)]
pub(crate) struct Splice<'a> {
    source: &'a [u8],
    /// End of the part of `source` that was handled.
    position: usize,
    /// Start of the unchanged run not yet in `copy`.
    start: usize,
    copy: &'a mut Vec<u8>,
    changed: bool,
}

impl<'a> Splice<'a> {
    /// Starts with no output; `copy` is cleared.
    pub(crate) fn new(source: &'a [u8], copy: &'a mut Vec<u8>) -> Self {
        copy.clear();
        Self { source, position: 0, start: 0, copy, changed: false }
    }

    /// Outputs the next `n` bytes of the read as they are.
    #[inline]
    pub(crate) fn keep(&mut self, n: usize) {
        self.position += n;
    }

    /// Leaves the next `n` bytes of the read out.
    #[inline]
    pub(crate) fn skip(&mut self, n: usize) {
        if n > 0 {
            self.start_copy();
            self.position += n;
            self.start = self.position;
        }
    }

    /// Outputs other bytes here.
    #[inline]
    pub(crate) fn insert(&mut self, bytes: &[u8]) {
        self.buffer().extend_from_slice(bytes);
    }

    /// The buffer for other bytes to output here.
    #[inline]
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        self.start_copy();
        self.copy
    }

    /// Outputs a frame whose last `fresh` bytes are next in the read; the others came earlier.
    #[inline]
    pub(crate) fn pass(&mut self, bytes: &[u8], fresh: usize) {
        if bytes.len() == fresh {
            self.keep(fresh);
        } else {
            self.skip(fresh);
            self.insert(bytes);
        }
    }

    /// The whole output.
    #[inline]
    pub(crate) fn finish(self) -> &'a [u8] {
        if self.changed {
            self.copy.extend_from_slice(&self.source[self.start..self.position]);
            self.copy
        } else {
            &self.source[self.start..self.position]
        }
    }

    #[inline]
    fn start_copy(&mut self) {
        self.changed = true;
        self.copy.extend_from_slice(&self.source[self.start..self.position]);
        self.start = self.position;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_read_is_not_copied() {
        let (source, mut copy) = (*b"abcdef", Vec::new());
        let mut splice = Splice::new(&source, &mut copy);
        splice.keep(2);
        splice.keep(4);
        assert_eq!(splice.finish().as_ptr(), source.as_ptr());
    }

    #[test]
    fn skips_and_inserts_keep_their_place() {
        let mut copy = Vec::new();
        let mut splice = Splice::new(b"abcdefgh", &mut copy);
        splice.keep(2);
        splice.insert(b"12");
        splice.skip(2);
        splice.keep(2);
        splice.pass(b"xyg", 1);
        splice.keep(1);
        assert_eq!(splice.finish(), b"ab12efxygh");
    }

    #[test]
    fn skipping_everything_puts_nothing_out() {
        let mut copy = Vec::new();
        let mut splice = Splice::new(b"abc", &mut copy);
        splice.skip(3);
        assert_eq!(splice.finish(), b"");
    }
}
