//! Any text: pgweir must not panic, and where Postgres's own parser takes it, both must see the same statements.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgweir::sql::{Context, classify};

fuzz_target!(|bytes: &[u8]| {
    for standard_conforming_strings in [true, false] {
        for ascii_safe in [true, false] {
            classify(
                bytes,
                Context {
                    standard_conforming_strings,
                    ascii_safe,
                },
            );
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        pgweir_fuzz::check(text);
    }
});
