//! Fuzzes `splitter_fuzz::splitter`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| splitter_fuzz::splitter(bytes));
