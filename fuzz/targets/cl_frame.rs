//! Ethernet frames from an AF_XDP device.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cl::fuzzing::frame(input));
