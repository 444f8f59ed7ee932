//! Frames of `rcl`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| rcl_proto::fuzzing::frame(input));
