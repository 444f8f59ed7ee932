//! Arbitrary Ethernet frames.

use super::frame::{HEADERS_LEN, IP_UDP_LEN, parse, right_checksum};
use std::net::{Ipv4Addr, SocketAddrV4};

/// A frame as a device might hand it to us. The checksum of every other one is made right first, for a fuzzer
/// does not find it.
pub fn frame(input: &[u8]) {
    let local = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 7);
    let Some((flag, frame)) = input.split_first() else { return };
    let mut frame = frame.to_vec();
    if flag & 1 == 0 {
        right_checksum(&mut frame);
    }
    if let Some((from, contents)) = parse(&frame, local) {
        assert!(contents.start == HEADERS_LEN && contents.end <= frame.len());
        assert!(from.port() != 0 && contents.len() + IP_UDP_LEN <= usize::from(u16::MAX));
    }
}
