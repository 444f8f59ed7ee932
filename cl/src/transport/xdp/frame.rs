//! Ethernet frames with a UDP datagram over IPv4: made from a template for each destination, and parsed.
//!
//! Frames come from the network, so nothing in them is believed before it is checked; [`parse`] is a pure
//! function of the bytes.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;

/// A hardware address.
pub(super) type Mac = [u8; 6];

const ETHERNET_LEN: usize = 14;
const IP_LEN: usize = 20;
const UDP_LEN: usize = 8;
/// Bytes in front of the datagram.
pub(super) const HEADERS_LEN: usize = ETHERNET_LEN + IP_LEN + UDP_LEN;
/// Bytes of an IPv4 packet in front of the datagram.
pub(super) const IP_UDP_LEN: usize = IP_LEN + UDP_LEN;
/// The shortest frame on an Ethernet, without its check sequence; shorter ones are padded.
pub(super) const FRAME_LEN_MIN: usize = 60;

const ETHERTYPE_IPV4: u16 = 0x0800;
/// Version 4, a header of five words: no options.
const VERSION_AND_LENGTH: u8 = 0x45;
const DONT_FRAGMENT: u16 = 0x4000;
/// The bits of the fragment field that are set in a fragment: more of them follow, or an offset.
const FRAGMENT_MASK: u16 = 0x3fff;
const HOPS: u8 = 64;
const PROTOCOL_UDP: u8 = 17;

// Where the fields are.
const TYPE: usize = 12;
const VERSION: usize = 14;
const TOTAL_LEN: usize = 16;
const FRAGMENT: usize = 20;
const TIME_TO_LIVE: usize = 22;
const PROTOCOL: usize = 23;
const IP_CHECKSUM: usize = 24;
const SOURCE_IP: usize = 26;
const DESTINATION_IP: usize = 30;
const SOURCE_PORT: usize = 34;
const DESTINATION_PORT: usize = 36;
const UDP_LENGTH: usize = 38;

/// The headers of frames to one destination, but for the lengths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Template {
    headers: [u8; HEADERS_LEN],
    /// The sum of the IP header's words, lengths and checksum taken as zero.
    sum: u32,
}

impl Template {
    pub(super) fn new(from_mac: Mac, to_mac: Mac, from: SocketAddrV4, to: SocketAddrV4) -> Template {
        let mut headers = [0; HEADERS_LEN];
        headers[..6].copy_from_slice(&to_mac);
        headers[6..12].copy_from_slice(&from_mac);
        put(&mut headers, TYPE, ETHERTYPE_IPV4);
        headers[VERSION] = VERSION_AND_LENGTH;
        // Never fragmented, so the identification may be zero (RFC 6864).
        put(&mut headers, FRAGMENT, DONT_FRAGMENT);
        headers[TIME_TO_LIVE] = HOPS;
        headers[PROTOCOL] = PROTOCOL_UDP;
        headers[SOURCE_IP..][..4].copy_from_slice(&from.ip().octets());
        headers[DESTINATION_IP..][..4].copy_from_slice(&to.ip().octets());
        put(&mut headers, SOURCE_PORT, from.port());
        put(&mut headers, DESTINATION_PORT, to.port());
        let sum = sum(&headers[VERSION..][..IP_LEN]);
        Template { headers, sum }
    }

    /// The headers of a datagram of `len` bytes.
    ///
    /// The UDP checksum is left out, as IPv4 allows: the Ethernet's own check protects the frame on each
    /// link, and the layers above check their contents.
    ///
    /// # Panics
    /// If `len` exceeds what IPv4 can carry.
    pub(super) fn headers(&self, len: usize) -> [u8; HEADERS_LEN] {
        let mut headers = self.headers;
        let total = u16::try_from(IP_UDP_LEN + len).expect("a datagram fits a packet");
        put(&mut headers, TOTAL_LEN, total);
        put(&mut headers, IP_CHECKSUM, !fold(self.sum + u32::from(total)));
        put(&mut headers, UDP_LENGTH, total - IP_LEN as u16);
        headers
    }
}

/// The sender and the place of the datagram in `frame`, if it is a sound one to `local`.
///
/// The UDP checksum is not verified: over a virtual device it is not even computed.
pub(super) fn parse(frame: &[u8], local: SocketAddrV4) -> Option<(SocketAddrV4, Range<usize>)> {
    let headers: &[u8; HEADERS_LEN] = frame.first_chunk()?;
    let total = usize::from(get(headers, TOTAL_LEN));
    let udp = usize::from(get(headers, UDP_LENGTH));
    let from = SocketAddrV4::new(ip(headers, SOURCE_IP), get(headers, SOURCE_PORT));
    let to = SocketAddrV4::new(ip(headers, DESTINATION_IP), get(headers, DESTINATION_PORT));
    let sound = get(headers, TYPE) == ETHERTYPE_IPV4
        && headers[VERSION] == VERSION_AND_LENGTH
        && (IP_UDP_LEN..=frame.len() - ETHERNET_LEN).contains(&total)
        && get(headers, FRAGMENT) & FRAGMENT_MASK == 0
        && headers[PROTOCOL] == PROTOCOL_UDP
        && fold(sum(&headers[VERSION..][..IP_LEN])) == u16::MAX
        && (UDP_LEN..=total - IP_LEN).contains(&udp)
        && to == local
        && may_be_answered(from);
    sound.then(|| (from, HEADERS_LEN..HEADERS_LEN + udp - UDP_LEN))
}

/// False for a sender that cannot be one: an answer would go to nobody, or to many.
fn may_be_answered(from: SocketAddrV4) -> bool {
    let ip = from.ip();
    from.port() != 0 && !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast())
}

fn put(headers: &mut [u8; HEADERS_LEN], at: usize, value: u16) {
    headers[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn get(headers: &[u8; HEADERS_LEN], at: usize) -> u16 {
    u16::from_be_bytes([headers[at], headers[at + 1]])
}

fn ip(headers: &[u8; HEADERS_LEN], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(headers[at], headers[at + 1], headers[at + 2], headers[at + 3])
}

/// The sum of 16-bit words on which the Internet checksum is built.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum()
}

/// Makes the header's checksum right, for a fuzzer.
#[cfg(fuzzing)]
pub(super) fn right_checksum(frame: &mut [u8]) {
    let Some(headers) = frame.first_chunk_mut() else { return };
    put(headers, IP_CHECKSUM, 0);
    let sum = sum(&headers[VERSION..][..IP_LEN]);
    put(headers, IP_CHECKSUM, !fold(sum));
}

/// That sum in ones' complement arithmetic.
fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FROM: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 1000);
    const TO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 2000);

    fn frame(len: usize) -> Vec<u8> {
        let mut frame = Template::new([2; 6], [4; 6], FROM, TO).headers(len).to_vec();
        frame.resize(HEADERS_LEN + len, 7);
        frame
    }

    #[test]
    fn the_checksum_of_a_known_header() {
        // The example of RFC 1071's many explanations: 4500 0073 0000 4000 4011 [b861] c0a8 0001 c0a8 00c7.
        let ip = |d| Ipv4Addr::new(192, 168, 0, d);
        let template =
            Template::new([0; 6], [0; 6], SocketAddrV4::new(ip(1), 1), SocketAddrV4::new(ip(0xc7), 1));
        assert_eq!(get(&template.headers(0x73 - IP_UDP_LEN), IP_CHECKSUM), 0xb861);
    }

    #[test]
    fn each_fault_is_refused() {
        let good = frame(100);
        assert_eq!(parse(&good, TO), Some((FROM, HEADERS_LEN..HEADERS_LEN + 100)));
        for at in (TYPE..HEADERS_LEN - 2).filter(|at| !(SOURCE_PORT..SOURCE_PORT + 2).contains(at)) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(parse(&bad, TO), None, "byte {at}");
        }
        assert_eq!(parse(&good[..good.len() - 1], TO), None, "cut short");
        assert_eq!(parse(&good, FROM), None, "for somebody else");
        for from in [
            SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 1), 1),
            SocketAddrV4::new(Ipv4Addr::BROADCAST, 1),
            SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1),
            SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 1),
            SocketAddrV4::new(*FROM.ip(), 0),
        ] {
            let headers = Template::new([0; 6], [0; 6], from, TO).headers(0);
            assert_eq!(parse(&headers, TO), None, "{from}");
        }
    }

    proptest! {
        #[test]
        fn what_is_made_is_parsed(len in 0usize..3000, padding in 0usize..64, from: (u32, u16), to: (u32, u16)) {
            let from = SocketAddrV4::new(Ipv4Addr::from_bits(from.0), from.1);
            let to = SocketAddrV4::new(Ipv4Addr::from_bits(to.0), to.1);
            prop_assume!(may_be_answered(from));
            let mut frame = Template::new([2; 6], [4; 6], from, to).headers(len).to_vec();
            frame.resize(HEADERS_LEN + len + padding, 7);
            prop_assert_eq!(parse(&frame, to), Some((from, HEADERS_LEN..HEADERS_LEN + len)));
        }

        #[test]
        fn any_bytes_are_parsed_or_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(&bytes, TO);
        }

        #[test]
        fn a_sound_start_with_any_lengths_stays_within_the_frame(
            total: u16, udp: u16, fragment: u16, len in 0usize..200,
        ) {
            let mut frame = frame(len);
            frame[TOTAL_LEN..][..2].copy_from_slice(&total.to_be_bytes());
            frame[UDP_LENGTH..][..2].copy_from_slice(&udp.to_be_bytes());
            frame[FRAGMENT..][..2].copy_from_slice(&fragment.to_be_bytes());
            frame[IP_CHECKSUM..][..2].fill(0);
            let checksum = !fold(sum(&frame[VERSION..][..IP_LEN]));
            frame[IP_CHECKSUM..][..2].copy_from_slice(&checksum.to_be_bytes());
            if let Some((_, range)) = parse(&frame, TO) {
                prop_assert!(range.end <= frame.len() && range.len() + UDP_LEN == usize::from(udp));
                prop_assert_eq!(fragment & FRAGMENT_MASK, 0);
            }
        }
    }
}
