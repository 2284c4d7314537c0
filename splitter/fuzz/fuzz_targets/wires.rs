//! Fuzzes `splitter_fuzz::wires`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| splitter_fuzz::wires(bytes));
