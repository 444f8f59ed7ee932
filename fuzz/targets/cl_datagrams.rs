//! Headers, packed messages and fragments of `cl`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cl::fuzzing::datagrams(input));
