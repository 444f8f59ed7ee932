//! What names an endpoint: the contents of `fi_getname`, which the launcher hands to the other ranks.
//!
//! It holds a secret, so it is a capability: who knows an endpoint's address may send to it, and nobody else
//! ([`Address::proof`]).

use cl_base::PeerId;
use ring::rand::{SecureRandom, SystemRandom};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Bytes of an address: all are as long, and all of a job travel through its launcher as hexadecimal text.
pub(crate) const ADDRESS_LEN: usize = 48;
const MAGIC: [u8; 4] = *b"RCL\x01";
const SECRET_LEN: usize = 16;
/// Bytes that show that a secret is known.
pub(crate) const PROOF_LEN: usize = 16;

/// Where an endpoint is, who it is, and what who calls it must know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    /// Drawn at random when the endpoint is opened: a process that is started again is another party.
    pub(crate) peer: PeerId,
    pub(crate) socket: SocketAddr,
    secret: [u8; SECRET_LEN],
}

/// Random bytes.
///
/// # Panics
/// If the system has none, which it always has once it runs.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
    bytes
}

impl Address {
    /// A new party's, which is to be found at `socket`.
    pub(crate) fn new(peer: PeerId, socket: SocketAddr) -> Address {
        Address { peer, socket, secret: random() }
    }

    pub(crate) fn to_bytes(self) -> [u8; ADDRESS_LEN] {
        let ip = match self.socket.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut bytes = [0; ADDRESS_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.socket.port().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.peer.to_u64().to_le_bytes());
        bytes[16..32].copy_from_slice(&ip.octets());
        bytes[32..].copy_from_slice(&self.secret);
        bytes
    }

    /// `None` for what is no address.
    pub(crate) fn from_bytes(bytes: &[u8; ADDRESS_LEN]) -> Option<Address> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (port, rest) = rest.split_first_chunk::<2>()?;
        let (zero, rest) = rest.split_first_chunk::<2>()?;
        let (peer, rest) = rest.split_first_chunk::<8>()?;
        let (ip, rest) = rest.split_first_chunk::<16>()?;
        let secret = rest.try_into().ok()?;
        let ip = Ipv6Addr::from(*ip).to_canonical();
        let peer = PeerId::from_u64(u64::from_le_bytes(*peer));
        let socket = SocketAddr::new(ip, u16::from_le_bytes(*port));
        let meant = *magic == MAGIC && *zero == [0; 2] && socket.port() != 0;
        meant.then_some(Address { peer, socket, secret })
    }

    /// Shows that `from`, whose address this says to be, knows this address; as this one's owner calculates it, too.
    pub(crate) fn proof(&self, from: &Address) -> [u8; PROOF_LEN] {
        let mut hash =
            blake3::Hasher::new_derive_key("ghidrah rcl-ofi 1: who calls knows the address called");
        hash.update(&self.to_bytes()).update(&from.to_bytes());
        let mut proof = [0; PROOF_LEN];
        hash.finalize_xof().fill(&mut proof);
        proof
    }
}

/// Without the secret.
impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.peer, self.socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_its_bytes_and_nothing_else_is_one() {
        for socket in ["127.0.0.1:4711", "[2001:db8::1]:1"] {
            let address = Address::new(PeerId::new(7, 9), socket.parse().unwrap());
            let bytes = address.to_bytes();
            assert_eq!(Address::from_bytes(&bytes), Some(address));
            let mut other = bytes;
            other[3] = 2;
            assert_eq!(Address::from_bytes(&other), None);
            let mut nowhere = bytes;
            nowhere[4..6].fill(0);
            assert_eq!(Address::from_bytes(&nowhere), None);
        }
    }

    #[test]
    fn proofs_are_of_two_addresses_and_their_secrets() {
        let address = |id| Address::new(PeerId::new(id, 0), "127.0.0.1:1".parse().unwrap());
        let (a, b, c) = (address(1), address(2), address(3));
        assert_eq!(a.proof(&b), a.proof(&b));
        assert_ne!(a.proof(&b), a.proof(&c));
        assert_ne!(a.proof(&b), b.proof(&a));
        let same_place = Address { secret: random(), ..a };
        assert_ne!(a.proof(&b), same_place.proof(&b));
    }
}
