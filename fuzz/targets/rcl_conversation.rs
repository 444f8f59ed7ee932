//! Connections of `rcl` whose frames are altered on the way.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| rcl_proto::fuzzing::conversation(input));
