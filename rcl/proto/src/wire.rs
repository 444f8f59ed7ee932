//! Frames, little-endian: a header of [`HEADER_LEN`] bytes, and behind it the contents of a data segment or
//! the bitmap of an acknowledgement.
//!
//! ```text
//!  0   1   2      8              16             24         32        40        48
//!  ┌───┬───┬──────┬──────────────┬──────────────┬──────────┬─────────┬─────────┐
//!  │ v │ k │ 0    │ source inc.  │ dest. inc.   │ sequence │ ack     │ limit   │
//!  └───┴───┴──────┴──────────────┴──────────────┴──────────┴─────────┴─────────┘
//! ```

/// Bytes in front of a segment's contents.
pub const HEADER_LEN: usize = 48;
/// Bytes of the bitmap in an acknowledgement: one bit for each segment after the first missing one.
pub(crate) const BITMAP_LEN: usize = crate::config::WINDOW_MAX as usize / 8;

const VERSION: u8 = 1;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Opens a connection. The destination's incarnation is not known yet (0).
    Hello,
    /// Answers it.
    Welcome,
    /// A segment that is not the last of its message.
    Part,
    /// The last segment of a message.
    Last,
    /// The end of all messages; counts as a segment.
    Fin,
    /// Says what has arrived.
    Ack,
    /// Asks for an acknowledgement.
    Ping,
    /// There is no such connection, or no longer.
    Reset,
}

impl Kind {
    const ALL: [Kind; 8] =
        [Kind::Hello, Kind::Welcome, Kind::Part, Kind::Last, Kind::Fin, Kind::Ack, Kind::Ping, Kind::Reset];

    /// True for what has a sequence number and is sent until it is acknowledged.
    pub(crate) fn is_segment(self) -> bool {
        matches!(self, Kind::Part | Kind::Last | Kind::Fin)
    }
}

/// The meaning of a frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// The sender's incarnation of the connection.
    pub(crate) source: u64,
    /// The receiver's.
    pub(crate) destination: u64,
    /// The number of a segment; 0 in other frames.
    pub(crate) sequence: u64,
    /// All segments below this have arrived at the sender of this frame.
    pub(crate) ack: u64,
    /// The receiver of this frame may send segments below this.
    pub(crate) limit: u64,
}

impl Header {
    /// The header and the rest, or `None` if it is not a frame of ours.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Header, &[u8])> {
        let (header, body) = bytes.split_first_chunk::<HEADER_LEN>()?;
        if header[0] != VERSION || header[2..8] != [0; 6] {
            return None;
        }
        let kind = *Kind::ALL.get(usize::from(header[1]))?;
        let sized = match kind {
            Kind::Part => !body.is_empty(),
            Kind::Last => true,
            Kind::Ack => body.len() == BITMAP_LEN,
            Kind::Hello | Kind::Welcome | Kind::Fin | Kind::Ping | Kind::Reset => body.is_empty(),
        };
        let at = |i: usize| u64::from_le_bytes(std::array::from_fn(|j| header[i + j]));
        let (source, destination) = (at(8), at(16));
        let (sequence, ack, limit) = (at(24), at(32), at(40));
        sized.then_some((Header { kind, source, destination, sequence, ack, limit }, body))
    }

    /// The bytes of this header.
    pub(crate) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut b = [0; HEADER_LEN];
        b[0] = VERSION;
        b[1] = self.kind as u8;
        let words = [self.source, self.destination, self.sequence, self.ack, self.limit];
        for (to, word) in b[8..].chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        b
    }
}

/// Which of the segments `ack + 1 ..= ack + 256` have arrived, `ack` itself being missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bitmap([u8; BITMAP_LEN]);

impl Bitmap {
    pub(crate) fn parse(body: &[u8]) -> Option<Bitmap> {
        body.try_into().ok().map(Bitmap)
    }

    pub(crate) fn to_bytes(self) -> [u8; BITMAP_LEN] {
        self.0
    }

    /// Notes that segment `ack + 1 + offset` has arrived.
    pub(crate) fn set(&mut self, offset: u64) {
        self.0[offset as usize / 8] |= 1 << (offset % 8);
    }

    /// The offsets noted, ascending.
    pub(crate) fn offsets(&self) -> impl DoubleEndedIterator<Item = u64> + '_ {
        (0..BITMAP_LEN * 8).filter(|i| self.0[i / 8] & (1 << (i % 8)) != 0).map(|i| i as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused_and_parsed_headers_have_one_encoding(
            kind in any::<u8>(), rest in any::<[u8; 40]>(), body in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = vec![VERSION, kind, 0, 0, 0, 0, 0, 0];
            bytes.extend_from_slice(&rest);
            bytes.extend_from_slice(&body);
            if let Some((header, left)) = Header::parse(&bytes) {
                prop_assert_eq!(&header.to_bytes()[..], &bytes[..HEADER_LEN]);
                prop_assert_eq!(left, &body[..]);
            }
            let _ = Header::parse(&bytes[1..]);
        }
    }

    #[test]
    fn kinds_are_numbered_by_their_place() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }
}
