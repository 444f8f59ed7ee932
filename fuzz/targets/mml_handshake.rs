//! Handshakes of `mml`, through a network that does what it likes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mml_proto::fuzzing::handshake(input));
