//! Addresses told beside libfabric, and the preamble of its datagrams.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cl::fuzzing::control(input));
