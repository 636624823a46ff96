#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pgweir_fuzz::lexer::check(bytes));
