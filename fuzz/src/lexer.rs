//! Any text: pgweir must not panic, and where Postgres's own parser takes it, both must see the same statements.

use crate::sql::{Context, EncodingFamily, classify};

/// Panics if it does not hold for `bytes`; what Postgres sees is asked with the feature `oracle`.
pub fn check(bytes: &[u8]) {
    for standard_conforming_strings in [true, false] {
        for encoding in [EncodingFamily::AsciiSafe, EncodingFamily::Sjis, EncodingFamily::Gb18030] {
            let context = Context { standard_conforming_strings, encoding };
            classify(bytes, context);
        }
    }
    #[cfg(feature = "oracle")]
    if let Ok(text) = std::str::from_utf8(bytes) {
        crate::oracle::check(text);
    }
}
