//! What endpoints say to each other, in messages of `rcl`: a head of 24 bytes, little-endian, and what follows it.
//!
//! | bytes | |
//! | --- | --- |
//! | 0 | kind |
//! | 1 | flags |
//! | 2..4 | 0 |
//! | 4..8 | the sender's number of the operation, or the receiver's in an answer |
//! | 8..16 | the tag; an offset in a region; an error in an answer |
//! | 16..24 | the application's data |

use crate::address::{ADDRESS_LEN, PROOF_LEN};
use crate::memory::{PIECES_MAX, Piece, Pieces};

pub(crate) const HEAD_LEN: usize = 24;
/// Bytes that a process shows to be read out of its memory.
pub(crate) const PROBE_LEN: usize = 16;
const GREETING_LEN: usize = ADDRESS_LEN + PROOF_LEN + PROBE_LEN + 16;

/// Belongs to a tagged message.
pub(crate) const TAGGED: u8 = 1;
/// The application's data are there.
pub(crate) const DATA: u8 = 2;
/// The sender waits for [`Kind::Done`].
pub(crate) const ACK: u8 = 4;
/// The receiver copies it out of the sender's memory; otherwise it is announced.
pub(crate) const PULL: u8 = 8;
const FLAGS: u8 = TAGGED | DATA | ACK | PULL;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Who the sender is. Before anything else.
    Greeting,
    /// A message.
    Message,
    /// A message too long to be sent before a place for it is known.
    Offer,
    /// The operation of this number is done, or has failed.
    Done,
    /// Bytes for a region.
    Write,
    /// Bytes for a region, too many to be sent at once.
    WriteOffer,
    /// Asks for bytes of a region.
    Read,
    /// What was asked for.
    ReadReply,
    /// What was asked for is announced next.
    ReadOffer,
}

impl Kind {
    const ALL: [Kind; 9] = [
        Kind::Greeting,
        Kind::Message,
        Kind::Offer,
        Kind::Done,
        Kind::Write,
        Kind::WriteOffer,
        Kind::Read,
        Kind::ReadReply,
        Kind::ReadOffer,
    ];
}

/// What every message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) operation: u32,
    pub(crate) tag: u64,
    pub(crate) data: u64,
}

impl Head {
    pub(crate) fn new(kind: Kind, operation: u32) -> Head {
        Head { kind, flags: 0, operation, tag: 0, data: 0 }
    }

    pub(crate) fn to_bytes(self) -> [u8; HEAD_LEN] {
        let mut bytes = [0; HEAD_LEN];
        bytes[0] = self.kind as u8;
        bytes[1] = self.flags;
        bytes[4..8].copy_from_slice(&self.operation.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.tag.to_le_bytes());
        bytes[16..].copy_from_slice(&self.data.to_le_bytes());
        bytes
    }

    /// The head of a message and what follows it; `None` if it is none.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Head, &[u8])> {
        let (head, body) = bytes.split_first_chunk::<HEAD_LEN>()?;
        let kind = *Kind::ALL.get(usize::from(head[0]))?;
        let (flags, zero) = (head[1], [head[2], head[3]]);
        let operation = u32::from_le_bytes(std::array::from_fn(|i| head[4 + i]));
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        let head = Head { kind, flags, operation, tag: number(8), data: number(16) };
        (flags & !FLAGS == 0 && zero == [0; 2]).then_some((head, body))
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The body of [`Kind::Greeting`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) address: [u8; ADDRESS_LEN],
    pub(crate) proof: [u8; PROOF_LEN],
    /// The process, and where in its memory are the bytes that follow.
    pub(crate) process: i32,
    pub(crate) probe_at: u64,
    pub(crate) probe: [u8; PROBE_LEN],
    /// Whether the sender can read the receiver's memory.
    pub(crate) can_pull: bool,
}

impl Greeting {
    pub(crate) fn to_bytes(self) -> [u8; GREETING_LEN] {
        let mut bytes = [0; GREETING_LEN];
        let (address, rest) = bytes.split_at_mut(ADDRESS_LEN);
        let (proof, rest) = rest.split_at_mut(PROOF_LEN);
        let (probe, rest) = rest.split_at_mut(PROBE_LEN);
        address.copy_from_slice(&self.address);
        proof.copy_from_slice(&self.proof);
        probe.copy_from_slice(&self.probe);
        rest[..8].copy_from_slice(&self.probe_at.to_le_bytes());
        rest[8..12].copy_from_slice(&self.process.to_le_bytes());
        rest[12] = u8::from(self.can_pull);
        bytes
    }

    pub(crate) fn parse(body: &[u8]) -> Option<Greeting> {
        let (&address, rest) = body.split_first_chunk()?;
        let (&proof, rest) = rest.split_first_chunk()?;
        let (&probe, rest) = rest.split_first_chunk()?;
        let (&probe_at, rest) = rest.split_first_chunk()?;
        let (&process, rest) = rest.split_first_chunk()?;
        let &[can_pull @ 0..=1, 0, 0, 0] = rest else { return None };
        let (probe_at, process) = (u64::from_le_bytes(probe_at), i32::from_le_bytes(process));
        Some(Greeting { address, proof, process, probe_at, probe, can_pull: can_pull == 1 })
    }
}

/// What is offered, or asked for: the body of [`Kind::Offer`], and, behind the key of a region, of
/// [`Kind::WriteOffer`] and [`Kind::Read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) len: u64,
    /// Where it is in the sender's memory, or is wanted; none if it is, or shall be, announced.
    pub(crate) pieces: Pieces,
}

impl Offer {
    pub(crate) fn put(&self, mut put: impl FnMut(&[u8])) {
        put(&self.len.to_le_bytes());
        for piece in self.pieces.as_slice() {
            put(&piece.addr.to_le_bytes());
            put(&piece.len.to_le_bytes());
        }
    }

    /// As many bytes as [`Offer::put`] puts.
    pub(crate) fn wire_len(&self) -> usize {
        8 + 16 * self.pieces.as_slice().len()
    }

    pub(crate) fn parse(body: &[u8]) -> Option<Offer> {
        let (len, rest) = body.split_first_chunk()?;
        let len = u64::from_le_bytes(*len);
        let (numbers, rest) = rest.as_chunks::<8>();
        let (pairs, odd) = numbers.as_chunks::<2>();
        if !rest.is_empty() || !odd.is_empty() || pairs.len() > PIECES_MAX {
            return None;
        }
        let mut pieces = Pieces::default();
        for &[addr, len] in pairs {
            pieces.push(Piece { addr: u64::from_le_bytes(addr), len: u64::from_le_bytes(len) });
        }
        (pairs.is_empty() || pieces.len() == Some(len)).then_some(Offer { len, pieces })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offer() -> impl Strategy<Value = Offer> {
        let piece = (any::<u64>(), 0..1_u64 << 40).prop_map(|(addr, len)| Piece { addr, len });
        (proptest::collection::vec(piece, 0..=PIECES_MAX), any::<u64>()).prop_map(|(all, len)| {
            let mut pieces = Pieces::default();
            all.iter().for_each(|piece| assert!(pieces.push(*piece)));
            let len = if all.is_empty() { len } else { pieces.len().unwrap() };
            Offer { len, pieces }
        })
    }

    proptest! {
        #[test]
        fn heads_survive(kind in 0..9_usize, flags in 0..16_u8, operation: u32, tag: u64, data: u64, body: Vec<u8>) {
            let head = Head { kind: Kind::ALL[kind], flags, operation, tag, data };
            let bytes = [&head.to_bytes(), &body[..]].concat();
            prop_assert_eq!(Head::parse(&bytes), Some((head, &body[..])));
        }

        #[test]
        fn offers_survive(offer in offer()) {
            let mut bytes = Vec::new();
            offer.put(|part| bytes.extend_from_slice(part));
            prop_assert_eq!(bytes.len(), offer.wire_len());
            prop_assert_eq!(Offer::parse(&bytes), Some(offer));
            bytes.pop();
            prop_assert_eq!(Offer::parse(&bytes), None);
        }

        #[test]
        fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (head, greeting, offer) = (Head::parse(&bytes), Greeting::parse(&bytes), Offer::parse(&bytes));
            prop_assert!(head.is_none_or(|(head, body)| [&head.to_bytes(), body].concat() == bytes));
            prop_assert!(greeting.is_none_or(|greeting| greeting.to_bytes()[..] == bytes));
            prop_assert!(offer.is_none_or(|offer| offer.wire_len() == bytes.len()));
        }
    }

    #[test]
    fn greetings_survive_and_have_one_length() {
        let greeting = Greeting {
            address: [1; ADDRESS_LEN],
            proof: [2; PROOF_LEN],
            process: -3,
            probe_at: 4,
            probe: [5; PROBE_LEN],
            can_pull: true,
        };
        let bytes = greeting.to_bytes();
        assert_eq!(Greeting::parse(&bytes), Some(greeting));
        assert_eq!(Greeting::parse(&bytes[1..]), None);
        assert_eq!(Greeting::parse(&[&bytes[..], &[0]].concat()), None);
    }
}
