//! What the parties say to each other beside libfabric: questions for its addresses and answers, over UDP, and
//! the preamble in front of each datagram that libfabric carries. Little-endian.
//!
//! ```text
//! control    0 magic "GOFI", 4 version, 5 kind, 6 length of the name (u16), 8 nonce (u64),
//!           16 incarnation (u64), 24 protocol, 28 its version, 32 format of names (u32 each), 36 zero (u32),
//!           40 a place (the one answered is called that by the answerer; zero in a question), 64 name, zeroes
//! preamble   0 magic "GO", 2 version, 3 zero, 4 zero (u32), 8 a place (where the sender is)
//! place      0 family (4 or 6), 1 zero, 2 port (u16), 4 scope (u32), 8 address (16 bytes)
//! ```
//!
//! A question is as long as its answer, so that nobody is made to send more to a third party than they were
//! sent. None of this is authenticated, as nothing in this layer is: a sender may claim any place, as it may with
//! UDP. An answer must repeat the nonce of the question, so that those who cannot see it cannot answer.

use super::fabric::NAME_MAX;
use super::info::Protocol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes in front of each datagram.
pub(super) const PREAMBLE_LEN: usize = 32;
/// The length of each control datagram.
pub(super) const CONTROL_LEN: usize = 64 + NAME_MAX;

const MAGIC_CONTROL: [u8; 4] = *b"GOFI";
const MAGIC_PREAMBLE: [u8; 2] = *b"GO";
/// The version of these layouts.
const VERSION: u8 = 1;
const PLACE_LEN: usize = 24;

/// A control datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Control {
    pub body: Body,
    /// Chosen by the one who asks.
    pub nonce: u64,
    /// Of the sender: another one means another life.
    pub incarnation: u64,
    /// What the sender speaks.
    pub protocol: Protocol,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Question,
    Answer {
        /// Where the question came from: what the answerer wants to read in the preambles.
        asker: SocketAddr,
        /// The answerer's address in libfabric's terms, not empty.
        name: Vec<u8>,
    },
}

impl Control {
    pub(super) fn to_bytes(&self) -> [u8; CONTROL_LEN] {
        let mut b = [0; CONTROL_LEN];
        b[0..4].copy_from_slice(&MAGIC_CONTROL);
        b[4] = VERSION;
        b[8..16].copy_from_slice(&self.nonce.to_le_bytes());
        b[16..24].copy_from_slice(&self.incarnation.to_le_bytes());
        b[24..28].copy_from_slice(&self.protocol.protocol.to_le_bytes());
        b[28..32].copy_from_slice(&self.protocol.version.to_le_bytes());
        b[32..36].copy_from_slice(&self.protocol.addr_format.to_le_bytes());
        match &self.body {
            Body::Question => b[5] = 1,
            Body::Answer { asker, name } => {
                b[5] = 2;
                b[6..8].copy_from_slice(&(name.len() as u16).to_le_bytes());
                b[40..64].copy_from_slice(&place(*asker));
                b[64..64 + name.len()].copy_from_slice(name);
            }
        }
        b
    }

    /// The meaning of a control datagram, or `None` if it is none of ours.
    pub(super) fn parse(datagram: &[u8]) -> Option<Control> {
        let b: &[u8; CONTROL_LEN] = datagram.try_into().ok()?;
        if b[0..4] != MAGIC_CONTROL || b[4] != VERSION || b[36..40] != [0; 4] {
            return None;
        }
        let len = usize::from(u16::from_le_bytes([b[6], b[7]]));
        let (name, padding) = b[64..].split_at_checked(len)?;
        if padding.iter().any(|&byte| byte != 0) {
            return None;
        }
        let body = match b[5] {
            1 if len == 0 && b[40..64] == [0; PLACE_LEN] => Body::Question,
            2 if len > 0 => {
                Body::Answer { asker: parse_place(&array::<40, PLACE_LEN>(b))?, name: name.to_vec() }
            }
            _ => return None,
        };
        Some(Control {
            body,
            nonce: u64::from_le_bytes(array::<8, 8>(b)),
            incarnation: u64::from_le_bytes(array::<16, 8>(b)),
            protocol: Protocol {
                protocol: u32::from_le_bytes(array::<24, 4>(b)),
                version: u32::from_le_bytes(array::<28, 4>(b)),
                addr_format: u32::from_le_bytes(array::<32, 4>(b)),
            },
        })
    }
}

/// The preamble of a sender at `addr`.
pub(super) fn preamble(addr: SocketAddr) -> [u8; PREAMBLE_LEN] {
    let mut b = [0; PREAMBLE_LEN];
    b[0..2].copy_from_slice(&MAGIC_PREAMBLE);
    b[2] = VERSION;
    b[8..].copy_from_slice(&place(addr));
    b
}

/// Where the sender of `datagram` says it is, or `None` if there is no preamble of ours.
pub(super) fn parse_preamble(datagram: &[u8]) -> Option<SocketAddr> {
    let b: &[u8; PREAMBLE_LEN] = datagram.first_chunk()?;
    if b[0..2] != MAGIC_PREAMBLE || b[2] != VERSION || b[3..8] != [0; 5] {
        return None;
    }
    parse_place(&array::<8, PLACE_LEN>(b))
}

fn array<const AT: usize, const N: usize>(b: &[u8]) -> [u8; N] {
    std::array::from_fn(|i| b[AT + i])
}

fn place(addr: SocketAddr) -> [u8; PLACE_LEN] {
    let mut b = [0; PLACE_LEN];
    b[2..4].copy_from_slice(&addr.port().to_le_bytes());
    match addr {
        SocketAddr::V4(addr) => {
            b[0] = 4;
            b[8..12].copy_from_slice(&addr.ip().octets());
        }
        SocketAddr::V6(addr) => {
            b[0] = 6;
            b[4..8].copy_from_slice(&addr.scope_id().to_le_bytes());
            b[8..].copy_from_slice(&addr.ip().octets());
        }
    }
    b
}

/// A place that somebody can be sent to: with a port, and an address of one host.
fn parse_place(b: &[u8; PLACE_LEN]) -> Option<SocketAddr> {
    let port = u16::from_le_bytes([b[2], b[3]]);
    let scope = u32::from_le_bytes(array::<4, 4>(b));
    let addr = match b[0] {
        4 if scope == 0 && b[12..] == [0; 12] => SocketAddr::from((Ipv4Addr::from(array::<8, 4>(b)), port)),
        6 => SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(array::<8, 16>(b)), port, 0, scope)),
        _ => return None,
    };
    let one_host = match addr.ip() {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    (b[1] == 0 && port != 0 && one_host).then_some(addr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PROTOCOL: Protocol = Protocol { protocol: 3, version: 1, addr_format: 2 };

    fn addresses() -> impl Strategy<Value = SocketAddr> {
        let v4 = (any::<[u8; 4]>(), 1u16..).prop_map(|(ip, port)| SocketAddr::from((ip, port)));
        let v6 = (any::<[u16; 8]>(), 1u16.., any::<u32>()).prop_map(|(ip, port, scope)| {
            SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope))
        });
        prop_oneof![v4, v6].prop_filter("of one host", |a| !a.ip().is_multicast())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            asker in addresses(),
            name in proptest::collection::vec(1u8.., 1..=NAME_MAX),
            (nonce, incarnation) in any::<(u64, u64)>(),
        ) {
            prop_assume!(asker.ip() != IpAddr::from([255; 4]) && !asker.ip().is_unspecified());
            prop_assert_eq!(parse_preamble(&preamble(asker)), Some(asker));
            for body in [Body::Question, Body::Answer { asker, name }] {
                let control = Control { body, nonce, incarnation, protocol: PROTOCOL };
                prop_assert_eq!(Control::parse(&control.to_bytes()), Some(control));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..CONTROL_LEN + 2),
            valid in 0usize..8,
        ) {
            for (to, from) in bytes.iter_mut().zip(b"GOFI\x01").take(valid) {
                *to = *from;
            }
            if let Some(control) = Control::parse(&bytes) {
                prop_assert_eq!(&control.to_bytes()[..], &bytes[..]);
            }
            let _ = parse_preamble(&bytes);
        }

        #[test]
        fn any_change_to_what_is_fixed_is_noticed(at in 0usize..8, to in any::<u8>()) {
            let mut b = preamble(SocketAddr::from(([127, 0, 0, 1], 1)));
            prop_assume!(b[at] != to);
            b[at] = to;
            prop_assert_eq!(parse_preamble(&b), None);
        }
    }

    #[test]
    fn nobody_is_at_a_place_that_is_no_host() {
        for addr in ["0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1", "127.0.0.1:0", "[::]:1", "[ff02::1]:1"]
        {
            assert_eq!(parse_preamble(&preamble(addr.parse().unwrap())), None, "{addr}");
        }
    }
}
