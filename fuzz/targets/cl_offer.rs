//! What a process says that wants to share memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cl::fuzzing::offer(input));
