//! Fuzzes `relay_cast_fuzz::texts`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| relay_cast_fuzz::texts(bytes));
