//! Frames of `mml`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mml_proto::fuzzing::frame(input));
