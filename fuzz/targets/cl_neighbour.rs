//! What a process writes into shared memory: rings, loans, returns.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cl::fuzzing::neighbour(input));
