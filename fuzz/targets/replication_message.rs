//! Frames between replicas and clients, and records of a journal: whatever decodes is what was written, byte for
//! byte, so that nobody can say one thing in two ways.
#![no_main]

use cl_base::{PeerId, codec};
use replication_proto::message::{MESSAGE_BYTES_MAX, decode, encode};
use replication_proto::{Config, Record};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let members = (1..5).map(|i| PeerId::new(i, 0)).collect();
    let config = Config::new(0, members).expect("four members are a group");
    if let Ok(message) = decode(&config, input) {
        assert_eq!(encode(&config, &message), input);
    }
    // Without the frame, so that every input has a chance to be a message.
    let framed = [&[0; 16], input].concat();
    if let Ok(message) = decode(&config, &framed) {
        assert_eq!(encode(&config, &message), framed);
    }
    if let Ok(record) = codec::decode_bounded::<Record>(input, MESSAGE_BYTES_MAX) {
        assert_eq!(codec::encode(&record), input);
    }
});
