//! State that ties a client to its backend because pgweir cannot carry it to another.
//!
//! The lexer only suspects; the server knows. After a statement that may have begun or ended such state the backend is
//! asked, in the open gap before a release, what is really there. A suspicion costs one round trip that no client waits
//! for; a pin stands exactly as long as its reason.

use crate::sql::Suspects;
use crate::wire::frame::HEADER_LEN;

/// What a client holds, and what has to be asked.
#[derive(Debug, Default)]
pub struct Pins {
    held: Suspects,
    /// Possibly begun or ended since the last answer.
    open: Suspects,
    /// A statement too large to be parsed again elsewhere.
    large_statement: bool,
}

/// Reasons as metrics and console name them.
pub const REASONS: [(&str, Suspects); 8] = [
    ("temp", Suspects::TEMP),
    ("hold_cursor", Suspects::HOLD),
    ("advisory_lock", Suspects::ADVISORY),
    ("sql_prepare", Suspects::PREPARE),
    ("listen", Suspects::LISTEN),
    ("settings", Suspects::SETTINGS),
    ("session_authorization", Suspects::AUTHORIZATION),
    ("load", Suspects::LOAD),
];

/// Every reason there is, in the order of their bits.
pub fn all_names() -> impl Iterator<Item = &'static str> {
    REASONS.iter().map(|(name, _)| *name).chain(["large_statement"])
}

/// Names of the reasons in [`Pins::bits`].
pub fn names(bits: u16) -> impl Iterator<Item = &'static str> {
    all_names().enumerate().filter(move |(index, _)| bits & 1 << index != 0).map(|(_, name)| name)
}

/// Kinds the server can be asked about, in the order of the columns asked for.
const ASKED: [(Suspects, &str); 5] = [
    (
        Suspects::TEMP,
        "EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema() \
         UNION ALL SELECT FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.pg_my_temp_schema() \
         UNION ALL SELECT FROM pg_catalog.pg_type WHERE typnamespace = pg_catalog.pg_my_temp_schema())",
    ),
    (Suspects::HOLD, "EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)"),
    (
        Suspects::ADVISORY,
        "EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid())",
    ),
    (Suspects::PREPARE, "EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)"),
    (Suspects::LISTEN, "EXISTS (SELECT FROM pg_catalog.pg_listening_channels())"),
];

impl Pins {
    /// Nothing ties the client to its backend.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && !self.large_statement
    }

    /// Nothing has to be asked.
    #[inline]
    pub fn is_settled(&self) -> bool {
        self.open.is_empty()
    }

    /// A text ran that nobody could read: it may have changed anything.
    pub fn is_uncertain(&self) -> bool {
        self.open.intersects(Suspects::UNCERTAIN)
    }

    /// What is held.
    pub fn held(&self) -> Suspects {
        self.held
    }

    /// Statements of SQL PREPARE stand.
    pub fn is_sql_prepared(&self) -> bool {
        self.held.intersects(Suspects::PREPARE)
    }

    /// A LISTEN stands, or may.
    pub fn may_listen(&self) -> bool {
        (self.held | self.open).intersects(Suspects::LISTEN)
    }

    /// The reasons as one number, to be left where others can see it; [`names`] reads it.
    pub fn bits(&self) -> u16 {
        let kinds = REASONS.iter().enumerate().filter(|(_, (_, kind))| self.held.intersects(*kind));
        let large = u16::from(self.large_statement) << REASONS.len();
        kinds.fold(large, |bits, (index, _)| bits | 1 << index)
    }

    /// A statement ran that may begin `may_begin` or end `may_end`.
    pub fn suspect(&mut self, may_begin: Suspects, may_end: Suspects) {
        let ended: Suspects = REASONS
            .iter()
            .filter(|(_, kind)| self.held.intersects(*kind) && may_end.intersects(*kind))
            .fold(Suspects::NONE, |all, (_, kind)| all | *kind);
        self.open |= may_begin | ended;
    }

    /// The backend keeps a statement only this client can use, or no longer does.
    pub fn set_large_statement(&mut self, kept: bool) {
        self.large_statement = kept;
    }

    /// DISCARD ALL, or another backend: nothing is left.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Everything open is taken as said: `UNCERTAIN` means any kind.
    pub fn question(&mut self) -> Option<(Suspects, Vec<u8>)> {
        let open = std::mem::take(&mut self.open);
        let is_uncertain = open.intersects(Suspects::UNCERTAIN);
        // What the server cannot tell stands as suspected, or falls as ended.
        for kind in [Suspects::SETTINGS, Suspects::AUTHORIZATION, Suspects::LOAD] {
            if open.intersects(kind) {
                self.held = if self.held.intersects(kind) { self.held.without(kind) } else { self.held | kind };
            }
        }
        let mut asked = Suspects::NONE;
        let mut columns = Vec::new();
        for (kind, column) in ASKED {
            if is_uncertain || open.intersects(kind) {
                asked |= kind;
                columns.push(column);
            }
        }
        (!columns.is_empty()).then(|| (asked, format!("SELECT {}", columns.join(", ")).into_bytes()))
    }

    /// The server's row for a question about `asked`: one `t` or `f` for each.
    pub fn answer(&mut self, asked: Suspects, row: &[u8]) {
        let mut values = row.get(HEADER_LEN + 2..).unwrap_or_default();
        for (kind, _) in ASKED.iter().filter(|(kind, _)| asked.intersects(*kind)) {
            // Anything but a clear "f" is taken as a yes: a pin too many wastes a backend, one too few leaks.
            let is_free = values.get(..5) == Some(&[0, 0, 0, 1, b'f']);
            self.held = if is_free { self.held.without(*kind) } else { self.held | *kind };
            values = values.get(5..).unwrap_or_default();
        }
    }
}
