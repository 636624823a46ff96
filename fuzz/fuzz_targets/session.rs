#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pgweir_fuzz::session::check(bytes));
