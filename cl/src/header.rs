//! The header in front of every datagram, little-endian:
//!
//! ```text
//!  0       2   3   4           8                       16                      24          28      30      32
//!  ┌───────┬───┬───┬───────────┬───────────────────────┬───────────────────────┬───────────┬───────┬───────┐
//!  │ magic │ v │ f │ total     │ source                │ destination           │ message   │ index │ count │
//!  └───────┴───┴───┴───────────┴───────────────────────┴───────────────────────┴───────────┴───────┴───────┘
//! ```
//!
//! The form `f` is 0 for a message or a fragment of one, and 1 for several small messages packed together, each
//! behind its length (two bytes). `total` is the length of the message, of which this is fragment `index` of `count`. The fragments of a
//! message are equally long but for the last, so these three numbers alone say which bytes a fragment
//! holds ([`Geometry`]), and two fragments of one message cannot overlap.
//!
//! Nothing here is authenticated: the source is a hint until an upper layer has checked the contents.

use cl_base::PeerId;

/// Bytes in front of a message's (or a fragment's) contents.
pub const HEADER_LEN: usize = 32;
/// The longest message, in bytes. Larger ones are cut by the layers above; 16 MiB is enough for a state
/// transfer chunk or a rendezvous segment while a hostile claim of it is still bearable.
pub const MESSAGE_LEN_MAX: usize = 16 << 20;

/// "GC" on the wire: a stray datagram of another protocol is turned away at the first two bytes.
const MAGIC: u16 = 0x4347;
/// The version of this layout.
const VERSION: u8 = 1;

/// Why a datagram is not a frame of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Shorter than a header.
    #[error("shorter than a header")]
    Truncated,
    /// Not our magic number.
    #[error("not a frame of ours")]
    Magic,
    /// Another version of this layout, or a form that we do not know.
    #[error("of another version")]
    Version,
    /// Total, index, count and the datagram's length contradict each other.
    #[error("of impossible fragments")]
    Geometry,
}

/// Which bytes of a message its fragments hold.
///
/// For `count` fragments every one has `ceil(total / count)` bytes and the last one the rest, which must
/// not be empty unless the message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    total: u32,
    count: u16,
}

impl Geometry {
    /// The cut of `total` bytes into as few fragments as fit `fragment_len_max` bytes each, or `None` if the
    /// message is too long ([`MESSAGE_LEN_MAX`], or more fragments than can be counted).
    pub fn for_message(total: usize, fragment_len_max: usize) -> Option<Geometry> {
        if total > MESSAGE_LEN_MAX {
            return None;
        }
        let count = total.div_ceil(fragment_len_max.max(1)).max(1);
        Some(Geometry { total: total as u32, count: u16::try_from(count).ok()? })
    }

    /// The geometry that `total` and `count` claim, if there is one.
    fn checked(total: u32, count: u16) -> Option<Geometry> {
        let g = Geometry { total, count };
        let sane = count == 1
            || (count > 1
                && total as usize <= MESSAGE_LEN_MAX
                && (count as usize - 1) * g.fragment_len() < total as usize);
        (sane && total as usize <= MESSAGE_LEN_MAX).then_some(g)
    }

    /// The length of every fragment but the last.
    fn fragment_len(self) -> usize {
        (self.total as usize).div_ceil(self.count as usize)
    }

    /// The length of the message in bytes.
    pub fn total(self) -> usize {
        self.total as usize
    }

    /// The number of fragments, at least 1.
    pub fn count(self) -> u16 {
        self.count
    }

    /// The bytes of the message that fragment `index` holds.
    pub fn range(self, index: u16) -> std::ops::Range<usize> {
        assert!(index < self.count, "fragment {index} of {}", self.count);
        let start = index as usize * self.fragment_len();
        start..(start + self.fragment_len()).min(self.total())
    }
}

/// What is behind a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A message, or a fragment of one.
    Plain,
    /// Several small messages, each behind its length. Never fragmented.
    Packed,
}

/// The meaning of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// The sender, by its own word.
    pub source: PeerId,
    /// Whom the message is for.
    pub destination: PeerId,
    /// Distinguishes the messages of one sender whose fragments are under way at once.
    pub message: u32,
    /// How the message is cut.
    pub geometry: Geometry,
    /// What it is.
    pub form: Form,
    /// Which of the fragments this is; below `geometry.count()`.
    pub index: u16,
}

impl Repr {
    /// The meaning of the header of `datagram`, checked against the datagram's length.
    ///
    /// # Errors
    /// [`HeaderError`] says what is wrong with it.
    pub fn parse(datagram: &[u8]) -> Result<Repr, HeaderError> {
        let frame = Frame::new(datagram)?;
        if frame.magic() != MAGIC {
            return Err(HeaderError::Magic);
        }
        let form = match frame.version() {
            (VERSION, 0) => Form::Plain,
            (VERSION, 1) => Form::Packed,
            _ => return Err(HeaderError::Version),
        };
        let geometry = Geometry::checked(frame.total(), frame.count()).ok_or(HeaderError::Geometry)?;
        let index = frame.index();
        if form == Form::Packed && geometry.count() != 1 {
            return Err(HeaderError::Geometry);
        }
        if index >= geometry.count() || geometry.range(index).len() != frame.contents().len() {
            return Err(HeaderError::Geometry);
        }
        Ok(Repr {
            source: frame.source(),
            destination: frame.destination(),
            message: frame.message(),
            geometry,
            form,
            index,
        })
    }

    /// The bytes of this header.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut b = [0; HEADER_LEN];
        b[0..2].copy_from_slice(&MAGIC.to_le_bytes());
        b[2] = VERSION;
        b[3] = u8::from(self.form == Form::Packed);
        b[4..8].copy_from_slice(&self.geometry.total.to_le_bytes());
        b[8..16].copy_from_slice(&self.source.to_u64().to_le_bytes());
        b[16..24].copy_from_slice(&self.destination.to_u64().to_le_bytes());
        b[24..28].copy_from_slice(&self.message.to_le_bytes());
        b[28..30].copy_from_slice(&self.index.to_le_bytes());
        b[30..32].copy_from_slice(&self.geometry.count.to_le_bytes());
        b
    }
}

/// A datagram seen as header and contents. Its accessors cannot panic, for the length has been checked;
/// what they return has not.
struct Frame<'a> {
    header: &'a [u8; HEADER_LEN],
    contents: &'a [u8],
}

impl<'a> Frame<'a> {
    fn new(datagram: &'a [u8]) -> Result<Frame<'a>, HeaderError> {
        let (header, contents) = datagram.split_first_chunk().ok_or(HeaderError::Truncated)?;
        Ok(Frame { header, contents })
    }

    fn array<const AT: usize, const N: usize>(&self) -> [u8; N] {
        std::array::from_fn(|i| self.header[AT + i])
    }

    fn magic(&self) -> u16 {
        u16::from_le_bytes(self.array::<0, 2>())
    }

    /// The version and the form.
    fn version(&self) -> (u8, u8) {
        (self.header[2], self.header[3])
    }

    fn total(&self) -> u32 {
        u32::from_le_bytes(self.array::<4, 4>())
    }

    fn source(&self) -> PeerId {
        PeerId::from_u64(u64::from_le_bytes(self.array::<8, 8>()))
    }

    fn destination(&self) -> PeerId {
        PeerId::from_u64(u64::from_le_bytes(self.array::<16, 8>()))
    }

    fn message(&self) -> u32 {
        u32::from_le_bytes(self.array::<24, 4>())
    }

    fn index(&self) -> u16 {
        u16::from_le_bytes(self.array::<28, 2>())
    }

    fn count(&self) -> u16 {
        u16::from_le_bytes(self.array::<30, 2>())
    }

    fn contents(&self) -> &'a [u8] {
        self.contents
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn datagram(repr: Repr) -> Vec<u8> {
        let mut d = repr.to_bytes().to_vec();
        d.resize(HEADER_LEN + repr.geometry.range(repr.index).len(), 7);
        d
    }

    fn sample() -> Repr {
        let geometry = Geometry::for_message(1000, 300).unwrap();
        let (source, destination) = (PeerId::new(1, 2), PeerId::new(3, 4));
        Repr { source, destination, message: 5, geometry, form: Form::Plain, index: 3 }
    }

    #[test]
    fn each_fault_has_its_own_reason() {
        let good = datagram(sample());
        assert_eq!(Repr::parse(&good), Ok(sample()));
        let changed = |at: usize, to: u8| {
            let mut d = good.clone();
            d[at] = to;
            Repr::parse(&d)
        };
        assert_eq!(Repr::parse(&good[..31]), Err(HeaderError::Truncated));
        assert_eq!(changed(0, 0), Err(HeaderError::Magic));
        assert_eq!(changed(2, 2), Err(HeaderError::Version));
        assert_eq!(changed(3, 2), Err(HeaderError::Version));
        assert_eq!(changed(3, 1), Err(HeaderError::Geometry), "packed messages in fragments");
        assert_eq!(changed(28, 4), Err(HeaderError::Geometry), "index beyond the count");
        assert_eq!(changed(30, 0), Err(HeaderError::Geometry), "no fragments");
        assert_eq!(changed(7, 2), Err(HeaderError::Geometry), "a huge total");
        assert_eq!(Repr::parse(&good[..good.len() - 1]), Err(HeaderError::Geometry), "cut short");
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Repr::parse(&bytes);
        }

        #[test]
        fn any_fields_behind_a_valid_start_are_parsed_or_refused(rest in any::<[u8; 28]>(), len in 0usize..64) {
            let mut d = vec![0x47, 0x43, 1, 0];
            d.extend_from_slice(&rest);
            d.resize(HEADER_LEN + len, 0);
            if let Ok(repr) = Repr::parse(&d) {
                prop_assert_eq!(datagram(repr)[..HEADER_LEN].to_vec(), d[..HEADER_LEN].to_vec());
            }
        }

        #[test]
        fn fragments_cover_the_message_exactly_once(total in 0usize..200_000, max in 1usize..70_000) {
            let Some(g) = Geometry::for_message(total, max) else {
                prop_assert!(total.div_ceil(max) > u16::MAX as usize);
                return Ok(());
            };
            prop_assert_eq!(Geometry::checked(g.total, g.count), Some(g));
            let mut at = 0;
            for i in 0..g.count() {
                let r = g.range(i);
                prop_assert_eq!(r.start, at);
                prop_assert!(r.len() <= max && (!r.is_empty() || total == 0));
                at = r.end;
            }
            prop_assert_eq!(at, total);
        }
    }
}
