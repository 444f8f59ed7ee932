//! Frames, little-endian: a header of [`HEADER_LEN`] bytes and a body that depends on the kind.
//!
//! ```text
//!  0   1   2       3   4          8           16           24         32    40      44      48
//!  ┌───┬───┬───────┬───┬──────────┬───────────┬────────────┬──────────┬─────┬───────┬───────┐
//!  │ v │ k │ flags │ n │ checksum │ source    │ destination│ sequence │ ack │ grant │ delay │ body …
//!  └───┴───┴───────┴───┴──────────┴───────────┴────────────┴──────────┴─────┴───────┴───────┘
//!                                 numbers of both ends
//! ```
//!
//! Both ends of a connection have a number that nobody can guess, another one for each connection in each life of a party. So
//! who does not read the frames makes none that belong to it, and none of a former one is taken for its own.
//!
//! | | source | destination | sequence | ack | grant | delay |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | `Hello` | number of the caller | 0 | 0 | 0 | credit for the peer | 0 |
//! | `Welcome` | number of the one called | number of the caller | token | 0 | credit | what the caller is to repeat |
//! | `Confirm` | number of the caller | number of the one called | token | 0 | credit | that of the `Welcome` |
//! | `Refuse` | what was promised in the `Welcome`, 0 if there was none | number of the caller | why ([`CallRefusal`]) | 0 | 0 | 0 |
//!
//! `n`: how often this segment was sent before, 255 standing for more; 0 in other frames. In an `Ack`, `sequence` is
//! the number of segments of the other side that have come again although nothing of them was missing.
//! `ack`: all segments below it have arrived. `grant`: the peer takes so many segments from there on.
//! In a `Reset`, `ack` is not 0 if the connection has ended gracefully: the last of the other side's segments was
//! the one before it. `sequence` is that of the `Confirm`, `Ping` or `Ask` which is answered, that is the token; if the
//! connection is given up, the token as well; otherwise 0, and the other side asks.
//! In a `Ping` or an `Ask`, `sequence` is the token. A `Confirm` that asks for an acknowledgement is one that was sent before,
//! and a `Welcome` that does takes the place of one that no longer holds.
//! `delay`: nanoseconds from the arrival of the newest segment to the sending of this frame.
//!
//! | kind | body |
//! | --- | --- |
//! | `Whole` | a message |
//! | `Pack` | messages, each behind its length (`u16`) |
//! | `First` | the length of a message (`u64`), and its beginning |
//! | `Next` | how it goes on |
//! | `Announce` | the number of a transfer, its length (`u64` each) |
//! | `Accept`, `Reject` | the number of a transfer of the peer's |
//! | `Chunk` | the number of a transfer, a place in it (`u64` each), and the bytes from there on |
//! | `Ask`, `Alive` | the number of the question (`u64`) |
//! | `Ack` | a bitmap: bit `i` says that segment `ack + 1 + i` has arrived; whole bytes, the last not 0 |
//! | others | nothing |

/// Bytes in front of a segment's contents.
pub const HEADER_LEN: usize = 48;
/// The most bytes of numbers between the header and the contents.
pub(crate) const NUMBERS_LEN_MAX: usize = 16;
/// The length in front of a message in a pack.
pub(crate) const PACKED_LEN_LEN: usize = 2;
/// Bytes of the bitmap in an acknowledgement at the most: one bit for each segment of the largest window.
pub(crate) const BITMAP_LEN_MAX: usize = crate::config::WINDOW_MAX / 8;

const VERSION: u8 = 5;
const CHECKSUM_AT: usize = 4;

/// Asks for an acknowledgement at once.
pub(crate) const FLAG_ANSWER: u8 = 1;
/// The checksum covers the header.
const FLAG_HEADER_SUM: u8 = 2;
/// The checksum covers the body as well.
const FLAG_BODY_SUM: u8 = 4;
const FLAGS: u8 = FLAG_ANSWER | FLAG_HEADER_SUM | FLAG_BODY_SUM;

/// What the checksum of a frame covers: CRC-32C, which finds every flip of up to three bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checksum {
    /// Nothing: what is below is trusted.
    None,
    /// The header, so that a flipped bit never harms the connection, but may harm a message.
    Header,
    /// Everything.
    Full,
}

impl Checksum {
    fn flags(self) -> u8 {
        match self {
            Checksum::None => 0,
            Checksum::Header => FLAG_HEADER_SUM,
            Checksum::Full => FLAG_HEADER_SUM | FLAG_BODY_SUM,
        }
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A call.
    Hello,
    /// The answer to a call.
    Welcome,
    Whole,
    Pack,
    First,
    Next,
    Announce,
    Accept,
    Reject,
    Chunk,
    /// Nothing follows.
    Fin,
    /// An acknowledgement alone.
    Ack,
    /// A question whether the peer lives.
    Ping,
    /// The connection is no more.
    Reset,
    /// The call is meant: the caller has heard the answer.
    Confirm,
    /// The call is not answered, or its confirmation not taken.
    Refuse,
    /// A question whether the peer lives, for somebody else has called in its name.
    Ask,
    /// The answer to that: yes.
    Alive,
}

impl Kind {
    const ALL: [Kind; 18] = [
        Kind::Hello,
        Kind::Welcome,
        Kind::Whole,
        Kind::Pack,
        Kind::First,
        Kind::Next,
        Kind::Announce,
        Kind::Accept,
        Kind::Reject,
        Kind::Chunk,
        Kind::Fin,
        Kind::Ack,
        Kind::Ping,
        Kind::Reset,
        Kind::Confirm,
        Kind::Refuse,
        Kind::Ask,
        Kind::Alive,
    ];

    /// True for what has a sequence number of its own.
    pub(crate) fn is_segment(self) -> bool {
        (Kind::Whole as u8..=Kind::Fin as u8).contains(&(self as u8))
    }

    /// Bytes of numbers in front of the contents.
    pub(crate) fn numbers_len(self) -> usize {
        match self {
            Kind::First | Kind::Accept | Kind::Reject | Kind::Ask | Kind::Alive => 8,
            Kind::Announce | Kind::Chunk => 16,
            _ => 0,
        }
    }

    /// True if a body of `len` bytes is one of this kind.
    fn fits(self, len: usize) -> bool {
        match self {
            Kind::Whole => true,
            Kind::Pack => len >= PACKED_LEN_LEN,
            Kind::Next => len > 0,
            Kind::First | Kind::Chunk => len > self.numbers_len(),
            Kind::Announce | Kind::Accept | Kind::Reject | Kind::Ask | Kind::Alive => {
                len == self.numbers_len()
            }
            Kind::Ack => len <= BITMAP_LEN_MAX,
            Kind::Hello
            | Kind::Welcome
            | Kind::Fin
            | Kind::Ping
            | Kind::Reset
            | Kind::Confirm
            | Kind::Refuse => len == 0,
        }
    }
}

/// Why a peer has refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallRefusal {
    /// All its places are taken.
    #[error("it has as many connections as it may have: close some, or raise `connections_max` there")]
    Full,
    /// All places are taken that it has for the address of the caller.
    #[error(
        "it has as many connections to this address as it may have: close some, or raise `connections_per_address` there"
    )]
    AddressFull,
    /// It has a connection with a party of the caller's name, which lives.
    #[error(
        "another party of this name is connected to it: give each party a name of its own, or end the other one"
    )]
    NameTaken,
    /// Something else, which this version does not know.
    #[error("it does not say why in terms of this version: use the same version on both sides")]
    Unknown,
}

impl CallRefusal {
    pub(crate) fn to_wire(self) -> u64 {
        match self {
            CallRefusal::Unknown => 0,
            CallRefusal::Full => 1,
            CallRefusal::AddressFull => 2,
            CallRefusal::NameTaken => 3,
        }
    }

    pub(crate) fn from_wire(number: u64) -> CallRefusal {
        let known = [CallRefusal::Full, CallRefusal::AddressFull, CallRefusal::NameTaken];
        known.into_iter().find(|known| known.to_wire() == number).unwrap_or(CallRefusal::Unknown)
    }
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// Shorter than a header.
    Truncated,
    /// Of another version of the protocol.
    Version,
    /// A kind or a flag that does not exist.
    Kind,
    /// A body of a length that its kind does not have.
    Length,
    /// The checksum is wrong, or covers less than is demanded.
    Checksum,
}

/// The meaning of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) answer: bool,
    /// How often it was sent before.
    pub(crate) copy: u8,
    pub(crate) source: u64,
    pub(crate) destination: u64,
    pub(crate) sequence: u64,
    pub(crate) ack: u64,
    pub(crate) grant: u32,
    pub(crate) delay: u32,
}

/// The little-endian number at `at`.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

impl Header {
    /// Nothing is said yet, not even the kind.
    pub(crate) const EMPTY: Header = Header {
        kind: Kind::Reset,
        answer: false,
        copy: 0,
        source: 0,
        destination: 0,
        sequence: 0,
        ack: 0,
        grant: 0,
        delay: 0,
    };

    /// The meaning of a frame's header, checked against the frame's length and the checksum, which covers
    /// at least what is `demanded`.
    pub(crate) fn parse(frame: &[u8], demanded: Checksum) -> Result<Header, FrameError> {
        let Some((header, body)) = frame.split_first_chunk::<HEADER_LEN>() else {
            return Err(FrameError::Truncated);
        };
        if header[0] != VERSION {
            return Err(FrameError::Version);
        }
        let flags = header[2];
        let demanded = demanded.flags();
        if flags & demanded != demanded || !sum_is_right(flags, header, body) {
            return Err(FrameError::Checksum);
        }
        let Some(&kind) = Kind::ALL.get(usize::from(header[1])) else { return Err(FrameError::Kind) };
        if flags & !FLAGS != 0 || (header[3] != 0 && !kind.is_segment()) {
            return Err(FrameError::Kind);
        }
        if !kind.fits(body.len()) {
            return Err(FrameError::Length);
        }
        Ok(Header {
            kind,
            answer: flags & FLAG_ANSWER != 0,
            copy: header[3],
            source: u64_at(header, 8),
            destination: u64_at(header, 16),
            sequence: u64_at(header, 24),
            ack: u64_at(header, 32),
            grant: u32_at(header, 40),
            delay: u32_at(header, 44),
        })
    }

    /// Writes this header to the beginning of `head`, in which the first bytes of the body follow already,
    /// with the checksum over it and `body`, the rest.
    pub(crate) fn write(&self, head: &mut [u8], body: &[u8], checksum: Checksum) {
        let flags = checksum.flags() | if self.answer { FLAG_ANSWER } else { 0 };
        head[..8].copy_from_slice(&[VERSION, self.kind as u8, flags, self.copy, 0, 0, 0, 0]);
        let words = [self.source, self.destination, self.sequence, self.ack];
        for (to, word) in head[8..40].chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        head[40..44].copy_from_slice(&self.grant.to_le_bytes());
        head[44..48].copy_from_slice(&self.delay.to_le_bytes());
        let sum = match checksum {
            Checksum::None => return,
            Checksum::Header => crc32c::crc32c(&head[..HEADER_LEN]),
            Checksum::Full => crc32c::crc32c_append(crc32c::crc32c(head), body),
        };
        head[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Whether the checksum is that of what `flags` say it covers.
fn sum_is_right(flags: u8, header: &[u8; HEADER_LEN], body: &[u8]) -> bool {
    let mut blank = *header;
    blank[CHECKSUM_AT..CHECKSUM_AT + 4].fill(0);
    let sum = match (flags & FLAG_HEADER_SUM != 0, flags & FLAG_BODY_SUM != 0) {
        (false, false) => 0,
        (true, false) => crc32c::crc32c(&blank),
        (true, true) => crc32c::crc32c_append(crc32c::crc32c(&blank), body),
        (false, true) => return false,
    };
    sum == u32_at(header, CHECKSUM_AT)
}

/// The offsets of the bits that are set, ascending.
pub(crate) fn bits(bitmap: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bitmap.chunks(8).enumerate().flat_map(|(index, chunk)| {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        let mut word = u64::from_le_bytes(bytes);
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| u64::from(word.trailing_zeros()))?;
            word &= word - 1;
            Some(index as u64 * 64 + bit)
        })
    })
}

/// The first message of what is left of a pack, and how many bytes it takes with its length.
pub(crate) fn unpack(rest: &[u8]) -> Option<&[u8]> {
    let (len, rest) = rest.split_first_chunk::<PACKED_LEN_LEN>()?;
    rest.get(..usize::from(u16::from_le_bytes(*len)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> impl Strategy<Value = (Header, Vec<u8>)> {
        let fields = (0..Kind::ALL.len(), any::<bool>(), any::<[u64; 4]>(), any::<[u32; 2]>());
        (fields, proptest::collection::vec(any::<u8>(), 17..80)).prop_map(|((kind, answer, w, n), body)| {
            let kind = Kind::ALL[kind];
            let header = Header {
                kind,
                answer,
                copy: if kind.is_segment() { w[0] as u8 } else { 0 },
                source: w[0],
                destination: w[1],
                sequence: w[2],
                ack: w[3],
                grant: n[0],
                delay: n[1],
            };
            let len = (0..=body.len()).rev().find(|&len| kind.fits(len)).expect("some length fits");
            (header, body[..len].to_vec())
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..120), kind in 0..19u8, flags in 0..8u8,
        ) {
            let mut bytes = bytes;
            let _ = Header::parse(&bytes, Checksum::None);
            if bytes.len() > 8 {
                bytes[..8].copy_from_slice(&[VERSION, kind, flags, 0, 0, 0, 0, 0]);
                let _ = Header::parse(&bytes, Checksum::None);
            }
        }

        #[test]
        fn what_is_written_is_read_and_a_flipped_bit_is_found(
            (header, body) in header(), bit in any::<proptest::sample::Index>(),
        ) {
            for checksum in [Checksum::None, Checksum::Header, Checksum::Full] {
                let mut frame = vec![0; HEADER_LEN];
                header.write(&mut frame, &body, checksum);
                frame.extend_from_slice(&body);
                prop_assert_eq!(Header::parse(&frame, checksum), Ok(header));
                if checksum == Checksum::None {
                    prop_assert_eq!(Header::parse(&frame, Checksum::Header), Err(FrameError::Checksum));
                    continue;
                }
                let covered = if checksum == Checksum::Full { frame.len() } else { HEADER_LEN };
                let bit = bit.index(covered * 8);
                frame[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(Header::parse(&frame, checksum).is_err());
            }
        }

        #[test]
        fn any_bytes_are_unpacked_within_their_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut at = 0;
            while let Some(message) = unpack(&bytes[at..]) {
                at += PACKED_LEN_LEN + message.len();
                prop_assert!(at <= bytes.len());
            }
        }

        #[test]
        fn bits_are_found_where_they_are(bitmap in proptest::collection::vec(any::<u8>(), 0..40)) {
            let expected = (0..bitmap.len() as u64 * 8)
                .filter(|&i| bitmap[i as usize / 8] & (1 << (i % 8)) != 0).collect::<Vec<_>>();
            prop_assert_eq!(bits(&bitmap).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn kinds_are_numbered_by_their_place() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
        assert!(!Kind::Welcome.is_segment() && Kind::Whole.is_segment());
        assert!(Kind::Fin.is_segment() && !Kind::Ack.is_segment());
    }

    #[test]
    fn reasons_of_refusals_are_known_again_and_others_are_unknown() {
        for reason in
            [CallRefusal::Full, CallRefusal::AddressFull, CallRefusal::NameTaken, CallRefusal::Unknown]
        {
            assert_eq!(CallRefusal::from_wire(reason.to_wire()), reason);
        }
        assert_eq!(CallRefusal::from_wire(u64::MAX), CallRefusal::Unknown);
    }
}
