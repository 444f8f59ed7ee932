//! Arbitrary control datagrams and preambles.

use super::control::{Control, PREAMBLE_LEN, parse_preamble, preamble};

/// What comes over UDP, and what comes in front of a datagram.
pub fn control(input: &[u8]) {
    if let Some(control) = Control::parse(input) {
        assert_eq!(control.to_bytes()[..], *input);
    }
    if let Some(addr) = parse_preamble(input) {
        assert_eq!(preamble(addr)[..], input[..PREAMBLE_LEN]);
    }
}
