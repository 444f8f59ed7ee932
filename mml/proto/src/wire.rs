//! Bytes on the wire. All integers are little-endian.
//!
//! ```text
//! init        format 1 | kind 1 | lowest and highest version 2 | features 4 | incarnation 8 | attempt 8
//!             | continued session 8 | Noise message 48 | mac 16 | cookie mac 16
//! response    format 1 | kind 1 | 0 2 | mac of the init 16 | Noise message 64 | mac 16
//! cookie      format 1 | kind 1 | 0 2 | mac of the init 16 | cookie 16 | mac 16
//! refusal     format 1 | kind 1 | reason 1 | 0 1 | mac of the init 16 | value 8 | mac 16
//! unknown     format 1 | kind 1 | 0 2 | session 8 | incarnation 8 | mac 16
//! session     format 1 | kind 1 | class 1 | 0 1 | bulk length 4 | session 8 | frame number 8
//!             | sealed: items | padding [| digest of the bulk 32] | tag 16 | bulk
//! ```
//! The format is that of these first bytes. The version of the protocol is negotiated in the handshake, and is
//! a property of the session; so `init`, `refusal` and the first four bytes of all frames keep their form
//! as long as the format stays.
//!
//! `items.rs` shows the items. The header is authenticated with what is sealed: its first [`BOUND_BYTES`], and the frame
//! number as the nonce. The padding makes what is sealed whole blocks of the cipher. The bulk is a long body that is
//! sent to many: it is hashed once, the digest is sealed for each, and its bytes are the same for all.

use crate::mac::MAC_BYTES;

pub(crate) mod handshake;
pub(crate) mod items;

/// The first byte of every frame.
pub(crate) const FORMAT: u8 = 1;
pub(crate) const SESSION_HEADER_BYTES: usize = 24;
/// What of the header is authenticated beside the nonce.
pub(crate) const BOUND_BYTES: usize = 16;
/// What is sealed is a multiple of it. By measurement: `ring` takes 30 ns for the last block if it is not whole, and 10
/// for such a header (docs/PERFORMANCE.md, "Primitives").
pub(crate) const BLOCK_BYTES: usize = 16;
/// A BLAKE3 hash.
pub(crate) const DIGEST_BYTES: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Init = 1,
    Response = 2,
    Cookie = 3,
    Session = 4,
    Unknown = 5,
    Refusal = 6,
}

/// The application's class byte of a frame, before and without authentication: good for choosing which
/// frame to handle first, for nothing else. `None` for handshakes and for what is no frame.
pub fn peek_class(frame: &[u8]) -> Option<u8> {
    match peek_kind(frame)? {
        Kind::Session => Some(frame[2]),
        _ => None,
    }
}

/// The session and the frame number in the clear in a frame of a session: for who watches the wire, such as a test
/// that no number is used twice under one key.
pub fn peek_number(frame: &[u8]) -> Option<(u64, u64)> {
    match peek_kind(frame)? {
        Kind::Session => {
            let header = SessionHeader::read(frame);
            Some((header.session, header.number))
        }
        _ => None,
    }
}

pub(crate) fn peek_kind(frame: &[u8]) -> Option<Kind> {
    use handshake as h;
    let (kind, long_enough) = match frame {
        [FORMAT, 1, ..] => (Kind::Init, frame.len() == h::INIT_BYTES),
        [FORMAT, 2, 0, 0, ..] => (Kind::Response, frame.len() == h::RESPONSE_BYTES),
        [FORMAT, 3, 0, 0, ..] => (Kind::Cookie, frame.len() == h::COOKIE_BYTES),
        [FORMAT, 4, _, 0, ..] => (Kind::Session, frame.len() >= SESSION_HEADER_BYTES + MAC_BYTES),
        [FORMAT, 5, 0, 0, ..] => (Kind::Unknown, frame.len() == h::UNKNOWN_BYTES),
        [FORMAT, 6, _, 0, ..] => (Kind::Refusal, frame.len() == h::REFUSAL_BYTES),
        _ => return None,
    };
    long_enough.then_some(kind)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionHeader {
    pub(crate) class: u8,
    pub(crate) bulk_len: u32,
    pub(crate) session: u64,
    pub(crate) number: u64,
}

impl SessionHeader {
    pub(crate) fn to_bytes(self) -> [u8; SESSION_HEADER_BYTES] {
        let mut bytes = [0; SESSION_HEADER_BYTES];
        bytes[..4].copy_from_slice(&[FORMAT, Kind::Session as u8, self.class, 0]);
        bytes[4..8].copy_from_slice(&self.bulk_len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.session.to_le_bytes());
        bytes[16..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    /// The header of a frame that is long enough for one.
    fn read(frame: &[u8]) -> SessionHeader {
        let word = |at: usize| u64::from_le_bytes(frame[at..at + 8].try_into().expect("8 bytes"));
        SessionHeader {
            class: frame[2],
            bulk_len: u32::from_le_bytes(frame[4..8].try_into().expect("4 bytes")),
            session: word(8),
            number: word(16),
        }
    }
}

/// A session frame cut into its parts; nothing but the header has been looked at.
#[derive(Debug)]
pub(crate) struct SessionFrame<'a> {
    pub(crate) header: SessionHeader,
    pub(crate) head: &'a [u8],
    /// Text and tag.
    pub(crate) sealed: &'a mut [u8],
    pub(crate) bulk: &'a [u8],
}

impl<'a> SessionFrame<'a> {
    /// Cuts a frame that [`peek_kind`] has called a session frame; `None` if the lengths contradict each other.
    pub(crate) fn split(frame: &'a mut [u8]) -> Option<SessionFrame<'a>> {
        let header = SessionHeader::read(frame);
        let (head, rest) = frame.split_at_mut(SESSION_HEADER_BYTES);
        let digest = if header.bulk_len == 0 { 0 } else { DIGEST_BYTES };
        let sealed_len = rest.len().checked_sub(header.bulk_len as usize)?;
        let (sealed, bulk) = rest.split_at_mut(sealed_len);
        (sealed.len() >= digest + MAC_BYTES).then_some(SessionFrame { header, head, sealed, bulk })
    }
}
