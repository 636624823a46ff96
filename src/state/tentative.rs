//! Changes of a transaction so far, and those of them that a ROLLBACK TO takes back. Postgres: `xact.c`,
//! "subtransaction".

use bytes::Bytes;

/// Changes that are not final, with the savepoints set between them.
#[derive(Debug)]
pub(crate) struct Tentative<T> {
    changes: Vec<T>,
    /// Open savepoints and how many changes came before them.
    savepoints: Vec<(Bytes, usize)>,
}

impl<T> Default for Tentative<T> {
    fn default() -> Self {
        Self { changes: Vec::new(), savepoints: Vec::new() }
    }
}

impl<T> Tentative<T> {
    pub(crate) fn push(&mut self, change: T) {
        self.changes.push(change);
    }

    /// SAVEPOINT.
    pub(crate) fn savepoint(&mut self, name: &Bytes) {
        self.savepoints.push((name.clone(), self.changes.len()));
    }

    /// RELEASE: changes after the savepoint belong to the block around it. A savepoint that is not known was set before
    /// the first change.
    pub(crate) fn release(&mut self, name: &[u8]) {
        self.savepoints.truncate(self.find(name).unwrap_or(0));
    }

    /// ROLLBACK TO: changes after the savepoint are void, and returned; the savepoint itself stays. One that is not
    /// known was set before the first change.
    pub(crate) fn roll_back_to(&mut self, name: &[u8]) -> std::vec::Drain<'_, T> {
        let known = self.find(name);
        let before = known.map_or(0, |at| self.savepoints[at].1);
        self.savepoints.truncate(known.map_or(0, |at| at + 1));
        self.changes.drain(before..)
    }

    /// Takes every change that stands: the transaction is over, or its changes so far are final.
    pub(crate) fn take(&mut self) -> Vec<T> {
        self.savepoints.clear();
        std::mem::take(&mut self.changes)
    }

    /// Every change that stands so far.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.changes.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The latest savepoint of this name: it hides those before it.
    fn find(&self, name: &[u8]) -> Option<usize> {
        self.savepoints.iter().rposition(|(known, _)| known == name)
    }
}
