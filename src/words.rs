//! Enums that are shown as words: labels of metrics, cells of the console, fields of log records, values
//! of configuration keys.
//!
//! `words!` is the one list of such an enum. Arrays that count by it, the words that a label may have, and the
//! documents are made from it.

/// An enum that `words!` declares, for code that takes any of them.
pub(crate) trait Word: Copy + 'static {
    /// Every variant, in order.
    fn all() -> &'static [Self];

    /// The word that is shown for it.
    fn word(self) -> &'static str;
}

/// Declares enums of which every variant has a word: `Busy = "busy",`.
macro_rules! words {
    ($($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ })+) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $name { $($(#[$doc])* $variant,)+ }

        #[allow(dead_code, reason = "some are only shown, some only counted by")]
        impl $name {
            /// Every variant, in order.
            $vis const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// The words of [`ALL`](Self::ALL).
            $vis const WORDS: [&'static str; Self::ALL.len()] = [$($word),+];

            /// The word that is shown for it.
            $vis const fn word(self) -> &'static str {
                Self::WORDS[self as usize]
            }
        }

        impl $crate::words::Word for $name {
            fn all() -> &'static [Self] {
                &Self::ALL
            }

            fn word(self) -> &'static str {
                self.word()
            }
        }
    )+};
}

pub(crate) use words;

#[cfg(test)]
mod tests {
    words! {
        enum Consent {
            Yes = "yes",
            NotYet = "not_yet",
        }
    }

    #[test]
    fn variants_and_words_are_in_the_same_order() {
        assert_eq!(Consent::ALL.map(Consent::word), Consent::WORDS);
        assert_eq!(Consent::NotYet.word(), "not_yet");
    }
}
