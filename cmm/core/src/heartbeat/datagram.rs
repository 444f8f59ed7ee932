//! Heartbeats, and bundles of them, outside of sessions: as datagrams that wait at a manager until it looks for them, at the end
//! of its period. They wake nobody, which is nearly all that a heartbeat costs.
//!
//! ```text
//! datagram   format 1 | kind 1 | sender 8 | body | tag 16, little-endian
//! ```
//!
//! The tag, under a key of sender and receiver alone, is over all before it: whoever alters, invents or redirects a datagram is
//! found out. It may be repeated; what old heartbeats say is known.

use super::TAG_BYTES;
use cl_base::PeerId;

/// Separates the tags of datagrams from every other use of the keys.
pub const DATAGRAM_DOMAIN: &str = "ghidrah heartbeat datagram v1";
/// Bytes of a datagram at most: it fits into one packet of any network, for a piece of one that is lost takes all with it.
pub const DATAGRAM_MAX: usize = 1400;
/// Bytes that a datagram is longer than its body.
pub const OVERHEAD: usize = HEAD_BYTES + TAG_BYTES;
const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 10;

/// A datagram as it has arrived; nothing in it is authentic before [`Datagram::tag`] has been verified over
/// [`Datagram::tagged`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// What the body is, as the sender says.
    pub kind: u8,
    /// Who has sent it, as it says.
    pub from: PeerId,
    /// A heartbeat or a bundle.
    pub body: &'a [u8],
    /// What the tag is over.
    pub tagged: &'a [u8],
    /// The tag for the receiver.
    pub tag: &'a [u8; TAG_BYTES],
}

/// A datagram of `from`, in place of what was in `into`.
///
/// # Panics
/// If it is longer than [`DATAGRAM_MAX`].
pub fn write(
    into: &mut Vec<u8>,
    kind: u8,
    from: PeerId,
    body: &[u8],
    tag: impl FnOnce(&[u8]) -> [u8; TAG_BYTES],
) {
    assert!(body.len() + OVERHEAD <= DATAGRAM_MAX, "a body of {} bytes", body.len());
    into.clear();
    into.extend_from_slice(&[FORMAT, kind]);
    into.extend_from_slice(&from.to_u64().to_le_bytes());
    into.extend_from_slice(body);
    let tag = tag(into);
    into.extend_from_slice(&tag);
}

/// Takes apart what [`write`] has put together; `None` for anything else.
pub fn read(bytes: &[u8]) -> Option<Datagram<'_>> {
    if bytes.len() > DATAGRAM_MAX {
        return None;
    }
    let (tagged, tag) = bytes.split_last_chunk()?;
    let (head, body) = tagged.split_first_chunk::<HEAD_BYTES>()?;
    let [FORMAT, kind, from @ ..] = head else { return None };
    Some(Datagram { kind: *kind, from: PeerId::from_u64(u64::from_le_bytes(*from)), body, tagged, tag })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_read_as_it_was_written_and_nothing_else_is() {
        let from = PeerId::new(7, 1);
        let mut bytes = vec![9; 3];
        write(&mut bytes, 4, from, b"body", |tagged| [tagged.len() as u8; TAG_BYTES]);
        let read_back = read(&bytes).unwrap();
        let tag = &[14; TAG_BYTES];
        assert_eq!(read_back, Datagram { kind: 4, from, body: b"body", tagged: &bytes[..14], tag });
        for len in 0..OVERHEAD {
            assert_eq!(read(&bytes[..len]), None, "{len} bytes");
        }
        assert_eq!(read(&bytes[..OVERHEAD]).map(|d| d.body.len()), Some(0));
        bytes[0] = 2;
        assert_eq!(read(&bytes), None, "another format");
        assert_eq!(read(&[FORMAT; DATAGRAM_MAX + 1]), None);
    }
}
