//! Kinds of session state that a text may touch in ways only the server can tell, and all facts about each.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// One kind of session state.
#[derive(Debug)]
pub(crate) struct StateKind {
    pub flag: StateFlags,
    /// The reason of a pin, as metrics and console name it.
    pub pin: &'static str,
    /// An expression that the server answers with true while there is any; `None`: it cannot tell.
    pub probe: Option<&'static str>,
    /// DISCARD ALL ends it.
    pub is_discarded: bool,
}

/// All kinds, in the order of their flags.
pub(crate) const KINDS: [StateKind; 13] = [
    StateKind {
        flag: StateFlags::TEMP,
        pin: "temp",
        probe: Some(
            "EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema() \
             UNION ALL SELECT FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.pg_my_temp_schema() \
             UNION ALL SELECT FROM pg_catalog.pg_type WHERE typnamespace = pg_catalog.pg_my_temp_schema()) \
             OR pg_catalog.strpos(pg_catalog.lower(pg_catalog.current_setting('search_path')), 'pg_temp') > 0",
        ),
        is_discarded: true,
    },
    StateKind {
        flag: StateFlags::HOLD,
        pin: "hold_cursor",
        probe: Some("EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)"),
        is_discarded: true,
    },
    StateKind {
        flag: StateFlags::ADVISORY,
        pin: "advisory_lock",
        probe: Some(
            "EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid())",
        ),
        is_discarded: true,
    },
    StateKind {
        flag: StateFlags::PREPARE,
        pin: "sql_prepare",
        probe: Some("EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)"),
        is_discarded: true,
    },
    StateKind {
        flag: StateFlags::LISTEN,
        pin: "listen",
        probe: Some("EXISTS (SELECT FROM pg_catalog.pg_listening_channels())"),
        is_discarded: true,
    },
    StateKind { flag: StateFlags::SETTINGS, pin: "settings", probe: None, is_discarded: true },
    StateKind {
        flag: StateFlags::AUTHORIZATION,
        pin: "session_authorization",
        probe: Some(
            "SESSION_USER <> \
             (SELECT usename FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid())",
        ),
        is_discarded: true,
    },
    // A library cannot be unloaded.
    StateKind { flag: StateFlags::LOAD, pin: "load", probe: None, is_discarded: false },
    // Neither the numbers that a seed determines nor a connection that a name stands for can be asked for: `dblink` may
    // be in any schema.
    StateKind { flag: StateFlags::SEED, pin: "seed", probe: None, is_discarded: false },
    StateKind { flag: StateFlags::DBLINK, pin: "dblink", probe: None, is_discarded: false },
    StateKind { flag: StateFlags::BACKUP, pin: "backup", probe: None, is_discarded: false },
    StateKind {
        flag: StateFlags::REPLICATION_SLOT,
        pin: "replication_slot",
        probe: Some(
            "EXISTS (SELECT FROM pg_catalog.pg_replication_slots \
             WHERE temporary AND active_pid = pg_catalog.pg_backend_pid())",
        ),
        is_discarded: false,
    },
    // Only a superuser may ask for it.
    StateKind { flag: StateFlags::REPLICATION_ORIGIN, pin: "replication_origin", probe: None, is_discarded: false },
];

/// The reason of a pin that is no state of the server's: a statement too large to be parsed again elsewhere.
const LARGE_STATEMENT: &str = "large_statement";

/// Reasons of pins: those of the kinds in the order of their flags, then `large_statement`.
pub(crate) const PIN_REASONS: [&str; KINDS.len() + 1] = {
    let mut reasons = [LARGE_STATEMENT; KINDS.len() + 1];
    let mut at = 0;
    while at < KINDS.len() {
        reasons[at] = KINDS[at].pin;
        at += 1;
    }
    reasons
};

/// A set of kinds.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct StateFlags(u16);

impl StateFlags {
    pub const NONE: Self = Self(0);
    /// Temporary tables, views, sequences and functions.
    pub const TEMP: Self = Self(1);
    /// Cursors WITH HOLD.
    pub const HOLD: Self = Self(1 << 1);
    /// Session-level advisory locks.
    pub const ADVISORY: Self = Self(1 << 2);
    /// Statements of SQL PREPARE.
    pub const PREPARE: Self = Self(1 << 3);
    /// Channels listened to.
    pub const LISTEN: Self = Self(1 << 4);
    /// Settings changed in a form that could not be read.
    pub const SETTINGS: Self = Self(1 << 5);
    /// SET SESSION AUTHORIZATION.
    pub const AUTHORIZATION: Self = Self(1 << 6);
    pub const LOAD: Self = Self(1 << 7);
    /// The sequence of `random()` after `setseed`.
    pub const SEED: Self = Self(1 << 8);
    /// Named connections of `dblink`, and the one without a name.
    pub const DBLINK: Self = Self(1 << 9);
    /// `pg_backup_start` without its `pg_backup_stop`.
    pub const BACKUP: Self = Self(1 << 10);
    /// Temporary replication slots.
    pub const REPLICATION_SLOT: Self = Self(1 << 11);
    /// `pg_replication_origin_session_setup`.
    pub const REPLICATION_ORIGIN: Self = Self(1 << 12);
    /// The text could not be cut or read: it may do anything, and its count and effects mean nothing.
    pub const UNCERTAIN: Self = Self(1 << 15);
    /// Kinds that the server cannot be asked about and that one statement ends for sure if it succeeds.
    pub const ENDED_BY_CALL: Self = Self(Self::BACKUP.0 | Self::REPLICATION_ORIGIN.0);

    /// State that a statement of SQL PREPARE may create when it is executed; settings were suspected when it was
    /// prepared.
    pub(crate) const EXECUTED: Self = Self(Self::TEMP.0 | Self::ADVISORY.0 | Self::REPLICATION_SLOT.0);
    /// State that a name written as `U&""` may hide.
    pub(super) const HIDDEN: Self = Self(Self::TEMP.0 | Self::ADVISORY.0 | Self::SETTINGS.0);
    /// Kinds that DISCARD ALL ends.
    pub(super) const DISCARDED: Self = {
        let (mut flags, mut at) = (Self::NONE, 0);
        while at < KINDS.len() {
            if KINDS[at].is_discarded {
                flags = flags.or(KINDS[at].flag);
            }
            at += 1;
        }
        flags
    };
    /// Kinds that end with the backend only.
    pub const KEPT: Self = {
        let (mut flags, mut at) = (Self::NONE, 0);
        while at < KINDS.len() {
            if !KINDS[at].is_discarded {
                flags = flags.or(KINDS[at].flag);
            }
            at += 1;
        }
        flags
    };
    /// Kinds that the server cannot be asked about.
    pub const UNPROBED: Self = {
        let (mut flags, mut at) = (Self::NONE, 0);
        while at < KINDS.len() {
            if KINDS[at].probe.is_none() {
                flags = flags.or(KINDS[at].flag);
            }
            at += 1;
        }
        flags
    };

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is among these.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are in both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// These without `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for StateFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for StateFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for StateFlags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = KINDS.iter().filter(|kind| self.contains(kind.flag)).map(|kind| kind.pin);
        let names = kinds.chain(self.contains(Self::UNCERTAIN).then_some("uncertain"));
        write!(formatter, "StateFlags({})", names.collect::<Vec<_>>().join(" | "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_in_the_order_of_their_flags() {
        for (at, kind) in KINDS.iter().enumerate() {
            assert_eq!(kind.flag.0, 1 << at, "{}", kind.pin);
        }
        assert_eq!(PIN_REASONS[KINDS.len()], "large_statement");
    }

    #[test]
    fn flags_print_their_names() {
        assert_eq!(format!("{:?}", StateFlags::TEMP | StateFlags::LOAD), "StateFlags(temp | load)");
    }
}
