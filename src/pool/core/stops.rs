//! The reasons why a database lends and dials nothing, although its clients wait.

/// Each holds by itself: a pause may outlast a missing primary, and the reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct DatabaseStops {
    /// Between `pause` and `resume`.
    pub(super) is_paused: bool,
    /// No server is known to have the role that the database needs.
    pub(super) is_unproved: bool,
}

impl DatabaseStops {
    /// Nothing is lent or dialled.
    #[inline]
    pub(super) fn is_any(self) -> bool {
        self.is_paused | self.is_unproved
    }
}
