//! What is in front of a message in a ring, and the words that are there instead of messages.
//!
//! The word, little-endian: kind (`u8`), version (`u8`), 0 (`u16`), the number of the connection (`u32`),
//! by which messages to a former connection over the same channel are told apart: that of the call.

/// Bytes in front of a message.
pub(super) const WORD_LEN: usize = 8;
pub(super) const VERSION: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Message,
    /// A call, and its answers.
    Hello,
    Welcome,
    Refuse,
    /// The connection is no more.
    Reset,
    /// Nothing follows.
    Fin,
    /// The number of a transfer follows, and for the first its length.
    Announce,
    Accept,
    Reject,
    Done,
    /// The number of a transfer, a place in it, and the bytes from there on.
    Chunk,
}

impl Kind {
    const ALL: [Kind; 11] = [
        Kind::Message,
        Kind::Hello,
        Kind::Welcome,
        Kind::Refuse,
        Kind::Reset,
        Kind::Fin,
        Kind::Announce,
        Kind::Accept,
        Kind::Reject,
        Kind::Done,
        Kind::Chunk,
    ];

    /// Bytes of numbers behind the word.
    pub(super) fn numbers_len(self) -> usize {
        match self {
            Kind::Announce | Kind::Chunk => 16,
            Kind::Accept | Kind::Reject | Kind::Done => 8,
            _ => 0,
        }
    }
}

#[inline]
pub(super) fn word(kind: Kind, number: u32) -> [u8; WORD_LEN] {
    let [a, b, c, d] = number.to_le_bytes();
    [kind as u8, VERSION, 0, 0, a, b, c, d]
}

/// The kind and the number, if the length is one of the kind.
#[inline]
pub(super) fn parse(bytes: &[u8]) -> Option<(Kind, u32)> {
    let (&[kind, version, 0, 0, a, b, c, d], rest) = bytes.split_first_chunk::<WORD_LEN>()? else {
        return None;
    };
    let kind = *Kind::ALL.get(usize::from(kind)).filter(|_| version == VERSION)?;
    let fits = match kind {
        Kind::Message => true,
        Kind::Chunk => rest.len() > kind.numbers_len(),
        _ => rest.len() == kind.numbers_len(),
    };
    fits.then_some((kind, u32::from_le_bytes([a, b, c, d])))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}
