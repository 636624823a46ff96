//! Facts about a session that messages under way may change, and that the meaning of a later message depends on.
//!
//! Nothing is predicted: a message that depends on such a fact waits until everything in front of it is answered. Only
//! names that a unit of the extended protocol gives or takes count at once within that unit, because the server drops
//! the rest of a unit whose part failed.

use crate::sql::{Effect, StateFlags, StatementEffects};

/// A set of facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Facts(u8);

impl Facts {
    pub(super) const NONE: Self = Self(0);
    /// Names of prepared statements.
    pub(super) const NAMES: Self = Self(1);
    /// Settings in force.
    pub(super) const SETTINGS: Self = Self(1 << 1);
    /// Settings that decide how a text is read.
    pub(super) const LEXER: Self = Self(1 << 2);
    /// Everything: nothing may follow before the answer.
    pub(super) const SESSION: Self = Self(1 << 3);
    /// Names that the open unit changed; they are [`Self::NAMES`] for what follows its Sync.
    pub(super) const UNIT_NAMES: Self = Self(1 << 4);
    /// The unnamed statement.
    pub(super) const UNNAMED: Self = Self(1 << 5);
    /// The open unit prepares the unnamed statement; it is [`Self::UNNAMED`] for what follows its Sync.
    pub(super) const UNIT_UNNAMED: Self = Self(1 << 6);
    /// All that a statement may change.
    const ALL: Self = Self(0x0f);

    /// True if any of `other` is among these.
    #[inline]
    pub(super) const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// These without `other`.
    #[inline]
    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// These and `other`.
    #[inline]
    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The facts that statements with these effects may change; `is_followed`: settings were changed in the same
    /// transaction, and its end decides about them.
    pub(super) fn changed_by(class: &StatementEffects, is_followed: bool) -> Self {
        if class.may_begin.contains(StateFlags::UNCERTAIN) {
            return Self::ALL;
        }
        let hidden =
            if class.may_begin.intersects(StateFlags::SETTINGS) { Self::SETTINGS.or(Self::LEXER) } else { Self::NONE };
        class.effects.iter().fold(hidden, |facts, (_, effect)| facts.or(Self::changed_by_effect(effect, is_followed)))
    }

    fn changed_by_effect(effect: &Effect, is_followed: bool) -> Self {
        match effect {
            Effect::DiscardAll => Self::ALL,
            Effect::Set { setting, .. } => of_setting(&setting.name),
            Effect::Reset(name) => of_setting(name),
            Effect::SetUnknown { name, .. } => of_setting(name),
            Effect::ResetAll
            | Effect::SetBound { .. }
            | Effect::SetAny { .. }
            | Effect::SetSessionAuthorization { .. } => Self::SETTINGS.or(Self::LEXER),
            Effect::Prepare(_) | Effect::Deallocate(_) | Effect::DeallocateAll => Self::NAMES,
            effect if effect.controls_transaction() && is_followed => Self::SETTINGS.or(Self::LEXER),
            _ => Self::NONE,
        }
    }
}

/// Settings that decide how statement texts are read.
pub(super) const LEXICAL: [&str; 2] = ["standard_conforming_strings", "client_encoding"];

fn of_setting(name: &str) -> Facts {
    if LEXICAL.contains(&name) { Facts::SETTINGS.or(Facts::LEXER) } else { Facts::SETTINGS }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Context, classify};

    fn changed(text: &str, is_followed: bool) -> Facts {
        Facts::changed_by(&classify(text.as_bytes(), Context::default()), is_followed)
    }

    #[test]
    fn a_text_changes_the_facts_that_its_statements_are_about() {
        for (text, facts) in [
            ("SELECT 1", Facts::NONE),
            ("BEGIN", Facts::NONE),
            ("SET work_mem = '1MB'", Facts::SETTINGS),
            ("SELECT 1; SET LOCAL client_encoding = 'LATIN1'", Facts::SETTINGS.or(Facts::LEXER)),
            ("RESET ALL", Facts::SETTINGS.or(Facts::LEXER)),
            ("DEALLOCATE s", Facts::NAMES),
            ("DISCARD ALL", Facts::ALL),
            ("SET a = '", Facts::ALL),
        ] {
            assert_eq!(changed(text, false), facts, "{text}");
        }
    }

    #[test]
    fn the_end_of_a_transaction_decides_about_settings_that_were_changed_in_it() {
        for text in ["COMMIT", "ROLLBACK", "ROLLBACK TO a", "PREPARE TRANSACTION 'x'"] {
            assert_eq!(changed(text, false), Facts::NONE, "{text}");
            assert!(changed(text, true).intersects(Facts::SETTINGS), "{text}");
        }
    }
}
