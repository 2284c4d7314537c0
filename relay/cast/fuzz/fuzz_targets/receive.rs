//! Fuzzes `relay_cast_fuzz::receive`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| relay_cast_fuzz::receive(bytes));
