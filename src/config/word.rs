//! Modes that are one word in the file: the enum and its words are written together.

/// A mode written as one word.
pub trait Word: Copy + PartialEq + 'static {
    /// Every word with its mode, in the order the reference names them.
    const WORDS: &'static [(&'static str, Self)];

    /// The word of this mode.
    fn word(self) -> &'static str {
        let (word, _) = Self::WORDS.iter().find(|(_, mode)| *mode == self).expect("every mode has its word");
        word
    }
}

/// Defines an enum whose variants are words: `Transaction = "transaction",`.
macro_rules! words {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $name {
            $($(#[$variant_meta])* $variant,)*
        }

        impl $crate::config::Word for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),*];
        }
    };
}

pub(super) use words;
