//! Fuzzes `splitter_fuzz::peer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| splitter_fuzz::peer(bytes));
