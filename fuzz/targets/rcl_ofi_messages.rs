//! Messages between endpoints of the libfabric provider, and an endpoint that receives them.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| rcl_fi::fuzzing::messages(input));
